"""Floating-point operations of a pi0.5: what the model itself asks for, whatever the implementation computes beside it.

Only matrix products count, 2 per multiply-add. In training each product with a trained weight is done three times (forward,
gradient of its input, gradient of the weight), with a frozen one twice, the first of a path (whose input needs no gradient)
once less, and attention's own products, of two activations, three times. Nothing that is computed again counts, nor what
nobody reads: of the language model's last layer, only keys and values.

Legend: `P` prefix tokens, `H` horizon, `D` and `C` widths of language model and action expert.
"""

import dataclasses

from sop_jax.models.pi05.config import ExpertConfig, Pi05Config


@dataclasses.dataclass(frozen=True)
class Flops:
    """For one example: of a forward pass, and of a training step (forward and backward)."""

    forward: int = 0
    train: int = 0

    def __add__(self, other: "Flops") -> "Flops":
        return Flops(self.forward + other.forward, self.train + other.train)

    def times(self, num: int) -> "Flops":
        return Flops(self.forward * num, self.train * num)


def num_prefix_tokens(config: Pi05Config, num_text_tokens: int) -> int:
    """Tokens that the action expert reads: images, text (with the state's numbers), and the state if it is one token."""
    continuous = config.state_input == "continuous"
    return len(config.cameras) * config.vision.num_tokens + num_text_tokens + continuous


def loss_flops(config: Pi05Config, num_text_tokens: int) -> Flops:
    """Of the loss of one example, with all of its draws."""
    prefix = num_prefix_tokens(config, num_text_tokens)
    draw = _suffix(config, prefix)
    return (
        vision_flops(config).times(len(config.cameras)) + language_flops(config, prefix) + draw.times(config.num_draws)
    )


def chunk_flops(config: Pi05Config, num_text_tokens: int) -> int:
    """Of sampling one chunk: the prefix once, the action expert at every Euler step."""
    prefix = num_prefix_tokens(config, num_text_tokens)
    once = vision_flops(config).times(len(config.cameras)) + language_flops(config, prefix)
    return once.forward + _suffix(config, prefix).forward * config.num_steps


def vision_flops(config: Pi05Config) -> Flops:
    """Of one image."""
    v = config.vision
    patches = _product(v.num_tokens, v.patch_size**2 * 3, v.width, times=2)
    block = (
        _product(v.num_tokens, v.width, v.width).times(4)
        + _attention(v.num_tokens, v.num_tokens, v.width)
        + _product(v.num_tokens, v.width, v.mlp_dim).times(2)
    )
    return patches + block.times(v.depth) + _product(v.num_tokens, v.width, config.language.width)


def language_flops(config: Pi05Config, num_tokens: int) -> Flops:
    """Of the prefix."""
    expert, times = config.language, 2 if config.freeze_language else 3
    state = Flops()
    if config.state_input == "continuous":
        state = _product(1, config.state_dim, expert.width, times=2)
    whole = _layer(expert, num_tokens, num_tokens, times)
    return state + whole.times(expert.depth - 1) + _keys_and_values(expert, num_tokens, times)


def _suffix(config: Pi05Config, num_prefix: int) -> Flops:
    """Of one draw, or of one Euler step."""
    expert, tokens, width = config.expert, config.horizon, config.expert.width
    time = _product(1, width, width, times=2) + _product(1, width, width)
    modulation = _product(1, width, 3 * width).times(2 * expert.depth + 1)
    ends = _product(tokens, config.model_action_dim, width, times=2) + _product(tokens, width, config.model_action_dim)
    return time + modulation + ends + _layer(expert, tokens, num_prefix + tokens, times=3).times(expert.depth)


def _layer(expert: ExpertConfig, num_tokens: int, num_seen: int, times: int) -> Flops:
    heads = expert.num_heads * expert.head_dim
    return (
        _product(num_tokens, expert.width, heads, times)
        + _keys_and_values(expert, num_tokens, times)
        + _attention(num_tokens, num_seen, heads)
        + _product(num_tokens, heads, expert.width, times)
        + _product(num_tokens, expert.width, expert.mlp_dim, times).times(3)
    )


def _keys_and_values(expert: ExpertConfig, num_tokens: int, times: int) -> Flops:
    return _product(num_tokens, expert.width, 2 * expert.num_kv_heads * expert.head_dim, times)


def _attention(num_tokens: int, num_seen: int, width: int) -> Flops:
    """Logits and weighted sum; both factors are activations."""
    return _product(num_tokens, width, num_seen).times(2)


def _product(rows: int, inner: int, columns: int, times: int = 3) -> Flops:
    forward = 2 * rows * inner * columns
    return Flops(forward, times * forward)
