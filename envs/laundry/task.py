"""`laundry_fold`: a crumpled T-shirt has to lie folded on the stack that the instruction names.

Success: outline, corners and place are right (`judgement`), both hands have let go and drawn back. An episode fails
early only where it is beyond doubt: the shirt has left the table.
"""

from collections.abc import Mapping

import mujoco
import numpy as np

from envs.g1.drive import LEFT_GRIPPER, NUM_ARM_JOINTS
from envs.g1.kinematics import SIDES
from envs.judged_task import JudgedTask
from envs.laundry.config import COLOURS, STACKS, LaundryConfig
from envs.laundry.crumple import Crumpler, place_shirt
from envs.laundry.hands import ready_arms
from envs.laundry.pinch import ClothPinch
from envs.laundry.scene import compile_model
from envs.laundry.situation import EMPTY_CLOSED, STAGES, Goal, Situation, is_done, read, stack_under, stage_of
from envs.room import randomise_light

FAILURES = ("missed_grasp", "dropped", "wrong_slot", "fold_error", "timeout")
_LOST_X_M, _LOST_Y_M = (0.38, 1.00), 0.45  # the middle of a shirt out here is off the table


class LaundryTask(JudgedTask[Situation]):
    """The task. Owns the compiled model and what an episode's judgement has to remember."""

    name = "laundry_fold"
    world = "laundry_fold/1"
    stage_names = STAGES

    def __init__(self, config: LaundryConfig | None = None) -> None:
        self.config = config or LaundryConfig()
        # Both arms ready, grippers open.
        rest_state = np.concatenate([ready_arms(self.config.robot), (0.0, 0.0)])
        super().__init__(self.config, compile_model(self.config), rest_state)
        self._crumpler = Crumpler(self.config)
        self._pinches = tuple(ClothPinch(self.model, side, self.config.shirt) for side in SIDES)
        self._tools = np.array([self.model.site(f"g1/{side}_tcp").id for side in SIDES])
        first = self.model.body_dofadr[self.model.flex_vertbodyid]
        self._shirt_dofs = first[:, None] + np.arange(3)
        self._colour, self._goal = "", Goal(STACKS[0])
        self._surfaces_m: Mapping[str, float] = {}
        self._stage, self._read_at_s = STAGES[0], -1.0
        self._held_cloth = self._closed_empty = False

    @property
    def goal(self) -> Goal:
        """What this episode asks for."""
        return self._goal

    @property
    def instruction(self) -> str:
        """For example "fold the blue T-shirt and put it on the left stack"."""
        return self.instruction_for(self._goal)

    @property
    def instructions(self) -> tuple[str, ...]:
        """This shirt onto either stack."""
        return tuple(self.instruction_for(Goal(stack)) for stack in STACKS)

    def instruction_for(self, goal: Goal) -> str:
        """The words that ask for a goal in this episode's scene."""
        return f"fold the {self._colour} T-shirt and put it on the {goal.stack} stack"

    def parse(self, instruction: str) -> Goal:
        """The stack that an instruction names.

        Raises:
            ValueError: the text names no stack.
        """
        stack = next((name for name in STACKS if f"the {name} stack" in instruction), None)
        if stack is None:
            raise ValueError(f"instruction {instruction!r} must name one of the stacks {STACKS}")
        return Goal(stack)

    def initialize(self, data: mujoco.MjData, rng: np.random.Generator) -> None:
        """Draws shirt, stacks, light and start posture."""
        config = self.config
        self._colour = str(rng.choice(config.colours))
        self._goal = Goal(STACKS[rng.integers(len(STACKS))])
        self.model.flex_rgba[0] = (*COLOURS[self._colour], 1.0)
        self._surfaces_m = {name: self._fill_stack(name, rng) for name in STACKS}
        randomise_light(self.model, config.lighting, rng)
        self._start(data, np.append(rng.normal(0.0, config.start_noise_rad, size=NUM_ARM_JOINTS), (0.0, 0.0)))
        place_shirt(self.model, data, self._crumpler.make(rng))
        for pinch in self._pinches:
            pinch.reset(data)
        self._held_cloth = self._closed_empty = False
        self._stage, self._read_at_s = STAGES[0], -1.0
        mujoco.mj_forward(self.model, data)
        self._time_s = 0.0
        self._situation = self._observe(data, np.zeros(2), np.zeros(2), 0.0)

    def after_step(self, data: mujoco.MjData, executed: np.ndarray, time_s: float) -> None:
        """Grips or lets go, then looks at the scene and judges it."""
        commands = executed[LEFT_GRIPPER:].astype(np.float64)
        closures = np.array([self.drive.closure(data, side) for side in SIDES])
        for pinch, command, closure in zip(self._pinches, commands, closures, strict=True):
            pinch.update(data, command, closure)
        self._time_s = time_s
        situation = self._situation = self._observe(data, commands, closures, time_s)
        self._held_cloth |= not situation.hands_empty
        empty = [not held for held in situation.held]
        self._closed_empty |= bool((empty & (closures > EMPTY_CLOSED)).any())
        x, y = situation.vertices[:, :2].mean(axis=0)
        if not _LOST_X_M[0] < x < _LOST_X_M[1] or abs(y) > _LOST_Y_M:
            self._failure = "dropped"
        else:
            self._success = is_done(self.config, situation, self._goal)

    def stage(self) -> str:
        """One of `STAGES`. A stage is taken back only once both hands are empty: cloth in the air has no shape."""
        situation = self.situation
        if self._success:
            return "done"
        if situation.time_s != self._read_at_s:
            self._read_at_s = situation.time_s
            found = stage_of(read(self.config, situation.vertices))
            if situation.hands_empty or STAGES.index(found) > STAGES.index(self._stage):
                self._stage = found
        return self._stage

    def _kind_of_timeout(self) -> str:
        resting = stack_under(self.config, self.situation.vertices)
        if resting is not None:
            return "wrong_slot" if resting != self._goal.stack else "fold_error"
        return "missed_grasp" if self._closed_empty and not self._held_cloth else "timeout"

    def _fill_stack(self, name: str, rng: np.random.Generator) -> float:
        """Puts 0 to `max_stacked` folded shirts on a stack; returns the height of its top."""
        config, model = self.config, self.model
        top, num = config.table_height_m, int(rng.integers(config.max_stacked + 1))
        for index in range(config.max_stacked):
            stacked = f"stacked_{name}_{index}"
            model.geom(stacked).rgba[:3] = COLOURS[str(rng.choice(config.colours))]
            lies_here = index < num
            model.body(stacked).pos[2] = top + config.stacked_thickness_m / 2 if lies_here else -1.0
            top += config.stacked_thickness_m if lies_here else 0.0
        return top

    def _observe(self, data: mujoco.MjData, commands: np.ndarray, closures: np.ndarray, time_s: float) -> Situation:
        left, right = self._pinches
        velocities = data.qvel[self._shirt_dofs]
        return Situation(
            tools=data.site_xpos[self._tools],
            tips=np.stack([left.tip(data), right.tip(data)]),
            vertices=data.flexvert_xpos.copy(),
            speed_m_s=float(np.sqrt((velocities * velocities).sum(axis=1).max())),
            held=(left.held, right.held),
            closures=closures,
            commands=commands,
            surfaces_m=self._surfaces_m,
            time_s=time_s,
        )
