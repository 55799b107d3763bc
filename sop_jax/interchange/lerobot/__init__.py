"""LeRobot datasets: version 3.0 written and read, 2.0 and 2.1 read."""
