"""What a policy is told beside its observation: a suffix to the instruction, and how strongly to follow it."""

import dataclasses
import math

from sop_jax.specs.errors import ConfigError


@dataclasses.dataclass(frozen=True)
class Conditioning:
    """What a policy acts with; recorded episodes keep the bare instruction.

    suffix: put after the instruction, on a line of its own; "" = nothing.
    guidance: scale g of classifier-free guidance. The velocity is v_u + g (v_c - v_u) with v_c from the instruction with
        the suffix and v_u from the bare one. 1 is the suffix alone and costs nothing more; 0 leaves the suffix out.
    """

    suffix: str = ""
    guidance: float = 1.0

    def __post_init__(self) -> None:
        if not (math.isfinite(self.guidance) and self.guidance >= 0):
            raise ConfigError(f"Conditioning.guidance must be finite and >= 0, got {self.guidance}")

    @property
    def is_guided(self) -> bool:
        """Whether the bare instruction is read beside the one with the suffix."""
        return bool(self.suffix) and self.guidance != 1.0

    def describe(self) -> str:
        """For example "'Advantage: positive', beta 1.5" (beta: the guidance), or "the bare instruction"."""
        return f"{self.suffix!r}, beta {self.guidance:g}" if self.suffix else "the bare instruction"

    def apply(self, instruction: str) -> str:
        """The instruction as the policy reads it. Training must use the same text."""
        return f"{instruction}\n{self.suffix}" if self.suffix else instruction
