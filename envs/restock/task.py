"""The restocking tasks: the instruction names an item and a slot; the right arm has to stand that item there.

Which of them it is follows from the configuration: `restock_shelf`, `restock_misplaced`, `restock_cooler`, and
`restock_freezer`, in which the left arm works the door. Success: the named item rests inside the named slot, nothing holds
it, the open gripper has drawn back a little, and the door, if there is one, is shut. An episode fails early only where it is
beyond doubt: an item left the table, or another item rests in a slot that is not its own.
"""

from collections.abc import Sequence

import mujoco
import numpy as np

from envs.g1.drive import LEFT_ARM, LEFT_GRIPPER, RIGHT_ARM, STATE_DIM
from envs.g1.kinematics import load_kinematics
from envs.grasping import GraspWeld
from envs.judged_task import JudgedTask
from envs.restock.catalogue import Product
from envs.restock.config import RestockConfig, SceneConfig
from envs.restock.doorway import Doorway
from envs.restock.draws import draw_goal, draw_goods, draw_origins, draw_stands
from envs.restock.hand_pose import LEFT_READY_RAD, READY_RAD
from envs.restock.items import ItemBodies
from envs.restock.scene import compile_model, item_bodies
from envs.restock.situation import (
    EMPTY_CLOSED,
    STAGES,
    Goal,
    Situation,
    has_fallen,
    is_done,
    slot_of,
    stage_of,
    was_misplaced,
)
from envs.room import randomise_light

FAILURES = ("missed_grasp", "dropped", "wrong_object", "wrong_slot", "timeout")


