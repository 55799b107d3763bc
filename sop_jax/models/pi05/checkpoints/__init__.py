"""Weights of other projects: openpi's checkpoints (Orbax) and PaliGemma's (.npz), in and out."""
