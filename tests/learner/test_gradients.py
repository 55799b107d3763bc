"""A batch in parts is the batch whole, however unevenly the parts teach."""

import dataclasses

import jax
import numpy as np
import pytest
from linear_policy import CONFIG, MODEL, NORM, LinearModel, make_batches
from small_pi05 import with_uneven_masks

from sop_jax.algorithms.registry import create_algorithm
from sop_jax.learner.config import MeshConfig
from sop_jax.learner.optimizer import make_optimizer
from sop_jax.learner.sharding import join_parts, split_in_parts
from sop_jax.learner.state import init_state
from sop_jax.learner.train_step import train_step
from sop_jax.specs.errors import ConfigError
from sop_jax.weights.partition import split_params

ALGORITHM = create_algorithm("hg_dagger")


def one_step(model, batch, config):
    trained, frozen = split_params(model.init_params(jax.random.key(1)), model.is_trained)
    state = init_state(trained, make_optimizer(config), config.ema_decay)
    step = jax.jit(lambda state, batch: train_step(model, ALGORITHM, config, state, frozen, NORM, batch))
    return step(state, batch)


@pytest.mark.parametrize("num_parts", [2, 4, 8])
def test_parts_add_up_to_the_whole(num_parts):
    """Parts teach different amounts, so a plain mean over parts would be wrong."""
    model = LinearModel(noise=0.0)
    batch = with_uneven_masks(make_batches(8).next().batch)
    whole, result = one_step(model, batch, CONFIG)
    parts, of_parts = one_step(model, batch, dataclasses.replace(CONFIG, accumulate_steps=num_parts))
    for name in ("loss", "grad_norm", "per_example"):
        np.testing.assert_allclose(getattr(of_parts, name), getattr(result, name), rtol=1e-5, atol=1e-7)
    # Adam's first step is the gradient's sign, so the moments say more than the parameters.
    moments = [jax.tree.leaves(state.opt_state[1][0].mu) for state in (whole, parts)]
    for one, other in zip(*moments, strict=True):
        np.testing.assert_allclose(other, one, rtol=1e-4, atol=1e-7)


def test_a_batch_that_teaches_nothing_has_no_gradient():
    batch = make_batches(8).next().batch
    batch = dataclasses.replace(batch, weight=np.zeros(8, np.float32))
    state, result = one_step(MODEL, batch, dataclasses.replace(CONFIG, accumulate_steps=2))
    assert float(result.loss) == float(result.grad_norm) == 0.0
    assert bool(result.is_finite)
    np.testing.assert_allclose(
        state.params["encoder"]["kernel"], MODEL.init_params(jax.random.key(1))["encoder"]["kernel"]
    )


def test_a_part_without_finite_gradient_skips_the_whole_step():
    batch = make_batches(8).next().batch
    batch.actions[3, 0, 0] = np.nan
    state, result = one_step(MODEL, batch, dataclasses.replace(CONFIG, accumulate_steps=4))
    assert not bool(result.is_finite)
    np.testing.assert_array_equal(
        state.params["encoder"]["kernel"], MODEL.init_params(jax.random.key(1))["encoder"]["kernel"]
    )


def test_rows_go_to_parts_in_turn_and_come_back_in_order():
    rows = np.arange(12, dtype=np.float32)
    parts = split_in_parts({"rows": rows, "wide": np.zeros((12, 2, 5))}, 3)
    np.testing.assert_array_equal(parts["rows"], [[0, 3, 6, 9], [1, 4, 7, 10], [2, 5, 8, 11]])
    assert parts["wide"].shape == (3, 4, 2, 5)
    np.testing.assert_array_equal(join_parts(parts["rows"]), rows)


def test_the_batch_must_divide_into_parts(make_bench):
    with pytest.raises(ConfigError, match="multiple of accumulate_steps=3, got 8"):
        dataclasses.replace(CONFIG, accumulate_steps=3)
    config = dataclasses.replace(CONFIG, accumulate_steps=2, mesh=MeshConfig(data=8))
    with pytest.raises(ConfigError, match="data x fsdp = 8 devices x accumulate_steps = 2, got 8"):
        make_bench(config)


def test_the_loop_records_the_losses_of_all_parts_in_order(make_bench):
    """Without noise the losses are those of the unaccumulated loop, example by example."""
    model = LinearModel(noise=0.0)
    whole, parts = (make_bench(dataclasses.replace(CONFIG, accumulate_steps=steps), model=model) for steps in (1, 4))
    whole.learner.run()
    parts.learner.run()
    for (draws, losses), (expected_draws, expected) in zip(parts.batches.recorded, whole.batches.recorded, strict=True):
        assert draws == expected_draws
        np.testing.assert_allclose(losses, expected, rtol=1e-4, atol=1e-6)
