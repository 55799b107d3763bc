"""Full-size pi0.5 on an accelerator: train step in samples/s and MFU, and milliseconds per action chunk.

    python -m benchmarks.full_size_speed --json --batch-size 32 --accumulate-steps 1 --remat dots

Train step: FULL preset, language model frozen in bfloat16, the rest trained in float32 with moments and average, fsdp over
all devices, random weights and images (three cameras of 224 pixels, prompts of 200 tokens). Sampling: one chunk at batch 1
with 3 cameras and 10 Euler steps on one device, all weights in bfloat16.
ours = FLOP/s that the model asks for (pi05_flops.py), peer = FLOP/s of a large matrix product in the type that the model
computes in, measured in the same run, over all devices; ratio = ours / peer = MFU.

Without an accelerator it refuses: a CPU says nothing about this size. `--any-device --preset pi05_tiny` tries the machinery.
"""

import argparse
import dataclasses
import json
import statistics
import sys
import time
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from benchmarks.learner_step import matmul_flops_per_s
from benchmarks.pi05_flops import chunk_flops, loss_flops
from sop_jax.algorithms.registry import create_algorithm
from sop_jax.learner.config import LearnerConfig, MeshConfig
from sop_jax.learner.memory import tree_bytes
from sop_jax.learner.optimizer import make_optimizer
from sop_jax.learner.remat import with_remat
from sop_jax.learner.shapes import abstract_batch, example_norm, stored_params
from sop_jax.learner.sharding import make_mesh, put_batch, tree_shardings
from sop_jax.learner.state import init_state
from sop_jax.learner.train_step import compile_step
from sop_jax.models.pi05.config import FULL, TINY, Pi05Config
from sop_jax.models.policy import PolicyModel
from sop_jax.models.pytrees import Params, flatten_params, unflatten_params
from sop_jax.models.registry import create_model
from sop_jax.weights.partition import merge_params, split_params

PROMPT_TOKENS = 200
PRESETS: dict[str, Pi05Config] = {
    "pi05": dataclasses.replace(FULL, tokenizer="hash", max_tokens=PROMPT_TOKENS - FULL.state_dim),
    "pi05_tiny": dataclasses.replace(TINY, freeze_language=True, remat=True),
}


def refuse_without_accelerator(any_device: bool) -> str:
    """Why this machine can't measure; "" if it can."""
    kinds = sorted({device.platform for device in jax.devices()})
    if any_device or kinds != ["cpu"]:
        return ""
    return (
        "full_size_speed measures accelerators and JAX sees only CPUs here; nothing was measured. On a machine with a GPU or "
        "TPU install JAX for it (`sop doctor` shows what JAX sees); --any-device --preset pi05_tiny tries the machinery."
    )


def make_weights(model: PolicyModel, config: LearnerConfig, mesh: Any) -> tuple[Any, Params]:
    """A fresh train state and frozen leaves, made where they belong."""
    stored = flatten_params(stored_params(model))

    def make(key: Any) -> tuple[Any, Params]:
        params = flatten_params(model.init_params(key))
        params = unflatten_params({path: leaf.astype(stored[path].dtype) for path, leaf in params.items()})
        trained, frozen = split_params(params, model.is_trained)
        return init_state(trained, make_optimizer(config), config.ema_decay), frozen

    shapes = jax.eval_shape(make, jax.random.key(0))
    return jax.jit(make, out_shardings=tree_shardings(mesh, shapes, config.mesh.min_sharded_bytes))(jax.random.key(0))


def random_batch(model: PolicyModel, batch_size: int) -> Any:
    """Noise of the right shapes; every token valid, every action taught."""
    rng = np.random.default_rng(0)

    def fill(leaf: Any) -> np.ndarray:
        if leaf.dtype == jnp.bool_:
            return np.ones(leaf.shape, bool)
        if jnp.issubdtype(leaf.dtype, jnp.integer):
            return rng.integers(0, 200, leaf.shape).astype(leaf.dtype)
        return np.ones(leaf.shape, np.float32)

    return jax.tree.map(fill, abstract_batch(model, model.config.vision.image_size, batch_size))


