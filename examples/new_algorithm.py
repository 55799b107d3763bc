"""A third algorithm, without a line changed in the library: advantage-weighted regression (arXiv 1910.00177).

Every action is imitated, whoever acted, with weight exp(advantage / temperature): what came of it against the task's average.
"""

import dataclasses
import tempfile

import jax
import numpy as np

from sop_jax.actors.episode import EpisodeHeader, run_episode
from sop_jax.actors.fake import FakePolicy, reads_goal
from sop_jax.actors.rollout import RolloutConfig
from sop_jax.algorithms.algorithm import Lesson, make_labeler
from sop_jax.algorithms.imitation_loss import imitation_loss, taught_weight
from sop_jax.algorithms.masks import chunk_masks, label_masked
from sop_jax.episodes.store import EpisodeStore
from sop_jax.learner.config import LearnerConfig
from sop_jax.learner.learner import Learner
from sop_jax.models.compact import CompactConfig, CompactPolicy
from sop_jax.models.normalization import compute_norm_stats
from sop_jax.replay.intake import Intake
from sop_jax.replay.local_tables import LocalTables
from sop_jax.replay.tables import mix_tables
from sop_jax.robots.fake import FakeExpert, FakeRobot
from sop_jax.sampling.adaptive import AdaptiveSampler, SamplerConfig
from sop_jax.sampling.batch_spec import BatchSpec
from sop_jax.sampling.loader import Loader, LoaderConfig
from sop_jax.specs.clock import WallClock
from sop_jax.specs.conditioning import Conditioning
from sop_jax.specs.metrics import MemoryMetrics
from sop_jax.specs.records import Outcome, Source


def returns_to_go(manifest, num_frames):
    """What is to come at each frame: 1 at a success, e times less per 4 s that it still takes; 0 without one."""
    seconds_left = np.arange(num_frames)[::-1] / manifest.control_hz
    return (manifest.outcome == Outcome.SUCCESS) * np.exp(-seconds_left / 4)


@dataclasses.dataclass(frozen=True)
class AdvantageWeighted:
    """An `Algorithm`. `baselines`: pairs of a task and its mean return, 0 where none is given."""

    baselines: tuple[tuple[str, float], ...]
    temperature: float = 0.5
    name, teaches_online = "advantage_weighted", True
    loss, loss_weight = staticmethod(imitation_loss), staticmethod(taught_weight)

    def label_frames(self, manifest, arrays, horizon, images=None):
        advantage = returns_to_go(manifest, arrays.num_frames) - dict(self.baselines).get(manifest.task, 0.0)
        weight = np.exp(advantage / self.temperature)  # at most e^2: returns lie in [0, 1]
        return label_masked(self.action_masks(manifest, arrays, horizon), weight.astype(np.float32))

    def action_masks(self, manifest, arrays, horizon):
        return chunk_masks(np.full(arrays.num_frames, manifest.outcome != Outcome.ERROR), horizon, manifest.outcome)

    def make_lesson(self, instruction, label, rng):
        return Lesson(instruction, weight=label)

    def conditioning(self, phase):
        return Conditioning()


def collect(robot, store, clock):
    """Two demonstrations, then a policy that reads the goal and one that stands still, by turns."""
    for seed, policy in enumerate([None, None, *[FakePolicy(reads_goal), FakePolicy()] * 3]):
        header = EpisodeHeader(f"robot-0.1.{seed}", seed, source=Source.ONLINE if policy else Source.OFFLINE)
        episode = run_episode(robot, policy, None, header, RolloutConfig(), clock, expert=FakeExpert(robot))
        store.put(episode)
        yield episode


def main(root):
    clock, metrics, store, robot = WallClock(), MemoryMetrics(), EpisodeStore(root), FakeRobot()
    episodes = list(collect(robot, store, clock))
    returns = np.concatenate([returns_to_go(e.manifest, e.arrays.num_frames) for e in episodes])
    algorithm = AdvantageWeighted(baselines=((robot.task, float(returns.mean())),))
    model = CompactPolicy(CompactConfig(image_size=16, horizon=8, patch_width=32, head_width=64))
    for episode in episodes[-2:]:
        weights = algorithm.label_frames(episode.manifest, episode.arrays, model.horizon).label
        print(f"{episode.manifest.outcome}: weights {weights.min():.2f} to {weights.max():.2f}")
    tables, sampler = LocalTables(mix_tables([robot.task]), seed=0), AdaptiveSampler(SamplerConfig(), [robot.task])
    num_items = Intake(store, tables, make_labeler(algorithm, model.horizon), clock=clock).poll().num_items
    spec = BatchSpec(robot.spec.cameras, robot.spec.state_dim, model.action_dim, model.horizon)
    loading, config = LoaderConfig(batch_size=32), LearnerConfig(num_steps=50, batch_size=32, log_every=1)
    loader = Loader(loading, spec, model.tokenize, tables, store, sampler, algorithm, clock, metrics)
    norm, params = compute_norm_stats([e.arrays for e in episodes], model.horizon), model.init_params(jax.random.key(0))
    learner = Learner(config, model, algorithm, params, norm, loader, None, metrics, clock)
    learner.run()
    learner.close()
    loader.stop()
    losses = [float(event["loss"]) for event in metrics.events if event["event"] == "learner_step"]
    print(f"{num_items} items, {len(losses)} steps: loss {np.mean(losses[:10]):.2f} -> {np.mean(losses[-10:]):.2f}")


if __name__ == "__main__":
    with tempfile.TemporaryDirectory() as directory:
        main(f"file://{directory}/store/")
