import dataclasses

import numpy as np
import pytest
from jaxtyping import TypeCheckError

from sop_jax.learner.config import LearnerConfig, MeshConfig
from sop_jax.learner.optimizer import make_schedule
from sop_jax.specs.errors import ConfigError


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"batch_size": 0}, "batch_size must be at least 1, got 0"),
        ({"publish_every": 0}, "publish_every"),
        ({"warmup_steps": 10, "num_steps": 10}, r"\[0, num_steps=10\), got 10"),
        ({"learning_rate": 0.0}, "learning_rate must be positive"),
        ({"ema_decay": 1.0}, r"ema_decay must be in \[0, 1\)"),
        ({"final_rate_share": 2.0}, "final_rate_share"),
    ],
)
def test_config_is_validated(values, message):
    with pytest.raises(ConfigError, match=message):
        LearnerConfig(**values)


def test_unknown_schedule_is_refused():
    with pytest.raises((ConfigError, TypeCheckError), match="'linear'"):
        LearnerConfig(schedule="linear")


@pytest.mark.parametrize("values", [{"data": 0}, {"fsdp": 0}, {"tensor": -1}, {"min_sharded_bytes": -1}])
def test_mesh_config_is_validated(values):
    with pytest.raises(ConfigError, match=f"MeshConfig.*{next(iter(values))}"):
        MeshConfig(**values)


def test_cosine_with_warm_up():
    config = LearnerConfig(num_steps=110, warmup_steps=10, learning_rate=1.0, schedule="cosine", final_rate_share=0.1)
    rates = np.array([make_schedule(config)(step) for step in (0, 5, 10, 60, 110, 500)])
    np.testing.assert_allclose(rates, [1 / 11, (1 / 11 + 1) / 2, 1.0, 0.55, 0.1, 0.1], rtol=1e-5)


def test_constant():
    config = dataclasses.replace(LearnerConfig(), learning_rate=0.3)
    assert [float(make_schedule(config)(step)) for step in (0, 7, 10**6)] == pytest.approx([0.3] * 3)
