"""A simulated fleet, in the real world with the shipped policy: small, but nothing in it is replaced."""

import dataclasses
import pathlib

import pytest

import envs
from fleet_sim.config import Operation, SimulatedFleetConfig, Stage, TimingConfig, operated
from fleet_sim.deployment import Deployment, Network, Operators, Robots, Shift, Training
from fleet_sim.fleet import SimulatedFleet
from fleet_sim.learning_side import LearningSide
from sop_jax.actors.demonstrate import collect_demonstrations
from sop_jax.algorithms.behaviour_cloning import BehaviourCloning
from sop_jax.algorithms.hg_dagger import HgDagger, HgDaggerConfig
from sop_jax.algorithms.registry import create_algorithm
from sop_jax.episodes.store import EpisodeStore
from sop_jax.episodes.synthetic import make_episode
from sop_jax.evaluation.world import WorldConfig, make_robot
from sop_jax.learner.config import LearnerConfig
from sop_jax.models.bundle import load_bundle
from sop_jax.sampling.loader import LoaderConfig
from sop_jax.specs.clock import ManualClock
from sop_jax.specs.errors import ConfigError
from sop_jax.specs.metrics import NoMetrics
from sop_jax.specs.records import NO_POLICY, Source
from sop_jax.weights.management import list_publications

POLICY = pathlib.Path(__file__).parents[2] / "assets" / "policies" / "restock_compact"
CONFIG = SimulatedFleetConfig(
    robots={"restock_shelf": 2},
    algorithm=HgDaggerConfig(),
    timing=TimingConfig(learner_steps_per_s=1.0, reset_s=3.0, upload_s=0.5, swap_s=0.5),
    learner=LearnerConfig(num_steps=1000, batch_size=8, publish_every=4, learning_rate=1e-3),
    loader=LoaderConfig(batch_size=8),
)


@pytest.fixture(scope="module")
def bundle():
    return load_bundle(POLICY)


@pytest.fixture(scope="module")
def demonstrations():
    """Two demonstrations, made once."""
    robot = make_robot(WorldConfig("restock_shelf"), ManualClock(), "demonstrator-0")
    kept = []
    collect_demonstrations(
        robot, envs.make_expert(robot.environment), 2, 0, kept.append, ManualClock(), robot_id="demonstrator-0",
        world=robot.world,
    )  # fmt: skip
    robot.close()
    return kept


def test_its_learner_begins_by_the_rule_of_the_real_one(tmp_path, bundle):
    config = dataclasses.replace(CONFIG, robots={"restock_shelf": 1, "laundry_fold": 1})
    for algorithm, waits in ((HgDagger(), True), (BehaviourCloning(), False)):
        url = f"file://{tmp_path}/{algorithm.name}/"
        learning = LearningSide(config, bundle, algorithm, url, ManualClock(), NoMetrics())
        assert learning.is_ready() is not waits
        learning.store.put(make_episode(0, task="laundry_fold", takeovers=((3, 4, 7),)))
        learning.take_in_stored()
        assert learning.table_sizes()["restock_shelf/online"] == 0
        assert learning.is_ready()  # the task that needs no correction holds nobody up
        learning.close()


def run(root, bundle, demonstrations, stages, num_workers=1, config=CONFIG):
    """The journal of a fleet's life, and the bytes of everything that it left in the store."""
    store = EpisodeStore(f"file://{root}/store/")
    for episode in demonstrations:
        store.put(episode)
    fleet = SimulatedFleet(config, bundle, POLICY, create_algorithm(config.algorithm), root, num_workers)
    try:
        for stage in stages:
            fleet.run(stage)
        return fleet.journal(), {path: store.read_bytes(path) for path in store.list_paths()}
    finally:
        fleet.close()


