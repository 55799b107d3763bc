"""A pi0.5 small enough to be compiled many times, with the language model frozen in bfloat16 as at full size."""

import dataclasses
import functools
import operator

import jax
import jax.numpy as jnp
import numpy as np

from sop_jax.algorithms.registry import create_algorithm
from sop_jax.learner.config import LearnerConfig, MeshConfig
from sop_jax.learner.optimizer import make_optimizer
from sop_jax.learner.sharding import make_mesh, put_batch, put_state, tree_shardings
from sop_jax.learner.state import TrainState, init_state
from sop_jax.learner.train_step import compile_step
from sop_jax.models.normalization import identity_norm_stats
from sop_jax.models.pi05.config import ExpertConfig, Pi05Config, VisionConfig
from sop_jax.models.pi05.policy import Pi05Policy
from sop_jax.models.policy import PolicyModel, abstract_params
from sop_jax.models.pytrees import Params, flatten_params, unflatten_params
from sop_jax.sampling.batch_spec import BatchSpec
from sop_jax.sampling.fake import SyntheticBatches
from sop_jax.specs.records import CameraSpec
from sop_jax.weights.partition import split_params

DIM, HORIZON, IMAGE = 4, 4, 16
DEPTH = 5  # deeper stacks than 4 are loops in the program, as at full size
_EXPERT = ExpertConfig(width=32, depth=DEPTH, mlp_dim=48, num_heads=4, num_kv_heads=1, head_dim=8)
CONFIG = Pi05Config(
    vision=VisionConfig(width=16, depth=DEPTH, mlp_dim=40, num_heads=2, patch_size=8, image_size=IMAGE),
    language=dataclasses.replace(_EXPERT, width=24, mlp_dim=56),
    expert=_EXPERT,
    vocab_size=64 + 256,
    cameras=("head", "hand"),
    state_dim=DIM,
    action_dim=DIM,
    model_action_dim=8,
    horizon=HORIZON,
    tokenizer="hash",
    max_tokens=8,
    dtype="float32",
    from_scratch=True,
    freeze_language=True,
    remat=False,
)
MODEL = Pi05Policy(CONFIG)
NORM = identity_norm_stats(DIM, DIM, HORIZON)


@dataclasses.dataclass(frozen=True)
class InParts(Pi05Policy):
    """The whole batch at once, with the random numbers of `num_parts` parts: what accumulation must equal."""

    num_parts: int = 2

    def loss(self, params, norm, batch, key):
        losses = []
        for k in range(self.num_parts):
            part = jax.tree.map(operator.itemgetter(slice(k, None, self.num_parts)), batch)
            losses.append(super().loss(params, norm, part, jax.random.fold_in(key, k)))
        return jnp.stack(losses, axis=1).reshape(-1, self.horizon)


@dataclasses.dataclass(frozen=True)
class Training:
    """A few steps of training: the program, losses of each step's examples, gradient norms, and the last state."""

    program: str
    losses: np.ndarray
    grad_norms: np.ndarray
    state: TrainState
    frozen: Params


def make_params(model: PolicyModel = MODEL) -> Params:
    """Noise in every leaf, so that no zero initialisation hides a term; frozen leaves in bfloat16, as a base stores them."""
    rng = np.random.default_rng(0)
    flat = {path: rng.normal(0, 0.1, leaf.shape) for path, leaf in flatten_params(abstract_params(model)).items()}
    dtypes = {path: np.float32 if model.is_trained(path) else jnp.bfloat16 for path in flat}
    return unflatten_params({path: leaf.astype(dtypes[path]) for path, leaf in flat.items()})


def make_batches(batch_size: int, tasks=("fold", "stock")) -> SyntheticBatches:
    cameras = tuple(CameraSpec(name, IMAGE, IMAGE) for name in CONFIG.cameras)
    return SyntheticBatches(BatchSpec(cameras, DIM, DIM, HORIZON), MODEL.tokenize, tasks, batch_size)


def with_uneven_masks(batch, seed: int = 0):
    """The same batch, with chunks that teach in part, examples of different weight, and one that teaches nothing."""
    rng = np.random.default_rng(seed)
    mask = (rng.random(batch.action_mask.shape) < 0.7).astype(np.float32)
    mask[0] = 0
    weight = rng.uniform(0.5, 2.0, batch.weight.shape).astype(np.float32)
    return dataclasses.replace(batch, action_mask=mask, weight=weight)


def lower_step(model: PolicyModel, config: LearnerConfig):
    """(the lowered step, state and frozen leaves where they belong, the mesh)."""
    mesh = make_mesh(config.mesh)
    trained, frozen = split_params(make_params(model), model.is_trained)
    state = init_state(trained, make_optimizer(config), config.ema_decay)
    state = put_state(state, tree_shardings(mesh, state, config.mesh.min_sharded_bytes))
    frozen = put_state(frozen, tree_shardings(mesh, frozen, config.mesh.min_sharded_bytes))
    step = compile_step(model, create_algorithm("hg_dagger"), config, mesh, state, frozen)
    batch = put_batch(make_batches(config.batch_size).next().batch, mesh)
    return step.lower(state, frozen, NORM, batch), state, frozen, mesh


@functools.cache
def train(model: PolicyModel, mesh: MeshConfig, accumulate_steps: int, num_steps: int = 3) -> Training:
    """Trains `model` on uneven batches of 16. The same arguments compile and train once in a test session."""
    config = LearnerConfig(batch_size=16, accumulate_steps=accumulate_steps, learning_rate=0.01, mesh=mesh)
    lowered, state, frozen, placed = lower_step(model, config)
    # Half of the time to compile; how programs are split over devices doesn't depend on it.
    compiled = lowered.compile(compiler_options={"xla_backend_optimization_level": 0})
    batches, losses, norms = make_batches(config.batch_size), [], []
    for index in range(num_steps):
        batch = put_batch(with_uneven_masks(batches.next().batch, index), placed)
        state, result = compiled(state, frozen, NORM, batch)
        losses.append(np.asarray(result.per_example))
        norms.append(float(result.grad_norm))
    return Training(compiled.as_text(), np.stack(losses), np.array(norms), state, frozen)
