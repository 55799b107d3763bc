"""The store: atomic, idempotent, and read by ranges."""

import contextlib
import dataclasses
import http.server
import json
import os
import pathlib
import socket
import struct
import threading

import numpy as np
import pytest
from episode_strategies import assert_arrays_equal, assert_equal, episodes, small_spec
from hypothesis import given, settings
from hypothesis import strategies as st

from sop_jax.episodes import kvstore
from sop_jax.episodes.format import index_of, pack
from sop_jax.episodes.store import EpisodeStore
from sop_jax.episodes.synthetic import make_episode
from sop_jax.episodes.verify import verify_bytes
from sop_jax.episodes.zip_layout import FOOTER_BYTES
from sop_jax.specs.clock import ManualClock
from sop_jax.specs.errors import ConfigError, EpisodeExistsError, EpisodeNotFoundError, InvalidEpisodeError
from sop_jax.weights.weight_store import WeightStore

MISSING = "episodes/robot-0/robot-0.00000000001000000000.000099.zip"


def tiny(seed: int, **options):
    return make_episode(seed, num_frames=6, spec=small_spec, **options)


def folder(store_url: str) -> pathlib.Path:
    return pathlib.Path(store_url.removeprefix("file://"))


@settings(max_examples=40)
@given(episode=episodes(), twice=st.booleans())
def test_any_episode_round_trips_through_the_store(episode, twice):
    store = EpisodeStore("memory://")
    index = store.put(episode)
    if twice:
        again = store.put(episode)
        assert dataclasses.replace(again, image_ranges=index.image_ranges) == index
        np.testing.assert_array_equal(again.image_ranges, index.image_ranges)
    assert store.list_paths() == [index.path]
    assert_equal(store.read(index.path), episode)
    manifest, arrays = store.read_arrays(index.path, index.arrays_range)
    assert manifest == episode.manifest
    assert_arrays_equal(arrays, episode.arrays)
    images = store.read_images([(index.path, frame) for frame in index.image_ranges])
    assert images == list(episode.jpegs)
    light = store.read_without_images(index.path)
    assert light.manifest == episode.manifest
    assert (light.index.path, light.index.size, light.index.arrays_range) == (
        index.path,
        index.size,
        index.arrays_range,
    )
    np.testing.assert_array_equal(light.index.image_ranges, index.image_ranges)
    (summary,) = store.summaries()
    assert (summary.path, summary.size, summary.problem) == (index.path, index.size, "")
    assert summary.manifest == episode.manifest


@pytest.mark.parametrize("more", [500 << 20, 4096, -60])
def test_an_object_that_claims_another_size_is_no_episode(store_url, tmp_path, more):
    """Retention adds up what summaries say: a small object must not push out what honest robots stored."""
    store = EpisodeStore(store_url)
    honest, forged = store.put(tiny(1)), store.put(tiny(2))
    path = tmp_path / "store" / forged.path
    data = bytearray(path.read_bytes())
    size_at = len(data) - FOOTER_BYTES + 12  # of the directory, in the end record
    (told,) = struct.unpack_from("<L", data, size_at)
    struct.pack_into("<L", data, size_at, told + more)
    path.write_bytes(data)
    found = {summary.path: summary for summary in store.summaries()}
    assert found[honest.path].problem == ""
    assert (found[forged.path].size, found[forged.path].manifest) == (0, None)
    assert found[forged.path].problem


@pytest.mark.parametrize("url", ["memory://", "disk"])
def test_other_bytes_under_the_same_id_are_refused(url, store_url):
    store = EpisodeStore(store_url if url == "disk" else url)
    index = store.put(tiny(1))
    other = tiny(2, count=1)
    assert other.manifest.episode_id == tiny(1).manifest.episode_id
    with pytest.raises(
        EpisodeExistsError, match=r"episode robot-0\.\d+\.000001: expected a new id or the same \d+ bytes"
    ):
        store.put(other)
    assert_equal(store.read(index.path), tiny(1))


def test_files_on_disk_are_the_packed_bytes(store_url):
    index = EpisodeStore(store_url).put(tiny(1))
    assert (folder(store_url) / index.path).read_bytes() == pack(tiny(1))
    assert index_of(pack(tiny(1)), index.path).size == index.size