class RestockTask(JudgedTask[Situation]):
    """The task. Owns the compiled model and what an episode's judgement has to remember."""

    stage_names = STAGES

    def __init__(self, config: SceneConfig | None = None) -> None:
        self.config = config or RestockConfig()
        names = item_bodies(self.config)
        # Right arm ready, left arm at home or ready, grippers open.
        left_rad = LEFT_READY_RAD if self.config.door else load_kinematics().home.left_arm_rad
        rest_state = np.concatenate([left_rad, READY_RAD, (0.0, self.config.hand_open)])
        super().__init__(self.config, compile_model(self.config), rest_state)
        self._items = ItemBodies(self.model, names, self.config.catalogue)
        self._grasp = GraspWeld(self.model, "right", names)
        self._doorway = Doorway(self.model, self.drive, self.config.door) if self.config.door else None
        self._tool = self.model.site("g1/right_tcp").id
        self._goods: tuple[Product, ...] = ()
        self._origins: tuple[str | None, ...] = ()
        self._goal: Goal | None = None
        self._held_target = self._closed_empty = False

    @property
    def name(self) -> str:
        """The task's registered name."""
        return self.config.task_name

    @property
    def world(self) -> str:
        """Name and version of the world."""
        return f"{self.name}/1"

    @property
    def goal(self) -> Goal:
        """What this episode asks for."""
        if self._goal is None:
            raise RuntimeError("no episode has started: call reset first")
        return self._goal

    @property
    def item_names(self) -> tuple[str, ...]:
        """The items in view, for example ("red can", "blue box", "green bottle")."""
        return tuple(product.name for product in self._goods)

    @property
    def instruction(self) -> str:
        """For example "put the red can in the left slot"."""
        return self.instruction_for(self.goal)

    @property
    def instructions(self) -> tuple[str, ...]:
        """Every item in view into every slot."""
        goals = [Goal(item, slot) for item in range(len(self._goods)) for slot in self.config.slots]
        return tuple(self.instruction_for(goal) for goal in goals)

    def instruction_for(self, goal: Goal) -> str:
        """The words that ask for a goal in this episode's scene."""
        return self.config.phrase.format(item=self.item_names[goal.item], slot=goal.slot)

    def parse(self, instruction: str) -> Goal:
        """The item and slot that an instruction names in this episode's scene.

        Raises:
            ValueError: the text names no item in view or no slot.
        """
        names, slots, noun = self.item_names, tuple(self.config.slots), self.config.slot_noun
        named = [i for i, name in enumerate(names) if f"the {name} " in instruction]
        slot = next((name for name in slots if f"the {name} {noun}" in instruction), None)
        if not named or slot is None:
            raise ValueError(f"instruction {instruction!r} must name one of {names} and one of the {noun}s {slots}")
        return Goal(max(named, key=lambda i: len(names[i])), slot)  # "the red can " is also in "the red can with ..."

    def initialize(self, data: mujoco.MjData, rng: np.random.Generator) -> None:
        """Draws goods, goal, places, light and start posture."""
        config = self.config
        self._goods = draw_goods(config, rng)
        self._goal = draw_goal(config, rng)
        self._origins = draw_origins(config, self._goal, rng)
        self._items.dress(self._goods)
        for index, (product, spot, surface_m) in enumerate(
            zip(self._goods, *draw_stands(config, self._origins, rng), strict=True)
        ):
            yaw = rng.uniform(-config.max_item_yaw_rad, config.max_item_yaw_rad)
            self._items.place(data, index, np.array([*spot, surface_m + product.half_height_m]), yaw)
        randomise_light(self.model, config.lighting, rng)
        offsets_rad = np.zeros(STATE_DIM)
        offsets_rad[RIGHT_ARM] = rng.normal(0.0, config.start_noise_rad, size=7)
        if self._doorway:
            offsets_rad[LEFT_ARM] = rng.normal(0.0, config.start_noise_rad, size=7)
            self._doorway.reset(data, rng)
        self._start(data, offsets_rad)
        self._grasp.reset(data)
        self._held_target = self._closed_empty = False
        mujoco.mj_forward(self.model, data)
        self._time_s = 0.0
        self._situation = self._observe(data, (0.0, 0.0), 0.0, 0.0)

    def after_step(self, data: mujoco.MjData, executed: np.ndarray, time_s: float) -> None:
        """Grips or lets go, then looks at the scene and judges it."""
        commands, closure = executed[LEFT_GRIPPER:].tolist(), self.drive.closure(data, "right")
        self._grasp.update(data, commands[1], closure)
        if self._doorway:
            self._doorway.update(data, commands[0])
        self._time_s = time_s
        situation = self._situation = self._observe(data, commands, closure, time_s)
        goal = self.goal
        self._held_target |= situation.held == goal.item
        self._closed_empty |= situation.held is None and closure > EMPTY_CLOSED
        if has_fallen(self.config, situation):
            self._failure = "dropped"
        elif self._another_was_misplaced(situation):
            self._failure = "wrong_object"
        else:
            self._success = is_done(self.config, situation, goal)

    def _another_was_misplaced(self, situation: Situation) -> bool:
        for item in range(self.config.num_items):
            if item != self.goal.item and was_misplaced(self.config, situation, item):
                return True
        return False

    def stage(self) -> str:
        """One of `situation.STAGES`."""
        return stage_of(self.config, self.situation, self.goal)

    def _kind_of_timeout(self) -> str:
        situation, item = self.situation, self.goal.item
        slot = slot_of(self.config, situation, item)
        if slot not in (None, self.goal.slot) and (self._held_target or slot != situation.origin(item)):
            return "wrong_slot"
        behind_open_door = situation.door is not None and slot == self.goal.slot
        if self._held_target and situation.held != item and not behind_open_door:
            return "dropped"
        return "missed_grasp" if self._closed_empty and not self._held_target else "timeout"

    def _observe(self, data: mujoco.MjData, commands: Sequence[float], closure: float, time_s: float) -> Situation:
        """`commands` are those of the left and the right gripper."""
        return Situation(
            tool=data.site_xpos[self._tool].copy(),
            goods=self._items.states(data),
            held=self._grasp.held,
            closure=closure,
            command=commands[1],
            time_s=time_s,
            origins=self._origins,
            door=self._doorway.observe(data, commands[0]) if self._doorway else None,
        )
