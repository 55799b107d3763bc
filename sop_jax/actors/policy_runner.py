"""The policy on one robot's computer: compiled once, swapped only between episodes.

Legend: `H` horizon, `A` action dimensions.
"""

import contextlib
from collections.abc import Mapping, Sequence
from typing import Any, final

import jax
import numpy as np

from sop_jax.actors.chunk_player import ChunkRequest
from sop_jax.actors.chunking import ChunkingConfig
from sop_jax.actors.observation_encoder import ObservationEncoder
from sop_jax.actors.robot_policy import EpisodeGuard, black_scene
from sop_jax.actors.sampler import ChunkSampler
from sop_jax.actors.trained_leaves import replace_trained, trained_template
from sop_jax.models.batch import BarePrompt, ObservationBatch
from sop_jax.models.bundle import PolicyBundle
from sop_jax.models.chunking import ActionPrefix
from sop_jax.models.normalization import NormStats
from sop_jax.models.policy import PolicyModel
from sop_jax.models.pytrees import Params
from sop_jax.specs.chunking import ChunkPrefix
from sop_jax.specs.conditioning import Conditioning
from sop_jax.specs.records import Observation, RobotSpec


@final
class PolicyRunner:
    """Implements `RobotPolicy` with a model at batch 1 (see there for its use); `conditioning` holds for all its life.

    Not thread-safe: whoever drives the robot owns it.
    """

    def __init__(
        self,
        model: PolicyModel,
        params: Params,
        norm: NormStats,
        version: int = 0,
        weights_base: str = "",
        norm_stats: str | None = None,
        chunking: ChunkingConfig | None = None,
        conditioning: Conditioning | None = None,
    ):
        self._model = model
        self._params: Params = jax.device_put(params)
        self._norm: NormStats = jax.device_put(norm)
        self._version = version
        self._sampler = ChunkSampler(model, chunking or ChunkingConfig(), conditioning)
        self._encoder = ObservationEncoder(model, conditioning)
        self._guard = EpisodeGuard()
        self.weights_base = weights_base
        self.norm_stats = norm.fingerprint if norm_stats is None else norm_stats

    @classmethod
    def from_bundle(
        cls,
        bundle: PolicyBundle,
        chunking: ChunkingConfig | None = None,
        conditioning: Conditioning | None = None,
    ) -> "PolicyRunner":
        """A runner of the unpublished base (version 0), with the bundle's fingerprints."""
        return cls(
            bundle.model,
            bundle.params,
            bundle.norm,
            weights_base=bundle.fingerprint,
            chunking=chunking,
            conditioning=conditioning,
        )

    @property
    def version(self) -> int:
        return self._version

    @property
    def horizon(self) -> int:
        return self._model.horizon

    @property
    def num_compilations(self) -> int:
        return self._sampler.num_compilations

    @property
    def trained_template(self) -> Params:
        return trained_template(self._model, self._params)

    def infer(self, observation: Observation, seed: int, prefix: ChunkPrefix | None = None) -> np.ndarray:
        return self.infer_rows([ChunkRequest(observation, seed, prefix)], 1)[0]

    def infer_rows(self, requests: Sequence[ChunkRequest], num_rows: int) -> np.ndarray:
        """Chunks float32 [N, H, A] of the N requests of as many robots, in one compiled call.

        The call always has `num_rows` rows (at least N; the last request fills them up). Rows don't depend on their
        neighbours, nor on their place, so a request's chunk depends on it and on `num_rows` alone.
        """
        asked = [self._encode(request) for request in requests]
        rows = [*asked, *[asked[-1]] * (num_rows - len(asked))]
        observations, prefixes, bare, seeds = jax.tree.map(_stack, *rows)
        return self._sampler.sample(self._params, self._norm, observations, seeds, prefixes, bare)[: len(requests)]

    def warm_up(self, spec: RobotSpec, instruction: str = "warm up") -> None:
        self.infer(black_scene(spec, instruction), 0)

    def episode(self) -> contextlib.AbstractContextManager[None]:
        return self._guard.hold()

    def swap(self, params: Mapping[str, Any], version: int) -> None:
        self._guard.check_open(self._version, version)
        self._params = replace_trained(self._model, self._params, params, version)
        self._version = version

    def _encode(
        self, request: ChunkRequest
    ) -> tuple[ObservationBatch, ActionPrefix | None, BarePrompt | None, np.ndarray]:
        """All that is known of one request, as batches of one."""
        return (
            self._encoder.encode(request.observation),
            self._encoder.encode_prefix(request.prefix, self._sampler.takes_prefixes),
            self._encoder.encode_bare_prompt(request.observation),
            np.array([request.seed], np.uint32),
        )


def _stack(*leaves: np.ndarray) -> np.ndarray:
    return np.concatenate(leaves)
