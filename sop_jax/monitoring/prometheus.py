"""Metrics as Prometheus series, served over HTTP."""

import collections
import contextlib
import threading
from collections.abc import Iterator, Mapping
from typing import Any, final

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest, start_http_server

from sop_jax.monitoring.series import ALL, CORRECTION, PUBLICATION_STEPS, Kind, Series
from sop_jax.specs.clock import Clock, WallClock, age_s
from sop_jax.specs.metrics import LOOPBACK

_BUCKETS_S = (0.01, 0.03, 0.1, 0.3, 1, 3, 10, 30, 100, 300, 1000, 3000)
_MAX_WAITING = 10_000
"""Corrections that no publication holds yet; beyond that the oldest are forgotten."""
_MAX_PUBLICATIONS = 8
"""The last ones, remembered for what is told late: a learner publishes before it tells what the step at hand learnt from."""

Values = Mapping[str, float | int | bool | str]


@final
class PrometheusMetrics:
    """Implements `Metrics`: turns a station's events into series, each labelled with the station's name.

        metrics = PrometheusMetrics("robot-0")
        with metrics.serve(port=9100) as address:   # "127.0.0.1:9100"
            ...                                     # http://127.0.0.1:9100/metrics

    Events and values that no series asks for are counted only. Thread-safe.
    """

    def __init__(self, station: str, clock: Clock | None = None):
        self._station = station
        self._clock = clock or WallClock()
        self._registry = CollectorRegistry()
        self._lock = threading.Lock()
        self._made: dict[str, Any] = {}
        self._totals: dict[tuple[str, ...], float] = {}
        self._corrections: dict[str, tuple[int, int]] = {}
        self._published: collections.deque[tuple[int, int]] = collections.deque(maxlen=_MAX_PUBLICATIONS)
        """(learner_step, created_ns), oldest first."""
        self._by_event: dict[str, list[Series]] = {}
        for series in ALL:
            self._by_event.setdefault(series.event, []).append(series)
        names = {"labelnames": ("station", "event"), "registry": self._registry}
        self._num_events = Counter("sop_events", "Events written.", **names)
        self._last_event = Gauge("sop_last_event_timestamp_seconds", "When the last such event was written.", **names)

    def write(self, event: str, /, **values: float | int | bool | str) -> None:
        now_ns = self._clock.now_ns()
        with self._lock:
            self._num_events.labels(self._station, event).inc()
            self._last_event.labels(self._station, event).set(now_ns / 1e9)
            for series in self._by_event.get(event, ()):
                value = _value_of(series, values)
                if value is not None:
                    self._note(series, value, [str(values.get(label, "")) for label in series.labels])
            if event == "correction_use":
                self._note_correction(values)
            elif event == "publication":
                self._note_publication(values)

    def render(self) -> str:
        """The text that /metrics answers with."""
        return generate_latest(self._registry).decode()

    @contextlib.contextmanager
    def serve(self, port: int = 0, host: str = LOOPBACK) -> Iterator[str]:
        """Serves /metrics while entered; yields the address, HOST:PORT. Port 0 takes a free one.

        Whoever reaches the port may read the numbers: they name robots and tasks, nothing else. Raises OSError if the port is
        taken.
        """
        server, thread = start_http_server(port, host, self._registry)
        try:
            yield f"{host}:{server.server_port}"
        finally:
            server.shutdown()
            server.server_close()
            thread.join()

    def _note(self, series: Series, value: float, labels: list[str]) -> None:
        place = self._metric(series).labels(self._station, *labels)
        if series.kind is Kind.GAUGE:
            place.set(value)
        elif series.kind is Kind.TIMES:
            place.observe(max(0.0, value))
        elif series.kind is Kind.COUNT:
            place.inc(max(0.0, value))
        else:
            key = (series.name, *labels)
            before = self._totals.get(key, 0.0)
            place.inc(value - before if value >= before else value)  # a server that starts again counts from 0
            self._totals[key] = value

    def _metric(self, series: Series) -> Any:
        if series.name not in self._made:
            kind = {Kind.GAUGE: Gauge, Kind.TIMES: Histogram}.get(series.kind, Counter)
            more: dict[str, Any] = {"buckets": _BUCKETS_S} if kind is Histogram else {}
            self._made[series.name] = kind(
                f"sop_{series.name}",
                series.help,
                labelnames=("station", *series.labels),
                registry=self._registry,
                **more,
            )
        return self._made[series.name]

    def _note_correction(self, values: Values) -> None:
        step, ended_ns = int(values["learner_step"]), int(values["ended_ns"])
        for published, created_ns in self._published:
            if step <= published:
                self._note_latency(ended_ns, created_ns)
                return
        self._corrections.setdefault(str(values["episode_id"]), (step, ended_ns))
        if len(self._corrections) > _MAX_WAITING:
            del self._corrections[next(iter(self._corrections))]

    def _note_publication(self, values: Values) -> None:
        published, created_ns = int(values["learner_step"]), int(values["created_ns"])
        for episode_id, (step, ended_ns) in list(self._corrections.items()):
            if step <= published:
                del self._corrections[episode_id]
                self._note_latency(ended_ns, created_ns)
        if self._published and published > (before := self._published[-1][0]):
            self._note(PUBLICATION_STEPS, published - before, [])
        self._published.append((published, created_ns))

    def _note_latency(self, ended_ns: int, created_ns: int) -> None:
        if (latency_s := age_s(ended_ns, created_ns)) is not None:
            self._note(CORRECTION, latency_s, [])


def _value_of(series: Series, values: Values) -> float | None:
    """The series' value in an event, None if the event doesn't say it."""
    if not series.key:
        return 1.0
    value, minus = values.get(series.key), values.get(series.minus, 0) if series.minus else 0
    if isinstance(value, str):
        return float(value != "") if series.kind is Kind.COUNT else None
    if value is None or isinstance(minus, str):
        return None
    return (value - minus) * series.scale
