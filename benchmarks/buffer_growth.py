"""What a replay buffer costs as it grows: `python -m benchmarks.buffer_growth --json`.

Items are segments of 16 frames, as intake inserts them. From size to size a table is filled further, and then sampled in
calls of 256 items. What it is held against: sampling takes the same time at every size (ratio 1; the 10th percentile of the
calls, which other work on the machine disturbs least), and memory grows by a fixed amount per item. Both kinds of tables:
those in this process, and a real server. `--max-frames 10000000` takes 7 GB for the server and 2 GB in this process.
"""

import argparse
import gc
import json
import statistics
import time
from collections.abc import Callable, Iterator

import numpy as np
import psutil

from benchmarks.replay_client import make_segment
from sop_jax.replay.local_tables import LocalTables
from sop_jax.replay.reverb_tables import ReverbTables
from sop_jax.replay.server import ReverbServer
from sop_jax.replay.tables import TableConfig
from sop_jax.specs.interfaces import Item, ReplayTables

FRAMES_PER_ITEM = 16
BATCH = 256
CALLS = 60
TABLE = "restock_shelf/online"
NUM_TEMPLATES = 512


def make_items(templates: list[Item], first: int, num: int) -> Iterator[list[Item]]:
    """Items number `first` and on, in lists of a call's size: columns of a few hundred segments, each under its own key."""
    for start in range(first, first + num, BATCH):
        numbers = range(start, min(start + BATCH, first + num))
        yield [Item(number + 1, templates[number % len(templates)].columns) for number in numbers]


def measure(tables: ReplayTables, sizes: list[int], memory_bytes: Callable[[], int]) -> list[dict[str, float]]:
    """One point per size (in frames): time of a call, and memory since the empty table."""
    templates = [make_segment(number) for number in range(NUM_TEMPLATES)]
    own_bytes = statistics.mean(sum(column.nbytes for column in item.columns.values()) for item in templates)
    empty, num_items, points = memory_bytes(), 0, []
    for num_frames in sizes:
        target = num_frames // FRAMES_PER_ITEM
        started = time.perf_counter()
        for items in make_items(templates, num_items, target - num_items):
            tables.insert(TABLE, items, timeout_s=600.0)
        insert_s, added, num_items = time.perf_counter() - started, target - num_items, target
        times = []
        for _ in range(CALLS):
            before = time.perf_counter()
            found = tables.sample(TABLE, BATCH, timeout_s=60.0)
            times.append(time.perf_counter() - before)
            assert len(found) == BATCH
        gc.collect()
        used = memory_bytes() - empty
        points.append(
            {
                "frames": num_frames,
                "items": num_items,
                "sample_us_per_item": round(1e6 * statistics.median(times) / BATCH, 2),
                "sample_us_per_item_p10": round(1e6 * float(np.quantile(times, 0.1)) / BATCH, 2),
                "inserted_items_per_s": round(added / insert_s),
                "memory_mb": round(used / 1e6, 1),
                "memory_bytes_per_item": round(used / num_items),
                "of_which_columns": round(own_bytes),
            }
        )
    return points


def run(max_frames: int, with_server: bool) -> dict[str, object]:
    sizes = [size for size in (10_000, 100_000, 1_000_000, 10_000_000) if size <= max_frames]
    config = TableConfig(TABLE, max_size=max(sizes))
    process, points = psutil.Process(), {}
    if with_server:
        with ReverbServer([config]) as server:
            (child,) = process.children()
            tables = ReverbTables(server.address)
            points["reverb"] = measure(tables, sizes, lambda: child.memory_info().rss)
            tables.close()
    points["in_process"] = measure(LocalTables([config]), sizes, lambda: process.memory_info().rss)
    flat = {
        kind: round(found[-1]["sample_us_per_item_p10"] / found[0]["sample_us_per_item_p10"], 2)
        for kind, found in points.items()
    }
    main = "reverb" if with_server else "in_process"
    return {
        "name": "buffer_growth",
        "figure": f"sampling time of one item, {sizes[-1]} frames against {sizes[0]} (10th percentile of the calls)",
        "ours": points[main][-1]["sample_us_per_item_p10"],
        "peer": points[main][0]["sample_us_per_item_p10"],
        "ratio": flat[main],
        "peer_name": f"the same table with {sizes[0]} frames",
        "units": "us",
        "ratios": flat,
        "points": points,
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--json", action="store_true", help="print one JSON object as the last line")
    parser.add_argument("--max-frames", type=int, default=1_000_000, help="the largest size, in frames")
    parser.add_argument("--no-server", action="store_true", help="only the tables in this process")
    args = parser.parse_args()
    result = run(args.max_frames, not args.no_server)
    print(json.dumps(result) if args.json else json.dumps(result, indent=2))


if __name__ == "__main__":
    main()
