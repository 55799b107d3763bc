"""Estimates of memory, against numbers worked out by hand."""

import dataclasses

import jax
import numpy as np
import pytest
from linear_policy import DIM, LinearModel

from sop_jax.learner.config import LearnerConfig, MeshConfig
from sop_jax.learner.memory import estimate_memory, kept_bytes, tree_bytes
from sop_jax.learner.shapes import abstract_batch, stored_params, without_vocabulary
from sop_jax.models.registry import PRESETS, create_model
from sop_jax.specs.errors import ConfigError
from sop_jax.weights.partition import split_params

FULL = without_vocabulary(create_model(PRESETS["pi05"]))
TRAINED, FROZEN = 844_902_160, 2_508_531_712


@dataclasses.dataclass(frozen=True)
class LinearConfig:
    state_dim: int = DIM
    max_tokens: int = 1


@dataclasses.dataclass(frozen=True)
class SmallModel(LinearModel):
    """8 x 16 encoder (512 bytes), 16 x 8 linear (512), 8 biases (bfloat16 in the base), frozen 8 x 8 in bfloat16 (128)."""

    config = LinearConfig()


def estimate(config: LearnerConfig, num_devices: int = 1, num_hosts: int = 1):
    params = jax.eval_shape(SmallModel().init_params, jax.random.key(0))
    return estimate_memory(SmallModel(), params, config, 16, num_devices, num_hosts)


def test_a_small_model_by_hand():
    found = estimate(LearnerConfig(batch_size=8, ema_decay=0.9))
    masters = 512 + 512 + 8 * 4
    assert (found.params, found.average, found.gradients) == (masters, masters, masters)
    assert found.moments == 2 * masters + 2 * 4  # Adam counts its steps, and so does the schedule
    assert found.frozen == 128
    assert found.publication == 512 + 512 + 8 * 2  # as the base stores them
    row = 4 * DIM + 4 + 1 + 4 * 2 * DIM + 4 * 2 + 4  # state, token, its mask, 2 actions, their masks, weight
    assert found.batch == 2 * 8 * row
    assert found.gathered == 0
    fields = dataclasses.asdict(found)
    assert found.total == sum(fields.values())


def test_splitting_by_hand():
    config = LearnerConfig(batch_size=8, mesh=MeshConfig(data=2, fsdp=4, min_sharded_bytes=0), accumulate_steps=1)
    found = estimate(config, num_devices=8)
    masters = 512 // 4 + 512 // 4 + 32  # the biases are copied
    assert (found.params, found.moments) == (masters, 2 * masters + 8)
    assert found.frozen == 128 // 4
    assert found.batch == estimate(LearnerConfig(batch_size=8)).batch // 8
    assert found.publication == 512 // 4 + 512 // 4 + 16
    assert estimate(config, num_devices=8, num_hosts=2).publication == 512 + 512 + 16
    copied = dataclasses.replace(config, mesh=dataclasses.replace(config.mesh, min_sharded_bytes=513))
    assert estimate(copied, num_devices=8).params == 512 + 512 + 32


def test_parts_keep_a_part_and_a_second_gradient():
    whole = estimate(LearnerConfig(batch_size=96))
    parts = estimate(LearnerConfig(batch_size=96, accumulate_steps=8))
    assert parts.gradients == 2 * whole.gradients
    assert parts.activations == pytest.approx(whole.activations / 8, rel=0.05)
    assert estimate(LearnerConfig(batch_size=96, ema_decay=0.0)).average == 0


def test_the_full_policy_on_one_device():
    """18.5 GB of state with the language model frozen in bfloat16, and 3.4 GB of gradients."""
    found = estimate_memory(FULL, stored_params(FULL), LearnerConfig(batch_size=32), 224, 1)
    assert found.params == found.average == found.gradients == found.publication == 4 * TRAINED
    assert found.moments == 8 * TRAINED + 8
    assert found.frozen == 2 * FROZEN
    state_gb = (found.params + found.average + found.moments + found.frozen) / 1e9
    assert state_gb == pytest.approx(18.5, abs=0.05)
    assert found.gradients / 1e9 == pytest.approx(3.4, abs=0.03)


def test_the_full_policy_on_eight_devices():
    """Small leaves are copied, so a share is a little more than an eighth."""
    config = LearnerConfig(batch_size=32, mesh=MeshConfig(fsdp=8))
    found = estimate_memory(FULL, stored_params(FULL), config, 224, 8)
    assert 1 < found.params / (4 * TRAINED / 8) < 1.02
    assert 1 <= found.frozen / (2 * FROZEN / 8) < 1.001
    one = estimate_memory(FULL, stored_params(FULL), LearnerConfig(batch_size=4), 224, 1)
    assert found.activations == one.activations  # four examples on each device
    assert found.gathered > 0


def test_kept_activations_grow_with_the_batch_and_fall_with_recomputing():
    trained, frozen = split_params(stored_params(FULL), FULL.is_trained)
    one, nine = (kept_bytes(FULL, trained, frozen, 224, rows) for rows in (1, 9))
    assert nine / one == pytest.approx(9, rel=0.1)
    # The language model's input to each of 18 layers, in bfloat16, is part of what is kept for one example.
    prefix = 3 * 256 + FULL.config.max_tokens + FULL.config.state_dim
    assert one > 18 * prefix * 2048 * 2
    estimates = {
        remat: estimate_memory(FULL, stored_params(FULL), LearnerConfig(batch_size=8, remat=remat), 224, 1).activations
        for remat in ("none", "dots", "full")
    }
    assert estimates["full"] < 0.5 * estimates["dots"] < 0.25 * estimates["none"]


def test_a_batch_of_shapes_has_a_batchs_shapes():
    batch = abstract_batch(FULL, 224, 5)
    assert batch.observation.images["head"].shape == (5, 224, 224, 3)
    assert batch.observation.images["head"].dtype == np.uint8
    assert batch.actions.shape == (5, 50, 16)
    assert tree_bytes(batch.observation.images) == 3 * 5 * 224 * 224 * 3


def test_what_does_not_divide_is_refused():
    with pytest.raises(ConfigError, match="does not fit 8 devices"):
        estimate(LearnerConfig(mesh=MeshConfig(fsdp=16)), num_devices=8)
    with pytest.raises(ConfigError, match="multiple of data x fsdp = 8"):
        estimate(LearnerConfig(batch_size=12), num_devices=8)
