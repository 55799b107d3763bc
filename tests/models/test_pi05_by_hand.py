"""pi0.5's parts against numbers worked out by hand (or in float64), beside those of test_gemma.py and test_flow.py."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from model_cases import PI05

from sop_jax.models import flow
from sop_jax.models.pi05 import gemma, siglip
from sop_jax.models.pi05.network import suffix_attention
from sop_jax.models.pi05.prompt import discretize_state


def test_attention_mask_and_positions_of_a_whole_sequence():
    """Camera A (2 tokens), camera B missing (2), a prompt of 2 tokens and 1 of padding, 2 actions."""
    valid = jnp.array([[True, True, False, False, True, True, False]])
    positions, mask = suffix_attention(valid, 2)
    #            A  A  B  B  p  p  -  a  a
    nobody = [0, 0, 0, 0, 0, 0, 0, 0, 0]
    prefix = [1, 1, 0, 0, 1, 1, 0, 0, 0]
    action = [1, 1, 0, 0, 1, 1, 0, 1, 1]
    expected = [prefix, prefix, nobody, nobody, prefix, prefix, nobody, action, action]
    np.testing.assert_array_equal(mask[0].astype(int), expected)
    # Four valid tokens before the actions, so these are the fifth and the sixth.
    assert positions[0].tolist() == [0, 1, 1, 1, 2, 3, 3, 4, 5]


def test_time_embedding_by_hand_where_the_fast_angle_is_no_whole_turn():
    # dim 4, t = 5/16: 0.3125 / 4e-3 = 78.125 turns, an eighth past 78; 0.3125 / 4 = 0.078125 turns.
    half, slow = np.sqrt(0.5), 2 * np.pi * 0.078125
    embedded = flow.embed_time(jnp.array([0.3125]), 4)
    np.testing.assert_allclose(embedded, [[half, np.sin(slow), half, np.cos(slow)]], atol=1e-6)
    np.testing.assert_allclose(flow.embed_time(jnp.array([0.0, 1.0]), 4), [[0, 0, 1, 1], [0, 1, 1, 0]], atol=1e-6)


def test_time_embedding_is_exact_to_float32():
    """At 250 turns the plain float32 product is 2e-4 off."""
    time = np.random.default_rng(0).random(500).astype(np.float32)
    period = 4e-3 * 1000 ** np.linspace(0, 1, 512)
    angle = 2 * np.pi * time.astype(np.float64)[:, None] / period
    expected = np.concatenate([np.sin(angle), np.cos(angle)], axis=-1)
    embed = jax.jit(flow.embed_time, static_argnums=1)
    np.testing.assert_allclose(embed(jnp.asarray(time), 1024), expected, atol=1e-6)
    # A guided sampler differentiates with respect to time: d sin / dt = 2 pi / period * cos.
    slope = jax.grad(lambda t: flow.embed_time(t[None], 4)[0, 0])(jnp.float32(0.3125))
    np.testing.assert_allclose(slope, 2 * np.pi / 4e-3 * np.sqrt(0.5), rtol=1e-4)


def test_state_bins_at_their_edges():
    """Bins are 1/128 wide and own their lower edge."""
    step = 1 / 128
    below = np.nextafter
    values = [
        -1,
        below(-1 + step, -2),
        -1 + step,
        below(0, -1),
        0,
        below(step, 0),
        step,
        below(1 - step, 0),
        1 - step,
        1,
    ]
    expected = [0, 0, 1, 127, 128, 128, 129, 254, 255, 255]
    values = np.array(values, np.float64)
    values = np.where(values % step == 0, values, values - 1e-6)  # float32 has no neighbour as near
    np.testing.assert_array_equal(discretize_state(jnp.asarray(values, jnp.float32)[None])[0], expected)


def test_geglu_by_hand():
    config = dataclasses.replace(PI05.expert, width=2, mlp_dim=1)
    feed = gemma.FeedForward(config, nnx.Rngs(0))
    feed.gating_einsum[...] = jnp.array([[[1.0], [0.0]], [[0.0], [3.0]]])  # gate = x0, value = 3 x1
    feed.linear[...] = jnp.array([[1.0, -10.0]])
    # tanh approximation: gelu(1) = 0.5 (1 + tanh(0.79788456 * 1.044715)) = 0.84119199; the exact one is 0.84134475.
    out = feed(jnp.array([[[1.0, 2.0]]]))
    np.testing.assert_allclose(out, [[[6 * 0.84119199, -60 * 0.84119199]]], rtol=1e-6)


def test_rms_norm_adds_its_epsilon_inside_the_root():
    # Mean square 1e-6, so with epsilon 1e-6 the root is of 2e-6.
    normed, _ = gemma.RMSNorm(2)(jnp.array([[[1e-3, -1e-3]]]), None)
    np.testing.assert_allclose(normed, [[[np.sqrt(0.5), -np.sqrt(0.5)]]], rtol=1e-5)


def test_siglip_layer_norms_have_epsilon_1e_6():
    config = dataclasses.replace(PI05.vision, width=2, num_heads=1)
    encoder = siglip.Encoder(config, jnp.dtype("float32"), False, nnx.Rngs(0))
    block = siglip.EncoderBlock(config, jnp.dtype("float32"), nnx.Rngs(0))
    x = jnp.array([[[1e-3, -1e-3]]])  # variance 1e-6
    for norm in (encoder.encoder_norm, block.LayerNorm_0, block.LayerNorm_1):
        np.testing.assert_allclose(norm(x), [[[np.sqrt(0.5), -np.sqrt(0.5)]]], rtol=1e-5)


def test_siglip_mlp_uses_the_tanh_approximation():
    mlp = siglip.Mlp(
        dataclasses.replace(PI05.vision, width=2, mlp_dim=1, num_heads=1), jnp.dtype("float32"), nnx.Rngs(0)
    )
    mlp.Dense_0.kernel[...] = jnp.array([[1.0], [0.0]])
    mlp.Dense_1.kernel[...] = jnp.array([[1.0, 2.0]])
    np.testing.assert_allclose(mlp(jnp.array([[[1.0, 5.0]]])), [[[0.84119199, 2 * 0.84119199]]], rtol=1e-6)


def test_text_embeddings_are_scaled_by_the_root_of_the_width():
    embedder = gemma.Embedder(3, 4, False, nnx.Rngs(0))
    embedder.input_embedding[...] = jnp.arange(12.0).reshape(3, 4)
    np.testing.assert_array_equal(embedder(jnp.array([[2]]), jnp.dtype("float32")), [[[16.0, 18.0, 20.0, 22.0]]])


def test_the_gate_multiplies_what_is_added():
    x, y = jnp.array([[[1.0, 2.0]]]), jnp.array([[[10.0, 20.0]]])
    np.testing.assert_array_equal(gemma.add_gated(x, y, jnp.array([[[0.5, -1.0]]])), [[[6.0, -18.0]]])
    np.testing.assert_array_equal(gemma.add_gated(x, y, None), [[[11.0, 22.0]]])
