"""Normalisation statistics: raw units to numbers near 1 and back.

Actions are encoded, per chunk step and dimension, as the difference from the measured state, except where the absolute
target says more: grippers, and dimensions that never move in the data. Those idle dimensions are decoded to their constant
target whatever the policy says, so that an unused arm neither costs the policy capacity nor drifts.

Legend: `B` batch, `T` frames, `S` state dimensions, `A` action dimensions, `H` horizon. Needs S >= A: state dimension i
measures action dimension i.
"""

import dataclasses
import hashlib
import json
import pathlib
from collections.abc import Sequence
from typing import Any, Literal

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float

from sop_jax.models.pytrees import Leaf, register_record
from sop_jax.specs.records import EpisodeArrays

Scheme = Literal["mean_std", "quantile"]
"""mean_std: zero mean, unit variance. quantile: 1st and 99th percentile to -1 and 1, as pi0.5 does. Neither clips."""

GRIPPER_DIMS = (14, 15)
"""Action dimensions that are always absolute on the two-armed robot (specs/records.py)."""

FORMAT_VERSION = 1
_STATE_FLOOR = 1e-2
_ACTION_FLOOR = 2e-3
_IDLE_RANGE = 2e-2


@register_record
@dataclasses.dataclass(frozen=True)
class NormStats:
    """Statistics of a data set. Enters jit as an argument, so that new statistics cause no new compilation.

    state_low, state_high, action_low, action_high: 1st and 99th percentile.
    action_is_delta: which dimensions are encoded as differences from the state.
    action_is_active: False on dimensions that never move in the data.
    Standard deviations and percentile ranges have been floored, so nothing divides by zero.
    """

    state_mean: Float[Leaf, " S"]
    state_std: Float[Leaf, " S"]
    state_low: Float[Leaf, " S"]
    state_high: Float[Leaf, " S"]
    action_mean: Float[Leaf, "H A"]
    action_std: Float[Leaf, "H A"]
    action_low: Float[Leaf, "H A"]
    action_high: Float[Leaf, "H A"]
    action_is_delta: Bool[Leaf, " A"]
    action_is_active: Bool[Leaf, " A"]

    @property
    def fingerprint(self) -> str:
        """16 hex digits that change with any statistic. Host side only."""
        digest = hashlib.sha256()
        for name, value in _arrays(self).items():
            digest.update(f"{name}{value.dtype}{value.shape}".encode())
            digest.update(np.ascontiguousarray(value).tobytes())
        return digest.hexdigest()[:16]


def normalize_state(norm: NormStats, state: Float[Leaf, "B S"], scheme: Scheme = "mean_std") -> Float[Array, "B S"]:
    """Raw state to numbers near 1."""
    offset, scale, centre = _affine(scheme, norm.state_mean, norm.state_std, norm.state_low, norm.state_high)
    return (jnp.asarray(state) - offset[None]) / scale[None] - centre


def encode_actions(
    norm: NormStats, state: Float[Leaf, "B S"], actions: Float[Leaf, "B H A"], scheme: Scheme = "mean_std"
) -> Float[Array, "B H A"]:
    """Absolute targets to numbers near 1; idle dimensions to 0."""
    offset, scale, centre = _affine(scheme, norm.action_mean, norm.action_std, norm.action_low, norm.action_high)
    encoded = (actions - _reference(norm, state) - offset[None]) / scale[None] - centre
    return jnp.where(norm.action_is_active[None, None], encoded, 0.0)


def decode_actions(
    norm: NormStats, state: Float[Leaf, "B S"], encoded: Float[Array, "B H A"], scheme: Scheme = "mean_std"
) -> Float[Array, "B H A"]:
    """The inverse of `encode_actions`; idle dimensions to their constant target."""
    offset, scale, centre = _affine(scheme, norm.action_mean, norm.action_std, norm.action_low, norm.action_high)
    encoded = jnp.where(norm.action_is_active[None, None], encoded, 0.0)
    return (encoded + centre) * scale[None] + offset[None] + _reference(norm, state)


