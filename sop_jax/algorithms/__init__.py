"""Post-training algorithms as plug-ins: which frames teach, with which labels, and the loss."""
