"""Where a station's metrics go: to a file of JSON lines, to an HTTP port for Prometheus, to both, or nowhere."""

import contextlib
import importlib
import pathlib
from typing import Any

from sop_jax.cli.arguments import UsageError
from sop_jax.cli.output import note
from sop_jax.specs.errors import MissingDependencyError
from sop_jax.specs.interfaces import Metrics
from sop_jax.specs.metrics import BothMetrics, JsonlMetrics, NoMetrics

ADDRESS_SUFFIX = ".address"
"""`<station>.address` in the folder of the metrics says where a station serves them, for `sop doctor --live`."""


def open_metrics(
    stack: contextlib.ExitStack, station: str, directory: pathlib.Path | None, port: int | None, host: str
) -> Metrics:
    """A station's metrics, until `stack` closes. `port` None serves nothing, 0 takes a free port.

    Raises UsageError, MissingDependencyError.
    """
    places: list[Metrics] = []
    if directory is not None:
        path = directory / f"{station}.jsonl"
        places.append(stack.enter_context(contextlib.closing(JsonlMetrics(path, station))))
    if port is not None:
        served = _import_prometheus().PrometheusMetrics(station)
        try:
            address = stack.enter_context(served.serve(port, host))
        except OSError as error:
            raise UsageError(
                f"can't serve metrics at {host}:{port}: {error}; choose another --metrics-port, or 0"
            ) from error
        places.append(served)
        note(f"{station} serves its metrics at http://{address}/metrics")
        if directory is not None:
            _leave_address(stack, directory / f"{station}{ADDRESS_SUFFIX}", address)
    return BothMetrics(*places) if places else NoMetrics()


def _import_prometheus() -> Any:
    """The module, imported when somebody wants a port: a robot's computer doesn't have what it needs unless asked."""
    try:
        return importlib.import_module("sop_jax.monitoring.prometheus")
    except ImportError as error:
        raise MissingDependencyError(
            f"--metrics-port needs a package that a robot's computer doesn't get by itself: uv pip install prometheus-client "
            f"({error}); --metrics DIR needs nothing"
        ) from error


def find_addresses(run: pathlib.Path) -> list[str]:
    """Where the stations of a run serve their metrics, as they left it in the run's folder."""
    return [path.read_text(encoding="utf-8").strip() for path in sorted(run.glob(f"**/*{ADDRESS_SUFFIX}"))]


def _leave_address(stack: contextlib.ExitStack, path: pathlib.Path, address: str) -> None:
    path.write_text(address + "\n", encoding="utf-8")
    stack.callback(path.unlink, missing_ok=True)
