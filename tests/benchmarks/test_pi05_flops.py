"""The count of floating-point operations, against a hand count and against XLA's."""

import dataclasses

import jax
import pytest

from benchmarks.pi05_flops import chunk_flops, language_flops, loss_flops, num_prefix_tokens, vision_flops
from sop_jax.learner.shapes import abstract_batch, example_norm
from sop_jax.models.pi05.config import FULL, ExpertConfig, Pi05Config, VisionConfig
from sop_jax.models.pi05.policy import Pi05Policy
from sop_jax.models.policy import abstract_params

SMALL = Pi05Config(
    vision=VisionConfig(width=6, depth=2, mlp_dim=10, num_heads=2, patch_size=4, image_size=8),  # 4 tokens
    language=ExpertConfig(width=7, depth=3, mlp_dim=11, num_heads=2, num_kv_heads=1, head_dim=4),
    expert=ExpertConfig(width=4, depth=3, mlp_dim=5, num_heads=2, num_kv_heads=1, head_dim=4),
    vocab_size=300,
    cameras=("a",),
    state_dim=3,
    action_dim=3,
    model_action_dim=3,
    horizon=2,
    num_steps=5,
)


def test_vision_by_hand():
    patches, head = 4 * 48 * 6, 4 * 6 * 7
    block = 4 * (4 * 6 * 6) + 2 * (4 * 4 * 6) + 2 * (4 * 6 * 10)
    found = vision_flops(SMALL)
    assert found.forward == 2 * (patches + 2 * block + head)
    assert found.train == 2 * (2 * patches + 3 * 2 * block + 3 * head)  # images need no gradient


def test_language_by_hand():
    weights = 9 * 7 * 8 + 9 * 7 * 8 + 9 * 8 * 7 + 3 * 9 * 7 * 11  # queries, keys and values, output, feed-forward
    attention = 2 * 9 * 9 * 8
    last = 9 * 7 * 8  # its keys and values
    found = language_flops(SMALL, 9)
    assert found.forward == 2 * (2 * (weights + attention) + last)
    assert found.train == 2 * (2 * (2 * weights + 3 * attention) + 2 * last)  # frozen: no gradient of weights
    trained = language_flops(dataclasses.replace(SMALL, freeze_language=False), 9)
    assert trained.train == 3 * trained.forward == 3 * found.forward


def test_the_suffix_by_hand():
    """What an Euler step costs: 2 actions that see 9 prefix tokens and themselves."""
    time, modulation, ends = 2 * 4 * 4, 7 * 4 * 12, 2 * 2 * 3 * 4
    layer = 2 * 4 * 8 + 2 * 4 * 8 + 2 * (2 * 11 * 8) + 2 * 8 * 4 + 3 * 2 * 4 * 5
    step = 2 * (time + modulation + ends + 3 * layer)
    assert num_prefix_tokens(SMALL, 5) == 9
    longer = dataclasses.replace(SMALL, num_steps=6)
    assert chunk_flops(longer, 5) - chunk_flops(SMALL, 5) == step
    assert loss_flops(SMALL, 5).forward == vision_flops(SMALL).forward + language_flops(SMALL, 9).forward + step


def test_draws_share_the_prefix():
    one, three = (loss_flops(dataclasses.replace(SMALL, num_draws=num), 5) for num in (1, 3))
    once = vision_flops(SMALL) + language_flops(SMALL, 9)
    assert three.train - once.train == 3 * (one.train - once.train)


def test_xla_counts_the_same():
    """Products dominate at this width; what XLA counts beside them is elementwise. Stacks this shallow are unrolled, so XLA
    counts every layer and drops what nobody reads."""
    config = Pi05Config(
        vision=VisionConfig(width=128, depth=2, mlp_dim=512, num_heads=2, patch_size=14, image_size=56),
        language=ExpertConfig(width=128, depth=2, mlp_dim=512, num_heads=2, num_kv_heads=1, head_dim=64),
        expert=ExpertConfig(width=128, depth=2, mlp_dim=512, num_heads=2, num_kv_heads=1, head_dim=64),
        vocab_size=512,
        cameras=("a", "b"),
        horizon=16,
        tokenizer="hash",
        max_tokens=16,
        dtype="float32",
        remat=False,
    )
    model = Pi05Policy(config)
    forward = jax.jit(lambda params, batch: model.loss(params, example_norm(model), batch, jax.random.key(0)))
    compiled = forward.lower(abstract_params(model), abstract_batch(model, 56, 2)).compile()
    counted = compiled.cost_analysis()["flops"]
    expected = 2 * loss_flops(config, 16 + config.state_dim).forward
    assert 1.0 < counted / expected < 1.12


def test_the_full_policy_costs_what_its_size_says():
    """Two operations per weight and token: about 2.0 B language weights x 968 tokens, 412 M vision weights x 3 x 256."""
    config = dataclasses.replace(FULL, tokenizer="hash")
    found = loss_flops(config, 200)
    assert num_prefix_tokens(config, 200) == 968
    language, vision = 2 * 1.98e9 * 968, 2 * 412e6 * 768
    assert found.forward == pytest.approx(language + vision, rel=0.1)
    assert 2.0 < found.train / found.forward < 2.5  # most of it is frozen
