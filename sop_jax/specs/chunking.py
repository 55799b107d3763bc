"""Continuing a chunk: what a policy is told of the chunk that the robot still executes, and how it may use it.

While the policy computes, the robot goes on with its previous chunk. Counted from the observation's own tick, the first
`num_frozen` actions of what is left will have been executed when the new chunk arrives; the others, up to `num_known`, are
what the robot would have done next.

    |<- frozen ->|<-- known, to be continued softly -->|<-- free: the policy's own -->|
    0         num_frozen                           num_known                         H

Legend: `H` horizon of an action chunk, `A` action dimensions.
"""

import dataclasses
from typing import Literal

import numpy as np

from sop_jax.specs.errors import ConfigError

Schedule = Literal["exponential", "linear"]
"""How the pull towards the previous chunk falls between the frozen actions and the free ones."""


@dataclasses.dataclass(frozen=True)
class ChunkPrefix:
    """What is left of the previous chunk, aligned with the next one.

    actions: float32 [H, A], absolute targets; rows from `num_known` on mean nothing.
    num_frozen, num_known: counts of leading actions, 0 <= num_frozen <= num_known <= H.
    """

    actions: np.ndarray
    num_frozen: int
    num_known: int

    def __post_init__(self) -> None:
        if not 0 <= self.num_frozen <= self.num_known <= len(self.actions):
            raise ValueError(
                "ChunkPrefix needs 0 <= num_frozen <= num_known <= H, got "
                f"{self.num_frozen}, {self.num_known} and H = {len(self.actions)}"
            )


@dataclasses.dataclass(frozen=True)
class Guidance:
    """Real-time chunking at inference time: how strongly sampling is pulled towards the previous chunk.

    schedule: of the pull over the known actions. max_weight: clips the guidance weight, which is infinite at pure noise.
    """

    schedule: Schedule = "exponential"
    max_weight: float = 5.0

    def __post_init__(self) -> None:
        if self.schedule not in ("exponential", "linear"):
            raise ConfigError(f"Guidance.schedule must be 'exponential' or 'linear', got {self.schedule!r}")
        if not 0 <= self.max_weight < float("inf"):
            raise ConfigError(f"Guidance.max_weight must be finite and >= 0, got {self.max_weight}")
