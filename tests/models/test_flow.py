import jax
import jax.numpy as jnp
import numpy as np
import pytest

from sop_jax.models import flow


def test_time_one_is_noise_and_time_zero_is_actions():
    noise, actions = jnp.array([2.0, -1.0]), jnp.array([0.5, 3.0])
    at_one, velocity = flow.interpolate(noise, actions, jnp.array([1.0]))
    at_zero, _ = flow.interpolate(noise, actions, jnp.array([0.0]))
    np.testing.assert_array_equal(at_one, noise)
    np.testing.assert_array_equal(at_zero, actions)
    np.testing.assert_array_equal(velocity, [1.5, -4.0])
    quarter, _ = flow.interpolate(noise, actions, jnp.array([0.25]))
    np.testing.assert_allclose(quarter, [0.875, 2.0])


def test_integrating_the_true_velocity_gives_the_actions():
    noise, actions = jnp.array([2.0, -1.0]), jnp.array([0.5, 3.0])
    for num_steps in (1, 7):
        result = flow.integrate(lambda x, t: noise - actions, noise, num_steps)
        np.testing.assert_allclose(result, actions, atol=1e-6)


def test_integration_visits_the_start_of_each_step():
    # dx/dt = t from t = 1 down: two Euler steps subtract 1/2 * (1 + 1/2).
    result = flow.integrate(lambda x, t: jnp.full_like(x, t), jnp.zeros(1), 2)
    np.testing.assert_allclose(result, [-0.75])
    with pytest.raises(ValueError, match="at least one step, got num_steps=0"):
        flow.integrate(lambda x, t: x, jnp.zeros(1), 0)


def test_times_follow_the_squeezed_beta_distribution():
    time = np.asarray(flow.sample_time(jax.random.key(0), (20_000,)))
    assert time.min() >= 0.001
    assert time.max() <= 1.0
    # Beta(1.5, 1): mean 1.5 / 2.5, distribution function t^1.5.
    assert time.mean() == pytest.approx(0.6 * 0.999 + 0.001, abs=0.01)
    assert (time < 0.5).mean() == pytest.approx(0.5**1.5, abs=0.01)


def test_time_embedding_by_hand():
    # dim 4: periods 4e-3 and 4; at t = 0.5 the angles are 2 pi * 125 and pi / 4.
    half = np.sqrt(0.5)
    np.testing.assert_allclose(flow.embed_time(jnp.array([0.5]), 4), [[0, half, 1, half]], atol=1e-3)
    # At t = 1e-3 the first angle is a quarter turn.
    np.testing.assert_allclose(flow.embed_time(jnp.array([1e-3]), 4)[0, [0, 2]], [1, 0], atol=1e-5)
    assert flow.embed_time(jnp.zeros((2, 3)), 8).shape == (2, 3, 8)
    with pytest.raises(ValueError, match="must be even, got 5"):
        flow.embed_time(jnp.zeros(1), 5)
