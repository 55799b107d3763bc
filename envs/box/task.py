"""`box_assembly`: fold a blank into a box with a closed bottom, and close the ends that the instruction names.

Success: the named ends are latched, the other one lies open, and both hands have drawn back and stay away: who closes one
end on the way to the other has not left it open. An end latches by itself
once everything there is square and both its tabs lie behind the end wall; nothing opens a latch again. An episode fails
early only beyond doubt: the board was crushed, an end that should stay open has latched, the blank was pushed off its
stand, or the walls have stood for a while with a tab outside (folded in the wrong order).
"""

import dataclasses
import math
from types import MappingProxyType

import mujoco
import numpy as np

from envs.box.blank import BlankBody
from envs.box.config import ENDS, SIDES, TABS, WALLS, BoxConfig
from envs.box.hand_pose import READY_RAD, TIP_M
from envs.box.scene import compile_model
from envs.box.situation import (
    STAGES,
    BlankState,
    Goal,
    Situation,
    has_tab_outside,
    have_drawn_back,
    is_closed,
    may_latch,
    sides_stand,
    stage_of,
)
from envs.g1.drive import CONTROL_HZ, NUM_ARM_JOINTS
from envs.judged_task import JudgedTask
from envs.room import randomise_light

FAILURES = ("fold_error", "dropped", "timeout")
INSTRUCTIONS = MappingProxyType(
    {
        "fold the box and close both ends": Goal(("far", "near")),
        "fold the box and leave the near end open": Goal(("far",)),
        "fold the box and leave the far end open": Goal(("near",)),
    }
)
CRUSHING_N = 25.0  # a press this hard on the board ...
_CRUSHING_TICKS = 3  # ... for this long leaves a crease
_WRONG_TICKS = 4 * CONTROL_HZ  # sides and an end stand for so long with a tab outside: that box is folded wrong
_OFF_STAND_M = 0.06
_DONE_TICKS = CONTROL_HZ // 4  # hands that pass on from one end to the other are off the box for 2 ticks


