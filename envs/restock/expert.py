"""The scripted expert: from the privileged state to joint targets, at a person's speed, from any state.

What it does next follows from the state (what is held, where things are, how far the pads are closed) and from the last
command, not from a script with timers: so it recovers from misses, drops and wrong objects, and a policy can copy it.
Heights are funnels: far from the place it works at, the tool is high; the closer it comes, the lower it goes.
"""

import dataclasses

import numpy as np

from envs.environment import Environment
from envs.g1.clear_way import ClearWay
from envs.g1.drive import LEFT_ARM, LEFT_GRIPPER, RIGHT_ARM, RIGHT_GRIPPER
from envs.g1.kinematics import SIDES
from envs.restock.config import SceneConfig
from envs.restock.door_plan import is_in_the_way, work_door
from envs.restock.hand_motion import HandMotion, MirroredHandMotion
from envs.restock.hand_pose import READY_TOOL_M
from envs.restock.intent import Intent, by_way_of_height
from envs.restock.progress import CARRY_HEIGHT_M, REACH_HEIGHT_M, carry_height_m, funnel, is_open
from envs.restock.situation import EMPTY_CLOSED, Goal, Situation, slot_of
from envs.restock.task import RestockTask

_LEFT_STEP_RAD = 0.03
_GRASP_ABOVE_CENTRE_M = 0.012  # keeps the palm clear of the neighbours' tops
_BEFORE_DOOR_M, _OVER_DOOR_M = 0.05, 0.02  # where a hand waits for an open door
_HOLD_M = 0.010  # close enough to close or open
_FINGER_REACH_M = 0.07  # from the tool to the outside of an open finger
_PAD_DEPTH_M = 0.02  # nearer to a wall than this, a hand that points straight ahead would come down on it
_TURNED, _TURNS_ABOVE_M = 0.1, 0.08


@dataclasses.dataclass(frozen=True)
class Style:
    """How one demonstrator moves: speed [m/s], travel heights above the work height [m], aim offsets [m]."""

    speed_m_s: float = 0.36
    reach_height_m: float = REACH_HEIGHT_M
    carry_height_m: float = CARRY_HEIGHT_M
    grasp_offset_m: tuple[float, float, float] = (0.0, 0.0, 0.0)
    place_offset_m: tuple[float, float] = (0.0, 0.0)

    @classmethod
    def draw(cls, rng: np.random.Generator) -> "Style":
        """A plausible demonstrator."""
        return cls(
            speed_m_s=rng.uniform(0.30, 0.42),
            reach_height_m=rng.uniform(0.078, 0.095),
            carry_height_m=rng.uniform(0.088, 0.105),
            grasp_offset_m=tuple(rng.uniform(-0.004, 0.004, size=3)),
            place_offset_m=tuple(rng.uniform(-0.010, 0.010, size=2)),
        )


class RestockExpert:
    """Demonstrates the task and takes over from a policy. `reset` before the first `act` of each turn."""

    def __init__(
        self, env: Environment, task: RestockTask, style_seed: int = 0, instruction: str | None = None
    ) -> None:
        """`instruction` replaces the episode's own (to measure how much the words matter)."""
        self._env, self._task, self._style_seed, self._instruction = env, task, style_seed, instruction
        config = task.config
        ways = {side: ClearWay(task.model, env.data, side) for side in SIDES}
        self._motion = HandMotion(config.workspace_m, config.robot, ways["right"], config.tilt_rad, config.settle_per_s)
        self._left_motion = None
        if config.door:
            self._left_motion = MirroredHandMotion(
                config.door.workspace_m, config.robot, ways["left"], config.settle_per_s
            )
        self._style = Style()

    def reset(self) -> None:
        """Starts from wherever the robot is; the style follows from the style seed and the episode's seed."""
        self._style = Style.draw(np.random.default_rng((self._style_seed, self._env.episode_seed)))
        measured = self._task.drive.state(self._env.data)
        self._motion.reset(measured[RIGHT_ARM])
        if self._left_motion:
            self._left_motion.reset(measured[LEFT_ARM])

    def act(self) -> np.ndarray:
        """The next action, float32 [16]."""
        measured = self._task.drive.state(self._env.data)
        goal = self._task.parse(self._instruction or self._env.instruction)
        config, situation = self._task.config, self._task.situation
        intent = wait_for_door(config, situation, plan(config, situation, goal, self._style, self._motion.ahead))
        action = self._task.rest_state
        action[LEFT_ARM] = measured[LEFT_ARM] + np.clip(
            action[LEFT_ARM] - measured[LEFT_ARM], -_LEFT_STEP_RAD, _LEFT_STEP_RAD
        )
        action[RIGHT_ARM] = self._motion.step(measured[RIGHT_ARM], intent.tool, self._style.speed_m_s, intent.ahead)
        action[RIGHT_GRIPPER] = intent.gripper
        if self._left_motion and config.door and situation.door:
            left = work_door(config, config.door, situation, situation.door, goal)
            action[LEFT_ARM] = self._left_motion.step(measured[LEFT_ARM], left.tool, self._style.speed_m_s)
            action[LEFT_GRIPPER] = left.gripper
        return action.astype(np.float32)


def plan(config: SceneConfig, situation: Situation, goal: Goal, style: Style, ahead: float = 0.0) -> Intent:
    """What to do in a situation: a function of state alone, to which belongs how far the hand is turned."""
    item = goal.item if situation.held is None else situation.held
    wanted = float(is_before_wall(config, situation, item))
    intent = dataclasses.replace(_plan(config, situation, goal, style), ahead=wanted)
    return _from_above(config, situation, intent) if abs(wanted - ahead) > _TURNED else intent


