"""Milliseconds per action chunk with the KV-cached prefix, against sampling that computes the prefix at every Euler step.

    python -m benchmarks.policy_inference --json

In one run, in turns: `sample_actions` of the pi05_tiny preset at batch 1 with and without the cache, 10 Euler steps.
ratio = peer / ours (2 = the cache halves the time). Beside it, for the compact and the pi05_tiny preset: milliseconds per
chunk at batch 1, and per loss with gradient at batch 64 (no optimizer). Wall times are medians; `cpu` is processor time of
all threads, which other work on the machine disturbs less.

`serving`: chunks per second that 1, 4 and 16 robots (threads that ask again at once) get from one policy on one device, in
turns: all from a `BatchedPolicy`, and one by one from a `PolicyRunner` behind a lock. ratio = batched / one by one.
"""

import argparse
import concurrent.futures
import contextlib
import json
import statistics
import threading
import time
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from sop_jax.actors.batched_policy import BatchedPolicy, BatchingConfig
from sop_jax.actors.policy_runner import PolicyRunner
from sop_jax.actors.robot_policy import black_scene
from sop_jax.models.batch import ObservationBatch, TrainBatch
from sop_jax.models.normalization import identity_norm_stats
from sop_jax.models.policy import PolicyModel
from sop_jax.models.pytrees import count_params
from sop_jax.models.registry import PRESETS, create_model
from sop_jax.robots.two_arm import two_arm_spec
from sop_jax.specs.clock import WallClock


def make_batch(model: PolicyModel, batch_size: int, image_size: int = 64) -> TrainBatch:
    rng = np.random.default_rng(0)
    tokens, token_mask = model.tokenize(["put the red can into the left slot"] * batch_size)
    observation = ObservationBatch(
        images={
            name: rng.integers(0, 256, (batch_size, image_size, image_size, 3), np.uint8) for name in model.cameras
        },
        image_mask={name: np.ones(batch_size, bool) for name in model.cameras},
        state=rng.uniform(-1, 1, (batch_size, model.config.state_dim)).astype(np.float32),
        tokens=tokens,
        token_mask=token_mask,
    )
    shape = (batch_size, model.horizon, model.action_dim)
    actions = rng.uniform(-1, 1, shape).astype(np.float32)
    mask, weight = np.ones(shape[:2], np.float32), np.ones(batch_size, np.float32)
    return jax.device_put(TrainBatch(observation, actions, mask, weight))


def time_in_turns(actions: dict[str, Callable[[], Any]], repeats: int) -> dict[str, dict[str, float]]:
    """Median wall and processor milliseconds of each action; the actions take turns, after one call to compile."""
    for action in actions.values():
        jax.block_until_ready(action())
    found: dict[str, list[tuple[float, float]]] = {name: [] for name in actions}
    for _ in range(repeats):
        for name, action in actions.items():
            wall_s, cpu_s = time.perf_counter(), time.process_time()
            jax.block_until_ready(action())
            found[name].append((time.perf_counter() - wall_s, time.process_time() - cpu_s))
    return {
        name: {
            "wall_ms": round(1e3 * statistics.median(wall for wall, _ in times), 3),
            "cpu_ms": round(1e3 * statistics.median(cpu for _, cpu in times), 3),
        }
        for name, times in found.items()
    }


def measure_preset(name: str, batch_size: int, repeats: int) -> dict[str, Any]:
    """Speed of one preset; with its cached and uncached sampling where the model has both."""
    model = create_model(PRESETS[name])
    params, key = jax.jit(model.init_params)(jax.random.key(0)), jax.random.key(1)
    norm = jax.device_put(identity_norm_stats(model.config.state_dim, model.action_dim, model.horizon))
    observation, batch = make_batch(model, 1).observation, make_batch(model, batch_size)
    sample = jax.jit(model.sample_actions)
    grad = jax.jit(jax.grad(lambda params, batch, key: jnp.mean(model.loss(params, norm, batch, key))))
    sampling = {"sample_actions": lambda: sample(params, norm, observation, key)}
    if name.startswith("pi05"):
        uncached = jax.jit(lambda *args: model.sample_actions(*args, use_cache=False))  # pyright: ignore[reportCallIssue]
        sampling["sample_actions_uncached"] = lambda: uncached(params, norm, observation, key)
    return {
        "parameters": count_params(params),
        **time_in_turns(sampling, 10 * repeats),
        "loss_and_grad": {
            "batch_size": batch_size,
            **time_in_turns({"": lambda: grad(params, batch, key)}, repeats)[""],
        },
    }


