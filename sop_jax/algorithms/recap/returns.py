"""Rewards, returns and advantages of an episode (2511.14759, equation 5), in units of a task's worst return.

A frame costs 1 until the end; the last one costs nothing after a success and C_fail after a failure or a timeout. There is
no discount. Everything is divided by T_max + C_fail, so that returns lie in [-1, 0] and those of failures don't pile up at
-1: with C_fail = T_max successes lie above -1/2 and failures below.

Legend: `T` frames of an episode, `K` of them with images.
"""

import dataclasses
import math

import numpy as np
from jaxtyping import Bool, Float, Int32

from sop_jax.specs.errors import ConfigError
from sop_jax.specs.records import Outcome

JUDGED = (Outcome.SUCCESS, Outcome.FAILURE, Outcome.TIMEOUT)
"""Ends that say how good an episode was. An aborted one might have gone either way; an error says nothing of the policy."""


@dataclasses.dataclass(frozen=True)
class ReturnsConfig:
    """How episodes are judged.

    failure_cost: C_fail, as a multiple of the task's longest episode T_max.
    advantage_frames: N of the advantage. 30 frames are 1 s at 30 Hz, as the paper's 50 are at 50 Hz.
    """

    failure_cost: float = 1.0
    advantage_frames: int = 30

    def __post_init__(self) -> None:
        if not (math.isfinite(self.failure_cost) and self.failure_cost > 0) or self.advantage_frames < 1:
            raise ConfigError(
                "ReturnsConfig needs failure_cost > 0 and advantage_frames >= 1, got "
                f"{self.failure_cost} and {self.advantage_frames}"
            )


def rewards(num_frames: int, outcome: Outcome, max_frames: int, failure_cost: float) -> Float[np.ndarray, "T"]:
    """Of every frame, divided by T_max + C_fail. Raises ValueError for an end that says nothing."""
    if outcome not in JUDGED:
        raise ValueError(f"an episode that ended as {outcome} has no return; expected one of {[*JUDGED]}")
    reward = np.full(num_frames, -1.0)
    reward[-1] = 0.0 if outcome == Outcome.SUCCESS else -failure_cost * max_frames
    return reward / (max_frames * (1 + failure_cost))


def returns(reward: Float[np.ndarray, "T"]) -> Float[np.ndarray, "T"]:
    """The sum of the rewards from each frame on, clipped to [-1, 0] (an episode may be longer than any before)."""
    return np.cumsum(reward[::-1])[::-1].clip(-1.0, 0.0)


def spread_values(
    values: Float[np.ndarray, "K"], image_frames: Int32[np.ndarray, "K"], num_frames: int
) -> Float[np.ndarray, "T"]:
    """Values of all frames from those of frames with images: on a straight line between two, held before and after."""
    return np.interp(np.arange(num_frames), image_frames, values)


def advantages(
    reward: Float[np.ndarray, "T"],
    values: Float[np.ndarray, "T"],
    num_frames_ahead: int,
    human: Bool[np.ndarray, "T"] | None = None,
) -> Float[np.ndarray, "T"]:
    """A_t = r_t + ... + r_{t+N-1} + V_{t+N} - V_t, with N = `num_frames_ahead`; beyond the end nothing is left to earn.

    human: who took over. The policy is judged by what it did itself: its frames look no further than the next human one.
        (The paper's formula has no such bound: the last second before a rescue would pass for better than expected.)
    """
    num_frames = len(reward)
    sums = np.concatenate([[0.0], np.cumsum(reward)])
    frame = np.arange(num_frames)
    ahead = np.minimum(frame + num_frames_ahead, num_frames)
    if human is not None:
        human_frames = np.append(np.flatnonzero(human), num_frames)
        ahead = np.where(human, ahead, np.minimum(ahead, human_frames[np.searchsorted(human_frames, frame)]))
    padded = np.concatenate([values, [0.0]])
    return sums[ahead] - sums[frame] + padded[ahead] - values
