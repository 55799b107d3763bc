"""Value functions on the towers of both policies."""

import dataclasses
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from model_cases import COMPACT, LORA, MODELS, PI05, make_observation, norm_for, randomize

from sop_jax.models.pi05.config import FULL, TINY
from sop_jax.models.policy import abstract_params
from sop_jax.models.pytrees import count_params, flatten_params
from sop_jax.models.registry import create_model
from sop_jax.models.value.distribution import bin_values, cross_entropy, expected_value, two_hot
from sop_jax.models.value.model import ValueConfig, ValueModel, graft_towers
from sop_jax.models.value.registry import create_value_model

KEY = jax.random.key(0)


@pytest.fixture(scope="module", params=["compact", "pi05_tokens"])
def model(request) -> ValueModel:
    return create_value_model(ValueConfig(MODELS[request.param], num_bins=21, width=16))


def test_two_hot_by_hand():
    np.testing.assert_allclose(bin_values(5), [-1, -0.75, -0.5, -0.25, 0])
    np.testing.assert_allclose(
        two_hot(jnp.array([-1.0, -0.7, -0.25, 0.0, -3.0, 0.1]), 5),
        [[1, 0, 0, 0, 0], [0, 0.8, 0.2, 0, 0], [0, 0, 0, 1, 0], [0, 0, 0, 0, 1], [1, 0, 0, 0, 0], [0, 0, 0, 0, 1]],
        atol=1e-6,
    )


def test_two_hot_keeps_the_mean_in_201_bins():
    values = jnp.asarray(np.random.default_rng(0).uniform(-1, 0, 500), jnp.float32)
    weights = two_hot(values, 201)
    np.testing.assert_allclose(weights.sum(1), 1, atol=2e-5)
    np.testing.assert_allclose(weights @ bin_values(201), values, atol=1e-5)
    assert int((weights > 1e-4).sum(1).max()) <= 2


def test_cross_entropy_by_hand():
    logits = jnp.log(jnp.array([[0.1, 0.2, 0.3, 0.2, 0.2]]))
    expected = -(0.8 * np.log(0.2) + 0.2 * np.log(0.3))
    np.testing.assert_allclose(cross_entropy(logits, jnp.array([-0.7])), [expected], rtol=1e-5)
    np.testing.assert_allclose(expected_value(logits), [-0.1 - 0.15 - 0.15 - 0.05], rtol=1e-5)


def test_it_learns_what_depends_on_words_state_and_images(model):
    """Four situations, four returns; gradient descent on the cross-entropy finds them."""
    seen = make_observation(model_policy(model), ["go left", "go right", "go left", "go left"])
    images = {name: np.repeat(pixels[:1], 4, axis=0) for name, pixels in seen.images.items()}
    images["head"][2] = 255 - images["head"][2]
    state = np.repeat(seen.state[:1], 4, axis=0)
    state[3] *= -1
    seen = dataclasses.replace(seen, images=images, state=state)
    wanted, norm = jnp.array([-0.9, -0.1, -0.33, -0.62]), norm_for(model_policy(model))
    optimizer = optax.adam(1e-2)

    @jax.jit
    def step(params: Any, moments: Any) -> Any:
        loss, grads = jax.value_and_grad(lambda params: cross_entropy(model.logits(params, norm, seen), wanted).mean())(
            params
        )
        updates, moments = optimizer.update(grads, moments)
        return optax.apply_updates(params, updates), moments, loss

    params = randomize(jax.eval_shape(model.init_params, KEY))
    moments, losses = optimizer.init(params), []
    for _ in range(150):
        params, moments, loss = step(params, moments)
        losses.append(float(loss))
    assert losses[-1] < 0.3 * losses[0]
    np.testing.assert_allclose(expected_value(jax.jit(model.logits)(params, norm, seen)), wanted, atol=0.03)


def test_it_takes_the_policys_towers(model):
    policy = model_policy(model)
    policy_params = randomize(abstract_params(policy), seed=7)
    params = randomize(jax.eval_shape(model.init_params, KEY))
    grafted, before = flatten_params(graft_towers(model, params, policy_params)), flatten_params(params)
    given = flatten_params(policy_params)
    taken = [path for path in grafted if model.is_tower(path)]
    assert len(taken) > 10
    for path, leaf in grafted.items():
        np.testing.assert_array_equal(leaf, given[path] if path in taken else before[path])
    with pytest.raises(ValueError, match="the policy has no parameter"):
        graft_towers(model, params, {})


