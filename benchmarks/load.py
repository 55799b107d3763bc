"""Does the data plane keep up with hundreds of robots, for long? Replayed robots at their real rate, store, intake, Reverb.

    python -m benchmarks.load --json --robots 256 512 --minutes 10 [--plot load]

Per fleet size: a process with the robots (`fleet_sim/crowd.py`; made-up episodes of 30 s, three 64-pixel cameras at 10 Hz,
10 s of rest) uploads into a store on this machine's disk; this process is the intake; a real Reverb server holds the tables;
a thread draws 64 items four times a second, as a learner would. ours = episodes that were in the tables within 10 s of their
end; peer = episodes that the crowd stored; ratio = ours / peer. What is lost or doubled is told by the table in the end, not
by intake: lost if it holds fewer items than the stored episodes have, doubled if it took in more. Server memory: growth of
its process per million frames in the table. 512 robots write about 11 GB in ten minutes; the folder is removed at the end.
"""

import argparse
import dataclasses
import json
import pathlib
import tempfile
import threading
import time
from collections.abc import Sequence
from typing import Any

import numpy as np
import psutil
from matplotlib.axes import Axes

from fleet_sim.crowd import CrowdReport, CrowdSettings
from fleet_sim.wall_processes import READY, FleetProcess, WallOrder
from sop_jax.episodes.store import EpisodeStore
from sop_jax.episodes.synthetic import make_episode
from sop_jax.evaluation.figures import BLUE, ORANGE, draw_svg
from sop_jax.replay.intake import Intake
from sop_jax.replay.items import DEFAULT_SEGMENT_LENGTH, label_all
from sop_jax.replay.reverb_tables import ReverbTables
from sop_jax.replay.server import ReverbServer
from sop_jax.replay.tables import MixConfig, mix_tables
from sop_jax.specs.clock import WallClock
from sop_jax.specs.errors import RateLimitedError

