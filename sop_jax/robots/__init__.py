"""Robots: what carries out actions and sees the world, simulated or real, and who may take over."""
