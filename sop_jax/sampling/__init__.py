"""From replay to the learner: which task and buffer each example comes from, and the batches themselves."""
