import dataclasses
import json
import pathlib

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from model_cases import PI0 as SMALL_PI0
from model_cases import PI05, make_batch, make_observation, norm_for, randomize

from sop_jax.models.batch import TrainBatch
from sop_jax.models.pi05.config import (
    FULL,
    PI0,
    PI0_TINY,
    TINY,
    ExpertConfig,
    LoraConfig,
    VisionConfig,
)
from sop_jax.models.pi05.policy import Pi05Policy, append_state, discretize_state, suffix_attention
from sop_jax.models.policy import abstract_params, merge_network
from sop_jax.models.pytrees import count_params, flatten_params
from sop_jax.models.text import HashTokenizer

MODEL = Pi05Policy(PI05)
KEY = jax.random.key(3)


def test_the_full_preset_has_openpis_tree():
    expected = json.loads((pathlib.Path(__file__).parent / "pi05_tree.json").read_text())
    params = flatten_params(abstract_params(Pi05Policy(FULL)))
    assert {"/".join(path): list(leaf.shape) for path, leaf in params.items()} == expected
    assert len(params) == 51
    assert count_params(abstract_params(Pi05Policy(FULL))) == 3_353_433_872


def test_the_full_pi0_preset_has_openpis_tree():
    expected = json.loads((pathlib.Path(__file__).parent / "pi05_tree.json").read_text())
    gone = {name for name in expected if "Dense_0" in name and "norm_1" in name} | {
        f"time_mlp_{way}/{leaf}" for way in ("in", "out") for leaf in ("kernel", "bias")
    }
    new = {
        "PaliGemma/llm/layers/pre_attention_norm_1/scale": [18, 1024],
        "PaliGemma/llm/layers/pre_ffw_norm_1/scale": [18, 1024],
        "PaliGemma/llm/final_norm_1/scale": [1024],
        "state_proj/kernel": [32, 1024],
        "state_proj/bias": [1024],
        "action_time_mlp_in/kernel": [2048, 1024],
        "action_time_mlp_in/bias": [1024],
        "action_time_mlp_out/kernel": [1024, 1024],
        "action_time_mlp_out/bias": [1024],
    }
    params = flatten_params(abstract_params(Pi05Policy(PI0)))
    got = {"/".join(path): list(leaf.shape) for path, leaf in params.items()}
    assert got == {name: shape for name, shape in expected.items() if name not in gone} | new
    assert len(gone) == 10
    assert count_params(abstract_params(Pi05Policy(PI0))) == 3_238_048_528


def test_the_language_model_is_frozen_and_nothing_else():
    model = Pi05Policy(FULL)
    params = flatten_params(abstract_params(model))
    trained = sum(int(np.prod(leaf.shape)) for path, leaf in params.items() if model.is_trained(path))
    assert trained == 844_902_160
    frozen = {"/".join(path) for path in params if not model.is_trained(path)}
    assert "PaliGemma/llm/embedder/input_embedding" in frozen
    assert "PaliGemma/llm/layers/mlp/linear" in frozen
    assert all(name.startswith("PaliGemma/llm/") and "_1" not in name for name in frozen)
    assert model.is_trained(("PaliGemma", "img", "Transformer", "encoderblock", "LayerNorm_0", "scale"))
    assert all(map(Pi05Policy(TINY).is_trained, flatten_params(abstract_params(Pi05Policy(TINY)))))


def test_the_tiny_preset_is_the_same_model():
    tiny, full = (set(flatten_params(abstract_params(Pi05Policy(config)))) for config in (TINY, FULL))
    assert tiny - full == {("state_proj", "kernel"), ("state_proj", "bias")}
    assert full <= tiny
    assert 1e6 < count_params(abstract_params(Pi05Policy(TINY))) < 4e6
    tiny, full = (set(flatten_params(abstract_params(Pi05Policy(config)))) for config in (PI0_TINY, PI0))
    assert tiny == full


CASES = {
    "tokens": PI05,
    "continuous": dataclasses.replace(PI05, state_input="continuous"),
    "none": dataclasses.replace(PI05, state_input="none"),
    "pi0": SMALL_PI0,
}


