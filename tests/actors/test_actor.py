"""The actor's loop, with its faults."""

import os
import signal

import numpy as np
import pytest
from actor_parts import FlakyStore, TinyModel, make_runner

from sop_jax.actors.actor import Actor, ActorConfig, RobotBrokenError
from sop_jax.actors.robot_policy import SwapInsideEpisodeError
from sop_jax.actors.rollout import RolloutConfig
from sop_jax.actors.seeds import episode_seed
from sop_jax.actors.spool import Spool
from sop_jax.actors.weights_feed import InlineFeed
from sop_jax.episodes.format import pack
from sop_jax.robots.fake import FakeExpert, FakeGate, FakeRobot, FakeRobotConfig
from sop_jax.robots.scripted_supervisor import ScriptedSupervisor
from sop_jax.specs.clock import ManualClock
from sop_jax.specs.errors import ConfigError
from sop_jax.specs.metrics import MemoryMetrics
from sop_jax.specs.records import Outcome, Source
from sop_jax.weights.follower import Follower
from sop_jax.weights.publisher import Publisher

START_NS = 10**18


class Collected:
    """An acceptor that keeps episodes in memory."""

    num_given_up = 0

    def __init__(self):
        self.episodes = []

    def accept(self, episode):
        self.episodes.append(episode)


@pytest.fixture
def runner():
    return make_runner()


def make_actor(runner, acceptor, *, robot=None, feed=None, metrics=None, on_episode=None, supervised=True, **settings):
    clock = ManualClock(START_NS)
    robot = robot or FakeRobot(FakeRobotConfig(time_limit_frames=40), clock)
    supervisor = ScriptedSupervisor(robot, FakeExpert(robot), FakeGate(robot)) if supervised else None
    config = ActorConfig(
        "fake-1", "fake_task", supervised=supervised, rollout=RolloutConfig(execute_steps=4), **settings
    )
    return Actor(
        config, robot, runner, acceptor, clock, supervisor=supervisor, feed=feed, metrics=metrics, on_episode=on_episode
    )


def changed(factor):
    leaves = TinyModel().init_params(None)["head"]
    return {"head": {name: np.asarray(leaf) * np.float32(factor) for name, leaf in leaves.items()}}


def test_it_runs_as_many_episodes_as_told_and_hands_each_on(runner):
    collected, metrics = Collected(), MemoryMetrics()
    report = make_actor(runner, collected, num_episodes=3, metrics=metrics).run()
    manifests = [episode.manifest for episode in collected.episodes]
    assert report.num_episodes == len(manifests) == 3
    assert report.num_successes == sum(manifest.outcome is Outcome.SUCCESS for manifest in manifests)
    assert [manifest.episode_id for manifest in manifests] == [f"fake-1.{START_NS:020d}.{i:06d}" for i in range(3)]
    assert [manifest.seed for manifest in manifests] == [episode_seed(0, "fake-1", count) for count in range(3)]
    for manifest in manifests:
        assert (manifest.source, manifest.policy_version) == (Source.ONLINE, 0)
        assert (manifest.weights_base, manifest.norm_stats) == ("base", runner.norm_stats)
    assert runner.num_compilations == 1

    ends = [event for event in metrics.events if event["event"] == "episode_end"]
    assert [event["episode_id"] for event in ends] == [manifest.episode_id for manifest in manifests]
    assert [event["num_interventions"] for event in ends] == [manifest.num_interventions for manifest in manifests]
    assert ends[0]["num_interventions"] == 1  # The untrained policy gets nowhere.
    assert ends[0]["num_intervention_frames"] == int(collected.episodes[0].arrays.intervention.sum()) > 0


def test_the_same_settings_give_the_same_bytes(runner):
    packed = []
    for _ in range(2):
        collected = Collected()
        make_actor(runner, collected, num_episodes=2).run()
        packed.append([pack(episode) for episode in collected.episodes])
    assert packed[0] == packed[1]


def test_a_restarted_robot_can_go_on_counting(runner):
    whole, rest = Collected(), Collected()
    make_actor(runner, whole, num_episodes=3).run()
    make_actor(runner, rest, num_episodes=1, first_episode=2).run()
    assert pack(rest.episodes[0]) == pack(whole.episodes[2])


def test_a_publication_is_swapped_in_at_the_next_boundary(runner, tmp_path):
    metrics, collected = MemoryMetrics(), Collected()
    publisher = Publisher(tmp_path, "base", runner.norm_stats, ManualClock(77))
    feed = InlineFeed(Follower(tmp_path, "base", runner.norm_stats), runner.trained_template, metrics)

    def publish(episode):
        if len(collected.episodes) == 1:
            publisher.publish(changed(2.0), learner_step=25)

    report = make_actor(runner, collected, num_episodes=3, feed=feed, metrics=metrics, on_episode=publish).run()
    assert [episode.manifest.policy_version for episode in collected.episodes] == [0, 1, 1]
    for episode in collected.episodes:
        assert set(episode.arrays.policy_version.tolist()) == {episode.manifest.policy_version}
    assert (report.num_swaps, report.num_refused) == (1, 0)
    assert metrics.events[0] == {"event": "acting", "robot_id": "fake-1", "version": 0}  # told before there is any swap
    (swap,) = [event for event in metrics.events if event["event"] == "swap"]
    assert (swap["version"], swap["from_version"], swap["learner_step"]) == (1, 0, 25)
    assert (swap["created_ns"], swap["now_ns"]) == (77, START_NS)
    assert runner.num_compilations == 1


