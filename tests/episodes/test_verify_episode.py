"""Each way an upload can be wrong is named: what, expected, got, which episode, likely fix."""

import dataclasses
import io
import json
import zipfile

import numpy as np
import pytest
from episode_strategies import packed, rewrite, small_spec

from sop_jax.episodes.format import pack
from sop_jax.episodes.images import encode_image
from sop_jax.episodes.synthetic import make_episode, make_spec
from sop_jax.episodes.verify import verify_bytes
from sop_jax.episodes.zip_layout import FOOTER_BYTES, ZipWriter, directory
from sop_jax.specs.errors import InvalidEpisodeError
from sop_jax.specs.records import NO_POLICY, Episode, EpisodeMark, Source, TakeoverEvent

EPISODE = make_episode(1, num_frames=9, spec=small_spec, takeovers=((1, 2, 5),))
DATA, PATH = packed(EPISODE)


def with_value(array: str, index: tuple, value: float) -> Episode:
    changed = getattr(EPISODE.arrays, array).copy()
    changed[index] = value
    return dataclasses.replace(EPISODE, arrays=dataclasses.replace(EPISODE.arrays, **{array: changed}))


def with_manifest(**fields) -> Episode:
    return dataclasses.replace(EPISODE, manifest=dataclasses.replace(EPISODE.manifest, **fields))


def refuse(data: bytes, message: str, path: str = PATH, **options) -> None:
    with pytest.raises(InvalidEpisodeError, match=message) as caught:
        verify_bytes(data, path, **options)
    assert "robot-" in str(caught.value)


def test_valid_episodes_pass():
    assert verify_bytes(DATA, PATH).manifest == EPISODE.manifest
    assert verify_bytes(DATA, PATH, spec=small_spec, decode_all_images=True).index.path == PATH
    demonstration = make_episode(2, spec=small_spec, source=Source.OFFLINE, policy_version=NO_POLICY)
    verified = verify_bytes(*packed(demonstration))
    assert verified.arrays.intervention.all()
    assert verified.manifest.takeovers == ()


@pytest.mark.parametrize(
    ("array", "index", "value", "message"),
    [
        ("state", (3, 2), np.nan, r"state of 'left_joint3' at frame 3: expected -10 to 10 \(rad\), got nan"),
        ("state", (0, 0), np.inf, "state of 'left_joint1' at frame 0"),
        ("action", (8, 13), -10.5, "action of 'right_joint7' at frame 8"),
        ("action", (1, 14), 1.2, r"action of 'left_gripper' at frame 1: expected -0.1 to 1.1 \(0 open .. 1 closed\)"),
        ("state", (2, 15), -0.2, "state of 'right_gripper' at frame 2"),
        ("time_ns", (4,), 1_000_000_000, "time_ns at frame 4: expected >"),
        ("time_ns", (4,), EPISODE.arrays.time_ns[3], "time_ns at frame 4: expected >"),
        ("time_ns", (0,), 1, r"time_ns: expected within started_ns..ended_ns"),
        ("time_ns", (8,), 2**62, r"time_ns: expected within started_ns..ended_ns"),
        ("policy_version", (6,), 2, "policy_version at frame 6: expected 1, got 2"),
        ("policy_version", (6,), NO_POLICY, "policy_version at frame 6: expected 1, got -1"),
        ("intervention", (6,), True, "intervention at frame 6: expected False, as the takeovers say, got True"),
        ("intervention", (3,), False, "intervention at frame 3: expected True"),
    ],
)
def test_values_are_checked(array, index, value, message):
    refuse(pack(with_value(array, index, value)), message)


def test_small_overshoot_of_grippers_and_overruled_versions_pass():
    verify_bytes(pack(with_value("state", (2, 15), 1.05)), PATH)
    verify_bytes(pack(with_value("policy_version", (3,), NO_POLICY)), PATH)