@pytest.mark.parametrize("name", sorted(CASES))
def test_sampling_with_the_cache_equals_sampling_without(name):
    model = Pi05Policy(CASES[name])
    params = randomize(abstract_params(model))
    observation = make_observation(model, ["take the red can", "go"])
    observation = dataclasses.replace(
        observation, image_mask={**observation.image_mask, "head": np.array([True, False])}
    )
    sample = jax.jit(model.sample_actions, static_argnames="use_cache")
    cached = sample(params, norm_for(model), observation, KEY)
    np.testing.assert_allclose(
        cached, sample(params, norm_for(model), observation, KEY, use_cache=False), rtol=1e-4, atol=1e-4
    )


def test_positions_skip_padding_and_actions_see_prefix_and_themselves():
    positions, mask = suffix_attention(jnp.array([[True, False, True]]), horizon=2)
    assert positions.tolist() == [[0, 0, 1, 2, 3]]
    np.testing.assert_array_equal(mask[0, 3:].astype(int), [[1, 0, 1, 1, 1]] * 2)
    np.testing.assert_array_equal(mask[0, [0, 2]].astype(int), [[1, 0, 1, 0, 0]] * 2)


def test_pi0s_state_is_a_block_between_prefix_and_actions():
    positions, mask = suffix_attention(jnp.array([[True, False]]), horizon=2, num_state_tokens=1)
    assert positions.tolist() == [[0, 0, 1, 2, 3]]
    np.testing.assert_array_equal(
        np.asarray(mask[0], int)[[0, 2, 3, 4]], [[1, 0, 0, 0, 0], [1, 0, 1, 0, 0], *[[1, 0, 1, 1, 1]] * 2]
    )


@pytest.mark.parametrize("time", [jnp.array([0.25, 1.0]), jnp.array([[0.25, 0.0, 0.5], [1.0, 1.0, 1.0]])])
def test_pi0s_suffix_by_hand(time):
    model = Pi05Policy(SMALL_PI0)
    params, rng = randomize(abstract_params(model)), np.random.default_rng(0)
    noisy, state = rng.normal(size=(2, 3, 6)), rng.normal(size=(2, 5))
    network = merge_network(model._graphdef, jax.tree.map(jnp.asarray, params))
    tokens, cond = network.embed_suffix(jnp.asarray(noisy, jnp.float32), time, jnp.asarray(state, jnp.float32))
    assert cond is None

    def linear(name: str, x: np.ndarray) -> np.ndarray:
        return x @ params[name]["kernel"] + params[name]["bias"]

    period = 4e-3 * 1000.0 ** np.linspace(0, 1, 8)
    angle = 2 * np.pi * np.broadcast_to(time[:, None] if time.ndim == 1 else time, (2, 3))[..., None] / period
    with_time = np.concatenate([linear("action_in_proj", noisy), np.sin(angle), np.cos(angle)], axis=-1)
    hidden = linear("action_time_mlp_in", with_time)
    expected = linear("action_time_mlp_out", hidden / (1 + np.exp(-hidden)))
    np.testing.assert_allclose(tokens[:, 1:], expected, rtol=1e-3, atol=1e-3)
    padded = np.concatenate([state, np.zeros((2, 1))], axis=1)  # to the action dimensions inside the model
    np.testing.assert_allclose(tokens[:, 0], linear("state_proj", padded), rtol=1e-4, atol=1e-4)


def test_modulations_made_once_give_the_flow_of_those_made_in_every_layer():
    params, observation = randomize(abstract_params(MODEL)), make_observation(MODEL, ["x", "y"])
    noisy = jax.random.normal(KEY, (2, 3, 6))

    @jax.jit
    def run(params, rows):
        network = merge_network(MODEL._graphdef, params)
        embedded = network.embed_prefix(
            observation, jnp.zeros((2, 5)), jnp.asarray(observation.tokens), jnp.asarray(observation.token_mask)
        )
        prefix, table = network.read_prefix(*embedded), network.modulate_steps(4)
        time = jnp.broadcast_to(1 - rows / 4, (2, 3) if rows.ndim == 2 else (2,))
        plain = network.velocity(prefix, noisy, time)
        return plain, network.velocity(prefix, noisy, time, table.at(rows))

    found = []
    for rows in (0, 3, 4, [1, 2], [[0, 4, 2], [3, 3, 1]]):
        plain, made = run(params, jnp.asarray(rows))
        np.testing.assert_allclose(made, plain, rtol=1e-4, atol=1e-5)
        found.append(np.asarray(plain))
    assert np.abs(found[0] - found[1]).max() > 1e-3