def ask_from_threads(infer: Callable[[int], Any], num_robots: int, num_each: int) -> float:
    """Chunks per second of `num_robots` threads that each call `infer(robot)` `num_each` times."""
    with concurrent.futures.ThreadPoolExecutor(num_robots) as pool:
        start_s = time.perf_counter()
        list(pool.map(lambda robot: [infer(robot) for _ in range(num_each)], range(num_robots)))
        return num_robots * num_each / (time.perf_counter() - start_s)


def measure_serving(name: str, num_robots: int, num_each: int, repeats: int) -> dict[str, float]:
    """Chunks per second of robots that share one policy: batched, and one by one."""
    model = create_model(PRESETS[name])
    params = jax.jit(model.init_params)(jax.random.key(0))
    norm = identity_norm_stats(model.config.state_dim, model.action_dim, model.horizon)
    spec = two_arm_spec("bench", 64, 30.0)
    observations = [black_scene(spec, f"robot {robot}") for robot in range(num_robots)]
    runner, lock = PolicyRunner(model, params, norm), threading.Lock()
    runner.warm_up(spec)

    def one_by_one(robot: int) -> np.ndarray:
        with lock:
            return runner.infer(observations[robot], robot)

    config = BatchingConfig((num_robots,), deadline_s=60.0)
    found: dict[str, list[float]] = {"batched": [], "one_by_one": []}
    with BatchedPolicy(model, params, norm, WallClock(), config=config) as shared, contextlib.ExitStack() as episodes:
        seats = [shared.take_seat() for _ in range(num_robots)]
        seats[0].warm_up(spec)
        for seat in seats:
            episodes.enter_context(seat.episode())
        for _ in range(repeats):
            batched = ask_from_threads(
                lambda robot: seats[robot].infer(observations[robot], robot), num_robots, num_each
            )
            found["batched"].append(batched)
            found["one_by_one"].append(ask_from_threads(one_by_one, num_robots, num_each))
        rows = shared.stats.num_requests / max(1, shared.stats.num_batches)
    batched, alone = (statistics.median(values) for values in found.values())
    return {
        "batched_per_s": round(batched, 1),
        "one_by_one_per_s": round(alone, 1),
        "ratio": round(batched / alone, 2),
        "mean_batch": round(rows, 2),
    }


def measure(batch_size: int, repeats: int) -> dict[str, Any]:
    presets = {name: measure_preset(name, batch_size, repeats) for name in ("compact", "pi05_tiny")}
    tiny = presets["pi05_tiny"]
    ours, peer = tiny["sample_actions"]["wall_ms"], tiny["sample_actions_uncached"]["wall_ms"]
    return {
        "name": "policy_inference",
        "ours": ours,
        "peer": peer,
        "ratio": round(peer / ours, 3),
        "units": "ms per action chunk, pi05_tiny, batch 1, 10 Euler steps (peer: the prefix computed at every step)",
        "presets": presets,
        "serving": {
            name: {str(num): measure_serving(name, num, max(2, 64 // num), min(repeats, 5)) for num in (1, 4, 16)}
            for name in ("compact", "pi05_tiny")
        },
        "device": jax.devices()[0].device_kind,
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--json", action="store_true", help="print one JSON object as the last line (always done)")
    parser.add_argument("--batch-size", type=int, default=64)
    parser.add_argument("--repeats", type=int, default=10)
    arguments = parser.parse_args()
    print(json.dumps(measure(arguments.batch_size, arguments.repeats)))


if __name__ == "__main__":
    main()
