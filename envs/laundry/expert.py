"""The scripted expert: both arms, privileged state, a person's speed, from any state.

Between moves it decides from how the shirt lies (`moves.plan`). Within a move it goes on when the state says so (above
the cloth, pads closed, cloth at its goal), never by a timer; what stalls is let go of and decided anew.
"""

import dataclasses

import numpy as np

from envs.environment import Environment
from envs.g1.drive import CONTROL_HZ, LEFT_ARM, LEFT_GRIPPER, RIGHT_ARM
from envs.g1.kinematics import SIDES
from envs.g1.tool_motion import ToolMotion
from envs.laundry.hands import ROTATION_AT, ready_tool
from envs.laundry.moves import Move, best_aim, lay_out_path, plan
from envs.laundry.pinch import tip_height
from envs.laundry.situation import EMPTY_CLOSED, Goal, Situation, read
from envs.laundry.task import LaundryTask

OPEN = 0.45  # pads 5 cm apart: enough for cloth, and two hands fit side by side
_ARMS = (LEFT_ARM, RIGHT_ARM)
_READY_M = 0.004  # close enough to the grasp to close
_FUNNEL_M = 0.06
_ARRIVED_M = 0.008  # held cloth this close to its goal is let go
_LEAD_M = 0.035  # the cloth's goal waits while the cloth is further behind
_BIAS_NEAR_M, _BIAS_GAIN, _BIAS_M = 0.03, 0.12, 0.03
_MEMORY = 4  # so many vertices that were just tried are rather left alone
_PATIENCE, _GAIN = 3, 0.1  # so many pulls without such a gain, then the shirt is laid out anew
_STALLED_TICKS = 45
_STALL_M = 0.003
_WORK_X_M, _OUTER_Y_M, _INNER_Y_M = (0.42, 0.88), 0.44, 0.23
_LOWEST_M, _SAFE_M = 0.015, 0.30  # tool above the table


@dataclasses.dataclass(frozen=True)
class Style:
    """How one demonstrator moves: speed [m/s], hover height and rise [m], aim error [m]."""

    speed_m_s: float = 0.38
    hover_m: float = 0.055
    rise_m: float = 0.055
    aim_m: float = 0.001

    @classmethod
    def draw(cls, rng: np.random.Generator) -> "Style":
        """A plausible demonstrator."""
        return cls(
            speed_m_s=rng.uniform(0.34, 0.44),
            hover_m=rng.uniform(0.045, 0.065),
            rise_m=rng.uniform(0.050, 0.065),
            aim_m=rng.uniform(0.0005, 0.0020),
        )


