"""A `BatchSource` out of thin air, for tests of the learner: no store, no replay, no threads.

Legend: `B` batch.
"""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
from jaxtyping import Float32

from sop_jax.models.batch import ObservationBatch, TrainBatch
from sop_jax.models.pytrees import Leaf
from sop_jax.sampling.batch_source import Draw, LoadedBatch, never
from sop_jax.sampling.batch_spec import BatchSpec, Tokenize
from sop_jax.specs.records import NO_POLICY, Source


class SyntheticBatches:
    """Batches that depend on (seed, step) only; every action of a chunk repeats the state, so a policy can learn it.

    Implements `BatchSource`. `recorded` keeps what `record_losses` was given.
    """

    def __init__(self, spec: BatchSpec, tokenize: Tokenize, tasks: Sequence[str], batch_size: int, seed: int = 0):
        if spec.action_dim > spec.state_dim:
            raise ValueError(f"SyntheticBatches copies the state: action_dim {spec.action_dim} > {spec.state_dim}")
        self._spec = spec
        self._tokenize = tokenize
        self._tasks = tuple(tasks)
        self._batch_size = batch_size
        self._seed = seed
        self._step = 0
        self.recorded: list[tuple[tuple[Draw, ...], np.ndarray]] = []
        self.stopped = False

    def next(self, should_stop: Callable[[], bool] = never) -> LoadedBatch:
        del should_stop  # it never waits
        spec, num = self._spec, self._batch_size
        rng = np.random.default_rng([self._seed, self._step])
        tasks = [self._tasks[i % len(self._tasks)] for i in range(num)]
        online = np.arange(num) // len(self._tasks) % 2 == 1
        draws = tuple(Draw(t, Source.ONLINE if on else Source.OFFLINE) for t, on in zip(tasks, online, strict=True))
        state = rng.uniform(-1, 1, (num, spec.state_dim)).astype(np.float32)
        tokens, token_mask = self._tokenize(tasks)
        images: dict[str, Leaf] = {
            c.name: rng.integers(0, 256, (num, c.height, c.width, 3), np.uint8) for c in spec.cameras
        }
        observation = ObservationBatch(
            images=images,
            image_mask={name: np.ones(num, bool) for name in images},
            state=state,
            tokens=tokens,
            token_mask=token_mask,
        )
        batch = TrainBatch(
            observation=observation,
            actions=np.repeat(state[:, None, : spec.action_dim], spec.horizon, axis=1),
            action_mask=np.ones((num, spec.horizon), np.float32),
            weight=np.ones(num, np.float32),
        )
        self._step += 1
        return LoadedBatch(
            batch=batch,
            draws=draws,
            requested=draws,
            episode_ids=tuple(f"fake.{0:020d}.{i:06d}" for i in range(num)),
            frames=np.zeros(num, np.int32),
            policy_versions=np.where(online, 0, NO_POLICY).astype(np.int32),
            ended_ns=np.zeros(num, np.int64),
            intervention=online,
        )

    def record_losses(self, draws: Sequence[Draw], per_example: Float32[np.ndarray, "B"]) -> None:
        self.recorded.append((tuple(draws), per_example))

    def wait_share(self) -> float:
        return 0.0

    def state_dict(self) -> dict[str, Any]:
        return {"step": self._step}

    def load_state(self, state: Mapping[str, Any]) -> None:
        self._step = int(state["step"])

    def stop(self) -> None:
        self.stopped = True
