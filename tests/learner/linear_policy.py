"""A regression that a learner finishes in milliseconds: the fake policy's chunk is a linear map of the state."""

import dataclasses
from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from sop_jax.learner.config import LearnerConfig, MeshConfig
from sop_jax.models.normalization import identity_norm_stats
from sop_jax.sampling.batch_source import BatchStarvedError
from sop_jax.sampling.batch_spec import BatchSpec
from sop_jax.sampling.fake import SyntheticBatches

DIM, HORIZON = 8, 2
TRACES: list[int] = []  # one entry per trace of the fake loss: compilations are counted with it


@dataclasses.dataclass(frozen=True)
class LinearModel:
    """`frozen/scale * (state @ mlp/linear + bias)`, with noise on the loss so that random keys matter."""

    horizon: int = HORIZON
    action_dim: int = DIM
    noise: float = 0.01

    config = None
    cameras = ()

    def init_params(self, key) -> dict[str, Any]:
        hidden = jax.random.normal(key, (DIM, 16)) * 0.1
        return {
            "encoder": {"kernel": hidden},
            "mlp": {"linear": jnp.zeros((16, DIM)), "bias": jnp.zeros(DIM, jnp.bfloat16)},
            "frozen": {"scale": jnp.full((DIM, DIM), 2.0, jnp.bfloat16)},
        }

    def loss(self, params, norm, batch, key):
        TRACES.append(1)
        state = batch.observation.state
        predicted = (state @ params["encoder"]["kernel"]) @ params["mlp"]["linear"]
        predicted = predicted * params["frozen"]["scale"][0][None] + params["mlp"]["bias"][None]
        noise = self.noise * jax.random.normal(key, batch.actions.shape)
        error = predicted[:, None] + noise - batch.actions
        return jnp.mean(jnp.square(error), axis=-1)

    def sample_actions(self, params, norm, observation, key, num_steps=None):
        raise NotImplementedError

    def is_trained(self, path: tuple[str, ...]) -> bool:
        return path[0] != "frozen"

    def tokenize(self, instructions: Sequence[str]):
        return np.zeros((len(instructions), 1), np.int32), np.ones((len(instructions), 1), bool)


MODEL = LinearModel()
NORM = identity_norm_stats(DIM, DIM, HORIZON)
CONFIG = LearnerConfig(
    batch_size=8,
    num_steps=6,
    learning_rate=0.05,
    publish_every=2,
    checkpoint_every=3,
    log_every=2,
    ema_decay=0.5,
    publish_in_background=False,
    mesh=MeshConfig(data=1),
)


def make_batches(batch_size: int = 8, tasks=("fold", "stock")) -> SyntheticBatches:
    return SyntheticBatches(BatchSpec((), DIM, DIM, HORIZON), MODEL.tokenize, tasks, batch_size)


def make_batches_that_end(after: int) -> tuple[SyntheticBatches, list[int]]:
    """Batches of which none comes after the first `after`: whoever asks for one more is told to stop meanwhile, and must be
    heard. The list isn't empty once that has happened."""
    batches, asked, waiting = make_batches(), [], []
    produce = batches.next

    def next_or_never(should_stop):
        if len(asked) == after:
            waiting.append(1)
            assert should_stop()
            raise BatchStarvedError("told to stop")
        asked.append(1)
        return produce()

    batches.next = next_or_never
    return batches, waiting