def test_a_camera_that_a_robot_lacks_can_be_left_out_of_the_config():
    """openpi masks it; without it the tower does a third less, and nothing else changes."""
    model = MODEL
    params, observation = randomize(abstract_params(model)), make_observation(model, ["take the can"] * 2)
    masked = dataclasses.replace(observation, image_mask={**observation.image_mask, "hand_left": np.zeros(2, bool)})
    fewer = Pi05Policy(dataclasses.replace(PI05, cameras=("head",)))
    without = dataclasses.replace(
        observation, images={"head": observation.images["head"]}, image_mask={"head": np.ones(2, bool)}
    )
    norm = norm_for(model)
    np.testing.assert_allclose(
        jax.jit(fewer.sample_actions)(params, norm, without, KEY),
        jax.jit(model.sample_actions)(params, norm, masked, KEY),
        rtol=1e-4,
        atol=1e-5,
    )


def test_the_patches_are_embedded_in_float32_whatever_the_activations():
    half = Pi05Policy(dataclasses.replace(PI05, dtype="bfloat16"))
    params = jax.tree.map(jnp.asarray, randomize(abstract_params(half)))
    img = merge_network(half._graphdef, params).PaliGemma.img
    images = jnp.asarray(make_observation(half, ["x"]).images["head"])
    patches = img.embedding(images)
    assert patches.dtype == jnp.float32
    kernel = np.asarray(params["PaliGemma"]["img"]["embedding"]["kernel"], np.float64)
    first = np.asarray(images[0, :8, :8], np.float64) / 255 * 2 - 1
    expected = np.einsum("ijc,ijcd->d", first, kernel) + params["PaliGemma"]["img"]["embedding"]["bias"]
    np.testing.assert_allclose(patches[0, 0], expected, rtol=1e-4, atol=1e-4)
    assert img(images).dtype == jnp.bfloat16


def test_a_fresh_openpi_expert_is_an_identity_through_the_blocks():
    """Zero-initialised adaRMS closes every gate: the velocity is that of the normalised action tokens."""
    model = Pi05Policy(dataclasses.replace(PI05, from_scratch=False))
    observation, noisy = make_observation(model, ["x"]), jax.random.normal(KEY, (1, 3, 6))

    @jax.jit
    def run(key):
        network = merge_network(model._graphdef, model.init_params(key))
        tokens = network.action_in_proj(noisy)
        normed = tokens / jnp.sqrt(jnp.square(tokens).mean(-1, keepdims=True) + 1e-6)
        embedded, valid = network.embed_prefix(
            observation, jnp.zeros((1, 5)), jnp.asarray(observation.tokens), jnp.asarray(observation.token_mask)
        )
        velocity = network.velocity(network.read_prefix(embedded, valid), noisy, jnp.array([0.3]))
        return embedded[:, :8], velocity, network.action_out_proj(normed)

    image_tokens, velocity, expected = run(jax.random.key(0))
    assert not np.any(image_tokens)  # the image head starts at zero too
    np.testing.assert_allclose(velocity, expected, rtol=1e-4, atol=1e-5)


