"""Classifier-free guidance inside `sample_actions`, whatever the policy."""

import dataclasses

import jax
import numpy as np
import pytest
from model_cases import MODELS, PI05, make_observation, norm_for, randomize

from sop_jax.models.batch import BarePrompt
from sop_jax.models.chunking import ActionPrefix
from sop_jax.models.policy import PolicyModel, abstract_params
from sop_jax.models.registry import create_model
from sop_jax.specs.chunking import Guidance

KEY = jax.random.key(3)
PLAIN = ["put the red can left", "fold the shirt"]
FULL = [f"{text}\nAdvantage: positive" for text in PLAIN]


@pytest.fixture(scope="module", params=sorted(MODELS))
def case(request) -> tuple[PolicyModel, dict]:
    model = create_model(MODELS[request.param])
    return model, randomize(abstract_params(model))


def bare_prompt(model: PolicyModel, *guidance: float) -> BarePrompt:
    return BarePrompt(*model.tokenize(PLAIN), np.array(guidance, np.float32))


def prefix_for(model: PolicyModel) -> ActionPrefix:
    actions = np.random.default_rng(5).uniform(-1, 1, (2, model.horizon, model.action_dim)).astype(np.float32)
    return ActionPrefix(actions, np.array([1, 0], np.int32), np.array([2, 3], np.int32))


def test_a_step_follows_the_formula_in_each_row_with_its_own_scale(case):
    """With one Euler step the chunk is affine in the velocity, so chunks obey v_u + g (v_c - v_u) as velocities do."""
    model, params = case
    norm = norm_for(model)
    sample = jax.jit(model.sample_actions, static_argnames="num_steps")
    full = sample(params, norm, make_observation(model, FULL), KEY, num_steps=1)
    bare = sample(params, norm, make_observation(model, PLAIN), KEY, num_steps=1)
    assert np.abs(full - bare).max(axis=(1, 2)).min() > 1e-3  # the suffix is read
    guided = sample(
        params, norm, make_observation(model, FULL), KEY, num_steps=1, bare_prompt=bare_prompt(model, 2.5, 0.5)
    )
    np.testing.assert_allclose(guided[0], bare[0] + 2.5 * (full - bare)[0], rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(guided[1], bare[1] + 0.5 * (full - bare)[1], rtol=1e-4, atol=1e-5)


def test_scale_1_is_the_full_prompt_and_scale_0_the_bare_one(case):
    model, params = case
    norm, sample = norm_for(model), jax.jit(model.sample_actions)
    full, plain = make_observation(model, FULL), make_observation(model, PLAIN)
    guided = sample(params, norm, full, KEY, bare_prompt=bare_prompt(model, 1.0, 0.0))
    np.testing.assert_allclose(guided[0], sample(params, norm, full, KEY)[0], rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(guided[1], sample(params, norm, plain, KEY)[1], rtol=1e-4, atol=1e-5)


def test_it_works_together_with_a_chunk_to_continue(case):
    model, params = case
    norm, prefix = norm_for(model), prefix_for(model)
    sample = jax.jit(model.sample_actions, static_argnames="guidance")
    options = {"action_prefix": prefix, "guidance": Guidance(max_weight=2.0)}
    full, plain = make_observation(model, FULL), make_observation(model, PLAIN)
    guided = sample(params, norm, full, KEY, bare_prompt=bare_prompt(model, 1.0, 0.0), **options)
    # The pull towards the previous chunk goes through the mixed velocity.
    np.testing.assert_allclose(guided[0], sample(params, norm, full, KEY, **options)[0], rtol=1e-3, atol=1e-4)
    np.testing.assert_allclose(guided[1], sample(params, norm, plain, KEY, **options)[1], rtol=1e-3, atol=1e-4)


def test_actions_held_clean_stay_where_they_are():
    model = create_model(dataclasses.replace(PI05, max_training_delay=2))
    params, norm, prefix = randomize(abstract_params(model)), norm_for(model), prefix_for(model)
    sample = jax.jit(model.sample_actions)
    full = make_observation(model, FULL)
    guided = sample(params, norm, full, KEY, action_prefix=prefix, bare_prompt=bare_prompt(model, 3.0, 1.0))
    np.testing.assert_allclose(guided[0, 0], prefix.actions[0, 0], atol=1e-5)
    plain = sample(params, norm, full, KEY, action_prefix=prefix)
    np.testing.assert_allclose(guided[1], plain[1], rtol=1e-4, atol=1e-5)
    assert np.abs(guided[0, 1:] - plain[0, 1:]).max() > 1e-3


def test_the_cache_changes_nothing():
    model = create_model(PI05)
    params, norm = randomize(abstract_params(model)), norm_for(model)
    sample = jax.jit(model.sample_actions, static_argnames="use_cache")
    options = {"bare_prompt": bare_prompt(model, 2.0, 1.5)}
    cached = sample(params, norm, make_observation(model, FULL), KEY, **options)
    plain = sample(params, norm, make_observation(model, FULL), KEY, use_cache=False, **options)
    np.testing.assert_allclose(cached, plain, rtol=1e-4, atol=1e-5)
