"""The shape of the batches that a policy wants."""

import dataclasses
import math
from collections.abc import Callable, Sequence

import numpy as np
from jaxtyping import Bool, Int32

from sop_jax.specs.records import CameraSpec

Tokenize = Callable[[Sequence[str]], tuple[Int32[np.ndarray, "B L"], Bool[np.ndarray, "B L"]]]
"""`PolicyModel.tokenize`: instructions to padded tokens and their mask. Pure. Raises ValueError if one has more than fit."""


@dataclasses.dataclass(frozen=True)
class BatchSpec:
    """What a policy reads and is taught: its cameras with the sizes of the recorded images, state dimensions, and chunks
    of `horizon` actions that are played at `control_hz`: a chunk of another rate would be played at another speed."""

    cameras: tuple[CameraSpec, ...]
    state_dim: int
    action_dim: int
    horizon: int
    control_hz: float = 30.0

    def __post_init__(self) -> None:
        if min(self.state_dim, self.action_dim, self.horizon) < 1:
            raise ValueError(
                "BatchSpec: state_dim, action_dim and horizon must be >= 1, got "
                f"{self.state_dim}, {self.action_dim}, {self.horizon}"
            )
        if not 0 < self.control_hz < math.inf:
            raise ValueError(f"BatchSpec: control_hz must be positive and finite, got {self.control_hz}")
        names = [camera.name for camera in self.cameras]
        if len(set(names)) != len(names):
            raise ValueError(f"BatchSpec: camera names must differ, got {names}")
