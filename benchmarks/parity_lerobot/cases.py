"""What is compared: a small pi0.5, and the same with pi0's head; cases, parameters and inputs come from numpy seeds alone.

Legend: `B` batch, `N` draws per example, `H` horizon, `A` action dimensions (`M` inside the model), `S` state dimensions,
`L` text tokens, `h w` pixels.
"""

import dataclasses
import hashlib
import zlib
from typing import Literal

import numpy as np

from sop_jax.models.batch import ObservationBatch, TrainBatch
from sop_jax.models.normalization import NormStats, identity_norm_stats
from sop_jax.models.pi05.config import ExpertConfig, Pi05Config, VisionConfig
from sop_jax.models.pi05.policy import Pi05Policy
from sop_jax.models.policy import abstract_params
from sop_jax.models.pytrees import Params, flatten_params, unflatten_params

CONFIG = Pi05Config(
    # Five layers: more than are unrolled, so that the comparison runs the loop of the full preset.
    vision=VisionConfig(width=24, depth=5, mlp_dim=40, num_heads=2, patch_size=14, image_size=28),
    language=ExpertConfig(width=64, depth=5, mlp_dim=96, num_heads=8, num_kv_heads=1, head_dim=16),
    expert=ExpertConfig(width=32, depth=5, mlp_dim=48, num_heads=8, num_kv_heads=1, head_dim=16),
    vocab_size=64 + 256,
    cameras=("base", "left_wrist", "right_wrist"),
    state_dim=5,
    action_dim=4,
    model_action_dim=6,
    horizon=4,
    normalization="quantile",
    state_input="tokens",
    tokenizer="hash",
    max_tokens=8,
    dtype="float32",
)
"""The architecture of the full preset. LeRobot's code fixes 8 heads and one key head."""

NUM_WORDS = CONFIG.vocab_size - 256

ALL = (True, True, True)


@dataclasses.dataclass(frozen=True)
class Case:
    """One comparison.

    prompt_lengths: tokens of each example's instruction; its state follows.
    cameras: for each example, which cameras gave an image.
    times: flow times of the loss, one per draw; None = drawn from the training distribution.
    modulation: scale of the weights that modulate the expert (adaRMS).
    head: "pi0" mixes time into the action tokens and gives the state as a token of the suffix.
    """

    name: str
    seed: int
    prompt_lengths: tuple[int, ...] = (8, 8, 8)
    cameras: tuple[tuple[bool, bool, bool], ...] = (ALL, ALL, ALL)
    times: tuple[float, ...] | None = None
    action_dim: int = CONFIG.action_dim
    num_draws: int = 1
    modulation: float = 1.0
    head: Literal["pi05", "pi0"] = "pi05"

    @property
    def config(self) -> Pi05Config:
        state_dim = max(CONFIG.state_dim, self.action_dim)
        config = dataclasses.replace(CONFIG, state_dim=state_dim, action_dim=self.action_dim, num_draws=self.num_draws)
        if self.head == "pi05":
            return config
        return dataclasses.replace(config, head="pi0", state_input="suffix", normalization="mean_std")


CASES = (
    Case("all cameras, full prompts", seed=0),
    Case("prompts of 1, 8 and 0 tokens", seed=1, prompt_lengths=(1, 8, 0)),
    Case("one or two cameras missing", seed=2, cameras=((True, False, True), (False, True, False), ALL)),
    Case(
        "no camera at all", seed=3, prompt_lengths=(5, 2, 8), cameras=((False, False, False), (True, False, False), ALL)
    ),
    Case("t at both ends and between", seed=4, prompt_lengths=(3, 6, 4), times=(0.001, 0.5, 1.0)),
    Case("no padded action dimension", seed=5, prompt_lengths=(7, 3, 2), action_dim=6),
    Case(
        "three draws per example",
        seed=6,
        prompt_lengths=(4, 1, 8),
        cameras=(ALL, (True, True, False), ALL),
        num_draws=3,
    ),
    Case("strong modulation", seed=7, prompt_lengths=(2, 5, 7), modulation=3.0),
    Case("pi0: prompts of 5, 8 and 0 tokens", seed=8, prompt_lengths=(5, 8, 0), head="pi0"),
    Case(
        "pi0: cameras missing, two draws",
        seed=9,
        prompt_lengths=(1, 6, 3),
        cameras=((False, True, True), (True, False, False), ALL),
        num_draws=2,
        head="pi0",
    ),
)

GOLDEN = {
    "pi05": Case("golden", seed=11, prompt_lengths=(3, 8), cameras=(ALL, (True, False, True))),
    "pi0": Case("golden pi0", seed=12, prompt_lengths=(8, 2), cameras=((True, True, False), ALL), head="pi0"),
}
"""The cases whose LeRobot outputs are kept for the test suite."""


