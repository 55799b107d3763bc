"""LeRobot's statistics of features: per episode, and of all episodes together.

Legend: `N` values, `D` dimensions.
"""

from collections.abc import Mapping, Sequence

import numpy as np

QUANTILES = {"q01": 0.01, "q10": 0.10, "q50": 0.50, "q90": 0.90, "q99": 0.99}
Stats = dict[str, np.ndarray]
"""min, max, mean, std, count [1] and QUANTILES of one feature."""


def vector_stats(values: np.ndarray) -> Stats:
    """Of [N] or [N, D]: arrays of [1] or [D]. Quantiles are values that occur (LeRobot reads them off a histogram)."""
    values = values.reshape(len(values), -1).astype(np.float64)
    quantiles = np.quantile(values, list(QUANTILES.values()), axis=0, method="inverted_cdf")
    return {
        "min": values.min(axis=0),
        "max": values.max(axis=0),
        "mean": values.mean(axis=0),
        "std": values.std(axis=0),
        "count": np.array([len(values)]),
        **dict(zip(QUANTILES, quantiles, strict=True)),
    }


class PictureStats:
    """Of every pixel of many pictures, per colour; values in [0, 1], arrays [3, 1, 1]."""

    def __init__(self) -> None:
        self._counts = np.zeros((3, 256), np.int64)
        self._num = 0

    def add(self, image: np.ndarray) -> None:
        """uint8 [height, width, 3]."""
        for colour in range(3):
            self._counts[colour] += np.bincount(image[..., colour].ravel(), minlength=256)
        self._num += 1

    def stats(self) -> Stats:
        """Needs one picture at least. A quantile is the smallest level that so many pixels don't exceed."""
        levels, counts = np.arange(256) / 255.0, self._counts
        total = counts.sum(axis=1)
        mean = (counts * levels[None]).sum(axis=1) / total
        variance = (counts * (levels[None] - mean[:, None]) ** 2).sum(axis=1) / total
        seen = counts > 0
        below = np.cumsum(counts, axis=1) / total[:, None]
        found = {
            "min": levels[seen.argmax(axis=1)],
            "max": levels[255 - seen[:, ::-1].argmax(axis=1)],
            "mean": mean,
            "std": np.sqrt(variance),
            **{name: levels[(below >= q).argmax(axis=1)] for name, q in QUANTILES.items()},
        }
        return {name: value.reshape(3, 1, 1) for name, value in found.items()} | {"count": np.array([self._num])}


def aggregate(episodes: Sequence[Stats]) -> Stats:
    """Of several episodes together; quantiles are the episodes' means, weighted by their counts, as LeRobot has them."""
    counts = np.array([int(stats["count"][0]) for stats in episodes], np.float64)
    weights = counts / counts.sum()

    def mean_of(name: str) -> np.ndarray:
        return np.tensordot(weights, np.stack([stats[name] for stats in episodes]), axes=1)

    mean = mean_of("mean")
    squares = np.stack([stats["std"] ** 2 + (stats["mean"] - mean) ** 2 for stats in episodes])
    return {
        "min": np.min([stats["min"] for stats in episodes], axis=0),
        "max": np.max([stats["max"] for stats in episodes], axis=0),
        "mean": mean,
        "std": np.sqrt(np.tensordot(weights, squares, axes=1)),
        "count": np.array([int(counts.sum())]),
        **{name: mean_of(name) for name in QUANTILES},
    }


def to_plain(stats: Mapping[str, Stats]) -> dict[str, dict[str, list]]:
    """Lists for JSON and Parquet."""
    return {feature: {name: value.tolist() for name, value in found.items()} for feature, found in stats.items()}
