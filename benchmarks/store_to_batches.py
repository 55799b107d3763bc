"""Batches out of the store, against decoding the same JPEGs and nothing else: `python -m benchmarks.store_to_batches --json`.

Ours: the loader without image caches, from a store on the local disk and in-process tables: plan, draw, range reads, decode,
stack into batches. The limit: the same library (simplejpeg) decodes JPEGs of the same episodes that lie in memory already, on
as many threads. Both take turns in one process; frames per second by the wall (median of the turns), and per second of this
process's CPU time, which other work on the machine disturbs less.
"""

import argparse
import concurrent.futures
import json
import statistics
import tempfile
import time
from collections.abc import Callable, Sequence

import numpy as np
import simplejpeg

from sop_jax.algorithms.hg_dagger import HgDagger
from sop_jax.episodes.store import EpisodeStore
from sop_jax.episodes.synthetic import make_episode, make_spec
from sop_jax.replay.items import encode_segment, segments_of
from sop_jax.replay.local_tables import LocalTables
from sop_jax.replay.tables import mix_tables
from sop_jax.sampling.adaptive import AdaptiveSampler, SamplerConfig
from sop_jax.sampling.batch_spec import BatchSpec
from sop_jax.sampling.loader import Loader, LoaderConfig
from sop_jax.specs.clock import WallClock
from sop_jax.specs.metrics import NoMetrics
from sop_jax.specs.records import NO_POLICY, Source

TASK = "restock_shelf"
HORIZON = 16
NUM_FRAMES = 60
_PAUSE_S = 0.2
"""Until the loader has made the batches that it makes ahead: else it would work during the other side's turn."""
_WARM_UP_S = 0.2
"""Those batches are taken meanwhile, and the cores wake up."""
_TURN_S = 0.6


def tokenize(instructions: Sequence[str]) -> tuple[np.ndarray, np.ndarray]:
    return np.zeros((len(instructions), 16), np.int32), np.ones((len(instructions), 16), bool)


def fill(store: EpisodeStore, tables: LocalTables, image_size: int, num_episodes: int) -> list[tuple[bytes, ...]]:
    """Demonstrations, as intake would insert them; returns the JPEGs of each of their frames."""
    algorithm, jpegs = HgDagger(), []
    for seed in range(num_episodes):
        episode = make_episode(seed, NUM_FRAMES, image_size=image_size, source=Source.OFFLINE, policy_version=NO_POLICY)
        index = store.put(episode)
        labels = algorithm.label_frames(episode.manifest, episode.arrays, HORIZON)
        segments = segments_of(episode.manifest, index, episode.arrays, labels)
        tables.insert(f"{TASK}/offline", [encode_segment(segment) for segment in segments])
        jpegs += store.read_images([(index.path, ranges) for ranges in index.image_ranges])
    return jpegs


def make_loader(store: EpisodeStore, tables: LocalTables, image_size: int, batch_size: int, num_threads: int) -> Loader:
    config = LoaderConfig(
        batch_size=batch_size, num_threads=num_threads, prefetch_batches=2, pixel_cache_bytes=0, jpeg_cache_bytes=0
    )
    spec = BatchSpec(make_spec(image_size).cameras, state_dim=16, action_dim=16, horizon=HORIZON)
    sampler = AdaptiveSampler(SamplerConfig(mode="fixed", fixed_online_share=0.0), [TASK])
    return Loader(config, spec, tokenize, tables, store, sampler, HgDagger(), WallClock(), NoMetrics())


def make_decoder(
    jpegs: list[tuple[bytes, ...]], batch_size: int, pool: concurrent.futures.Executor
) -> Callable[[], object]:
    rng = np.random.default_rng(0)

    def decode(frame: tuple[bytes, ...]) -> list[np.ndarray]:
        return [simplejpeg.decode_jpeg(jpeg, "RGB") for jpeg in frame]

    return lambda: list(pool.map(decode, [jpegs[row] for row in rng.integers(len(jpegs), size=batch_size)]))


def measure(makers: dict[str, Callable[[], object]], batch_size: int, num_turns: int) -> dict[str, dict[str, float]]:
    wall: dict[str, list[float]] = {name: [] for name in makers}
    cpu: dict[str, list[float]] = {name: [] for name in makers}
    for _ in range(num_turns):
        for name, make in makers.items():
            time.sleep(_PAUSE_S)
            _make_for(make, _WARM_UP_S)
            started_cpu = time.process_time()
            num_batches, seconds = _make_for(make, _TURN_S)
            wall[name].append(seconds / num_batches)
            cpu[name].append((time.process_time() - started_cpu) / num_batches)
    return {
        name: {
            "frames_per_s": round(batch_size / statistics.median(wall[name]), 1),
            "frames_per_cpu_s": round(batch_size / statistics.median(cpu[name]), 1),
        }
        for name in makers
    }


def _make_for(make: Callable[[], object], seconds: float) -> tuple[int, float]:
    """Makes batches for at least so long; how many, and the seconds that they took."""
    started, num_batches = time.perf_counter(), 0
    while (passed := time.perf_counter() - started) < seconds:
        make()
        num_batches += 1
    return num_batches, passed


def compare(image_size: int, batch_size: int, num_episodes: int, num_threads: int, num_turns: int) -> dict[str, object]:
    """One size of images: ours, the limit and their ratios."""
    with tempfile.TemporaryDirectory() as directory, concurrent.futures.ThreadPoolExecutor(num_threads) as pool:
        store, tables = EpisodeStore(f"file://{directory}/store/"), LocalTables(mix_tables([TASK]))
        jpegs = fill(store, tables, image_size, num_episodes)
        loader = make_loader(store, tables, image_size, batch_size, num_threads)
        found = measure({"ours": loader.next, "decode": make_decoder(jpegs, batch_size, pool)}, batch_size, num_turns)
        loader.stop()
    ours, decode = found["ours"], found["decode"]
    return {
        "image_size": image_size,
        "jpeg_bytes": round(statistics.mean(len(jpeg) for frame in jpegs for jpeg in frame)),
        "ours": ours,
        "decode": decode,
        "ratio": round(ours["frames_per_s"] / decode["frames_per_s"], 3),
        "ratio_per_cpu_s": round(ours["frames_per_cpu_s"] / decode["frames_per_cpu_s"], 3),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--json", action="store_true", help="print one JSON object as the last line")
    parser.add_argument("--batch-size", type=int, default=64, help="examples per batch, three cameras each")
    parser.add_argument("--num-episodes", type=int, default=20, help="episodes of 60 frames, every third with images")
    parser.add_argument("--num-threads", type=int, default=2, help="threads that decode, on both sides")
    parser.add_argument("--num-turns", type=int, default=7)
    args = parser.parse_args()
    sizes = [compare(size, args.batch_size, args.num_episodes, args.num_threads, args.num_turns) for size in (64, 224)]
    small, large = sizes
    result = {
        "name": "store_to_batches",
        "figure": "frames per second from the store into batches, 224-pixel images, three cameras",
        "ours": large["ours"]["frames_per_s"],  # pyright: ignore[reportIndexIssue]
        "peer": large["decode"]["frames_per_s"],  # pyright: ignore[reportIndexIssue]
        "ratio": large["ratio"],
        "ratio_per_cpu_s": large["ratio_per_cpu_s"],
        "ratio_64_pixels": small["ratio"],
        "peer_name": f"simplejpeg alone, JPEGs in memory, {args.num_threads} threads",
        "units": "frames/s",
        "sizes": sizes,
    }
    print(json.dumps(result) if args.json else json.dumps(result, indent=2))


if __name__ == "__main__":
    main()
