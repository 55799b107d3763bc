"""The scripted gate: privileged signals that stand in for a person who watches the policy and asks to take over."""

import dataclasses

from envs.box.config import ENDS, SIDES
from envs.box.progress import Progress, progress_of
from envs.box.situation import CREASED_RAD, RAISED_RAD, Goal, Situation, has_tab_outside
from envs.box.task import CRUSHING_N, BoxTask
from envs.environment import Environment
from envs.g1.drive import CONTROL_HZ
from envs.watching import HandWatch

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
class GateConfig:
    """When the watcher objects. Progress means `progress_m` less to do than ever since the step began; `force_share` is
    relative to the force that crushes the board; `early_rad` is how far an end wall may be raised before its turn. Hands
    that are faster than `fastest_m_s` or nearer to each other than `nearest_hands_m` are unsafe.
    """

    no_progress_s: float = 1.2
    progress_m: float = 0.006
    rising_m: float = 0.12
    force_share: float = 0.5
    early_rad: float = CREASED_RAD
    fastest_m_s: float = 1.2
    nearest_hands_m: float = 0.03
    time_left_s: float = 4.0

    def __post_init__(self) -> None:
        """Refuses thresholds that would fire at once."""
        for field in dataclasses.fields(self):
            if getattr(self, field.name) <= 0.0:
                raise ValueError(f"GateConfig.{field.name} must be positive, got {getattr(self, field.name)}")


class BoxGate:
    """Watches one environment. `reset` when the policy starts to act, then `check` once per control tick."""

    def __init__(self, env: Environment, task: BoxTask, config: GateConfig | None = None) -> None:
        self._env, self._task, self._config = env, task, config or GateConfig()
        self._hands = HandWatch(self._config.fastest_m_s, self._config.nearest_hands_m)
        self._tools = [task.model.site(f"g1/{side}_tcp").id for side in SIDES]
        self._best: Progress | None = None
        self._idle_ticks = 0

    def reset(self) -> None:
        """Forgets what was seen: progress is measured from here."""
        self._best, self._idle_ticks = None, 0
        self._hands.reset()

    def check(self) -> str:
        """Why somebody should take over now, one of `REASONS`, or ""."""
        situation, goal = self._task.situation, self._task.goal
        now = progress_of(situation, goal)
        unsafe = "unsafe" if self._hands.is_unsafe(self._env.data.site_xpos.take(self._tools, axis=0)) else ""
        reason = unsafe or self._mistake(situation, goal) or self._trend(now)
        time_left_s = self._task.time_limit_s - self._env.time_s
        if not reason and time_left_s < self._config.time_left_s and now.step < 5:
            return "timeout_near"
        return reason

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
