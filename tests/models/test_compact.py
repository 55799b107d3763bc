import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from model_cases import COMPACT, make_batch, norm_for

from sop_jax.models.compact import CompactConfig, CompactPolicy
from sop_jax.models.policy import abstract_params
from sop_jax.models.pytrees import count_params

MODEL = CompactPolicy(COMPACT)


def test_the_preset_has_about_two_million_parameters():
    assert count_params(abstract_params(CompactPolicy(CompactConfig()))) == 2_069_284


def test_the_loss_of_a_silent_head_is_noise_plus_actions():
    """With v = 0 the expected error is E[(noise - a)^2] = 1 + a^2."""
    model = CompactPolicy(dataclasses.replace(COMPACT, num_draws=400))
    params = jax.tree.map(jnp.zeros_like, abstract_params(model))
    batch = dataclasses.replace(make_batch(model, batch=2), actions=np.full((2, 3, 4), 1.5, np.float32))
    loss = jax.jit(model.loss)(params, norm_for(model), batch, jax.random.key(0))
    np.testing.assert_allclose(loss, np.full((2, 3), 1 + 1.5**2), rtol=0.15)


def test_idle_dimensions_cost_nothing_and_hold_still():
    params = MODEL.init_params(jax.random.key(0))
    norm = dataclasses.replace(
        norm_for(MODEL),
        action_is_active=np.array([True, True, False, True]),
        action_mean=np.full((3, 4), 0.25, np.float32),
    )
    batch = make_batch(MODEL)
    loss = jax.jit(MODEL.loss)(params, norm, batch, jax.random.key(0))
    actions = batch.actions.copy()
    actions[..., 2] = 1e6
    moved = jax.jit(MODEL.loss)(params, norm, dataclasses.replace(batch, actions=actions), jax.random.key(0))
    np.testing.assert_array_equal(loss, moved)
    chunk = jax.jit(MODEL.sample_actions)(params, norm, batch.observation, jax.random.key(0))
    np.testing.assert_array_equal(chunk[..., 2], np.full((3, 3), 0.25, np.float32))


def test_it_learns_to_pick_the_named_square():
    """Two coloured squares, one per image half; the instruction names one; the action is where it is."""
    model = CompactPolicy(dataclasses.replace(COMPACT, cameras=("head",)))
    rng, num = np.random.default_rng(0), 256
    batch = make_batch(model, num)
    red_left, wants_red = rng.random(num) < 0.5, rng.random(num) < 0.5
    images = np.full((num, 16, 16, 3), 100, np.uint8)
    images[:, 5:11, 1:7] = np.where(red_left[:, None, None, None], [220, 30, 30], [30, 30, 220])
    images[:, 5:11, 9:15] = np.where(red_left[:, None, None, None], [30, 30, 220], [220, 30, 30])
    tokens, mask = model.tokenize([f"take the {'red' if red else 'blue'} can" for red in wants_red])
    side = np.where(red_left == wants_red, 1.0, -1.0).astype(np.float32)
    observation = dataclasses.replace(batch.observation, images={"head": images}, tokens=tokens, token_mask=mask)
    batch = dataclasses.replace(batch, observation=observation, actions=np.tile(side[:, None, None], (1, 3, 4)))
    norm, optimizer = norm_for(model), optax.adam(5e-3)

    @jax.jit
    def train(params):
        def step(carry, key):
            params, state = carry
            grads = jax.grad(lambda p: model.loss(p, norm, batch, key).mean())(params)
            updates, state = optimizer.update(grads, state)
            return (optax.apply_updates(params, updates), state), None

        carry, _ = jax.lax.scan(step, (params, optimizer.init(params)), jax.random.split(jax.random.key(0), 150))
        return carry[0]

    params = train(model.init_params(jax.random.key(0)))
    chunk = jax.jit(model.sample_actions)(params, norm, batch.observation, jax.random.key(9))
    assert (np.sign(chunk.mean(axis=(1, 2))) == side).mean() > 0.97


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"patch_size": 5}, "multiple of patch_size, got 16 and 5"),
        ({"horizon": 0}, "horizon must be at least 1, got 0"),
        ({"cameras": ("a", "a")}, "distinct"),
        ({"state_dim": 3}, "state_dim must be at least action_dim, got 3 < 4"),
    ],
)
def test_bad_configs_are_refused(change, message):
    with pytest.raises(ValueError, match=message):
        dataclasses.replace(COMPACT, **change)
