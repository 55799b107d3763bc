"""The fault table: whole episodes of an emulated G1 with one thing wrong, on a simulated clock."""

import dataclasses
import itertools
import threading
import time

import numpy as np
import pytest
from g1_parts import CAMERAS, CONFIG, EPISODE, START_NS, end_of, make_bench, run, stretch

import envs
from sop_jax.actors.episode import EmptyEpisodeError, run_episode
from sop_jax.actors.fake import FakePolicy
from sop_jax.actors.operator.attended_robot import AttendedRobot
from sop_jax.actors.operator.console import Console
from sop_jax.actors.rollout import RolloutConfig
from sop_jax.algorithms.algorithm import make_labeler
from sop_jax.algorithms.hg_dagger import HgDagger
from sop_jax.episodes.store import EpisodeStore
from sop_jax.replay.intake import Intake
from sop_jax.replay.local_tables import LocalTables
from sop_jax.replay.tables import mix_tables
from sop_jax.robots.g1.config import UnitsConfig
from sop_jax.robots.g1.emulated_sdk import connect_emulator
from sop_jax.robots.g1.emulator import PERIOD_NS, Emulator
from sop_jax.robots.g1.robot import G1Robot
from sop_jax.specs.clock import ManualClock, WallClock
from sop_jax.specs.errors import ConfigError
from sop_jax.specs.metrics import MemoryMetrics
from sop_jax.specs.records import EpisodeEnd, Outcome

FAULT_TICK = 10


@pytest.fixture(scope="module")
def environment():
    environment = envs.load("restock_shelf", image_size=32)
    yield environment
    environment.close()


def test_an_episode_without_faults(environment):
    bench = make_bench(environment)
    episode = run(bench, before_start=lambda robot: bench.clock.advance_s(0.1))
    assert end_of(episode) == EpisodeEnd(Outcome.TIMEOUT, "timeout")
    assert episode.manifest.num_frames == 60
    assert episode.manifest.started_ns == START_NS + 10**8
    assert set(np.diff(episode.arrays.time_ns)) == {PERIOD_NS}
    assert (bench.emulator.num_commands, bench.robot.breaches) == (120, {})  # Arms and grippers, each tick.
    (report,) = bench.events("g1_episode")
    assert report["episode_started_ns"] == episode.manifest.started_ns
    assert (report["num_commands"], report["max_jitter_s"]) == (60, 0.0)
    assert report["mean_interval_s"] == PERIOD_NS / 1e9
    assert bench.events("g1_hold") == bench.events("g1_fault") == []


def test_pictures_show_the_world_two_ticks_ago_with_the_states_of_that_tick(environment):
    bench = make_bench(environment)
    states = []
    bench.robot.reset(3)
    for _ in range(8):
        states.append(bench.robot.observe(images=False).state)
        bench.robot.apply(stretch(bench.robot.observe(images=False)))
    observation = bench.robot.observe()
    np.testing.assert_allclose(observation.state, states[6], atol=1e-6)
    assert np.abs(observation.state - bench.robot.observe(images=False).state).max() > 1e-3
    assert min(image.mean() for image in observation.images.values()) > 10  # Not black.
    bench.emulator.prepare(3)
    noise_free = environment.render()["head"].reshape(16, 2, 16, 2, 3).mean(axis=(1, 3))
    assert np.abs(observation.images["head"] - noise_free).mean() < 12


def test_the_expert_does_its_task_through_the_safety_filter(environment):
    bench = make_bench(environment, dataclasses.replace(CONFIG, time_limit_s=30.0))
    config, expert = RolloutConfig(realtime=True), envs.make_expert(environment)
    episode = run_episode(bench.robot, None, None, EPISODE, config, bench.clock, expert=expert)
    assert episode.manifest.outcome is Outcome.SUCCESS
    assert set(bench.robot.breaches) <= {"acceleration"}


