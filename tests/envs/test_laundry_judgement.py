"""What counts as folded and stacked, on hand-made outlines; how a shirt is read; what fingertips take."""

import numpy as np
import pytest

from envs.laundry.config import STACKS, LaundryConfig
from envs.laundry.judgement import (
    MAX_CORNER_M,
    MAX_OFFSET_M,
    MIN_OVERLAP,
    is_folded,
    is_placed,
    is_stacked,
    measure_fold,
)
from envs.laundry.layout import Pose, fit, outline_overlap, seen_order
from envs.laundry.moves import plan
from envs.laundry.pinch import vertices_in_reach
from envs.laundry.situation import Goal, Situation, is_done, read, stage_of

CONFIG = LaundryConfig()
SHIRT = CONFIG.shirt
LEFT = CONFIG.stack_centres_m["left"]
TABLE = CONFIG.table_height_m


def lying(shape: np.ndarray, pose: Pose) -> np.ndarray:
    """A shape [V, 2] as vertices [V, 3] on the table."""
    return np.pad(pose.place(shape), ((0, 0), (0, 1)), constant_values=TABLE + 0.003)


def on_stack(dx: float = 0.0, yaw: float = 0.0) -> np.ndarray:
    return lying(SHIRT.folded, Pose(LEFT + np.array((dx, 0.0)), yaw))


def test_a_perfect_fold_overlaps_fully_and_is_stacked():
    fold = measure_fold(SHIRT, on_stack(yaw=0.1))
    assert fold.overlap == pytest.approx(1.0, abs=0.02)
    assert fold.corner_m == pytest.approx(0.0, abs=1e-9)
    assert fold.pose.yaw_rad == pytest.approx(0.1)
    assert is_stacked(SHIRT, on_stack(), LEFT, TABLE)


def test_a_shirt_on_its_face_counts_the_same():
    mirrored = on_stack(yaw=0.1)[SHIRT.mirrored]
    assert (seen_order(SHIRT, mirrored) == SHIRT.mirrored).all()
    assert measure_fold(SHIRT, mirrored).corner_m == pytest.approx(0.0, abs=1e-9)


def test_one_corner_turned_in_fails_although_the_outline_passes():
    vertices = on_stack()
    for vertex in (SHIRT.hems[0], SHIRT.shoulders[0]):
        vertices[vertex, :2] -= (0.026, 0.026)
    fold = measure_fold(SHIRT, vertices)
    assert fold.overlap > MIN_OVERLAP
    assert fold.corner_m > MAX_CORNER_M
    assert not is_folded(fold)
    assert not is_stacked(SHIRT, vertices, LEFT, TABLE)


def test_outline_alone_fails_too():
    vertices = on_stack()
    vertices[SHIRT.is_sleeve.any(axis=0), 1] += 0.10
    fold = measure_fold(SHIRT, vertices)
    assert fold.overlap < MIN_OVERLAP
    assert not is_folded(fold)


@pytest.mark.parametrize(
    ("vertices", "stacked"),
    [
        (on_stack(dx=0.8 * MAX_OFFSET_M), True),
        (on_stack(dx=1.2 * MAX_OFFSET_M), False),
        (on_stack(yaw=0.25), True),
        (on_stack(yaw=0.35), False),
        (on_stack() + np.array((0.0, 0.0, 0.05)), False),
        (lying(SHIRT.rest, Pose(LEFT, 0.0)), False),
    ],
)
def test_place_turn_and_height_count(vertices, stacked):
    assert is_stacked(SHIRT, vertices, LEFT, TABLE) == stacked
    assert not is_stacked(SHIRT, vertices, CONFIG.stack_centres_m["right"], TABLE)


def test_fit_finds_a_pose_and_poses_stay_near():
    pose = Pose(np.array([0.6, -0.1]), 2.0)
    found = fit(pose.place(SHIRT.rest), SHIRT.rest)
    np.testing.assert_allclose(found.centre, pose.centre)
    assert found.yaw_rad == pytest.approx(2.0)
    np.testing.assert_allclose(pose.local(pose.place(SHIRT.rest)), SHIRT.rest, atol=1e-12)
    near = pose.kept_near(Pose(np.array([0.6, 0.0]), -3.0), 0.03, 0.2)
    np.testing.assert_allclose(near.centre, (0.6, -0.03))
    assert near.yaw_rad == pytest.approx(-3.2)  # the short way round
    assert is_placed(Pose(LEFT, 0.0), LEFT)


