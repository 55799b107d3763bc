import dataclasses
import math

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from model_cases import COMPACT, MODELS, PI05, make_batch, make_observation, norm_for, randomize

from sop_jax.models import compact, flow
from sop_jax.models.chunking import ActionPrefix, draw_prefix, is_frozen, mean_of_open, soft_mask
from sop_jax.models.compact import CompactPolicy
from sop_jax.models.pi05 import policy as pi05
from sop_jax.models.pi05.policy import Pi05Policy
from sop_jax.models.policy import abstract_params
from sop_jax.models.registry import create_model
from sop_jax.specs.chunking import ChunkPrefix, Guidance
from sop_jax.specs.errors import ConfigError

KEY = jax.random.key(3)


def prefix_of(actions, num_frozen, num_known):
    batch = len(actions)
    return ActionPrefix(
        np.asarray(actions, np.float32), np.full(batch, num_frozen, np.int32), np.full(batch, num_known, np.int32)
    )


def test_the_soft_mask_by_hand():
    prefix = ActionPrefix(np.zeros((3, 6, 1), np.float32), np.array([2, 0, 6]), np.array([5, 0, 6]))
    linear = soft_mask(prefix, "linear")
    # d = 2, H - s = 5: (5 - i) / (5 - 2 + 1) for i = 2, 3, 4. Nothing known: 0. All frozen: 1.
    np.testing.assert_allclose(linear, [[1, 1, 0.75, 0.5, 0.25, 0], [0] * 6, [1] * 6], atol=1e-6)
    falling = [c * math.expm1(c) / (math.e - 1) for c in (0.75, 0.5, 0.25)]
    np.testing.assert_allclose(soft_mask(prefix, "exponential"), [[1, 1, *falling, 0], [0] * 6, [1] * 6], atol=1e-6)


def test_guidance_strength_by_hand():
    # t = 1/2: (1/4 + 1/4) / (1/4) = 2; t = 1/4: (1/16 + 9/16) / (3/16) = 10/3; unbounded at pure noise.
    strength = flow.guidance_strength(jnp.array([0.5, 0.25, 1.0]), 5.0)
    np.testing.assert_allclose(strength, [2.0, 10 / 3, 5.0], rtol=1e-5)
    assert flow.guidance_strength(jnp.array(0.25), 3.0) == 3.0


def test_guiding_a_linear_velocity_by_hand():
    """v = x / 2, two steps, target 1, weight 1 on the first number and 0 on the second."""
    x = jnp.array([[4.0, 4.0]])
    guided = flow.guide(lambda x, t: x / 2, jnp.ones((1, 2)), jnp.array([[1.0, 0.0]]), max_strength=3.0)
    # t = 1: clean 4 - 2 = 2, its slope 1/2, push (1 - 2) / 2 = -1/2, strength 3: v = 2 + 3/2; x = 4 - 3.5 / 2 = 2.25.
    np.testing.assert_allclose(guided(x, jnp.array(1.0)), [[3.5, 2.0]])
    # t = 1/2: clean 2.25 * 3/4, slope 3/4, push (1 - 1.6875) * 3/4, strength 2: v = 1.125 + 1.03125; x = 1.171875.
    result = flow.integrate(guided, x, 2)
    np.testing.assert_allclose(result, [[1.171875, 4 * 0.75**2]], rtol=1e-6)


def test_guidance_without_bound_gives_the_target_of_gaussian_actions():
    """For actions from N(0, 1) the flow is known, and what is fully held must come out as the target."""

    def velocity(x, t):
        return (2 * t - 1) / (t**2 + (1 - t) ** 2) * x

    noise, target = jnp.array([[1.3, -0.7]]), jnp.array([[0.4, 0.9]])
    guided = flow.guide(velocity, target, jnp.array([[1.0, 0.0]]), 1e3)
    result = flow.integrate(guided, noise, 400)
    assert result[0, 0] == pytest.approx(0.4, abs=0.01)
    assert result[0, 1] == flow.integrate(velocity, noise, 400)[0, 1]


def test_a_steep_velocity_pulls_a_chunk_by_no_more_than_it_lacks():
    """v = -9 x: the clean chunk is 10 x at t = 1, and the pull through that slope would be ten times what is lacking."""
    x = jnp.array([[[0.3, 0.2]], [[0.0, 0.0]]])
    guided = flow.guide(lambda x, t: -9 * x, jnp.zeros(x.shape), jnp.ones(x.shape), max_strength=5.0)
    # Lacking is -(3, 2), as long as the pull may be: v = -9 x + 5 * 10 x. Nothing lacks where x is 0.
    np.testing.assert_allclose(guided(x, jnp.array(1.0)), 41 * x, rtol=1e-5)


