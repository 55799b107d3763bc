"""What a robot's policy must do, whether it has a runner of its own or a seat at a policy that many share."""

import jax
import numpy as np
import pytest
from actor_parts import SHARED_SIZES, TinyModel, make_runner, make_shared

from sop_jax.actors.batched_policy import BatchedPolicy
from sop_jax.actors.chunking import ChunkingConfig
from sop_jax.actors.policy_runner import PolicyRunner
from sop_jax.actors.robot_policy import RobotPolicy, SwapInsideEpisodeError
from sop_jax.models.batch import ObservationBatch
from sop_jax.models.bundle import PolicyBundle
from sop_jax.models.compact import CompactConfig
from sop_jax.models.normalization import identity_norm_stats
from sop_jax.models.policy import abstract_params
from sop_jax.models.pytrees import flatten_params, unflatten_params
from sop_jax.models.registry import create_model
from sop_jax.robots.fake import FakeRobot
from sop_jax.specs.chunking import ChunkPrefix
from sop_jax.specs.clock import ManualClock
from sop_jax.specs.errors import ConfigError, InvalidPublicationError
from sop_jax.specs.records import Observation


@pytest.fixture(params=["own", "shared"])
def make(request):
    """Makes robots' policies of the kind under test, and closes what they share."""
    opened = []

    def make_policy(version=0, chunking=None):
        if request.param == "own":
            return make_runner(version, chunking)
        opened.append(make_shared(version, chunking))
        return opened[-1].take_seat()

    make_policy.num_compilations = 1 if request.param == "own" else len(SHARED_SIZES)
    yield make_policy
    for shared in opened:
        shared.close()


@pytest.fixture
def runner(make):
    runner = make()
    runner.warm_up(FakeRobot().spec)
    return runner


@pytest.fixture
def observation():
    robot = FakeRobot()
    robot.reset(3)
    return robot.observe()


def trained(change=lambda leaf: leaf):
    """The trained leaves of a TinyModel, each passed through `change`."""
    return {"head": {name: change(np.asarray(leaf)) for name, leaf in TinyModel().init_params(None)["head"].items()}}


def test_it_is_a_robots_policy(runner):
    assert isinstance(runner, RobotPolicy)
    assert (runner.version, runner.horizon, runner.weights_base) == (0, 8, "base")
    assert runner.norm_stats == identity_norm_stats(16, 16, 8).fingerprint


def test_a_chunk_follows_from_state_image_and_noise(runner, observation):
    chunk = runner.infer(observation, seed=11)
    assert (chunk.dtype, chunk.shape) == (np.float32, (8, 16))
    brightness = observation.images["head"].astype(np.float64).mean() / 255
    noise = 0.001 * np.asarray(jax.random.normal(jax.random.key(11), (8, 16)))
    np.testing.assert_allclose(chunk, observation.state + 0.01 + 0.01 * brightness + noise, atol=1e-6)


def test_the_seed_decides_the_noise(runner, observation):
    first = runner.infer(observation, 1)
    np.testing.assert_array_equal(first, runner.infer(observation, 1))
    assert not np.array_equal(first, runner.infer(observation, 2))


def test_a_camera_that_drops_out_is_masked(runner, observation):
    chunk = runner.infer(Observation({}, observation.state, observation.instruction, 5), 11)
    noise = 0.001 * np.asarray(jax.random.normal(jax.random.key(11), (8, 16)))
    np.testing.assert_allclose(chunk, observation.state + 0.01 + noise, atol=1e-6)


def test_it_compiles_while_warming_up_and_never_again(make, observation):
    runner = make()
    assert runner.num_compilations == 0
    runner.warm_up(FakeRobot().spec)
    for seed in range(3):
        runner.infer(observation, seed)
    runner.infer(Observation({}, observation.state, "another instruction", 5), 2**31 - 1)
    runner.swap(trained(lambda leaf: leaf + 1), version=1)
    runner.infer(observation, 5)
    assert runner.num_compilations == make.num_compilations


def test_a_swap_changes_the_trained_leaves_and_the_version_only(runner, observation):
    before = runner.infer(observation, 1)
    assert list(flatten_params(runner.trained_template)) == [("head", "bias"), ("head", "gain")]
    runner.swap(trained(), version=1)
    np.testing.assert_array_equal(runner.infer(observation, 1), before)
    runner.swap(trained(lambda leaf: leaf + 0.5 if leaf.ndim == 1 else leaf), version=4)
    assert runner.version == 4
    np.testing.assert_allclose(runner.infer(observation, 1), before + 0.5, atol=1e-6)


def test_no_swap_inside_an_episode(runner, observation):
    before = runner.infer(observation, 1)
    with runner.episode():
        with pytest.raises(SwapInsideEpisodeError, match="to version 9: an episode is running on version 0"):
            runner.swap(trained(lambda leaf: leaf + 2), version=9)
        with pytest.raises(SwapInsideEpisodeError, match="give each robot its own"), runner.episode():
            pass
    np.testing.assert_array_equal(runner.infer(observation, 1), before)
    runner.swap(trained(lambda leaf: leaf + 2), version=9)
    assert runner.version == 9