def test_a_path_under_another_robots_prefix_is_refused():
    other = "robot-9.00000000001000000000.000001"
    refuse(DATA, "identity: its path and its manifest disagree", path=f"episodes/robot-9/{other}.zip")
    refuse(DATA, "identity", path="episodes/robot-0/../robot-0/x.zip")
    hostile = rewrite(DATA, lambda manifest: manifest.update(robot_id="robot-9"))
    refuse(hostile, r"identity: expected robot 'robot-0', as in episode_id robot-0.*got 'robot-9'")


def test_another_robot_type_is_refused():
    refuse(DATA, "is not a synthetic", spec=make_spec(image_size=16, camera_names=("head", "hand_left")))


def test_another_rate_is_refused():
    wanted = dataclasses.replace(small_spec, control_hz=10.0)
    refuse(DATA, "control_hz of robot robot-0, for a model of synthetic robots: expected 10.0, got 30.0", spec=wanted)
    verify_bytes(DATA, PATH, spec=dataclasses.replace(small_spec, control_hz=29.97))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"schema_version": 3}, "schema_version: expected 1 to 2, got 3. A newer robot wrote this"),
        ({"schema_version": 2}, "manifest fields: expected .*marks"),
        ({"schema_version": True}, "schema_version"),
        ({"task": "../etc"}, "task '../etc' is not a valid name"),
        ({"task": 7}, "task: expected 0 to 63 printable characters"),
        ({"instruction": "x" * 501}, "instruction: expected 1 to 500 printable characters"),
        ({"instruction": "two\nlines"}, "instruction"),
        ({"instruction": "\ud800"}, "instruction"),
        ({"source": "both"}, r"source: expected \['online', 'offline'\], got 'both'"),
        ({"outcome": ["success"]}, "outcome"),
        ({"policy_version": -2}, "policy_version: expected an integer in -1"),
        ({"policy_version": 1.0}, "policy_version"),
        ({"control_hz": 0.0}, "control_hz"),
        ({"control_hz": 1e999}, "not a finite number"),
        ({"num_frames": 8}, r"array state: expected float32\[8, 16\]"),
        ({"num_frames": 10**12}, "num_frames"),
        ({"ended_ns": 5}, "ended_ns"),
        ({"cameras": []}, "cameras"),
        ({"cameras": [{"name": "head", "height": 8}]}, "cameras: expected objects with"),
        ({"cameras": [{"name": "head", "height": 10**9, "width": 8}]}, "height"),
        ({"action_names": ["a", "a"]}, "action_names"),
        ({"action_names": [["a"]]}, "action_names"),
        ({"action_names": ["a"]}, r"array state: expected float32\[9, 1\]"),
        ({"payload_sha256": "0" * 64}, "SHA-256 of the payload"),
        ({"extra": 1}, "manifest fields"),
        ({"takeovers": [{"asked_frame": 3, "takeover_frame": 2, "handback_frame": 5, "reason": ""}]}, "takeovers"),
        ({"takeovers": {}}, "takeovers: expected a list"),
    ],
)
def test_hostile_manifests_are_refused(change, message):
    refuse(rewrite(DATA, lambda manifest: manifest.update(change)), message)


MARKED = with_manifest(marks=(EpisodeMark(0, "hold", "late"), EpisodeMark(3, "stage", "grasp")))


def test_marks_are_kept():
    assert verify_bytes(*packed(MARKED)).manifest.marks == MARKED.manifest.marks
    assert packed(EPISODE)[0] == DATA  # an episode without marks is what it was before there were any


@pytest.mark.parametrize(
    ("marks", "message"),
    [
        ([], "marks: expected one or more"),
        (
            [{"frame": 4, "kind": "hold", "note": ""}, {"frame": 3, "kind": "hold", "note": ""}],
            "in the order of their frames",
        ),
        ([{"frame": 9, "kind": "hold", "note": ""}], "frame: expected an integer in 0..8"),
        ([{"frame": 1, "kind": "two words", "note": ""}], "kind"),
        ([{"frame": 1, "kind": "hold", "note": "x" * 201}], "note"),
        ([{"frame": 1, "kind": "hold"}], "marks: expected objects with"),
        ([{"frame": 1, "kind": "hold", "note": ""}] * 1001, "marks: expected a list of at most 1000"),
    ],
)
def test_hostile_marks_are_refused(marks, message):
    refuse(rewrite(packed(MARKED)[0], lambda manifest: manifest.update(marks=marks)), message)


