"""Sealed episodes: one immutable object per episode, its format, its checks, and the store that holds it."""