def test_overlap_by_hand():
    square = np.array([[0.0, 0.0], [0.03, 0.0], [0.03, 0.03], [0.0, 0.03]])  # about one cell of the mesh
    triangles = np.array([[0, 1, 2], [0, 2, 3]])
    assert outline_overlap(square, square, triangles) == 1.0
    assert outline_overlap(square, square + np.array((0.016, 0.0)), triangles) == pytest.approx(14 / 46, abs=0.1)
    assert outline_overlap(square, square + 0.2, triangles) == 0.0


@pytest.mark.parametrize("yaw", [0.0, 0.3])
@pytest.mark.parametrize(
    ("step", "stage"), [(0, "fold_left_sleeve"), (1, "fold_right_sleeve"), (2, "fold_bottom"), (3, "stack")]
)
def test_stages_follow_from_how_the_shirt_lies(step, stage, yaw):
    vertices = lying(SHIRT.steps[step], Pose(np.array([0.64, 0.0]), yaw))
    assert stage_of(read(CONFIG, vertices)) == stage
    crumpled = vertices.copy()
    crumpled[SHIRT.hems[0], :2] += (0.05, -0.05)
    assert stage_of(read(CONFIG, crumpled)) == ("flatten" if step < 2 else "fold_bottom")


def situation(vertices: np.ndarray, tip_z: float = 0.80, held=((), ()), speed: float = 0.0) -> Situation:
    tips = np.array([[0.66, 0.30, tip_z], [0.66, -0.3, tip_z]])
    return Situation(tips, tips, vertices, speed, held, np.zeros(2), np.zeros(2), dict.fromkeys(STACKS, TABLE), 1.0)


def test_done_needs_hands_that_let_go_drew_back_and_a_shirt_at_rest():
    goal = Goal("left")
    assert is_done(CONFIG, situation(on_stack()), goal)
    assert not is_done(CONFIG, situation(on_stack()), Goal("right"))
    assert not is_done(CONFIG, situation(on_stack(), tip_z=TABLE + 0.02), goal)
    assert not is_done(CONFIG, situation(on_stack(), held=((3,), ())), goal)
    assert not is_done(CONFIG, situation(on_stack(), speed=0.5), goal)


def test_plan_follows_the_stages_and_names_the_right_corners():
    goal, middle = Goal("left"), Pose(np.array([0.64, 0.0]), 0.0)
    moves = [plan(CONFIG, situation(lying(shape, middle)), goal) for shape in SHIRT.steps]
    assert [move.name for move in moves if move] == ["fold_left_sleeve", "fold_right_sleeve", "fold_bottom", "stack"]
    assert moves[0] is not None
    assert moves[0].vertices == (SHIRT.sleeves[0], None)
    assert moves[2] is not None
    assert moves[2].vertices == SHIRT.hems
    assert moves[3] is not None
    assert moves[3].deep
    np.testing.assert_allclose(moves[3].goals[:, :2].mean(axis=0), on_stack()[:, :2].mean(axis=0), atol=1e-9)
    assert plan(CONFIG, situation(on_stack()), goal) is None


def test_fingertips_take_one_vertex_or_when_pressed_down_one_of_every_layer():
    vertices = on_stack()
    corner = vertices[SHIRT.shoulders[0]]
    layers = {SHIRT.shoulders[0], SHIRT.hems[0]}

    def taken(above_m: float, aside_m: float = 0.0) -> set[int]:
        tip = corner + np.array((0.0, aside_m, above_m))
        return set(vertices_in_reach(tip, vertices, SHIRT))

    assert len(taken(0.018)) == 1
    assert taken(0.006) == layers
    assert taken(0.04) == set()
    assert taken(0.006, aside_m=0.03) == set()


def test_an_edge_is_caught_before_the_middle_of_a_layer_that_lies_on_it():
    vertices = lying(SHIRT.rest, Pose(np.array([0.64, 0.0]), 0.0))
    corner, middle = SHIRT.hems[0], int(np.flatnonzero(~SHIRT.is_edge)[0])
    vertices[corner] = vertices[middle]  # a dog-ear
    assert vertices_in_reach(vertices[middle] + (0.0, 0.0, 0.02), vertices, SHIRT) == (corner,)
