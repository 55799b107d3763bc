"""The recorder: tiny episodes with the expected record beside them."""

import dataclasses

import numpy as np
import pytest
from episode_strategies import packed, small_spec

from sop_jax.episodes.images import decode_images
from sop_jax.episodes.recorder import EpisodeRecorder
from sop_jax.episodes.synthetic import make_episode, make_observation
from sop_jax.episodes.verify import verify_bytes
from sop_jax.specs.errors import InvalidEpisodeError
from sop_jax.specs.records import NO_POLICY, EpisodeEnd, EpisodeMark, Observation, Outcome, Source, TakeoverEvent

EPISODE_ID = "robot-3.00000000000000000005.000001"
END = EpisodeEnd(Outcome.SUCCESS)


def recorder(**options) -> EpisodeRecorder:
    fields = {"task": "restock_shelf", "instruction": "go", "source": Source.ONLINE, "policy_version": 4}
    return EpisodeRecorder(small_spec, episode_id=EPISODE_ID, **(fields | options))


def observation(frame: int, images: bool = False) -> Observation:
    return make_observation(
        np.random.default_rng(frame), small_spec, time_ns=1000 + 10 * frame, instruction="go", images=images
    )


def record(flags: str, asked: dict[int, str] | None = None, **options):
    """One frame per character: 'p' policy, 'h' human."""
    episode = recorder(**options)
    for frame, actor in enumerate(flags):
        if asked and frame in asked:
            episode.takeover_asked(asked[frame])
        episode.add(observation(frame, images=frame % 2 == 0), np.zeros(16), intervention=actor == "h")
    return episode.seal(END)


def test_marks_lie_in_order_and_inside():
    episode = recorder()
    for frame in range(3):
        episode.add(observation(frame), np.zeros(16), intervention=False)
        episode.mark(EpisodeMark(2 - frame, "stage", f"{frame}"))
    episode.mark(EpisodeMark(3, "fault", "too\nlong " + "x" * 300))  # after the last frame
    sealed = episode.seal(END)
    told = [(mark.frame, mark.kind, mark.note[:9]) for mark in sealed.manifest.marks]
    assert told == [(0, "stage", "2"), (1, "stage", "1"), (2, "stage", "0"), (2, "fault", "toolong x")]
    assert verify_bytes(*packed(sealed)).manifest == sealed.manifest
    with pytest.raises(InvalidEpisodeError, match="kind of mark"):
        recorder().mark(EpisodeMark(0, "no name", ""))


def test_the_first_thousand_marks_are_kept():
    episode = recorder()
    episode.add(observation(0), np.zeros(16), intervention=False)
    for number in range(1005):
        episode.mark(EpisodeMark(0, "breach", str(number)))
    marks = episode.seal(END).manifest.marks
    assert [marks[0].note, marks[-1].note, len(marks)] == ["0", "999", 1000]


@pytest.mark.parametrize(
    ("flags", "asked", "events"),
    [
        ("pppp", {}, ()),
        ("pphh", {}, (TakeoverEvent(2, 2, 4, "operator"),)),
        ("pphhp", {1: "no_progress"}, (TakeoverEvent(1, 2, 4, "no_progress"),)),
        ("hphp", {2: "b"}, (TakeoverEvent(0, 0, 1, "operator"), TakeoverEvent(2, 2, 3, "b"))),
        ("ppph", {0: "first", 1: "second"}, (TakeoverEvent(0, 3, 4, "first"),)),
        ("phhp", {2: "while acting"}, (TakeoverEvent(1, 1, 3, "operator"),)),
        ("pppp", {2: "too late"}, ()),
    ],
)
def test_takeovers_are_the_edges_of_the_flags(flags, asked, events):
    episode = record(flags, asked)
    assert episode.manifest.takeovers == events
    assert episode.manifest.num_interventions == len(events)
    assert episode.arrays.intervention.tolist() == [actor == "h" for actor in flags]
    verify_bytes(*packed(episode))


def test_a_withdrawn_request_leaves_no_trace():
    episode = recorder()
    episode.takeover_asked("false alarm")
    episode.add(observation(0), np.zeros(16), intervention=False)
    episode.takeover_withdrawn()
    episode.add(observation(1), np.zeros(16), intervention=True)
    assert episode.seal(END).manifest.takeovers == (TakeoverEvent(1, 1, 2, "operator"),)


