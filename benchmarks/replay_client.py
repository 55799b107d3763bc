"""Our Reverb client beside the official one, on the same server in the same run: `python -m benchmarks.replay_client --json`.

Three kinds of items: segments as intake writes them (one column, about 1 KB; the official client writes the same number of
bytes in one column), small items of 200 bytes and blobs of 45 KB. Insert: all items acknowledged by the server; ours 256 to
a call, the official client through its trajectory writer, flushed at the end. Sample: uniformly, decoded to numpy arrays;
ours 256 to a call, the official client through `Client.sample`, through `TrajectoryDataset` item by item and in batches of
256 that TensorFlow makes (segments padded), whichever is fastest; connections and graphs are made before the clock starts.
Both clients sample the same table. They take turns; medians of the rounds.

`--writers 1 8 64 256`: so many threads insert at once and share out the items. Ours through one client, which joins what
comes at the same time; the official client's writers through one client too, each with a stream of its own.
`--tls`: our client through nginx with TLS and certificates, beside our client on the loopback, in place of the official one.
"""

import argparse
import concurrent.futures
import json
import pathlib
import statistics
import subprocess
import tempfile
import time
from collections.abc import Sequence
from typing import Self

import numpy as np

from sop_jax.replay.items import encode_segment
from sop_jax.replay.reverb_tables import ReverbTables
from sop_jax.replay.server import ReverbServer, find_reverb_python
from sop_jax.replay.tables import TableConfig
from sop_jax.replay.tls import TlsFiles
from sop_jax.replay.tls_proxy import TlsProxy
from sop_jax.specs.interfaces import Item
from sop_jax.specs.records import Segment, Source

BATCH = 256
NUM_ROUNDS = 5
CA_SCRIPT = pathlib.Path(__file__).parents[1] / "launch" / "tls" / "ca.sh"
NUM_ITEMS = {"segment": 8192, "small": 8192, "blob": 2048}
"""Inserted in each round: some tenths of a second, so that neither client's start and end counts."""
NUM_SAMPLES = 16_384
KINDS = tuple(NUM_ITEMS)
WRITER_KINDS = ("small", "blob")
ROLES = ("intake", "learner")
PEER = "dm-reverb 0.14's own client (TensorFlow), same server"


def make_segment(number: int) -> Item:
    """16 frames of 3 cameras with images of about 12 KB, as intake writes them. FAKE offsets."""
    rng = np.random.default_rng(number)
    lengths = rng.integers(9_000, 15_000, (16, 3))
    offsets = np.cumsum(lengths.ravel()).reshape(16, 3)
    episode_id = f"robot-{number % 8}.{1_700_000_000_000_000_000 + number // 16:020d}.{number % 1000:06d}"
    return encode_segment(
        Segment(
            episode_id=episode_id,
            path=f"episodes/robot-{number % 8}/{episode_id}.zip",
            task="restock_shelf",
            source=Source.ONLINE,
            policy_version=number % 100,
            ended_ns=1_700_000_000_000_000_000 + number,
            frames=np.arange(16, dtype=np.int32) * 3,
            image_ranges=np.stack([offsets, lengths], axis=-1),
            arrays_range=(21_000_000, 90_000),
            intervention=rng.random(16) < 0.1,
            label=np.ones(16, np.float32),
        )
    )


def make_blob(number: int) -> Item:
    """Three columns, 45 KB of noise, which doesn't compress (as JPEGs don't)."""
    rng = np.random.default_rng(number)
    columns = {
        "pixels": rng.integers(0, 256, 45_000, np.uint8),
        "state": rng.random(16, np.float32),
        "frame": np.array(number),
    }
    return Item(number + 1, columns)


def make_small(number: int) -> Item:
    """Three columns, 200 bytes of noise."""
    rng = np.random.default_rng(number)
    columns = {
        "pixels": rng.integers(0, 256, 128, np.uint8),
        "state": rng.random(16, np.float32),
        "frame": np.array(number),
    }
    return Item(number + 1, columns)


MAKE = {"segment": make_segment, "small": make_small, "blob": make_blob}


