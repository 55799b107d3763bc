"""Learner steps per second of the compact policy through the whole loop, against the bare compiled step; and the sharded
step of the small pi0.5 against a plain one.

    python -m benchmarks.learner_step --json

In one run, in turns: `Learner.run` (batches from the host, moved to the device, losses fetched and recorded, statistics, a
publication every 25 steps), and the same compiled step called on one batch that lies on the device already.
ratio = ours / peer (1 = the loop costs nothing). `share_of_peak`: FLOPs that XLA counts for a step, times the bare rate,
over the rate of a large float32 matrix product measured in the same run on the same device.

"pi05_tiny" in the result: steps per second of the learner's compiled step on its mesh (shardings, average, non-finite steps
skipped, losses per example), against the plainest step that trains the same policy: `jax.jit` of `value_and_grad` and optax
on the whole tree, unsharded. Both on one batch that lies on the device, in turns; ratio = ours / peer.
"""

import argparse
import functools
import itertools
import json
import pathlib
import statistics
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax

from sop_jax.algorithms.registry import create_algorithm
from sop_jax.learner.config import LearnerConfig, MeshConfig
from sop_jax.learner.learner import Learner
from sop_jax.learner.optimizer import make_optimizer
from sop_jax.learner.shapes import example_norm
from sop_jax.learner.sharding import make_mesh, put_batch, put_state, tree_shardings
from sop_jax.learner.state import init_state
from sop_jax.learner.train_step import compile_step
from sop_jax.models.normalization import identity_norm_stats
from sop_jax.models.registry import PRESETS, create_model
from sop_jax.sampling.batch_source import Draw, LoadedBatch, never
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

    def next(self, should_stop: Callable[[], bool] = never) -> LoadedBatch:
        del should_stop  # it never waits
        return next(self._cycle)

    def record_losses(self, draws: Sequence[Draw], per_example: np.ndarray) -> None: ...

    def wait_share(self) -> float:
        return 0.0

    def state_dict(self) -> dict[str, Any]:
        return {}

    def load_state(self, state: Mapping[str, Any]) -> None: ...

    def stop(self) -> None: ...


def matmul_flops_per_s(size: int = 2048, dtype: str = "float32") -> float:
    """Rate of a product of two square matrices on the first device, FLOP/s: the best of several."""
    matrix = jnp.ones((size, size), dtype)
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


def measure_pi05(batch_size: int, steps: int, rounds: int) -> dict[str, object]:
    """The learner's step of the small pi0.5 on its mesh, and the plain step, in turns."""
    model, algorithm = create_model(PRESETS["pi05_tiny"]), create_algorithm("behaviour_cloning")
    config = LearnerConfig(batch_size=batch_size, num_steps=10**6, mesh=MeshConfig(data=1))
    params, norm = jax.jit(model.init_params)(jax.random.key(0)), example_norm(model)
    cameras = tuple(CameraSpec(name, 64, 64) for name in model.cameras)
    spec = BatchSpec(cameras, model.config.state_dim, model.action_dim, model.horizon)
    mesh = make_mesh(config.mesh)
    batch = put_batch(SyntheticBatches(spec, model.tokenize, ("a", "b"), batch_size).next().batch, mesh)
    optimizer = make_optimizer(config)

    trained, frozen = split_params(params, model.is_trained)
    state = init_state(trained, optimizer, config.ema_decay)
    state = put_state(state, tree_shardings(mesh, state, config.mesh.min_sharded_bytes))
    sharded = compile_step(model, algorithm, config, mesh, state, frozen)

    @functools.partial(jax.jit, donate_argnums=(0, 1))
    def plain(params, moments, step):
        key = jax.random.fold_in(jax.random.key(0), step)
        loss, grads = jax.value_and_grad(lambda params: jnp.mean(model.loss(params, norm, batch, key)))(params)
        updates, moments = optimizer.update(grads, moments, params)
        return optax.apply_updates(params, updates), moments, step + 1, loss

    own = (params, optimizer.init(params), jnp.zeros((), jnp.int32))

    def run_sharded() -> None:
        nonlocal state
        for _ in range(steps):
            state, _ = sharded(state, frozen, norm, batch)
        jax.block_until_ready(state)

    def run_plain() -> None:
        nonlocal own
        for _ in range(steps):
            *own, _ = plain(*own)
        jax.block_until_ready(own)

    times: dict[str, list[float]] = {"ours": [], "peer": []}
    for round_index in range(rounds + 1):
        ours_s, peer_s = _seconds(run_sharded), _seconds(run_plain)
        if round_index:  # the first round compiles
            times["ours"].append(steps / ours_s)
            times["peer"].append(steps / peer_s)
    ours, peer = (statistics.median(times[name]) for name in ("ours", "peer"))
    return {
        "ours": round(ours, 2),
        "peer": round(peer, 2),
        "ratio": round(ours / peer, 3),
        "units": "learner steps/s of the sharded step (peer: plain jax.jit of value_and_grad and optax)",
        "batch_size": batch_size,
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
    parser.add_argument("--pi05-batch-size", type=int, default=16)
    parser.add_argument("--pi05-steps", type=int, default=3, help="steps per round of the small pi0.5; 0 leaves it out")
    arguments = parser.parse_args()
    result = measure(arguments.batch_size, arguments.steps, arguments.rounds)
    if arguments.pi05_steps:
        result["pi05_tiny"] = measure_pi05(arguments.pi05_batch_size, arguments.pi05_steps, arguments.rounds)
    print(json.dumps(result))


if __name__ == "__main__":
    main()