def test_a_time_per_action_equals_one_per_example_where_they_agree():
    params, observation = randomize(abstract_params(MODEL)), make_observation(MODEL, ["x", "y"])
    noisy = jax.random.normal(KEY, (2, 3, 6))

    @jax.jit
    def run(params, times):
        network = merge_network(MODEL._graphdef, params)
        embedded = network.embed_prefix(
            observation, jnp.zeros((2, 5)), jnp.asarray(observation.tokens), jnp.asarray(observation.token_mask)
        )
        prefix = network.read_prefix(*embedded)
        return [network.velocity(prefix, noisy, time) for time in times]

    time = jnp.array([0.2, 0.9])
    other_times = jnp.array([[0.2, 0.2, 0.5], [0.9, 0.9, 0.9]])
    one, per_action, other = run(params, [time, jnp.repeat(time[:, None], 3, 1), other_times])
    np.testing.assert_allclose(one, per_action, rtol=1e-4, atol=1e-5)
    assert np.abs(other[0] - one[0]).max() > 1e-4


def test_the_loss_counts_padded_dimensions_as_openpi_does():
    """A silent model's expected error is 1 + a^2 on the 4 robot dimensions and 1 on the 2 padded ones."""
    model = Pi05Policy(dataclasses.replace(PI05, num_draws=300))
    params = jax.tree.map(lambda leaf: np.zeros(leaf.shape, np.float32), abstract_params(model))
    batch = dataclasses.replace(make_batch(model, 2), actions=np.full((2, 3, 4), 2.0, np.float32))
    loss = jax.jit(model.loss)(params, norm_for(model), batch, KEY)
    np.testing.assert_allclose(loss, np.full((2, 3), (4 * 5 + 2 * 1) / 6), rtol=0.15)


def test_idle_and_padded_dimensions_can_be_left_out():
    """A silent model's expected error is then 1 + a^2 on the 3 moving dimensions, and nothing else counts."""
    model = Pi05Policy(dataclasses.replace(PI05, num_draws=300, loss_on_idle_dims=False))
    norm = dataclasses.replace(norm_for(model), action_is_active=np.array([True, True, False, True]))
    silent = jax.tree.map(lambda leaf: np.zeros(leaf.shape, np.float32), abstract_params(model))
    batch = dataclasses.replace(make_batch(model, 2), actions=np.full((2, 3, 4), 2.0, np.float32))
    loss = jax.jit(model.loss)(silent, norm, batch, KEY)
    np.testing.assert_allclose(loss, np.full((2, 3), 5.0), rtol=0.15)

    params = randomize(model.init_params(KEY))
    out_of_idle = params["action_in_proj"]["kernel"].copy()
    out_of_idle[[2, 4, 5]] = 1000.0  # what the model would do with noise in those dimensions
    changed = {**params, "action_in_proj": {**params["action_in_proj"], "kernel": out_of_idle}}
    sample = jax.jit(model.sample_actions)
    chunk = sample(params, norm, batch.observation, KEY)
    np.testing.assert_allclose(sample(changed, norm, batch.observation, KEY), chunk, atol=1e-5)
    np.testing.assert_allclose(chunk[..., 2], 0.0, atol=1e-5)  # idle: its constant target


def test_state_bins_are_openpis():
    values = np.array([[-1.0, -0.999, 0.0, 0.9999, 0.5]], np.float32)
    expected = np.digitize(values, np.linspace(-1, 1, 257)[:-1]) - 1
    np.testing.assert_array_equal(discretize_state(jnp.asarray(values)), expected)
    np.testing.assert_array_equal(discretize_state(jnp.array([[-7.0, 7.0]])), [[0, 255]])


def test_the_state_follows_the_instruction():
    tokenizer = HashTokenizer(vocab_size=300, max_tokens=3, num_numbers=256)
    tokens, mask = tokenizer.encode(["go"])
    tokens, mask = append_state(tokenizer, jnp.array([[-1.0, 1.0]]), jnp.asarray(tokens), jnp.asarray(mask))
    assert tokens[0, 3:].tolist() == [44, 299]
    assert mask[0].tolist() == [True, False, False, True, True]


def test_bfloat16_activations_stay_close():
    params, observation = randomize(abstract_params(MODEL)), make_observation(MODEL, ["take the can"])
    exact = jax.jit(MODEL.sample_actions)(params, norm_for(MODEL), observation, KEY)
    half = Pi05Policy(dataclasses.replace(PI05, dtype="bfloat16"))
    rough = jax.jit(half.sample_actions)(params, norm_for(MODEL), observation, KEY)
    assert rough.dtype == jnp.float32
    assert 0 < np.abs(rough - exact).max() < 0.2