def test_torn_or_mislabelled_bytes_are_not_uploaded(store_url):
    store = EpisodeStore(store_url)
    data, episode_id = pack(tiny(1)), tiny(1).manifest.episode_id
    with pytest.raises(InvalidEpisodeError, match="end record"):
        store.put_bytes(episode_id, data[:-1])
    with pytest.raises(InvalidEpisodeError, match=r"identity: expected .*000002, got .*000001"):
        store.put_bytes(tiny(2).manifest.episode_id, data)
    with pytest.raises(InvalidEpisodeError, match="malformed"):
        store.put_bytes("../x", data)
    assert store.list_paths() == []


def test_listing_is_sorted_and_sees_only_whole_episodes(store_url):
    store = EpisodeStore(store_url)
    assert store.list_paths() == []
    for robot, seed in (("robot-10", 3), ("robot-1", 2), ("robot-1", 1), ("robot-1-b", 5)):
        store.put(tiny(seed, robot_id=robot))
    robot_1 = folder(store_url) / "episodes/robot-1"
    name = "robot-1.00000000001000000000.000007.zip"
    (robot_1 / f"{name}.__lock").write_bytes(b"half an episode of a writer that was killed")
    (robot_1 / "notes.txt").write_text("a stranger")
    (robot_1 / "robot-2.00000000001000000000.000001.zip").write_bytes(b"another robot's name")
    expected = [
        "episodes/robot-1-b/robot-1-b.00000000001000000000.000005.zip",
        "episodes/robot-1/robot-1.00000000001000000000.000001.zip",
        "episodes/robot-1/robot-1.00000000001000000000.000002.zip",
        "episodes/robot-10/robot-10.00000000001000000000.000003.zip",
    ]
    assert store.list_paths() == expected
    assert store.list_paths("robot-1") == expected[1:3]
    assert store.list_paths("robot-7") == []
    assert [path.rpartition("/")[2] for path in store.list_strangers()] == [
        "notes.txt",
        "robot-2.00000000001000000000.000001.zip",
    ]
    store.put(tiny(7, robot_id="robot-1"))  # the killed writer comes back and is not held up by its leftover
    assert f"episodes/robot-1/{name}" in store.list_paths()
    assert not (robot_1 / f"{name}.__lock").exists()


def test_missing_objects_are_told(store_url):
    store = EpisodeStore(store_url)
    with pytest.raises(EpisodeNotFoundError, match=f"{MISSING} is not in the file store at /.*expected an object"):
        store.read(MISSING)
    with pytest.raises(EpisodeNotFoundError):
        store.read_bytes(MISSING)
    with pytest.raises(EpisodeNotFoundError):
        store.read_arrays(MISSING, (0, 10))
    with pytest.raises(EpisodeNotFoundError):
        store.read_without_images(MISSING)
    with pytest.raises(EpisodeNotFoundError):
        store.read_images([(MISSING, np.array([[0, 10]]))])


def test_ranges_outside_the_object_are_told(store_url):
    store = EpisodeStore(store_url)
    index = store.put(tiny(1))
    with pytest.raises(
        InvalidEpisodeError, match=r"byte range: expected one within the object, got .999999\.\.1000000."
    ):
        store.read_images([(index.path, np.array([[999_999, 1]]))])
    with pytest.raises(InvalidEpisodeError, match="byte range"):
        store.read_arrays(index.path, (index.arrays_range[0], 10**6))
    with pytest.raises(InvalidEpisodeError, match=r"no room|member at byte|zip header"):
        store.read_arrays(index.path, (index.arrays_range[0] + 1, index.arrays_range[1]))


@settings(max_examples=40)
@given(picks=st.lists(st.tuples(st.integers(0, 2), st.integers(0, 3)), max_size=80), num_in_flight=st.integers(1, 40))
def test_range_read_images_are_the_unpacked_ones_in_the_order_asked(picks, num_in_flight):
    store = EpisodeStore("memory://", num_in_flight=num_in_flight)
    sealed = [make_episode(seed, num_frames=12, spec=small_spec) for seed in range(3)]
    indices = [store.put(episode) for episode in sealed]
    images = store.read_images([(indices[e].path, indices[e].image_ranges[k]) for e, k in picks])
    assert images == [sealed[e].jpegs[k] for e, k in picks]


