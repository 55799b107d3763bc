"""What is published is what is followed, and nothing else."""

import dataclasses

import jax
import ml_dtypes
import numpy as np
import pytest
import tensorstore as ts
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from tiny_weights import BASE, NORM, make_params, version_directory

from sop_jax.specs.clock import ManualClock
from sop_jax.specs.conditioning import Conditioning
from sop_jax.specs.errors import InvalidPublicationError
from sop_jax.specs.records import Publication
from sop_jax.weights import management
from sop_jax.weights.follower import Follower
from sop_jax.weights.manifest import decode_manifest, encode_manifest
from sop_jax.weights.publisher import Publisher
from sop_jax.weights.weight_store import WeightStore


class LostAnswer:
    """A bucket's key-value store that commits a manifest and whose answer is lost: the driver's second try is refused."""

    def __init__(self, kv: ts.KvStore):
        self.kv = kv
        self.num_lost = 0

    def __getattr__(self, name):
        return getattr(self.kv, name)

    def write(self, key, value, **conditions):
        answer = self.kv.write(key, value, **conditions)
        if not key.endswith("/manifest.json") or value is None:
            return answer
        assert answer.result().generation != b""
        self.num_lost += 1
        return self.kv.write(key, value, **conditions)


def lose_answers(patch) -> list[LostAnswer]:
    made, real = [], WeightStore.__init__

    def init(self, root):
        real(self, root)
        made.append(LostAnswer(self._kv))
        self._kv = made[-1]

    patch.setattr(WeightStore, "__init__", init)
    return made


def test_a_publication_whose_answer_was_lost_counts_and_keeps_its_files(store_url, clock, monkeypatch):
    made = lose_answers(monkeypatch)
    publisher = Publisher(store_url, BASE, NORM, clock)
    assert [publisher.publish(make_params(step), step).version for step in (1, 2)] == [1, 2]
    assert management.rollback(store_url, 1, clock).version == 3
    assert [store.num_lost for store in made if store.num_lost] == [2, 1]
    for version in (1, 2, 3):
        management.verify(store_url, version)
    assert management.current_version(store_url) == 3
    loaded = Follower(store_url, BASE, NORM).load_latest(make_params(0), newer_than=0)
    assert loaded is not None


def test_a_number_that_another_writer_took_is_not_ones_own(store_url, publisher):
    taken = publisher.publish(make_params(1), 1)
    store = WeightStore(store_url)
    assert store.commit(taken)  # the very same: its answer may have been lost
    assert not store.commit(dataclasses.replace(taken, files={"params-0badcafe/x": (1, "ab" * 32)}))
    assert store.read_manifest(1) == taken


def test_nothing_published_is_none(store_url):
    follower = Follower(store_url, BASE, NORM)
    assert follower.latest() is None
    assert follower.load_latest(make_params(0), newer_than=0) is None
    assert management.current_version(store_url) is None
    assert management.list_publications(store_url) == []


def test_publish_then_load_returns_the_same_numbers(store_url, publisher, clock):
    follower = Follower(store_url, BASE, NORM)
    clock.advance_s(2.0)
    made = publisher.publish(make_params(1.5), learner_step=25)
    seen = follower.latest()
    assert seen == made
    assert (made.version, made.learner_step, made.restores) == (1, 25, None)
    assert (made.base_fingerprint, made.norm_fingerprint, made.created_ns) == (BASE, NORM, 2_000_001_000)
    loaded = follower.load(seen, make_params(0))
    jax.tree.map(np.testing.assert_array_equal, loaded, make_params(1.5))
    assert jax.tree.map(lambda leaf: leaf.dtype, loaded) == jax.tree.map(lambda leaf: leaf.dtype, make_params(1.5))


def test_bfloat16_and_device_arrays_survive(store_url, publisher):
    params = {"w": jax.numpy.arange(6, dtype=jax.numpy.bfloat16).reshape(2, 3)}
    publisher.publish(params, 1)
    follower = Follower(store_url, BASE, NORM)
    loaded = follower.load(follower.latest(), {"w": jax.ShapeDtypeStruct((2, 3), jax.numpy.bfloat16)})
    assert loaded["w"].dtype == ml_dtypes.bfloat16
    np.testing.assert_array_equal(loaded["w"].astype(np.float32), np.arange(6).reshape(2, 3))


def test_poll_is_answered_from_memory_until_the_pointer_moves(store_url, publisher):
    follower = Follower(store_url, BASE, NORM)
    publisher.publish(make_params(1), 1)
    first = follower.latest()
    assert follower.latest() is first
    publisher.publish(make_params(2), 2)
    assert follower.latest().version == 2


def test_versions_rise_across_restarts(store_url, publisher, clock):
    assert publisher.last_version == 0
    versions = [publisher.publish(make_params(i), i).version for i in range(2)]
    restarted = Publisher(store_url, BASE, NORM, clock)
    assert restarted.last_version == 2
    versions += [restarted.publish(make_params(9), 9).version for _ in range(2)]
    assert versions == [1, 2, 3, 4]


def test_a_version_committed_but_never_pointed_to_is_not_reused(store_url, publisher, clock):
    publisher.publish(make_params(1), 1)
    publisher.publish(make_params(2), 2)
    pointer = version_directory(store_url, 0).parent / "latest.json"
    pointer.write_text('{"version": 1}')  # as if killed between manifest and pointer
    assert Publisher(store_url, BASE, NORM, clock).publish(make_params(3), 3).version == 3


