import dataclasses

import jax
import pytest
from linear_policy import CONFIG, MODEL, NORM, make_batches

from sop_jax.algorithms.registry import create_algorithm
from sop_jax.learner.learner import Learner
from sop_jax.sampling.fake import SyntheticBatches
from sop_jax.specs.clock import ManualClock
from sop_jax.specs.metrics import MemoryMetrics


@dataclasses.dataclass
class Bench:
    """A learner with fakes around it."""

    learner: Learner
    batches: SyntheticBatches
    metrics: MemoryMetrics
    clock: ManualClock

    def events(self, name: str) -> list[dict]:
        return [event for event in self.metrics.events if event["event"] == name]


@pytest.fixture
def make_bench():
    """`make_bench(config, ...)` with replacements for the fakes and the linear policy; closed at the end."""
    made: list[Bench] = []

    def make(config=CONFIG, publisher=None, checkpoint_dir=None, batches=None, params=None, model=MODEL, norm=NORM):
        batches = batches or make_batches(config.batch_size)
        params = params or model.init_params(jax.random.key(1))
        metrics, clock = MemoryMetrics(), ManualClock()
        algorithm = create_algorithm("behaviour_cloning")
        learner = Learner(config, model, algorithm, params, norm, batches, publisher, metrics, clock, checkpoint_dir)
        made.append(Bench(learner, batches, metrics, clock))
        return made[-1]

    yield make
    for bench in made:
        bench.learner.close()
