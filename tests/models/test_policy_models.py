"""What every policy must do, whatever is inside."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from model_cases import MODELS, make_batch, make_observation, norm_for, randomize

from sop_jax.models.normalization import identity_norm_stats
from sop_jax.models.policy import PolicyModel, abstract_params
from sop_jax.models.pytrees import flatten_params
from sop_jax.models.registry import create_model

KEY = jax.random.key(3)


@pytest.fixture(scope="module", params=sorted(MODELS))
def case(request) -> tuple[PolicyModel, dict]:
    model = create_model(MODELS[request.param])
    return model, randomize(abstract_params(model))


def test_the_model_is_static(case):
    model, _ = case
    again = create_model(model.config)
    assert again == model
    assert hash(again) == hash(model)
    assert isinstance(model, PolicyModel)


@pytest.mark.parametrize("name", ["compact", "pi05_tokens"])
def test_init_gives_plain_nested_dicts_that_differ_by_key(name):
    model = create_model(MODELS[name])
    init = jax.jit(model.init_params)
    first, second = flatten_params(init(jax.random.key(0))), flatten_params(init(jax.random.key(1)))
    shapes = flatten_params(abstract_params(model))
    assert {path: leaf.shape for path, leaf in first.items()} == {path: leaf.shape for path, leaf in shapes.items()}
    assert all(isinstance(name, str) for path in first for name in path)
    assert any(not np.array_equal(first[path], second[path]) for path in first)


def test_loss_is_per_action_and_reaches_every_parameter(case):
    model, params = case
    batch, norm = make_batch(model), norm_for(model)

    def total(params):
        loss = model.loss(params, norm, batch, KEY)
        return loss.mean(), loss

    (_, loss), grads = jax.jit(jax.value_and_grad(total, has_aux=True))(params)
    assert loss.shape == (3, model.horizon)
    assert loss.dtype == jnp.float32
    untouched = [path for path, grad in flatten_params(grads).items() if not np.abs(grad).max() > 0]
    # The last layer of the language model is read through its keys and values only; what follows them is unused.
    assert all(path[:2] == ("PaliGemma", "llm") and not any(n.endswith("_1") for n in path) for path in untouched)
    assert len(untouched) <= 1


def test_an_examples_loss_depends_on_it_alone(case):
    model, params = case
    batch, norm = make_batch(model), norm_for(model)
    loss = jax.jit(model.loss)
    before = loss(params, norm, batch, KEY)
    actions = batch.actions.copy()
    actions[1, 2] += 1.0
    after = loss(params, norm, dataclasses.replace(batch, actions=actions), KEY)
    np.testing.assert_allclose(before[jnp.array([0, 2])], after[jnp.array([0, 2])], rtol=1e-5)
    assert abs(float(before[1, 2] - after[1, 2])) > 1e-3


def test_sampling_is_deterministic_and_in_raw_units(case):
    model, params = case
    observation, norm = make_observation(model, ["put the red can"] * 2), norm_for(model)
    sample = jax.jit(model.sample_actions)
    chunk = sample(params, norm, observation, KEY)
    assert chunk.shape == (2, model.horizon, model.action_dim)
    np.testing.assert_array_equal(chunk, sample(params, norm, observation, KEY))
    assert np.abs(chunk - sample(params, norm, observation, jax.random.key(4))).max() > 1e-3
    shifted = dataclasses.replace(norm, action_is_delta=np.ones(model.action_dim, bool))
    expected = chunk + observation.state[:, None, : model.action_dim]
    np.testing.assert_allclose(sample(params, shifted, observation, KEY), expected, atol=1e-5)


def test_every_part_of_the_observation_counts(case):
    model, params = case
    norm, sample = norm_for(model), jax.jit(model.sample_actions)
    observation = make_observation(model, ["put the red can into the left slot"])
    base = sample(params, norm, observation, KEY)

    def changed(**fields) -> float:
        return float(np.abs(sample(params, norm, dataclasses.replace(observation, **fields), KEY) - base).max())

    for instruction in ("put the red can into the right slot", "put the left can into the red slot"):
        tokens, token_mask = model.tokenize([instruction])
        assert changed(tokens=tokens, token_mask=token_mask) > 1e-5
    assert changed(state=-observation.state) > 1e-5
    for name in model.cameras:
        assert changed(images={**observation.images, name: 255 - observation.images[name]}) > 1e-5


def test_masked_cameras_and_padding_are_never_seen(case):
    model, params = case
    norm, sample = norm_for(model), jax.jit(model.sample_actions)
    observation = make_observation(model, ["put the red can"])
    observation = dataclasses.replace(observation, image_mask={**observation.image_mask, "head": np.zeros(1, bool)})
    base = sample(params, norm, observation, KEY)
    other = dataclasses.replace(
        observation,
        images={**observation.images, "head": 255 - observation.images["head"]},
        tokens=np.where(observation.token_mask, observation.tokens, 17).astype(np.int32),
    )
    np.testing.assert_allclose(sample(params, norm, other, KEY), base, atol=1e-6)


def test_an_empty_instruction_is_allowed(case):
    model, params = case
    chunk = jax.jit(model.sample_actions)(params, norm_for(model), make_observation(model, [""]), KEY)
    assert np.isfinite(chunk).all()


def test_larger_images_are_resized(case):
    model, params = case
    chunk = jax.jit(model.sample_actions)(params, norm_for(model), make_observation(model, ["x"], size=24), KEY)
    assert np.isfinite(chunk).all()


def test_unfit_inputs_are_refused_with_the_fix(case):
    model, params = case
    observation, norm = make_observation(model, ["x"]), norm_for(model)
    blind = dataclasses.replace(observation, images={"head": observation.images["head"]})
    with pytest.raises(ValueError, match=r"lacks \['hand_left'\].*Set `cameras`"):
        model.sample_actions(params, norm, blind, KEY)
    with pytest.raises(ValueError, match=r"statistics are for \(9, 4\).*model's own horizon"):
        model.sample_actions(params, identity_norm_stats(5, 4, 9), observation, KEY)
    with pytest.raises(ValueError, match="state has 5 dimensions, the normalisation statistics 6"):
        model.sample_actions(params, identity_norm_stats(6, 4, 3), observation, KEY)


def test_without_noise_a_chunk_follows_from_the_observation_alone(case):
    model, params = case
    observation, norm = make_batch(model).observation, norm_for(model)

    def sample(scale, key):
        scaled = create_model(dataclasses.replace(model.config, noise_scale=scale))
        return jax.jit(scaled.sample_actions)(params, norm, observation, jax.random.key(key))

    np.testing.assert_array_equal(sample(0.0, 1), sample(0.0, 2))
    assert np.abs(sample(1.0, 1) - sample(1.0, 2)).max() > 1e-3
    np.testing.assert_array_equal(
        sample(1.0, 1), jax.jit(model.sample_actions)(params, norm, observation, jax.random.key(1))
    )
    with pytest.raises(ValueError, match=r"noise_scale must be in 0 \.\. 1, got 1\.5"):
        dataclasses.replace(model.config, noise_scale=1.5)