@pytest.mark.parametrize(
    ("fault", "kind"),
    [
        ({"emergency_stop": True}, "emergency_stop"),
        ({"rejects": True}, "command_rejected"),
        ({"state_gap": True}, "state_late"),
        ({"state_delay_s": 0.3}, "state_late"),
        ({"frame_delay_s": 0.4}, "camera_late"),
        ({"silent_cameras": frozenset({"hand_left"})}, "camera_late"),
        ({"frozen_cameras": frozenset({"head"})}, "camera_late"),
        ({"state_clock_s": 0.5}, "clock_skew"),
        ({"camera_clock_s": 0.5}, "clock_skew"),
        ({"state_clock_s": -0.5}, "state_late"),
        ({"camera_clock_s": -0.5}, "camera_late"),
        ({"wrong_arm_units": True}, "wrong_units"),
        ({"dropped_frames": 90}, "camera_late"),
    ],
)
def test_a_fault_ends_the_episode_under_its_name(environment, fault, kind):
    bench = make_bench(environment)
    bench.emulator.at(FAULT_TICK, **fault)
    episode = run(bench)
    assert end_of(episode) == EpisodeEnd(Outcome.ERROR, kind)
    assert FAULT_TICK <= episode.manifest.num_frames < 60
    (event,) = bench.events("g1_fault")
    assert (event["kind"], event["episode_started_ns"]) == (kind, episode.manifest.started_ns)
    assert event["frame"] == episode.manifest.num_frames - 1  # The frame during which it happened.
    fault = episode.manifest.marks[-1]
    assert (fault.frame, fault.kind, fault.note.split(", ")[0]) == (event["frame"], "fault", kind)
    num_sent = bench.emulator.num_commands
    for _ in range(30):
        bench.clock.advance_s(0.1)
        bench.robot.watch()
    assert bench.emulator.num_commands == num_sent  # Nothing is sent after a fault.
    with pytest.raises(RuntimeError, match="the episode is over"):
        bench.robot.apply(np.zeros(16, np.float32))


def test_an_emergency_stop_holds_until_it_is_released_and_the_robot_reset(environment):
    bench = make_bench(environment)
    bench.emulator.at(FAULT_TICK, emergency_stop=True)
    episode = run(bench, FakePolicy(stretch))
    assert end_of(episode).failure_kind == "emergency_stop"
    with pytest.raises(EmptyEpisodeError, match="emergency_stop"):
        run(bench)  # Still pressed.
    bench.emulator.inject(emergency_stop=False)
    assert end_of(run(bench)) == EpisodeEnd(Outcome.TIMEOUT, "timeout")


def test_a_robot_that_ignores_commands_is_noticed(environment):
    bench = make_bench(environment, dataclasses.replace(CONFIG, time_limit_s=4.0))
    bench.emulator.at(FAULT_TICK, ignores=True)
    assert end_of(run(bench, FakePolicy(stretch))) == EpisodeEnd(Outcome.ERROR, "not_following")
    assert "rad from its command" in bench.events("g1_fault")[0]["reason"]


def _nan(observation):
    return np.full(16, np.nan)