def measure_training(model: PolicyModel, config: LearnerConfig, repeats: int) -> tuple[float, float, Params]:
    """(seconds per step, gigabytes of state, all parameters as a robot would act with)."""
    mesh = make_mesh(config.mesh)
    state, frozen = make_weights(model, config, mesh)
    batch = put_batch(random_batch(model, config.batch_size), mesh)
    norm = example_norm(model)
    algorithm = create_algorithm("hg_dagger")
    step = compile_step(with_remat(model, config.remat), algorithm, config, mesh, state, frozen)
    held_gb = tree_bytes((state, frozen)) / 1e9

    def run() -> Any:
        nonlocal state
        state, result = step(state, frozen, norm, batch)
        return result.loss

    seconds = median_seconds(run, repeats)
    return seconds, held_gb, merge_params(state.published, frozen)


def measure_sampling(model: PolicyModel, params: Params, repeats: int) -> float:
    """Seconds per chunk on one device."""
    device = jax.devices()[0]
    dtype = jnp.dtype(model.config.dtype)
    params = jax.device_put(jax.tree.map(lambda leaf: jnp.asarray(leaf, dtype), params), device)
    observation = jax.device_put(random_batch(model, 1).observation, device)
    norm, key = jax.device_put((example_norm(model), jax.random.key(1)), device)
    sample = jax.jit(model.sample_actions)
    return median_seconds(lambda: sample(params, norm, observation, key), repeats)


def median_seconds(action: Callable[[], Any], repeats: int) -> float:
    """Wall time of one call, results awaited, after two calls to compile and to warm up."""
    for _ in range(2):
        jax.block_until_ready(action())
    times = []
    for _ in range(repeats):
        started_s = time.perf_counter()
        jax.block_until_ready(action())
        times.append(time.perf_counter() - started_s)
    return statistics.median(times)


def measure(preset: str, config: LearnerConfig, repeats: int, matmul_size: int) -> dict[str, Any]:
    model = create_model(PRESETS[preset])
    num_devices = len(jax.devices())
    peak = matmul_flops_per_s(matmul_size, model.config.dtype) * num_devices
    step_s, held_gb, params = measure_training(model, config, repeats)
    chunk_s = measure_sampling(model, params, repeats)
    text_tokens = model.config.max_tokens + model.config.state_dim * (model.config.state_input == "tokens")
    achieved = loss_flops(model.config, text_tokens).train * config.batch_size / step_s
    return {
        "name": "full_size_speed",
        "ours": round(achieved / 1e12, 4),
        "peer": round(peak / 1e12, 4),
        "ratio": round(achieved / peak, 4),
        "units": "TFLOP/s of the train step (peer: matrix product of the same type); ratio = MFU",
        "preset": preset,
        "batch_size": config.batch_size,
        "accumulate_steps": config.accumulate_steps,
        "remat": config.remat,
        "samples_per_s": round(config.batch_size / step_s, 2),
        "step_ms": round(1e3 * step_s, 2),
        "chunk_ms": round(1e3 * chunk_s, 2),
        "chunk_share_of_peak": round(chunk_flops(model.config, text_tokens) * num_devices / chunk_s / peak, 4),
        "state_gb_all_devices": round(held_gb, 2),
        "devices": f"{num_devices} x {jax.devices()[0].device_kind}",
    }


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--json", action="store_true", help="print one JSON object as the last line (always done)")
    parser.add_argument("--preset", choices=sorted(PRESETS), default="pi05")
    parser.add_argument("--batch-size", type=int, default=32)
    parser.add_argument("--accumulate-steps", type=int, default=1)
    parser.add_argument("--remat", choices=("none", "dots", "full"), default="dots")
    parser.add_argument("--repeats", type=int, default=10)
    parser.add_argument("--matmul-size", type=int, default=8192, help="rows and columns of the peak's matrices")
    parser.add_argument("--any-device", action="store_true", help="measure whatever JAX sees")
    arguments = parser.parse_args()
    if reason := refuse_without_accelerator(arguments.any_device):
        print(reason, file=sys.stderr)
        return 1
    config = LearnerConfig(
        batch_size=arguments.batch_size,
        accumulate_steps=arguments.accumulate_steps,
        remat=arguments.remat,
        ema_decay=0.99,
        mesh=MeshConfig(fsdp=len(jax.devices())),
    )
    print(json.dumps(measure(arguments.preset, config, arguments.repeats, arguments.matmul_size)))
    return 0


if __name__ == "__main__":
    sys.exit(main())
