"""Small parts that several tests put together: a policy model of two leaves, a runner, a store that can be away."""

import contextlib
import dataclasses
import json
import socket

import jax
import jax.numpy as jnp
import numpy as np

from sop_jax.actors.batched_policy import BatchedPolicy, BatchingConfig
from sop_jax.actors.chunking import ChunkingConfig
from sop_jax.actors.policy_runner import PolicyRunner
from sop_jax.episodes.store import EpisodeStore
from sop_jax.models.chunking import soft_mask
from sop_jax.models.normalization import identity_norm_stats
from sop_jax.specs.clock import WallClock


@dataclasses.dataclass(frozen=True)
class TinyModel:
    """A chunk = state + frozen offset + trained gain * (brightness of the head image, 0 without one) + seeded noise."""

    horizon: int = 8
    action_dim: int = 16
    cameras: tuple[str, ...] = ("head",)
    config: None = None

    def init_params(self, key):
        del key
        return {
            "frozen": {"offset": jnp.full((16,), 0.01)},
            "head": {"gain": jnp.ones((8, 16)), "bias": jnp.zeros((16,))},
        }

    def sample_actions(self, params, norm, observation, key, num_steps=None, action_prefix=None, guidance=None):
        """With a prefix, each action is moved towards it by the guidance's weight times the soft mask."""
        plain = self._sample(params, observation, key)
        if action_prefix is None:
            return plain
        weight = soft_mask(action_prefix, guidance.schedule)[..., None]
        return plain + guidance.max_weight * weight * (action_prefix.actions - plain)

    def _sample(self, params, observation, key):
        mean = observation.images["head"].astype(jnp.float32).mean(axis=(1, 2, 3)) / 255
        seen = jnp.where(observation.image_mask["head"], mean, 0.0)[:, None, None]
        step = params["frozen"]["offset"] + params["head"]["bias"]
        noise = 0.001 * jax.random.normal(key, (8, 16))
        return observation.state[:, None] + step[None, None] + params["head"]["gain"][None] * 0.01 * seen + noise[None]

    def is_trained(self, path):
        return path[0] == "head"

    def tokenize(self, instructions):
        return np.zeros((len(instructions), 4), np.int32), np.ones((len(instructions), 4), bool)


SHARED_SIZES = (1, 3)


def make_runner(version: int = 0, chunking: ChunkingConfig | None = None) -> PolicyRunner:
    model = TinyModel()
    norm = identity_norm_stats(16, 16, model.horizon)
    return PolicyRunner(model, model.init_params(None), norm, version, weights_base="base", chunking=chunking)


def make_shared(version: int = 0, chunking: ChunkingConfig | None = None, clock=None, **settings) -> BatchedPolicy:
    model = TinyModel()
    return BatchedPolicy(
        model,
        model.init_params(None),
        identity_norm_stats(16, 16, model.horizon),
        clock or WallClock(),
        version=version,
        weights_base="base",
        chunking=chunking,
        config=BatchingConfig(SHARED_SIZES, **settings),
    )


class FlakyStore:
    """A store that fails whenever `broken` holds an exception, and for the ids in `refused`; else passes on. `attempts` keeps
    what was tried."""

    def __init__(self, url: str):
        self.store = EpisodeStore(url)
        self.broken: Exception | None = None
        self.refused: set[str] = set()
        self.attempts: list[str] = []

    def put_bytes(self, episode_id: str, data: bytes) -> object:
        self.attempts.append(episode_id)
        if self.broken is not None:
            raise self.broken
        if episode_id in self.refused:
            raise PermissionError(f"403: {episode_id} is not below your prefix")
        return self.store.put_bytes(episode_id, data)


def store_out_of_reach() -> str:
    """An S3 store at a port where nobody listens."""
    with contextlib.closing(socket.socket()) as probe:
        probe.bind(("127.0.0.1", 0))
        endpoint = f"http://127.0.0.1:{probe.getsockname()[1]}"
    return json.dumps(
        {
            "driver": "s3",
            "bucket": "bucket",
            "path": "run/",
            "endpoint": endpoint,
            "aws_region": "us-east-1",
            "aws_credentials": {"type": "anonymous"},
        }
    )
