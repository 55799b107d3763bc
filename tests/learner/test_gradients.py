"""A batch in parts is the batch whole; frozen leaves take no part; recomputing changes nothing."""

import dataclasses
import operator
import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import small_pi05
from linear_policy import CONFIG, MODEL, NORM, LinearModel, make_batches

from sop_jax.algorithms.registry import create_algorithm
from sop_jax.learner.config import MeshConfig
from sop_jax.learner.optimizer import make_optimizer
from sop_jax.learner.remat import with_remat
from sop_jax.learner.sharding import join_parts, make_mesh, put_batch, put_state, split_in_parts, tree_shardings
from sop_jax.learner.state import init_state
from sop_jax.learner.train_step import compile_step, train_step
from sop_jax.models.pi05.policy import Pi05Policy
from sop_jax.models.pytrees import flatten_params
from sop_jax.specs.errors import ConfigError
from sop_jax.weights.partition import merge_params, split_params

ALGORITHM = create_algorithm("behaviour_cloning")
FROZEN_TABLE = "320,24"  # the embedding of small_pi05, a shape that nothing else has


@dataclasses.dataclass(frozen=True)
class InParts(Pi05Policy):
    """The whole batch at once, with the random numbers of `num_parts` parts: what accumulation must equal."""

    num_parts: int = 4

    def loss(self, params, norm, batch, key):
        losses = []
        for k in range(self.num_parts):
            part = jax.tree.map(operator.itemgetter(slice(k, None, self.num_parts)), batch)
            losses.append(super().loss(params, norm, part, jax.random.fold_in(key, k)))
        return jnp.stack(losses, axis=1).reshape(-1, self.horizon)


def one_step(model, params, batch, norm, config):
    trained, frozen = split_params(params, small_pi05.MODEL.is_trained if "PaliGemma" in params else MODEL.is_trained)
    state = init_state(trained, make_optimizer(config), config.ema_decay)
    step = jax.jit(lambda state, batch: train_step(model, ALGORITHM, config, state, frozen, norm, batch))
    return step(state, batch)


def assert_same_step(left, right):
    """Losses, gradient norms, parameters and moments to float tolerance. Adam's first step is nearly the gradient's sign, so
    the moments say more than the parameters."""
    for name in ("loss", "grad_norm", "per_example"):
        np.testing.assert_allclose(getattr(left[1], name), getattr(right[1], name), rtol=1e-5, atol=1e-7)
    scale = float(left[1].grad_norm)
    for one, other in zip(jax.tree.leaves(left[0].opt_state), jax.tree.leaves(right[0].opt_state), strict=True):
        np.testing.assert_allclose(one, other, rtol=1e-3, atol=1e-6 * scale)


@pytest.mark.parametrize("num_parts", [2, 4, 8])
def test_parts_add_up_to_the_whole(num_parts):
    """Parts teach different amounts, so a plain mean over parts would be wrong."""
    model = LinearModel(noise=0.0)
    batch = small_pi05.with_uneven_masks(make_batches(8).next().batch)
    params = model.init_params(jax.random.key(1))
    whole = one_step(model, params, batch, NORM, CONFIG)
    parts = one_step(model, params, batch, NORM, dataclasses.replace(CONFIG, accumulate_steps=num_parts))
    assert_same_step(whole, parts)


def test_parts_of_pi05_add_up_to_the_whole():
    params = small_pi05.make_params()
    batch = small_pi05.with_uneven_masks(small_pi05.make_batches(8).next().batch)
    whole = one_step(InParts(small_pi05.CONFIG), params, batch, small_pi05.NORM, CONFIG)
    accumulated = dataclasses.replace(CONFIG, accumulate_steps=4)
    parts = one_step(small_pi05.MODEL, params, batch, small_pi05.NORM, accumulated)
    assert_same_step(whole, parts)
    assert np.unique(np.asarray(parts[1].per_example)).size == 8  # no two examples share their noise, and one teaches 0


def test_a_batch_that_teaches_nothing_has_no_gradient():
    batch = make_batches(8).next().batch
    batch = dataclasses.replace(batch, weight=np.zeros(8, np.float32))
    config = dataclasses.replace(CONFIG, accumulate_steps=2)
    state, result = one_step(MODEL, MODEL.init_params(jax.random.key(1)), batch, NORM, config)
    assert float(result.loss) == float(result.grad_norm) == 0.0
    assert bool(result.is_finite)
    np.testing.assert_array_equal(state.params["encoder"]["kernel"], state.ema["encoder"]["kernel"])


def test_rows_go_to_parts_in_turn_and_come_back_in_order():
    rows = np.arange(12, dtype=np.float32)
    parts = split_in_parts({"rows": rows, "wide": rows.reshape(6, 2)[:6].repeat(2, 0)}, 3)
    np.testing.assert_array_equal(parts["rows"], [[0, 3, 6, 9], [1, 4, 7, 10], [2, 5, 8, 11]])
    assert parts["wide"].shape == (3, 4, 2)
    np.testing.assert_array_equal(join_parts(parts["rows"]), rows)


def test_the_batch_must_divide_into_parts(make_bench):
    with pytest.raises(ConfigError, match="multiple of accumulate_steps=3, got 8"):
        dataclasses.replace(CONFIG, accumulate_steps=3)
    config = dataclasses.replace(CONFIG, accumulate_steps=2, mesh=MeshConfig(data=8))
    with pytest.raises(ConfigError, match="data x fsdp = 8 devices x accumulate_steps = 2, got 8"):
        make_bench(config)


