"""Weights of a few numbers, and where publications lie on the disk."""

import pathlib

import numpy as np

BASE, NORM = "base-1", "norm-1"


def make_params(value: float) -> dict:
    """A tiny trained sub-tree whose every number is `value`."""
    return {
        "head": {"kernel": np.full((3, 4), value, np.float32), "bias": np.full((4,), value, np.float16)},
        "scale": np.float32(value) * np.ones((), np.float32),
    }


def version_directory(store_url: str, version: int) -> pathlib.Path:
    return pathlib.Path(store_url.removeprefix("file://")) / "weights" / f"{version:08d}"
