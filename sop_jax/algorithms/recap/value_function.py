"""A trained value function with what it knows of each task: how good is a situation, and was an action better than expected.

    value.json, norm_stats.json, params/    the model (`models.value.bundle`)
    returns.json                            how episodes were judged; per task T_max and the advantages' quantiles

Legend: `T` frames of an episode, `K` of them with images, `B` batch, `V` bins.
"""

import dataclasses
import functools
import json
import pathlib
import types
from collections.abc import Callable, Mapping
from typing import Any

import jax
import numpy as np
from jaxtyping import Bool, Float, Float32, Int32

from sop_jax.algorithms.recap.returns import ReturnsConfig, advantages, rewards, spread_values
from sop_jax.episodes.episode_images import EpisodeImages
from sop_jax.models.batch import ObservationBatch
from sop_jax.models.bundle import InvalidBundleError
from sop_jax.models.images import resize_with_pad_on_host
from sop_jax.models.pytrees import Leaf
from sop_jax.models.value.bundle import ValueBundle, load_value_bundle
from sop_jax.models.value.distribution import bin_values
from sop_jax.specs.errors import ConfigError, UnlabelledEpisodeError
from sop_jax.specs.records import EpisodeArrays, EpisodeManifest

NUM_QUANTILES = 101
"""Quantiles of a task's advantages that are kept: of 0%, 1% .. 100%."""

MAX_PIXELS = 1920 * 1080
"""Of one image: a robot may claim any size, and many are decoded at once."""

_BATCH = 32
"""Frames per call, the last one padded: one compilation serves episodes of any length."""


@dataclasses.dataclass(frozen=True)
class TaskReturns:
    """What the training data say about a task.

    max_frames: its longest episode, T_max. advantage_quantiles: of its frames with images in held-out episodes, rising.
    """

    max_frames: int
    advantage_quantiles: tuple[float, ...] = ()

    def threshold(self, positive_share: float) -> float:
        """The advantage that this share of the frames exceeds."""
        return float(
            np.interp(1 - positive_share, np.linspace(0, 1, len(self.advantage_quantiles)), self.advantage_quantiles)
        )


