import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from sop_jax.algorithms.recap.returns import ReturnsConfig, advantages, returns, rewards, spread_values
from sop_jax.specs.errors import ConfigError
from sop_jax.specs.records import Outcome


def returns_of(num_frames: int, outcome: Outcome, max_frames: int = 10, cost: float = 1.0) -> list[float]:
    return returns(rewards(num_frames, outcome, max_frames, cost)).tolist()


def test_returns_by_hand():
    # T_max = 10 and C_fail = 10: everything is divided by 20.
    assert rewards(4, Outcome.SUCCESS, 10, 1.0).tolist() == [-0.05, -0.05, -0.05, 0.0]
    assert rewards(4, Outcome.FAILURE, 10, 1.0).tolist() == [-0.05, -0.05, -0.05, -0.5]
    np.testing.assert_allclose(returns_of(4, Outcome.SUCCESS), [-0.15, -0.1, -0.05, 0.0])
    np.testing.assert_allclose(returns_of(4, Outcome.FAILURE), [-0.65, -0.6, -0.55, -0.5])
    assert returns_of(4, Outcome.TIMEOUT) == returns_of(4, Outcome.FAILURE)
    # C_fail = 30: divided by 40
    np.testing.assert_allclose(returns_of(3, Outcome.FAILURE, cost=3.0), [-0.8, -0.775, -0.75])
    assert returns_of(1, Outcome.SUCCESS) == [0.0]


@pytest.mark.parametrize("outcome", [Outcome.ABORTED, Outcome.ERROR])
def test_an_end_that_says_nothing_has_no_return(outcome):
    with pytest.raises(ValueError, match=rf"ended as {outcome} has no return"):
        rewards(4, outcome, 10, 1.0)


def test_an_episode_longer_than_any_before_is_clipped():
    assert returns_of(30, Outcome.FAILURE)[0] == -1.0


@given(st.integers(1, 300), st.integers(0, 300), st.floats(1.0, 5.0))
def test_failures_neither_saturate_nor_meet_successes(num_frames, spare, cost):
    success = returns_of(num_frames, Outcome.SUCCESS, num_frames + spare, cost)
    failure = returns_of(num_frames, Outcome.FAILURE, num_frames + spare, cost)
    assert min(success) > max(failure)
    assert all(-1 <= value <= 0 for value in success + failure)
    assert len(set(failure)) == num_frames  # each frame its own return


def test_advantages_by_hand():
    reward = np.array([-0.1, -0.1, -0.1, -0.1, -0.5])
    values = np.array([-0.9, -0.6, -0.7, -0.5, -0.4])
    np.testing.assert_allclose(
        advantages(reward, values, 2),
        [
            -0.2 - 0.7 + 0.9,
            -0.2 - 0.5 + 0.6,
            -0.2 - 0.4 + 0.7,
            -0.6 + 0.0 + 0.5,  # frames 3 and 4 are left; beyond the end nothing is
            -0.5 + 0.0 + 0.4,
        ],
        atol=1e-12,
    )


def test_what_a_person_saves_is_no_merit_of_the_policys_last_frames():
    reward = np.full(7, -0.01)
    values = np.array([-0.4, -0.5, -0.6, -0.7, -0.3, -0.2, -0.1])  # worse and worse, until a person acts at 3 and 4
    human = np.array([False, False, False, True, True, False, False])
    paper, ours = advantages(reward, values, 3), advantages(reward, values, 3, human)
    np.testing.assert_allclose(paper[:3], [-0.33, 0.17, 0.37])
    np.testing.assert_allclose(ours[:3], [-0.33, -0.22, -0.11])  # up to frame 3, where the person finds it
    np.testing.assert_allclose(ours[3:], paper[3:])  # the person's own, and what comes after


@given(st.integers(1, 60), st.integers(1, 100))
def test_an_exact_value_function_sees_no_advantage(num_frames, ahead):
    reward = rewards(num_frames, Outcome.FAILURE, 100, 1.0)
    np.testing.assert_allclose(advantages(reward, returns(reward), ahead), 0.0, atol=1e-12)


def test_frames_without_images_take_values_between_their_neighbours():
    values = spread_values(np.array([-0.8, -0.2], np.float32), np.array([1, 4], np.int32), 7)
    np.testing.assert_allclose(values, [-0.8, -0.8, -0.6, -0.4, -0.2, -0.2, -0.2], rtol=1e-6)


@pytest.mark.parametrize("changes", [{"failure_cost": 0.0}, {"advantage_frames": 0}, {"failure_cost": float("nan")}])
def test_bad_configs_are_refused(changes):
    with pytest.raises(ConfigError, match="failure_cost > 0 and advantage_frames >= 1"):
        ReturnsConfig(**changes)
