"""Base policies: `restock_compact`, from which the demo starts, and `restock_pi05_tiny`, the same by a small pi0.5;
`restock_pi05_tiny_real_time` learns besides to continue the chunk under way (training-time real-time chunking).

The first is limited by its number of demonstrations on purpose.
"""

import dataclasses

from configs.experiment import DemonstrationsConfig, EvaluationConfig, LearningConfig, PretrainConfig
from sop_jax.algorithms.behaviour_cloning import BehaviourCloningConfig
from sop_jax.evaluation.world import WorldConfig
from sop_jax.learner.config import LearnerConfig
from sop_jax.sampling.adaptive import SamplerConfig
from sop_jax.sampling.loader import LoaderConfig

WORLD = WorldConfig(task="restock_shelf", image_size=64)
DEMONSTRATIONS = DemonstrationsConfig(num_episodes=250, num_collectors=2, seed=0)

DEMONSTRATIONS_ONLY = SamplerConfig(mode="fixed", min_share=0.0, initial_share=0.0, fixed_online_share=0.0)
"""A sampler that never asks for online data."""

CONFIG = PretrainConfig(
    name="restock_compact",
    model="compact",
    world=WORLD,
    demonstrations=DEMONSTRATIONS,
    learning=LearningConfig(
        algorithm=BehaviourCloningConfig(),
        learner=LearnerConfig(
            num_steps=3000, learning_rate=3e-3, schedule="cosine", warmup_steps=100, publish_in_background=False
        ),
        loader=LoaderConfig(prefetch_batches=3),
        sampler=DEMONSTRATIONS_ONLY,
        min_online_items=0,
        niceness=0,
    ),
    evaluation=EvaluationConfig(num_trials=200),
)

PI05_TINY = dataclasses.replace(
    CONFIG,
    name="restock_pi05_tiny",
    model="pi05_tiny",
    demonstrations=dataclasses.replace(DEMONSTRATIONS, num_episodes=1000),
    learning=dataclasses.replace(
        CONFIG.learning,
        learner=dataclasses.replace(CONFIG.learning.learner, num_steps=4000, learning_rate=1e-3),
    ),
)
"""Four times the demonstrations: what a word means in the image, a transformer from scratch has to learn from them."""

PI05_TINY_REAL_TIME = dataclasses.replace(PI05_TINY, name="restock_pi05_tiny_real_time", model="pi05_tiny_real_time")
