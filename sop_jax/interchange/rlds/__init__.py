"""RLDS datasets as TFDS writes them, read without TensorFlow."""
