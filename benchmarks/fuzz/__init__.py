"""Coverage-guided fuzzing of every parser of what strangers send. See `__main__`."""
