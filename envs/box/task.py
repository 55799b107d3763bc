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
from envs.box.situation import STAGES, Goal, Situation, has_tab_outside, is_done, may_latch, sides_stand, stage_of
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
        self._tools = [self.model.site(f"g1/{side}_tcp").id for side in SIDES]
        self._instruction = ""
        self._latched: frozenset[str] = frozenset()
        self._crushing_ticks = self._wrong_ticks = self._done_ticks = 0

    @property
    def goal(self) -> Goal:
        """What this episode asks for."""
        return self.parse(self._instruction)

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
        self._situation = self._observe(data, 0.0)

    def after_step(self, data: mujoco.MjData, executed: np.ndarray, time_s: float) -> None:
        """Latches what clicks, then looks at the blank and judges it."""
        situation = self._observe(data, time_s)
        for end in ENDS:
            if end not in self._latched and may_latch(situation, end):
                self._blank.latch(data, end)
                self._latched |= {end}
        if situation.latched != self._latched:
            situation = dataclasses.replace(situation, latched=self._latched)
        self._situation = situation
        self._failure = self._failure or self._judge(situation)
        self._done_ticks = self._done_ticks + 1 if is_done(situation, self.goal) else 0
        self._success = not self._failure and self._done_ticks >= _DONE_TICKS

    def stage(self) -> str:
        """One of reach, fold_sides, tuck_tabs, close, release, done."""
        return stage_of(self.situation, self.goal)

    def _kind_of_timeout(self) -> str:
        return "fold_error" if any(has_tab_outside(self.situation, end) for end in ENDS) else "timeout"

    def _judge(self, situation: Situation) -> str:
        """What is wrong beyond doubt, or ""."""
        goal = self.goal
        crushing = situation.force_n > CRUSHING_N
        self._crushing_ticks = self._crushing_ticks + 1 if crushing else 0
        wrong = sides_stand(situation) and any(has_tab_outside(situation, end) for end in ENDS)
        self._wrong_ticks = self._wrong_ticks + 1 if wrong else 0
        if self._crushing_ticks >= _CRUSHING_TICKS or self._wrong_ticks >= _WRONG_TICKS:
            return "fold_error"
        if situation.latched - set(goal.ends):
            return "fold_error"
        x, y, _ = situation.pose.tolist()
        off_stand = math.hypot(x - self.config.stand_x_m, y) > _OFF_STAND_M
        return "dropped" if off_stand else ""

    def _observe(self, data: mujoco.MjData, time_s: float) -> Situation:
        axes = data.site_xmat.take(self._tools, axis=0)[:, 2::3]  # z, the last column of each rotation
        return Situation(
            size=self._blank.size,
            pose=self._blank.pose(data),
            plane_m=self.config.blank_height_m,
            walls=self._blank.walls(data),
            tabs=self._blank.tabs(data),
            latched=self._latched,
            tips=data.site_xpos.take(self._tools, axis=0) + TIP_M * axes,
            force_n=self._blank.force(data),
            time_s=time_s,
        )
