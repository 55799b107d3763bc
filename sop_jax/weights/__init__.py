"""Weights on their way from the learner to the robots: immutable publications in the store."""
