"""How fast the loader makes batches, against an upper bound and against reading frame by frame.

    python -m benchmarks.sampler_loader --json

One process, a store on the local disk, in-process tables. Compared in one run, taking turns:
  loader_warm       the Loader without its thread, every frame in its caches
  loader_jpeg       the same with its frames cached as JPEGs
  loader_cold       the same without an image cache: range reads and JPEG decoding for every frame
  upper_bound       numpy fancy indexing of preloaded, decoded arrays of the same shapes
  naive             one frame after another: read its episode's numbers, read its JPEGs, decode; no cache, no concurrency
"""

import argparse
import json
import statistics
import tempfile
import time
from collections.abc import Callable, Sequence

import numpy as np

from sop_jax.algorithms.hg_dagger import HgDagger
from sop_jax.episodes.images import decode_images
from sop_jax.episodes.store import EpisodeStore
from sop_jax.episodes.synthetic import make_episode, make_spec
from sop_jax.replay.items import encode_segment, segments_of
from sop_jax.replay.local_tables import LocalTables
from sop_jax.replay.tables import MixConfig, mix_tables
from sop_jax.sampling.adaptive import AdaptiveSampler, SamplerConfig
from sop_jax.sampling.batch_spec import BatchSpec
from sop_jax.sampling.loader import Loader, LoaderConfig
from sop_jax.specs.clock import WallClock
from sop_jax.specs.metrics import NoMetrics
from sop_jax.specs.records import NO_POLICY, Segment, Source

TASKS = ("restock_shelf", "laundry_fold")
HORIZON = 16
CAMERAS = make_spec(64).cameras
SPEC = BatchSpec(CAMERAS, state_dim=16, action_dim=16, horizon=HORIZON)


def tokenize(instructions: Sequence[str]) -> tuple[np.ndarray, np.ndarray]:
    return np.zeros((len(instructions), 16), np.int32), np.ones((len(instructions), 16), bool)