@pytest.mark.slow
def test_it_learns_to_pick_the_named_square():
    """Three coloured squares on a 4 x 4 grid; the instruction names one; the action is its column and row."""
    expert = ExpertConfig(width=48, depth=2, mlp_dim=96, num_heads=4, num_kv_heads=4, head_dim=16)
    vision = VisionConfig(width=32, depth=1, mlp_dim=64, num_heads=4, patch_size=4, image_size=16)
    model = Pi05Policy(
        dataclasses.replace(
            PI05,
            vision=vision,
            language=expert,
            expert=expert,
            vocab_size=1024 + 256,
            cameras=("head",),
            state_input="continuous",
            num_draws=4,
        )
    )
    rng = np.random.default_rng(0)
    colours = {"red": (220, 30, 30), "blue": (30, 30, 220), "green": (30, 200, 30)}

    def make(num: int) -> TrainBatch:
        batch = make_batch(model, num)
        images, actions = np.full((num, 16, 16, 3), 100, np.uint8), np.zeros((num, 3, 4), np.float32)
        names = rng.choice(list(colours), num)
        for i, name in enumerate(names):
            for colour, cell in zip(colours, rng.choice(16, 3, replace=False), strict=True):
                row, column = divmod(int(cell), 4)
                images[i, 4 * row : 4 * row + 4, 4 * column : 4 * column + 4] = colours[colour]
                if colour == name:
                    actions[i, :, :2] = (column - 1.5) / 1.5, (row - 1.5) / 1.5
        tokens, mask = model.tokenize([f"take the {name} can" for name in names])
        observation = dataclasses.replace(batch.observation, images={"head": images}, tokens=tokens, token_mask=mask)
        return dataclasses.replace(batch, observation=observation, actions=actions)

    train, test, norm = make(4096), make(200), norm_for(model)
    optimizer = optax.chain(optax.clip_by_global_norm(1.0), optax.adam(optax.cosine_decay_schedule(3e-3, 600)))

    @jax.jit
    def fit(params):
        def step(carry, key):
            params, state = carry
            rows = jax.random.randint(key, (64,), 0, 4096)
            batch = jax.tree.map(lambda leaf: jnp.asarray(leaf)[rows], train)
            grads = jax.grad(lambda p: model.loss(p, norm, batch, key).mean())(params)
            updates, state = optimizer.update(grads, state)
            return (optax.apply_updates(params, updates), state), None

        start = (params, optimizer.init(params))
        return jax.lax.scan(step, start, jax.random.split(jax.random.key(0), 600))[0][0]

    params = fit(jax.jit(model.init_params)(jax.random.key(0)))
    chunk = jax.jit(model.sample_actions)(params, norm, test.observation, jax.random.key(9))
    right = (np.abs(chunk - test.actions)[:, :, :2] < 1 / 3).all(axis=(1, 2))
    assert right.mean() > 0.9


def test_bad_configs_are_refused():
    with pytest.raises(ValueError, match='head "pi0" and state_input "suffix" go together'):
        dataclasses.replace(PI05, head="pi0")
    with pytest.raises(ValueError, match=r"pads the state to model_action_dim.*got 7 and 6"):
        dataclasses.replace(SMALL_PI0, state_dim=7)
    with pytest.raises(ValueError, match="rank must be at least 1"):
        LoraConfig(rank=0, alpha=1.0)
    with pytest.raises(ValueError, match="must agree"):
        dataclasses.replace(PI05, expert=dataclasses.replace(PI05.expert, depth=3))
    with pytest.raises(ValueError, match="at most model_action_dim and state_dim, got 4, 3 and 5"):
        dataclasses.replace(PI05, model_action_dim=3)
    with pytest.raises(ValueError, match="image_size must be a multiple"):
        dataclasses.replace(PI05.vision, image_size=17)
    with pytest.raises(ValueError, match="multiple of num_kv_heads"):
        dataclasses.replace(PI05.expert, num_kv_heads=3)
