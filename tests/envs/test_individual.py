import dataclasses

import numpy as np
import pytest

import envs
from envs.individual import DelayLine, Individual, Spread, draw_grain, draw_individual

ODD = Individual(
    brightness=0.6,
    tint=(1.2, 0.9, 0.7),
    camera_shift_m=((0.01, 0.0, 0.0), (0.0, 0.01, 0.0), (0.0, 0.0, 0.01)),
    camera_turn_rad=((0.0, 0.0, 0.1), (0.05, 0.0, 0.0), (0.0, 0.05, 0.0)),
    friction=0.5,
    stiffness=0.8,
    damping=1.3,
)


@pytest.fixture
def load():
    made = []

    def make(individual=None, task="restock_shelf"):
        made.append(envs.load(task, individual=individual, image_size=32))
        return made[-1]

    yield make
    for env in made:
        env.close()


def _numbers(individual) -> np.ndarray:
    values = dataclasses.asdict(individual).values()
    return np.concatenate([np.ravel(value) for value in values])


def test_a_name_is_always_the_same_individual_and_another_name_another():
    one = draw_individual("workshop", "robot-1")
    assert draw_individual("workshop", "robot-1") == one
    others = [draw_individual("workshop", f"robot-{i}") for i in range(2, 40)]
    assert len({one, *others}) == 39
    assert one != draw_individual("field", "robot-1")
    assert {individual.delay_ticks for individual in others} == {0, 1}


@pytest.mark.parametrize("name", ["workshop", "field"])
def test_individuals_fill_their_distribution_and_stay_inside(name):
    spread: Spread = envs.DISTRIBUTIONS[name]
    drawn = [draw_individual(name, f"robot-{i}") for i in range(300)]
    for field in ("brightness", "friction", "stiffness", "damping"):
        factors = np.array([getattr(individual, field) for individual in drawn])
        half = getattr(spread, field)
        assert 0.9 * half < np.abs(factors - 1).max() <= half
        assert abs(factors.mean() - 1) < 0.15 * half
    turns = np.array([individual.camera_turn_rad for individual in drawn])
    assert 0.9 * spread.camera_turn_rad < np.abs(turns).max() <= spread.camera_turn_rad
    assert {individual.delay_ticks for individual in drawn} == set(range(spread.max_delay_ticks + 1))
    grains = [individual.grain for individual in drawn]
    assert 0 <= min(grains) < 0.1 * spread.max_grain
    assert 0.9 * spread.max_grain < max(grains) <= spread.max_grain
    assert len({individual.pattern for individual in drawn}) == 300


def test_identical_robots_are_the_nominal_one():
    assert draw_individual("identical", "robot-7") == Individual()
    with pytest.raises(ValueError, match="unknown distribution 'wild'"):
        draw_individual("wild", "robot-1")
    with pytest.raises(ValueError, match="must be positive"):
        Individual(friction=0.0)


def test_an_individual_looks_and_feels_different_and_stays_itself(load):
    nominal, odd = load(), load(ODD)
    nominal.reset(5)
    plain_images = nominal.render()
    odd.reset(5)
    first_images, model = odd.render(), odd.task.model
    assert first_images["head"].mean() < 0.8 * plain_images["head"].mean()
    for name in envs.CAMERAS:
        assert (first_images[name] != plain_images[name]).mean() > 0.3
    np.testing.assert_allclose(model.geom_friction, 0.5 * nominal.task.model.geom_friction)
    arm = model.actuator("g1/left_j1").id
    own = nominal.task.model
    assert model.actuator_gainprm[arm, 0] == pytest.approx(0.8 * own.actuator_gainprm[arm, 0])
    assert model.actuator_biasprm[arm, 1] == pytest.approx(0.8 * own.actuator_biasprm[arm, 1])
    assert model.actuator_biasprm[arm, 2] == pytest.approx(1.3 * own.actuator_biasprm[arm, 2])
    head = model.camera("g1/head").id
    assert np.linalg.norm(model.cam_pos[head] - own.cam_pos[head]) == pytest.approx(0.01)
    for seed in (6, 7, 5):  # nothing adds up over episodes
        odd.reset(seed)
    again = odd.render()
    for name in envs.CAMERAS:
        np.testing.assert_array_equal(again[name], first_images[name])


@pytest.mark.parametrize("task", envs.TASKS)
def test_every_task_runs_with_an_individual_of_the_field(load, task):
    env = load(draw_individual("field", "robot-3"), task)
    env.reset(2)
    for _ in range(5):
        env.step(env.executed_action)
    assert np.isfinite(env.task.drive.state(env.data)).all()


def test_a_delayed_robot_moves_later_but_says_what_it_was_told(load):
    prompt, late = load(), load(Individual(delay_ticks=2))
    paths = []
    for env in (prompt, late):
        env.reset(3)
        start = env.task.drive.state(env.data)
        path = []
        for _ in range(6):
            target = start.copy()
            target[7] += 0.2
            env.step(target)
            assert env.executed_action[7] == pytest.approx(target[7], abs=1e-6)
            path.append(env.task.drive.state(env.data)[7] - start[7])
        paths.append(path)
    assert np.abs(paths[1][:2]).max() < 0.01 < paths[0][0]
    np.testing.assert_allclose(paths[1][2:], paths[0][:4], atol=0.01)


def test_a_delay_line_keeps_the_order():
    line = DelayLine(2)
    line.reset(np.zeros(1))
    assert [float(line.pass_through(np.array([float(i)]))[0]) for i in range(1, 5)] == [0.0, 0.0, 1.0, 2.0]


def test_an_expert_still_works_on_individuals(load):
    done = 0
    for number in range(4):
        env = load(draw_individual("workshop", f"robot-{number}"))
        expert = envs.make_expert(env)
        timestep = env.reset(number)
        expert.reset()
        while not timestep.last():
            timestep = env.step(expert.act())
        done += env.success()
    assert done >= 3


def test_grain_darkens_floor_and_table_in_veins_that_are_ones_own(load):
    plain, veined, other = load(), load(Individual(grain=0.5, pattern=3)), load(Individual(grain=0.5, pattern=4))
    images = []
    for env in (plain, veined, other):
        env.reset(2)
        images.append(env.render()["head"].astype(int))
    assert (images[1] <= images[0] + 1).all()
    assert (images[1] < images[0] - 8).mean() > 0.1
    assert (images[1] != images[2]).mean() > 0.1
    veined.reset(2)
    np.testing.assert_array_equal(veined.render()["head"], images[1])


def test_veins_reach_from_none_to_the_grain_and_run_on_at_the_edges():
    drawn = draw_grain(Individual(grain=0.4, pattern=9), 0).astype(int)
    assert (drawn.min(), drawn.max()) == (153, 255)
    inside = np.abs(np.diff(drawn, axis=0)).max()
    assert np.abs(drawn[0] - drawn[-1]).max() <= inside + 1
    assert (draw_grain(Individual(grain=0.4, pattern=9), 1) != drawn).any()
    with pytest.raises(ValueError, match=r"grain must lie in 0 \.\. 1"):
        Individual(grain=1.5)
