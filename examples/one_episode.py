"""One episode round the whole circle: robot, takeover, store, intake, batch, learner step, publication, swap."""

import pathlib
import sys
import tempfile

import envs
from sop_jax.actors.episode import EpisodeHeader, run_episode
from sop_jax.actors.policy_runner import PolicyRunner
from sop_jax.actors.rollout import RolloutConfig
from sop_jax.algorithms.algorithm import make_labeler
from sop_jax.algorithms.hg_dagger import HgDagger, HgDaggerConfig
from sop_jax.episodes.store import EpisodeStore
from sop_jax.learner.config import LearnerConfig
from sop_jax.learner.learner import Learner
from sop_jax.models.bundle import load_bundle
from sop_jax.replay.intake import Intake
from sop_jax.replay.local_tables import LocalTables
from sop_jax.replay.tables import mix_tables
from sop_jax.robots.scripted_supervisor import ScriptedSupervisor
from sop_jax.robots.simulated import SimulatedRobot
from sop_jax.sampling.adaptive import AdaptiveSampler, SamplerConfig
from sop_jax.sampling.batch_spec import BatchSpec
from sop_jax.sampling.loader import Loader, LoaderConfig
from sop_jax.specs.clock import WallClock
from sop_jax.specs.metrics import NoMetrics
from sop_jax.specs.records import NO_POLICY, Source
from sop_jax.weights.follower import Follower
from sop_jax.weights.publisher import Publisher

BASE = pathlib.Path(__file__).parent.parent / "assets" / "policies" / "restock_compact"


def main(root: str) -> None:
    clock, metrics, task = WallClock(), NoMetrics(), "restock_shelf"
    world = envs.load(task)
    robot = SimulatedRobot(world, clock)
    supervisor = ScriptedSupervisor(world, envs.make_expert(world), envs.make_gate(world))
    bundle = load_bundle(BASE)
    policy = PolicyRunner.from_bundle(bundle)
    store = EpisodeStore(root)

    # robots -> actors -> episodes: a demonstration, and an episode of the policy with somebody watching.
    for number, actor in enumerate((None, policy)):
        header = EpisodeHeader(f"robot-0.1.{number}", seed=5, source=Source.ONLINE if actor else Source.OFFLINE)
        episode = run_episode(robot, actor, supervisor, header, RolloutConfig(), clock)
        store.put(episode)
        who = "demonstration" if episode.manifest.policy_version == NO_POLICY else "policy"
        print(f"{who}: {episode.manifest.outcome}, {episode.manifest.num_interventions} takeovers")

    # replay: intake verifies what the store holds and inserts light items.
    algorithm = HgDagger(HgDaggerConfig())
    tables = LocalTables(mix_tables([task]), seed=0)
    intake = Intake(store, tables, make_labeler(algorithm, policy.horizon), clock=clock)
    intake.poll()
    print(f"intake: {intake.total.num_items} items")

    # sampling -> learner -> weights: a few steps, one publication.
    spec = BatchSpec(robot.spec.cameras, robot.spec.state_dim, robot.spec.action_dim, policy.horizon)
    sampler = AdaptiveSampler(SamplerConfig(), [task])
    config = LearnerConfig(num_steps=2, publish_every=2, batch_size=8)
    loader = Loader(
        LoaderConfig(batch_size=8), spec, bundle.model.tokenize, tables, store, sampler, algorithm, clock, metrics
    )
    publisher = Publisher(root, bundle.fingerprint, bundle.norm.fingerprint, clock)
    loader.start()
    learner = Learner(config, bundle.model, algorithm, bundle.params, bundle.norm, loader, publisher, metrics, clock)
    learner.run()
    learner.close()
    loader.stop()

    # weights -> robot: the swap, between two episodes.
    follower = Follower(root, bundle.fingerprint, bundle.norm.fingerprint)
    news = follower.load_latest(policy.trained_template, policy.version)
    assert news is not None
    policy.swap(news.params, news.publication.version)
    print(f"the robot now acts with version {policy.version}")
    robot.close()


if __name__ == "__main__":
    with tempfile.TemporaryDirectory() as directory:
        main(sys.argv[1] if len(sys.argv) > 1 else f"file://{directory}/store/")
