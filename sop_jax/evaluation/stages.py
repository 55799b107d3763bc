"""Which stage of its task a simulated episode was in, frame by frame: the world replays the recorded actions.

Episodes don't record stages: they are privileged, and only a simulation has them.
"""

from collections.abc import Sequence

import numpy as np

import envs
from envs.environment import Environment
from envs.errors import DivergedError
from sop_jax.specs.records import EpisodeArrays, EpisodeManifest

_TOLERANCE_RAD = 1e-3
"""How far the replay's joints may be from the recorded ones."""


class StageFinder:
    """Finds stages, with one world per task kept open. Not thread-safe."""

    def __init__(self) -> None:
        self._worlds: dict[str, Environment | None] = {}

    def find(self, manifest: EpisodeManifest, arrays: EpisodeArrays) -> Sequence[str] | None:
        """The stage at every frame; None if no world has this task, or if the replay comes out differently (another version
        of the world, another individual, a scene that was disturbed before the first frame)."""
        world = self._world(manifest.task)
        if world is None:
            return None
        stages = []
        try:
            world.reset(manifest.seed)
            for action, state in zip(arrays.action, arrays.state, strict=True):
                if np.abs(world.task.drive.state(world.data) - state).max() > _TOLERANCE_RAD:
                    return None
                stages.append(world.stage())
                world.step(action)
        except DivergedError:
            return None
        return stages

    def close(self) -> None:
        for world in self._worlds.values():
            if world is not None:
                world.close()

    def _world(self, task: str) -> Environment | None:
        if task not in self._worlds:
            known = task in envs.TASKS
            self._worlds[task] = envs.load(task, image_size=8) if known else None
            if (world := self._worlds[task]) is not None:
                world.render_on_step = False
        return self._worlds[task]
