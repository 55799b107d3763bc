"""AdamW after clipping, with its learning rate over time."""

import optax

from sop_jax.learner.config import LearnerConfig


def make_schedule(config: LearnerConfig) -> optax.Schedule:
    """Learning rate as a function of the steps done: linear warm-up from near 0, then constant or cosine."""
    warmup = config.warmup_steps
    if config.schedule == "cosine":
        after = optax.cosine_decay_schedule(config.learning_rate, config.num_steps - warmup, config.final_rate_share)
    else:
        after = optax.constant_schedule(config.learning_rate)
    if warmup == 0:
        return after
    start = config.learning_rate / (warmup + 1)
    return optax.join_schedules([optax.linear_schedule(start, config.learning_rate, warmup), after], [warmup])


def make_optimizer(config: LearnerConfig) -> optax.GradientTransformation:
    return optax.chain(
        optax.clip_by_global_norm(config.clip_norm),
        optax.adamw(
            make_schedule(config), b1=config.adam_b1, b2=config.adam_b2, eps=1e-8, weight_decay=config.weight_decay
        ),
    )
