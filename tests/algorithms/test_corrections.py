"""Recovery and balance, on episodes small enough to see."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from sop_jax.algorithms import corrections
from sop_jax.algorithms.corrections import (
    RecoveryConfig,
    balance_frames,
    find_recovery,
    find_takeovers,
    mean_taught,
)
from sop_jax.specs.errors import ConfigError, UnlabelledEpisodeError
from tests.algorithms.conftest import episode_of

NEAR = RecoveryConfig(within_rad=0.15, max_frames=4)


def recovery_of(who, pose, rewind_frames=2, config=NEAR):
    frames = find_recovery(*episode_of(who, pose=pose), rewind_frames, config)
    return "".join("r" if recovers else "." for recovers in frames)


def human(who):
    return np.array([letter == "h" for letter in who], bool)


def test_takeovers_are_runs_of_human_frames():
    assert find_takeovers(human("hhpphph")) == [(0, 2), (4, 5), (6, 7)]
    assert find_takeovers(human("ppp")) == []
    assert find_takeovers(human("")) == []


@pytest.mark.parametrize(
    ("who", "pose", "expected"),
    [
        # The policy goes astray from frame 2 on; the human goes back to where frame 0 was, then on another way.
        ("pppaahhhhh", [0.0, 0.1, 0.4, 0.7, 1.0, 1.0, 0.6, 0.1, 0.2, 0.3], ".....rr..."),
        # Frames 2 and 3 led to the request at 4: being near them is not being back.
        ("ppppahhh", [0.0, 0.1, 0.7, 0.8, 0.9, 1.0, 0.8, 0.1], ".....rr."),
        # The policy stood still: the robot is where it was, there is no way back.
        ("ppppahhh", [0.0] * 8, "........"),
        # The human goes on from where the robot is.
        ("pppahhhh", [0.0, 0.1, 0.4, 0.7, 1.0, 1.3, 1.6, 1.9], "........"),
        # Back after five frames, where four are allowed: not a recovery but the way to the goal.
        ("pppahhhhhhh", [0.0, 0.1, 0.4, 0.7, 1.0, 0.9, 0.8, 0.7, 0.6, 0.1, 0.0], "..........."),
        ("pppahhhhhhh", [0.0, 0.1, 0.4, 0.7, 1.0, 0.9, 0.8, 0.7, 0.1, 0.1, 0.0], "....rrrr..."),
        # Back only after the handback.
        ("pppahhpp", [0.0, 0.1, 0.4, 0.7, 1.0, 0.7, 0.1, 0.0], "........"),
        # Nothing was known before the request.
        ("ahhh", [1.0, 1.0, 0.5, 0.0], "...."),
        # Two takeovers, each with its own way back; the second may go back to what the first one showed.
        ("ppphhpppphhh", [0.0, 0, 0.9, 0.9, 0.0, 0.4, 0.5, 0.9, 1.2, 1.3, 0.4, 0.4], "...r.....r.."),
    ],
)
def test_recovery_ends_where_the_arm_is_back(who, pose, expected):
    assert recovery_of(who, pose) == expected


def test_grippers_do_not_matter_and_every_joint_does():
    manifest, arrays = episode_of("ppphhh", pose=[0.0, 0.1, 0.5, 1.0, 0.5, 0.0])
    arrays.state[3:, 1] = 1.0  # The gripper closed meanwhile.
    np.testing.assert_array_equal(np.flatnonzero(find_recovery(manifest, arrays, 2, NEAR)), [3, 4])
    manifest = type(manifest)(**{**vars(manifest), "action_names": ("a", "b")})  # Now it's another joint.
    assert not find_recovery(manifest, arrays, 2, NEAR).any()


def test_an_episode_of_endless_takeovers_costs_so_many_comparisons_and_no_more(monkeypatch):
    """5,000 takeovers of four frames, none of them a way back: 400 million comparisons, and no robot works like that."""
    monkeypatch.setattr(corrections, "MAX_COMPARISONS", 2_000_000)
    compared, has_stood_at = [], corrections._has_stood_at

    def count(known, pose, within_rad):
        compared.append(known.shape[1])
        return has_stood_at(known, pose, within_rad)

    monkeypatch.setattr(corrections, "_has_stood_at", count)
    who = "pppphhhh" * 5_000
    manifest, arrays = episode_of(who, pose=[float(letter == "h") for letter in who])
    with pytest.raises(UnlabelledEpisodeError, match=r"at most 2,000,000 poses .* with 5000 takeovers in 40000 frames"):
        find_recovery(manifest, arrays, 2, NEAR)
    assert 1_990_000 < sum(compared) <= 2_000_000
    few = episode_of(who[:800], pose=arrays.state[:800, 0].tolist())
    assert not find_recovery(*few, 2, NEAR).any()


def test_an_hour_of_hard_work_is_within_the_limit():
    num_frames, num_takeovers = 60 * 60 * 30, 50
    worst = num_takeovers * (RecoveryConfig().max_frames + 1) * num_frames
    assert worst <= corrections.MAX_COMPARISONS


@given(seed=st.integers(0, 99), within_rad=st.sampled_from([0.05, 0.3, 1.0]), num_joints=st.integers(0, 4))
def test_near_means_near_in_every_joint(seed, within_rad, num_joints):
    rng = np.random.default_rng(seed)
    known = rng.uniform(-1, 1, (num_joints, 7)).astype(np.float32)
    pose = rng.uniform(-1, 1, num_joints).astype(np.float32)
    expected = any(all(abs(known[j, n] - pose[j]) <= within_rad for j in range(num_joints)) for n in range(7))
    assert corrections._has_stood_at(known, pose, within_rad) == expected


def test_weights_are_shared_inside_a_takeover_or_an_episode():
    who = human("hhhhpphhp")
    np.testing.assert_allclose(balance_frames(who, who, "frames", 12), [1, 1, 1, 1, 0, 0, 1, 1, 0])
    np.testing.assert_allclose(balance_frames(who, who, "takeovers", 12), [3, 3, 3, 3, 0, 0, 6, 6, 0])
    np.testing.assert_allclose(balance_frames(who, who, "episodes", 12), [2, 2, 2, 2, 0, 0, 2, 2, 0])
    teaches = human("pphhpphhp")  # The first two frames of the first takeover were its recovery.
    np.testing.assert_allclose(balance_frames(teaches, who, "takeovers", 12), [0, 0, 6, 6, 0, 0, 6, 6, 0])
    none = np.zeros(9, bool)
    for balance in ("frames", "takeovers", "episodes"):
        np.testing.assert_array_equal(balance_frames(none, who, balance, 12), np.zeros(9))


def test_a_chunk_counts_as_its_taught_actions_do_on_average():
    masks = np.array([[1, 1, 1], [0, 0, 0], [1, 0, 1], [1, 1, 0]], bool)
    weights = np.array([2.0, 4.0, 0.0, 8.0], np.float32)
    # Past the end stands the last frame: row 2 is frames 2, 3, 3 and row 3 is 3, 3, 3.
    np.testing.assert_allclose(mean_taught(masks, weights), [2.0, 0.0, 4.0, 8.0])
    assert mean_taught(np.zeros((0, 3), bool), np.zeros(0, np.float32)).shape == (0,)


@given(st.text("ph", min_size=1, max_size=40))
def test_every_takeover_adds_up_to_the_same(who):
    weights = balance_frames(human(who), human(who), "takeovers", 30)
    for start, end in find_takeovers(human(who)):
        assert weights[start:end].sum() == pytest.approx(30, rel=1e-5)


@pytest.mark.parametrize("changes", [{"within_rad": 0.0}, {"within_rad": float("nan")}, {"max_frames": -1}])
def test_bad_recoveries_are_refused(changes):
    with pytest.raises(ConfigError, match="within_rad must be positive and max_frames >= 0"):
        RecoveryConfig(**changes)
