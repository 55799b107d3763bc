"""The scripted gate: privileged signals that stand in for a person who watches the policy and asks to take over."""

import dataclasses

from envs.box.config import ENDS
from envs.box.progress import Progress, progress_of
from envs.box.situation import CREASED_RAD, RAISED_RAD, Goal, Situation, has_tab_outside
from envs.box.task import CRUSHING_N, BoxTask
from envs.environment import Environment
from envs.g1.drive import CONTROL_HZ
from envs.watching import Thresholds, Watcher

REASONS = (
    "unsafe",
    "crushed_flap",
    "wrong_order",
    "wrong_end",
    "fell_back",
    "rising_distance",
    "no_progress",
    "timeout_near",
)


@dataclasses.dataclass(frozen=True)
class GateConfig(Thresholds):
    """When the watcher objects. Progress means `progress_m` less to do than ever since the step began; `force_share` is
    relative to the force that crushes the board; `early_rad` is how far an end wall may be raised before its turn.
    """

    no_progress_s: float = 1.2
    progress_m: float = 0.006
    rising_m: float = 0.12
    force_share: float = 0.5
    early_rad: float = CREASED_RAD
    time_left_s: float = 4.0


class BoxGate(Watcher[BoxTask, GateConfig]):
    """Watches for flaps that are crushed or folded out of turn, and for hands that get nowhere."""

    def __init__(self, env: Environment, task: BoxTask, config: GateConfig | None = None) -> None:
        super().__init__(env, task, config or GateConfig())

    def _forget(self) -> None:
        self._best: Progress | None = None
        self._idle_ticks = 0

    def _objection(self) -> str:
        return self._mistake(self._task.situation, self._task.goal) or self._trend(self._progress())

    def _time_needed_s(self) -> float:
        return self._config.time_left_s if self._progress().step < 5 else 0.0

    def _progress(self) -> Progress:
        return progress_of(self._task.situation, self._task.goal)

    def _mistake(self, situation: Situation, goal: Goal) -> str:
        if situation.force_n > self._config.force_share * CRUSHING_N:
            return "crushed_flap"
        for end in ENDS:
            early = situation.end(end) > self._config.early_rad
            if early and end not in goal.ends:
                return "wrong_end"
            sides_lie = min(situation.side(0), situation.side(1)) < RAISED_RAD and not situation.latched
            if early and (sides_lie or has_tab_outside(situation, end)):
                return "wrong_order"
        return ""

    def _trend(self, now: Progress) -> str:
        config, best = self._config, self._best
        if best is None or now.step > best.step:
            self._best, self._idle_ticks = now, 0
            return ""
        if now.step < best.step:
            self._best, self._idle_ticks = now, 0
            return "fell_back" if now.step < best.step - 1 else ""
        if now.remaining_m < best.remaining_m - config.progress_m:
            self._best, self._idle_ticks = now, 0
            return ""
        self._idle_ticks += 1
        if now.remaining_m > best.remaining_m + config.rising_m:
            return "rising_distance"
        return "no_progress" if self._idle_ticks >= config.no_progress_s * CONTROL_HZ else ""
