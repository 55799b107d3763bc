"""A fleet from end to end, mostly in a deployment, with made-up episodes and a learner that only counts."""

import contextlib
import dataclasses
import pathlib

import pytest

from fleet_sim import fleet as fleet_module
from fleet_sim.config import Operation, SimulatedFleetConfig, Stage, TimingConfig, operated
from fleet_sim.crew import EpisodeInPlay, Helps, PlayedEpisode
from fleet_sim.deployment import Deployment, Network, Operators, Robots, Shift, Training
from fleet_sim.fleet import NotPublishedError, SimulatedFleet
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


def made_up(order, scratch, helped):
    """An episode of 90 ticks in which people acted in these, if they might."""
    episode = make_episode(
        num_frames=90, image_stride=30, image_size=8, robot_id=order.robot_id, policy_version=order.version,
        takeovers=((helped[0], *helped),) if order.supervised else (), started_ns=0,
        count=int(order.episode_id.rpartition(".")[2]),
    )  # fmt: skip
    path = scratch / f"{order.episode_id}.zip"
    path.write_bytes(pack(episode))
    return PlayedEpisode(90, path, True)


class MadeUpCrew:
    """Every episode is helped from tick 30 to 60, if people may."""

    def __init__(self, settings, num_workers, engine):
        self.reaction_delay_s = settings["rollout"]["reaction_delay_s"]
        self._scratch = pathlib.Path(settings["scratch"])
        self.orders = []

    def play(self, order):
        self.orders.append(order)
        playing = EpisodeInPlay(order)
        helps = Helps((30,), (60,)) if order.supervised else Helps()
        playing.finish(made_up(order, self._scratch, (30, 60)), helps=helps)
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

        def start(operation, timing=None, root=tmp_path):
            chosen = config if timing is None else dataclasses.replace(config, timing=timing)
            chosen = chosen if operation is None else operated(chosen, operation)
            algorithm = create_algorithm(chosen.algorithm)
            fleet = SimulatedFleet(chosen, None, root, algorithm, root, 1)  # type: ignore[arg-type]
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


LONG_UPLOADS = TimingConfig(reset_s=2.0, upload_s=5.0, swap_s=0.0)
"""The first robot begins at 0, 5, 10, ..., the second a second later; what happened is in the store 8 s after that."""


def supervised_in(orders):
    """Start in s -> whether people might act."""
    return {order.started_ns / 1e9: order.supervised for order in orders}


def test_what_people_may_do_is_counted_over_the_whole_life_and_as_it_happens(start):
    fleet = start(None, LONG_UPLOADS)
    fleet.run(Stage(20.0, human_total_s=1.5))
    # At 5 nothing has arrived, but both robots have been helped for 1 s by then.
    assert [at for at, may in supervised_in(fleet._crew.orders).items() if may] == [0.0, 1.0]
    fleet.run(Stage(20.0, human_total_s=3.0))
    # Of the second stage's 1.5 s the first has taken 0.5 s.
    assert [at for at, may in supervised_in(fleet._crew.orders).items() if may] == [0.0, 1.0, 20.0, 21.0]
    assert 60 * fleet.journal().human_minutes == pytest.approx(4.0)


def test_what_people_did_not_do_is_left_for_the_next_stage(start):
    fleet = start(None, LONG_UPLOADS)
    fleet.run(Stage(3.5, human_total_s=4.0))  # one episode, on its way at the end; the other one's is cut off
    fleet.run(Stage(30.0, human_total_s=5.0))
    assert [at for at, may in supervised_in(fleet._crew.orders).items() if may] == [0.0, 1.0, 3.5, 4.5, 8.5, 9.5]
    assert 60 * fleet.journal().human_minutes == pytest.approx(5.0)
    fleet.run(Stage(10.0))
    assert fleet._crew.orders[-1].supervised  # no bound


def test_waiting_for_people_is_none_of_their_time(start):
    fleet = start(Operation(DEPLOYMENT))
    fleet.run(Stage(6.5, human_total_s=1.5))
    # The robots are helped from 2 to 3 and from 4 to 5; the first begins again at 6, before anything has arrived.
    assert supervised_in(fleet._crew.orders) == {0.0: True, 1.0: True, 6.0: False}


class JustInTime(EpisodeInPlay):
    """Its worker is never further than it has to be, where other workers have come to the end at once."""

    def __init__(self, order, played, helps):
        super().__init__(order)
        self._at_last = (played, helps)

    def wait(self, tick):
        played, helps = self._at_last
        if tick >= played.num_frames:
            self.finish(played, helps=helps)
        elif not self.is_over:  # told before tick + 1 is played: whoever acted in `tick` may go on
            known = Helps(tuple(s for s in helps.starts if s <= tick), tuple(e for e in helps.ends if e <= tick))
            self.note(tick + 1, known)
        return super().wait(tick)


class PacedCrew(MadeUpCrew):
    """Helps at a time of each episode's own. `ahead`: of how many episodes the worker is far ahead, of three in a row."""

    ahead = 0

    def play(self, order):
        number = int(order.episode_id.rpartition(".")[2]) + order.seed
        helped = (20 + number % 30, 51 + number % 23)
        helps = Helps(*((edge,) for edge in helped)) if order.supervised else Helps()
        playing = JustInTime(order, made_up(order, self._scratch, helped), helps)
        if len(self.orders) % 3 < self.ahead:
            playing.wait(90)
        self.orders.append(order)
        return playing


def test_what_people_may_do_does_not_depend_on_how_far_workers_are(start, tmp_path, monkeypatch):
    monkeypatch.setattr(fleet_module, "Crew", PacedCrew)
    found = []
    for ahead in range(4):
        monkeypatch.setattr(PacedCrew, "ahead", ahead)
        fleet = start(None, TimingConfig(reset_s=1.0, upload_s=2.5), tmp_path / str(ahead))
        for stage in range(8):  # many decisions hang on how far the other robot's help has come
            fleet.run(Stage(5.2, human_total_s=0.5 + 0.9 * stage))
        found.append((fleet.journal(), fleet._crew.orders))
    assert found == [found[0]] * 4
    may_act = [order.supervised for order in found[0][1]]
    assert 4 < sum(may_act) < len(may_act) - 4


class MuteLearner(CountingLearner):
    """Its store takes no publication."""

    def step(self, fetch_ahead):
        self.num_steps += 1

    def publish(self):
        pass


def test_a_fleet_whose_last_weights_could_not_be_published_says_so(start, monkeypatch):
    monkeypatch.setattr(fleet_module, "LearningSide", MuteLearner)
    with pytest.raises(NotPublishedError, match=r"step \d+ could not be published \(the last that was: 0\)"):
        start(None).run(Stage(20.0, learner_steps=100))
