"""A way in joint space on which an arm touches nothing: out from under a table, for instance.

Planned by RRT-Connect (Kuffner and LaValle, 2000): two trees of postures, from the start and from the goal, which grow in
turn towards random postures and towards each other. The random numbers are the same in every search, so what is found
follows from the situation alone. A search takes some 10 ms, in vain 0.2 s. `J` is 7 joint angles in rad.
"""

import copy

import mujoco
import numpy as np

from envs.g1.collision import LEFT_BIT, RIGHT_BIT, WORLD_BIT
from envs.g1.kinematics import ARM_JOINTS

_SEED = 0
_MAX_BRANCHES = 600
_CHECK_RAD, _STRIDE_RAD = 0.06, 0.4  # between two checks on a way; the longest new branch of a tree
_CLEAR_M = 0.012
_SLACK_M = 0.001
_START_RAD = 0.35  # this near to the start, a way may be as close to things as the start is
_NUM_SHORTCUTS = 60


class ClearWay:
    """Finds ways for one arm among all that is there but what it holds."""

    def __init__(self, model: mujoco.MjModel, data: mujoco.MjData, side: str, prefix: str = "g1/") -> None:
        """`data` is where the world is now, read at every search."""
        self._model, self._data, self._side = model, data, side
        joints = [model.joint(f"{prefix}{side}_j{index}") for index in range(1, ARM_JOINTS + 1)]
        self._qpos = np.array([joint.qposadr[0] for joint in joints])
        self._limits = np.array([joint.range for joint in joints]).T

    def find(self, start: np.ndarray, goal: np.ndarray) -> list[np.ndarray]:
        """Postures [J] to go to one after the other, in straight lines of joint space; the last is the goal.

        Empty where none was found.
        """
        space = _Space(_one_arm_and_obstacles(self._model, self._data, self._side), self._data, self._qpos, start)
        if space.is_line_clear(start, goal):
            return [goal]
        rng = np.random.default_rng(_SEED)
        trees = (_Tree(start), _Tree(goal))
        for turn in range(_MAX_BRANCHES):
            here, there = trees[turn % 2], trees[1 - turn % 2]
            new = here.extend(space, rng.uniform(*self._limits))
            if new is not None and there.connect(space, here.nodes[new]):
                to_goal = trees[1].way_to(-1)[::-1]
                return _shortened([*trees[0].way_to(-1), *to_goal[1:]], space, rng)[1:]
        return []


class _Space:
    """Which postures of an arm are clear."""

    def __init__(self, model: mujoco.MjModel, now: mujoco.MjData, qpos: np.ndarray, start: np.ndarray) -> None:
        self._model, self._data, self._qpos, self._start = model, mujoco.MjData(model), qpos, start
        self._data.qpos[:] = now.qpos
        self._start_clear_m = self._clearance_m(start)

    def is_line_clear(self, start: np.ndarray, goal: np.ndarray) -> bool:
        """Whether a straight line of joint space is clear, its start apart."""
        num = max(1, int(np.ceil(np.abs(goal - start).max() / _CHECK_RAD)))
        return all(self._is_clear(start + (goal - start) * (i / num)) for i in range(num, 0, -1))

    def _is_clear(self, posture: np.ndarray) -> bool:
        needed_m = _CLEAR_M
        if float(np.abs(posture - self._start).max()) < _START_RAD:
            needed_m = min(needed_m, self._start_clear_m - _SLACK_M)
        return self._clearance_m(posture) >= needed_m

    def _clearance_m(self, posture: np.ndarray) -> float:
        """Distance to the nearest obstacle, at most `_CLEAR_M`; negative inside of it."""
        self._data.qpos[self._qpos] = posture
        mujoco.mj_kinematics(self._model, self._data)
        mujoco.mj_collision(self._model, self._data)
        return min([_CLEAR_M, *self._data.contact.dist.tolist()])


class _Tree:
    """Postures, each with the one it was reached from."""

    def __init__(self, root: np.ndarray) -> None:
        self.nodes = [root]
        self._parents = [0]

    def extend(self, space: _Space, towards: np.ndarray) -> int | None:
        """Grows by one branch; the index of its end, None where something is in the way."""
        nearest = int(np.argmin(np.square(np.array(self.nodes) - towards).sum(axis=1)))
        step = towards - self.nodes[nearest]
        end = self.nodes[nearest] + step * min(1.0, _STRIDE_RAD / max(float(np.abs(step).max()), 1e-9))
        if not space.is_line_clear(self.nodes[nearest], end):
            return None
        self.nodes.append(end)
        self._parents.append(nearest)
        return len(self.nodes) - 1

    def connect(self, space: _Space, posture: np.ndarray) -> bool:
        """Grows branch by branch towards a posture of the other tree; whether it got there."""
        while (new := self.extend(space, posture)) is not None:
            if np.abs(self.nodes[new] - posture).max() < 1e-9:
                return True
        return False

    def way_to(self, index: int) -> list[np.ndarray]:
        """From the root to a node."""
        index %= len(self.nodes)
        way = [self.nodes[index]]
        while index:
            index = self._parents[index]
            way.append(self.nodes[index])
        return way[::-1]


def _shortened(way: list[np.ndarray], space: _Space, rng: np.random.Generator) -> list[np.ndarray]:
    """The same way without detours between any two of its postures."""
    for _ in range(_NUM_SHORTCUTS):
        first, last = sorted(rng.choice(len(way), size=2, replace=False))
        if last - first > 1 and space.is_line_clear(way[first], way[last]):
            way = way[: first + 1] + way[last:]
    return way


def _one_arm_and_obstacles(model: mujoco.MjModel, data: mujoco.MjData, side: str) -> mujoco.MjModel:
    """The same world, in which one arm alone meets the others, from `_CLEAR_M` on; what a weld holds is left out."""
    model = copy.copy(model)
    arm, other = (LEFT_BIT, RIGHT_BIT) if side == "left" else (RIGHT_BIT, LEFT_BIT)
    held = model.eq_obj2id[(model.eq_type == mujoco.mjtEq.mjEQ_WELD) & (data.eq_active == 1)]
    kinds = model.geom_contype
    is_arm = kinds == arm
    is_obstacle = np.isin(kinds, (WORLD_BIT, other)) & ~np.isin(model.geom_bodyid, held)
    model.geom_contype[:] = np.where(is_arm, arm, 0)
    model.geom_conaffinity[:] = np.where(is_obstacle, arm, 0)
    model.geom_margin[is_arm] = _CLEAR_M
    model.body_margin[model.geom_bodyid[is_arm]] = _CLEAR_M
    return model
