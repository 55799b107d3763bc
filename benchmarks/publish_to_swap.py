"""Time from `publish()` to loaded parameters at a robot, against numpy writing and reading the same bytes.

    python -m benchmarks.publish_to_swap --json

In one run, in turns: publish (Orbax, checksums, manifest, pointer), then poll, download, verify and load; and, as the floor,
`np.savez` and `np.load` of the same arrays. All through the local disk. ratio = ours / peer, of the two medians: how much
more the safe way costs (lower is better).
"""

import argparse
import json
import pathlib
import statistics
import tempfile
import time

import numpy as np

from sop_jax.specs.clock import WallClock
from sop_jax.weights.follower import Follower
from sop_jax.weights.publisher import Publisher


def make_params(num_bytes: int, num_leaves: int) -> dict[str, dict[str, np.ndarray]]:
    rng = np.random.default_rng(0)
    rows = num_bytes // num_leaves // 4 // 64
    return {f"layer_{i}": {"kernel": rng.standard_normal((rows, 64)).astype(np.float32)} for i in range(num_leaves)}


def seconds_of(action) -> float:
    started = time.perf_counter()
    action()
    return time.perf_counter() - started


def measure(num_bytes: int, num_leaves: int, rounds: int) -> dict[str, object]:
    params = make_params(num_bytes, num_leaves)
    flat = {name: branch["kernel"] for name, branch in params.items()}
    times: dict[str, list[float]] = {name: [] for name in ("publish", "load", "poll", "savez", "np_load")}
    with tempfile.TemporaryDirectory() as directory:
        root = pathlib.Path(directory)
        publisher = Publisher(root / "store", "base", "norm", WallClock())
        follower = Follower(root / "store", "base", "norm")

        def load_npz() -> None:
            with np.load(root / "peer.npz") as data:
                for name in flat:
                    assert data[name].shape == flat[name].shape

        for round_index in range(rounds + 1):
            measured = {
                "publish": seconds_of(lambda: publisher.publish(params, round_index)),  # noqa: B023
                "load": seconds_of(lambda: follower.load_latest(params, round_index)),  # noqa: B023
                "poll": seconds_of(follower.latest),
                "savez": seconds_of(lambda: np.savez(root / "peer.npz", **flat)),  # pyright: ignore[reportArgumentType]
                "np_load": seconds_of(load_npz),
            }
            if round_index:  # the first round warms everything up
                for name, seconds in measured.items():
                    times[name].append(seconds * 1e3)
    medians = {name: statistics.median(values) for name, values in times.items()}
    ours = statistics.median(a + b for a, b in zip(times["publish"], times["load"], strict=True))
    peer = statistics.median(a + b for a, b in zip(times["savez"], times["np_load"], strict=True))
    return {
        "name": "publish_to_swap",
        "ours": round(ours, 2),
        "peer": round(peer, 2),
        "ratio": round(ours / peer, 2),
        "units": "ms, publish + load (peer: np.savez + np.load)",
        "megabytes": num_bytes / 1e6,
        "leaves": num_leaves,
        "rounds": rounds,
        "publish_ms": round(medians["publish"], 2),
        "visible_to_loaded_ms": round(medians["load"], 2),
        "poll_ms": round(medians["poll"], 4),
        "savez_ms": round(medians["savez"], 2),
        "np_load_ms": round(medians["np_load"], 2),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--json", action="store_true", help="print one JSON object as the last line (always done)")
    parser.add_argument("--megabytes", type=float, default=6.0, help="size of the trained parameters, MB")
    parser.add_argument("--leaves", type=int, default=30, help="number of arrays")
    parser.add_argument("--rounds", type=int, default=15)
    arguments = parser.parse_args()
    print(json.dumps(measure(round(arguments.megabytes * 1e6), arguments.leaves, arguments.rounds)))


if __name__ == "__main__":
    main()
