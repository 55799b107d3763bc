"""A small value function, and one that says what it is told."""

import dataclasses

import jax
import numpy as np

from sop_jax.algorithms.recap.returns import ReturnsConfig
from sop_jax.algorithms.recap.value_function import TaskReturns, ValueFunction
from sop_jax.models.compact import CompactConfig
from sop_jax.models.normalization import identity_norm_stats
from sop_jax.models.value.bundle import ValueBundle
from sop_jax.models.value.model import ValueConfig
from sop_jax.models.value.registry import create_value_model

POLICY = CompactConfig(
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
"""For episodes of `episodes.synthetic` with one 16-pixel camera."""

QUANTILES = tuple(np.linspace(-1, 1, 101).tolist())
"""Advantages spread evenly over [-1, 1]: 30% lie above 0.4."""


def value_bundle(seed: int = 0) -> ValueBundle:
    config = ValueConfig(POLICY, num_bins=21, width=16)
    params = create_value_model(config).init_params(jax.random.key(seed))
    return ValueBundle(config, params, identity_norm_stats(16, 16, 3))


def value_function(advantage_frames: int = 2, max_frames: int = 10) -> ValueFunction:
    tasks = {"restock_shelf": TaskReturns(max_frames, QUANTILES)}
    return ValueFunction(value_bundle(), ReturnsConfig(1.0, advantage_frames), tasks)


@dataclasses.dataclass(frozen=True)
class ScriptedValues(ValueFunction):
    """Says `script` instead of looking."""

    script: tuple[float, ...] = ()

    def values(self, manifest, arrays, images):
        return np.array(self.script, np.float32)


def scripted(*script: float) -> ScriptedValues:
    base = value_function()
    return ScriptedValues(base.bundle, base.returns, base.tasks, script)
