"""Does a fleet still scale, and do its weights still age, as they did? Two sweeps at their smallest, against stored ranges.

    python -m benchmarks.sweeps --json

Runs the presets `ci` of the scaling study (1 to 1000 robots) and of the staleness study (publications every 5 s to every
hour), without learning: seconds on one core, and the same figures on every machine. Compares them with the ranges in
`benchmarks/expected/sweeps_ci.json`; out of range fails. ours = the speed-up of a thousand robots whose site grew with
them, peer = the ideal; ratio = ours / peer.
"""

import argparse
import json
import math
import pathlib
import sys
import tempfile
import time
from collections.abc import Mapping
from typing import Any

from configs.sweeps import SWEEPS
from fleet_sim.studies.grid import Grid
from fleet_sim.studies.main_results import MainResults
from fleet_sim.studies.methods import MainResultsConfig
from fleet_sim.studies.sweep_analysis import SweepAnalysis, analyse_sweep
from fleet_sim.studies.sweeps import Sweep, make_sweep_cells

EXPECTED = pathlib.Path(__file__).parent / "expected" / "sweeps_ci.json"
FIGURES = {
    "scaling": ("speed_up", "weights_age_s", "moving_share", "learner_share"),
    "staleness": ("weights_age_s", "versions_behind", "fan_out_s"),
}
"""Study -> the figures that are compared."""


def run_sweep(kind: str, folder: pathlib.Path) -> SweepAnalysis:
    """The study's rows."""
    config = SWEEPS[kind]["ci"].study
    grid = Grid(folder, {"study": kind}, make_sweep_cells(config))
    return analyse_sweep(config, grid.run(Sweep(config, _nothing_learns).run_cell))


def figures_of(kind: str, analysis: SweepAnalysis) -> dict[str, float]:
    """`series/x/figure` -> mean; what never happened is left out."""
    return {
        f"{kind}/{row.series}/{row.x:g}/{figure}": value
        for row in analysis.rows
        for figure in FIGURES[kind]
        if not math.isnan(value := getattr(row, figure).mean)
    }


def out_of_range(found: Mapping[str, float], expected: Mapping[str, Any]) -> list[str]:
    """What differs from the stored ranges, in words."""
    missing = [f"{name}: expected {bounds}, got nothing" for name, bounds in expected.items() if name not in found]
    return missing + [
        f"{name}: expected {low:g} to {high:g}, got {found[name]:g}"
        for name, (low, high) in expected.items()
        if name in found and not low <= found[name] <= high
    ]


def _nothing_learns(study: MainResultsConfig) -> MainResults:
    raise ValueError(f"the ci presets have no learning points, got {study.name}")


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--json", action="store_true", help="print one JSON object as the last line (always done)")
    parser.add_argument("--remake", action="store_true", help="write the ranges anew: what is found now, within 5%")
    options = parser.parse_args()
    started, found = time.process_time(), {}
    with tempfile.TemporaryDirectory() as folder:
        for kind in FIGURES:
            found |= figures_of(kind, run_sweep(kind, pathlib.Path(folder, kind)))
    if options.remake:
        ranges = {name: [round(0.95 * value, 6), round(1.05 * value, 6)] for name, value in found.items()}
        EXPECTED.write_text(json.dumps(ranges, indent=1) + "\n", encoding="utf-8")
    wrong = out_of_range(found, json.loads(EXPECTED.read_text(encoding="utf-8")))
    ours = found["scaling/grown with the fleet/1000/speed_up"]
    print(
        json.dumps(
            {
                "name": "sweeps",
                "ours": round(ours, 1),
                "peer": 1000,
                "ratio": round(ours / 1000, 4),
                "units": "times the episodes of one robot; ours 1000 robots whose site grew with them, peer the ideal",
                "num_figures": len(found),
                "cpu_s": round(time.process_time() - started, 1),
                "out_of_range": wrong,
            }
        )
    )
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
