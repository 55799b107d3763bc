"""`restock_shelf`: the instruction names an item and a slot; the right arm has to stand that item there.

Success: the named item rests inside the named slot, nothing holds it, and the open gripper has drawn back a little.
An episode fails early only where it is beyond doubt: an item left the table, or another item rests in a slot.
"""

import mujoco
import numpy as np

from envs.g1.drive import RIGHT_ARM, RIGHT_GRIPPER, G1Drive
from envs.g1.kinematics import load_kinematics
from envs.grasping import GraspWeld
from envs.restock.config import SLOTS, RestockConfig
from envs.restock.hand_pose import READY_RAD
from envs.restock.items import HALF_HEIGHT_M, ItemBodies
from envs.restock.scene import compile_model, item_bodies, randomise_light
from envs.restock.situation import EMPTY_CLOSED, Goal, Situation, has_fallen, is_done, rests_in_slot, slot_of, stage_of

FAILURES = ("missed_grasp", "dropped", "wrong_object", "wrong_slot", "timeout")
_MAX_DRAWS = 1000


class RestockTask:
    """The task. Owns the compiled model and what an episode's judgement has to remember."""

    name = "restock_shelf"
    world = "restock_shelf/1"

    def __init__(self, config: RestockConfig | None = None) -> None:
        self.config = config or RestockConfig()
        names = item_bodies(self.config)
        self.model = compile_model(self.config)
        self.drive = G1Drive(self.model)
        self._items = ItemBodies(self.model, names)
        self._grasp = GraspWeld(self.model, "right", names)
        self._tool = self.model.site("g1/right_tcp").id
        self._rest_state = np.concatenate([load_kinematics().home.left_arm_rad, READY_RAD, (0.0, 0.0)])
        self._kinds: tuple[str, ...] = ()
        self._goal: Goal | None = None
        self._situation: Situation | None = None
        self._held_target = self._closed_empty = self._success = False
        self._failure = ""

    @property
    def time_limit_s(self) -> float:
        """When an episode is cut off."""
        return self.config.time_limit_s

    @property
    def rest_state(self) -> np.ndarray:
        """Where an episode starts but for noise [16]: left arm at home, right arm ready, grippers open."""
        return self._rest_state.copy()

    @property
    def goal(self) -> Goal:
        """What this episode asks for."""
        if self._goal is None:
            raise RuntimeError("no episode has started: call reset first")
        return self._goal

    @property
    def situation(self) -> Situation:
        """The privileged state after the last tick, or after reset."""
        if self._situation is None:
            raise RuntimeError("no episode has started: call reset first")
        return self._situation

    @property
    def item_names(self) -> tuple[str, ...]:
        """The items in view, for example ("red can", "blue box", "green bottle")."""
        return self._kinds

    @property
    def instruction(self) -> str:
        """For example "put the red can in the left slot"."""
        return f"put the {self._kinds[self.goal.item]} in the {self.goal.slot} slot"

    def parse(self, instruction: str) -> Goal:
        """The item and slot that an instruction names in this episode's scene.

        Raises:
            ValueError: the text names no item in view or no slot.
        """
        item = next((i for i, kind in enumerate(self._kinds) if f"the {kind} " in instruction), None)
        slot = next((name for name in SLOTS if f"the {name} slot" in instruction), None)
        if item is None or slot is None:
            raise ValueError(f"instruction {instruction!r} must name one of {self._kinds} and one of the slots {SLOTS}")
        return Goal(item, slot)

    def initialize(self, data: mujoco.MjData, rng: np.random.Generator) -> None:
        """Draws items, goal, light and start posture."""
        config = self.config
        colours = [str(colour) for colour in rng.permutation(config.colours)[: config.num_items]]
        shapes = [str(shape) for shape in rng.choice(config.shapes, size=config.num_items)]
        self._kinds = tuple(f"{colour} {shape}" for colour, shape in zip(colours, shapes, strict=True))
        self._goal = Goal(int(rng.integers(config.num_items)), SLOTS[rng.integers(len(SLOTS))])
        height = config.table_height_m + HALF_HEIGHT_M
        for index, (x, y) in enumerate(draw_spots(config, rng)):
            self._items.dress(self.model, index, shapes[index], colours[index])
            yaw = rng.uniform(-config.max_item_yaw_rad, config.max_item_yaw_rad)
            self._items.place(data, index, np.array([x, y, height]), yaw)
        randomise_light(self.model, config.lighting, rng)
        start = self.rest_state
        start[RIGHT_ARM] += rng.normal(0.0, config.start_noise_rad, size=7)
        self.drive.place(data, start)
        self._grasp.reset(data)
        self._held_target = self._closed_empty = self._success = False
        self._failure = ""
        mujoco.mj_forward(self.model, data)
        self._situation = self._observe(data, 0.0, 0.0, 0.0)

    def after_step(self, data: mujoco.MjData, executed: np.ndarray, time_s: float) -> None:
        """Grips or lets go, then looks at the scene and judges it."""
        command = float(executed[RIGHT_GRIPPER])
        closure = self.drive.closure(data, "right")
        self._grasp.update(data, command, closure)
        situation = self._situation = self._observe(data, command, closure, time_s)
        goal = self.goal
        self._held_target |= situation.held == goal.item
        self._closed_empty |= situation.held is None and closure > EMPTY_CLOSED
        if has_fallen(self.config, situation):
            self._failure = "dropped"
        elif any(rests_in_slot(self.config, situation, i) for i in range(self.config.num_items) if i != goal.item):
            self._failure = "wrong_object"
        else:
            self._success = is_done(self.config, situation, goal)

    def stage(self) -> str:
        """One of approach, grasp, move, place, done."""
        return stage_of(self.config, self.situation, self.goal)

    def success(self) -> bool:
        """Whether the episode has reached its end."""
        return self._success

    def failure_kind(self) -> str:
        """One of `FAILURES` where the episode has failed or run out of time, else ""."""
        if self._failure or self._success or self.situation.time_s < self.time_limit_s - 1e-6:
            return self._failure
        if slot_of(self.config, self.situation, self.goal.item) not in (None, self.goal.slot):
            return "wrong_slot"
        if self._held_target and self.situation.held != self.goal.item:
            return "dropped"
        return "missed_grasp" if self._closed_empty and not self._held_target else "timeout"

    def _observe(self, data: mujoco.MjData, command: float, closure: float, time_s: float) -> Situation:
        return Situation(
            tool=data.site_xpos[self._tool].copy(),
            items=self._items.positions(data),
            extents=self._items.half_extents_z(data),
            speeds=self._items.speeds(data),
            held=self._grasp.held,
            closure=closure,
            command=command,
            time_s=time_s,
        )


def draw_spots(config: RestockConfig, rng: np.random.Generator) -> np.ndarray:
    """Where the items stand at the start, [items, 2] in m, at least `item_spacing_m` apart.

    Raises:
        ValueError: the staging area is too small for that many items.
    """
    low, high = np.array([config.staging_x_m, config.staging_y_m]).T
    for _ in range(_MAX_DRAWS):
        spots = rng.uniform(low, high, size=(config.num_items, 2))
        gaps = np.linalg.norm(spots[:, None] - spots[None], axis=-1) + np.eye(config.num_items)
        if gaps.min() >= config.item_spacing_m:
            return spots
    raise ValueError(
        f"{config.num_items} items {config.item_spacing_m} m apart do not fit into x {config.staging_x_m}, "
        f"y {config.staging_y_m}: fewer distractors or a larger staging area"
    )
