"""How one chunk of actions follows another: the setting, free of JAX so that any process can read it."""

import dataclasses
from typing import Literal

from sop_jax.specs.chunking import Guidance, Schedule
from sop_jax.specs.errors import ConfigError


@dataclasses.dataclass(frozen=True)
class ChunkingConfig:
    """Real-time chunking: whether a new chunk continues the one that the robot is executing.

    mode: "none" samples every chunk afresh. "guided" pulls sampling towards what is left of the previous chunk
        (arXiv 2506.07339): any policy, about three times the head's work. "trained" gives the actions that will have been
        executed when the chunk arrives to a policy that was trained for it (arXiv 2512.05964, `max_training_delay`).
    schedule, max_guidance_weight: of "guided", see `specs.chunking.Guidance`.
    """

    mode: Literal["none", "guided", "trained"] = "none"
    schedule: Schedule = "exponential"
    max_guidance_weight: float = 5.0

    def __post_init__(self) -> None:
        if self.mode not in ("none", "guided", "trained"):
            raise ConfigError(f"ChunkingConfig.mode must be one of 'none', 'guided' and 'trained', got {self.mode!r}")
        Guidance(self.schedule, self.max_guidance_weight)  # refuses what is out of range

    @property
    def guidance(self) -> Guidance | None:
        """What the model is told in mode "guided"; None in the others."""
        return Guidance(self.schedule, self.max_guidance_weight) if self.mode == "guided" else None
