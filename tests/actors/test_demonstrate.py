import numpy as np
import pytest

from sop_jax.actors.demonstrate import DemonstrationConfig, NoSuccessError, StartNoise, collect_demonstrations
from sop_jax.actors.rollout import RolloutConfig
from sop_jax.actors.seeds import episode_seed
from sop_jax.episodes.format import pack
from sop_jax.episodes.store import EpisodeStore
from sop_jax.episodes.verify import verify_bytes
from sop_jax.robots.fake import FakeExpert, FakeRobot, FakeRobotConfig
from sop_jax.specs.clock import ManualClock
from sop_jax.specs.errors import ConfigError
from sop_jax.specs.records import NO_POLICY, Outcome, Source


class Clumsy:
    """Succeeds in every second episode only."""

    def __init__(self, robot):
        self.robot = robot
        self.turn = 0

    def reset(self):
        self.turn += 1

    def act(self):
        return self.robot.goal if self.turn % 2 == 0 else self.robot.observe(images=False).state


class Idle(Clumsy):
    """Never succeeds."""

    def act(self):
        return self.robot.observe(images=False).state


def collect(num_episodes, *, robot=None, expert=None, accept=None, seed=0, robot_s=0.0, **config):
    robot = robot or FakeRobot(FakeRobotConfig(time_limit_frames=40), ManualClock(10**9))
    episodes = []
    report = collect_demonstrations(
        robot,
        expert or FakeExpert(robot),
        num_episodes,
        seed,
        accept or episodes.append,
        ManualClock(10**9),
        robot_id="demo",
        world="fake/1",
        config=DemonstrationConfig(**config),
        robot_s=robot_s,
    )
    return report, episodes


def test_robot_time_can_be_asked_for_in_place_of_a_number():
    report, episodes = collect(None, robot_s=5.0)
    durations = [episode.manifest.num_frames / 30 for episode in episodes]
    assert sum(durations) == pytest.approx(report.duration_s)
    assert sum(durations) >= 5.0 > sum(durations[:-1])
    robot = FakeRobot(FakeRobotConfig(time_limit_frames=40), ManualClock(10**9))
    with pytest.raises(NoSuccessError, match=r"5 s of them were wanted"):
        collect(None, robot=robot, expert=Idle(robot), robot_s=5.0)


def test_demonstrations_are_offline_and_without_a_policy(store_url):
    store = EpisodeStore(store_url)
    report, _ = collect(3, accept=store.put)
    assert (len(report.episode_ids), report.num_tried, report.interrupted) == (3, 3, False)
    manifests = [store.read(path).manifest for path in store.list_paths()]
    assert tuple(manifest.episode_id for manifest in manifests) == report.episode_ids
    assert sum(manifest.num_frames for manifest in manifests) == report.num_frames
    assert report.duration_s == pytest.approx(report.num_frames / 30)
    for number, (manifest, path) in enumerate(zip(manifests, store.list_paths(), strict=True)):
        assert (manifest.source, manifest.policy_version, manifest.outcome) == (
            Source.OFFLINE,
            NO_POLICY,
            Outcome.SUCCESS,
        )
        assert (manifest.seed, manifest.world) == (episode_seed(0, "demo", number), "fake/1")
        verify_bytes(store.read_bytes(path), path)


def test_only_successes_are_kept():
    robot = FakeRobot(FakeRobotConfig(time_limit_frames=40))
    report, episodes = collect(3, robot=robot, expert=Clumsy(robot))
    assert report.num_tried == 6
    assert [episode.manifest.outcome for episode in episodes] == [Outcome.SUCCESS] * 3


def test_failures_are_kept_when_wanted():
    robot = FakeRobot(FakeRobotConfig(time_limit_frames=40))
    report, episodes = collect(4, robot=robot, expert=Clumsy(robot), keep_failures=True)
    assert report.num_tried == 4
    assert [episode.manifest.outcome for episode in episodes] == [Outcome.TIMEOUT, Outcome.SUCCESS] * 2


def test_an_expert_that_always_fails_is_given_up():
    robot = FakeRobot(FakeRobotConfig(time_limit_frames=2))
    with pytest.raises(NoSuccessError, match="0 of 22 episodes, 2 were wanted"):
        collect(2, robot=robot, max_tries=1)


def test_equal_arguments_give_equal_episodes():
    _, first = collect(2, start_noise=StartNoise())
    _, second = collect(2, start_noise=StartNoise())
    assert [pack(episode) for episode in first] == [pack(episode) for episode in second]
    _, other = collect(2, seed=1, start_noise=StartNoise())
    assert pack(other[0]) != pack(first[0])


def test_start_noise_moves_the_named_joints_only_and_off_the_record():
    _, plain = collect(4)
    noise = StartNoise(joint_std_rad=0.1, duration_s=1 / 3, dims=(7, 8))
    _, noisy = collect(4, start_noise=noise)
    offsets = np.stack([there.arrays.state[0] - here.arrays.state[0] for here, there in zip(plain, noisy, strict=True)])
    assert np.all(np.abs(offsets[:, [7, 8]]) > 1e-4)
    assert np.all(np.abs(offsets[:, [7, 8]]) <= 0.2 + 1e-6)
    np.testing.assert_array_equal(offsets[:, [i for i in range(16) if i not in (7, 8)]], 0)
    assert all(episode.arrays.image_frames[0] == 0 for episode in noisy)
    # The ten ticks of moving are on the robot's clock, but no frames of the episode.
    assert noisy[0].manifest.started_ns - plain[0].manifest.started_ns == round(1e9 / 3)


def test_a_scene_that_the_noise_ends_is_skipped():
    robot = FakeRobot(FakeRobotConfig(time_limit_frames=40, out_of_bounds=0.25), ManualClock())
    with pytest.raises(NoSuccessError):
        collect(1, robot=robot, start_noise=StartNoise(joint_std_rad=5.0, duration_s=1.0))


def test_ctrl_c_keeps_what_was_accepted():
    robot = FakeRobot(FakeRobotConfig(time_limit_frames=40))
    check_end = robot.check_end
    episodes = []

    def interrupting():
        if len(episodes) == 2 and robot.frame == 3:
            raise KeyboardInterrupt
        return check_end()

    robot.check_end = interrupting
    report, _ = collect(5, robot=robot, accept=episodes.append)
    assert report.interrupted
    assert len(report.episode_ids) == len(episodes) == 2


@pytest.mark.parametrize("wrong", [{"joint_std_rad": -1.0}, {"duration_s": 0.0}])
def test_wrong_settings_are_refused_by_name(wrong):
    with pytest.raises(ConfigError, match=next(iter(wrong))):
        StartNoise(**wrong)
    with pytest.raises(ConfigError, match="max_tries"):
        DemonstrationConfig(max_tries=0)
    assert DemonstrationConfig().rollout == RolloutConfig()