def test_of_reads_that_go_together_each_has_its_own_error(store_url):
    """TensorStore makes one read of ranges that touch."""
    root = kvstore.open_kvstore(store_url)
    kvstore.create(root, "a", b"0123456789")
    ranges = [slice(0, 4), slice(4, 8), slice(8, 14), slice(-3, None), slice(2, 2)]
    spans = [("a", part) for part in ranges] + [("b", slice(0, 1)), ("a", slice(9, 10))]
    found = list(kvstore.try_read_spans(root, spans, 100))
    assert [found[k] for k in (0, 1, 3, 4, 6)] == [b"0123", b"4567", b"789", b"", b"9"]
    assert isinstance(found[2], InvalidEpisodeError)
    assert isinstance(found[5], EpisodeNotFoundError)


def test_images_that_are_not_adjacent_or_not_ordered_are_read_too():
    store = EpisodeStore("memory://")
    episode = make_episode(1, num_frames=12, spec=small_spec)
    index = store.put(episode)
    odd = np.array([index.image_ranges[3, 1], index.image_ranges[0, 0], index.image_ranges[3, 0]])
    (images,) = store.read_images([(index.path, odd)])
    assert images == (episode.jpegs[3][1], episode.jpegs[0][0], episode.jpegs[3][0])
    assert store.read_images([]) == []
    assert store.read_images([(index.path, index.image_ranges[0, :0])]) == [()]


def test_broken_objects_are_summarised_with_their_complaint(store_url):
    store = EpisodeStore(store_url)
    paths = [store.put(tiny(seed)).path for seed in range(4)]
    (folder(store_url) / paths[0]).write_bytes(b"")
    (folder(store_url) / paths[1]).write_bytes(pack(tiny(1))[:-5])
    whole = bytearray(pack(tiny(3)))
    whole[whole.rindex(b'"restock_shelf"') + 3] ^= 1
    (folder(store_url) / paths[3]).write_bytes(whole)
    summaries = store.summaries("robot-0")
    assert [summary.path for summary in summaries] == paths
    assert summaries[2].manifest == tiny(2).manifest
    assert [summary.manifest is None for summary in summaries] == [True, True, False, True]
    for at, problem in ((0, "byte range"), (1, "end record"), (3, "CRC-32 of manifest.json")):
        assert problem in summaries[at].problem


def test_quarantine_keeps_the_object_and_the_first_reason(store_url):
    clock = ManualClock(start_ns=17)
    store = EpisodeStore(store_url, clock=clock)
    index = store.put(tiny(1))
    assert store.quarantined() == {}
    store.quarantine(index.path, "state of 'left_joint1' at frame 0: got nan")
    clock.advance_s(1)
    store.quarantine(index.path, "another opinion")
    assert store.quarantined() == {index.path: "state of 'left_joint1' at frame 0: got nan"}
    (record,) = store.quarantine_records()
    assert (record.size, record.time_ns) == (index.size, 17)
    assert store.list_paths() == [index.path]
    assert (folder(store_url) / "quarantine/robot-0/robot-0.00000000001000000000.000001.zip.json").exists()
    (folder(store_url) / "quarantine/robot-0/notes.txt").write_text("a stranger")
    store.quarantine(MISSING, "gone", size=None)
    assert store.quarantined()[MISSING] == "gone"
    with pytest.raises(InvalidEpisodeError, match="its path is not an episode's"):
        store.quarantine("episodes/robot-0/../../x.zip", "hostile name")


def test_an_unreadable_quarantine_record_still_sets_the_episode_aside(store_url):
    store = EpisodeStore(store_url)
    index = store.put(tiny(1))
    store.quarantine(index.path, "bad")
    record = folder(store_url) / "quarantine/robot-0/robot-0.00000000001000000000.000001.zip.json"
    record.write_text("{")
    assert "can't be read" in store.quarantined()[index.path]


def test_objects_too_large_to_be_episodes_are_not_loaded(store_url):
    store = EpisodeStore(store_url)
    path = folder(store_url) / MISSING
    path.parent.mkdir(parents=True)
    with path.open("wb") as file:
        file.truncate(2**30 + 1)  # sparse: takes no room
    with pytest.raises(InvalidEpisodeError, match=r"size: expected at most 1073741824 bytes, got 'more'"):
        store.read_bytes(MISSING)
    store.quarantine(MISSING, "too large")
    assert store.quarantine_records()[0].size == 0


def test_many_writers_of_one_id_agree_on_one_episode(store_url):
    rivals, outcomes = [tiny(seed, count=1) for seed in (1, 2, 1, 2)], []

    def write(episode) -> None:
        try:
            EpisodeStore(store_url).put(episode)
            outcomes.append("stored")
        except EpisodeExistsError:
            outcomes.append("refused")

    threads = [threading.Thread(target=write, args=(episode,)) for episode in rivals]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(outcomes) == ["refused", "refused", "stored", "stored"]
    store = EpisodeStore(store_url)
    (path,) = store.list_paths()
    assert verify_bytes(store.read_bytes(path), path).manifest.seed in (1, 2)