TASK = "restock_shelf"
EPISODE_S, RESET_S, NUM_RECORDINGS = 30.0, 10.0, 4
FRAMES_KEPT = round(EPISODE_S * 10)
ITEMS_PER_EPISODE = -(-FRAMES_KEPT // DEFAULT_SEGMENT_LENGTH)
LOOK_S, DRAW_S, DRAWN_ITEMS = 0.5, 0.25, 64
SOON_S = 10.0
SETTLE_S = 300.0
COLOURS = (BLUE, ORANGE, "#3f7d46", "#777777")


class EpisodeTimes:
    """Metrics of the intake: when each episode became sampleable, and how long after its end."""

    def __init__(self) -> None:
        self.delays_s: list[tuple[float, float]] = []
        self.set_aside: list[str] = []

    def write(self, event: str, **values: Any) -> None:
        if event == "episode":
            self.delays_s.append((time.monotonic(), values["intake_delay_s"]))
        elif event == "quarantine":
            self.set_aside.append(f"{values['path']}: {values['reason']}")


@dataclasses.dataclass
class Draws:
    """What the sampling thread did."""

    calls_ms: list[float] = dataclasses.field(default_factory=list)
    num_items: int = 0


def draw(address: str, stop: threading.Event, draws: Draws) -> None:
    tables = ReverbTables(address)
    while not stop.wait(DRAW_S):
        began_s = time.perf_counter()
        try:
            draws.num_items += len(tables.sample(f"{TASK}/online", DRAWN_ITEMS, timeout_s=1.0))
        except RateLimitedError:  # nothing there yet
            continue
        draws.calls_ms.append(1e3 * (time.perf_counter() - began_s))
    tables.close()


def measure(num_robots: int, duration_s: float, folder: pathlib.Path) -> dict[str, Any]:
    """One fleet size, from its first episode until everything stored is in the tables."""
    clock, times, draws, stop = WallClock(), EpisodeTimes(), Draws(), threading.Event()
    recordings, store_url = folder / "recordings", f"file://{(folder / 'store').absolute()}/"
    for seed in range(NUM_RECORDINGS):
        EpisodeStore(f"file://{recordings.absolute()}/").put(make_episode(seed, round(30 * EPISODE_S), task=TASK))
    period_s = EPISODE_S + RESET_S
    mix = MixConfig(online_max_size=10_000_000, online_samples_per_insert=1e6)
    with ReverbServer(mix_tables([TASK], mix)) as server:
        (server_process,) = psutil.Process().children()
        empty_bytes, tables = server_process.memory_info().rss, ReverbTables(server.address)
        intake = Intake(EpisodeStore(store_url, clock=clock), tables, label_all, clock=clock, metrics=times)
        settings = CrowdSettings(
            recordings=f"file://{recordings.absolute()}/",
            store=store_url,
            task=TASK,
            robot_ids=tuple(f"robot-{number:03d}" for number in range(num_robots)),
            first_s=tuple(period_s * number / num_robots for number in range(num_robots)),
            start_ns=0,  # with the order
            duration_s=0.0,
            reset_s=RESET_S,
        )
        started_s, cpu_s = time.monotonic(), time.process_time()
        threading.Thread(target=draw, args=(server.address, stop, draws), daemon=True).start()
        memory: list[dict[str, float]] = []
        with FleetProcess("crowd", "crowd", settings, folder) as crowd:
            _wait_for(crowd)
            crowd.tell_order(WallOrder(clock.now_ns() + round(1e9), duration_s))
            while (said := crowd.poll()) is None:
                intake.poll()
                time.sleep(LOOK_S)
                memory.append(_memory(server_process, started_s, empty_bytes, len(times.delays_s)))
            report = CrowdReport(**said)
        settled_s = time.monotonic() + SETTLE_S
        expected = report.num_episodes * ITEMS_PER_EPISODE
        while tables.info()[f"{TASK}/online"].size < expected and time.monotonic() < settled_s:
            intake.poll()
        intake_cpu_s, wall_s = time.process_time() - cpu_s, time.monotonic() - started_s
        memory.append(_memory(server_process, started_s, empty_bytes, len(times.delays_s)))
        stop.set()
        info = tables.info()[f"{TASK}/online"]
        server_cpu = server_process.cpu_times()
        tables.close()
    delays_s = np.array([delay_s for _, delay_s in times.delays_s])
    return {
        "robots": num_robots,
        "minutes": round(wall_s / 60, 2),
        "episodes_stored": report.num_episodes,
        "episodes_in_tables": info.size // ITEMS_PER_EPISODE,
        "episodes_told_by_intake": len(delays_s),
        "lost": count_lost(info.size, report.num_episodes),
        "set_aside": len(times.set_aside),
        "items": info.size,
        "items_doubled": info.num_inserted - expected,
        "frames": info.size * FRAMES_KEPT // ITEMS_PER_EPISODE,
        "sampleable_p50_s": round(float(np.quantile(delays_s, 0.5)), 2),
        "sampleable_p99_s": round(float(np.quantile(delays_s, 0.99)), 2),
        "sampleable_max_s": round(float(delays_s.max()), 2),
        "within_10_s": int((delays_s <= SOON_S).sum()),
        "draw_of_64_p50_ms": round(float(np.quantile(draws.calls_ms, 0.5)), 1),
        "draw_of_64_p99_ms": round(float(np.quantile(draws.calls_ms, 0.99)), 1),
        "items_drawn": draws.num_items,
        "server_mb_per_million_frames": round(memory[-1]["mb"] / memory[-1]["frames"] * 1e6),
        "crowd_late_mean_s": round(report.mean_late_s, 3),
        "crowd_late_max_s": round(report.max_late_s, 2),
        "cores": {
            "crowd": round(report.cpu_s / wall_s, 3),
            "intake_and_draws": round(intake_cpu_s / wall_s, 3),
            "server": round((server_cpu.user + server_cpu.system) / wall_s, 3),
        },
        "delays_s": [(round(at_s - started_s, 1), round(delay_s, 2)) for at_s, delay_s in times.delays_s],
        "memory": memory,
    }


def count_lost(num_items: int, num_stored: int) -> int:
    """How many episodes are not whole in the table, at least: all have the same number of items, and none is there twice."""
    return max(0, num_stored - num_items // ITEMS_PER_EPISODE)


def _wait_for(crowd: FleetProcess) -> None:
    while (said := crowd.poll()) is None:
        time.sleep(0.05)
    assert said == READY, said


def _memory(process: psutil.Process, started_s: float, empty_bytes: int, num_episodes: int) -> dict[str, float]:
    grown_mb = (process.memory_info().rss - empty_bytes) / 1e6
    return {"s": round(time.monotonic() - started_s, 1), "frames": num_episodes * FRAMES_KEPT, "mb": round(grown_mb, 1)}


def plot_latency(found: Sequence[dict[str, Any]]) -> str:
    """Latency of each minute's episodes over time, as SVG."""

    def draw_curves(axes: Axes) -> None:
        for one, colour in zip(found, COLOURS, strict=False):
            at_s, delay_s = np.array(one["delays_s"]).T
            minutes = np.floor(at_s / 60)
            for quantile, style, label in ((0.5, "-", "median"), (0.99, ":", "99%")):
                values = [np.quantile(delay_s[minutes == minute], quantile) for minute in np.unique(minutes)]
                axes.plot(
                    np.unique(minutes) + 0.5, values, style, color=colour, label=f"{one['robots']} robots, {label}"
                )
        axes.set(xlabel="minutes", ylabel="latency, s", ylim=(0, None))
        _finish(axes)

    return draw_svg("load_latency", draw_curves)


def plot_memory(found: Sequence[dict[str, Any]]) -> str:
    """The server's memory over what it holds, as SVG."""

    def draw_curves(axes: Axes) -> None:
        for one, colour in zip(found, COLOURS, strict=False):
            frames, mb = np.array([(point["frames"], point["mb"]) for point in one["memory"]]).T
            axes.plot(frames / 1e6, mb, color=colour, label=f"{one['robots']} robots")
        axes.set(xlabel="million frames in the table", ylabel="server's memory, MB", xlim=(0, None), ylim=(0, None))
        _finish(axes)

    return draw_svg("load_memory", draw_curves)


def _finish(axes: Axes) -> None:
    axes.legend(loc="lower right", ncols=2)
    axes.figure.patch.set(alpha=1.0, facecolor="white")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--json", action="store_true", help="print one JSON object as the last line (always done)")
    parser.add_argument("--robots", type=int, nargs="+", default=[256, 512], help="fleet sizes")
    parser.add_argument("--minutes", type=float, default=10.0, help="how long each works, more than 1")
    parser.add_argument("--plot", default="", help="write the curves to PLOT_latency.svg and PLOT_memory.svg")
    options = parser.parse_args()
    found = []
    for num_robots in options.robots:
        with tempfile.TemporaryDirectory() as folder:
            found.append(measure(num_robots, 60 * options.minutes, pathlib.Path(folder)))
    if options.plot:
        for name, text in (("latency", plot_latency(found)), ("memory", plot_memory(found))):
            pathlib.Path(f"{options.plot}_{name}.svg").write_text(text, encoding="utf-8")
    points = [{name: value for name, value in one.items() if name not in ("delays_s", "memory")} for one in found]
    stored, soon = (sum(point[name] for point in points) for name in ("episodes_stored", "within_10_s"))
    result = {
        "name": "load",
        "ours": soon,
        "peer": stored,
        "ratio": round(soon / stored, 4),
        "units": "episodes in the tables within 10 s of their end; peer: all that were stored",
        "points": points,
    }
    print(json.dumps(result))


if __name__ == "__main__":
    main()
