"""What an actor needs of its policy: chunks, stillness during an episode, swaps between two.

Legend: `H` horizon, `A` action dimensions.
"""

import contextlib
from collections.abc import Iterator, Mapping
from typing import Any, Protocol, runtime_checkable

import numpy as np

from sop_jax.models.pytrees import Params
from sop_jax.specs.chunking import ChunkPrefix
from sop_jax.specs.records import Observation, RobotSpec


class SwapInsideEpisodeError(RuntimeError):
    """Somebody tried to change the policy while an episode ran on it."""


@runtime_checkable
class RobotPolicy(Protocol):
    """One robot's policy: a `PolicyRunner` of its own, or a `PolicySeat` at a policy that several robots share.

        policy.warm_up(robot.spec)                              # compiles: seconds; later calls never do
        with policy.episode():                                  # inside, `swap` raises
            chunk = policy.infer(observation, seed)             # float32 [H, A]
        policy.swap(trained_params, version)

    Implements `specs.interfaces.ActionSource`. A chunk is a function of the weights, the observation, the seed and the
    prefix alone. `weights_base` and `norm_stats` are the fingerprints that episodes carry; `num_compilations` counts what
    was compiled for this policy, and stays as it is after `warm_up`. One thread at a time drives a robot.
    """

    @property
    def version(self) -> int: ...

    @property
    def horizon(self) -> int: ...

    @property
    def weights_base(self) -> str: ...

    @property
    def norm_stats(self) -> str: ...

    @property
    def num_compilations(self) -> int: ...

    @property
    def trained_template(self) -> Params:
        """Shapes and dtypes of the leaves that publications replace, as a nested dict."""
        ...

    def infer(self, observation: Observation, seed: int, prefix: ChunkPrefix | None = None) -> np.ndarray:
        """The chunk of absolute targets, float32 [H, A], from an observation with images. Blocks until it is there.

        Raises:
            ValueError: no image of a camera that the policy needs, images of another size than at the first call, or a
                prefix where the policy's chunking mode is "none".
            InferenceTimeoutError: a shared policy gave no chunk in time.
        """
        ...

    def warm_up(self, spec: RobotSpec, instruction: str = "warm up") -> None:
        """Compiles for this robot's cameras by inferring on a black scene. The instruction doesn't matter."""
        ...

    def episode(self) -> contextlib.AbstractContextManager[None]:
        """Holds the policy still: `swap` raises until the block ends."""
        ...

    def swap(self, params: Mapping[str, Any], version: int) -> None:
        """Replaces trained leaves (a nested dict like `trained_template`) and takes on `version`; frozen ones stay.

        Raises:
            SwapInsideEpisodeError: inside `episode()`. The policy of an episode never changes.
            InvalidPublicationError: leaves are missing, unknown, or of another shape or dtype. Nothing has changed then.
        """
        ...


def black_scene(spec: RobotSpec, instruction: str) -> Observation:
    """What a robot of this kind sees in the dark, at rest: enough to compile for it."""
    images = {camera.name: np.zeros((camera.height, camera.width, 3), np.uint8) for camera in spec.cameras}
    return Observation(images, np.zeros(spec.state_dim, np.float32), instruction, 0)


class EpisodeGuard:
    """Remembers whether an episode runs on a policy, and refuses a swap in it."""

    def __init__(self) -> None:
        self.is_closed = False

    @contextlib.contextmanager
    def hold(self) -> Iterator[None]:
        """While an episode runs. Raises SwapInsideEpisodeError if one runs already."""
        if self.is_closed:
            raise SwapInsideEpisodeError("an episode is running on this policy already; give each robot its own")
        self.is_closed = True
        try:
            yield
        finally:
            self.is_closed = False

    def check_open(self, present: int, wanted: int) -> None:
        """Raises SwapInsideEpisodeError while an episode runs."""
        if self.is_closed:
            raise SwapInsideEpisodeError(
                f"can't swap to version {wanted}: an episode is running on version {present}; swap when it ended"
            )
