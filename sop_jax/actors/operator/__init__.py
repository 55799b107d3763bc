"""People at the robots: who may take over, drive, hand back and judge, from a page, a device or a stream."""
