"""The scripted expert: from the privileged state to joint targets, at a person's speed, from any state.

What it does next follows from the state (what is held, where things are, how far the pads are closed) and from the last
command, not from a script with timers: so it recovers from misses, drops and wrong objects, and a policy can copy it.
Heights are funnels: far from the place it works at, the tool is high; the closer it comes, the lower it goes.
"""

import dataclasses

import numpy as np

from envs.environment import Environment
from envs.g1.drive import LEFT_ARM, RIGHT_ARM, RIGHT_GRIPPER
from envs.restock.config import RestockConfig
from envs.restock.hand_motion import HandMotion
from envs.restock.progress import CARRY_HEIGHT_M, REACH_HEIGHT_M, funnel
from envs.restock.situation import EMPTY_CLOSED, Goal, Situation, slot_of
from envs.restock.task import RestockTask

_LEFT_STEP_RAD = 0.03
_GRASP_ABOVE_CENTRE_M = 0.012  # keeps the palm clear of the neighbours' tops
_HOLD_M = 0.010  # close enough to close or open


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


@dataclasses.dataclass(frozen=True)
class Intent:
    """Where the tool should be going [3] and what the gripper should do (0 open, 1 close)."""

    tool: np.ndarray
    gripper: float


class RestockExpert:
    """Demonstrates the task and takes over from a policy. `reset` before the first `act` of each turn."""

    def __init__(
        self, env: Environment, task: RestockTask, style_seed: int = 0, instruction: str | None = None
    ) -> None:
        """`instruction` replaces the episode's own (to measure how much the words matter)."""
        self._env, self._task, self._style_seed, self._instruction = env, task, style_seed, instruction
        self._motion = HandMotion(task.config)
        self._style = Style()

    def reset(self) -> None:
        """Starts from wherever the robot is; the style follows from the style seed and the episode's seed."""
        self._style = Style.draw(np.random.default_rng((self._style_seed, self._env.episode_seed)))
        self._motion.reset(self._task.drive.state(self._env.data)[RIGHT_ARM])

    def act(self) -> np.ndarray:
        """The next action, float32 [16]."""
        measured = self._task.drive.state(self._env.data)
        goal = self._task.goal if self._instruction is None else self._task.parse(self._instruction)
        intent = plan(self._task.config, self._task.situation, goal, self._style)
        action = self._task.rest_state
        action[LEFT_ARM] = measured[LEFT_ARM] + np.clip(
            action[LEFT_ARM] - measured[LEFT_ARM], -_LEFT_STEP_RAD, _LEFT_STEP_RAD
        )
        action[RIGHT_ARM] = self._motion.step(measured[RIGHT_ARM], intent.tool, self._style.speed_m_s)
        action[RIGHT_GRIPPER] = intent.gripper
        return action.astype(np.float32)


def plan(config: RestockConfig, situation: Situation, goal: Goal, style: Style) -> Intent:
    """What to do in a situation: a function of state alone."""
    if situation.held is not None and situation.held == goal.item:
        spot = np.array(config.slot_centres_m[goal.slot]) + style.place_offset_m
        return _put_down(config, situation, situation.held, spot, config.shelf_top_m, style)
    if situation.held is not None:
        spot = free_spot(config, situation, situation.held)
        return _put_down(config, situation, situation.held, spot, config.table_height_m, style)
    if slot_of(config, situation, goal.item) == goal.slot:
        return Intent(situation.tool + np.array([-0.01, 0.0, 0.10]), 0.0)
    return _pick_up(config, situation, goal.item, style)


def _pick_up(config: RestockConfig, situation: Situation, item: int, style: Style) -> Intent:
    centre = situation.items[item]
    lowest = config.table_height_m + 0.03
    grasp = centre + np.array(style.grasp_offset_m) + np.array([0.0, 0.0, _GRASP_ABOVE_CENTRE_M])
    grasp[2] = max(grasp[2], lowest)
    gap = float(np.linalg.norm(grasp[:2] - situation.tool[:2]))
    low = situation.tool[2] - grasp[2] < 0.012
    closing = situation.command > 0.5 and situation.closure < EMPTY_CLOSED
    if low and gap < (0.02 if closing else _HOLD_M) and (closing or situation.closure < 0.1):
        return Intent(grasp, 1.0)
    still_closed = situation.closure > 0.15
    height = style.reach_height_m * (1.0 if still_closed else funnel(gap))
    return Intent(_by_way_of_height(situation.tool, grasp, height), 0.0)


def _put_down(
    config: RestockConfig, situation: Situation, item: int, spot: np.ndarray, surface_m: float, style: Style
) -> Intent:
    centre = situation.items[item]
    rest = np.array([spot[0], spot[1], surface_m + situation.extents[item] - 0.003])
    gap = float(np.linalg.norm(rest[:2] - centre[:2]))
    if gap < 2 * _HOLD_M and centre[2] - rest[2] < 0.010:
        return Intent(situation.tool.copy(), 0.0)
    wanted = _by_way_of_height(centre, rest, style.carry_height_m * funnel(gap))
    return Intent(wanted + situation.tool - centre, 1.0)


def _by_way_of_height(position: np.ndarray, goal: np.ndarray, height_m: float) -> np.ndarray:
    """A point to head for: sideways only as far as the position is high enough for where it is."""
    wanted_z = goal[2] + height_m
    allowed = min(max(1.0 - (wanted_z - position[2]) / 0.05, 0.0), 1.0)
    return np.array([*(position[:2] + allowed * (goal[:2] - position[:2])), wanted_z])


def free_spot(config: RestockConfig, situation: Situation, item: int) -> np.ndarray:
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