@pytest.mark.parametrize(
    ("base", "norm", "message"),
    [("base-2", NORM, "another base model.*'base-2', got 'base-1'"), (BASE, "norm-2", "another normalisation stat")],
)
def test_foreign_publication_is_refused(store_url, publisher, base, norm, message):
    publisher.publish(make_params(1), 1)
    follower = Follower(store_url, base, norm)
    with pytest.raises(InvalidPublicationError, match=message):
        follower.load(follower.latest(), make_params(0))


def other_model_leaf():
    return {**make_params(0), "extra": np.zeros(2, np.float32)}


def other_shape():
    return {**make_params(0), "scale": np.zeros((2,), np.float32)}


@pytest.mark.parametrize(
    ("template", "message"),
    [
        (other_model_leaf(), r"missing leaves \[\"\['extra'\]\"\]"),
        (other_shape(), r"float32\[\], expected float32\[2\]"),
    ],
)
def test_another_models_template_is_refused(store_url, publisher, template, message):
    publisher.publish(make_params(1), 1)
    follower = Follower(store_url, BASE, NORM)
    with pytest.raises(InvalidPublicationError, match=message):
        follower.load(follower.latest(), template)


@settings(max_examples=12, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_any_torn_or_altered_file_is_refused(store_url, data):
    clock = ManualClock()
    made = Publisher(store_url, BASE, NORM, clock).publish(make_params(1), 1)
    follower = Follower(store_url, BASE, NORM)
    names = sorted(made.files)  # random, so draw by position
    name = names[data.draw(st.integers(0, 99), label="file") % len(names)]
    path = version_directory(store_url, made.version) / name
    intact = path.read_bytes()
    position = data.draw(st.integers(0, 10**6), label="position") % len(intact)
    kind = data.draw(st.sampled_from(["cut", "flip", "longer", "gone"]), label="damage")
    if kind == "cut":
        path.write_bytes(intact[:position])
    elif kind == "flip":
        path.write_bytes(intact[:position] + bytes([intact[position] ^ 1]) + intact[position + 1 :])
    elif kind == "longer":
        path.write_bytes(intact + b"\0")
    else:
        path.unlink()
    with pytest.raises(InvalidPublicationError, match=f"publication {made.version}"):
        follower.load(follower.latest(), make_params(0))
    with pytest.raises(InvalidPublicationError):
        management.verify(store_url, made.version)


@settings(max_examples=50)
@given(
    version=st.integers(0, 10**8 - 1),
    step=st.integers(0, 2**40),
    created=st.integers(0, 2**62),
    restores=st.none() | st.integers(0, 10**8 - 1),
    conditioning=st.none() | st.builds(Conditioning, st.text(max_size=8), st.floats(0, 10)),
    names=st.lists(st.text("abcdef0123456789", min_size=1, max_size=8), min_size=1, max_size=4, unique=True),
)
def test_manifest_round_trip(version, step, created, restores, conditioning, names):
    files = {f"params-0/{name}": (len(name), "ab" * 32) for name in names}
    publication = Publication(version, step, BASE, NORM, created, files, restores, conditioning)
    encoded = encode_manifest(publication)
    assert decode_manifest(encoded, version) == publication
    assert (b'"conditioning"' in encoded) is (conditioning is not None)  # else as earlier versions wrote it


@pytest.mark.parametrize("name", ["../x/y", "/etc/passwd", "params-1/../../x", "params-1//x", "x", "a/./b", "a\\b/c"])
def test_file_names_that_leave_the_directory_are_refused(name):
    good = b'{"version": 1, "learner_step": 1, "base_fingerprint": "", "norm_fingerprint": "", "created_ns": 1, '
    data = good + b'"restores": null, "files": {"%s": {"size": 1, "sha256": "%s"}}}'
    escaped = name.replace("\\", "\\\\").encode()
    with pytest.raises(InvalidPublicationError, match="plain relative path"):
        decode_manifest(data % (escaped, b"ab" * 32), 1)


def test_manifest_of_another_version_is_refused(store_url, publisher):
    publisher.publish(make_params(1), 1)
    moved = version_directory(store_url, 7)
    version_directory(store_url, 1).rename(moved)
    with pytest.raises(InvalidPublicationError, match="publication 7: its manifest says version 1"):
        WeightStore(store_url).read_manifest(7)


def test_damaged_pointer_is_refused_and_mended_by_the_next_publication(store_url, publisher):
    publisher.publish(make_params(1), 1)
    (version_directory(store_url, 0).parent / "latest.json").write_text("{")
    follower = Follower(store_url, BASE, NORM)
    with pytest.raises(InvalidPublicationError, match=r"latest\.json is damaged"):
        follower.latest()
    publisher.publish(make_params(2), 2)
    assert follower.latest().version == 2


def test_pointer_to_nothing_is_refused(store_url, publisher):
    publisher.publish(make_params(1), 1)
    (version_directory(store_url, 1) / "manifest.json").unlink()
    with pytest.raises(InvalidPublicationError, match="no manifest"):
        Follower(store_url, BASE, NORM).latest()


def test_store_roots_may_be_paths(tmp_path, clock):
    Publisher(tmp_path / "s", BASE, NORM, clock).publish(make_params(4), 4)
    assert Follower(f"file://{tmp_path}/s/", BASE, NORM).latest().learner_step == 4
