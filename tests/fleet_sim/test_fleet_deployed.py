"""A fleet in a deployment from end to end, with made-up episodes and a learner that only counts."""

import contextlib
import dataclasses
import pathlib

import pytest

from fleet_sim import fleet as fleet_module
from fleet_sim.config import Operation, SimulatedFleetConfig, Stage, operated
from fleet_sim.crew import EpisodeInPlay, Helps, PlayedEpisode
from fleet_sim.deployment import Deployment, Network, Operators, Robots, Shift, Training
from fleet_sim.fleet import SimulatedFleet
from fleet_sim.lost_episodes import NOBODY_CAME
from sop_jax.actors.rollout import RolloutConfig
from sop_jax.algorithms.hg_dagger import HgDaggerConfig
from sop_jax.algorithms.registry import create_algorithm
from sop_jax.episodes.format import pack
from sop_jax.episodes.store import EpisodeStore
from sop_jax.episodes.synthetic import make_episode
from sop_jax.specs.records import Outcome

DEPLOYMENT = Deployment(
    Robots(2, reset_s=2.0, kept_hz=10.0, frame_bytes=12_500.0),
    Network(link_bps=1e6, latency_s=0.5),
    Training(learner_steps_per_s=1.0, batch_size=8, publish_every=4, checkpoint_bytes=125_000.0),
    Operators(1, reaction_s=1.0),
)
"""Episodes of 3 s; a second of moving takes a second to upload, and so does a publication."""


class MadeUpCrew:
    """Every episode lasts 90 ticks, and is helped from tick 30 to 60."""

    def __init__(self, settings, num_workers, engine):
        self.reaction_delay_s = settings["rollout"]["reaction_delay_s"]
        self._scratch = pathlib.Path(settings["scratch"])
        self.orders = []

    def play(self, order):
        self.orders.append(order)
        episode = make_episode(
            num_frames=90, image_stride=30, image_size=8, robot_id=order.robot_id, policy_version=order.version,
            takeovers=((30, 30, 60),), started_ns=0, count=int(order.episode_id.rpartition(".")[2]),
        )  # fmt: skip
        path = self._scratch / f"{order.episode_id}.zip"
        path.write_bytes(pack(episode))
        playing = EpisodeInPlay(order)
        playing.finish(PlayedEpisode(90, path, True), helps=Helps((30,), (60,)))
        return playing

    def close(self):
        pass


class CountingLearner:
    """Publishes every `publish_every` steps."""

    def __init__(self, config, bundle, algorithm, store_url, clock, metrics):
        self._every = config.learner.publish_every
        self.store = EpisodeStore(store_url, clock=clock)
        self.num_steps = self.last_version = self._num_in = 0

    def take_in(self, episode_id, path):
        self.store.put_bytes(episode_id, path.read_bytes())
        path.unlink()
        self._num_in += 1

    def take_in_stored(self):
        pass

    def is_ready(self):
        return self._num_in > 0

    def step(self, fetch_ahead):
        self.num_steps += 1
        self.last_version += self.num_steps % self._every == 0

    def publish(self):
        self.last_version += 1

    def online_share(self):
        return 0.5

    def close(self):
        pass


@pytest.fixture
def start(tmp_path, monkeypatch):
    monkeypatch.setattr(fleet_module, "Crew", MadeUpCrew)
    monkeypatch.setattr(fleet_module, "LearningSide", CountingLearner)
    config = SimulatedFleetConfig(robots={"restock_shelf": 2}, algorithm=HgDaggerConfig())
    with contextlib.ExitStack() as stack:

        def start(operation):
            chosen = config if operation is None else operated(config, operation)
            algorithm = create_algorithm(chosen.algorithm)
            fleet = SimulatedFleet(chosen, None, tmp_path, algorithm, tmp_path, 1)  # type: ignore[arg-type]
            stack.callback(fleet.close)
            return fleet

        yield start


