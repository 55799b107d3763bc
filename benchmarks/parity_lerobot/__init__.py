"""Numeric parity of our pi0.5 with an independent one, LeRobot's in PyTorch, at a small size."""