@pytest.mark.parametrize(
    ("config", "act", "stops_at", "end"),
    [
        (RolloutConfig(realtime=True, max_frames=12), None, None, EpisodeEnd(Outcome.TIMEOUT, "max_frames")),
        (RolloutConfig(realtime=True), None, 12, EpisodeEnd(Outcome.ABORTED, "stopped")),
        (RolloutConfig(realtime=True), _nan, None, EpisodeEnd(Outcome.ERROR, "non_finite_action")),
    ],
)
def test_an_end_that_the_loop_finds_reaches_robot_and_people(environment, config, act, stops_at, end):
    bench = make_bench(environment)
    console = Console("g1-1", bench.clock)
    attended = AttendedRobot(bench.robot, console)
    taken = itertools.count(1)
    episode = None
    try:
        episode = run_episode(
            attended, FakePolicy(act), None, EPISODE, config, bench.clock,
            should_stop=lambda: stops_at is not None and next(taken) > stops_at,
        )  # fmt: skip
    except EmptyEpisodeError:
        assert act is _nan  # on the first tick of all
    assert episode is None or end_of(episode) == end
    assert bench.robot.check_end() == attended.check_end() == end
    (report,) = bench.events("g1_episode")
    assert (report["outcome"], report["failure_kind"]) == (end.outcome.value, end.failure_kind)
    status = console.status
    assert (status.control, status.num_episodes) == ("between", 1)
    assert status.last_end == f"{end.outcome.value} ({end.failure_kind})"
    assert status.fault == ("non_finite_action" if act is _nan else "")
    num_sent = bench.emulator.num_commands
    for _ in range(50):
        bench.clock.advance_s(0.1)
        bench.robot.watch()
    assert bench.emulator.num_commands > num_sent  # It is held,
    assert bench.events("g1_fault") == []  # and nobody is said to have stopped commanding.


@pytest.mark.parametrize("fault", [{"state_gap": True}, {"silent_cameras": frozenset({"head"})}])
def test_a_short_gap_is_waited_out_in_a_hold(environment, fault):
    """The world goes on; 15 ticks later the sensor is back."""
    bench = make_bench(environment)
    bench.emulator.at(FAULT_TICK, **fault)
    bench.emulator.at(FAULT_TICK + 15, state_gap=False, silent_cameras=frozenset())
    episode = run(bench)
    assert end_of(episode) == EpisodeEnd(Outcome.TIMEOUT, "timeout")
    (hold,) = bench.events("g1_hold")
    assert hold["kind"] == "sensors_late"
    assert FAULT_TICK - 1 <= hold["frame"] <= FAULT_TICK + 9
    assert np.diff(episode.arrays.time_ns).max() > 5 * PERIOD_NS


def test_dropped_frames_are_bridged_with_older_ones(environment):
    bench = make_bench(environment)
    bench.emulator.at(FAULT_TICK, dropped_frames=3)
    assert end_of(run(bench)) == EpisodeEnd(Outcome.TIMEOUT, "timeout")
    assert bench.events("g1_fault") == []


class SlowPolicy(FakePolicy):
    """Hangs once, at its third question, for `delay_s`; the watchdog looks meanwhile, as its thread would."""

    def __init__(self, bench, delay_s):
        super().__init__(lambda observation: observation.state + 4 * (stretch(observation) - observation.state))
        self._bench, self._delay_s = bench, delay_s

    def infer(self, observation, seed, prefix=None):
        chunk = super().infer(observation, seed, prefix)
        if len(self.seeds) == 3:
            for _ in range(round(self._delay_s * 20)):
                self._bench.clock.advance_s(0.05)
                self._bench.robot.watch()
        return chunk


def test_a_late_policy_finds_the_robot_held_and_starting_softly(environment):
    bench = make_bench(environment)
    episode = run(bench, SlowPolicy(bench, 1.0))
    assert end_of(episode) == EpisodeEnd(Outcome.TIMEOUT, "timeout")
    (hold,) = bench.events("g1_hold")
    assert (hold["kind"], hold["frame"]) == ("command_late", 16)
    assert bench.emulator.num_commands == 2 * (60 + 17)  # Held every 0.05 s from 0.2 s to 1.0 s.
    speed = np.abs(np.diff(episode.arrays.action[:, :14], axis=0)).max(axis=1) * 30
    assert speed[14] > 1.0
    assert 0.1 < speed[15] <= 6.0 / 30 + 1e-3


def test_a_policy_that_hangs_ends_the_episode(environment):
    bench = make_bench(environment)
    episode = run(bench, SlowPolicy(bench, 3.0))
    assert end_of(episode) == EpisodeEnd(Outcome.ERROR, "commands_stopped")
    assert episode.manifest.num_frames == 17
    np.testing.assert_array_equal(episode.arrays.action[16], episode.arrays.action[15])  # What held it.


