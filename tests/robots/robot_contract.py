"""What every Robot must do; `test_fake.py` and `test_simulated.py` run it on their own."""

import numpy as np

from sop_jax.specs.interfaces import Robot
from sop_jax.specs.records import EpisodeEnd, Outcome


class RobotContract:
    """Subclasses give a fixture `robot` (function scope), may raise `num_ticks` and say another `action_dim`."""

    num_ticks = 12
    action_dim = 16

    def test_spec_is_complete(self, robot: Robot):
        spec = robot.spec
        low, high = np.array(spec.action_low), np.array(spec.action_high)
        assert spec.action_dim == self.action_dim
        assert np.all(low < high)
        assert spec.control_hz > 0
        assert len({camera.name for camera in spec.cameras}) == len(spec.cameras) > 0
        assert robot.task

    def test_an_episode_has_an_instruction(self, robot: Robot):
        robot.reset(1)
        assert robot.instruction

    def test_observation_fits_the_spec(self, robot: Robot):
        robot.reset(1)
        observation = robot.observe()
        assert observation.state.dtype == np.float32
        assert observation.state.shape == (robot.spec.state_dim,)
        assert np.isfinite(observation.state).all()
        assert observation.instruction == robot.instruction
        assert set(observation.images) == {camera.name for camera in robot.spec.cameras}
        for camera in robot.spec.cameras:
            image = observation.images[camera.name]
            assert (image.dtype, image.shape) == (np.uint8, (camera.height, camera.width, 3))

    def test_images_are_given_only_when_asked_for(self, robot: Robot):
        robot.reset(1)
        assert robot.observe(images=False).images == {}

    def test_an_observation_is_not_changed_by_what_follows(self, robot: Robot):
        robot.reset(1)
        observation = robot.observe()
        state = observation.state.copy()
        images = {name: image.copy() for name, image in observation.images.items()}
        for _ in range(3):
            robot.apply(observation.state + 0.3)
        robot.observe()
        np.testing.assert_array_equal(observation.state, state)
        for name, image in images.items():
            np.testing.assert_array_equal(observation.images[name], image)

    def test_commands_are_clipped_and_returned(self, robot: Robot):
        robot.reset(1)
        executed = robot.apply(np.full(self.action_dim, 50.0, np.float32))
        assert executed.dtype == np.float32
        assert np.all(executed <= np.array(robot.spec.action_high, np.float32))
        assert np.all(executed >= np.array(robot.spec.action_low, np.float32))

    def test_a_command_within_reach_is_executed_as_it_is(self, robot: Robot):
        robot.reset(1)
        target = np.clip(robot.observe(images=False).state, robot.spec.action_low, robot.spec.action_high)
        target = target.astype(np.float32)
        np.testing.assert_allclose(robot.apply(target), target, atol=1e-6)

    def test_time_moves_on_with_every_tick(self, robot: Robot):
        robot.reset(1)
        times = []
        for _ in range(self.num_ticks):
            observation = robot.observe(images=False)
            times.append(observation.time_ns)
            robot.apply(observation.state)
        steps = np.diff(times)
        assert np.all(steps > 0)
        assert abs(np.mean(steps) * robot.spec.control_hz / 1e9 - 1) < 0.01

    def test_an_episode_does_not_start_at_its_end(self, robot: Robot):
        robot.reset(1)
        assert robot.check_end() is None

    def test_the_same_seed_gives_the_same_episode(self, robot: Robot):
        first, second = _play(robot, 5, self.num_ticks), _play(robot, 5, self.num_ticks)
        np.testing.assert_array_equal(first, second)

    def test_another_seed_gives_another_episode(self, robot: Robot):
        assert not np.array_equal(_play(robot, 5, self.num_ticks), _play(robot, 6, self.num_ticks))

    def test_doing_nothing_comes_to_an_end_that_says_why(self, robot: Robot):
        robot.reset(2)
        hold = robot.observe(images=False).state
        end = None
        for _ in range(10_000):
            end = robot.check_end()
            if end is not None:
                break
            robot.apply(hold)
        assert isinstance(end, EpisodeEnd)
        assert end.outcome in (Outcome.TIMEOUT, Outcome.FAILURE)
        assert end.failure_kind
        assert robot.check_end() == end


def _play(robot: Robot, seed: int, num_ticks: int) -> np.ndarray:
    """States [T, S], then the pixels of the last frame, as one float vector."""
    robot.reset(seed)
    rng = np.random.default_rng(0)
    rows = []
    for _ in range(num_ticks):
        observation = robot.observe(images=False)
        rows.append(observation.state)
        robot.apply(observation.state + rng.normal(0, 0.02, robot.spec.action_dim).astype(np.float32))
    images = robot.observe().images
    pixels = [images[name].astype(np.float32).ravel() for name in sorted(images)]
    return np.concatenate([*rows, *pixels])
