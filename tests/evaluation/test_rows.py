"""What a trial's chunks depend on: its own requests and the number of rows, and nothing that runs beside it."""

import pathlib

import numpy as np
import pytest

from sop_jax.actors.chunk_player import ChunkRequest
from sop_jax.actors.policy_runner import PolicyRunner
from sop_jax.actors.robot_policy import black_scene
from sop_jax.models.bundle import load_bundle
from sop_jax.robots.two_arm import two_arm_spec
from sop_jax.specs.conditioning import Conditioning
from sop_jax.specs.records import Observation

POLICY = pathlib.Path(__file__).parents[2] / "assets" / "policies" / "restock_compact"


@pytest.fixture(scope="module")
def runner():
    return PolicyRunner.from_bundle(load_bundle(POLICY))


def requests(num):
    rng = np.random.default_rng(0)
    spec = two_arm_spec("fake", 64, 30.0)
    names = list(black_scene(spec, "x").images)
    return [
        ChunkRequest(
            Observation(
                {name: rng.integers(0, 256, (64, 64, 3)).astype(np.uint8) for name in names},
                rng.uniform(-1, 1, 16).astype(np.float32),
                f"put the red can in the {('left', 'right')[i % 2]} slot",
                0,
            ),
            seed=i,
        )
        for i in range(num)
    ]


def test_a_row_depends_on_neither_its_place_nor_its_neighbours(runner):
    asked = requests(7)
    alone = [runner.infer_rows([request], 4)[0] for request in asked]
    assert len({chunk.tobytes() for chunk in alone}) == 7
    rng = np.random.default_rng(1)
    for _ in range(10):
        chosen = rng.permutation(7)[: rng.integers(1, 5)]
        chunks = runner.infer_rows([asked[i] for i in chosen], 4)
        assert chunks.shape == (len(chosen), runner.horizon, 16)
        for i, chunk in zip(chosen, chunks, strict=True):
            np.testing.assert_array_equal(chunk, alone[i])


def test_a_row_is_what_the_policy_says_alone_to_float_tolerance(runner):
    request = requests(1)[0]
    alone = runner.infer(request.observation, request.seed)
    np.testing.assert_allclose(runner.infer_rows([request], 4)[0], alone, atol=1e-4)
    np.testing.assert_array_equal(runner.infer_rows([request], 1)[0], alone)


def test_rows_are_guided_where_the_policy_alone_is(runner):
    guided = PolicyRunner.from_bundle(load_bundle(POLICY), conditioning=Conditioning("advantage: positive", 2.5))
    first, second = requests(2)
    chunks = guided.infer_rows([first, second], 4)
    np.testing.assert_allclose(chunks[1], guided.infer(second.observation, second.seed), atol=1e-4)
    assert np.abs(chunks[1] - runner.infer_rows([second], 4)[0]).max() > 0.01
    told_only = PolicyRunner.from_bundle(load_bundle(POLICY), conditioning=Conditioning("advantage: positive"))
    assert np.abs(chunks[1] - told_only.infer_rows([second], 4)[0]).max() > 1e-3