def test_the_background_thread_holds_when_nobody_else_looks(environment):
    clock, metrics = WallClock(), MemoryMetrics()
    emulator = Emulator(environment, clock, CONFIG.units, CAMERAS)
    robot = G1Robot(CONFIG, connect_emulator(emulator), emulator, clock, metrics)
    robot.reset(0)
    robot.apply(robot.observe(images=False).state)
    for _ in range(500):
        if any(event["event"] == "g1_fault" for event in metrics.events):
            break
        time.sleep(0.02)
    assert [event["kind"] for event in metrics.events if event["event"] != "g1_breach"] == [
        "command_late",
        "commands_stopped",
    ]
    robot.close()
    assert robot.check_end() == EpisodeEnd(Outcome.ERROR, "commands_stopped")


def test_limits_hold_against_a_wild_policy_and_each_breach_is_an_event(environment):
    bench = make_bench(environment)
    rng = np.random.default_rng(0)
    policy = FakePolicy(lambda observation: rng.normal(0, 50, 16))
    episode = run(bench, policy, before_start=lambda robot: bench.clock.advance_s(0.1))
    arrays = episode.arrays
    assert np.all(np.abs(arrays.action[:, :14] - arrays.state[:, :14]) < 0.45)  # Pictures' states are two ticks old.
    steps = np.abs(np.diff(arrays.action[:, :14], axis=0))
    assert np.mean(steps > 3.0 / 30 + 1e-5) < 0.01  # An arm that is knocked aside takes its command with it.
    assert steps.max() < 0.2618
    breaches = bench.events("g1_breach")
    assert {"joint_limit", "speed", "acceleration"} <= {event["kind"] for event in breaches}
    assert {event["episode_started_ns"] for event in breaches} == {episode.manifest.started_ns}
    (report,) = bench.events("g1_episode")
    assert report["num_speed"] == bench.robot.breaches["speed"] > 30
    marks = [(mark.frame, mark.kind) for mark in episode.manifest.marks]
    assert marks == [(event["frame"], "breach") for event in breaches]
    assert episode.manifest.marks[0].note.startswith(breaches[0]["kind"])


def test_a_dry_run_sends_nothing(environment):
    bench = make_bench(environment, dataclasses.replace(CONFIG, dry_run=True))
    episode = run(bench, FakePolicy(stretch))
    assert end_of(episode) == EpisodeEnd(Outcome.ABORTED, "dry_run")
    assert bench.emulator.num_commands == 0
    np.testing.assert_allclose(episode.arrays.state[-1], episode.arrays.state[0], atol=1e-3)
    assert np.abs(episode.arrays.action[-1] - episode.arrays.action[0]).max() > 0.1  # What it would have sent.


@pytest.mark.parametrize("outcome", [Outcome.SUCCESS, Outcome.FAILURE, Outcome.TIMEOUT])
def test_a_dry_run_is_no_training_data_whatever_is_said_of_it(environment, store_url, monkeypatch, outcome):
    bench = make_bench(environment, dataclasses.replace(CONFIG, dry_run=True))
    looks = itertools.count()
    monkeypatch.setattr(bench.emulator, "verdict", lambda: EpisodeEnd(outcome) if next(looks) > 8 else None)
    episode = run(bench, FakePolicy(stretch))
    assert end_of(episode) == EpisodeEnd(Outcome.ABORTED, "dry_run")
    (report,) = bench.events("g1_episode")
    assert (report["outcome"], report["failure_kind"], report["dry_run"]) == ("aborted", "dry_run", True)
    store, tables = EpisodeStore(store_url), LocalTables(mix_tables((episode.manifest.task,)))
    store.put(episode)
    intake = Intake(store, tables, make_labeler(HgDagger(), 4), clock=ManualClock())
    report = intake.poll()
    assert (report.untrainable, report.inserted) == (1, 0)


