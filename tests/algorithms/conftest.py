"""Tiny episodes written as text: "p" the policy acts, "a" it acts while a takeover is asked for, "h" the human does."""

import re
from collections.abc import Iterator, Sequence

import numpy as np

from sop_jax.specs.records import (
    NO_POLICY,
    EpisodeArrays,
    EpisodeManifest,
    Outcome,
    Source,
    TakeoverEvent,
)


def episode_of(
    who: str,
    outcome: Outcome = Outcome.SUCCESS,
    source: Source = Source.ONLINE,
    pose: Sequence[float] | None = None,
) -> tuple[EpisodeManifest, EpisodeArrays]:
    """One frame per letter of `who`; `pose` is where joint "a" stands at each (default: at 0)."""
    num = len(who)
    manifest = EpisodeManifest(
        episode_id="robot-0.00000000000000000001.000000",
        robot_id="robot-0",
        task="restock_shelf",
        instruction="put the cup on the shelf",
        source=source,
        policy_version=3 if source == Source.ONLINE else NO_POLICY,
        outcome=outcome,
        control_hz=30.0,
        num_frames=num,
        cameras=(),
        action_names=("a", "b_gripper"),
        started_ns=0,
        ended_ns=num,
        takeovers=tuple(TakeoverEvent(*edges, reason="operator") for edges in _edges(who)),
    )
    state = np.zeros((num, 2), np.float32)
    if pose is not None:
        state[:, 0] = pose
    arrays = EpisodeArrays(
        state=state,
        action=np.arange(2 * num, dtype=np.float32).reshape(num, 2),
        intervention=np.array([letter == "h" for letter in who], bool),
        policy_version=np.full(num, manifest.policy_version, np.int32),
        time_ns=np.arange(num, dtype=np.int64),
        image_frames=np.arange(num, dtype=np.int32),
    )
    return manifest, arrays


def _edges(who: str) -> Iterator[tuple[int, int, int]]:
    """(asked, takeover, handback) of each intervention."""
    for match in re.finditer("a*(h+)", who):
        yield match.start(), match.start(1), match.end()


def rows(masks: np.ndarray) -> list[str]:
    """Masks as text: "1" teaches, "." doesn't."""
    return ["".join("1" if teaches else "." for teaches in row) for row in masks]