def test_a_guided_flow_that_points_ever_further_out_stays_in_reach():
    """v = -60 x: each of ten Euler steps would make x seven times larger, 1e8 in the end."""
    noise = jnp.array([[[0.5, -0.5]]])
    assert jnp.abs(flow.integrate(lambda x, t: -60 * x, noise, 10)).min() > 1e7
    guided = flow.guide(lambda x, t: -60 * x, jnp.ones(noise.shape), jnp.ones(noise.shape), max_strength=5.0)
    assert jnp.abs(flow.integrate(guided, noise, 10)).max() < 10


GUIDANCE = Guidance("linear", max_weight=10.0)


def sampler(model, guidance):
    @jax.jit
    def sample(params, norm, observation, prefix):
        return model.sample_actions(params, norm, observation, KEY, action_prefix=prefix, guidance=guidance)

    return sample


@dataclasses.dataclass
class Case:
    """A model with a guided sampler (compiled once), and what it samples without guidance."""

    model: object
    params: dict
    norm: object
    observation: object

    def __post_init__(self):
        self.guided = sampler(self.model, GUIDANCE)
        self.plain = np.asarray(jax.jit(self.model.sample_actions)(self.params, self.norm, self.observation, KEY))


@pytest.fixture(scope="module", params=["compact", "pi05_tokens"])
def case(request):
    model = create_model(MODELS[request.param])
    norm = dataclasses.replace(norm_for(model), action_is_delta=np.array([True, True, False, True]))
    observation = make_observation(model, ["put the red can", "go"])
    return Case(model, randomize(abstract_params(model), scale=0.1), norm, observation)


def test_no_guidance_and_no_overlap_are_plain_sampling(case):
    actions = np.full(case.plain.shape, 0.7, np.float32)
    unknown, known = prefix_of(actions, 0, 0), prefix_of(actions, 1, 3)
    found = case.guided(case.params, case.norm, case.observation, unknown)
    np.testing.assert_allclose(found, case.plain, rtol=1e-5, atol=1e-5)
    if case.model.config.kind == "compact":  # The other compiles for long, and this is `flow.guide`'s doing.
        weak = sampler(case.model, Guidance(max_weight=0.0))(case.params, case.norm, case.observation, known)
        np.testing.assert_allclose(weak, case.plain, rtol=1e-5, atol=1e-5)
    assert np.abs(case.guided(case.params, case.norm, case.observation, known) - case.plain).max() > 1e-2


def test_guidance_pulls_towards_the_absolute_targets_of_the_previous_chunk(case):
    """Whatever the new observation's joints: the prefix is encoded relative to them."""
    actions = case.plain + 0.3
    prefix = prefix_of(actions, 2, 2)
    before = np.abs(case.plain - actions).max(axis=(0, 2))
    after = np.abs(np.asarray(case.guided(case.params, case.norm, case.observation, prefix)) - actions)
    assert (after.max(axis=(0, 2))[:2] < 0.35 * before[:2]).all()  # the two frozen actions come out nearly as they were
    moved = dataclasses.replace(case.observation, state=case.observation.state + np.float32(0.2))
    again = np.abs(np.asarray(case.guided(case.params, case.norm, moved, prefix)) - actions)
    assert (again.max(axis=(0, 2))[:2] < 0.4 * before[:2]).all()


def test_one_prefix_for_each_robot(case):
    prefix = ActionPrefix(case.plain + 0.3, np.array([0, 2], np.int32), np.array([0, 3], np.int32))
    guided = np.asarray(case.guided(case.params, case.norm, case.observation, prefix))
    np.testing.assert_allclose(guided[0], case.plain[0], rtol=1e-5, atol=1e-5)
    assert np.abs(guided[1] - case.plain[1]).max() > 1e-2


def test_idle_dimensions_stay_at_their_constant_under_guidance(case):
    norm = dataclasses.replace(
        case.norm, action_is_active=np.array([True, True, False, True]), action_is_delta=np.zeros(4, bool)
    )
    chunk = case.guided(case.params, norm, case.observation, prefix_of(np.ones((2, 3, 4)), 2, 3))
    np.testing.assert_allclose(chunk[..., 2], 0.0, atol=1e-5)


