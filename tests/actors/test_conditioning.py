"""What a robot's policy is told: the suffix behind the instruction, and how strongly to follow it."""

import jax
import numpy as np
import pytest

from sop_jax.actors.batched_policy import BatchedPolicy, BatchingConfig
from sop_jax.actors.chunking import ChunkingConfig
from sop_jax.actors.observation_encoder import ObservationEncoder
from sop_jax.actors.policy_runner import PolicyRunner
from sop_jax.actors.sampler import ChunkSampler
from sop_jax.episodes.synthetic import make_observation, make_spec
from sop_jax.models.bundle import PolicyBundle
from sop_jax.models.compact import CompactConfig
from sop_jax.models.normalization import identity_norm_stats
from sop_jax.models.registry import create_model
from sop_jax.specs.clock import WallClock
from sop_jax.specs.conditioning import Conditioning
from sop_jax.specs.errors import ConfigError

CONFIG = CompactConfig(
    cameras=("head",),
    image_size=16,
    horizon=3,
    max_tokens=12,
    text_width=8,
    patch_width=16,
    patch_features=4,
    camera_features=8,
    state_features=8,
    head_width=32,
)
SPEC = make_spec(image_size=16, camera_names=("head",))
SUFFIX = "Advantage: positive"


@pytest.fixture(scope="module")
def bundle() -> PolicyBundle:
    params = create_model(CONFIG).init_params(jax.random.key(0))
    return PolicyBundle(CONFIG, params, identity_norm_stats(16, 16, 3))


def see(instruction: str):
    return make_observation(np.random.default_rng(0), SPEC, time_ns=0, instruction=instruction, images=True)


def test_the_suffix_is_read_behind_the_instruction(bundle):
    bare, told = PolicyRunner.from_bundle(bundle), PolicyRunner.from_bundle(bundle, None, Conditioning(SUFFIX))
    chunk = told.infer(see("put the can left"), 1)
    np.testing.assert_array_equal(chunk, bare.infer(see(f"put the can left\n{SUFFIX}"), 1))
    assert np.abs(chunk - bare.infer(see("put the can left"), 1)).max() > 1e-4


def test_guidance_compiles_once_and_lies_where_the_formula_says(bundle):
    runners = {g: PolicyRunner.from_bundle(bundle, None, Conditioning(SUFFIX, g)) for g in (0.0, 1.0, 1.0001, 2.0)}
    chunks = {g: runner.infer(see("fold"), 5) for g, runner in runners.items()}
    np.testing.assert_allclose(chunks[0.0], PolicyRunner.from_bundle(bundle).infer(see("fold"), 5), atol=1e-5)
    np.testing.assert_allclose(chunks[1.0001], chunks[1.0], atol=1e-3)
    assert np.abs(chunks[2.0] - chunks[1.0]).max() > 1e-4
    runners[2.0].infer(see("another instruction"), 6)
    assert [runner.num_compilations for runner in runners.values()] == [1, 1, 1, 1]


def test_robots_in_a_batch_are_told_the_same(bundle):
    conditioning = Conditioning(SUFFIX, 2.0)
    alone = PolicyRunner.from_bundle(bundle, None, conditioning)
    config = BatchingConfig((2,), 30.0, 60.0)
    with BatchedPolicy.from_bundle(bundle, WallClock(), conditioning=conditioning, config=config) as shared:
        seat = shared.take_seat()
        seat.warm_up(SPEC)
        with seat.episode():
            chunk = seat.infer(see("fold"), 5)
        assert shared.num_compilations == 1
    np.testing.assert_allclose(chunk, alone.infer(see("fold"), 5), atol=1e-5)


def test_a_call_that_forgets_the_bare_prompt_is_refused(bundle):
    conditioning = Conditioning(SUFFIX, 2.0)
    sampler = ChunkSampler(bundle.model, ChunkingConfig(), conditioning)
    encoder = ObservationEncoder(bundle.model, conditioning)
    with pytest.raises(ValueError, match="conditioning needs bare prompts"):
        sampler.sample(bundle.params, bundle.norm, encoder.encode(see("fold")), np.array([1], np.uint32), None)


def test_what_costs_nothing_and_what_is_refused():
    assert Conditioning().apply("fold") == "fold"
    assert Conditioning(SUFFIX).apply("fold") == "fold\nAdvantage: positive"
    assert not Conditioning("", 2.0).is_guided  # both prompts would be the same
    assert not Conditioning(SUFFIX).is_guided
    assert Conditioning(SUFFIX, 0.0).is_guided
    for guidance in (-0.1, float("nan"), float("inf")):
        with pytest.raises(ConfigError, match="guidance must be finite and >= 0"):
            Conditioning(SUFFIX, guidance)
