import dataclasses
import json

import numpy as np
import pytest
from foreign import NOW, picture, rlds_example, write_rlds

from sop_jax.episodes.images import decode_images
from sop_jax.episodes.store import EpisodeStore
from sop_jax.interchange.errors import InvalidDatasetError
from sop_jax.interchange.importing import import_episodes
from sop_jax.interchange.mapping import check_mapping, derive_mapping
from sop_jax.interchange.rlds.example import example_class, parse_example
from sop_jax.interchange.rlds.reader import RldsSource
from sop_jax.interchange.rlds.tfrecord import frame_record, index_records, masked_crc, read_record
from sop_jax.interchange.translate import MappedTranslator
from sop_jax.specs.records import Outcome


def take_in(source: RldsSource, store_url: str, **changes):
    mapping = dataclasses.replace(derive_mapping(source), control_hz=10.0, **changes)
    check_mapping(mapping, source)
    store = EpisodeStore(store_url)
    return import_episodes(source, MappedTranslator(mapping, "lids", "rlds", NOW), store), store


def test_checksums_are_tensorflows():
    # CRC-32C of "123456789" is e3069283 (RFC 3720's check value); masked by hand: rotate right by 15, add a282ead8.
    assert masked_crc(b"123456789") == 0xC78AB0E5
    rotated = (0xE3069283 >> 15 | 0xE3069283 << 17) & 0xFFFFFFFF
    assert (rotated + 0xA282EAD8) & 0xFFFFFFFF == 0xC78AB0E5


def test_an_example_byte_by_byte():
    """features { feature { key: "a" value { int64_list { value: [1, -1] } } } }, written out by the wire format's rules."""
    value = bytes.fromhex("1a0d0a0b01ffffffffffffffffff01")  # field 3, packed varints
    entry = b"\x0a\x01a\x12" + bytes([len(value)]) + value
    features = b"\x0a" + bytes([len(entry)]) + entry
    parsed = parse_example(b"\x0a" + bytes([len(features)]) + features, "")
    assert {name: values.tolist() for name, values in parsed.items()} == {"a": [1, -1]}


def test_episodes_come_in(tmp_path, store_url):
    source = RldsSource(write_rlds(tmp_path / "toy"))
    assert source.num_episodes == 3
    report, store = take_in(source, store_url, image_stride=2, success="reward")
    assert (len(report.imported), report.refused) == (3, ())
    found = [store.read(path) for path in sorted(store.list_paths(), key=lambda path: path.split(".")[-2])]
    assert [episode.manifest.outcome for episode in found] == [Outcome.SUCCESS, Outcome.FAILURE, Outcome.SUCCESS]
    first = found[0]
    assert (first.manifest.instruction, first.manifest.control_hz) == ("lift the lid", 10.0)
    expected = parse_example(rlds_example(0, 5), "")
    # The last of five steps holds an observation only: its action, all joints to 0, is none.
    assert expected["steps/action"].reshape(5, 3)[4].tolist() == [0, 0, 0]
    np.testing.assert_array_equal(first.arrays.state.ravel(), expected["steps/observation/state"][:12])
    np.testing.assert_array_equal(first.arrays.action.ravel(), expected["steps/action"][:12])
    assert first.arrays.image_frames.tolist() == [0, 2]
    image = decode_images(first.jpegs[1], first.manifest.cameras)["image"]
    assert np.abs(image.astype(int) - picture(0, 2)).max() <= 1
    # The dataset's own JPEGs fit, so they are kept as they are.
    assert first.jpegs[1][0] == next(source.pictures(source.read(0, ()), "observation/image", [2]))


def test_last_steps_with_actions_of_their_own_are_kept_if_the_mapping_says_so(tmp_path, store_url):
    source = RldsSource(write_rlds(tmp_path / "toy", last_action=True))
    report, store = take_in(source, store_url, success="reward", last_action=True)
    assert (len(report.imported), report.refused, report.num_frames) == (3, (), 15)
    found = [store.read(path) for path in sorted(store.list_paths(), key=lambda path: path.split(".")[-2])]
    assert [episode.manifest.outcome for episode in found] == [Outcome.SUCCESS, Outcome.FAILURE, Outcome.SUCCESS]
    expected = parse_example(rlds_example(0, 5, last_action=True), "")
    np.testing.assert_array_equal(found[0].arrays.action.ravel(), expected["steps/action"])
    # Other frames, so another import.
    assert not set(take_in(source, store_url)[0].imported) & set(report.imported)


def test_successes_on_a_last_step_without_an_action_are_told(tmp_path, store_url):
    """Else all episodes of a dataset whose last steps do have rewards would become failures."""
    source = RldsSource(write_rlds(tmp_path / "toy", last_action=True))
    report, _ = take_in(source, store_url, success="reward")
    assert [refusal.index for refusal in report.refused] == [0, 2]
    assert "reward: expected a success on a step with an action, got 'one on the last step" in report.refused[0].reason
    assert "`last_action`" in report.refused[0].reason


@pytest.mark.parametrize("flag", ["is_last", "is_terminal", ""])
def test_the_last_step_is_left_out_where_a_flag_says_so(tmp_path, store_url, flag):
    folder = write_rlds(tmp_path / "toy")
    step = json.loads((folder / "features.json").read_text().replace('"is_last"', f'"{flag or "other"}"'))
    (folder / "features.json").write_text(json.dumps(step))
    records = []
    for seed in range(3):
        example = example_class().FromString(rlds_example(seed, 5))
        last = example.features.feature.pop("steps/is_last").int64_list.value
        example.features.feature[f"steps/{flag or 'other'}"].int64_list.value.extend(last)
        records.append(frame_record(example.SerializeToString()))
    (folder / "toy-train.tfrecord-00000-of-00002").write_bytes(b"".join(records[:2]))
    (folder / "toy-train.tfrecord-00001-of-00002").write_bytes(records[2])
    report, _ = take_in(RldsSource(folder), store_url)
    assert (len(report.imported), report.num_frames) == (3, 12 if flag else 15)
    flags = RldsSource(folder).read(0, ()).void_at_end
    assert flags == ({"action", "reward", "language_instruction"} if flag else set())


