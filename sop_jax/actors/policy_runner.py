"""The policy on the robot's computer: compiled once, swapped only between episodes.

Legend: `H` horizon, `A` action dimensions, `S` state dimensions, `h w` image pixels.
"""

import contextlib
from collections.abc import Iterator, Mapping
from typing import Any, final

import jax
import numpy as np

from sop_jax.models.batch import ObservationBatch
from sop_jax.models.bundle import PolicyBundle
from sop_jax.models.normalization import NormStats
from sop_jax.models.policy import PolicyModel
from sop_jax.models.pytrees import Params, flatten_params, unflatten_params
from sop_jax.specs.errors import InvalidPublicationError
from sop_jax.specs.records import Observation, RobotSpec


class SwapInsideEpisodeError(RuntimeError):
    """Somebody tried to change the policy while an episode ran on it."""


@final
class PolicyRunner:
    """Implements `specs.interfaces.ActionSource` with a model at batch 1.

        runner = PolicyRunner(model, params, norm, version=0)
        runner.warm_up(robot.spec)                              # compiles: seconds; later calls never do
        with runner.episode():                                  # inside, `swap` raises
            chunk = runner.infer(observation, seed)             # float32 [H, A]
        runner.swap(trained_params, version)

    Not thread-safe: the thread that drives the robot owns it. `weights_base` and `norm_stats` are the fingerprints that
    episodes carry.
    """

    def __init__(
        self,
        model: PolicyModel,
        params: Params,
        norm: NormStats,
        version: int = 0,
        weights_base: str = "",
        norm_stats: str | None = None,
    ):
        self._model = model
        self._params: Params = jax.device_put(params)
        self._norm: NormStats = jax.device_put(norm)
        self._version = version
        self.weights_base = weights_base
        self.norm_stats = norm.fingerprint if norm_stats is None else norm_stats
        self._tokens: dict[str, tuple[np.ndarray, np.ndarray]] = {}
        self._image_shapes: dict[str, tuple[int, ...]] = {}
        self._in_episode = False
        self._num_compilations = 0
        self._sample = jax.jit(self._sample_one)

    @classmethod
    def from_bundle(cls, bundle: PolicyBundle) -> "PolicyRunner":
        """A runner of the unpublished base (version 0), with the bundle's fingerprints."""
        return cls(bundle.model, bundle.params, bundle.norm, version=0, weights_base=bundle.fingerprint)

    @property
    def version(self) -> int:
        return self._version

    @property
    def horizon(self) -> int:
        return self._model.horizon

    @property
    def num_compilations(self) -> int:
        return self._num_compilations

    @property
    def trained_template(self) -> Params:
        """Shapes and dtypes of the leaves that publications replace, as a nested dict."""
        return unflatten_params(
            {
                path: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype)
                for path, leaf in flatten_params(self._params).items()
                if self._model.is_trained(path)
            }
        )

    def infer(self, observation: Observation, seed: int) -> np.ndarray:
        """The chunk of absolute targets, float32 [H, A], from an observation with images. Blocks until it is there.

        Raises:
            ValueError: no image of a camera that the policy needs, or images of another size than at the first call.
        """
        chunk = self._sample(self._params, self._norm, self._to_batch(observation), np.uint32(seed))
        return np.asarray(chunk, np.float32)

    def warm_up(self, spec: RobotSpec, instruction: str = "warm up") -> None:
        """Compiles for this robot's cameras by inferring once on a black scene. The instruction doesn't matter."""
        images = {camera.name: np.zeros((camera.height, camera.width, 3), np.uint8) for camera in spec.cameras}
        self.infer(Observation(images, np.zeros(spec.state_dim, np.float32), instruction, 0), 0)

    @contextlib.contextmanager
    def episode(self) -> Iterator[None]:
        """Holds the policy still: `swap` raises until the block ends."""
        if self._in_episode:
            raise SwapInsideEpisodeError("an episode is running on this policy already; give each robot its own runner")
        self._in_episode = True
        try:
            yield
        finally:
            self._in_episode = False

    def swap(self, params: Mapping[str, Any], version: int) -> None:
        """Replaces trained leaves (a nested dict like `trained_template`) and takes on `version`; frozen ones stay.

        Raises:
            SwapInsideEpisodeError: inside `episode()`. The policy of an episode never changes.
            InvalidPublicationError: leaves are missing, unknown, or of another shape or dtype. Nothing has changed then.
        """
        if self._in_episode:
            raise SwapInsideEpisodeError(
                f"can't swap to version {version}: an episode is running on version {self._version}; swap when it ended"
            )
        new, present = flatten_params(params), flatten_params(self._params)
        expected = flatten_params(self.trained_template)
        if new.keys() != expected.keys():
            missing, unknown = sorted(expected.keys() - new.keys()), sorted(new.keys() - expected.keys())
            raise InvalidPublicationError(
                f"version {version}: expected the {len(expected)} trained leaves, {len(missing)} are missing "
                f"{missing[:3]}, {len(unknown)} are unknown {unknown[:3]}. Was it published by another model?"
            )
        for path, leaf in new.items():
            if (leaf.shape, leaf.dtype) != (expected[path].shape, expected[path].dtype):
                raise InvalidPublicationError(
                    f"version {version}: leaf {'/'.join(path)} is {leaf.dtype}{list(leaf.shape)}, expected "
                    f"{expected[path].dtype}{list(expected[path].shape)}. Was it published by another model?"
                )
        merged = unflatten_params({**present, **jax.device_put(new)})
        self._params = jax.block_until_ready(merged)
        self._version = version

    def _sample_one(self, params: Params, norm: NormStats, observation: ObservationBatch, seed: jax.Array) -> jax.Array:
        self._num_compilations += 1  # Runs while tracing only.
        return self._model.sample_actions(params, norm, observation, jax.random.key(seed))[0]

    def _to_batch(self, observation: Observation) -> ObservationBatch:
        images, mask = {}, {}
        for name in self._model.cameras:
            image = observation.images.get(name)
            shape = self._image_shapes.get(name)
            if shape is None and image is not None:
                shape = self._image_shapes[name] = image.shape
            if shape is None or (image is not None and image.shape != shape):
                raise ValueError(
                    f"the policy needs images of camera {name!r} of shape {shape or '[h, w, 3]'}, got "
                    f"{'none' if image is None else image.shape} (cameras given: {sorted(observation.images)})"
                )
            images[name] = (np.zeros(shape, np.uint8) if image is None else image)[None]
            mask[name] = np.array([image is not None])
        tokens, token_mask = self._tokenize(observation.instruction)
        state = np.asarray(observation.state, np.float32)[None]
        return ObservationBatch(images=images, image_mask=mask, state=state, tokens=tokens, token_mask=token_mask)

    def _tokenize(self, instruction: str) -> tuple[np.ndarray, np.ndarray]:
        if instruction not in self._tokens:
            if len(self._tokens) >= 1024:
                self._tokens.clear()
            self._tokens[instruction] = self._model.tokenize([instruction])
        return self._tokens[instruction]
