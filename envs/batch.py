"""Many environments in one process, stepped side by side.

MuJoCo lets go of Python's lock while it computes, so threads share the cores in the physics and in the images; what Python
does runs on the caller's thread, for all environments in a row: threads would only wait for the lock, and between two
lots of physics every line of Python is cold. Each environment's images stay on one thread for life, because its GL context
belongs to the thread that made it. What happens in an environment depends on its own seed and actions alone: the number of
threads changes nothing.
"""

import concurrent.futures
import os
from collections.abc import Callable, Sequence
from types import TracebackType
from typing import Self, TypeVar

import dm_env
import numpy as np

from envs.environment import Environment
from envs.errors import DivergedError, InvalidActionError
from envs.g1.drive import STATE_DIM

T = TypeVar("T")


class EnvironmentBatch:
    """Steps environments together. They may be of different tasks and individuals. Drive it from one thread.

        with EnvironmentBatch([envs.load("restock_shelf") for _ in range(32)]) as batch:
            timesteps = batch.reset(range(32))
            timesteps = batch.step(actions)              # [32, 16]; as `Environment.step`, one by one
            images = batch.render([3, 7])                # only of those whose frames are stored or inferred on

    An environment whose physics diverge gives None in place of its time step; the others go on. Its next `step` starts
    its next episode.
    """

    def __init__(self, environments: Sequence[Environment], num_threads: int = 0) -> None:
        """`num_threads` 0: as many as there are usable cores. The batch owns the environments: it closes them."""
        if not environments:
            raise ValueError("EnvironmentBatch needs at least one environment")
        if num_threads < 0:
            raise ValueError(f"num_threads must be 0 (one per core) or more, got {num_threads}")
        self.environments = tuple(environments)
        num_threads = min(num_threads or len(os.sched_getaffinity(0)), len(environments))
        self._threads = [concurrent.futures.ThreadPoolExecutor(1, f"worlds-{index}") for index in range(num_threads)]

    def __len__(self) -> int:
        return len(self.environments)

    def reset(self, seeds: Sequence[int]) -> list[dm_env.TimeStep]:
        """Starts the episodes of these seeds, one per environment."""
        self._check("seeds", len(seeds))
        return self._each(range(len(self)), lambda index: self.environments[index].reset(int(seeds[index])))

    def step(self, actions: np.ndarray) -> list[dm_env.TimeStep | None]:
        """Advances every environment by one control tick towards its row of `actions` [N, 16].

        Raises:
            InvalidActionError: a row is not finite, or the shape is wrong. Nothing has moved.
        """
        if np.shape(actions) != (len(self), STATE_DIM) or not np.isfinite(actions).all():
            raise InvalidActionError(
                f"actions must be finite numbers of shape {(len(self), STATE_DIM)}, got shape {np.shape(actions)}: {actions}"
            )
        timesteps: list[dm_env.TimeStep | None] = [None] * len(self)
        acting = [index for index, environment in enumerate(self.environments) if not environment.is_over]
        for index in acting:
            self.environments[index].begin_step(actions[index])
        self.advance_physics(acting)
        if any(environment.render_on_step for environment in self.environments):
            ended = self._each(acting, self._end_step)
        else:
            ended = [self._end_step(index) for index in acting]
        for index, timestep in zip(acting, ended, strict=True):
            timesteps[index] = timestep
        over = sorted(set(range(len(self))).difference(acting))
        for index, timestep in zip(over, self._each(over, lambda index: self.environments[index].reset()), strict=True):
            timesteps[index] = timestep
        return timesteps

    def advance_physics(self, indices: Sequence[int]) -> None:
        """The middle part of these environments' steps; the caller begins and ends them (`Environment.begin_step`)."""
        self._each(indices, lambda index: self.environments[index].advance_physics())

    def render(self, indices: Sequence[int] | None = None) -> list[dict[str, np.ndarray]]:
        """What the cameras of these environments (default: of all) see now, as `Environment.render`."""
        chosen = range(len(self)) if indices is None else indices
        return self._each(chosen, lambda index: self.environments[index].render())

    def close(self) -> None:
        """Closes every environment and ends the threads. Closing twice does nothing."""
        if self._threads:
            self._each(range(len(self)), lambda index: self.environments[index].close())
            for thread in self._threads:
                thread.shutdown()
            self._threads = []

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()

    def _end_step(self, index: int) -> dm_env.TimeStep | None:
        try:
            return self.environments[index].end_step()
        except DivergedError:
            return None

    def _each(self, indices: Sequence[int], work: Callable[[int], T]) -> list[T]:
        """`work` on these environments, each on its own thread; the results in the order of `indices`.

        One task per thread, not one per environment: handing over costs as much as a quarter of a step.
        """
        if not self._threads:
            raise RuntimeError("the batch is closed: make a new one")
        shares: dict[int, list[int]] = {}
        for place, index in enumerate(indices):
            shares.setdefault(range(len(self))[index] % len(self._threads), []).append(place)
        results: dict[int, T] = {}

        def work_off(places: list[int]) -> None:
            for place in places:
                results[place] = work(indices[place])

        futures = [self._threads[thread].submit(work_off, places) for thread, places in shares.items()]
        concurrent.futures.wait(futures)
        for future in futures:
            future.result()
        return [results[place] for place in range(len(indices))]

    def _check(self, what: str, count: int) -> None:
        if count != len(self):
            raise ValueError(f"{what}: expected one per environment, {len(self)}, got {count}")