def compiled_text(model, config, mesh=None) -> str:
    """The optimised program of one step of a small pi0.5."""
    mesh = mesh or make_mesh(config.mesh)
    trained, frozen = split_params(small_pi05.make_params(model), model.is_trained)
    state = init_state(trained, make_optimizer(config), config.ema_decay)
    state = put_state(state, tree_shardings(mesh, state, config.mesh.min_sharded_bytes))
    frozen = put_state(frozen, tree_shardings(mesh, frozen, config.mesh.min_sharded_bytes))
    batch = put_batch(small_pi05.make_batches(config.batch_size).next().batch, mesh)
    step = compile_step(model, ALGORITHM, config, mesh, state, frozen)
    return step.lower(state, frozen, small_pi05.NORM, batch).compile().as_text()


def operations_giving(shape: str, text: str) -> set[str]:
    """Names of the operations whose result has this shape, whatever its type."""
    return set(re.findall(rf" = \w+\[{shape}\](?:\{{[^}}]*\}})? ([\w-]+)\(", text))


def test_frozen_leaves_have_no_gradient_buffer():
    """The program reads the frozen embedding and never makes an array of its shape; trained, it makes several."""
    reading = {"parameter", "get-tuple-element", "convert", "bitcast", "copy"}  # CPUs compute bfloat16 in float32
    frozen = compiled_text(small_pi05.MODEL, CONFIG)
    assert operations_giving(FROZEN_TABLE, frozen) <= reading
    assert "bf16[320,24]" in frozen
    trainable = Pi05Policy(dataclasses.replace(small_pi05.CONFIG, freeze_language=False))
    trained = compiled_text(trainable, CONFIG)
    assert operations_giving(FROZEN_TABLE, trained) - reading


def test_frozen_leaves_stay_bfloat16_and_out_of_the_state(make_bench):
    bench = make_bench(
        dataclasses.replace(CONFIG, num_steps=1),
        model=small_pi05.MODEL,
        params=small_pi05.make_params(),
        batches=small_pi05.make_batches(8),
        norm=small_pi05.NORM,
    )
    bench.learner.run()
    frozen, state = flatten_params(bench.learner._frozen), bench.learner._state
    assert {leaf.dtype for leaf in frozen.values()} == {jnp.dtype(jnp.bfloat16)}
    assert ("PaliGemma", "llm", "layers", "mlp", "linear") in frozen
    for tree in (state.params, state.ema, state.opt_state[1][0].mu, state.opt_state[1][0].nu):
        flat = flatten_params(tree)
        assert flat.keys().isdisjoint(frozen)
        assert {leaf.dtype for leaf in flat.values()} == {jnp.dtype(jnp.float32)}


@pytest.mark.parametrize("remat", ["dots", "full"])
def test_recomputing_gives_the_same_gradients(remat):
    params = small_pi05.make_params()
    batch = small_pi05.make_batches(4).next().batch
    kept = one_step(with_remat(small_pi05.MODEL, "none"), params, batch, small_pi05.NORM, CONFIG)
    assert_same_step(kept, one_step(with_remat(small_pi05.MODEL, remat), params, batch, small_pi05.NORM, CONFIG))


def test_recomputing_keeps_less():
    """Bytes kept between the forward and the backward pass fall from choice to choice."""
    trained, frozen = split_params(small_pi05.make_params(), small_pi05.MODEL.is_trained)
    batch, key = small_pi05.make_batches(8).next().batch, jax.random.key(0)

    def kept_bytes(remat):
        model = with_remat(small_pi05.MODEL, remat)

        def loss(params):
            return ALGORITHM.loss(model, merge_params(params, frozen), small_pi05.NORM, batch, key)[0]

        def backward(params):
            return jax.vjp(loss, params)[1]

        return sum(leaf.size * leaf.dtype.itemsize for leaf in jax.tree.leaves(jax.eval_shape(backward, trained)))

    none, dots, full = (kept_bytes(remat) for remat in ("none", "dots", "full"))
    assert full < dots < none


def test_the_learner_decides_what_is_recomputed():
    assert with_remat(small_pi05.MODEL, "policy") is small_pi05.MODEL
    assert with_remat(small_pi05.MODEL, "dots").config == dataclasses.replace(small_pi05.CONFIG, remat="dots")
    with pytest.raises(ConfigError, match=r"remat='full', but LinearModel keeps all"):
        with_remat(MODEL, "full")


def test_accumulation_spreads_every_part_over_all_devices():
    """Over `data` alone, nothing but sums of gradients and losses travels between devices."""
    config = dataclasses.replace(CONFIG, batch_size=32, accumulate_steps=2, mesh=MeshConfig(data=8))
    text = compiled_text(small_pi05.MODEL, config)
    assert "all-reduce" in text
    assert not re.search("all-to-all|collective-permute|all-gather", text)


def test_no_image_travels_between_devices():
    """With parameters split too, they are gathered, and small activations may move; images don't."""
    mesh = MeshConfig(data=2, fsdp=4, min_sharded_bytes=0)
    text = compiled_text(small_pi05.MODEL, dataclasses.replace(CONFIG, batch_size=32, accumulate_steps=2, mesh=mesh))
    assert re.search(r"all-gather", text)
    moved = re.findall(r"= \(?(\w+)\[([\d,]*)\][^=]* (?:all-to-all|collective-permute|all-gather)(?:-start)?\(", text)
    assert moved
    assert not [shape for dtype, shape in moved if dtype == "u8" or f"{small_pi05.IMAGE},{small_pi05.IMAGE},3" in shape]
