"""Learner steps per second of the compact policy through the whole loop, against the bare compiled step.

    python -m benchmarks.learner_step --json

In one run, in turns: `Learner.run` (batches from the host, moved to the device, losses fetched and recorded, statistics, a
publication every 25 steps), and the same compiled step called on one batch that lies on the device already.
ratio = ours / peer (1 = the loop costs nothing). `share_of_peak`: FLOPs that XLA counts for a step, times the bare rate,
over the rate of a large float32 matrix product measured in the same run on the same device.
"""

import argparse
import itertools
import json
import pathlib
import statistics
import tempfile
import time
from collections.abc import Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from sop_jax.algorithms.registry import create_algorithm
from sop_jax.learner.config import LearnerConfig, MeshConfig
from sop_jax.learner.learner import Learner
from sop_jax.learner.optimizer import make_optimizer
from sop_jax.learner.sharding import make_mesh, put_batch
from sop_jax.learner.state import init_state
from sop_jax.learner.train_step import compile_step
from sop_jax.models.normalization import identity_norm_stats
from sop_jax.models.registry import PRESETS, create_model
from sop_jax.sampling.batch_source import Draw, LoadedBatch
from sop_jax.sampling.batch_spec import BatchSpec
from sop_jax.sampling.fake import SyntheticBatches
from sop_jax.specs.clock import WallClock
from sop_jax.specs.metrics import MemoryMetrics
from sop_jax.specs.records import CameraSpec
from sop_jax.weights.partition import split_params
from sop_jax.weights.publisher import Publisher


class ReadyBatches:
    """A BatchSource that hands out a few batches made before, so that making them isn't measured."""

    def __init__(self, loaded: Sequence[LoadedBatch]):
        self._cycle = itertools.cycle(loaded)

    def next(self) -> LoadedBatch:
        return next(self._cycle)

    def record_losses(self, draws: Sequence[Draw], per_example: np.ndarray) -> None: ...

    def wait_share(self) -> float:
        return 0.0

    def state_dict(self) -> dict[str, Any]:
        return {}

    def load_state(self, state: Mapping[str, Any]) -> None: ...

    def stop(self) -> None: ...


def matmul_flops_per_s(size: int = 2048) -> float:
    """Rate of a float32 product of two square matrices, FLOP/s: the best of several."""
    matrix = jnp.ones((size, size), jnp.float32)
    product = jax.jit(lambda a, b: a @ b)
    product(matrix, matrix).block_until_ready()
    best_s = min(_seconds(lambda: product(matrix, matrix).block_until_ready()) for _ in range(8))
    return 2 * size**3 / best_s


def measure(batch_size: int, steps: int, rounds: int) -> dict[str, object]:
    model = create_model(PRESETS["compact"])
    algorithm = create_algorithm("behaviour_cloning")
    params = jax.device_get(model.init_params(jax.random.key(0)))
    norm = identity_norm_stats(16, model.action_dim, model.horizon)
    cameras = tuple(CameraSpec(name, 64, 64) for name in model.cameras)
    source = SyntheticBatches(
        BatchSpec(cameras, 16, model.action_dim, model.horizon), model.tokenize, ("a", "b"), batch_size
    )
    loaded = [source.next() for _ in range(4)]
    config = LearnerConfig(batch_size=batch_size, num_steps=10**6, mesh=MeshConfig(data=1))

    mesh = make_mesh(config.mesh)
    trained, frozen = split_params(params, model.is_trained)
    state = init_state(trained, make_optimizer(config), config.ema_decay)
    batch = put_batch(loaded[0].batch, mesh)
    compiled = compile_step(model, algorithm, config, mesh, state, frozen)
    flops = compiled.lower(state, frozen, norm, batch).compile().cost_analysis()["flops"]  # pyright: ignore

    with tempfile.TemporaryDirectory() as directory:
        clock, metrics = WallClock(), MemoryMetrics()
        publisher = Publisher(pathlib.Path(directory) / "store", "base", "norm", clock)
        learner = Learner(config, model, algorithm, params, norm, ReadyBatches(loaded), publisher, metrics, clock)

        def bare(num: int) -> None:
            nonlocal state
            result = None
            for _ in range(num):
                state, result = compiled(state, frozen, norm, batch)
            jax.block_until_ready(result)

        learner.run(2)
        bare(2)
        loop_rates, bare_rates, peaks = [], [], []
        for _ in range(rounds):
            peaks.append(matmul_flops_per_s())
            bare_rates.append(steps / _seconds(lambda: bare(steps)))
            loop_rates.append(steps / _seconds(lambda: learner.run(learner.current_step + steps)))
        learner.close()
        num_published = sum(event["event"] == "publication" for event in metrics.events)
    ours, peer, peak = statistics.median(loop_rates), statistics.median(bare_rates), max(peaks)
    return {
        "name": "learner_step",
        "ours": round(ours, 2),
        "peer": round(peer, 2),
        "ratio": round(ours / peer, 3),
        "units": "learner steps/s (peer: bare compiled step on a device batch)",
        "batch_size": batch_size,
        "steps_per_round": steps,
        "rounds": rounds,
        "publications": num_published,
        "gflops_per_step": round(flops / 1e9, 3),
        "matmul_gflops_per_s": round(peak / 1e9, 1),
        "share_of_peak": round(flops * peer / peak, 3),
        "device": jax.devices()[0].device_kind,
    }


def _seconds(action) -> float:
    started = time.perf_counter()
    action()
    return time.perf_counter() - started


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--json", action="store_true", help="print one JSON object as the last line (always done)")
    parser.add_argument("--batch-size", type=int, default=64)
    parser.add_argument("--steps", type=int, default=30, help="steps per round")
    parser.add_argument("--rounds", type=int, default=5)
    arguments = parser.parse_args()
    print(json.dumps(measure(arguments.batch_size, arguments.steps, arguments.rounds)))


if __name__ == "__main__":
    main()
