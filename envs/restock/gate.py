"""The scripted gate: privileged signals that stand in for a person who watches the policy and asks to take over."""

import dataclasses

from envs.environment import Environment
from envs.g1.drive import CONTROL_HZ
from envs.restock.progress import Progress, progress_of
from envs.restock.situation import EMPTY_CLOSED, Goal, Situation, nearest_slot, slot_of
from envs.restock.task import RestockTask
from envs.watching import Thresholds, Watcher

REASONS = (
    "unsafe",
    "wrong_object",
    "wrong_slot",
    "dropped",
    "empty_grasp",
    "rising_distance",
    "no_progress",
    "timeout_near",
)


@dataclasses.dataclass(frozen=True)
class GateConfig(Thresholds):
    """When the watcher objects. Progress means `progress_m` nearer to the sub-goal than ever since the phase began."""

    no_progress_s: float = 0.7
    progress_m: float = 0.006
    rising_m: float = 0.06
    empty_grasp_s: float = 0.1
    low_over_slot_m: float = 0.05
    time_left_s: float = 3.5


class RestockGate(Watcher[RestockTask, GateConfig]):
    """Watches for mistakes with goods and slots, and for a hand that gets nowhere."""

    def __init__(self, env: Environment, task: RestockTask, config: GateConfig | None = None) -> None:
        super().__init__(env, task, config or GateConfig())

    def _forget(self) -> None:
        self._best = Progress(0, float("inf"))
        self._idle_ticks = self._empty_ticks = 0

    def _objection(self) -> str:
        return self._mistake(self._task.situation, self._task.goal) or self._trend(self._progress())

    def _time_needed_s(self) -> float:
        return self._config.time_left_s if self._progress().phase < 2 else 0.0

    def _progress(self) -> Progress:
        return progress_of(self._task.config, self._task.situation, self._task.goal)

    def _mistake(self, situation: Situation, goal: Goal) -> str:
        scene, config = self._task.config, self._config
        if situation.held is not None and situation.held != goal.item:
            return "wrong_object"
        item = situation.items[goal.item]
        right = (None, goal.slot, situation.origin(goal.item))
        if situation.held == goal.item:
            over = nearest_slot(scene, item)
            bottom = item[2] - situation.extents[goal.item]
            if over not in right and bottom < scene.slots[over].surface_m + config.low_over_slot_m:
                return "wrong_slot"
        elif slot_of(scene, situation, goal.item) not in right:
            return "wrong_slot"
        empty = situation.held is None and situation.closure > EMPTY_CLOSED
        self._empty_ticks = self._empty_ticks + 1 if empty else 0
        return "empty_grasp" if self._empty_ticks >= config.empty_grasp_s * CONTROL_HZ else ""

    def _trend(self, now: Progress) -> str:
        config, best = self._config, self._best
        if now.phase > best.phase or now.phase < best.phase:
            self._best, self._idle_ticks = now, 0
            return "dropped" if best.phase == 1 and now.phase == 0 else ""
        if now.remaining_m < best.remaining_m - config.progress_m:
            self._best, self._idle_ticks = now, 0
            return ""
        self._idle_ticks += 1
        if now.remaining_m > best.remaining_m + config.rising_m:
            return "rising_distance"
        return "no_progress" if self._idle_ticks >= config.no_progress_s * CONTROL_HZ else ""