def test_broken_weights_leave_the_old_policy_in_place(runner, tmp_path):
    metrics, collected = MemoryMetrics(), Collected()
    publisher = Publisher(tmp_path, "base", runner.norm_stats, ManualClock(77))
    publication = publisher.publish(changed(2.0), learner_step=25)
    largest = max(publication.files, key=lambda name: publication.files[name][0])
    (file,) = [path for path in tmp_path.rglob("*") if path.is_file() and str(path).endswith(largest)]
    data = bytearray(file.read_bytes())
    data[len(data) // 2] ^= 1
    file.write_bytes(data)

    feed = InlineFeed(Follower(tmp_path, "base", runner.norm_stats), runner.trained_template, metrics)
    report = make_actor(runner, collected, num_episodes=2, feed=feed, metrics=metrics).run()
    assert [episode.manifest.policy_version for episode in collected.episodes] == [0, 0]
    assert (report.num_swaps, report.num_refused) == (0, 1)
    (refused,) = [event for event in metrics.events if event["event"] == "publication_refused"]
    assert refused["version"] == 1
    assert "sha256" in refused["reason"]


def test_while_the_store_is_away_the_robot_works_on(runner, tmp_path, store_url):
    store, clock = FlakyStore(store_url), ManualClock()
    store.broken = ConnectionError("no route")
    spool = Spool(tmp_path / "spool", store, clock, background=False)
    make_actor(runner, spool, num_episodes=3, on_episode=lambda episode: spool.upload_due()).run()
    assert (spool.num_pending, store.store.list_paths()) == (3, [])
    store.broken = None
    assert spool.drain(60.0)
    spool.close()
    assert len(store.store.list_paths()) == 3


def test_stop_ends_the_present_episode_and_hands_it_on(runner):
    robot = FakeRobot(FakeRobotConfig(time_limit_frames=40), ManualClock())
    collected = Collected()
    actor = make_actor(runner, collected, robot=robot)
    apply = robot.apply

    def stopping(action):
        if len(collected.episodes) == 1 and robot.frame == 5:
            actor.stop()
        return apply(action)

    robot.apply = stopping
    report = actor.run()
    assert report.num_episodes == 2
    assert collected.episodes[1].manifest.outcome is Outcome.ABORTED
    assert collected.episodes[1].manifest.num_frames == 6


def test_ctrl_c_hands_on_the_present_episode_and_ends(runner):
    robot = FakeRobot(FakeRobotConfig(time_limit_frames=40), ManualClock())
    collected = Collected()
    apply = robot.apply

    def pressing(action):
        if len(collected.episodes) == 1 and robot.frame == 5:
            os.kill(os.getpid(), signal.SIGINT)
        return apply(action)

    robot.apply = pressing
    make_actor(runner, collected, robot=robot).run()
    assert [episode.manifest.num_frames for episode in collected.episodes][1:] == [6]


def test_ctrl_c_between_episodes_loses_nothing(runner):
    collected = Collected()
    make_actor(runner, collected, on_episode=lambda episode: os.kill(os.getpid(), signal.SIGINT)).run()
    assert len(collected.episodes) == 1
    assert collected.episodes[0].manifest.outcome is not Outcome.ABORTED


def test_ctrl_c_while_the_scene_is_being_reset_ends_before_the_episode(runner):
    robot = FakeRobot(FakeRobotConfig(time_limit_frames=40), ManualClock())
    collected, metrics = Collected(), MemoryMetrics()
    reset = robot.reset

    def pressing(seed):
        if len(collected.episodes) == 1:
            os.kill(os.getpid(), signal.SIGINT)
        reset(seed)

    robot.reset = pressing
    make_actor(runner, collected, robot=robot, metrics=metrics).run()
    assert len(collected.episodes) == 1
    assert metrics.events[-1]["event"] == "empty_episode"


def test_a_robot_that_never_starts_is_broken(runner):
    metrics = MemoryMetrics()
    robot = FakeRobot(FakeRobotConfig(fault_at_frame=0))
    actor = make_actor(runner, Collected(), robot=robot, metrics=metrics, max_empty_episodes=3)
    with pytest.raises(RobotBrokenError, match="fake-1: 3 episodes in a row"):
        actor.run()
    assert [event["event"] for event in metrics.events] == ["acting"] + ["empty_episode"] * 3


def test_nobody_swaps_while_an_episode_runs(runner):
    robot = FakeRobot(FakeRobotConfig(time_limit_frames=40), ManualClock())
    apply = robot.apply

    def swapping(action):
        with pytest.raises(SwapInsideEpisodeError):
            runner.swap(changed(2.0), version=8)
        return apply(action)

    robot.apply = swapping
    collected = Collected()
    make_actor(runner, collected, robot=robot, num_episodes=1).run()
    assert collected.episodes[0].manifest.policy_version == 0


def test_unsupervised_means_nobody_takes_over(runner):
    collected = Collected()
    make_actor(runner, collected, num_episodes=1, supervised=False).run()
    assert not collected.episodes[0].arrays.intervention.any()


def test_settings_that_contradict_each_other_are_refused(runner):
    robot = FakeRobot()
    with pytest.raises(ConfigError, match="supervised but got no supervisor"):
        Actor(ActorConfig("fake-1", "fake_task"), robot, runner, Collected(), ManualClock())
    with pytest.raises(ConfigError, match="set to task 'other', its robot does 'fake_task'"):
        Actor(ActorConfig("fake-1", "other", supervised=False), robot, runner, Collected(), ManualClock())
    with pytest.raises(ConfigError, match="num_episodes"):
        ActorConfig("fake-1", "fake_task", num_episodes=-1)
