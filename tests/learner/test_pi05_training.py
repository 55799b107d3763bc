"""The full policy's training at a small size: the language model frozen, the same on every mesh, whole or in parts."""

import dataclasses
import re

import jax.numpy as jnp
import numpy as np
import pytest
from linear_policy import CONFIG, LinearModel
from small_pi05 import IMAGE, MODEL, NORM, InParts, lower_step, make_batches, make_params, train

from sop_jax.learner.config import LearnerConfig, MeshConfig
from sop_jax.learner.memory import kept_bytes
from sop_jax.learner.remat import with_remat
from sop_jax.models.pi05.policy import Pi05Policy
from sop_jax.models.pytrees import flatten_params
from sop_jax.specs.errors import ConfigError
from sop_jax.weights.partition import split_params

ONE_DEVICE = MeshConfig(data=1)
DATA = MeshConfig(data=8, min_sharded_bytes=0)
FSDP = MeshConfig(data=1, fsdp=8, min_sharded_bytes=0)
ALL = MeshConfig(data=2, fsdp=2, tensor=2, min_sharded_bytes=0)
GATING, KERNEL = ("PaliGemma", "llm", "layers", "mlp_1", "gating_einsum"), ("time_mlp_in", "kernel")
FROZEN_LINEAR, TABLE = (
    ("PaliGemma", "llm", "layers", "mlp", "linear"),
    ("PaliGemma", "llm", "embedder", "input_embedding"),
)
SHARDS = {
    "data": {GATING: (5, 2, 32, 48), KERNEL: (32, 32), FROZEN_LINEAR: (5, 56, 24), TABLE: (320, 24)},
    "fsdp": {GATING: (5, 2, 32, 6), KERNEL: (4, 32), FROZEN_LINEAR: (5, 7, 24), TABLE: (40, 24)},
    "data x fsdp x tensor": {GATING: (5, 2, 16, 24), KERNEL: (16, 32), FROZEN_LINEAR: (5, 28, 12), TABLE: (160, 24)},
}
slow = pytest.mark.slow


def assert_same_training(found, expected):
    np.testing.assert_allclose(found.losses, expected.losses, rtol=1e-4, atol=1e-6)
    np.testing.assert_allclose(found.grad_norms, expected.grad_norms, rtol=1e-4)
    for path, leaf in flatten_params(expected.state.ema).items():
        np.testing.assert_allclose(
            flatten_params(found.state.ema)[path], leaf, rtol=1e-3, atol=2e-5, err_msg="/".join(path)
        )


def test_parts_add_up_to_the_whole():
    whole = train(InParts(MODEL.config), ONE_DEVICE, 1)
    assert np.all(whole.losses[:, 1:] > 0)
    assert np.all(whole.losses[:, 0] == 0)  # the example that teaches nothing
    assert np.unique(whole.losses[0]).size == 16  # no two examples share their noise
    assert_same_training(train(MODEL, ONE_DEVICE, 2), whole)


@pytest.mark.parametrize(
    ("name", "mesh", "accumulate_steps"),
    [
        pytest.param("data", DATA, 2, marks=slow),
        ("data x fsdp x tensor", ALL, 2),
        pytest.param("fsdp", FSDP, 2, marks=slow),
        pytest.param("data", DATA, 1, marks=slow),
        pytest.param("fsdp", FSDP, 1, marks=slow),
        pytest.param("data x fsdp x tensor", ALL, 1, marks=slow),
    ],
)
def test_training_is_the_same_on_every_mesh(name, mesh, accumulate_steps):
    found = train(MODEL, mesh, accumulate_steps)
    assert_same_training(found, train(MODEL, ONE_DEVICE, accumulate_steps))
    for tree in (found.state.params, found.state.ema, found.state.opt_state[1][0].mu, found.frozen):
        flat = flatten_params(tree)
        for path, shape in SHARDS[name].items():
            if path in flat:
                assert flat[path].addressable_shards[0].data.shape == shape


def test_parts_are_spread_over_all_devices():
    """Over `data` alone, nothing but sums of gradients and losses travels between devices."""
    program = train(MODEL, DATA, 2).program
    assert "all-reduce" in program
    assert not re.search("all-to-all|collective-permute|all-gather", program)


def test_no_image_travels_between_devices():
    """Where parameters are split too, they are gathered, and small activations may move; images don't."""
    program = train(MODEL, ALL, 2).program
    moved = re.findall(
        r"= \(?(\w+)\[([\d,]*)\][^=]* (?:all-to-all|collective-permute|all-gather)(?:-start)?\(", program
    )
    assert moved
    assert not [shape for dtype, shape in moved if dtype == "u8" or f"{IMAGE},{IMAGE},3" in shape]


def test_frozen_leaves_have_no_gradient_buffer():
    """The compiled step reads the frozen embedding and never makes an array of its shape; were it trained, it would."""
    program = train(MODEL, DATA, 2).program
    assert "bf16[320,24]" in program
    made = [line for line in program.splitlines() if re.search(r" = \w+\[320,24\]", line)]
    reading = (
        r"\w+\[320,24\]\S* (parameter|get-tuple-element|convert|fusion\(.*wrapped_convert)"  # CPUs compute in float32
    )
    assert [line for line in made if not re.search(reading, line)] == []

    def operations_giving_the_table(model) -> list[str]:
        text = lower_step(model, LearnerConfig(batch_size=8, mesh=ONE_DEVICE))[0].as_text()
        return [
            line for line in text.splitlines() if re.search(r"= .*-> tensor<320x24x\w+>|: tensor<320x24x\w+>$", line)
        ]

    assert operations_giving_the_table(MODEL) == []
    trainable = Pi05Policy(dataclasses.replace(MODEL.config, freeze_language=False))
    assert len(operations_giving_the_table(trainable)) > 3  # gradient, moments, average


def test_frozen_leaves_stay_bfloat16_and_out_of_the_state(make_bench):
    """As the loop places them; nothing is compiled."""
    bench = make_bench(CONFIG, model=MODEL, params=make_params(), batches=make_batches(8), norm=NORM)
    frozen, state = flatten_params(bench.learner._frozen), bench.learner._state
    assert {leaf.dtype for leaf in frozen.values()} == {jnp.dtype(jnp.bfloat16)}
    assert FROZEN_LINEAR in frozen
    for tree in (state.params, state.ema, state.opt_state[1][0].mu, state.opt_state[1][0].nu):
        flat = flatten_params(tree)
        assert flat.keys().isdisjoint(frozen)
        assert {leaf.dtype for leaf in flat.values()} == {jnp.dtype(jnp.float32)}


@pytest.mark.parametrize("remat", ["full", pytest.param("dots", marks=slow)])
def test_recomputing_gives_the_same_gradients(remat):
    assert_same_training(train(with_remat(MODEL, remat), ONE_DEVICE, 2), train(MODEL, ONE_DEVICE, 2))


def test_recomputing_keeps_less():
    trained, frozen = split_params(make_params(), MODEL.is_trained)
    none, dots, full = (
        kept_bytes(with_remat(MODEL, name), trained, frozen, IMAGE, 4) for name in ("none", "dots", "full")
    )
    assert full < 0.5 * dots
    assert dots < 0.8 * none


def test_the_learner_decides_what_is_recomputed():
    assert with_remat(MODEL, "policy") is MODEL
    assert with_remat(MODEL, "dots").config == dataclasses.replace(MODEL.config, remat="dots")
    with pytest.raises(ConfigError, match=r"remat='full', but LinearModel keeps all"):
        with_remat(LinearModel(), "full")
