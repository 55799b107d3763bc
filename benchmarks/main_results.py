"""Does the system still learn what it learnt? The main-results study at its smallest, against stored ranges.

    python -m benchmarks.main_results --json

Runs `sop study main-results --preset ci` (a few minutes on two cores) and compares every method's success with the range in
`benchmarks/expected/main_results_ci.json`; out of range fails. ours = SOP + HG-DAgger, peer = HG-DAgger in rounds, at equal
robot-hours, learner steps and human minutes; success rates; ratio = ours / peer.
"""

import argparse
import json
import pathlib
import subprocess
import sys
import tempfile
from typing import Any

EXPECTED = pathlib.Path(__file__).parent / "expected" / "main_results_ci.json"


def run_study(folder: pathlib.Path) -> dict[str, Any]:
    """The study's numbers. Raises RuntimeError if it failed."""
    command = [sys.executable, "-m", "sop_jax.cli.main", "study", "main-results", "--preset", "ci", "--json"]
    done = subprocess.run([*command, "--folder", str(folder)], capture_output=True, text=True, check=False)
    if done.returncode:
        raise RuntimeError(f"the study failed (exit {done.returncode}):\n{done.stderr[-2000:]}")
    return json.loads(done.stdout.strip().splitlines()[-1])


def out_of_range(found: dict[str, float], expected: dict[str, Any]) -> list[str]:
    """What differs from the stored ranges, in words."""
    wrong = [
        f"{name}: expected {low:.0%} to {high:.0%}, got {found[name]:.0%}"
        for name, (low, high) in expected["success"].items()
        if not low <= found[name] <= high
    ]
    rise = found["sop_hg_dagger"] - found["pretrained"]
    if rise < expected["least_rise"]:
        wrong.append(f"SOP + HG-DAgger rose by {rise:+.0%}, expected at least {expected['least_rise']:+.0%}")
    return wrong


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--json", action="store_true", help="print one JSON object as the last line (always done)")
    parser.add_argument("--folder", help="where the study goes, or goes on (default: a temporary folder)")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as temporary:
        numbers = run_study(pathlib.Path(options.folder or temporary))
    found = {method["name"]: method["mean_success"] for method in numbers["methods"]}
    wrong = out_of_range(found, json.loads(EXPECTED.read_text(encoding="utf-8")))
    print(
        json.dumps(
            {
                "name": "main_results",
                "ours": found["sop_hg_dagger"],
                "peer": found["offline_hg_dagger"],
                "ratio": round(found["sop_hg_dagger"] / max(found["offline_hg_dagger"], 1e-9), 3),
                "units": "success rate; ours SOP + HG-DAgger, peer HG-DAgger in rounds at equal budgets",
                "success": found,
                "elapsed_s": round(numbers["elapsed_s"], 1),
                "out_of_range": wrong,
            }
        )
    )
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
