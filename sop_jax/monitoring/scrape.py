"""Reads what stations serve: two looks at them, a while apart, are a window."""

import dataclasses
import http.client
import urllib.request
from collections.abc import Iterator, Mapping, Set

from prometheus_client.parser import text_string_to_metric_families

_MAX_BYTES = 16 << 20


@dataclasses.dataclass(frozen=True)
class Sample:
    """One number of one station. `name` without the prefix "sop_"; counters end in "_total". address: where it was read."""

    name: str
    station: str
    labels: Mapping[str, str]
    value: float
    address: str = ""

    @property
    def key(self) -> tuple[str, str, tuple[tuple[str, str], ...]]:
        return self.name, self.station, tuple(sorted(self.labels.items()))


@dataclasses.dataclass(frozen=True)
class Reading:
    """All stations at one moment. `silent`: address -> why nothing was read there. `mute`: addresses that answered, and had
    nothing to tell yet."""

    time_s: float
    samples: tuple[Sample, ...]
    silent: Mapping[str, str] = dataclasses.field(default_factory=dict)
    mute: tuple[str, ...] = ()


@dataclasses.dataclass(frozen=True)
class Window:
    """Two readings of the same stations."""

    before: Reading
    after: Reading

    @staticmethod
    def between(before: Reading, after: Reading) -> "Window":
        """Stations of one name (two intakes, say) are told apart by their addresses."""
        places: dict[str, set[str]] = {}
        for sample in (*before.samples, *after.samples):
            places.setdefault(sample.station, set()).add(sample.address)
        namesakes = {station for station, addresses in places.items() if len(addresses) > 1}
        return Window(_tell_apart(before, namesakes), _tell_apart(after, namesakes))

    @property
    def duration_s(self) -> float:
        return self.after.time_s - self.before.time_s

    def samples(self, name: str) -> Iterator[Sample]:
        """Every station's newest value of this name."""
        return (sample for sample in self.after.samples if sample.name == name)

    def value(self, name: str, station: str, **labels: str) -> float | None:
        """One station's newest value."""
        for sample in self.samples(name):
            if sample.station == station and all(sample.labels.get(key) == text for key, text in labels.items()):
                return sample.value
        return None

    def last_s(self, event: str, station: str) -> float | None:
        """When a station last wrote such an event, by its own clock, seconds since the Unix epoch; None if it never did."""
        return self.value("last_event_timestamp_seconds", station, event=event)

    def wrote(self, *events: str) -> list[str]:
        """Stations that have written one of these events, or several."""
        told = self.samples("last_event_timestamp_seconds")
        return list(dict.fromkeys(sample.station for sample in told if sample.labels.get("event") in events))

    def growth(self, name: str) -> list[Sample]:
        """How far every counter of this name rose in between; one that fell began anew."""
        before = {sample.key: sample.value for sample in self.before.samples if sample.name == name}
        rises = []
        for sample in self.samples(name):
            old = before.get(sample.key, 0.0)
            rise = sample.value - old if sample.value >= old else sample.value
            rises.append(dataclasses.replace(sample, value=rise))
        return rises

    def mean(self, name: str) -> float | None:
        """Mean of a histogram over all stations: in between, or since they began if nothing was added."""
        for samples in (self.growth, self.samples):
            total = sum(sample.value for sample in samples(f"{name}_sum"))
            count = sum(sample.value for sample in samples(f"{name}_count"))
            if count:
                return total / count
        return None


def read_stations(addresses: list[str], time_s: float, timeout_s: float = 5.0) -> Reading:
    """Asks every address, HOST:PORT, for its metrics, by no proxy; whoever doesn't answer is named in `silent`."""
    samples: list[Sample] = []
    silent, mute = {}, []
    # Stations stand in our own network: a proxy of $http_proxy doesn't reach them, and its refusal would look like silence.
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    for address in addresses:
        try:
            with opener.open(f"http://{address}/metrics", timeout=timeout_s) as answer:
                text = answer.read(_MAX_BYTES).decode()
            told = parse(text)
        except (OSError, ValueError, http.client.HTTPException) as error:  # away, or it talks nonsense
            silent[address] = str(error)
            continue
        samples.extend(dataclasses.replace(sample, address=address) for sample in told)
        if not told:
            mute.append(address)
    return Reading(time_s, tuple(samples), silent, tuple(mute))


def _tell_apart(reading: Reading, namesakes: Set[str]) -> Reading:
    named = (
        dataclasses.replace(sample, station=f"{sample.station} at {sample.address}")
        if sample.station in namesakes
        else sample
        for sample in reading.samples
    )
    return dataclasses.replace(reading, samples=tuple(named))


def parse(text: str) -> list[Sample]:
    """The samples of this project in a station's answer. Raises ValueError if it isn't Prometheus' text format."""
    found = []
    for family in text_string_to_metric_families(text):
        for sample in family.samples:
            if sample.name.startswith("sop_") and not sample.name.endswith(("_bucket", "_created")):
                labels = dict(sample.labels)
                name, station = sample.name.removeprefix("sop_"), labels.pop("station", "")
                found.append(Sample(name, station, labels, sample.value))
    return found