class OfficialClient:
    """The official client in a process of the server's environment; one request line, one answer line."""

    def __init__(self, address: str):
        script = pathlib.Path(__file__).with_name("replay_client_official.py")
        self._process = subprocess.Popen(
            [str(find_reverb_python()), str(script), address],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            text=True,
        )

    def ask(self, **request: object) -> dict[str, float]:
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.write(json.dumps(request) + "\n")
        self._process.stdin.flush()
        return json.loads(self._process.stdout.readline())

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._process.kill()
        self._process.wait()


def insert_rate(tables: ReverbTables, table: str, items: Sequence[Item], reset: bool = True) -> float:
    if reset:
        tables.reset(table)
    start_s = time.perf_counter()
    for first in range(0, len(items), BATCH):
        tables.insert(table, items[first : first + BATCH])
    return len(items) / (time.perf_counter() - start_s)


def sample_rate(tables: ReverbTables, table: str, num: int) -> float:
    start_s = time.perf_counter()
    got = 0
    while got < num:
        got += len(tables.sample(table, BATCH))
    return got / (time.perf_counter() - start_s)


def make_items() -> dict[str, list[Item]]:
    return {kind: [MAKE[kind](number) for number in range(num)] for kind, num in NUM_ITEMS.items()}


def measure(num_rounds: int) -> dict[str, dict[str, float]]:
    """Items per second: "<kind>_<insert|sample>" -> ours, peer, ratio."""
    items = make_items()
    configs = [TableConfig(f"{kind}_{who}", 100_000) for kind in KINDS for who in ("ours", "official")]
    rates: dict[str, dict[str, list[float]]] = {}
    with ReverbServer(configs) as server, OfficialClient(server.address) as official:
        tables = ReverbTables(server.address)
        ways: dict[str, dict[str, list[float]]] = {}
        for round_ in range(num_rounds + 1):  # the first warms up: connections, TensorFlow's graphs
            for kind in KINDS:
                num = NUM_ITEMS[kind]
                ours_insert = insert_rate(tables, f"{kind}_ours", items[kind])
                tables.reset(f"{kind}_official")
                peer_insert = official.ask(what="insert", kind=kind, table=f"{kind}_official", num=num)
                ours_sample = sample_rate(tables, f"{kind}_ours", NUM_SAMPLES)
                peer_sample = official.ask(what="sample", kind=kind, table=f"{kind}_ours", num=NUM_SAMPLES)
                if round_ > 0:
                    for way, rate in peer_sample.items():
                        ways.setdefault(f"{kind}_sample", {}).setdefault(way, []).append(rate)
                    for name, ours, peer in (
                        (f"{kind}_insert", ours_insert, peer_insert["writer"]),
                        (f"{kind}_sample", ours_sample, max(peer_sample.values())),
                    ):
                        found = rates.setdefault(name, {"ours": [], "peer": []})
                        found["ours"].append(ours)
                        found["peer"].append(peer)
        tables.close()
    told = {name: _summary(found) for name, found in rates.items()}
    for name, by_way in ways.items():
        told[name] |= {f"peer_{way}": round(statistics.median(found)) for way, found in by_way.items()}
    return told


def insert_rate_of_many(tables: ReverbTables, table: str, items: Sequence[Item], num_writers: int) -> float:
    """Items per second of all writers together."""
    tables.reset(table)
    shares = [items[first::num_writers] for first in range(num_writers)]
    with concurrent.futures.ThreadPoolExecutor(num_writers) as threads:
        start_s = time.perf_counter()
        list(threads.map(lambda share: insert_rate(tables, table, share, reset=False), shares))
        return len(items) / (time.perf_counter() - start_s)