@dataclasses.dataclass(frozen=True)
class Inputs:
    """One case's inputs: a batch in our form, what is injected into the loss, and the noise that sampling starts from."""

    batch: TrainBatch
    noise: np.ndarray  # [B * N, H, M]
    time: np.ndarray  # [B * N]
    start: np.ndarray  # [B, H, M]


def make_params(case: Case) -> Params:
    """Random parameters of ordinary size; no zero initialisation is left to hide a term.

    Each leaf has its own generator, seeded with its path, so that other leaves may come and go.
    """
    params = {}
    for path, leaf in flatten_params(abstract_params(Pi05Policy(case.config))).items():
        rng = np.random.default_rng([case.seed, zlib.crc32("/".join(path).encode())])
        centre, spread = _distribution(path, leaf.shape)
        if path[-2] == "Dense_0" and "llm" in path:
            spread *= case.modulation
        params[path] = (centre + spread * rng.uniform(-1, 1, leaf.shape)).astype(np.float32)
    return unflatten_params(params)


def digest_params(params: Params) -> str:
    """16 hex digits that change with any number in the tree."""
    digest = hashlib.sha256()
    for path, leaf in flatten_params(params).items():
        digest.update("/".join(path).encode() + np.ascontiguousarray(leaf).tobytes())
    return digest.hexdigest()[:16]


def make_norm(case: Case) -> NormStats:
    """Statistics that change nothing. Quantiles: -1 and 1, less the 1e-6 that the scheme adds to their distance."""
    identity = identity_norm_stats(case.config.state_dim, case.action_dim, CONFIG.horizon)
    less = np.float32(1e-6)
    return dataclasses.replace(identity, state_high=identity.state_high - less, action_high=identity.action_high - less)


def make_inputs(case: Case) -> Inputs:
    """Random images, prompts, states, actions and noise; times too, unless the case sets them."""
    rng = np.random.default_rng([case.seed, 1])
    config, batch = case.config, len(case.prompt_lengths)
    size, rows = config.vision.image_size, batch * case.num_draws
    tokens = rng.integers(0, NUM_WORDS, (batch, config.max_tokens), np.int32)
    observation = ObservationBatch(
        images={name: rng.integers(0, 256, (batch, size, size, 3), np.uint8) for name in config.cameras},
        image_mask={name: np.array([seen[i] for seen in case.cameras]) for i, name in enumerate(config.cameras)},
        state=rng.uniform(-1, 1, (batch, config.state_dim)).astype(np.float32),
        tokens=tokens,
        token_mask=np.arange(config.max_tokens)[None] < np.array(case.prompt_lengths)[:, None],
    )
    actions = rng.uniform(-1, 1, (batch, config.horizon, config.action_dim)).astype(np.float32)
    ones = np.ones((batch, config.horizon), np.float32)
    noise = rng.normal(size=(rows, config.horizon, config.model_action_dim)).astype(np.float32)
    drawn = rng.beta(1.5, 1, rows) * 0.999 + 0.001
    return Inputs(
        batch=TrainBatch(observation, actions, ones, ones[:, 0]),
        noise=noise,
        time=np.asarray(drawn if case.times is None else case.times, np.float32),
        start=rng.normal(size=(batch, *noise.shape[1:])).astype(np.float32),
    )


def _distribution(path: tuple[str, ...], shape: tuple[int, ...]) -> tuple[float, float]:
    """Centre and half width of a leaf's uniform distribution; weights keep the variance of what they multiply."""
    if path[-1] == "bias":
        return 0.0, 0.3
    if path[-1] == "scale":
        return (1.0 if "img" in path else 0.0), 0.3  # RMSNorm adds the 1 itself
    if path[-1] == "pos_embedding":
        return 0.0, 0.5
    unit_variance = 3**0.5
    if path[-1] == "input_embedding":
        return 0.0, unit_variance * shape[-1] ** -0.5
    if path == ("action_out_proj", "kernel"):
        unit_variance /= 2  # keeps the loss of order 1
    return 0.0, unit_variance * _fan_in(path, shape) ** -0.5


def _fan_in(path: tuple[str, ...], shape: tuple[int, ...]) -> int:
    """How many numbers one output of this weight sums over. The first axis of stacked leaves is the layer."""
    if path[-3:] == ("img", "embedding", "kernel"):
        return int(np.prod(shape[:-1]))
    if path[-2] in ("query", "key", "value"):
        return shape[1]
    if path[-2] in ("out", "attn_vec_einsum", "attn_vec_einsum_1"):
        return shape[-3] * shape[-2]
    return shape[-2]
