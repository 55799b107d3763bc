"""The compact policy's towers with a distribution over values on top.

Legend: `B` batch, `S` state dimensions, `L` text tokens, `V` bins.
"""

import dataclasses
import functools
from collections.abc import Sequence
from typing import Any

import numpy as np
from flax import nnx
from jaxtyping import Array, Bool, Float, Int32, PRNGKeyArray

from sop_jax.models.batch import ObservationBatch
from sop_jax.models.compact import CompactConfig, CompactPolicy, CompactTowers, limited_state
from sop_jax.models.normalization import NormStats
from sop_jax.models.policy import merge_network, split_network
from sop_jax.models.pytrees import Params
from sop_jax.models.value.model import ValueConfig, check_value_inputs


class CompactValueNetwork(CompactTowers):
    """Towers, a hidden layer, the bins."""

    def __init__(self, config: CompactConfig, width: int, num_bins: int, rngs: nnx.Rngs):
        super().__init__(config, rngs)
        self.value = nnx.Linear(config.num_features, width, rngs=rngs)
        self.bins = nnx.Linear(width, num_bins, rngs=rngs)

    def __call__(self, observation: ObservationBatch, state: Float[Array, "B S"]) -> Float[Array, "B V"]:
        return self.bins(nnx.gelu(self.value(self.read(observation, state))))


@dataclasses.dataclass(frozen=True)
class CompactValue:
    """`ValueModel` of a compact policy's config."""

    config: ValueConfig

    @property
    def policy_config(self) -> CompactConfig:
        assert isinstance(self.config.policy, CompactConfig)
        return self.config.policy

    @property
    def cameras(self) -> tuple[str, ...]:
        return self.policy_config.cameras

    @property
    def image_size(self) -> int:
        return self.policy_config.image_size

    def init_params(self, key: PRNGKeyArray) -> Params:
        return split_network(self._make(nnx.Rngs(params=key)))

    def logits(self, params: Params, norm: NormStats, observation: ObservationBatch) -> Float[Array, "B V"]:
        check_value_inputs(self, norm, observation)
        network = merge_network(self._graphdef, params)
        return network(observation, limited_state(norm, observation.state))

    def is_tower(self, path: tuple[str, ...]) -> bool:
        return path[0] not in ("value", "bins")

    def is_trained(self, path: tuple[str, ...]) -> bool:
        del path
        return True

    def tokenize(self, instructions: Sequence[str]) -> tuple[Int32[np.ndarray, "B L"], Bool[np.ndarray, "B L"]]:
        return CompactPolicy(self.policy_config).tokenize(instructions)

    def _make(self, rngs: nnx.Rngs) -> CompactValueNetwork:
        return CompactValueNetwork(self.policy_config, self.config.width, self.config.num_bins, rngs)

    @functools.cached_property
    def _graphdef(self) -> Any:
        return nnx.split(nnx.eval_shape(lambda: self._make(nnx.Rngs(0))))[0]
