import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx

from sop_jax.models.pi05.gemma import Embedder, apply_rope, attend, make_attention_mask
from sop_jax.models.pi05.norms import AdaRMSNorm, Modulations, RMSNorm


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
    norm = AdaRMSNorm(2, jnp.dtype("float32"), False, nnx.Rngs(0))
    x, cond = jnp.array([[[3.0, 4.0]]]), jnp.ones((1, 1, 2))
    out, gate = norm(x, norm.modulate(cond))
    rms = np.sqrt(12.5)
    np.testing.assert_allclose(out, [[[3 / rms, 4 / rms]]], rtol=1e-5)
    np.testing.assert_array_equal(gate, np.zeros((1, 1, 2)))
    assert norm.Dense_0.bias is not None
    norm.Dense_0.bias[...] = jnp.array([1.0, 0.0, 5.0, 6.0, 7.0, 8.0])
    out, gate = norm(x, norm.modulate(cond))
    np.testing.assert_allclose(out, [[[2 * 3 / rms + 5, 4 / rms + 6]]], rtol=1e-5)
    np.testing.assert_array_equal(gate, [[[7.0, 8.0]]])


def test_a_table_of_modulations_gives_rows_for_all_for_examples_and_for_tokens():
    by_layer = jnp.arange(24.0).reshape(3, 4, 2)
    table = Modulations(by_layer, -by_layer, jnp.arange(8.0).reshape(4, 2))
    for rows, shape in ((2, (1, 1)), ([2, 0], (2, 1)), ([[2, 0, 3], [1, 1, 2]], (2, 3))):
        picked = table.at(jnp.asarray(rows))
        index = np.asarray(rows).reshape(shape)
        np.testing.assert_array_equal(picked.attention, np.asarray(table.attention)[:, index])
        np.testing.assert_array_equal(picked.feed_forward, np.asarray(table.feed_forward)[:, index])
        np.testing.assert_array_equal(picked.final, np.asarray(table.final)[index])


def test_bfloat16_follows_openpi():
    """Modulations and the embedding's factor in the low precision, the normalised value times (1 + scale) in float32."""
    half, width = jnp.dtype("bfloat16"), 5
    norm = AdaRMSNorm(width, half, True, nnx.Rngs(0))
    x = jax.random.normal(jax.random.key(0), (2, 3, width)).astype(half)
    modulation = norm.modulate(jax.random.normal(jax.random.key(1), (2, 1, width)))
    assert modulation.dtype == half
    out, gate = norm(x, modulation)
    wide = np.asarray(x, np.float32)
    normed = wide / np.sqrt(np.square(wide).mean(-1, keepdims=True) + 1e-6)
    scale, shift, closing = np.split(np.asarray(modulation), 3, axis=-1)
    expected = normed * np.asarray(1 + jnp.asarray(scale), np.float32) + np.asarray(shift, np.float32)
    np.testing.assert_allclose(np.asarray(out, np.float32), expected, rtol=2**-8)
    np.testing.assert_array_equal(gate, closing)

    embedder = Embedder(7, width, False, nnx.Rngs(0))
    embedder.input_embedding[...] = embedder.input_embedding[...] * 100
    table = np.asarray(embedder.input_embedding[...])
    out = embedder(jnp.array([[6, 1]]), half)
    np.testing.assert_array_equal(out[0], jnp.asarray(table[[6, 1]] * np.float32(np.sqrt(width)), half))
    embedder.input_embedding[...] = embedder.input_embedding[...].astype(half)
    factor = jnp.asarray(np.sqrt(width), half)
    np.testing.assert_array_equal(embedder(jnp.array([[6]]), half)[0, 0], jnp.asarray(table[6], half) * factor)


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
