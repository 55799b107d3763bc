"""The official client's side of `benchmarks.replay_client`; runs in the Reverb server's environment, not in ours.

Reads requests from standard input, one JSON object a line: what ("insert" or "sample"), kind, table, num, and for an
insert writers; answers each with items per second, by way of doing it.
"""

import concurrent.futures
import json
import os
import sys
import time
from collections.abc import Iterator

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import numpy as np
import reverb  # pyright: ignore[reportMissingImports]  (installed in the server's environment only)
import tensorflow as tf

BATCH = 256


def make_columns(kind: str) -> dict:
    """As our client's items: a packed segment, or an item of three columns (200 bytes, 45 KB)."""
    rng = np.random.default_rng(0)
    if kind == "segment":
        return {"segment": rng.integers(0, 256, 1_100, np.uint8)}
    pixels = rng.integers(0, 256, {"small": 128, "blob": 45_000}[kind], np.uint8)
    return {"frame": np.array(7), "pixels": pixels, "state": rng.random(16, np.float32)}


# What our client writes: the columns' names, then the columns in its order.
DTYPES = {"segment": "uint8 uint8", "small": "uint8 uint8 float32 int64", "blob": "uint8 uint8 float32 int64"}
RAGGED = ("segment",)  # lengths differ, so a batch of them is padded
RANKS = {"segment": (1, 1), "small": (1, 1, 1, 0), "blob": (1, 1, 1, 0)}


def insert(client: reverb.Client, kind: str, table: str, num: int, writers: int = 1) -> dict:
    columns = make_columns(kind)

    def write(number: int) -> None:
        share = len(range(number, num, writers))
        with client.trajectory_writer(num_keep_alive_refs=1) as writer:
            for _ in range(share):
                writer.append(columns)
                writer.create_item(table, 1.0, {name: writer.history[name][-1] for name in columns})
            writer.flush()

    with concurrent.futures.ThreadPoolExecutor(writers) as threads:
        start_s = time.perf_counter()
        list(threads.map(write, range(writers)))
        return {"writer": num / (time.perf_counter() - start_s)}


def sample(client: reverb.Client, kind: str, table: str, num: int) -> dict:
    """Each way that the client has: item by item in Python (fewer of them, for that takes long), and batches that TensorFlow
    makes."""
    few = num // 8
    items = iter(client.sample(table, few + 1, emit_timesteps=False))
    assert len(next(items).data) == len(RANKS[kind])
    rates = {"client": _rate(items, 1, few)}
    dataset = reverb.TrajectoryDataset(
        client.server_address,
        table,
        dtypes=tuple(tf.as_dtype(name) for name in DTYPES[kind].split()),
        shapes=tuple(tf.TensorShape([None] * rank) for rank in RANKS[kind]),
        max_in_flight_samples_per_worker=BATCH,
    )
    batches = dataset.padded_batch(BATCH) if kind in RAGGED else dataset.batch(BATCH)
    for way, source, num_each, num_timed in (("dataset", dataset, 1, few), ("batches", batches, BATCH, num)):
        iterator = source.as_numpy_iterator()
        next(iterator)  # connections and graphs are made
        rates[way] = _rate(iterator, num_each, num_timed)
    return rates


def _rate(iterator: Iterator, num_each: int, num: int) -> float:
    """Items per second of an iterator that gives `num_each` at a time."""
    start_s = time.perf_counter()
    for _ in range(num // num_each):
        next(iterator)
    return num // num_each * num_each / (time.perf_counter() - start_s)


def main() -> None:
    client = reverb.Client(sys.argv[1])
    for line in sys.stdin:
        request = json.loads(line)
        answer = {"insert": insert, "sample": sample}[request.pop("what")](client, **request)
        sys.stdout.write(json.dumps(answer) + "\n")
        sys.stdout.flush()


if __name__ == "__main__":
    main()
