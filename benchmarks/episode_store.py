"""Episodes to a local disk and single frames back, beside raw files: `python -m benchmarks.episode_store --json`.

One episode: 600 frames x 3 cameras x about 12 KB. Write: `EpisodeStore.put_bytes` (checks structure and checksums, then
writes atomically and durably) beside write + fsync + rename of the same bytes. Read: one frame's three JPEGs at a random
place, warm cache, `EpisodeStore.read_images` beside `os.pread` in one thread. Both sides take turns within the run.
"""

import argparse
import dataclasses
import json
import os
import pathlib
import statistics
import tempfile
import time
from collections.abc import Callable

import numpy as np

from sop_jax.episodes.format import index_of, pack
from sop_jax.episodes.images import encode_image
from sop_jax.episodes.paths import episode_path
from sop_jax.episodes.store import EpisodeStore
from sop_jax.episodes.synthetic import make_episode, make_image, make_spec
from sop_jax.episodes.verify import verify_bytes
from sop_jax.specs.identifiers import make_episode_id
from sop_jax.specs.records import Episode, EpisodeIndex

NUM_FRAMES = 600
IMAGE_SIZE = 224
QUALITY = 90
BATCH = 256
"""Frames asked for at once, as a loader does."""
NUM_ROUNDS = 7
GRAIN = 4.2
"""Grey levels of noise that bring a 224-pixel JPEG to about 12 KB."""


def make_large_episode(count: int) -> Episode:
    """600 image frames. The pixels are a few dozen fake images, taken in turn: making 1800 would take longer than the
    benchmark."""
    spec = make_spec(IMAGE_SIZE)
    small = make_episode(count, NUM_FRAMES, NUM_FRAMES, spec=spec)
    rng = np.random.default_rng(count)
    pool = [encode_image(make_image(rng, spec.cameras[0], GRAIN), QUALITY) for _ in range(24)]
    jpegs = tuple(tuple(pool[(3 * k + c) % len(pool)] for c in range(3)) for k in range(NUM_FRAMES))
    arrays = dataclasses.replace(small.arrays, image_frames=np.arange(NUM_FRAMES, dtype=np.int32))
    return Episode(small.manifest, arrays, jpegs)


def milliseconds(action: Callable[[], object]) -> float:
    start_s = time.perf_counter()
    action()
    return (time.perf_counter() - start_s) * 1e3


def write_raw(path: pathlib.Path, data: bytes) -> None:
    """The least that is durable and atomic: write, fsync, rename."""
    temporary = path.with_suffix(".tmp")
    with temporary.open("wb") as file:
        file.write(data)
        file.flush()
        os.fsync(file.fileno())
    temporary.rename(path)


def measure_writes(
    folder: pathlib.Path, store: EpisodeStore, num_writes: int
) -> tuple[dict[str, float], list[EpisodeIndex]]:
    episode = make_large_episode(0)
    timings: dict[str, list[float]] = {"put_bytes": [], "raw": [], "pack": [], "verify": []}
    indices = []
    for count in range(num_writes):
        episode_id = make_episode_id("robot-0", 0, count)
        sealed = dataclasses.replace(episode, manifest=dataclasses.replace(episode.manifest, episode_id=episode_id))
        timings["pack"].append(milliseconds(lambda sealed=sealed: pack(sealed)))
        data, path = pack(sealed), episode_path(episode_id)
        timings["verify"].append(milliseconds(lambda data=data, path=path: verify_bytes(data, path)))
        timings["raw"].append(milliseconds(lambda data=data, count=count: write_raw(folder / f"raw{count}", data)))
        timings["put_bytes"].append(milliseconds(lambda i=episode_id, data=data: store.put_bytes(i, data)))
        indices.append(index_of(data, path))
    return {f"{name}_ms": round(statistics.median(values), 2) for name, values in timings.items()}, indices


def measure_reads(
    folder: pathlib.Path, store: EpisodeStore, indices: list[EpisodeIndex], num_reads: int
) -> dict[str, float]:
    rng = np.random.default_rng(0)
    picks = [(indices[rng.integers(len(indices))], rng.integers(NUM_FRAMES)) for _ in range(num_reads)]
    requests = [(index.path, index.image_ranges[k]) for index, k in picks]
    batches = [requests[at : at + BATCH] for at in range(0, num_reads, BATCH)]
    files = {index.path: os.open(folder / "store" / index.path, os.O_RDONLY) for index in indices}

    def raw(batch: list[tuple[str, np.ndarray]]) -> list[tuple[bytes, ...]]:
        return [tuple(os.pread(files[path], n, at) for at, n in frame.tolist()) for path, frame in batch]

    timings: dict[str, list[float]] = {"ours": [], "raw": [], "alone": []}
    try:
        same = all(store.read_images(batch) == raw(batch) for batch in batches)
        for _ in range(NUM_ROUNDS):
            timings["ours"].append(milliseconds(lambda: [store.read_images(batch) for batch in batches]))
            timings["raw"].append(milliseconds(lambda: [raw(batch) for batch in batches]))
            timings["alone"].append(milliseconds(lambda: [store.read_images([one]) for one in batches[0]]))
    finally:
        for file in files.values():
            os.close(file)
    if not same:
        raise AssertionError("range reads and raw reads gave other bytes")
    median = {name: statistics.median(values) for name, values in timings.items()}
    return {
        "frames_per_s": round(num_reads / median["ours"] * 1e3),
        "raw_frames_per_s": round(num_reads / median["raw"] * 1e3),
        "one_frame_alone_ms": round(median["alone"] / len(batches[0]), 3),
    }


def run(num_writes: int, num_reads: int) -> dict[str, object]:
    with tempfile.TemporaryDirectory() as name:
        folder = pathlib.Path(name)
        store = EpisodeStore(f"file://{folder}/store/")
        writes, indices = measure_writes(folder, store, num_writes)
        reads = measure_reads(folder, store, indices, num_reads)
        summaries_ms = milliseconds(store.summaries)
    return {
        "name": "episode_store",
        "figure": "random single-frame reads (3 JPEGs), 256 asked at once, warm local disk",
        "ours": reads["frames_per_s"],
        "peer": reads["raw_frames_per_s"],
        "peer_name": "os.pread, one thread",
        "ratio": round(reads["frames_per_s"] / reads["raw_frames_per_s"], 3),
        "units": "frames/s",
        "one_frame_alone_ms": reads["one_frame_alone_ms"],
        "episode_mb": round(indices[0].size / 1e6, 2),
        "write": {
            "ours": writes["put_bytes_ms"],
            "peer": writes["raw_ms"],
            "peer_name": "write + fsync + rename of the same bytes",
            "ratio": round(writes["put_bytes_ms"] / writes["raw_ms"], 3),
            "units": "ms",
        },
        "pack_ms": writes["pack_ms"],
        "verify_ms": writes["verify_ms"],
        "summary_ms": round(summaries_ms / num_writes, 3),
        "num_writes": num_writes,
        "num_reads": num_reads,
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--json", action="store_true", help="print one JSON object as the last line")
    parser.add_argument("--writes", type=int, default=9, help="episodes written by each side (about 21 MB each)")
    parser.add_argument("--reads", type=int, default=3000, help="frames read by each side, several times over")
    arguments = parser.parse_args()
    result = run(arguments.writes, arguments.reads)
    if arguments.json:
        print(json.dumps(result))
    else:
        for key, value in result.items():
            print(f"{key}: {value}")


if __name__ == "__main__":
    main()