def test_what_is_frozen_in_the_policy_stays_frozen():
    model = create_value_model(ValueConfig(PI05))
    paths = flatten_params(jax.eval_shape(model.init_params, KEY))
    frozen = [path for path in paths if not model.is_trained(path)]
    assert frozen
    assert all(path[:2] == ("PaliGemma", "llm") and not any(n.endswith("_1") for n in path) for path in frozen)
    assert all(model.is_trained(path) for path in paths if path[0] in ("query", "bins", "state_proj"))
    compact = create_value_model(ValueConfig(COMPACT))
    assert all(compact.is_trained(path) for path in flatten_params(jax.eval_shape(compact.init_params, KEY)))


def test_nothing_that_begins_anew_is_frozen_beside_low_rank_additions():
    """The language model's own weights come from the policy, so they may be frozen; the expert's are random."""
    model, of_policy = create_value_model(ValueConfig(LORA)), create_model(LORA)
    paths = flatten_params(jax.eval_shape(model.init_params, KEY))
    frozen = [path for path in paths if not model.is_trained(path)]
    assert frozen
    assert all(model.is_tower(path) for path in frozen)
    assert not any("lora" in name for path in paths if is_experts(path) for name in path)
    towers = [path for path in paths if model.is_tower(path)]
    assert any("lora" in name for path in towers for name in path)
    params = randomize(jax.eval_shape(model.init_params, KEY))
    grafted = flatten_params(graft_towers(model, params, randomize(abstract_params(of_policy), seed=7)))
    given = flatten_params(randomize(abstract_params(of_policy), seed=7))
    for path in towers:
        np.testing.assert_array_equal(grafted[path], given[path])


def test_missing_cameras_and_other_robots_are_refused(model):
    seen = make_observation(model_policy(model), ["x"])
    norm = norm_for(model_policy(model))
    with pytest.raises(ValueError, match="the batch lacks"):
        model.logits({}, norm, dataclasses.replace(seen, images={}))
    with pytest.raises(ValueError, match="Use statistics of the same robot"):
        model.logits({}, norm, dataclasses.replace(seen, state=np.zeros((1, 7), np.float32)))


@pytest.mark.parametrize("policy", [FULL, TINY])
def test_presets_have_the_policys_towers_and_201_bins(policy):
    """Shapes only: nothing is allocated."""
    policy = dataclasses.replace(policy, tokenizer="hash")
    model = create_value_model(ValueConfig(policy))
    shapes = flatten_params(jax.eval_shape(model.init_params, KEY))
    of_policy = flatten_params(abstract_params(create_model(policy)))
    towers = [path for path in shapes if model.is_tower(path)]
    assert len(towers) == sum(path[0] == "PaliGemma" and not is_experts(path) for path in of_policy)
    assert all(shapes[path].shape == of_policy[path].shape for path in towers)
    seen = make_observation(create_model(policy), ["x", "y"], size=policy.vision.image_size)
    norm, params = norm_for(create_model(policy)), jax.eval_shape(model.init_params, KEY)
    logits = jax.eval_shape(lambda params: model.logits(params, norm, seen), params)
    assert (logits.shape, logits.dtype) == ((2, 201), jnp.float32)


def test_the_full_value_function_has_3_24_billion_parameters():
    model = create_value_model(ValueConfig(dataclasses.replace(FULL, tokenizer="hash")))
    width, depth = 1024, 18
    towers = 414_803_696 + 526_647_296 + 1_981_884_416  # image tower, embedder, rest of gemma_2b
    expert = depth * (8 * width * 256 + 2 * width * 256 + 8 * 256 * width + 3 * width * 4096 + 2 * width) + width
    rest = (16 * width + width) + width + (width * 201 + 201)  # state, query, bins
    assert count_params(jax.eval_shape(model.init_params, KEY)) == towers + expert + rest


def is_experts(path: tuple[str, ...]) -> bool:
    return path[:2] == ("PaliGemma", "llm") and any(name.endswith("_1") for name in path[2:])


def model_policy(model: ValueModel):
    return create_model(model.config.policy)
