"""How many replayed robots does one core carry on wall time, and what does one more cost?

    python -m benchmarks.replayed_actors --json --robots 300

A crowd (`fleet_sim/crowd.py`) of robots that live made-up episodes of 10 s again (three 64-pixel cameras at 10 Hz), rest for
5 s, and upload into a store on this machine's disk; no learner, no replay server. ours = robots that one core carries: an
episode and its rest over the crowd's processor time per episode, which other work on the machine disturbs least; peer = 1, a
robot that takes a core for itself; ratio = ours / peer. `mean_late_s` and `max_late_s` say whether this machine kept up now.
"""

import argparse
import json
import pathlib
import sys
import tempfile
import time

from fleet_sim.crowd import Crowd, CrowdSettings
from fleet_sim.replayed import Recordings
from sop_jax.episodes.synthetic import make_episode
from sop_jax.specs.clock import WallClock

EPISODE_S, RESET_S, NUM_RECORDINGS = 10.0, 5.0, 4


def measure(num_robots: int, duration_s: float, store: pathlib.Path) -> dict[str, float]:
    """Runs a crowd for longer than an episode; robots begin one after another within an episode and its rest."""
    recordings = Recordings([make_episode(seed, round(30 * EPISODE_S)) for seed in range(NUM_RECORDINGS)])
    clock = WallClock()
    settings = CrowdSettings(
        recordings="",
        store=f"file://{store.absolute()}/",
        task="restock_shelf",
        robot_ids=tuple(f"robot-{number}" for number in range(num_robots)),
        first_s=tuple((EPISODE_S + RESET_S) * number / num_robots for number in range(num_robots)),
        start_ns=clock.now_ns(),
        duration_s=duration_s,
        reset_s=RESET_S,
    )
    began_s = time.process_time()
    report = Crowd(settings, recordings, clock).run()
    cpu_s = time.process_time() - began_s
    return {
        "episodes": report.num_episodes,
        "cpu_ms_per_episode": 1e3 * cpu_s / max(1, report.num_episodes),
        "robots_per_core": (EPISODE_S + RESET_S) * report.num_episodes / cpu_s,
        "mean_late_s": report.mean_late_s,
        "max_late_s": report.max_late_s,
    }


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--json", action="store_true", help="print one JSON object as the last line (always done)")
    parser.add_argument("--robots", type=int, default=100, help="how many")
    parser.add_argument("--seconds", type=float, default=20.0, help="of wall time, more than 10")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        found = measure(options.robots, options.seconds, pathlib.Path(folder))
    print(
        json.dumps(
            {
                "name": "replayed_actors",
                "ours": round(found["robots_per_core"], 1),
                "peer": 1.0,
                "ratio": round(found["robots_per_core"], 1),
                "units": "replayed robots per core, by processor time; peer: a robot that takes a core",
                "robots": options.robots,
                "seconds": options.seconds,
                **{name: round(value, 3) for name, value in found.items()},
            }
        )
    )
    return 0


if __name__ == "__main__":
    sys.exit(main())