@pytest.mark.parametrize("name", ["pi05_tokens", "pi0", "compact"])
def test_a_trained_policy_gives_its_frozen_actions_back_and_knows_them(name):
    model = create_model(dataclasses.replace(MODELS[name], max_training_delay=2))
    params, observation = randomize(abstract_params(model)), make_observation(model, ["x", "y"])
    norm = dataclasses.replace(norm_for(model), action_is_delta=np.array([True, True, False, True]))
    sample = sampler(model, None)
    actions = np.full((2, 3, 4), 0.4, np.float32)
    chunk = sample(params, norm, observation, prefix_of(actions, 1, 3))
    np.testing.assert_allclose(chunk[:, 0], actions[:, 0], atol=1e-5)
    other = sample(params, norm, observation, prefix_of(-actions, 1, 3))
    assert np.abs(chunk[:, 1:] - other[:, 1:]).max() > 1e-3
    if name == "pi05_tokens":  # Its modulations at time 0 come from a table; without the cache they are computed.
        uncached = jax.jit(model.sample_actions, static_argnames="use_cache")
        again = uncached(params, norm, observation, KEY, use_cache=False, action_prefix=prefix_of(actions, 1, 3))
        np.testing.assert_allclose(again, chunk, rtol=1e-4, atol=1e-4)
        plain = uncached(params, norm, observation, KEY, use_cache=True)
        none = sample(params, norm, observation, prefix_of(actions, 0, 3))
        np.testing.assert_allclose(none, plain, rtol=1e-4, atol=1e-4)
    # Never more than it was trained for: of three frozen actions the third is its own.
    capped = sample(params, norm, observation, prefix_of(actions, 3, 3))
    np.testing.assert_allclose(capped[:, :2], actions[:, :2], atol=1e-5)
    assert np.abs(capped[:, 2] - actions[:, 2]).max() > 1e-3


@pytest.fixture
def seen_times(monkeypatch):
    """The times that the model embeds, call by call."""
    seen, embed = [], flow.embed_time

    def spy(time, dim, *args):
        jax.debug.callback(lambda value: seen.append(np.asarray(value)), time)
        return embed(time, dim, *args)

    monkeypatch.setattr(flow, "embed_time", spy)
    return seen


def test_times_per_action_reach_the_condition(seen_times):
    """Frozen actions are at time 0, the others at the step's own; each gets a condition of its own."""
    model = Pi05Policy(dataclasses.replace(PI05, max_training_delay=2, num_steps=1))
    params, observation = randomize(abstract_params(model)), make_observation(model, ["x", "y"])
    prefix = ActionPrefix(np.zeros((2, 3, 4), np.float32), np.array([0, 2], np.int32), np.array([3, 3], np.int32))
    sampler(model, None)(params, norm_for(model), observation, prefix)
    jax.effects_barrier()
    assert any(np.array_equal(time, [[1, 1, 1], [0, 0, 1]]) for time in seen_times)


def test_the_training_loss_leaves_out_exactly_what_is_given(seen_times):
    model = Pi05Policy(dataclasses.replace(PI05, max_training_delay=2, num_draws=1))
    params, batch, jitted = randomize(abstract_params(model)), make_batch(model, 8), jax.jit(model.loss)
    loss = np.asarray(jitted(params, norm_for(model), batch, KEY))
    jax.effects_barrier()
    given = np.asarray(draw_prefix(jax.random.split(KEY, 3)[2], 8, 3, 2))
    assert set(given.sum(axis=1)) == {0, 1, 2}
    np.testing.assert_array_equal(loss == 0, given)
    # What is given is given clean, at time 0; the others share their example's time.
    (times,) = seen_times
    np.testing.assert_array_equal(times == 0, given)
    np.testing.assert_array_equal(np.where(given, times[:, 2:], times), np.repeat(times[:, 2:], 3, axis=1))
    # So its targets change the others' loss, not its own.
    row = int(np.argmax(given.sum(axis=1)))
    actions = batch.actions.copy()
    actions[row, 0] += 1.0
    moved = np.asarray(jitted(params, norm_for(model), dataclasses.replace(batch, actions=actions), KEY))
    assert moved[row, 0] == 0
    assert abs(moved[row, 2] - loss[row, 2]) > 1e-4