class LaundryExpert:
    """Demonstrates the task and takes over from a policy. `reset` before the first `act` of each turn."""

    def __init__(
        self, env: Environment, task: LaundryTask, style_seed: int = 0, instruction: str | None = None
    ) -> None:
        """`instruction` replaces the episode's own (to measure how much the words matter)."""
        self._env, self._task, self._style_seed, self._instruction = env, task, style_seed, instruction
        config = task.config
        self._motions = [_motion(side, arm, task) for side, arm in zip(SIDES, _ARMS, strict=True)]
        self._style, self._rng = Style(), np.random.default_rng(0)
        self._phase, self._move = "choose", None
        self._paths: list[np.ndarray | None] = [None, None]
        self._share, self._aim = 0.0, np.zeros((2, 2))
        self._avoid: list[int] = []
        self._least_m, self._num_in_vain = np.inf, 0
        self._anchor, self._bias = np.zeros((2, 3)), np.zeros((2, 3))
        self._best, self._idle_ticks = np.inf, 0
        self._table_m = config.table_height_m

    def reset(self) -> None:
        """Starts from wherever robot and shirt are; the style follows from the style seed and the episode's seed."""
        self._rng = np.random.default_rng((self._style_seed, self._env.episode_seed))
        self._style = Style.draw(self._rng)
        self._bias[:] = 0.0
        self._avoid = []
        self._least_m, self._num_in_vain = np.inf, 0
        measured = self._task.drive.state(self._env.data)
        for motion, arm in zip(self._motions, _ARMS, strict=True):
            motion.reset(measured[arm])
        self._enter("choose", self._task.situation)

    def act(self) -> np.ndarray:
        """The next action, float32 [16]."""
        situation = self._task.situation
        tips, grips = self._intent(situation)
        measured = self._task.drive.state(self._env.data)
        action = np.empty(16)
        for hand, (motion, arm) in enumerate(zip(self._motions, _ARMS, strict=True)):
            goal = situation.tools[hand] + self._with_bias(hand, tips[hand] - situation.tips[hand])
            action[arm] = motion.step(measured[arm], goal, self._style.speed_m_s)
            action[LEFT_GRIPPER + hand] = grips[hand]
        return action.astype(np.float32)

    def _with_bias(self, hand: int, error: np.ndarray) -> np.ndarray:
        """Adds what it took lately to get rid of a remaining error [3]: an arm drawn towards its posture stops short."""
        near = float(np.linalg.norm(error)) < _BIAS_NEAR_M
        self._bias[hand] = np.clip(self._bias[hand] + _BIAS_GAIN * error, -_BIAS_M, _BIAS_M) if near else 0.0
        return error + self._bias[hand]

    def _enter(self, phase: str, situation: Situation) -> None:
        self._phase, self._anchor = phase, situation.tips.copy()
        self._best, self._idle_ticks = np.inf, 0

    def _stalls(self, remaining_m: float) -> bool:
        """Whether nothing has come nearer for a while."""
        if remaining_m < self._best - _STALL_M:
            self._best, self._idle_ticks = remaining_m, 0
        self._idle_ticks += 1
        return self._idle_ticks > _STALLED_TICKS

    def _intent(self, situation: Situation) -> tuple[np.ndarray, list[float]]:
        """Where the fingertips should be going [2, 3], and the grippers' commands."""
        if self._phase == "choose":
            self._choose(situation)
        handler = {"reach": self._reach, "close": self._close, "carry": self._carry, "open": self._open}
        return handler.get(self._phase, self._rise)(situation)

    def _choose(self, situation: Situation) -> None:
        goal = self._task.parse(self._instruction or self._env.instruction)
        self._move = self._planned(situation, goal) if situation.hands_empty else None
        if self._move is not None:
            wanted = [
                best_aim(self._task.config.shirt, situation.vertices, vertex or 0)[0] for vertex in self._move.vertices
            ]
            self._aim = np.stack(wanted) + self._rng.normal(0.0, self._style.aim_m, size=(2, 2))  # another at every try
        self._enter("open" if self._move is None else "reach", situation)

    def _planned(self, situation: Situation, goal: Goal) -> Move | None:
        """The next move; remembers how many pulls have brought the body no nearer to flat."""
        reading = read(self._task.config, situation.vertices)
        away_m = max(reading.upper_m, reading.lower_m)
        if away_m < (1.0 - _GAIN) * self._least_m:
            self._least_m, self._num_in_vain = away_m, 0
        move = plan(self._task.config, situation, goal, self._avoid, self._num_in_vain >= _PATIENCE)
        if move is not None and move.name == "pull":
            self._num_in_vain += 1
        else:
            self._least_m, self._num_in_vain = np.inf, 0
        return move

    def _waiting(self, situation: Situation) -> np.ndarray:
        """Fingertips of hands that have nothing to do: at their ready places [2, 3]."""
        return np.stack([ready_tool(side) for side in SIDES]) + situation.tips - situation.tools

    def _used(self) -> list[int]:
        return [] if self._move is None else [hand for hand in (0, 1) if self._move.vertices[hand] is not None]

    def _grasp_points(self, move: Move, situation: Situation) -> np.ndarray:
        """Where the fingertips close [2, 3]; rows of idle hands mean nothing."""
        points = situation.vertices[[vertex or 0 for vertex in move.vertices]]
        points += np.pad(self._aim, ((0, 0), (0, 1)))
        points[:, 2] = [tip_height(point, situation.vertices, move.deep) for point in points]
        return points

    def _reach(self, situation: Situation) -> tuple[np.ndarray, list[float]]:
        assert self._move is not None
        tips, used = self._waiting(situation), self._used()
        points = self._grasp_points(self._move, situation)
        gaps = np.linalg.norm(points - situation.tips, axis=1)[used]
        sideways = np.linalg.norm((points - situation.tips)[:, :2], axis=1)
        for hand in used:
            tips[hand] = points[hand]
            tips[hand, 2] += self._style.hover_m * min(max((sideways[hand] - _READY_M) / _FUNNEL_M, 0.0) * 2.0, 1.0)
        if (gaps < _READY_M).all() and (situation.closures[used] < 0.6).all():
            self._enter("close", situation)
        elif self._stalls(float(gaps.max())):
            self._enter("rise", situation)
        return tips, [OPEN, OPEN]

    def _close(self, situation: Situation) -> tuple[np.ndarray, list[float]]:
        assert self._move is not None
        tips, used = self._waiting(situation), self._used()
        tips[used] = self._anchor[used]
        if all(situation.held[hand] for hand in used):
            self._start_carrying(situation)
        elif any(situation.closures[hand] > EMPTY_CLOSED and not situation.held[hand] for hand in used):
            self._enter("open", situation)
        return tips, [1.0 if hand in used else OPEN for hand in (0, 1)]

    def _start_carrying(self, situation: Situation) -> None:
        assert self._move is not None
        self._paths = [None, None]
        self._avoid = [*self._avoid, *(vertex for vertex in self._move.vertices if vertex is not None)][-_MEMORY:]
        for hand in self._used():
            vertex, wanted = situation.held[hand][0], self._move.vertices[hand]
            goal = self._move.goals[wanted if self._move.path is lay_out_path else vertex]
            self._paths[hand] = _evenly(self._move.path(situation.vertices[vertex], goal))
        self._share = 0.0
        self._enter("carry", situation)

    def _carry(self, situation: Situation) -> tuple[np.ndarray, list[float]]:
        tips, used, behind = self._waiting(situation), self._used(), 0.0
        if not all(situation.held[hand] for hand in used):
            self._enter("open", situation)
            return situation.tips.copy(), [OPEN, OPEN]
        longest = 1e-6
        for hand in used:
            path = self._paths[hand]
            assert path is not None
            vertex = situation.vertices[situation.held[hand][0]]
            wanted = _at(path, self._share)
            tips[hand] = situation.tips[hand] + wanted - vertex
            behind = max(behind, float(np.linalg.norm(wanted - vertex)))
            longest = max(longest, _length(path))
        if behind < _LEAD_M:
            self._share = min(1.0, self._share + self._style.speed_m_s / CONTROL_HZ / longest)
        if (self._share >= 1.0 and behind < _ARRIVED_M) or self._stalls(behind + longest * (1.0 - self._share)):
            self._enter("open", situation)
        return tips, [1.0 if hand in used else OPEN for hand in (0, 1)]

    def _open(self, situation: Situation) -> tuple[np.ndarray, list[float]]:
        if situation.hands_empty and (situation.closures < 0.6).all():
            self._enter("rise", situation)
        return self._anchor.copy(), [OPEN, OPEN]

    def _rise(self, situation: Situation) -> tuple[np.ndarray, list[float]]:
        tips = self._waiting(situation)
        used = self._used() or [0, 1]
        tips[used] = self._anchor[used] + (0.0, 0.0, self._style.rise_m)
        risen = situation.tips[used, 2] > self._anchor[used, 2] + self._style.rise_m - 0.012
        if risen.all() or self._stalls(float(np.abs(tips - situation.tips)[used].max())):
            self._enter("choose", situation)
        return tips, [OPEN, OPEN]