def compute_norm_stats(
    episodes: Sequence[EpisodeArrays], horizon: int, absolute_dims: Sequence[int] = GRIPPER_DIMS
) -> NormStats:
    """Statistics over every frame of `episodes`, of whoever acted; chunks stop at the episode's end.

    Raises:
        ValueError: if there is no episode of at least `horizon` frames.
    """
    episodes = [episode for episode in episodes if episode.num_frames >= horizon]
    if not episodes or horizon < 1:
        raise ValueError(f"normalisation needs at least one episode of {horizon} frames or more, got none")
    state = np.concatenate([episode.state for episode in episodes]).astype(np.float64)
    action = np.concatenate([episode.action for episode in episodes]).astype(np.float64)
    active = action.max(0) - action.min(0) >= _IDLE_RANGE
    is_delta = active.copy()
    is_delta[[dim for dim in absolute_dims if dim < len(is_delta)]] = False

    columns: dict[str, list[np.ndarray]] = {"mean": [], "std": [], "low": [], "high": []}
    for step in range(horizon):
        targets = np.concatenate([episode.action[step:] for episode in episodes]).astype(np.float64)
        reference = np.concatenate([episode.state[: episode.num_frames - step] for episode in episodes])
        encoded = targets - np.where(is_delta, reference[:, : len(is_delta)], 0.0)
        for name, value in _summary(encoded, _ACTION_FLOOR).items():
            columns[name].append(value)
    return NormStats(
        **{f"state_{name}": value.astype(np.float32) for name, value in _summary(state, _STATE_FLOOR).items()},
        **{f"action_{name}": np.stack(values).astype(np.float32) for name, values in columns.items()},
        action_is_delta=is_delta,
        action_is_active=active,
    )


def identity_norm_stats(state_dim: int, action_dim: int, horizon: int) -> NormStats:
    """Statistics that change nothing: mean 0, deviation 1, percentiles -1 and 1, absolute actions. For tests and shapes."""
    return NormStats(
        state_mean=np.zeros(state_dim, np.float32),
        state_std=np.ones(state_dim, np.float32),
        state_low=-np.ones(state_dim, np.float32),
        state_high=np.ones(state_dim, np.float32),
        action_mean=np.zeros((horizon, action_dim), np.float32),
        action_std=np.ones((horizon, action_dim), np.float32),
        action_low=-np.ones((horizon, action_dim), np.float32),
        action_high=np.ones((horizon, action_dim), np.float32),
        action_is_delta=np.zeros(action_dim, bool),
        action_is_active=np.ones(action_dim, bool),
    )


def save_norm_stats(norm: NormStats, path: pathlib.Path) -> None:
    """Writes JSON that `load_norm_stats` reads back bit for bit."""
    content = {name: value.tolist() for name, value in _arrays(norm).items()}
    path.write_text(json.dumps({"format_version": FORMAT_VERSION, "fingerprint": norm.fingerprint, **content}) + "\n")


def load_norm_stats(path: pathlib.Path) -> NormStats:
    """Reads JSON that `save_norm_stats` wrote.

    Raises:
        ValueError: if the file is of another format version, lacks a field, or was changed since it was written.
    """
    content: dict[str, Any] = json.loads(path.read_text())
    names = [field.name for field in dataclasses.fields(NormStats)]
    expected = {"format_version", "fingerprint", *names}
    if content.get("format_version") != FORMAT_VERSION or set(content) != expected:
        raise ValueError(
            f"{path}: expected normalisation statistics of format {FORMAT_VERSION} with fields {sorted(expected)}, got "
            f"format {content.get('format_version')} with {sorted(content)}. Compute them again with this version."
        )
    dtypes = {name: bool if name.startswith("action_is_") else np.float32 for name in names}
    norm = NormStats(**{name: np.asarray(content[name], dtypes[name]) for name in names})
    if norm.fingerprint != content["fingerprint"]:
        raise ValueError(
            f"{path}: the statistics have fingerprint {norm.fingerprint}, the file claims {content['fingerprint']}: it was "
            "changed after it was written. Restore it, or compute the statistics again."
        )
    return norm


def _arrays(norm: NormStats) -> dict[str, np.ndarray]:
    return {field.name: np.asarray(getattr(norm, field.name)) for field in dataclasses.fields(norm)}


def _summary(values: np.ndarray, floor: float) -> dict[str, np.ndarray]:
    low, high = np.quantile(values, [0.01, 0.99], axis=0)
    widen = np.maximum(0.0, 4 * floor - (high - low)) / 2
    return {
        "mean": values.mean(0),
        "std": np.maximum(values.std(0), floor),
        "low": low - widen,
        "high": high + widen,
    }


def _affine(scheme: Scheme, mean: Leaf, std: Leaf, low: Leaf, high: Leaf) -> tuple[Any, Any, float]:
    """(offset, scale, centre) of `(x - offset) / scale - centre`.

    Percentiles are centred last, as openpi does: a dimension that hardly moves would lose its digits the other way.
    """
    if scheme == "mean_std":
        return mean, std, 0.0
    return low, (high - low + 1e-6) / 2, 1.0


def _reference(norm: NormStats, state: Leaf) -> Array:
    """What each action is a difference from, [B, 1, A]: the state, or 0 where actions are absolute."""
    action_dim = norm.action_is_delta.shape[-1]
    return jnp.where(norm.action_is_delta[None], state[:, :action_dim], 0.0)[:, None]