def test_the_compact_policy_is_given_the_start_of_some_chunks():
    model = CompactPolicy(dataclasses.replace(COMPACT, max_training_delay=2, num_draws=1))
    key = jax.random.key(0)
    params, batch, jitted = randomize(abstract_params(model)), make_batch(model, 8), jax.jit(model.loss)
    loss = np.asarray(jitted(params, norm_for(model), batch, key))
    given = np.asarray(draw_prefix(jax.random.split(key, 3)[2], 8, 3, 2))
    assert set(given.sum(axis=1)) == {0, 1, 2}
    np.testing.assert_array_equal(loss == 0, given)
    # What is given changes the others' loss, not its own: it stands clean in the chunk.
    row = int(np.argmax(given.sum(axis=1)))
    actions = batch.actions.copy()
    actions[row, 0] += 1.0
    moved = np.asarray(jitted(params, norm_for(model), dataclasses.replace(batch, actions=actions), key))
    assert moved[row, 0] == 0
    assert abs(moved[row, 2] - loss[row, 2]) > 1e-4


def test_the_mean_of_open_actions_by_hand():
    error = jnp.array([[[2.0, 4.0, 6.0], [jnp.nan, 1.0, 2.0]], [[9.0, 9.0, 1.0], [9.0, 5.0, 3.0]]])
    given = jnp.array([[[False] * 3, [True, False, False]], [[True, True, False], [True, False, False]]])
    # max_delay 2: open in one draw with 1/3, 2/3, 1; in one of two at least with 1 - 4/9, 1 - 1/9, 1.
    expected = [[2 / (5 / 9), 2.5 / (8 / 9), 4], [0, 5 / (8 / 9), 2]]
    np.testing.assert_allclose(mean_of_open(error, given, 2), expected, rtol=1e-6)
    gradient = jax.grad(lambda error: mean_of_open(error, given, 2).sum())(error)
    np.testing.assert_allclose(gradient[1], [[0, 0, 0.5], [0, 9 / 8, 0.5]], rtol=1e-6)


@pytest.mark.parametrize("num_draws", [1, 3])
@pytest.mark.parametrize("name", ["pi05_tokens", "compact"])
def test_all_actions_of_a_chunk_count_alike_whether_or_not_some_are_given_away(name, num_draws):
    """A silent network's error is the target's square, whatever it is given."""
    model = create_model(dataclasses.replace(MODELS[name], max_training_delay=2, num_draws=num_draws))
    silent = jax.tree.map(lambda leaf: np.zeros(leaf.shape, np.float32), abstract_params(model))
    batch = make_batch(model, 1000)
    batch = dataclasses.replace(batch, actions=np.zeros_like(batch.actions))
    loss = jax.jit(model.loss)(silent, norm_for(model), batch, KEY)
    np.testing.assert_allclose(loss.mean(axis=0), [1.0, 1.0, 1.0], atol=0.2)  # the noise's variance


@pytest.mark.parametrize(("name", "module"), [("pi05_tokens", pi05), ("compact", compact)])
def test_noise_times_and_delays_are_drawn_with_keys_of_their_own(name, module, monkeypatch):
    model = create_model(dataclasses.replace(MODELS[name], max_training_delay=2))
    params, batch, keys = randomize(abstract_params(model)), make_batch(model, 2), []

    def noting(draw):
        def drawn(key, *args):
            keys.append(tuple(np.asarray(jax.random.key_data(key)).tolist()))
            if len(keys) == 3:
                raise StopIteration  # what follows needs no key
            return draw(key, *args)

        return drawn

    for owner, drawing in ((jax.random, "normal"), (flow, "sample_time"), (module, "draw_prefix")):
        monkeypatch.setattr(owner, drawing, noting(getattr(owner, drawing)))
    with pytest.raises(StopIteration):
        model.loss(params, norm_for(model), batch, KEY)  # not compiled, so that keys can be looked at
    assert len(set(keys)) == 3


def test_a_compact_policy_may_learn_to_continue_later():
    """With its new weights at zero it is the policy that it was."""
    plain, learning = CompactPolicy(COMPACT), CompactPolicy(dataclasses.replace(COMPACT, max_training_delay=2))
    key, norm, observation = jax.random.key(0), norm_for(plain), make_observation(plain, ["x", "y"])
    new, old = learning.init_params(key), plain.init_params(key)
    assert not new["head"]["held"]["kernel"].any()
    params = {**old, "head": {**old["head"], "held": new["head"]["held"]}}
    unknown = prefix_of(np.zeros((2, 3, 4)), 0, 0)
    expected = jax.jit(plain.sample_actions)(old, norm, observation, KEY)
    np.testing.assert_allclose(sampler(learning, None)(params, norm, observation, unknown), expected, atol=1e-6)