def test_a_missing_field_is_refused():
    refuse(rewrite(DATA, lambda manifest: manifest.pop("world")), "manifest fields")


def test_takeovers_must_not_overlap():
    events = (TakeoverEvent(1, 2, 5, ""), TakeoverEvent(3, 4, 6, ""))
    with pytest.raises(InvalidEpisodeError, match="takeovers: expected asked <= takeover < handback, after frame 5"):
        pack(with_manifest(takeovers=events))


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (b"", "manifest.json: expected JSON"),
        (b"[]", "manifest.json: expected an object"),
        (b"{", "manifest.json: expected JSON"),
        (b"[" * 100_000, "manifest.json: expected JSON"),
        (b'"\xff"', "manifest.json: expected JSON"),
        (b"1" * 5000, "manifest.json: expected"),
        (b"{}", "schema_version: expected 1 to 2, got None"),
        (b"null\n", "manifest.json: expected an object"),
        (b'{"schema_version":' + b"[" * 300 + b"]" * 300 + b"}", "schema_version"),
        (b" " * (2**20 + 1), "manifest size"),
    ],
    ids=["empty", "list", "torn", "deep", "bytes", "digits", "no fields", "null", "nested", "huge"],
)
def test_manifests_that_are_not_ours_are_refused(text, message):
    def replace(name: str, content: bytes) -> tuple[str, bytes]:
        return name, text if name == "manifest.json" else content

    refuse(rewrite(DATA, edit_member=replace), message)


def test_manifest_with_another_spelling_is_refused():
    def respell(name: str, content: bytes) -> tuple[str, bytes]:
        return name, content.replace(b": ", b":") if name == "manifest.json" else content

    refuse(rewrite(DATA, edit_member=respell), "manifest.json: expected its canonical text")


@pytest.mark.parametrize("name", ["../../../../../etc/pwd", "frames/000001/head.jpg", "frames/000000/HEAD.jpg"])
def test_member_names_other_than_the_expected_are_refused(name):
    def rename(old: str, content: bytes) -> tuple[str, bytes]:
        return (name if old == "frames/000000/head.jpg" else old), content

    refuse(rewrite(DATA, edit_member=rename), "member at byte 0: expected frames/000000/head.jpg, got b")


@pytest.mark.parametrize("name", ["arrays/time_ns.npy/../../etc/passwd", "/etc/passwd", ""])
def test_member_names_of_another_length_are_refused(name):
    def rename(old: str, content: bytes) -> tuple[str, bytes]:
        return (name if old == "arrays/time_ns.npy" else old), content

    refuse(rewrite(DATA, edit_member=rename), r"member at byte \d+: expected arrays/time_ns.npy, got b")


@pytest.mark.parametrize(
    ("before", "message"),
    [
        ("arrays/state.npy", "end of the images: expected byte"),
        ("arrays/action.npy", "member at byte"),
        ("manifest.json", "member at byte"),
        ("", "end of manifest.json: expected byte"),
    ],
    ids=["after the images", "between arrays", "before the manifest", "after the manifest"],
)
def test_bytes_hidden_between_members_are_refused(before, message):
    """Every checksum, offset and directory entry is right, but something lies where no member is."""
    names = zipfile.ZipFile(io.BytesIO(DATA)).namelist()
    contents = {name: zipfile.ZipFile(io.BytesIO(DATA)).read(name) for name in names}
    writer, members, arrays_offset = ZipWriter("hostile"), [], 0
    for name in names:
        if name == before:
            writer.add("hidden", b"payload")
        if name == "arrays/state.npy":
            arrays_offset = writer.offset
        content = contents[name]
        if name == "manifest.json":
            told = json.loads(content) | {"payload_sha256": writer.sha256()}
            content = (json.dumps(told, indent=1) + "\n").encode()
        members.append(writer.add(name, content))
    if not before:
        writer.add("hidden", b"payload")
    end = bytearray(directory(members, arrays_offset))
    end[-FOOTER_BYTES + 16 : -FOOTER_BYTES + 20] = writer.offset.to_bytes(4, "little")
    hostile = writer.finish(arrays_offset)[: writer.offset] + bytes(end)
    assert zipfile.ZipFile(io.BytesIO(hostile)).testzip() is None, "other tools would take it"
    refuse(hostile, message)


