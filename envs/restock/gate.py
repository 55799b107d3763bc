"""The scripted gate: privileged signals that stand in for a person who watches the policy and asks to take over."""

import dataclasses

from envs.environment import Environment
from envs.g1.drive import CONTROL_HZ
from envs.g1.kinematics import SIDES
from envs.restock.progress import Progress, progress_of
from envs.restock.situation import EMPTY_CLOSED, Goal, Situation, nearest_slot, slot_of
from envs.restock.task import RestockTask
from envs.watching import HandWatch

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
class GateConfig:
    """When the watcher objects. Progress means `progress_m` nearer to the sub-goal than ever since the phase began. Hands
    that are faster than `fastest_m_s` or nearer to each other than `nearest_hands_m` are unsafe.
    """

    no_progress_s: float = 0.7
    progress_m: float = 0.006
    rising_m: float = 0.06
    empty_grasp_s: float = 0.1
    low_over_slot_m: float = 0.05
    fastest_m_s: float = 1.2
    nearest_hands_m: float = 0.03
    time_left_s: float = 3.5

    def __post_init__(self) -> None:
        """Refuses thresholds that would fire at once."""
        for field in dataclasses.fields(self):
            if getattr(self, field.name) <= 0.0:
                raise ValueError(f"GateConfig.{field.name} must be positive, got {getattr(self, field.name)}")


class RestockGate:
    """Watches one environment. `reset` when the policy starts to act, then `check` once per control tick."""

    def __init__(self, env: Environment, task: RestockTask, config: GateConfig | None = None) -> None:
        self._env, self._task, self._config = env, task, config or GateConfig()
        self._hands = HandWatch(self._config.fastest_m_s, self._config.nearest_hands_m)
        self._tools = [task.model.site(f"g1/{side}_tcp").id for side in SIDES]
        self._best = Progress(0, float("inf"))
        self._idle_ticks = self._empty_ticks = 0

    def reset(self) -> None:
        """Forgets what was seen: progress is measured from here."""
        self._best = Progress(0, float("inf"))
        self._idle_ticks = self._empty_ticks = 0
        self._hands.reset()

    def check(self) -> str:
        """Why somebody should take over now, one of `REASONS`, or ""."""
        situation, goal = self._task.situation, self._task.goal
        now = progress_of(self._task.config, situation, goal)
        unsafe = "unsafe" if self._hands.is_unsafe(self._env.data.site_xpos.take(self._tools, axis=0)) else ""
        reason = unsafe or self._mistake(situation, goal) or self._trend(now)
        time_left_s = self._task.time_limit_s - self._env.time_s
        if not reason and time_left_s < self._config.time_left_s and now.phase < 2:
            return "timeout_near"
        return reason

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