def test_the_guard_opens_when_an_episode_fails(runner):
    with pytest.raises(ZeroDivisionError), runner.episode():
        raise ZeroDivisionError
    runner.swap(trained(), version=1)


@pytest.mark.parametrize(
    ("break_it", "message"),
    [
        (lambda flat, path: flat.pop(path), "1 are missing"),
        (lambda flat, path: flat.update({("frozen", "offset"): np.zeros(16)}), "1 are unknown"),
        (
            lambda flat, path: flat.update({path: np.zeros((3, 3), np.float32)}),
            r"float32\[3, 3\], expected float32\[8, 16\]",
        ),
        (lambda flat, path: flat.update({path: flat[path].astype(np.float16)}), "is float16"),
    ],
)
def test_parameters_of_another_model_are_refused_and_nothing_changes(runner, observation, break_it, message):
    before = runner.infer(observation, 1)
    flat = flatten_params(trained(lambda leaf: leaf + 2))
    break_it(flat, ("head", "gain"))
    with pytest.raises(InvalidPublicationError, match=message):
        runner.swap(unflatten_params(flat), version=3)
    assert runner.version == 0
    np.testing.assert_array_equal(runner.infer(observation, 1), before)


def test_a_camera_that_never_gave_an_image_is_missed(make, observation):
    with pytest.raises(ValueError, match=r"camera 'head' .* got none \(cameras given: \['elbow'\]\)"):
        make().infer(Observation({"elbow": np.zeros((16, 16, 3), np.uint8)}, observation.state, "x", 0), 0)


def test_images_may_not_change_size(runner, observation):
    with pytest.raises(ValueError, match=r"shape \(16, 16, 3\), got \(8, 8, 3\)"):
        runner.infer(Observation({"head": np.zeros((8, 8, 3), np.uint8)}, observation.state, "x", 0), 0)


def test_a_state_may_not_change_size(runner, observation):
    with pytest.raises(ValueError, match=r"state of shape \(16,\), as at first, got \(5,\)"):
        runner.infer(Observation(observation.images, np.zeros(5, np.float32), "x", 0), 0)


def test_a_policy_that_continues_chunks_compiles_once_for_first_and_later_ones(make, observation):
    runner = make(chunking=ChunkingConfig("guided", max_guidance_weight=2.0))
    runner.warm_up(FakeRobot().spec)
    plain = runner.infer(observation, 1)
    prefix = ChunkPrefix(plain + 1, 3, 5)
    continued = runner.infer(observation, 1, prefix)
    # TinyModel moves each action by the soft mask times the difference; 2 at the frozen ones stands for the guidance.
    np.testing.assert_allclose(continued[:3], plain[:3] + 2, atol=1e-5)
    np.testing.assert_array_equal(continued[5:], plain[5:])
    assert runner.num_compilations == make.num_compilations
    np.testing.assert_array_equal(runner.infer(observation, 1), plain)
    with pytest.raises(ValueError, match=r"\[H, A\] = \(8, 16\), got \(7, 16\)"):
        runner.infer(observation, 1, ChunkPrefix(plain[:7], 0, 0))


def test_a_prefix_for_a_policy_that_takes_none_is_refused(runner, observation):
    with pytest.raises(ValueError, match="chunking mode 'none' but was given a chunk"):
        runner.infer(observation, 1, ChunkPrefix(np.zeros((8, 16), np.float32), 0, 0))


def test_a_policy_that_was_not_trained_to_continue_is_refused(make):
    with pytest.raises(ConfigError, match=r"max_training_delay above 0.*use 'guided'"):
        make(chunking=ChunkingConfig("trained"))


@pytest.mark.parametrize("kind", ["own", "shared"])
def test_the_compact_policy_from_a_bundle(kind, observation):
    config = CompactConfig(
        ("head",), 16, patch_width=8, patch_features=4, camera_features=4, head_width=16, horizon=4, num_steps=1
    )
    norm = identity_norm_stats(16, 16, 4)
    rng = np.random.default_rng(0)
    shapes = abstract_params(create_model(config))
    params = jax.tree.map(lambda leaf: rng.normal(0, 0.1, leaf.shape).astype(leaf.dtype), shapes)
    bundle = PolicyBundle(config, params, norm)
    shared = BatchedPolicy.from_bundle(bundle, ManualClock()) if kind == "shared" else None
    runner = PolicyRunner.from_bundle(bundle) if shared is None else shared.take_seat()
    assert (runner.version, runner.horizon) == (0, 4)
    assert (runner.weights_base, runner.norm_stats) == (bundle.fingerprint, norm.fingerprint)

    tokens, mask = bundle.model.tokenize([observation.instruction])
    batch = ObservationBatch(
        images={"head": observation.images["head"][None]},
        image_mask={"head": np.array([True])},
        state=observation.state[None],
        tokens=tokens,
        token_mask=mask,
    )
    expected = jax.jit(bundle.model.sample_actions)(params, norm, batch, jax.random.key(11))
    np.testing.assert_allclose(runner.infer(observation, 11), expected[0], rtol=1e-5, atol=1e-5)
    if shared is not None:
        shared.close()