def test_without_training_delay_the_loss_is_what_it_was():
    """The flow loss written out, with the key split as ever: bit for bit."""
    model = Pi05Policy(dataclasses.replace(PI05, num_draws=1))
    silent = jax.tree.map(lambda leaf: np.zeros(leaf.shape, np.float32), abstract_params(model))
    batch = make_batch(model, 4)
    noise_key, _ = jax.random.split(KEY)
    noise = jax.random.normal(noise_key, (4, 3, 6))
    actions = jnp.pad(jnp.asarray(batch.actions), ((0, 0), (0, 0), (0, 2)))
    half_range = jnp.float32(2 + 1e-6) / 2  # of identity percentiles
    actions = actions.at[..., :4].set((batch.actions - (-1 + half_range)) / half_range)
    expected = jnp.square(noise - actions).sum(-1) / 6
    np.testing.assert_allclose(jax.jit(model.loss)(silent, norm_for(model), batch, KEY), expected, rtol=1e-5)


def test_drawn_delays_are_uniform_and_at_the_start():
    given = np.asarray(draw_prefix(KEY, 4000, 6, 3))
    counts = np.bincount(given.sum(axis=1), minlength=7)
    assert (counts[4:] == 0).all()
    np.testing.assert_allclose(counts[:4] / 4000, 0.25, atol=0.03)
    assert (np.diff(given.astype(int), axis=1) <= 0).all()


def test_what_a_policy_cannot_do_is_refused():
    observation = make_observation(CompactPolicy(COMPACT), ["x"])
    prefix = prefix_of(np.zeros((1, 3, 4)), 1, 2)
    for config in (COMPACT, PI05):
        model = create_model(config)
        with pytest.raises(ValueError, match=r"max_training_delay = 0.*'guided'"):
            jax.eval_shape(
                lambda p, model=model: model.sample_actions(p, norm_for(model), observation, KEY, action_prefix=prefix),
                abstract_params(model),
            )
        with pytest.raises(ValueError, match="max_training_delay must be at least 0 and below the horizon 3, got 3"):
            dataclasses.replace(config, max_training_delay=3)
    with pytest.raises(ConfigError, match="max_weight must be finite"):
        Guidance(max_weight=float("inf"))
    with pytest.raises(ConfigError, match="'exponential' or 'linear', got 'step'"):
        Guidance("step")
    with pytest.raises(ValueError, match="got 3, 2 and H = 4"):
        ChunkPrefix(np.zeros((4, 1)), 3, 2)


def test_is_frozen_counts_from_the_start():
    prefix = ActionPrefix(np.zeros((2, 4, 1), np.float32), np.array([3, 0]), np.array([4, 0]))
    assert is_frozen(prefix, 2).tolist() == [[True, True, False, False], [False] * 4]


@pytest.mark.slow
@pytest.mark.parametrize(
    "config",
    [
        dataclasses.replace(PI05, max_training_delay=2, cameras=("head",), state_input="continuous"),
        dataclasses.replace(COMPACT, max_training_delay=2),
    ],
    ids=["pi05", "compact"],
)
def test_a_policy_trained_with_delays_stays_on_its_side(config):
    """Two ways are equally good, left and right. Alone each chunk takes either; given its start, it goes on that way."""
    model = create_model(config)
    batch, norm, num = make_batch(model, 1), norm_for(model), 128
    side = np.random.default_rng(0).choice([-1.0, 1.0], (num, 1, 1)).astype(np.float32)
    batch = jax.tree.map(lambda leaf: np.repeat(leaf, num, axis=0), batch)  # All see the same.
    batch = dataclasses.replace(batch, actions=np.broadcast_to(side, (num, 3, 4)).copy())
    optimizer = optax.adam(3e-3)

    @jax.jit
    def train(params):
        def step(carry, key):
            params, state = carry
            grads = jax.grad(lambda p: model.loss(p, norm, batch, key).mean())(params)
            updates, state = optimizer.update(grads, state)
            return (optax.apply_updates(params, updates), state), None

        start = (params, optimizer.init(params))
        return jax.lax.scan(step, start, jax.random.split(jax.random.key(0), 300))[0][0]

    params = train(jax.jit(model.init_params)(jax.random.key(0)))
    chunks = []
    for num_frozen in (1, 0):
        prefix = prefix_of(np.broadcast_to(side, (num, 3, 4)), num_frozen, num_frozen)
        chunks.append(
            np.asarray(sampler(model, None)(params, norm, batch.observation, prefix))[:, 1:].mean(axis=(1, 2))
        )
    continued, alone = ((np.sign(chunk) == side[:, 0, 0]).mean() for chunk in chunks)
    assert continued > 0.97
    assert 0.35 < alone < 0.65
