"""openpi's normalisation statistics (assets/<asset_id>/norm_stats.json) as ours, and back.

openpi: z-score (x - mean) / (std + 1e-6), or (x - q01) / (q99 - q01 + 1e-6) * 2 - 1; one number per dimension, the same
for every step of a chunk; dimensions past the statistics' length pass through. Which actions are differences from the
state is not in the file: openpi's data config says it (`DeltaActions`). Our own statistics may differ from step to step;
they are written with one row per step, which openpi's arithmetic takes as well.

Legend: `S` state dimensions, `A` action dimensions, `H` horizon.
"""

import json
from collections.abc import Collection
from typing import Any

import numpy as np

from sop_jax.models.normalization import NormStats, Scheme
from sop_jax.models.pi05.checkpoints.stores import InvalidCheckpointError

_EPSILON = 1e-6
_NORMAL_99 = 2.3263478740408408
"""Standard deviations between a normal distribution's mean and its 99th percentile: stands in for absent percentiles."""

_PASS_THROUGH = {"mean": 0.0, "std": 1.0, "low": -1.0, "high": 1.0 - _EPSILON}
"""Statistics that change nothing, by either scheme."""


def parse_openpi_stats(
    text: str | bytes,
    where: str,
    scheme: Scheme,
    state_dim: int,
    action_dim: int,
    horizon: int,
    delta_dims: Collection[int] | None = None,
) -> NormStats:
    """Statistics with which encoding and decoding give openpi's numbers.

    Args:
        text: the file.
        where: its name, for messages.
        scheme: what the policy will normalise by; "quantile" needs percentiles in the file.
        state_dim: S of the robot; longer statistics are cut, shorter ones let the rest pass through.
        action_dim: A of the robot.
        horizon: H of the policy.
        delta_dims: action dimensions that are differences from the state; None = what the file says if `format_openpi_stats`
            wrote it, else none.

    Raises:
        InvalidCheckpointError: the file isn't of that form, or lacks what the scheme needs.
    """
    try:
        content = json.loads(text)
        stats = content.get("norm_stats", content)
        state = _columns(stats["state"], scheme, where, (state_dim,))
        action = _columns(stats["actions"], scheme, where, (horizon, action_dim))
        deltas = content.get("delta_actions", ()) if delta_dims is None else delta_dims
        idle = content.get("idle_actions", ())
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise InvalidCheckpointError(
            f"{where}: expected openpi's statistics, {{'norm_stats': {{'state': {{'mean', 'std', 'q01', 'q99'}}, 'actions': "
            f"...}}}}; got {type(error).__name__}: {error}"
        ) from error
    if any(not 0 <= dim < min(action_dim, state_dim) for dim in deltas):
        raise InvalidCheckpointError(
            f"{where}: differences from the state were asked for in action dimensions {sorted(deltas)}, the policy has "
            f"{action_dim} actions and {state_dim} states"
        )
    return NormStats(
        **{f"state_{name}": column for name, column in state.items()},
        **{f"action_{name}": column for name, column in action.items()},
        action_is_delta=np.isin(np.arange(action_dim), list(deltas)),
        action_is_active=~np.isin(np.arange(action_dim), list(idle)),
    )


def format_openpi_stats(norm: NormStats) -> str:
    """The file's text; `parse_openpi_stats` gives every bit back.

    Two lists stand beside openpi's own: `delta_actions`, the dimensions for its `DeltaActions` mask, and `idle_actions`,
    which our models leave out and openpi's would not.
    """

    def entry(prefix: str) -> dict[str, Any]:
        mean, std, low, high = (_shorten(getattr(norm, f"{prefix}_{name}")) for name in ("mean", "std", "low", "high"))
        std = std.astype(np.float64) - _EPSILON  # openpi adds it again
        return {"mean": mean.tolist(), "std": std.tolist(), "q01": low.tolist(), "q99": high.tolist()}

    content = {
        "norm_stats": {"state": entry("state"), "actions": entry("action")},
        "delta_actions": np.flatnonzero(norm.action_is_delta).tolist(),
        "idle_actions": np.flatnonzero(~np.asarray(norm.action_is_active)).tolist(),
    }
    return json.dumps(content, indent=2) + "\n"


def _columns(entry: dict[str, Any], scheme: Scheme, where: str, shape: tuple[int, ...]) -> dict[str, np.ndarray]:
    """mean, std, low and high of `shape`, float32."""
    mean, std = (np.asarray(entry[name], np.float64) for name in ("mean", "std"))
    if entry.get("q01") is None or entry.get("q99") is None:
        if scheme == "quantile":
            raise InvalidCheckpointError(
                f"{where} has no percentiles (q01, q99), which this policy normalises by: compute the statistics again "
                "with a newer openpi"
            )
        low, high = mean - _NORMAL_99 * std, mean + _NORMAL_99 * std
    else:
        low, high = (np.asarray(entry[name], np.float64) for name in ("q01", "q99"))
    raw = {"mean": mean, "std": std + _EPSILON, "low": low, "high": high}
    return {name: _fit(value, shape, _PASS_THROUGH[name]) for name, value in raw.items()}


def _fit(values: np.ndarray, shape: tuple[int, ...], beyond: float) -> np.ndarray:
    """[D] or [H, D] to `shape`: cut, or continued with `beyond`."""
    values = values[..., : shape[-1]]
    if values.ndim > 1 and values.shape[:-1] != shape[:-1]:
        raise ValueError(f"statistics for {values.shape[0]} steps, the policy's horizon is {shape[0]}")
    row = np.broadcast_to(values, (*shape[:-1], values.shape[-1]))
    padding = np.full((*shape[:-1], shape[-1] - row.shape[-1]), beyond)
    return np.concatenate([row, padding], axis=-1).astype(np.float32)


def _shorten(values: Any) -> np.ndarray:
    """One row, if all steps have the same."""
    values = np.asarray(values)
    return values[0] if values.ndim == 2 and (values == values[:1]).all() else values
