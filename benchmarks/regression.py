"""Runs every fast benchmark, one process each, and prints their JSON objects together.

A benchmark that breaks fails the run; its figures never do, because machines are noisy: compare ratios between runs.
"""

import argparse
import json
import subprocess
import sys
import time

BENCHMARKS: dict[str, tuple[str, ...]] = {
    "environment_speed": ("--calls", "60", "--rounds", "2", "--tasks", "restock_shelf", "box_assembly", "laundry_fold"),
    "episode_store": (),
    "replay_client": ("--rounds", "2"),
    "sampler_loader": (),
    "policy_inference": ("--repeats", "2"),
    "learner_step": ("--rounds", "2", "--steps", "20"),
    "publish_to_swap": (),
    "actor_rate": (),
}
"""With the options that make them fast here; alone they take their time."""


def run_one(name: str, timeout_s: float) -> dict:
    """The benchmark's last line, parsed. Raises RuntimeError with the end of its output if it failed."""
    command = [sys.executable, "-m", f"benchmarks.{name}", "--json", *BENCHMARKS[name]]
    result = subprocess.run(command, capture_output=True, text=True, timeout=timeout_s, check=False)
    if result.returncode != 0:
        raise RuntimeError(
            f"benchmark {name} failed (exit {result.returncode}):\n{(result.stdout + result.stderr)[-2000:]}"
        )
    return json.loads(result.stdout.strip().splitlines()[-1])


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("names", nargs="*", help=f"which benchmarks (default: all of {', '.join(BENCHMARKS)})")
    parser.add_argument("--json", action="store_true", help="print one JSON object as the last line")
    parser.add_argument("--timeout-s", type=float, default=180.0, help="limit for one benchmark, seconds")
    arguments = parser.parse_args()
    results = {}
    for name in arguments.names or BENCHMARKS:
        start_s = time.monotonic()
        results[name] = run_one(name, arguments.timeout_s)
        print(f"{name}: {json.dumps(results[name])} ({time.monotonic() - start_s:.0f} s)", flush=True)
    if arguments.json:
        print(json.dumps(results))
    return 0


if __name__ == "__main__":
    sys.exit(main())