def _motion(side: str, arm: slice, task: LaundryTask) -> ToolMotion:
    (x0, x1), table_m = _WORK_X_M, task.config.table_height_m
    y0, y1 = (-_INNER_Y_M, _OUTER_Y_M) if side == "left" else (-_OUTER_Y_M, _INNER_Y_M)
    low, high = np.array([x0, y0, table_m + _LOWEST_M]), np.array([x1, y1, table_m + _SAFE_M])
    return ToolMotion(side, task.rest_state[arm], ROTATION_AT[side], low, high, task.config.robot)


def _evenly(path: np.ndarray) -> np.ndarray:
    """A path [K, 3] with the same number of points everywhere, evenly spaced: two hands stay in step."""
    lengths = np.concatenate([[0.0], np.cumsum(np.linalg.norm(np.diff(path, axis=0), axis=1))])
    where = np.linspace(0.0, lengths[-1], 60)
    return np.stack([np.interp(where, lengths, path[:, axis]) for axis in range(3)], axis=1)


def _at(path: np.ndarray, share: float) -> np.ndarray:
    where = np.linspace(0.0, 1.0, len(path))
    return np.array([np.interp(share, where, path[:, axis]) for axis in range(3)])


def _length(path: np.ndarray) -> float:
    return float(np.linalg.norm(np.diff(path, axis=0), axis=1).sum())
