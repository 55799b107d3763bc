import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx

from sop_jax.models.pi05.gemma import AdaRMSNorm, RMSNorm, apply_rope, attend, make_attention_mask


def test_attention_mask_by_hand():
    # Two prefix tokens, one of them padding; then a block of two actions.
    valid = jnp.array([[True, False, True, True]])
    mask = make_attention_mask(valid, jnp.array([False, False, True, False]))
    expected = [[1, 0, 0, 0], [0, 0, 0, 0], [1, 0, 1, 1], [1, 0, 1, 1]]
    np.testing.assert_array_equal(mask[0].astype(int), expected)


def test_rope_by_hand():
    # Head dimension 4: time scales 1 and 100; the first half pairs with the second.
    x = jnp.array([[[[1.0, 2.0, 3.0, 4.0]]]])
    out = np.asarray(apply_rope(x, jnp.array([[3]])))[0, 0, 0]
    fast, slow = 3.0, 3.0 / 100
    expected = [
        np.cos(fast) - 3 * np.sin(fast),
        2 * np.cos(slow) - 4 * np.sin(slow),
        3 * np.cos(fast) + np.sin(fast),
        4 * np.cos(slow) + 2 * np.sin(slow),
    ]
    np.testing.assert_allclose(out, expected, rtol=1e-5)
    np.testing.assert_array_equal(apply_rope(x, jnp.array([[0]])), x)


def test_rope_sees_distances_only():
    rng = np.random.default_rng(0)
    q, k = (jnp.asarray(rng.normal(size=(1, 1, 1, 8)), jnp.float32) for _ in range(2))

    def score(i: int, j: int) -> float:
        return float((apply_rope(q, jnp.array([[i]])) * apply_rope(k, jnp.array([[j]]))).sum())

    np.testing.assert_allclose(score(5, 2), score(105, 102), rtol=1e-3)
    assert abs(score(5, 2) - score(5, 3)) > 1e-3


def test_rms_norm_by_hand():
    norm = RMSNorm(2)
    norm.scale[...] = jnp.array([0.0, 1.0])
    out, gate = norm(jnp.array([[[3.0, 4.0]]]), None)
    rms = np.sqrt(12.5)
    np.testing.assert_allclose(out, [[[3 / rms, 2 * 4 / rms]]], rtol=1e-5)
    assert gate is None


def test_ada_rms_splits_scale_shift_gate():
    norm = AdaRMSNorm(2, False, nnx.Rngs(0))
    x = jnp.array([[[3.0, 4.0]]])
    out, gate = norm(x, jnp.ones((1, 2)))
    rms = np.sqrt(12.5)
    np.testing.assert_allclose(out, [[[3 / rms, 4 / rms]]], rtol=1e-5)
    np.testing.assert_array_equal(gate, np.zeros((1, 1, 2)))
    assert norm.Dense_0.bias is not None
    norm.Dense_0.bias[...] = jnp.array([1.0, 0.0, 5.0, 6.0, 7.0, 8.0])
    out, gate = norm(x, jnp.ones((1, 2)))
    np.testing.assert_allclose(out, [[[2 * 3 / rms + 5, 4 / rms + 6]]], rtol=1e-5)
    np.testing.assert_array_equal(gate, [[[7.0, 8.0]]])


def test_a_condition_per_token_equals_one_per_example_where_they_agree():
    norm = AdaRMSNorm(4, True, nnx.Rngs(0))
    x, cond = jax.random.normal(jax.random.key(0), (2, 3, 4)), jax.random.normal(jax.random.key(1), (2, 4))
    per_example, _ = norm(x, cond)
    per_token, _ = norm(x, jnp.repeat(cond[:, None], 3, axis=1))
    np.testing.assert_allclose(per_example, per_token, rtol=1e-5)


def test_grouped_attention_equals_a_loop():
    rng = np.random.default_rng(0)
    q, k, v = rng.normal(size=(2, 3, 4, 5)), rng.normal(size=(2, 6, 2, 5)), rng.normal(size=(2, 6, 2, 5))
    mask = rng.random((2, 3, 6)) < 0.7
    mask[:, :, 0] = True
    out = attend(*(jnp.asarray(a, jnp.float32) for a in (q, k, v)), jnp.asarray(mask))
    for b in range(2):
        for t in range(3):
            for head in range(4):
                scores = np.where(mask[b, t], k[b, :, head // 2] @ q[b, t, head], -np.inf)
                weights = np.exp(scores - scores.max())
                expected = weights / weights.sum() @ v[b, :, head // 2]
                np.testing.assert_allclose(out[b, t, head], expected, rtol=1e-4, atol=1e-5)