def test_waiting_is_in_the_fleets_time_and_not_in_the_episode(start, tmp_path):
    fleet = start(Operation(DEPLOYMENT))
    assert fleet._crew.reaction_delay_s == RolloutConfig().reaction_delay_s > 0  # then the robot stops and waits
    fleet.run(Stage(30.0, learner_steps=100))
    journal = fleet.journal()
    first = journal.episodes[0]
    # Moves for 1 s, waits for the person's reaction, is helped for 1 s, moves for 1 s.
    assert (first.started_s, first.ended_s) == (pytest.approx(0.0), pytest.approx(4.0))
    assert (first.waited_s, first.human_s) == (pytest.approx(1.0), pytest.approx(1.0))
    # The other asked at 2, when the person had 1 s to go.
    second = journal.episodes[1]
    assert (second.started_s, second.waited_s) == (pytest.approx(1.0), pytest.approx(2.0))
    # In the replay at 4 + 3 s of upload + 0.5 s + the intake; then 4 steps to a version, 1.5 s to the robots.
    assert journal.publications[0].published_s == pytest.approx(7.5 + 4.0, abs=1.0)
    reached_s = journal.publications[0].published_s + 1.5
    for order in fleet._crew.orders:
        assert (order.version > 0) == (order.started_ns / 1e9 >= reached_s - 1e-6)
    figures = fleet.dynamics().figures
    assert figures.fan_out_s == pytest.approx(1.5)
    assert figures.upload_s == pytest.approx(3.5)
    assert figures.operator_wait_s < 1.1
    assert journal.robot_hours == pytest.approx(60 / 3600)
    assert journal.successes_per_human_minute == pytest.approx(60.0)


def test_what_arrives_after_a_stage_is_not_the_stages(start):
    network = dataclasses.replace(DEPLOYMENT.network, link_bps=0.4e6)  # an episode takes 7.5 s
    training = dataclasses.replace(DEPLOYMENT.training, checkpoint_bytes=12_500_000.0)  # 250 s to the robots
    fleet = start(Operation(dataclasses.replace(DEPLOYMENT, network=network, training=training)))
    fleet.run(Stage(40.0, learner_steps=8))
    figures, result = fleet.dynamics().figures, fleet.dynamics()
    # Two robots, one upload after another each: the first leave at 4 and at 5.
    assert figures.delivered_per_hour == pytest.approx(3600 / 40 * 2 * 4)
    assert result.backlog == result.num_episodes - 8 >= 4
    assert fleet.journal().duration_s == 40.0
    assert result.robot_s == 80.0
    # 5 s of moving to 1 s of waiting; the second begins a second later and first waits 2 s. At the end both are under way.
    assert figures.moving_share == pytest.approx((40 - 7 + 40 - 1 - 8) / 80)


def test_who_waits_in_vain_loses_the_episode(start, tmp_path):
    fleet = start(Operation(DEPLOYMENT, patience_s=1e-6, shifts=(Shift(1, 1, leaves_s=8.0),)))
    fleet.run(Stage(30.0))
    journal = fleet.journal()
    lost = [episode for episode in journal.episodes if episode.failure_kind == NOBODY_CAME]
    assert lost
    store = EpisodeStore(f"file://{tmp_path}/store/")
    for episode in lost:
        manifest = store.read_without_images(f"episodes/{episode.robot_id}/{episode.episode_id}.zip").manifest
        assert (manifest.num_frames, manifest.outcome) == (30, Outcome.FAILURE)
        assert episode.ended_s - episode.started_s == pytest.approx(1.0, abs=1e-3)
    assert fleet.dynamics().num_lost >= len(lost)
    assert max(e.started_s for e in journal.episodes if e.robot_id.endswith("-1")) < 8.0
    assert journal.absent_s == pytest.approx(22.0)
    # The next stage goes on with who is left.
    fleet.run(Stage(10.0))
    assert fleet.journal().absent_s == pytest.approx(22.0 + 10.0)


def test_the_end_of_a_stage_is_a_time_to_keep_a_version_at(start):
    fleet = start(Operation(DEPLOYMENT))
    fleet.keep_versions_at([10.0, 20.0])
    fleet.run(Stage(20.0, learner_steps=0))  # nothing is published, so no time passes while the last version travels
    assert fleet.kept_versions() == {10.0: 0, 20.0: 0}
    fleet.keep_versions_at([30.0])
    fleet.run(Stage(10.0, learner_steps=0))
    assert list(fleet.kept_versions()) == [10.0, 20.0, 30.0]


def test_fixed_times_have_no_dynamics(start):
    fleet = start(None)
    assert fleet._crew.reaction_delay_s == RolloutConfig().reaction_delay_s > 0
    fleet.run(Stage(20.0))
    assert fleet.dynamics() is None
    assert all(episode.waited_s == 0 for episode in fleet.journal().episodes)
    assert dataclasses.replace(fleet.journal(), episodes=()).absent_s == 0.0
