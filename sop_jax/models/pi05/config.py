"""Sizes of the pi0.5 and pi0 policies, from about a million parameters to the full 3.35 billion."""

import dataclasses
from typing import ClassVar, Literal

from sop_jax.models.added_fields import ADDED
from sop_jax.models.flow import check_noise_scale
from sop_jax.models.normalization import Scheme

NUM_STATE_BINS = 256

Remat = bool | Literal["dots"]
"""What the backward pass computes again in each layer: nothing (False), all but the products with weights, or all (True)."""


@dataclasses.dataclass(frozen=True)
class VisionConfig:
    """The image tower (SigLIP). Images are `image_size` pixels square, each patch one token."""

    width: int
    depth: int
    mlp_dim: int
    num_heads: int
    patch_size: int
    image_size: int

    def __post_init__(self) -> None:
        if self.image_size % self.patch_size or self.width % self.num_heads:
            raise ValueError(
                "VisionConfig: image_size must be a multiple of patch_size, and width of num_heads; got image_size "
                f"{self.image_size}, patch_size {self.patch_size}, width {self.width}, num_heads {self.num_heads}"
            )

    @property
    def num_tokens(self) -> int:
        return (self.image_size // self.patch_size) ** 2


@dataclasses.dataclass(frozen=True)
class LoraConfig:
    """Low-rank additions to a transformer's attention and feed-forward weights.

    The transformer's own weights are then frozen. In attention the addition counts `alpha / rank` times; in the
    feed-forward once, whatever alpha, as in openpi (whose own variants have alpha = rank).
    """

    rank: int
    alpha: float

    def __post_init__(self) -> None:
        if self.rank < 1 or self.alpha <= 0:
            raise ValueError(f"LoraConfig: rank must be at least 1 and alpha above 0, got {self.rank} and {self.alpha}")

    @property
    def scaling(self) -> float:
        """How often the addition to an attention weight counts."""
        return self.alpha / self.rank


@dataclasses.dataclass(frozen=True)
class ExpertConfig:
    """One transformer (Gemma). The language model and the action expert share attention, layer by layer.

    lora: train low-rank additions instead of the weights; None = no additions.
    """

    width: int
    depth: int
    mlp_dim: int
    num_heads: int
    num_kv_heads: int
    head_dim: int
    lora: LoraConfig | None = dataclasses.field(default=None, metadata=ADDED)

    def __post_init__(self) -> None:
        if self.num_heads % self.num_kv_heads or self.head_dim % 2:
            raise ValueError(
                "ExpertConfig: num_heads must be a multiple of num_kv_heads, and head_dim even; got num_heads "
                f"{self.num_heads}, num_kv_heads {self.num_kv_heads}, head_dim {self.head_dim}"
            )


@dataclasses.dataclass(frozen=True)
class Pi05Config:
    """The whole policy.

    model_action_dim: action dimensions inside the model; robots with fewer are padded with zeros.
    loss_on_idle_dims: the loss counts padding and dimensions that never move in the data, as openpi's does. Without it they
        see neither noise nor loss, and a small model spends nothing on them.
    state_input: "tokens" writes the state into the prompt, in 256 bins per dimension, as pi0.5 does; "continuous" gives
        it as one projected token of the prefix, which learns faster from scratch; "suffix" as one projected token before
        the actions, as pi0 does; "none" not at all (openpi's pi05_libero).
    tokenizer: "hash" needs no vocabulary; "paligemma" needs the SentencePiece model (text.py).
    max_tokens: tokens of the instruction, without the state's.
    num_draws: (noise, t) pairs per observation in the loss; the prefix is computed once for all.
    dtype: of activations; parameters keep their own.
    from_scratch: openpi's zero initialisations suit weights that will be loaded; a model trained from scratch needs image
        tokens of ordinary size, because RMSNorm multiplies the gradient of a zero token by 1000.
    freeze_language: post-training leaves the language model (expert 0) alone, but for its LoRA leaves if it has them.
    remat: recompute each layer in the backward pass instead of keeping its activations; "dots" keeps the costly ones.
    head: how time enters the action expert. "pi05": it modulates every normalisation (adaRMS). "pi0": it is mixed into the
        action tokens, and the normalisations are plain; the state is then a token before the actions.
    max_training_delay: the loss gives the first d actions of each chunk clean, d uniform in 0 .. this many, and counts the
        others only, so that the policy learns to continue a chunk (chunking mode "trained"); 0 = off.
    noise_scale: spread of the noise from which sampling starts; see `flow.start_noise`.
    """

    kind: ClassVar[str] = "pi05"

    vision: VisionConfig
    language: ExpertConfig
    expert: ExpertConfig
    vocab_size: int
    cameras: tuple[str, ...] = ("head", "hand_left", "hand_right")
    state_dim: int = 16
    action_dim: int = 16
    model_action_dim: int = 32
    horizon: int = 50
    normalization: Scheme = "quantile"
    state_input: Literal["tokens", "continuous", "suffix", "none"] = "tokens"
    tokenizer: Literal["hash", "paligemma"] = "paligemma"
    max_tokens: int = 48
    loss_on_idle_dims: bool = True
    num_draws: int = 1
    num_steps: int = 10
    dtype: Literal["bfloat16", "float32"] = "bfloat16"
    from_scratch: bool = False
    freeze_language: bool = True
    remat: Remat = True
    head: Literal["pi05", "pi0"] = dataclasses.field(default="pi05", metadata=ADDED)
    max_training_delay: int = dataclasses.field(default=0, metadata=ADDED)
    noise_scale: float = dataclasses.field(default=1.0, metadata=ADDED)

    def __post_init__(self) -> None:
        shared = [(e.depth, e.num_heads, e.num_kv_heads, e.head_dim) for e in (self.language, self.expert)]
        if shared[0] != shared[1]:
            raise ValueError(
                "Pi05Config: language and expert attend together, so depth, num_heads, num_kv_heads and head_dim must agree; "
                f"got {shared[0]} and {shared[1]}"
            )
        if not self.cameras or len(set(self.cameras)) != len(self.cameras):
            raise ValueError(f"Pi05Config.cameras must be distinct and at least one, got {self.cameras}")
        if not self.action_dim <= self.model_action_dim or not self.action_dim <= self.state_dim:
            raise ValueError(
                f"Pi05Config.action_dim must be at most model_action_dim and state_dim, got {self.action_dim}, "
                f"{self.model_action_dim} and {self.state_dim}"
            )
        if min(self.horizon, self.num_draws, self.num_steps, self.max_tokens) < 1 or self.expert.width % 2:
            raise ValueError(
                "Pi05Config: horizon, num_draws, num_steps and max_tokens must be at least 1, and the expert width even; got "
                f"{self.horizon}, {self.num_draws}, {self.num_steps}, {self.max_tokens} and {self.expert.width}"
            )
        if not 0 <= self.max_training_delay < self.horizon:
            raise ValueError(
                f"Pi05Config.max_training_delay must be at least 0 and below the horizon {self.horizon}, got "
                f"{self.max_training_delay}"
            )
        check_noise_scale("Pi05Config", self.noise_scale)
        if self.vocab_size <= NUM_STATE_BINS + 1:
            raise ValueError(f"Pi05Config.vocab_size must exceed {NUM_STATE_BINS + 1}, got {self.vocab_size}")
        if (self.head == "pi0") != (self.state_input == "suffix"):
            raise ValueError(
                'Pi05Config: head "pi0" and state_input "suffix" go together, got head '
                f"{self.head!r} and state_input {self.state_input!r}"
            )
        if self.state_input == "suffix" and self.state_dim > self.model_action_dim:
            raise ValueError(
                "Pi05Config: pi0 pads the state to model_action_dim, so state_dim must not exceed it; got "
                f"{self.state_dim} and {self.model_action_dim}"
            )


FULL = Pi05Config(
    vision=VisionConfig(width=1152, depth=27, mlp_dim=4304, num_heads=16, patch_size=14, image_size=224),
    language=ExpertConfig(width=2048, depth=18, mlp_dim=16384, num_heads=8, num_kv_heads=1, head_dim=256),
    expert=ExpertConfig(width=1024, depth=18, mlp_dim=4096, num_heads=8, num_kv_heads=1, head_dim=256),
    vocab_size=257152,
)
"""pi0.5 as released: 3,353,433,872 parameters."""

PI0 = dataclasses.replace(FULL, head="pi0", state_input="suffix", normalization="mean_std")
"""pi0 as released: 3,238,048,528 parameters."""

LANGUAGE_LORA = LoraConfig(rank=16, alpha=16.0)
"""openpi's `gemma_2b_lora`."""

EXPERT_LORA = LoraConfig(rank=32, alpha=32.0)
"""openpi's `gemma_300m_lora`."""

TINY = Pi05Config(
    vision=VisionConfig(width=128, depth=1, mlp_dim=256, num_heads=4, patch_size=16, image_size=64),
    language=ExpertConfig(width=128, depth=2, mlp_dim=256, num_heads=4, num_kv_heads=1, head_dim=32),
    expert=ExpertConfig(width=128, depth=2, mlp_dim=256, num_heads=4, num_kv_heads=1, head_dim=32),
    vocab_size=4096 + NUM_STATE_BINS,
    model_action_dim=16,
    horizon=16,
    normalization="mean_std",
    state_input="continuous",
    tokenizer="hash",
    max_tokens=24,
    loss_on_idle_dims=False,
    num_draws=4,
    dtype="float32",
    from_scratch=True,
    freeze_language=False,
    remat=False,
)
"""The same architecture for CPUs, tests and from-scratch training."""

TINY_REAL_TIME = dataclasses.replace(TINY, max_training_delay=5)
"""`TINY`, trained to continue the chunk under way when inference took up to 5 ticks."""

PI0_TINY = dataclasses.replace(TINY, head="pi0", state_input="suffix")
"""pi0's head at the same size."""
