"""The compiled call of a policy: batches of observations to chunks, every row as if it were alone.

Legend: `B` batch, `H` horizon, `A` action dimensions.
"""

import threading
from typing import Any, final

import jax
import numpy as np

from sop_jax.actors.chunking import ChunkingConfig
from sop_jax.models.batch import BarePrompt, ObservationBatch
from sop_jax.models.chunking import ActionPrefix
from sop_jax.models.normalization import NormStats
from sop_jax.models.policy import PolicyModel
from sop_jax.models.pytrees import Params
from sop_jax.specs.conditioning import Conditioning
from sop_jax.specs.errors import ConfigError


@final
class ChunkSampler:
    """Samples chunks with one seed per row; compiled once per batch size, counted in `num_compilations`.

    Each row is a batch of one to the model, so its noise follows from its own seed and never from its neighbours. In
    chunking mode "none" there are no prefixes; in the others every call gives them, so that one compilation serves both
    the first chunk of an episode and its successors. A conditioning with guidance doubles the rows inside. Thread-safe: calls
    take turns.

    Raises ConfigError if the mode is "trained" and the model was not.
    """

    def __init__(self, model: PolicyModel, chunking: ChunkingConfig, conditioning: Conditioning | None = None):
        if chunking.mode == "trained" and not getattr(model.config, "max_training_delay", 0):
            raise ConfigError(
                "chunking mode 'trained' needs a policy that was trained with max_training_delay above 0, which this one was "
                "not: use 'guided'"
            )
        self._model = model
        self._guidance = chunking.guidance
        self.takes_prefixes = chunking.mode != "none"
        self.takes_bare_prompts = conditioning is not None and conditioning.is_guided
        self.num_compilations = 0
        self._lock = threading.Lock()
        self._sample = jax.jit(self._sample_rows)

    def sample(
        self,
        params: Params,
        norm: NormStats,
        observations: ObservationBatch,
        seeds: np.ndarray,
        prefixes: ActionPrefix | None,
        bare_prompts: BarePrompt | None = None,
    ) -> np.ndarray:
        """Absolute targets, float32 [B, H, A]; `seeds` is uint32 [B]. Blocks until they are there.

        By classifier-free guidance with `bare_prompts`, which every call gives where the conditioning asks for it, and none
        elsewhere (ValueError).
        """
        if (bare_prompts is not None) != self.takes_bare_prompts:
            wanted = "bare prompts" if self.takes_bare_prompts else "no bare prompts"
            raise ValueError(f"this policy's conditioning needs {wanted}; ask ObservationEncoder.encode_bare_prompt")
        with self._lock:
            return np.asarray(self._sample(params, norm, observations, seeds, prefixes, bare_prompts), np.float32)

    def _sample_rows(
        self,
        params: Params,
        norm: NormStats,
        observations: ObservationBatch,
        seeds: jax.Array,
        prefixes: ActionPrefix | None,
        bare_prompts: BarePrompt | None,
    ) -> jax.Array:
        self.num_compilations += 1  # Runs while tracing only.

        def sample_one(
            observation: ObservationBatch, seed: jax.Array, prefix: ActionPrefix | None, bare: BarePrompt | None
        ) -> jax.Array:
            observation, prefix, bare = jax.tree.map(lambda leaf: leaf[None], (observation, prefix, bare))
            options: dict[str, Any] = {}  # Only what is asked for, so that plain models need not know the rest.
            if prefix is not None:
                options.update(action_prefix=prefix, guidance=self._guidance)
            if bare is not None:
                options.update(bare_prompt=bare)
            return self._model.sample_actions(params, norm, observation, jax.random.key(seed), **options)[0]

        if seeds.shape[0] == 1:  # Without vmap a robot alone runs the very program of its policy.
            first = jax.tree.map(lambda leaf: leaf[0], (observations, seeds, prefixes, bare_prompts))
            return sample_one(*first)[None]
        return jax.vmap(sample_one)(observations, seeds, prefixes, bare_prompts)