def test_a_fault_of_a_dry_run_keeps_its_name(environment):
    bench = make_bench(environment, dataclasses.replace(CONFIG, dry_run=True))
    bench.emulator.at(FAULT_TICK, emergency_stop=True)
    assert end_of(run(bench)) == EpisodeEnd(Outcome.ERROR, "emergency_stop")


def test_an_error_that_nobody_thought_of_ends_the_episode_and_keeps_it(environment):
    class Breaks(FakePolicy):
        def infer(self, observation, seed, prefix=None):
            if len(self.seeds) == 2:
                bench.robot._body._link.read_state = broken
            return super().infer(observation, seed, prefix)

    def broken(at_ns=None):
        raise MemoryError("no room for a sample")

    bench = make_bench(environment)
    episode = run(bench, Breaks())
    assert end_of(episode).outcome is Outcome.ERROR
    assert "no room for a sample" in bench.events("g1_fault")[0]["reason"]


def test_the_watchdog_may_look_while_a_scene_is_set(environment, monkeypatch):
    inside, overlaps = [], []

    def alone(method):
        def guarded(*args):
            if inside:
                overlaps.append(inside[0])
            inside.append(threading.get_ident())
            try:
                time.sleep(0.001)
                return method(*args)
            finally:
                inside.remove(threading.get_ident())

        return guarded

    monkeypatch.setattr(environment, "step", alone(environment.step))
    monkeypatch.setattr(environment, "reset", alone(environment.reset))
    emulator = Emulator(environment, WallClock(rate=20.0), CONFIG.units, CAMERAS)
    emulator.prepare(0)
    over = threading.Event()

    def look():
        while not over.is_set():
            emulator.moment()

    watchdog = threading.Thread(target=look)
    watchdog.start()
    try:
        for seed in range(5):
            emulator.prepare(seed)
            emulator.command(lambda target: None)
            emulator.verdict()
    finally:
        over.set()
        watchdog.join()
    assert overlaps == []


def test_a_waist_that_is_moved_in_an_episode_ends_it(environment):
    class Pushes(FakePolicy):
        def infer(self, observation, seed, prefix=None):
            if len(self.seeds) == 2:
                bench.emulator.place(waist=(0.7, 0.02))
            return super().infer(observation, seed, prefix)

    bench = make_bench(environment)
    episode = run(bench, Pushes())
    assert end_of(episode) == EpisodeEnd(Outcome.ERROR, "posture")
    assert "waist pitch is at 0.7000 rad, expected 0.5061" in bench.events("g1_fault")[0]["reason"]


@pytest.mark.parametrize("units", [UnitsConfig(lift_state="cm", lift_command="m", head_state="rad", channels="bgr")])
def test_other_versions_of_the_sdk_give_the_same_episode(environment, units):
    plain = run(make_bench(environment), FakePolicy(stretch))
    other = run(make_bench(environment, dataclasses.replace(CONFIG, units=units)), FakePolicy(stretch))
    np.testing.assert_array_equal(plain.arrays.state, other.arrays.state)
    assert plain.jpegs == other.jpegs


def test_one_arm_can_be_left_alone(environment):
    bench = make_bench(environment, dataclasses.replace(CONFIG, arms=("right",)))
    episode = run(bench, FakePolicy(stretch))
    assert np.ptp(episode.arrays.action[:, :7]) == np.ptp(episode.arrays.action[0, :7])
    assert np.ptp(episode.arrays.action[:, 12]) > 0.1


def test_the_emulator_knows_its_faults():
    with pytest.raises(ValueError, match=r"no fault frozen_camera; it has .*frozen_cameras"):
        Emulator.at(None, 3, frozen_camera=True)


def test_the_emulator_gives_square_frames_only(environment):
    cameras = (dataclasses.replace(CAMERAS[0], frame_width=64),)
    with pytest.raises(ConfigError, match="square frames of one size"):
        Emulator(environment, WallClock(), UnitsConfig(), cameras)
