"""`sop doctor --live`: asks the stations for their metrics, twice, and says in words what holds the loop back."""

import pathlib
from collections.abc import Sequence

from sop_jax.cli.arguments import UsageError
from sop_jax.cli.output import note, print_json, say
from sop_jax.cli.station_metrics import find_addresses
from sop_jax.monitoring.diagnosis import Weight, bottleneck, diagnose
from sop_jax.monitoring.scrape import Window, read_stations
from sop_jax.monitoring.vitals import vitals
from sop_jax.specs.clock import Clock

_WORDS = {Weight.STOPPED: "STOPPED", Weight.SLOW: "slow", Weight.NOTE: "note"}


def run_live(stations: Sequence[str], run: pathlib.Path | None, watch_s: float, as_json: bool, clock: Clock) -> int:
    """Watches for `watch_s`; returns 1 if something holds the loop back, else 0. Raises UsageError."""
    named = list(stations) + ([] if run is None else find_addresses(run))
    addresses = list(dict.fromkeys(named))
    if not addresses:
        raise UsageError(
            "no station is known: give --stations HOST:PORT ..., or --run with the folder of a run that is going on (each "
            "process started with --metrics and --metrics-port leaves its address there)"
        )
    note(f"asking {', '.join(addresses)}, and again in {watch_s:g} s")
    before = read_stations(addresses, clock.now_ns() / 1e9)
    clock.sleep_s(watch_s)
    window = Window.between(before, read_stations(addresses, clock.now_ns() / 1e9))
    verdicts, figures = diagnose(window), vitals(window)
    say("  ".join(f"{name} {value:.4g}" for name, value in figures.items()) or "nothing was measured yet")
    for verdict in verdicts:
        say(f"{_WORDS[verdict.weight]:<8}{verdict.says}\n{'':<8}{verdict.advice}")
    worst = bottleneck(verdicts)
    say(f"Bottleneck: {worst.says}" if worst else "No station holds the others back.")
    if as_json:
        print_json(
            {
                "ok": worst is None,
                "bottleneck": worst.code if worst else None,
                "verdicts": [
                    {
                        "code": found.code,
                        "weight": found.weight.name.lower(),
                        "says": found.says,
                        "advice": found.advice,
                    }
                    for found in verdicts
                ],
                "vitals": figures,
            }
        )
    return 0 if worst is None else 1
