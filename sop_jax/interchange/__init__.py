"""Datasets of other projects: the store's episodes to LeRobot's format and back, AgiBot World's and RLDS into the store."""