def test_flags_tell_how_an_episode_ended_on_its_last_step(tmp_path, store_url):
    """They are valid there, unlike the reward."""
    report, store = take_in(RldsSource(write_rlds(tmp_path / "toy")), store_url, success="is_last")
    assert {store.read(path).manifest.outcome for path in store.list_paths()} == {Outcome.SUCCESS}
    assert report.refused == ()


def test_an_episode_of_one_observation_is_refused(tmp_path, store_url):
    report, _ = take_in(RldsSource(write_rlds(tmp_path / "toy", num_steps=1)), store_url)
    assert "steps: expected two or more, the last without an action, got 1" in report.refused[0].reason


def test_the_rate_must_be_told(tmp_path):
    source = RldsSource(write_rlds(tmp_path / "toy"))
    with pytest.raises(InvalidDatasetError, match="rate: expected control_hz, got 0"):
        check_mapping(derive_mapping(source), source)


def test_every_flipped_byte_is_found(tmp_path):
    path = tmp_path / "one.tfrecord"
    data = frame_record(b"some data")
    for offset in range(len(data)):
        spoilt = bytearray(data)
        spoilt[offset] ^= 1
        path.write_bytes(spoilt)
        with pytest.raises(InvalidDatasetError, match=r"one\.tfrecord"):
            read_record(index_records(path)[0])
    for length in range(1, len(data)):
        path.write_bytes(data[:length])
        with pytest.raises(InvalidDatasetError, match=r"one\.tfrecord"):
            read_record(index_records(path)[0])
    path.write_bytes(data + data)
    assert [read_record(record) for record in index_records(path)] == [b"some data"] * 2


def test_a_damaged_record_is_told_and_the_others_come_in(tmp_path, store_url):
    folder = write_rlds(tmp_path / "toy")
    path = folder / "toy-train.tfrecord-00000-of-00002"
    data = bytearray(path.read_bytes())
    data[200] ^= 1
    path.write_bytes(data)
    report, _ = take_in(RldsSource(folder), store_url)
    assert ([refusal.index for refusal in report.refused], len(report.imported)) == ([0], 2)
    assert "toy-train.tfrecord-00000-of-00002: record at byte 12" in report.refused[0].reason


@pytest.mark.parametrize(
    ("edit", "message"),
    [
        (
            lambda f: f["steps/action"].float_list.value.pop(),
            r"action: expected 5 steps of \[3\] as float, got '14 num",
        ),
        (lambda f: f.pop("steps/action"), r"action: expected 5 steps of \[3\] as float, got 'none'"),
        (lambda f: f["steps/action"].int64_list.value.append(1), "action: expected 5 steps"),
        (
            lambda f: f["steps/observation/image"].bytes_list.value.pop(),
            "observation/image: expected 5 pictures, got 4",
        ),
        (lambda f: f["steps/language_instruction"].bytes_list.value.append(b"x"), "language_instruction: expected 5"),
        (lambda f: f["steps/language_instruction"].bytes_list.value.__setitem__(0, b"\xff"), "expected UTF-8 texts"),
        (lambda f: f["steps/language_instruction"].bytes_list.value.__setitem__(0, b"x"), "one text in all frames"),
        (lambda f: f.clear(), "steps: expected one or more"),
        (
            lambda f: f["steps/is_last"].int64_list.value.__setitem__(2, 1),
            "is_last: expected step 4, or none, got 'step 2'",
        ),
    ],
)
def test_examples_that_dont_fit_their_features(tmp_path, store_url, edit, message):
    folder = write_rlds(tmp_path / "toy")
    example = example_class().FromString(rlds_example(2, 5))
    edit(example.features.feature)
    (folder / "toy-train.tfrecord-00001-of-00002").write_bytes(frame_record(example.SerializeToString()))
    report, _ = take_in(RldsSource(folder), store_url)
    assert [refusal.index for refusal in report.refused] == [2]
    with pytest.raises(InvalidDatasetError, match=message):
        raise InvalidDatasetError(report.refused[0].reason)


def test_what_is_no_example(tmp_path, store_url):
    folder = write_rlds(tmp_path / "toy")
    (folder / "toy-train.tfrecord-00001-of-00002").write_bytes(frame_record(b"\xff\xff\xff"))
    report, _ = take_in(RldsSource(folder), store_url)
    assert "record: expected a tf.train.Example" in report.refused[0].reason


def test_missing_and_foreign_files(tmp_path):
    folder = write_rlds(tmp_path / "toy")
    (folder / "toy-train.tfrecord-00001-of-00002").unlink()
    with pytest.raises(InvalidDatasetError, match=r"records: expected 3, as in dataset_info.json, got '2 in 1 files'"):
        RldsSource(folder)
    info = json.loads((folder / "dataset_info.json").read_text())
    (folder / "dataset_info.json").write_text(json.dumps({**info, "fileFormat": "array_record"}))
    with pytest.raises(InvalidDatasetError, match="fileFormat: expected tfrecord, got 'array_record'"):
        RldsSource(folder)
    (folder / "features.json").write_text("{}")
    with pytest.raises(
        InvalidDatasetError, match=r"features.json: expected an RLDS dataset's, got \"no 'featuresDict'"
    ):
        RldsSource(folder)
