"""Hypothesis strategies for any valid episode, and ways to break one."""

import io
import json
import zipfile
from collections.abc import Callable

import numpy as np
from hypothesis import strategies as st

from sop_jax.episodes.format import MANIFEST, pack
from sop_jax.episodes.images import encode_image
from sop_jax.episodes.synthetic import make_spec
from sop_jax.episodes.zip_layout import ZipWriter
from sop_jax.specs.identifiers import make_episode_id
from sop_jax.specs.records import (
    NO_POLICY,
    CameraSpec,
    Episode,
    EpisodeArrays,
    EpisodeManifest,
    EpisodeMark,
    Outcome,
    Source,
    TakeoverEvent,
)

names = st.from_regex(r"[a-z0-9](?:[a-z0-9_-]{0,8}[a-z0-9])?", fullmatch=True)
texts = st.text(st.characters(exclude_categories=("Cc", "Cs", "Zl", "Zp")), min_size=1, max_size=40)


@st.composite
def takeovers(draw: st.DrawFn, num_frames: int) -> tuple[TakeoverEvent, ...]:
    edges = sorted(draw(st.sets(st.integers(0, num_frames), max_size=6)))
    events = []
    for takeover, handback in zip(edges[::2], edges[1::2], strict=False):
        asked = draw(st.integers(max(0, takeover - 3), takeover))
        events.append(TakeoverEvent(asked, takeover, handback, draw(texts)))
    return tuple(events)


@st.composite
def marks(draw: st.DrawFn, num_frames: int) -> tuple[EpisodeMark, ...]:
    frames = sorted(draw(st.lists(st.integers(0, num_frames - 1), max_size=3)))
    return tuple(EpisodeMark(frame, draw(names), draw(texts)) for frame in frames)


@st.composite
def episodes(draw: st.DrawFn) -> Episode:
    """A valid episode with any names, sizes, flags and texts."""
    num_frames = draw(st.integers(1, 9))
    num_cameras = draw(st.integers(1, 3))
    camera_names = draw(st.lists(names, min_size=num_cameras, max_size=num_cameras, unique=True))
    cameras = tuple(CameraSpec(name, draw(st.integers(1, 9)), draw(st.integers(1, 9))) for name in camera_names)
    action_dim = draw(st.integers(1, 4))
    version = draw(st.sampled_from([NO_POLICY, 0, 3, 2**31 - 1]))
    events = draw(takeovers(num_frames)) if version != NO_POLICY else ()
    intervention = np.full(num_frames, version == NO_POLICY)
    for event in events:
        intervention[event.takeover_frame : event.handback_frame] = True
    rng = np.random.default_rng(draw(st.integers(0, 2**32)))
    started_ns = draw(st.integers(0, 2**62))
    image_frames = np.array(sorted(draw(st.sets(st.integers(0, num_frames - 1)))), np.int32)
    times = started_ns + np.cumsum(rng.integers(1, 10**9, num_frames))
    robot_id = draw(names)
    manifest = EpisodeManifest(
        episode_id=make_episode_id(robot_id, started_ns, draw(st.integers(0, 10**6))),
        robot_id=robot_id,
        task=draw(names),
        instruction=draw(texts),
        source=draw(st.sampled_from(Source)),
        policy_version=version,
        outcome=draw(st.sampled_from(Outcome)),
        control_hz=draw(st.floats(0.1, 1000)),
        num_frames=num_frames,
        cameras=cameras,
        action_names=tuple(f"joint{i}" for i in range(action_dim)),
        started_ns=started_ns,
        ended_ns=int(times[-1]) + draw(st.integers(0, 10**9)),
        failure_kind=draw(texts),
        weights_base=draw(texts),
        norm_stats=draw(texts),
        seed=draw(st.integers(-(2**63), 2**63 - 1)),
        world=draw(texts),
        takeovers=events,
        marks=draw(marks(num_frames)),
    )
    arrays = EpisodeArrays(
        state=rng.uniform(-9, 9, (num_frames, action_dim)).astype(np.float32),
        action=rng.uniform(-9, 9, (num_frames, action_dim)).astype(np.float32),
        intervention=intervention,
        policy_version=np.full(num_frames, version, np.int32),
        time_ns=times,
        image_frames=image_frames,
    )
    jpegs = tuple(
        tuple(encode_image(rng.integers(0, 256, (c.height, c.width, 3), np.uint8)) for c in cameras)
        for _ in image_frames
    )
    return Episode(manifest, arrays, jpegs)


def assert_equal(left: Episode, right: Episode) -> None:
    """Equal to the last bit, types included."""
    assert left.manifest == right.manifest
    assert left.jpegs == right.jpegs
    assert_arrays_equal(left.arrays, right.arrays)


def assert_arrays_equal(left: EpisodeArrays, right: EpisodeArrays) -> None:
    for name in ("state", "action", "intervention", "policy_version", "time_ns", "image_frames"):
        ours, theirs = getattr(left, name), getattr(right, name)
        assert ours.dtype == theirs.dtype
        np.testing.assert_array_equal(ours, theirs, err_msg=name)


def rewrite(
    data: bytes,
    edit_manifest: Callable[[dict], object] = lambda manifest: None,
    edit_member: Callable[[str, bytes], tuple[str, bytes]] = lambda name, content: (name, content),
) -> bytes:
    """The same object with edited members and every checksum made good again: what a malicious robot can upload."""
    archive = zipfile.ZipFile(io.BytesIO(data))
    writer, arrays_offset = ZipWriter("hostile"), 0
    for name in archive.namelist():
        content = archive.read(name)
        if name == "arrays/state.npy":
            arrays_offset = writer.offset
        if name == MANIFEST:
            manifest = json.loads(content)
            manifest["payload_sha256"] = writer.sha256()
            edit_manifest(manifest)
            content = (json.dumps(manifest, indent=1) + "\n").encode()
        writer.add(*edit_member(name, content))
    return writer.finish(arrays_offset)


def packed(episode: Episode) -> tuple[bytes, str]:
    """Bytes and path of an episode."""
    return pack(episode), f"episodes/{episode.manifest.robot_id}/{episode.manifest.episode_id}.zip"


small_spec = make_spec(image_size=8, camera_names=("head", "hand_left"))