def test_stores_that_cannot_be_opened_say_what_they_expect(tmp_path):
    for url in ("nope://x", "relative/path", '{"driver": "nope"}', "{"):
        with pytest.raises(ConfigError, match="expected file:///dir/, gs://bucket/prefix/ or s3://bucket/prefix/"):
            EpisodeStore(url)
    with pytest.raises(ConfigError, match="num_in_flight must be at least 1, got 0"):
        EpisodeStore("memory://", num_in_flight=0)
    as_json = EpisodeStore(f'{{"driver": "file", "path": "{tmp_path}/"}}')
    index = as_json.put(tiny(1))
    assert EpisodeStore(f"file://{tmp_path}").list_paths() == [index.path]


def test_creating_a_key_twice_changes_nothing():
    store = kvstore.open_kvstore("memory://")
    assert kvstore.create(store, "a", b"1")
    assert not kvstore.create(store, "a", b"2")
    assert kvstore.read(store, "a", 10) == b"1"


class Overloaded(http.server.BaseHTTPRequestHandler):
    """Answers everything with 503."""

    asked: list[str]

    def answer(self) -> None:
        self.asked.append(self.command)
        self.send_response(503)
        self.send_header("Content-Length", "0")
        self.end_headers()

    do_GET = do_HEAD = do_PUT = answer

    def log_message(self, format: str, *args: object) -> None:
        del format, args


def s3_at(endpoint: str, **more) -> str:
    spec = {"driver": "s3", "bucket": "bucket", "path": "run/", "endpoint": endpoint, "aws_region": "us-east-1"}
    return json.dumps({**spec, "aws_credentials": {"type": "anonymous"}, **more})


@pytest.mark.timeout(60)
@pytest.mark.parametrize("driver", ["s3", "gcs"])
def test_a_store_out_of_reach_says_so_while_the_robot_is_still_waiting(driver, monkeypatch):
    with contextlib.closing(socket.socket()) as probe:
        probe.bind(("127.0.0.1", 0))
        endpoint = f"http://127.0.0.1:{probe.getsockname()[1]}"
    monkeypatch.setitem(os.environ, "TENSORSTORE_GCS_HTTP_URL", endpoint)
    monkeypatch.setitem(os.environ, "GOOGLE_AUTH_TOKEN_FOR_TESTING", "a-token")
    url = s3_at(endpoint) if driver == "s3" else "gs://bucket/run/"
    store = EpisodeStore(url)
    for call in (lambda: store.put(tiny(1)), store.list_paths, lambda: store.read_bytes(MISSING)):
        with pytest.raises(ValueError, match="Could not connect to server"):
            call()
    with pytest.raises(ValueError, match="Could not connect to server"):
        WeightStore(url).read_pointer()


@pytest.mark.timeout(60)
def test_a_store_is_asked_a_few_times_unless_its_own_spec_says_otherwise(monkeypatch):
    asked: list[str] = []
    monkeypatch.setattr(Overloaded, "asked", asked, raising=False)
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Overloaded) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        endpoint = f"http://127.0.0.1:{server.server_address[1]}"
        for read in (
            lambda: kvstore.open_kvstore(s3_at(endpoint)).read("a").result(),
            lambda: WeightStore(s3_at(endpoint)).read_pointer(),
        ):
            asked.clear()
            with pytest.raises(ValueError, match="503"):
                read()
            assert len(asked) == 4
        patient = s3_at(endpoint, context={"s3_request_retries": {"max_retries": 5, "max_delay": "10ms"}})
        asked.clear()
        with pytest.raises(ValueError, match="503"):
            kvstore.open_kvstore(patient).read("a").result()
        assert len(asked) == 6
        server.shutdown()


def test_connections_are_waited_for_as_long_as_somebody_said(monkeypatch):
    name = "TENSORSTORE_CURL_CONNECT_TIMEOUT_SECONDS"
    for said, expected in ((None, "10"), ("25", "25")):
        with monkeypatch.context() as patch:
            patch.delitem(os.environ, name, raising=False)
            if said is not None:
                patch.setitem(os.environ, name, said)
            kvstore.open_kvstore("memory://")
            assert os.environ[name] == expected
