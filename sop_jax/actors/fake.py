"""Policies without a network, for tests and for measuring the loop around a policy."""

from collections.abc import Callable, Sequence

import numpy as np

from sop_jax.actors.chunk_player import ChunkRequest
from sop_jax.specs.chunking import ChunkPrefix
from sop_jax.specs.records import Observation


class FakePolicy:
    """Implements `specs.interfaces.ActionSource`: a function of the observation, repeated over the horizon.

    The default action holds the present pose. `noise` adds seeded noise [rad]. `seeds`, `times_ns` and `prefixes` record the
    calls.
    """

    def __init__(
        self,
        act: Callable[[Observation], np.ndarray] | None = None,
        horizon: int = 16,
        version: int = 0,
        noise: float = 0.0,
    ):
        self._act = act or (lambda observation: observation.state)
        self._horizon = horizon
        self._noise = noise
        self.version = version
        self.seeds: list[int] = []
        self.times_ns: list[int] = []
        self.prefixes: list[ChunkPrefix | None] = []

    @property
    def horizon(self) -> int:
        return self._horizon

    def infer(self, observation: Observation, seed: int, prefix: ChunkPrefix | None = None) -> np.ndarray:
        self.prefixes.append(prefix)
        self.seeds.append(seed)
        self.times_ns.append(observation.time_ns)
        action = np.asarray(self._act(observation), np.float32)
        chunk = np.tile(action, (self._horizon, 1))
        if self._noise:
            chunk += np.random.default_rng(seed).normal(0.0, self._noise, chunk.shape).astype(np.float32)
        return chunk

    def infer_rows(self, requests: Sequence[ChunkRequest], num_rows: int) -> np.ndarray:
        """As `PolicyRunner.infer_rows`."""
        del num_rows
        return np.stack([self.infer(request.observation, request.seed, request.prefix) for request in requests])


def reads_goal(observation: Observation) -> np.ndarray:
    """The action that a FakeRobot's images ask for: reads the goal pose from the red pixel columns, float32 [A]."""
    image = next(iter(observation.images.values()))
    return (image[0, : len(observation.state), 0].astype(np.float32) + 0.5) / 127.5 - 1.0