def test_what_goes_in_comes_out():
    episode = recorder(seed=9, world="shelf-2", weights_base="ab", norm_stats="cd")
    seen = [observation(frame, images=frame in (1, 3)) for frame in range(4)]
    actions = np.random.default_rng(0).uniform(0, 1, (4, 16)).astype(np.float32)
    buffer = np.empty(16, np.float32)
    for told, action in zip(seen, actions, strict=True):
        buffer[:] = action  # a caller may reuse its buffer
        episode.add(told, buffer, intervention=False)
    assert (episode.num_frames, episode.num_image_frames) == (4, 2)
    sealed = episode.seal(EpisodeEnd(Outcome.FAILURE, "dropped"), ended_ns=2000)
    manifest, arrays = sealed.manifest, sealed.arrays
    assert manifest.robot_id == "robot-3"
    assert (manifest.outcome, manifest.failure_kind) == (Outcome.FAILURE, "dropped")
    assert (manifest.started_ns, manifest.ended_ns, manifest.num_frames) == (1000, 2000, 4)
    assert (manifest.seed, manifest.world, manifest.weights_base, manifest.norm_stats) == (9, "shelf-2", "ab", "cd")
    np.testing.assert_array_equal(arrays.action, actions)
    np.testing.assert_array_equal(arrays.state, np.stack([told.state for told in seen]))
    assert arrays.time_ns.tolist() == [1000, 1010, 1020, 1030]
    assert arrays.policy_version.tolist() == [4, 4, 4, 4]
    assert arrays.image_frames.tolist() == [1, 3]
    decoded = decode_images(sealed.jpegs[1], manifest.cameras)
    for camera in small_spec.cameras:
        error = decoded[camera.name].astype(int) - seen[3].images[camera.name]
        assert np.abs(error).mean() < 6
    verify_bytes(*packed(sealed))


def test_demonstrations_have_no_takeovers():
    episode = record("hhh", policy_version=NO_POLICY, source=Source.OFFLINE)
    assert episode.manifest.takeovers == ()
    assert episode.arrays.policy_version.tolist() == [NO_POLICY] * 3
    assert episode.manifest.ended_ns == 1020 + 33_333_333
    verify_bytes(*packed(episode))


@pytest.mark.parametrize(
    ("change", "action", "version", "message"),
    [
        (
            {"state": np.zeros(15, np.float32)},
            np.zeros(16),
            None,
            r"must both have shape \(16,\), got \(15,\) and \(16,\)",
        ),
        ({}, np.zeros((1, 16)), None, r"must both have shape \(16,\), got \(16,\) and \(1, 16\)"),
        ({"time_ns": 1000}, np.zeros(16), None, "frame 1: time_ns must exceed 1000, got 1000"),
        ({}, np.zeros(16), 5, "policy_version 5 in an episode of version 4; swap policies at the episode's boundary"),
        ({"images": {"head": np.zeros((8, 8, 3), np.uint8)}}, np.zeros(16), None, "camera hand_left must give"),
        (
            {"images": {"head": np.zeros((8, 8, 3), np.float32)}},
            np.zeros(16),
            None,
            "camera head must give .*got .*float32",
        ),
    ],
)
def test_misfits_are_refused_and_leave_no_half_frame(change, action, version, message):
    episode = recorder()
    episode.add(observation(0, images=True), np.zeros(16), intervention=False)
    with pytest.raises(ValueError, match=message):
        episode.add(dataclasses.replace(observation(1), **change), action, intervention=True, policy_version=version)
    episode.add(observation(1), np.zeros(16), intervention=False)
    sealed = episode.seal(END)
    assert sealed.manifest.num_frames == 2
    assert sealed.manifest.takeovers == ()
    verify_bytes(*packed(sealed))


def test_an_episode_is_sealed_once_and_not_empty():
    episode = recorder()
    with pytest.raises(ValueError, match="without a frame"):
        episode.seal(END)
    episode.add(observation(0), np.zeros(16), intervention=False)
    episode.seal(END)
    with pytest.raises(ValueError, match="sealed already"):
        episode.seal(END)
    with pytest.raises(ValueError, match="sealed"):
        episode.add(observation(1), np.zeros(16), intervention=False)


def test_bad_headers_are_refused_at_once():
    with pytest.raises(InvalidEpisodeError, match="task 'Two Words' is not a valid name"):
        recorder(task="Two Words")
    with pytest.raises(ValueError, match="jpeg_quality must be 1 to 100, got 0"):
        recorder(jpeg_quality=0)
    with pytest.raises(ValueError, match="instruction must not be empty"):
        recorder(instruction="")
    with pytest.raises(InvalidEpisodeError, match="malformed"):
        EpisodeRecorder(small_spec, episode_id="x", task="t", instruction="i", source=Source.ONLINE, policy_version=1)


def test_synthetic_episodes_are_the_same_for_the_same_arguments():
    first, second = (packed(make_episode(5, num_frames=7, spec=small_spec, takeovers=((0, 1, 2),))) for _ in range(2))
    assert first == second
    verify_bytes(*first, spec=small_spec, decode_all_images=True)
    assert make_episode(6, spec=small_spec).manifest.episode_id != make_episode(5, spec=small_spec).manifest.episode_id