def test_the_number_of_workers_changes_nothing(tmp_path, bundle, demonstrations):
    stages = [Stage(20.0, learner_steps=100)]
    one, bytes_of_one = run(tmp_path / "one", bundle, demonstrations, stages, num_workers=1)
    two, bytes_of_two = run(tmp_path / "two", bundle, demonstrations, stages, num_workers=2)
    assert one == two
    assert bytes_of_one == bytes_of_two

    # What happened, on virtual time.
    assert len(one.episodes) >= 4
    assert one.learner_steps == one.publications[-1].learner_step
    assert one.num_robots == 2
    assert one.robot_hours == pytest.approx(2 * 20 / 3600)
    assert len(bytes_of_one) == len(one.episodes) + len(demonstrations)
    arrivals = [episode.ended_s + 0.5 for episode in one.episodes]
    assert arrivals == sorted(arrivals)
    assert max(arrivals) <= 20.0

    # The learner begins once the first episode has arrived; steps take 1 s, publications come every 4.
    first_s = one.publications[0].published_s
    assert arrivals[0] + 4.0 <= first_s <= arrivals[0] + 6.0
    assert [publication.learner_step for publication in one.publications[:2]] == [4, 8]
    assert one.publications[1].published_s - first_s == pytest.approx(4.0)

    # Every episode acts with the newest version that had reached it when it began.
    for episode in one.episodes:
        reached = [p.version for p in one.publications if p.published_s + 0.5 <= episode.started_s]
        assert episode.version == max(reached, default=0)
    assert {episode.version for episode in one.episodes} > {0}
    by_robot = {}
    for episode in one.episodes:
        if episode.robot_id in by_robot:
            assert episode.started_s == pytest.approx(by_robot[episode.robot_id] + 3.0)
        by_robot[episode.robot_id] = episode.ended_s


@pytest.mark.slow
def test_a_deployment_changes_times_and_stays_repeatable(tmp_path, bundle, demonstrations):
    """Two robots, one person; slow links, an outage, a robot that leaves, another that becomes another individual."""
    deployment = Deployment(
        Robots(2, reset_s=2.0, drift_every_s=6.0, frame_bytes=10_000.0),
        Network(link_bps=1e6, latency_s=0.2, outage_every_s=8.0, outage_s=1.0),
        Training(learner_steps_per_s=2.0, batch_size=8, publish_every=3, checkpoint_bytes=1e5),
        Operators(1, reaction_s=1.0),
    )
    operation = Operation(deployment, "shortest_help", patience_s=30.0, shifts=(Shift(1, 1, leaves_s=9.0),))
    config = operated(dataclasses.replace(CONFIG, world=WorldConfig(individuals="field")), operation)
    runs = {}
    for number in (1, 2):
        store = EpisodeStore(f"file://{tmp_path}/{number}/store/")
        for episode in demonstrations:
            store.put(episode)
        root = tmp_path / str(number)
        fleet = SimulatedFleet(config, bundle, POLICY, create_algorithm(config.algorithm), root, num_workers=number)
        try:
            fleet.run(Stage(20.0, learner_steps=50))
            runs[number] = (
                fleet.journal(),
                repr(fleet.dynamics()),
                {path: store.read_bytes(path) for path in store.list_paths()},
            )
        finally:
            fleet.close()
    assert runs[1] == runs[2]
    journal, _, _ = runs[1]
    assert journal.absent_s == pytest.approx(11.0)
    assert len(journal.publications) >= 2
    helped = [episode for episode in journal.episodes if episode.num_takeovers]
    assert helped
    for episode in helped:  # time stands still in the world while a robot waits: its frames don't show it
        assert episode.waited_s >= 1.0 - 1e-6
        assert episode.ended_s - episode.started_s > episode.waited_s + episode.human_s - 1e-6


@pytest.mark.slow
def test_a_bound_on_peoples_time_does_not_depend_on_the_workers(tmp_path, bundle, demonstrations):
    robots = dataclasses.replace(CONFIG, robots={"restock_shelf": 3})
    stages = [Stage(24.0, then_steps=4, human_total_s=2.0), Stage(24.0, then_steps=4, human_total_s=4.0)]
    runs = [run(tmp_path / str(num), bundle, demonstrations, stages, num, robots) for num in (1, 2, 3)]
    assert runs[0] == runs[1] == runs[2]
    journal, _ = runs[0]
    assert {bool(episode.num_takeovers) for episode in journal.episodes} == {True, False}
    # Each robot may have begun one more episode before the bound was known to be reached.
    longest_s = max(episode.human_s for episode in journal.episodes)
    assert 60 * journal.human_minutes < 4.0 + 3 * longest_s


