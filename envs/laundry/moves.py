"""What to do next with the shirt: moves, each a grasp of one or two places and the path of the cloth from there.

`plan` is a function of how the shirt lies, so every recovery is the same code as the normal course: whatever is not
flat is laid out or pulled straight, a sleeve that is not in is folded in, and so on until it lies on the stack.
"""

import dataclasses
from collections.abc import Callable, Collection

import numpy as np

from envs.laundry.config import LaundryConfig
from envs.laundry.judgement import is_stacked
from envs.laundry.layout import Pose, fit
from envs.laundry.pinch import catching_distance
from envs.laundry.scene import SHIRT_RADIUS_M
from envs.laundry.shirt import Shirt
from envs.laundry.situation import FLAT_M, Goal, Reading, Situation, read, sleeves_out, stage_of

Path = Callable[[np.ndarray, np.ndarray], np.ndarray]
_CRUMPLED_M = 0.06  # with a vertex of the upper body further from its place than this, the shirt is laid out anew
_BALL_M = 0.21  # a shirt that covers less than this in length is lifted and laid down by one corner first
_PULL_M = 0.012  # a named vertex further than this from its place is pulled there
_WORK_OFFSET_M, _WORK_YAW_RAD = 0.03, 0.15  # how far from the middle of the table the shirt may be left
_HALF_IN_M = 0.045  # a sleeve that sticks out less is taken where it sticks out most
_AIM_ASIDE_M, _AIM_MARGIN_M = (
    0.010,
    0.006,
)  # how far beside a vertex to grasp; a lead over its neighbours that is plenty
_LESS = 0.35  # what a vertex is worth that can't be had alone or was just tried
_FREE_M = 0.002  # with this lead a vertex can be had alone
_HANDS_APART_M = 0.10  # two hands need this much room from side to side
_ABOVE_M = 0.008  # how high over the surface held cloth is let go


@dataclasses.dataclass(frozen=True)
class Move:
    """One move: `vertices` (left, right) to grasp, None for an idle hand; `deep`: every layer, or only the uppermost;
    `goals` [V, 3]: where each vertex would belong afterwards; `path(start, goal)` [K, 3]: how held cloth gets there.
    """

    name: str
    vertices: tuple[int | None, int | None]
    goals: np.ndarray
    path: Path
    deep: bool = False


def plan(
    config: LaundryConfig, situation: Situation, goal: Goal, avoid: Collection[int] = (), in_vain: bool = False
) -> Move | None:
    """The next move; None when the shirt lies where it belongs. `avoid`: vertices that were just tried; `in_vain`: pulling
    has helped no more.
    """
    reading = read(config, situation.vertices)
    stage, stack_m = stage_of(reading), config.stack_centres_m[goal.stack]
    if stage == "stack":
        if is_stacked(config.shirt, situation.vertices, stack_m, situation.surfaces_m[goal.stack]):
            return None
        return _put_on_stack(config, reading, stack_m, situation.surfaces_m[goal.stack])
    if stage == "fold_bottom":
        return _fold_bottom(config, situation, reading, avoid, in_vain)
    if stage == "flatten":
        return _flatten(config, situation, reading, avoid, in_vain)
    return _fold_sleeve(config, situation, reading, 0 if stage == "fold_left_sleeve" else 1, step=2)


def _flatten(
    config: LaundryConfig, situation: Situation, reading: Reading, avoid: Collection[int], in_vain: bool
) -> Move:
    """Lays the shirt out by its upper corners where both can be had; else pulls on what can.

    A seam that lies folded over all its length springs back from any pull, but falls straight where the shirt hangs.
    """
    if reading.upper_m < _CRUMPLED_M and not in_vain:
        return _pull(config, situation, reading, avoid)
    spread, shirt = _spread(config, situation), config.shirt
    tops = [int(spread[vertex]) for vertex in shirt.tops]
    goals = _goals(config, spread, Pose(np.array(config.work_m), 0.0).place(shirt.rest))
    free = all(best_aim(shirt, situation.vertices, vertex)[1] > _FREE_M for vertex in tops)
    if free and _two_hands_fit(situation.vertices, tops[0], tops[1]):
        return Move("lay_out", (tops[0], tops[1]), goals, lay_out_path)
    balled = np.ptp(situation.vertices[:, :2], axis=0).max() < _BALL_M
    pairs = (shirt.tops, shirt.sleeves) if balled else (shirt.tops, shirt.sleeves, shirt.hems)
    named = [[pair[side] for pair in pairs] for side in (0, 1)]
    return _pull_worst(shirt, situation, "shake_out" if balled else "untangle", spread, goals, named, avoid)


