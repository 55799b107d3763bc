import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from sop_jax.algorithms.hg_dagger import HgDagger
from sop_jax.algorithms.imitation_loss import masked_mean
from sop_jax.sampling.batch_spec import BatchSpec
from sop_jax.sampling.fake import SyntheticBatches

LOSS = jnp.array([[1.0, 2.0, 3.0], [4.0, 5.0, 6.0], [7.0, 8.0, 9.0]])
MASK = jnp.array([[1.0, 1.0, 0.0], [0.0, 0.0, 1.0], [0.0, 0.0, 0.0]])
WEIGHT = jnp.array([1.0, 3.0, 5.0])


def test_hand_computed_means():
    total, per_example = masked_mean(LOSS, MASK, WEIGHT)
    # (1*1 + 1*2 + 3*6) / (1 + 1 + 3) = 21 / 5
    assert float(total) == pytest.approx(4.2)
    np.testing.assert_allclose(per_example, [1.5, 6.0, 0.0])


def test_every_taught_action_pulls_alike_and_masked_ones_not_at_all():
    gradient = jax.grad(lambda loss: masked_mean(loss, MASK, jnp.ones(3))[0])(LOSS)
    np.testing.assert_allclose(gradient, MASK / 3, rtol=1e-6)


def test_nothing_to_teach_gives_zero_and_a_zero_gradient():
    def total(loss):
        return masked_mean(loss, jnp.zeros((3, 3)), WEIGHT)[0]

    assert float(total(LOSS)) == 0.0
    np.testing.assert_array_equal(jax.grad(total)(LOSS), jnp.zeros((3, 3)))
    no_weight, per_example = masked_mean(LOSS, MASK, jnp.zeros(3))
    assert float(no_weight) == 0.0
    np.testing.assert_allclose(per_example, [1.5, 6.0, 0.0])


def test_a_masked_loss_that_is_not_finite_does_no_harm():
    total, per_example = masked_mean(LOSS.at[0, 2].set(jnp.inf).at[2, 0].set(jnp.nan), MASK, WEIGHT)
    assert float(total) == pytest.approx(4.2)
    assert np.isfinite(per_example).all()


def test_partial_masks_weigh_actions():
    total, per_example = masked_mean(jnp.array([[1.0, 4.0]]), jnp.array([[0.5, 0.25]]), jnp.ones(1))
    assert float(total) == pytest.approx(2.0)  # (0.5 * 1 + 0.25 * 4) / 0.75
    np.testing.assert_allclose(per_example, [2.0], rtol=1e-6)


@dataclasses.dataclass(frozen=True)
class LinearPolicy:
    """A `PolicyModel` whose loss is (gain * state - action)^2, averaged over action dimensions."""

    horizon: int = 4
    action_dim: int = 3
    cameras: tuple[str, ...] = ()
    config: None = None

    def init_params(self, key):
        return {"gain": jnp.ones(())}

    def loss(self, params, norm, batch, key):
        error = params["gain"] * batch.observation.state[:, None, :] - batch.actions
        return jnp.mean(error**2, axis=-1)

    def sample_actions(self, params, norm, observation, key, num_steps=None):
        raise NotImplementedError

    def is_trained(self, path):
        return True

    def tokenize(self, instructions):
        return np.zeros((len(instructions), 1), np.int32), np.ones((len(instructions), 1), bool)


def test_the_loss_of_a_model_under_jit_sees_only_taught_actions():
    model = LinearPolicy()
    spec = BatchSpec((), state_dim=3, action_dim=3, horizon=4)
    batch = SyntheticBatches(spec, model.tokenize, ("fold",), 6).next().batch
    mask = np.zeros((6, 4), np.float32)
    mask[0, 1] = mask[2, :] = 1
    taught = dataclasses.replace(
        batch, action_mask=mask, actions=batch.actions + np.arange(4, dtype=np.float32)[:, None]
    )

    @jax.jit
    def value_and_grad(params, batch):
        return jax.value_and_grad(
            lambda params: HgDagger().loss(model, params, None, batch, jax.random.key(0)), has_aux=True
        )(params)

    (total, per_example), gradient = value_and_grad(model.init_params(None), taught)
    # with gain 1 the error of step h is h: 1 for the first example; 0, 1, 4, 9 for the third
    assert float(total) == pytest.approx((1 + 0 + 1 + 4 + 9) / 5, rel=1e-5)
    np.testing.assert_allclose(per_example, [1, 0, 3.5, 0, 0, 0], rtol=1e-5)
    state = np.asarray(batch.observation.state).mean(axis=1)
    by_hand = (-2 * 1 * state[0] - 2 * (0 + 1 + 2 + 3) * state[2]) / 5
    assert float(gradient["gain"]) == pytest.approx(by_hand, rel=1e-4)