def test_rounds_collect_first_and_learn_afterwards(tmp_path, bundle, demonstrations):
    stages = [Stage(9.0, then_steps=4, human_total_s=0.0), Stage(6.0, robots="expert")]
    journal, stored = run(tmp_path, bundle, demonstrations, stages)
    policy = [episode for episode in journal.episodes if episode.version != NO_POLICY]
    expert = [episode for episode in journal.episodes if episode.version == NO_POLICY]
    assert policy
    assert expert
    assert {episode.version for episode in policy} == {0}  # nothing was learnt while they worked
    assert sum(episode.human_s for episode in policy) == 0  # nobody's time was to be spent
    assert all(episode.outcome == "success" for episode in expert)
    assert [p.learner_step for p in journal.publications] == [4]
    assert journal.robot_hours == pytest.approx(2 * 15 / 3600)
    store = EpisodeStore(f"file://{tmp_path}/store/")
    sources = {path: store.read_without_images(path).manifest.source for path in stored}
    assert sum(source is Source.ONLINE for source in sources.values()) == len(policy)
    # Scenes go on where the last stage ended: no episode is made twice.
    assert len({episode.episode_id for episode in journal.episodes}) == len(journal.episodes)


def test_a_round_finishes_what_it_began_on_the_time_of_the_next(tmp_path, bundle, demonstrations):
    stages = [Stage(9.0, then_steps=4, finishes=True), Stage(30.0)]
    journal, stored = run(tmp_path, bundle, demonstrations, stages)
    first = [episode for episode in journal.episodes if episode.version == 0]
    second = [episode for episode in journal.episodes if episode.version == 1]
    for robot in range(2):
        mine = [episode for episode in first if episode.robot_id.endswith(str(robot))]
        over = mine[-1]
        assert over.started_s < 9.0 < over.ended_s + 3.0  # with the setting of the next scene
        ready_s = over.ended_s + 3.0
        next_stage_s = journal.publications[0].published_s + 0.5  # settled
        begun = next(episode for episode in second if episode.robot_id == over.robot_id)
        assert begun.started_s == pytest.approx(next_stage_s + ready_s - 9.0)
    # Both ways the last episodes of either robot's life are cut off, and no others.
    numbers = sorted(episode.episode_id for episode in journal.episodes)
    assert len(stored) == len(numbers) + len(demonstrations)
    for robot in range(2):
        counts = [int(name.rpartition(".")[2]) for name in numbers if f"-{robot}." in name]
        assert counts == list(range(len(counts)))
    assert journal.robot_hours == pytest.approx(2 * 39 / 3600)


def test_versions_of_chosen_times_stay_readable(tmp_path, bundle, demonstrations):
    store = EpisodeStore(f"file://{tmp_path}/store/")
    for episode in demonstrations:
        store.put(episode)
    config = dataclasses.replace(
        CONFIG,
        timing=TimingConfig(learner_steps_per_s=0.1, swap_s=1.0),
        learner=dataclasses.replace(CONFIG.learner, publish_every=1),
    )
    fleet = SimulatedFleet(config, bundle, POLICY, create_algorithm(CONFIG.algorithm), tmp_path, 1)
    try:
        fleet.keep_versions_at([5.0, 45.0, 200.0])
        fleet.run(Stage(0.0, then_steps=20))
        assert fleet.kept_versions() == {5.0: 0, 45.0: 4, 200.0: 19}  # the 20th left the learner just then
    finally:
        fleet.close()
    versions = [publication.version for publication in list_publications(f"file://{tmp_path}/store/")]
    assert versions == [4, *range(8, 21)]  # those superseded for 120 s were removed, all but the one to keep


def test_an_unplayable_order_ends_the_simulation_with_its_reason(tmp_path, bundle, demonstrations):
    config = dataclasses.replace(CONFIG, world=WorldConfig(time_limit_s=-1.0))
    with pytest.raises(Exception, match=r"restock-shelf-0\.0+\.0+: a worker died.*time_limit_s"):
        run(tmp_path, bundle, demonstrations, [Stage(5.0)], config=config)


def test_configs_refuse_nonsense():
    with pytest.raises(ConfigError, match="every task needs at least one robot"):
        dataclasses.replace(CONFIG, robots={})
    with pytest.raises(ConfigError, match="must be equal"):
        dataclasses.replace(CONFIG, loader=LoaderConfig(batch_size=16))
    with pytest.raises(ConfigError, match="must be >= 0"):
        Stage(-1.0)
    assert dataclasses.replace(CONFIG, robots={"restock_shelf": 2, "box_assembly": 1}).robot_ids == {
        "restock-shelf-0": "restock_shelf",
        "restock-shelf-1": "restock_shelf",
        "box-assembly-0": "box_assembly",
    }
