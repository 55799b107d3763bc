import dataclasses
import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sop_jax.models.normalization import (
    NormStats,
    compute_norm_stats,
    decode_actions,
    encode_actions,
    identity_norm_stats,
    load_norm_stats,
    normalize_state,
    save_norm_stats,
)
from sop_jax.specs.records import EpisodeArrays


def episode(state: np.ndarray, action: np.ndarray) -> EpisodeArrays:
    num = len(state)
    return EpisodeArrays(
        state=state.astype(np.float32),
        action=action.astype(np.float32),
        intervention=np.zeros(num, bool),
        policy_version=np.full(num, -1, np.int32),
        time_ns=np.arange(num),
        image_frames=np.arange(0, num, 3, dtype=np.int32),
    )


def moving(num: int = 40, seed: int = 0) -> EpisodeArrays:
    """Dimension 0 walks, dimension 1 never moves, dimension 2 is a gripper."""
    rng = np.random.default_rng(seed)
    walk = np.cumsum(rng.normal(0.05, 0.1, num))
    state = np.stack([walk, np.full(num, 0.7) + rng.normal(0, 1e-4, num), rng.uniform(0, 1, num)], axis=1)
    action = np.stack([walk + 0.2, np.full(num, 0.71), (walk > walk.mean()).astype(float)], axis=1)
    return episode(state, action)


def stats() -> NormStats:
    return compute_norm_stats([moving(seed=0), moving(seed=1)], horizon=4, absolute_dims=(2,))


def test_statistics_by_hand():
    ramp = np.arange(6.0)[:, None]
    norm = compute_norm_stats([episode(ramp, ramp + 0.5)], horizon=2, absolute_dims=())
    np.testing.assert_allclose(norm.state_mean, [2.5])
    np.testing.assert_allclose(norm.state_std, [np.std(np.arange(6.0))], rtol=1e-6)
    # The target of step 0 is half a unit ahead of the state, that of step 1 one and a half; neither varies.
    np.testing.assert_allclose(norm.action_mean, [[0.5], [1.5]])
    np.testing.assert_allclose(norm.action_std, [[2e-3], [2e-3]])
    np.testing.assert_allclose(norm.action_low, [[0.496], [1.496]], atol=1e-6)
    assert norm.action_is_delta.tolist() == [True]


def test_chunks_do_not_cross_episodes():
    a, b = np.zeros((4, 1)), np.full((4, 1), 100.0)
    norm = compute_norm_stats([episode(a, a), episode(b, b)], horizon=3, absolute_dims=())
    np.testing.assert_allclose(norm.action_mean, np.zeros((3, 1)))


def test_idle_dimensions_hold_their_target_and_grippers_are_absolute():
    norm = stats()
    assert norm.action_is_active.tolist() == [True, False, True]
    assert norm.action_is_delta.tolist() == [True, False, False]
    state = np.array([[0.3, 9.0, 0.5]], np.float32)
    wild = jnp.full((1, 4, 3), 5.0)
    decoded = np.asarray(decode_actions(norm, state, wild))
    np.testing.assert_allclose(decoded[..., 1], np.full((1, 4), 0.71), rtol=1e-6)
    np.testing.assert_allclose(decoded[0, :, 2], norm.action_mean[:, 2] + 5 * norm.action_std[:, 2], rtol=1e-5)
    np.testing.assert_allclose(decoded[0, :, 0], 0.3 + norm.action_mean[:, 0] + 5 * norm.action_std[:, 0], rtol=1e-5)
    assert float(encode_actions(norm, state, decoded)[0, 0, 1]) == 0.0


@settings(max_examples=25)
@given(seed=st.integers(0, 2**31), scheme=st.sampled_from(["mean_std", "quantile"]))
def test_encoding_and_decoding_are_inverse(seed, scheme):
    norm, rng = stats(), np.random.default_rng(seed)
    state = rng.normal(0, 1, (2, 3)).astype(np.float32)
    encoded = rng.normal(0, 2, (2, 4, 3)).astype(np.float32) * [1, 0, 1]
    back = encode_actions(norm, state, decode_actions(norm, state, jnp.asarray(encoded, jnp.float32), scheme), scheme)
    np.testing.assert_allclose(back, encoded, atol=2e-4)


def test_encoded_data_have_unit_spread():
    norm, data = stats(), moving(seed=0)
    chunks = np.stack([data.action[t : t + 4] for t in range(36)])
    encoded = np.asarray(encode_actions(norm, data.state[:36], chunks))
    assert 0.5 < encoded[..., 0].std() < 1.5
    quantiles = np.asarray(encode_actions(norm, data.state[:36], chunks, "quantile"))
    assert np.abs(quantiles[..., 0]).max() < 1.3


def test_quantile_formula_is_that_of_openpi():
    norm = dataclasses.replace(
        identity_norm_stats(1, 1, 1), state_low=np.array([2.0], np.float32), state_high=np.array([6.0], np.float32)
    )
    state = np.array([[3.0]], np.float32)
    np.testing.assert_allclose(
        normalize_state(norm, state, "quantile"), (state - 2.0) / (6.0 - 2.0 + 1e-6) * 2.0 - 1.0, rtol=1e-6
    )
    np.testing.assert_allclose(normalize_state(norm, state), [[3.0]])


def test_saving_keeps_every_bit_and_the_fingerprint(tmp_path):
    norm = stats()
    save_norm_stats(norm, tmp_path / "norm_stats.json")
    loaded = load_norm_stats(tmp_path / "norm_stats.json")
    for before, after in zip(jax.tree.leaves(norm), jax.tree.leaves(loaded), strict=True):
        np.testing.assert_array_equal(before, after)
        assert before.dtype == after.dtype
    assert loaded.fingerprint == norm.fingerprint
    changed = dataclasses.replace(norm, state_mean=norm.state_mean + np.float32(1e-6))
    assert changed.fingerprint != norm.fingerprint
    assert len(norm.fingerprint) == 16


def test_a_changed_file_is_refused(tmp_path):
    path = tmp_path / "norm_stats.json"
    save_norm_stats(stats(), path)
    content = json.loads(path.read_text())
    content["state_mean"][0] += 1
    path.write_text(json.dumps(content))
    with pytest.raises(ValueError, match="changed after it was written"):
        load_norm_stats(path)
    del content["state_std"]
    path.write_text(json.dumps(content))
    with pytest.raises(ValueError, match="state_std"):
        load_norm_stats(path)


def test_too_short_data_are_refused():
    with pytest.raises(ValueError, match="at least one episode of 50 frames"):
        compute_norm_stats([moving(10)], horizon=50)


def test_new_statistics_cause_no_new_compilation():
    compilations = []

    @jax.jit
    def encode(norm: NormStats, state, actions):
        compilations.append(1)
        return encode_actions(norm, state, actions)

    state, actions = np.zeros((1, 3), np.float32), np.zeros((1, 4, 3), np.float32)
    encode(stats(), state, actions)
    encode(compute_norm_stats([moving(seed=5)], 4, absolute_dims=(2,)), state, actions)
    assert len(compilations) == 1