@dataclasses.dataclass(frozen=True)
class ValueFunction:
    """A value function, ready to judge episodes. Its calls compile once, whatever sizes cameras have or claim."""

    bundle: ValueBundle
    returns: ReturnsConfig
    tasks: Mapping[str, TaskReturns]

    def task(self, name: str) -> TaskReturns:
        """Raises ConfigError if it was trained without this task."""
        if name not in self.tasks:
            raise ConfigError(
                f"the value function knows the tasks {sorted(self.tasks)}, not {name!r}: train it on episodes of that task "
                "too (sop pretrain --value-of)"
            )
        return self.tasks[name]

    def distributions(
        self, manifest: EpisodeManifest, arrays: EpisodeArrays, images: EpisodeImages
    ) -> Float32[np.ndarray, "K V"]:
        """What is thought of the return at every frame with images: the probabilities of the bins.

        Raises UnlabelledEpisodeError for one that it can't read: images beyond `MAX_PIXELS`, another number of joints, an
        instruction of too many tokens.
        """
        self._check_readable(manifest, arrays)
        tokens, token_mask = self._tokenize(manifest)
        size = self.bundle.model.image_size
        black, found = np.zeros((_BATCH, size, size, 3), np.uint8), []
        for start in range(0, len(arrays.image_frames), _BATCH):
            rows = list(range(start, min(start + _BATCH, len(arrays.image_frames))))
            padding = _BATCH - len(rows)
            pixels = {
                name: _pad(resize_with_pad_on_host(stack, size), padding)
                for name, stack in images.read(rows, self.bundle.model.cameras).items()
            }
            observation = ObservationBatch(
                images={name: pixels.get(name, black) for name in self.bundle.model.cameras},
                image_mask={name: np.full(_BATCH, name in pixels) for name in self.bundle.model.cameras},
                state=_pad(arrays.state[arrays.image_frames[rows]].astype(np.float32), padding),
                tokens=np.repeat(tokens, _BATCH, axis=0),
                token_mask=np.repeat(token_mask, _BATCH, axis=0),
            )
            found.append(np.asarray(self._predict(observation))[: len(rows)])
        return np.concatenate([np.zeros((0, self.bundle.config.num_bins)), *found]).astype(np.float32)

    def values(
        self, manifest: EpisodeManifest, arrays: EpisodeArrays, images: EpisodeImages
    ) -> Float32[np.ndarray, "K"]:
        """V at every frame with images: the mean of its distribution."""
        return self.distributions(manifest, arrays, images) @ np.asarray(bin_values(self.bundle.config.num_bins))

    def rewards(self, manifest: EpisodeManifest) -> Float[np.ndarray, "T"]:
        """Normalised rewards of every frame. Raises ValueError for an episode whose end says nothing."""
        max_frames = self.task(manifest.task).max_frames
        return rewards(manifest.num_frames, manifest.outcome, max_frames, self.returns.failure_cost)

    def advantages(
        self, manifest: EpisodeManifest, arrays: EpisodeArrays, values: Float[np.ndarray, "K"]
    ) -> Float[np.ndarray, "T"]:
        """A of every frame, given V of those with images; the others lean on their neighbours' values. Raises
        UnlabelledEpisodeError if no frame has one."""
        if not len(arrays.image_frames):
            raise UnlabelledEpisodeError(
                f"episode {manifest.episode_id} has no images: expected one or more frames with them, to judge by"
            )
        spread = spread_values(values, arrays.image_frames, manifest.num_frames)
        return advantages(self.rewards(manifest), spread, self.returns.advantage_frames, arrays.intervention)

    def save(self, directory: pathlib.Path) -> str:
        """Writes the directory, which must not exist or be empty; returns the model's fingerprint."""
        fingerprint = self.bundle.save(directory)
        content = {
            "returns": dataclasses.asdict(self.returns),
            "tasks": {name: dataclasses.asdict(task) for name, task in sorted(self.tasks.items())},
        }
        (directory / "returns.json").write_text(json.dumps(content, indent=1) + "\n")
        return fingerprint

    def _check_readable(self, manifest: EpisodeManifest, arrays: EpisodeArrays) -> None:
        for camera in manifest.cameras:
            if camera.name in self.bundle.model.cameras and camera.height * camera.width > MAX_PIXELS:
                raise UnlabelledEpisodeError(
                    f"episode {manifest.episode_id}: camera {camera.name} has {camera.height}x{camera.width} pixels, a value "
                    f"function reads at most {MAX_PIXELS}"
                )
        expected = self.bundle.norm.state_mean.shape[-1]
        if arrays.state.shape[1] != expected:
            raise UnlabelledEpisodeError(
                f"episode {manifest.episode_id}: the state has {arrays.state.shape[1]} dimensions, the value function reads "
                f"{expected}; it comes from another type of robot"
            )

    def _tokenize(self, manifest: EpisodeManifest) -> tuple[Int32[np.ndarray, "1 L"], Bool[np.ndarray, "1 L"]]:
        try:
            return self.bundle.model.tokenize([manifest.instruction])
        except ValueError as error:
            raise UnlabelledEpisodeError(f"episode {manifest.episode_id}: {error}") from error

    @functools.cached_property
    def _predict(self) -> Callable[[ObservationBatch], Float32[Leaf, "B V"]]:
        model = self.bundle.model
        params, norm = jax.device_put((self.bundle.params, self.bundle.norm))
        predict: Any = jax.jit(lambda params, norm, seen: jax.nn.softmax(model.logits(params, norm, seen)))
        return lambda observation: predict(params, norm, observation)


def load_value_function(directory: pathlib.Path) -> ValueFunction:
    """Reads a value function. Raises ConfigError if there is none, InvalidBundleError if it is damaged."""
    if not (directory / "value.json").exists():
        raise ConfigError(
            f"{directory} is no value function: it has no value.json. Make one with `sop pretrain --value-of POLICY --store "
            "STORE --output DIRECTORY`"
        )
    bundle = load_value_bundle(directory)
    try:
        content = json.loads((directory / "returns.json").read_text())
        tasks = {
            name: TaskReturns(task["max_frames"], tuple(task["advantage_quantiles"]))
            for name, task in content["tasks"].items()
        }
        return ValueFunction(bundle, ReturnsConfig(**content["returns"]), types.MappingProxyType(tasks))
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise InvalidBundleError(f"{directory}/returns.json can't be read: {error}") from error


def _pad(rows: np.ndarray, padding: int) -> np.ndarray:
    return np.pad(rows, ((0, padding), *[(0, 0)] * (rows.ndim - 1)))