def is_before_wall(config: SceneConfig, situation: Situation, item: int) -> bool:
    """Whether a finger of the hand, as it usually points, would come down on the wall behind an item."""
    to_wall_m = config.wall_x_m - situation.items.item(item, 0)
    bottom = situation.items.item(item, 2) - situation.extents.item(item)
    return 0.0 < to_wall_m < _FINGER_REACH_M and bottom < config.table_height_m + config.rim_m


def _from_above(config: SceneConfig, situation: Situation, intent: Intent) -> Intent:
    """The same intent, but high up: a hand that turns has to be clear of what stands there."""
    high = config.table_height_m + config.rim_m + _TURNS_ABOVE_M
    above = np.array([intent.tool[0], intent.tool[1], max(float(intent.tool[2]), high)])
    return dataclasses.replace(intent, tool=by_way_of_height(situation.tool, above, 0.0))


def _plan(config: SceneConfig, situation: Situation, goal: Goal, style: Style) -> Intent:
    if situation.held is not None and situation.held == goal.item:
        slot = config.slots[goal.slot]
        spot = np.array([slot.x_m, slot.y_m]) + style.place_offset_m
        return _put_down(config, situation, situation.held, spot, slot.surface_m, style)
    if situation.held is not None:
        return _put_away(config, situation, situation.held, style)
    if slot_of(config, situation, goal.item) == goal.slot:
        return _draw_back(config, situation)
    return _pick_up(config, situation, goal.item, style)


def _draw_back(config: SceneConfig, situation: Situation) -> Intent:
    """Up and away from what was put down; out of the way of a door."""
    if config.door is None or is_in_the_way(config.door, situation.tool):
        return Intent(situation.tool + np.array([-0.01, 0.0, 0.10]), config.hand_open)
    aside = np.array([config.door.front_x_m - 0.06, READY_TOOL_M[1], config.door.clear_z_m + _OVER_DOOR_M])
    return Intent(aside, config.hand_open)


def wait_for_door(config: SceneConfig, situation: Situation, intent: Intent) -> Intent:
    """The same intent, but that the hand waits high before a door that is not open yet."""
    if config.door is None or is_open(config, situation):
        return intent
    barred = np.array([intent.tool[0], intent.tool[1], 0.0])
    if is_in_the_way(config.door, barred):
        before = min(float(intent.tool[0]), config.door.front_x_m - _BEFORE_DOOR_M)
        height = config.door.clear_z_m + _OVER_DOOR_M
        gripper = 1.0 if situation.held is not None else intent.gripper
        return dataclasses.replace(intent, tool=np.array([before, intent.tool[1], height]), gripper=gripper)
    return intent


def _pick_up(config: SceneConfig, situation: Situation, item: int, style: Style) -> Intent:
    centre = situation.items[item]
    lowest = config.table_height_m + 0.03
    grasp = centre + np.array(style.grasp_offset_m) + np.array([0.0, 0.0, _GRASP_ABOVE_CENTRE_M])
    grasp[2] = max(grasp[2], lowest)
    gap = float(np.linalg.norm(grasp[:2] - situation.tool[:2]))
    low = situation.tool[2] - grasp[2] < 0.012
    closing = situation.command > 0.5 and situation.closure < EMPTY_CLOSED
    if low and gap < (0.02 if closing else _HOLD_M) and (closing or situation.closure < config.hand_open + 0.1):
        return Intent(grasp, 1.0)
    still_closed = situation.closure > config.hand_open + 0.15
    height, stays_high = style.reach_height_m, still_closed
    if is_before_wall(config, situation, item):
        height = carry_height_m(config, height)
        stays_high |= bool(situation.tool[0] > config.wall_x_m - _PAD_DEPTH_M)
    height *= 1.0 if stays_high else funnel(gap, config.funnel_m)
    return Intent(by_way_of_height(situation.tool, grasp, height), config.hand_open)


def _put_away(config: SceneConfig, situation: Situation, item: int, style: Style) -> Intent:
    """Back with what should not be in the hand: to its own slot, or among the others."""
    origin = situation.origin(item)
    if origin is None:
        return _put_down(config, situation, item, free_spot(config, situation, item), config.table_height_m, style)
    slot = config.slots[origin]
    return _put_down(config, situation, item, np.array([slot.x_m, slot.y_m]), slot.surface_m, style)


def _put_down(
    config: SceneConfig, situation: Situation, item: int, spot: np.ndarray, surface_m: float, style: Style
) -> Intent:
    centre = situation.items[item]
    rest = np.array([spot[0], spot[1], surface_m + situation.extents[item] - 0.003])
    gap = float(np.linalg.norm(rest[:2] - centre[:2]))
    if gap < 2 * _HOLD_M and centre[2] - rest[2] < 0.010:
        return Intent(situation.tool.copy(), config.hand_open)
    height = carry_height_m(config, style.carry_height_m)
    wanted = by_way_of_height(centre, rest, height * funnel(gap, config.funnel_m))
    return Intent(wanted + situation.tool - centre, 1.0)


def free_spot(config: SceneConfig, situation: Situation, item: int) -> np.ndarray:
    """The staging spot nearest to an item that is clear of the others [2]."""
    xs = np.linspace(*config.staging_x_m, 4)
    ys = np.linspace(*config.staging_y_m, 7)
    spots = np.stack(np.meshgrid(xs, ys), axis=-1).reshape(-1, 2)
    others = np.delete(situation.items[:, :2], item, axis=0)
    clearance = np.full(len(spots), np.inf)
    if len(others):
        clearance = np.linalg.norm(spots[:, None] - others[None], axis=-1).min(axis=1)
    distance = np.linalg.norm(spots - situation.items[item, :2], axis=1)
    return spots[np.argmin(distance + 10.0 * np.maximum(config.item_spacing_m - clearance, 0.0))]
