"""Runs in the Reverb server's environment: what the official client reads and writes, as one JSON object.

python official_client.py ADDRESS READ_TABLE NUM WRITE_TABLE
"""

import json
import sys

import numpy as np
import reverb
import tensorflow as tf


def main() -> None:
    address, read_table, num, write_table = sys.argv[1:]
    client = reverb.Client(address)
    told = {"sampled": [], "dataset": []}
    for sample in client.sample(read_table, int(num), emit_timesteps=False):
        told["sampled"].append({"key": int(sample.info.key), "columns": [describe(column) for column in sample.data]})

    # The columns' types and shapes, without a leading dimension: names, then the test's columns.
    dataset = reverb.TrajectoryDataset(
        address,
        read_table,
        dtypes=(tf.uint8, tf.float32, tf.int64, tf.bool),
        shapes=(tf.TensorShape([None]), tf.TensorShape([2, 3]), tf.TensorShape([]), tf.TensorShape([None])),
        max_in_flight_samples_per_worker=int(num),
        rate_limiter_timeout_ms=1000,
    )
    for sample in dataset.take(int(num)):
        told["dataset"].append([describe(column.numpy()) for column in sample.data])

    client.insert([np.arange(4, dtype=np.int32), np.float32(2.5)], {write_table: 3.0})
    with client.trajectory_writer(num_keep_alive_refs=6) as writer:
        for step in range(6):
            writer.append({"a": np.full((2,), step, np.int64), "b": np.bool_(step % 2)})
        history = writer.history
        writer.create_item(write_table, 1.0, {"a": history["a"][1:5], "b": history["b"][-1]})
        writer.flush(block_until_num_items=0)
    with client.writer(max_sequence_length=5, delta_encoded=True, chunk_length=3) as writer:
        for step in range(5):
            writer.append([np.array([200 + 20 * step, step], np.uint8)])
        writer.create_item(write_table, 4, 1.0)
    sys.stdout.write(json.dumps(told) + "\n")


def describe(array: np.ndarray) -> dict:
    array = np.asarray(array)
    return {"dtype": str(array.dtype), "shape": list(array.shape), "values": array.astype(float).ravel().tolist()}


if __name__ == "__main__":
    main()
