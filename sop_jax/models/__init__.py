"""Policies behind one interface: raw observations and targets in, losses and chunks of absolute targets out."""
