"""The official client's side of `benchmarks.replay_client`; runs in the Reverb server's environment, not in ours.

Reads requests from standard input, one JSON object a line: what ("insert" or "sample"), kind, table, num; answers each
with items per second, by way of doing it.
"""

import json
import os
import sys
import time

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import numpy as np
import reverb  # pyright: ignore[reportMissingImports]  (installed in the server's environment only)
import tensorflow as tf

BATCH = 256


def make_columns(kind: str) -> dict:
    rng = np.random.default_rng(0)
    if kind == "blob":
        return {
            "frame": np.array(7),
            "pixels": rng.integers(0, 256, 45_000, np.uint8),
            "state": rng.random(16, np.float32),
        }
    lengths = rng.integers(9_000, 15_000, (16, 3))
    text = {"episode_id": 35, "path": 60, "task": 13, "source": 6}
    return {name: rng.integers(97, 123, size).astype(np.uint8) for name, size in text.items()} | {
        "policy_version": np.array(7),
        "ended_ns": np.array(1_700_000_000_000_000_000),
        "frames": np.arange(16, dtype=np.int32) * 3,
        "image_ranges": np.stack([np.cumsum(lengths.ravel()).reshape(16, 3), lengths], axis=-1),
        "arrays_range": np.array([21_000_000, 90_000]),
        "intervention": rng.random(16) < 0.1,
        "label": np.ones(16, np.float32),
    }


# What our client writes: the columns' names, then the columns in its order.
DTYPES = {
    "segment": "uint8 uint8 uint8 uint8 uint8 int64 int64 int32 int64 int64 bool float32",
    "blob": "uint8 uint8 float32 int64",
}
RANKS = {"segment": (1, 1, 1, 1, 1, 0, 0, 1, 3, 1, 1, 1), "blob": (1, 1, 1, 0)}


def insert(client: reverb.Client, kind: str, table: str, num: int) -> dict:
    columns = make_columns(kind)
    start_s = time.perf_counter()
    with client.trajectory_writer(num_keep_alive_refs=1) as writer:
        for _ in range(num):
            writer.append(columns)
            writer.create_item(table, 1.0, {name: writer.history[name][-1] for name in columns})
        writer.flush()
    return {"writer": num / (time.perf_counter() - start_s)}


def sample(client: reverb.Client, kind: str, table: str, num: int) -> dict:
    start_s = time.perf_counter()
    for item in client.sample(table, num, emit_timesteps=False):
        assert len(item.data) == len(RANKS[kind])
    plain = num / (time.perf_counter() - start_s)

    dataset = reverb.TrajectoryDataset(
        client.server_address,
        table,
        dtypes=tuple(tf.as_dtype(name) for name in DTYPES[kind].split()),
        shapes=tuple(tf.TensorShape([None] * rank) for rank in RANKS[kind]),
        max_in_flight_samples_per_worker=BATCH,
    )
    start_s = time.perf_counter()
    for _ in dataset.take(num).as_numpy_iterator():
        pass
    return {"client": plain, "dataset": num / (time.perf_counter() - start_s)}


def main() -> None:
    client = reverb.Client(sys.argv[1])
    for line in sys.stdin:
        request = json.loads(line)
        answer = {"insert": insert, "sample": sample}[request["what"]](
            client, request["kind"], request["table"], request["num"]
        )
        sys.stdout.write(json.dumps(answer) + "\n")
        sys.stdout.flush()


if __name__ == "__main__":
    main()
