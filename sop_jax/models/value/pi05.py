"""pi0.5's towers with a value expert: the action expert's transformer, which reads one learned query instead of actions.

The query stands behind the normalised state in the suffix, as pi0's actions do, and sees the whole prefix (images and
instruction). The prefix holds no state, so the value is of the text, whatever the policy's `state_input`.

Legend: `B` batch, `S` state dimensions, `L` text tokens, `V` bins, `P` prefix tokens, `C` width of the expert.
"""

import dataclasses
import functools
from collections.abc import Sequence
from typing import Any

import jax.numpy as jnp
import numpy as np
from flax import nnx
from jaxtyping import Array, Bool, Float, Int32, PRNGKeyArray

from sop_jax.models.batch import ObservationBatch
from sop_jax.models.normalization import NormStats, normalize_state
from sop_jax.models.pi05.config import Pi05Config
from sop_jax.models.pi05.network import Pi05Towers, suffix_attention
from sop_jax.models.pi05.policy import Pi05Policy
from sop_jax.models.policy import merge_network, split_network
from sop_jax.models.pytrees import Params
from sop_jax.models.value.model import ValueConfig, check_value_inputs


class Pi05ValueNetwork(Pi05Towers):
    """Image tower, language model, and the value expert."""

    def __init__(self, config: Pi05Config, num_bins: int, rngs: nnx.Rngs):
        super().__init__(config, rngs)
        width = config.expert.width
        self.state_proj = nnx.Linear(config.state_dim, width, rngs=rngs)
        self.query = nnx.Param(nnx.initializers.normal(1.0)(rngs.params(), (1, 1, width)))
        self.bins = nnx.Linear(width, num_bins, rngs=rngs)

    def __call__(
        self,
        observation: ObservationBatch,
        state: Float[Array, "B S"],
        tokens: Int32[Array, "B L"],
        token_mask: Bool[Array, "B L"],
    ) -> Float[Array, "B V"]:
        prefix = self.read_prefix(*self.embed_prefix(observation, state, tokens, token_mask))
        query = jnp.broadcast_to(self.query[...], (state.shape[0], 1, self.query.shape[-1]))
        suffix = jnp.concatenate([self.state_proj(state)[:, None], query], axis=1).astype(jnp.dtype(self.config.dtype))
        positions, mask = suffix_attention(prefix.valid, horizon=1, num_state_tokens=1)
        (_, output), _ = self.PaliGemma.llm((None, suffix), positions[:, -2:], mask[:, -2:], None, prefix.cache)
        assert output is not None  # the call above gave suffix tokens
        return self.bins(output[:, -1].astype(jnp.float32))


@dataclasses.dataclass(frozen=True)
class Pi05Value:
    """`ValueModel` of a pi0.5 or pi0 policy's config."""

    config: ValueConfig

    @functools.cached_property
    def policy_config(self) -> Pi05Config:
        """The policy's, with plain normalisations in the expert and no state in the prefix. The value expert begins anew, so
        it is trained whole also where the policy's has low-rank additions, which would leave its random weights frozen."""
        policy = self.config.policy
        assert isinstance(policy, Pi05Config)
        return dataclasses.replace(
            policy, head="pi0", state_input="suffix", max_training_delay=0,
            model_action_dim=max(policy.model_action_dim, policy.state_dim),
            expert=dataclasses.replace(policy.expert, lora=None),
        )  # fmt: skip

    @property
    def cameras(self) -> tuple[str, ...]:
        return self.policy_config.cameras

    @property
    def image_size(self) -> int:
        return self.policy_config.vision.image_size

    def init_params(self, key: PRNGKeyArray) -> Params:
        return split_network(self._make(nnx.Rngs(params=key)))

    def logits(self, params: Params, norm: NormStats, observation: ObservationBatch) -> Float[Array, "B V"]:
        check_value_inputs(self, norm, observation)
        network = merge_network(self._graphdef, params)
        state = normalize_state(norm, observation.state, self.policy_config.normalization)
        return network(observation, state, jnp.asarray(observation.tokens), jnp.asarray(observation.token_mask))

    def is_tower(self, path: tuple[str, ...]) -> bool:
        return path[0] == "PaliGemma" and not self._acts(path)

    def is_trained(self, path: tuple[str, ...]) -> bool:
        """As the policy: the language model stays frozen if the policy's does."""
        return Pi05Policy(self.policy_config).is_trained(path)

    def tokenize(self, instructions: Sequence[str]) -> tuple[Int32[np.ndarray, "B L"], Bool[np.ndarray, "B L"]]:
        return Pi05Policy(self.policy_config).tokenize(instructions)

    def _acts(self, path: tuple[str, ...]) -> bool:
        """Whether it belongs to the expert, whose names end in "_1"; outside `llm` the same ending means something else."""
        return path[:2] == ("PaliGemma", "llm") and any(name.endswith("_1") for name in path[2:])

    def _make(self, rngs: nnx.Rngs) -> Pi05ValueNetwork:
        return Pi05ValueNetwork(self.policy_config, self.config.num_bins, rngs)

    @functools.cached_property
    def _graphdef(self) -> Any:
        return nnx.split(nnx.eval_shape(lambda: self._make(nnx.Rngs(0))))[0]