def test_zips_made_by_other_tools_are_refused():
    for method in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
        buffer = io.BytesIO()
        with zipfile.ZipFile(buffer, "w", method) as archive:
            for name in zipfile.ZipFile(io.BytesIO(DATA)).namelist():
                archive.writestr(name, zipfile.ZipFile(io.BytesIO(DATA)).read(name))
        refuse(buffer.getvalue(), "end record: expected a zip end record with the comment 'sop-episode")


def test_compression_overlaps_and_lies_about_sizes_are_refused():
    first = bytearray(DATA)
    first[8] = 8
    refuse(bytes(first), r"compression of frames/000000/head.jpg: expected method 0 \(stored\), got 8")
    longer = bytearray(DATA)
    longer[18:26] = (2**31).to_bytes(4, "little") * 2
    refuse(bytes(longer), "size of frames/000000/head.jpg: expected at most")
    refuse(DATA + b"x", "end record")
    refuse(b"x" + DATA, "size in bytes")


@pytest.mark.parametrize(
    ("jpeg", "message"),
    [
        (b"", "JPEG of head: expected a JPEG header"),
        (b"not a jpeg", "JPEG of head: expected a JPEG header"),
        (encode_image(np.zeros((8, 9, 3), np.uint8)), "JPEG of head: expected YCbCr or RGB, 8x8, got 'YCbCr, 8x9'"),
        (EPISODE.jpegs[0][0][:-2], "JPEG of head: expected an end marker"),
    ],
)
def test_jpegs_must_decode_to_the_declared_size(jpeg, message):
    jpegs = ((jpeg, EPISODE.jpegs[0][1]), *EPISODE.jpegs[1:])
    refuse(pack(dataclasses.replace(EPISODE, jpegs=jpegs)), message)


def test_a_jpeg_that_breaks_in_the_middle_is_found_when_every_pixel_is_decoded():
    whole = EPISODE.jpegs[0][0]
    scan = whole.index(b"\xff\xda")
    broken = whole[: scan + 14] + b"\xff\xd9"
    data = pack(dataclasses.replace(EPISODE, jpegs=((broken, EPISODE.jpegs[0][1]), *EPISODE.jpegs[1:])))
    verify_bytes(data, PATH)
    refuse(data, "JPEG of head: expected a whole JPEG", decode_all_images=True)


def test_flags_other_than_zero_and_one_are_refused():
    def poison(name: str, content: bytes) -> tuple[str, bytes]:
        return name, content[:-1] + b"\x02" if name == "arrays/intervention.npy" else content

    refuse(rewrite(DATA, edit_member=poison), "array intervention: expected bytes 0 or 1")


def test_arrays_of_the_right_size_and_the_wrong_type_are_refused():
    def retype(name: str, content: bytes) -> tuple[str, bytes]:
        return name, content.replace(b"<f4", b"<i4") if name == "arrays/state.npy" else content

    refuse(rewrite(DATA, edit_member=retype), r"array state: expected float32\[9, 16\].*<i4")


def test_object_arrays_never_reach_pickle():
    buffer = io.BytesIO()
    np.save(buffer, np.array([{"a": 1}] * 9, object), allow_pickle=True)

    def poison(name: str, content: bytes) -> tuple[str, bytes]:
        return name, buffer.getvalue() if name == "arrays/time_ns.npy" else content

    refuse(rewrite(DATA, edit_member=poison), r"array time_ns: expected int64\[9\]")
