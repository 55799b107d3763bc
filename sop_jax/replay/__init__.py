"""Replay tables (a Reverb server or in-process), the items they hold, and the intake that fills them from the store."""
