"""The learner: batches in, trained weights out, every step a pure function on a mesh."""