def fill(store: EpisodeStore, tables: LocalTables, num_episodes: int, num_frames: int) -> list[Segment]:
    """Demonstrations and corrected episodes of each task, as intake would insert them."""
    algorithm, segments = HgDagger(), []
    for i, task in enumerate(TASKS):
        for seed in range(num_episodes):
            online = seed % 2 == 1
            episode = make_episode(
                seed,
                num_frames,
                task=task,
                robot_id=f"robot-{i}",
                source=Source.ONLINE if online else Source.OFFLINE,
                policy_version=1 if online else NO_POLICY,
                takeovers=((num_frames // 3, num_frames // 3, num_frames),) if online else (),
            )
            index = store.put(episode)
            labels = algorithm.label_frames(episode.manifest, episode.arrays, HORIZON)
            made = segments_of(episode.manifest, index, episode.arrays, labels)
            tables.insert(f"{task}/{episode.manifest.source}", [encode_segment(segment) for segment in made])
            segments.extend(made)
    return segments


def make_loader(store: EpisodeStore, tables: LocalTables, batch_size: int, pixels: int, jpegs: int) -> Loader:
    config = LoaderConfig(batch_size=batch_size, prefetch_batches=0, pixel_cache_bytes=pixels, jpeg_cache_bytes=jpegs)
    sampler = AdaptiveSampler(SamplerConfig(), TASKS)
    return Loader(config, SPEC, tokenize, tables, store, sampler, HgDagger(), WallClock(), NoMetrics())


def make_upper_bound(num_frames: int, batch_size: int) -> Callable[[], object]:
    """Batches out of arrays that hold every example already."""
    rng = np.random.default_rng(0)
    images = [np.zeros((num_frames, c.height, c.width, 3), np.uint8) for c in CAMERAS]
    for stack in images:
        stack[:] = rng.integers(0, 256, stack.shape[1:], np.uint8)
    actions = np.zeros((num_frames, HORIZON, 16), np.float32)
    masks = np.ones((num_frames, HORIZON), np.float32)
    state = np.zeros((num_frames, 16), np.float32)

    def make() -> object:
        rows = rng.integers(0, num_frames, batch_size)
        return [array[rows] for array in (*images, actions, masks, state)]

    return make


def make_naive(store: EpisodeStore, segments: list[Segment], batch_size: int) -> Callable[[], object]:
    rng, algorithm = np.random.default_rng(0), HgDagger()

    def make() -> object:
        examples = []
        for _ in range(batch_size):
            segment = segments[rng.integers(len(segments))]
            slot = int(rng.integers(len(segment.frames)))
            frame = int(segment.frames[slot])
            manifest, arrays = store.read_arrays(segment.path, segment.arrays_range)
            (jpegs,) = store.read_images([(segment.path, segment.image_ranges[slot])])
            images = decode_images(jpegs, manifest.cameras)
            steps = np.minimum(np.arange(frame, frame + HORIZON), manifest.num_frames - 1)
            mask = algorithm.action_masks(manifest, arrays, HORIZON)[frame]
            examples.append((arrays.state[frame], arrays.action[steps], mask, [images[c.name] for c in CAMERAS]))
        return [np.stack([example[i] for example in examples]) for i in range(4)]

    return make


def measure(makers: dict[str, Callable[[], object]], batch_size: int, seconds: float) -> dict[str, dict[str, float]]:
    """Frames per second of each, median over batches, by the wall and by this process's CPU time."""
    wall: dict[str, list[float]] = {name: [] for name in makers}
    cpu: dict[str, list[float]] = {name: [] for name in makers}
    for make in makers.values():
        make()
    until = time.perf_counter() + seconds
    while time.perf_counter() < until:
        for name, make in makers.items():
            for _ in range(1 if name == "naive" else 5):
                started, started_cpu = time.perf_counter(), time.process_time()
                make()
                wall[name].append(time.perf_counter() - started)
                cpu[name].append(time.process_time() - started_cpu)
    return {
        name: {
            "frames_per_s": round(batch_size / statistics.median(wall[name]), 1),
            "frames_per_cpu_s": round(batch_size / statistics.mean(cpu[name]), 1),
            "ms_per_batch": round(1e3 * statistics.median(wall[name]), 3),
            "cpu_ms_per_batch": round(1e3 * statistics.mean(cpu[name]), 3),
        }
        for name in makers
    }


def run(batch_size: int, num_episodes: int, num_frames: int, seconds: float) -> dict[str, object]:
    with tempfile.TemporaryDirectory() as directory:
        store = EpisodeStore(f"file://{directory}/store/")
        tables = LocalTables(mix_tables(TASKS, MixConfig(online_samples_per_insert=1e9)))
        segments = fill(store, tables, num_episodes, num_frames)
        distinct = sum(len(segment.frames) for segment in segments)
        warm = make_loader(store, tables, batch_size, pixels=2 << 30, jpegs=0)
        jpeg = make_loader(store, tables, batch_size, pixels=0, jpegs=2 << 30)
        cold = make_loader(store, tables, batch_size, pixels=0, jpegs=0)
        for _ in range(5 * distinct // batch_size + 1):  # until nearly every frame was seen
            warm.next()
            jpeg.next()
        makers = {
            "loader_warm": warm.next,
            "loader_jpeg": jpeg.next,
            "loader_cold": cold.next,
            "upper_bound": make_upper_bound(distinct, batch_size),
            "naive": make_naive(store, segments, batch_size),
        }
        results = measure(makers, batch_size, seconds)
        hit_share = warm.report().image_hit_share
        for loader in (warm, jpeg, cold):
            loader.stop()
    ours, peer = results["loader_warm"]["frames_per_s"], results["naive"]["frames_per_s"]
    return {
        "name": "sampler_loader",
        "ours": ours,
        "peer": peer,
        "ratio": round(ours / peer, 2),
        "units": "frames/s (batches of 3 cameras of 64x64 px, chunks of 16 actions)",
        "peer_name": "one frame after another: read, decode, no cache",
        "ratio_to_upper_bound": round(ours / results["upper_bound"]["frames_per_s"], 3),
        "ratio_to_upper_bound_per_cpu_s": round(
            results["loader_warm"]["frames_per_cpu_s"] / results["upper_bound"]["frames_per_cpu_s"], 3
        ),
        "ratio_cold_to_naive": round(results["loader_cold"]["frames_per_s"] / peer, 2),
        "ratio_per_cpu_s": round(results["loader_warm"]["frames_per_cpu_s"] / results["naive"]["frames_per_cpu_s"], 2),
        "batch_size": batch_size,
        "distinct_frames": distinct,
        "image_hit_share": round(hit_share, 3),
        "details": results,
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--json", action="store_true", help="print one JSON object as the last line")
    parser.add_argument("--batch-size", type=int, default=64, help="examples per batch")
    parser.add_argument("--num-episodes", type=int, default=20, help="episodes of each of the two tasks")
    parser.add_argument("--num-frames", type=int, default=90, help="control ticks per episode; every third has images")
    parser.add_argument("--seconds", type=float, default=15.0, help="time to measure")
    args = parser.parse_args()
    result = run(args.batch_size, args.num_episodes, args.num_frames, args.seconds)
    if args.json:
        print(json.dumps(result))
    else:
        print(json.dumps(result, indent=2))


if __name__ == "__main__":
    main()