def _spread(config: LaundryConfig, situation: Situation) -> np.ndarray:
    """The order [V] in which the shirt's upper corners are not crossed."""
    shirt = config.shirt
    left, right = shirt.tops
    crossed = situation.vertices[left, 1] < situation.vertices[right, 1]
    return shirt.mirrored if crossed else np.arange(len(shirt.mirrored))


def _pull(config: LaundryConfig, situation: Situation, reading: Reading, avoid: Collection[int]) -> Move:
    """Pulls the body straight by its outline, and by any vertex of it once that is right."""
    shirt = config.shirt
    seen = situation.vertices[reading.order, :2]
    still = shirt.is_upper if reading.upper_m < FLAT_M else shirt.is_body
    pose = fit(seen[still], shirt.rest[still])
    pose = pose.kept_near(Pose(np.array(config.work_m), 0.0), _WORK_OFFSET_M, _WORK_YAW_RAD)
    goals = _goals(config, reading.order, pose.place(shirt.rest))
    away = np.linalg.norm((situation.vertices - goals)[reading.order, :2], axis=1)
    outline = shirt.is_body & shirt.is_edge
    among = outline if away[outline].max() > _PULL_M else shirt.is_body
    named = [np.flatnonzero(among & (side * shirt.rest[:, 1] > 0.0)).tolist() for side in (1.0, -1.0)]
    return _pull_worst(shirt, situation, "pull", reading.order, goals, named, avoid)


def _pull_worst(
    shirt: Shirt,
    situation: Situation,
    name: str,
    order: np.ndarray,
    goals: np.ndarray,
    named: list[list[int]],
    avoid: Collection[int],
) -> Move:
    """Pulls, on each side, that one of the `named` vertices to its goal that is far from it and can be had alone."""
    chosen, worth = [], []
    for side in named:
        vertices = [int(order[vertex]) for vertex in side]
        away = [float(np.linalg.norm(situation.vertices[vertex, :2] - goals[vertex, :2])) for vertex in vertices]
        free = [vertex not in avoid and best_aim(shirt, situation.vertices, vertex)[1] > _FREE_M for vertex in vertices]
        value = [distance * (1.0 if is_free else _LESS) for distance, is_free in zip(away, free, strict=True)]
        best = int(np.argmax(value))
        chosen.append(vertices[best])
        worth.append(value[best])
    left, right = chosen
    both = name != "shake_out" and min(worth) > _PULL_M and _two_hands_fit(situation.vertices, left, right)
    first = worth[0] > worth[1]
    vertices = (left if both or first else None, right if both or not first else None)
    return Move(name, vertices, goals, lay_out_path if name == "shake_out" else low_path)


def best_aim(shirt: Shirt, vertices: np.ndarray, wanted: int) -> tuple[np.ndarray, float]:
    """Where beside a vertex to grasp [2] so that of all `vertices` [V, 3] it is the nearest, and by what margin in m."""
    steps = np.linspace(-_AIM_ASIDE_M, _AIM_ASIDE_M, 5)
    offsets = np.stack(np.meshgrid(steps, steps), axis=-1).reshape(-1, 2)
    distances = catching_distance(vertices[wanted, :2] + offsets[:, None], vertices[:, :2], shirt)
    own = distances[:, wanted].copy()
    distances[:, wanted] = np.inf
    margin = distances.min(axis=1) - own
    best = int((np.minimum(margin, _AIM_MARGIN_M) - 0.1 * own).argmax())
    return offsets[best], float(margin[best])


def _two_hands_fit(vertices: np.ndarray, left: int, right: int) -> bool:
    return bool(vertices[left, 1] - vertices[right, 1] > _HANDS_APART_M)


def _fold_sleeve(config: LaundryConfig, situation: Situation, reading: Reading, side: int, step: int) -> Move:
    """Takes the middle of the sleeve's end; of one that is half in, what sticks out most."""
    shirt = config.shirt
    out = sleeves_out(shirt, reading.pose.local(situation.vertices[reading.order, :2]))[side]
    end = shirt.sleeves[side]
    vertex = int(reading.order[end if out[end] > _HALF_IN_M else out.argmax()])
    goals = _goals(config, reading.order, reading.pose.place(shirt.steps[step]))
    goals[:, 2] += _lies_above(config, situation)
    vertices = (vertex, None) if side == 0 else (None, vertex)
    return Move(f"fold_{('left', 'right')[side]}_sleeve", vertices, goals, arc_path)