class BoxTask(JudgedTask[Situation]):
    """The task. Owns the compiled model and what an episode's judgement has to remember."""

    name = "box_assembly"
    world = "box_assembly/2"
    stage_names = STAGES

    def __init__(self, config: BoxConfig | None = None) -> None:
        self.config = config or BoxConfig()
        # Both hands beside the blank, grippers closed.
        rest_state = np.concatenate([*(READY_RAD[side] for side in SIDES), (1.0, 1.0)])
        super().__init__(self.config, compile_model(self.config), rest_state)
        self._blank = BlankBody(self.model, self.config)
        sites = np.array([self.model.site(f"g1/{side}_tcp").id for side in SIDES])
        # In flat arrays: x, y, z of both tools, and of their z axes, the last columns of their rotations.
        self._tools = (3 * sites[:, None] + np.arange(3)).ravel()
        self._axes = (9 * sites[:, None] + 2 + 3 * np.arange(3)).ravel()
        self._instruction, self._goal = "", Goal(())
        self._latched: frozenset[str] = frozenset()
        self._crushing_ticks = self._wrong_ticks = self._done_ticks = 0
        self._data: mujoco.MjData | None = None
        self._state = BlankState(self.config.size, (0.0, 0.0, 0.0), self.config.blank_height_m, (), (), frozenset())

    @property
    def goal(self) -> Goal:
        """What this episode asks for."""
        return self._goal

    @property
    def instruction(self) -> str:
        """One of `INSTRUCTIONS`."""
        return self._instruction

    @property
    def instructions(self) -> tuple[str, ...]:
        """All of `INSTRUCTIONS`."""
        return tuple(INSTRUCTIONS)

    def parse(self, instruction: str) -> Goal:
        """The ends that an instruction asks to close.

        Raises:
            ValueError: the text is none of `INSTRUCTIONS`.
        """
        if instruction not in INSTRUCTIONS:
            raise ValueError(f"instruction {instruction!r} must be one of {tuple(INSTRUCTIONS)}")
        return INSTRUCTIONS[instruction]

    def initialize(self, data: mujoco.MjData, rng: np.random.Generator) -> None:
        """Draws the instruction, the blank, its place and creases, light and start posture."""
        config = self.config
        self._instruction = tuple(INSTRUCTIONS)[rng.integers(len(INSTRUCTIONS))]
        self._goal = self.parse(self._instruction)
        length, width, height = rng.uniform(1 - config.size_share, 1 + config.size_share, size=3)
        self._blank.dress(config.size.scaled(length, width, height), str(rng.choice(config.boards)))
        place = rng.uniform(-1.0, 1.0, size=3) * (config.place_m, config.place_m, config.place_yaw_rad)
        walls, tabs = (rng.uniform(*config.crease_rad, size=len(names)) for names in (WALLS, TABS))
        self._blank.place(data, place, walls, tabs)
        randomise_light(self.model, config.lighting, rng)
        self._start(data, np.append(rng.normal(0.0, config.start_noise_rad, size=NUM_ARM_JOINTS), (0.0, 0.0)))
        self._latched = frozenset()
        self._crushing_ticks = self._wrong_ticks = self._done_ticks = 0
        mujoco.mj_forward(self.model, data)
        self._look(data, 0.0)

    def after_step(self, data: mujoco.MjData, executed: np.ndarray, time_s: float) -> None:
        """Latches what clicks, then looks at the blank and judges it."""
        blank = self._look(data, time_s)
        for end in ENDS:
            if end not in self._latched and may_latch(blank, end):
                self._blank.latch(data, end)
                self._latched |= {end}
        if blank.latched != self._latched:
            blank = self._state = dataclasses.replace(blank, latched=self._latched)
        self._failure = self._failure or self._judge(blank, self._blank.is_pressed(data, CRUSHING_N))
        is_finished = (
            bool(self._latched) and is_closed(blank, self._goal) and have_drawn_back(blank, self._fingertips(data))
        )
        self._done_ticks = self._done_ticks + 1 if is_finished else 0
        self._success = not self._failure and self._done_ticks >= _DONE_TICKS

    @property
    def situation(self) -> Situation:
        """The privileged state after the last tick, or after reset. Who doesn't ask for it doesn't pay for it."""
        if self._situation is None and self._data is not None:
            seen = {field.name: getattr(self._state, field.name) for field in dataclasses.fields(self._state)}
            self._situation = Situation(
                **seen, tips=self._fingertips(self._data), force_n=self._blank.force(self._data), time_s=self._time_s
            )
        return super().situation

    def stage(self) -> str:
        """One of reach, fold_sides, tuck_tabs, close, release, done."""
        return stage_of(self.situation, self.goal)

    def _kind_of_timeout(self) -> str:
        return "fold_error" if any(has_tab_outside(self.situation, end) for end in ENDS) else "timeout"

    def _look(self, data: mujoco.MjData, time_s: float) -> BlankState:
        """Looks at the blank. The rest is looked at when somebody asks for the situation."""
        self._data, self._time_s, self._situation = data, time_s, None
        self._state = self._blank.state(data, self._latched)
        return self._state

    def _judge(self, blank: BlankState, crushing: bool) -> str:
        """What is wrong beyond doubt, or ""."""
        self._crushing_ticks = self._crushing_ticks + 1 if crushing else 0
        wrong = False
        if sides_stand(blank):
            for end in ENDS:  # a generator would take longer than the question
                wrong = wrong or (end not in blank.latched and has_tab_outside(blank, end))
        self._wrong_ticks = self._wrong_ticks + 1 if wrong else 0
        if self._crushing_ticks >= _CRUSHING_TICKS or self._wrong_ticks >= _WRONG_TICKS:
            return "fold_error"
        if blank.latched and blank.latched.difference(self._goal.ends):
            return "fold_error"
        x, y, _ = blank.pose
        off_stand = math.hypot(x - self.config.stand_x_m, y) > _OFF_STAND_M
        return "dropped" if off_stand else ""

    def _fingertips(self, data: mujoco.MjData) -> tuple[list[float], list[float]]:
        """Left and right [3] in the base frame, m."""
        tools, axes = data.site_xpos.ravel()[self._tools].tolist(), data.site_xmat.ravel()[self._axes].tolist()
        tips = [tool + TIP_M * axis for tool, axis in zip(tools, axes, strict=True)]
        return tips[:3], tips[3:]