def measure_writers(numbers: Sequence[int]) -> dict[str, dict[str, float]]:
    """As `measure`, for inserts by so many writers at once: "<kind>_insert_<writers>" -> ours, peer, ratio."""
    items = make_items()
    configs = [TableConfig(f"{kind}_{who}", 100_000) for kind in WRITER_KINDS for who in ("ours", "official")]
    rates: dict[str, dict[str, list[float]]] = {}
    with ReverbServer(configs) as server, OfficialClient(server.address) as official:
        tables = ReverbTables(server.address)
        for number in numbers:
            for round_ in range(NUM_ROUNDS + 1):
                for kind in WRITER_KINDS:
                    num = len(items[kind])
                    ours = insert_rate_of_many(tables, f"{kind}_ours", items[kind], number)
                    tables.reset(f"{kind}_official")
                    peer = official.ask(what="insert", kind=kind, table=f"{kind}_official", num=num, writers=number)
                    if round_ > 0:
                        found = rates.setdefault(f"{kind}_insert_{number}", {"ours": [], "peer": []})
                        found["ours"].append(ours)
                        found["peer"].append(peer["writer"])
        tables.close()
    return {name: _summary(found) for name, found in rates.items()}


def measure_tls() -> dict[str, dict[str, float]]:
    """As `measure`; ours: through nginx with certificates, peer: our client on the loopback, same server."""
    items = make_items()
    rates: dict[str, dict[str, list[float]]] = {}
    with tempfile.TemporaryDirectory() as temporary:
        ca = pathlib.Path(temporary) / "ca"
        for words in (["init", ca], ["server", ca, "replay", "localhost"], *(["client", ca, r, r] for r in ROLES)):
            subprocess.run([CA_SCRIPT, *words], check=True, capture_output=True)
        with (
            ReverbServer([TableConfig(kind, 100_000) for kind in KINDS]) as server,
            TlsProxy(ca / "replay", server.port) as proxy,
        ):
            direct = ReverbTables(server.address)
            intake, learner = (ReverbTables(proxy.address, TlsFiles.in_folder(ca / role)) for role in ROLES)
            for round_ in range(NUM_ROUNDS + 1):
                for kind in KINDS:
                    plain = {"insert": insert_rate(direct, kind, items[kind])}
                    plain["sample"] = sample_rate(direct, kind, NUM_SAMPLES)
                    direct.reset(kind)  # which no role may
                    tls = {"insert": insert_rate(intake, kind, items[kind], reset=False)}
                    tls["sample"] = sample_rate(learner, kind, NUM_SAMPLES)
                    for what in plain if round_ > 0 else ():
                        found = rates.setdefault(f"{kind}_{what}", {"ours": [], "peer": []})
                        found["ours"].append(tls[what])
                        found["peer"].append(plain[what])
            for tables in (direct, intake, learner):
                tables.close()
    return {name: _summary(found) for name, found in rates.items()}


def _summary(found: dict[str, list[float]]) -> dict[str, float]:
    ours, peer = statistics.median(found["ours"]), statistics.median(found["peer"])
    return {"ours": round(ours), "peer": round(peer), "ratio": round(ours / peer, 3)}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--json", action="store_true", help="print only the JSON object")
    parser.add_argument("--tls", action="store_true", help="through nginx with certificates, beside the loopback")
    parser.add_argument("--writers", type=int, nargs="+", default=[], help="inserts only, by so many writers at once")
    parser.add_argument(
        "--rounds", type=int, default=NUM_ROUNDS, help="without --tls and --writers; the medians are theirs"
    )
    arguments = parser.parse_args()
    if arguments.writers:
        details, main_figure = measure_writers(arguments.writers), f"small_insert_{arguments.writers[0]}"
        units = "items of 200 bytes inserted per second"
    else:
        details, main_figure = measure_tls() if arguments.tls else measure(arguments.rounds), "segment_sample"
        units = "segments sampled per second, one client"
    if not arguments.json:
        for name, found in details.items():
            print(f"{name:15} ours {found['ours']:8.0f}  peer {found['peer']:8.0f}  ratio {found['ratio']:.2f}")
    bytes_per_item = {kind: sum(c.nbytes for c in make(0).columns.values()) for kind, make in MAKE.items()}
    result = {
        "name": "replay_client_tls" if arguments.tls else "replay_client",
        **details[main_figure],
        "units": units,
        "peer_is": "the same client on the loopback, without TLS" if arguments.tls else PEER,
        "details": details,
        "bytes_per_item": bytes_per_item,
    }
    print(json.dumps(result))


if __name__ == "__main__":
    main()
