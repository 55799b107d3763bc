"""Puts picked frames together into one batch of numpy arrays.

Legend: `B` batch, `H` horizon, `A` action, `S` state, `L` text tokens.
"""

import functools
from collections.abc import Sequence

import numpy as np
from jaxtyping import Bool, Int32

from sop_jax.algorithms.algorithm import Algorithm
from sop_jax.models.batch import ObservationBatch, TrainBatch
from sop_jax.sampling.batch_images import BatchImages
from sop_jax.sampling.batch_source import LoadedBatch
from sop_jax.sampling.batch_spec import BatchSpec, Tokenize
from sop_jax.sampling.episode_cache import EpisodeNumbers
from sop_jax.sampling.frame_picker import FramePick

_MAX_INSTRUCTIONS = 4096


class BatchBuilder:
    """Builds batches. Belongs to one thread. No I/O."""

    def __init__(self, spec: BatchSpec, tokenize: Tokenize, algorithm: Algorithm):
        self._spec = spec
        self._algorithm = algorithm

        @functools.lru_cache(maxsize=_MAX_INSTRUCTIONS)
        def tokenize_one(instruction: str) -> tuple[np.ndarray, np.ndarray]:
            tokens, mask = tokenize([instruction])
            return tokens[0], mask[0]

        self._tokenize_one = tokenize_one

    def build(
        self,
        picks: Sequence[FramePick],
        numbers: Sequence[EpisodeNumbers],
        images: BatchImages,
        rng: np.random.Generator,
    ) -> LoadedBatch:
        """The batch of these picks, in order, with images that are there already. `rng` is for lessons that vary."""
        spec, num = self._spec, len(picks)
        frames = np.array([pick.item.frame for pick in picks], np.int32)
        places = list(zip(numbers, frames.tolist(), strict=True))
        actions = np.empty((num, spec.horizon, spec.action_dim), np.float32)
        masks = np.empty((num, spec.horizon), np.float32)
        state = np.empty((num, spec.state_dim), np.float32)
        for row, (episode, frame) in enumerate(places):
            actions[row] = episode.targets[frame : frame + spec.horizon]
            masks[row] = episode.masks[frame]
            state[row] = episode.arrays.state[frame]
        lessons = [
            self._algorithm.make_lesson(episode.manifest.instruction, pick.item.label, rng)
            for pick, episode in zip(picks, numbers, strict=True)
        ]
        tokens, token_mask = self._stack_tokens([lesson.instruction for lesson in lessons])
        names = [camera.name for camera in spec.cameras]
        observation = ObservationBatch(
            images=dict(zip(names, images.pixels, strict=True)),
            image_mask=dict(zip(names, images.masks, strict=True)),
            state=state,
            tokens=tokens,
            token_mask=token_mask,
        )
        return LoadedBatch(
            batch=TrainBatch(
                observation=observation,
                actions=actions,
                action_mask=masks,
                weight=np.array([lesson.weight for lesson in lessons], np.float32),
            ),
            draws=tuple(pick.draw for pick in picks),
            requested=tuple(pick.requested for pick in picks),
            episode_ids=tuple(pick.item.episode_id for pick in picks),
            frames=frames,
            policy_versions=np.array([e.arrays.policy_version[frame] for e, frame in places], np.int32),
            ended_ns=np.array([pick.item.ended_ns for pick in picks], np.int64),
            intervention=np.array([e.arrays.intervention[frame] for e, frame in places], bool),
        )

    def _stack_tokens(self, instructions: Sequence[str]) -> tuple[Int32[np.ndarray, "B L"], Bool[np.ndarray, "B L"]]:
        rows = [self._tokenize_one(instruction) for instruction in instructions]
        return np.stack([tokens for tokens, _ in rows]), np.stack([mask for _, mask in rows])
