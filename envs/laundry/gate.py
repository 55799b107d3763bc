"""The scripted gate: privileged signals that stand in for a person who watches the policy and asks to take over."""

import dataclasses

import numpy as np

from envs.environment import Environment
from envs.g1.drive import CONTROL_HZ
from envs.laundry.progress import remaining_m
from envs.laundry.situation import EMPTY_CLOSED, STAGES, Situation
from envs.laundry.task import LaundryTask
from envs.watching import Thresholds, Watcher

REASONS = ("unsafe", "dropped", "empty_grasp", "fold_error", "no_progress", "timeout_near")


@dataclasses.dataclass(frozen=True)
class GateConfig(Thresholds):
    """When the watcher objects.

    Progress means `progress_m` less on average per vertex than ever since the stage began. `dropped_m` is how high over
    the table cloth may be let go. A fold error is a stage that has fallen back by `stages_lost` or more for
    `fold_error_s`. `stage_s` is how long one of the remaining stages takes at least.
    """

    no_progress_s: float = 15.0
    progress_m: float = 0.0005
    empty_grasp_s: float = 0.4
    dropped_m: float = 0.07
    fold_error_s: float = 2.0
    stages_lost: int = 2
    stage_s: float = 3.0


class LaundryGate(Watcher[LaundryTask, GateConfig]):
    """Watches for cloth that is dropped or not caught, for folds that come undone, and for hands that get nowhere."""

    def __init__(self, env: Environment, task: LaundryTask, config: GateConfig | None = None) -> None:
        super().__init__(env, task, config or GateConfig())

    def _forget(self) -> None:
        self._before: Situation | None = None
        self._stage = self._furthest = 0
        self._best_m = np.inf
        self._idle_ticks = self._empty_ticks = self._lost_ticks = 0

    def _objection(self) -> str:
        now, before = self._task.situation, self._before
        self._before = now
        stage = STAGES.index(self._task.stage())
        return self._mishap(now, before) or self._lost_work(now, stage) or self._trend(now, stage)

    def _time_needed_s(self) -> float:
        return self._config.stage_s * (len(STAGES) - 1 - STAGES.index(self._task.stage()))

    def _mishap(self, now: Situation, before: Situation | None) -> str:
        config = self._config
        if before is not None:
            for was, held in zip(before.held, now.held, strict=True):
                if was and not held and before.vertices[was[0], 2] > self._floor(before, was[0]) + config.dropped_m:
                    return "dropped"
        empty = any(closed > EMPTY_CLOSED and not held for closed, held in zip(now.closures, now.held, strict=True))
        self._empty_ticks = self._empty_ticks + 1 if empty else 0
        return "empty_grasp" if self._empty_ticks >= config.empty_grasp_s * CONTROL_HZ else ""

    def _floor(self, situation: Situation, vertex: int) -> float:
        """What lies under a vertex: a stack's top or the table."""
        for name, stack_m in self._task.config.stack_centres_m.items():
            if float(np.abs(situation.vertices[vertex, :2] - stack_m).max()) < 0.12:
                return situation.surfaces_m[name]
        return self._task.config.table_height_m

    def _lost_work(self, now: Situation, stage: int) -> str:
        lost = now.hands_empty and stage <= self._furthest - self._config.stages_lost
        self._furthest = max(self._furthest, stage)
        self._lost_ticks = self._lost_ticks + 1 if lost else 0
        return "fold_error" if self._lost_ticks >= self._config.fold_error_s * CONTROL_HZ else ""

    def _trend(self, now: Situation, stage: int) -> str:
        config = self._config
        left_m = remaining_m(self._task.config, now, self._task.goal, STAGES[stage])
        if stage != self._stage or left_m < self._best_m - config.progress_m:
            self._stage, self._best_m, self._idle_ticks = stage, left_m, 0
            return ""
        self._idle_ticks += 1
        return "no_progress" if self._idle_ticks >= config.no_progress_s * CONTROL_HZ else ""