def _fold_bottom(
    config: LaundryConfig, situation: Situation, reading: Reading, avoid: Collection[int], in_vain: bool
) -> Move:
    """Folds the hem up from flat, sets it right where it is up, and tucks in a sleeve that has come out."""
    out = [not sleeve_in for sleeve_in in reading.sleeves_in]
    if reading.hem_up and any(out) and reading.upper_m < FLAT_M:
        return _fold_sleeve(config, situation, reading, out.index(True), step=3)
    if reading.hem_up:
        return _straighten(config, situation, reading, avoid)
    hems = situation.vertices[reading.order[list(config.shirt.hems)], :2]
    if not reading.is_flat and (reading.pose.local(hems)[:, 0] < 0.0).any():
        return _flatten(config, situation, reading, avoid, in_vain)
    goals = _goals(config, reading.order, reading.pose.place(config.shirt.steps[3]))
    return Move("fold_bottom", _actual(reading, config.shirt.hems), goals, arc_path)


def _straighten(config: LaundryConfig, situation: Situation, reading: Reading, avoid: Collection[int]) -> Move:
    """Pulls a corner of the packet to its place, all layers at once."""
    shirt = config.shirt
    packet = fit(situation.vertices[reading.order, :2], shirt.steps[3])
    goals = _goals(config, reading.order, packet.place(shirt.steps[3]))
    goals[:, 2] += _lies_above(config, situation)
    named = [[pair[side] for pair in (shirt.waists, shirt.shoulders, shirt.hems)] for side in (0, 1)]
    move = _pull_worst(shirt, situation, "straighten", reading.order, goals, named, avoid)
    return dataclasses.replace(move, deep=True)


def _lies_above(config: LaundryConfig, situation: Situation) -> float:
    """How high above the table the shirt lies, on a stack say."""
    return max(float(np.median(situation.vertices[:, 2])) - config.table_height_m - SHIRT_RADIUS_M, 0.0)


def _put_on_stack(config: LaundryConfig, reading: Reading, stack_m: np.ndarray, surface_m: float) -> Move:
    shirt = config.shirt
    target = Pose(stack_m, 0.0).place(shirt.folded)
    goals = _goals(config, reading.order, target)
    goals[:, 2] += surface_m - config.table_height_m
    return Move("stack", _actual(reading, shirt.shoulders), goals, carry_path, deep=True)


def _actual(reading: Reading, pair: tuple[int, int]) -> tuple[int, int]:
    return int(reading.order[pair[0]]), int(reading.order[pair[1]])


def _goals(config: LaundryConfig, order: np.ndarray, seen_goals: np.ndarray) -> np.ndarray:
    """Goals [V, 3] by vertex, from goals [V, 2] by the part it plays."""
    goals = np.empty((len(seen_goals), 3))
    goals[order, :2] = seen_goals
    goals[:, 2] = config.table_height_m + SHIRT_RADIUS_M + _ABOVE_M
    return goals


def arc_path(start: np.ndarray, goal: np.ndarray) -> np.ndarray:
    """Over the fold line: half an ellipse, a little lower than a circle so that nothing is dragged."""
    share = np.linspace(0.0, np.pi, 13)[:, None]
    path = start + (goal - start) * (1.0 - np.cos(share)) / 2
    path[:, 2] += 0.42 * np.linalg.norm(goal[:2] - start[:2]) * np.sin(share[:, 0])
    return path


def low_path(start: np.ndarray, goal: np.ndarray) -> np.ndarray:
    """Just over the table."""
    lift = np.array([0.0, 0.0, 0.02])
    return np.stack([start, start + 0.1 * (goal - start) + lift, start + 0.7 * (goal - start) + lift, goal])


def lay_out_path(start: np.ndarray, goal: np.ndarray) -> np.ndarray:
    """Up until the shirt hangs free, then down and away from the robot, as a towel is laid."""
    high, low, out = (goal + np.array(offset) for offset in ((-0.25, 0.0, 0.26), (-0.10, 0.0, 0.05), (0.0, 0.0, 0.004)))
    return np.stack([start, high, low, out, goal])


def carry_path(start: np.ndarray, goal: np.ndarray) -> np.ndarray:
    """Up until the packet hangs free, across, then down and away from the robot."""
    over, down = goal + np.array((-0.17, 0.0, 0.15)), goal + np.array((-0.08, 0.0, 0.02))
    return np.stack([start, start + np.array((-0.05, 0.0, 0.17)), over, down, goal])
