"""`restock_demo`: four robots on the flat shelf get better while they work, within minutes on two cores.

The choices follow what was measured on prototypes: half demonstrations and half corrections to start with, a constant
learning rate of 2e-3, an average of the weights with decay 0.995, publication every 25 steps.
"""

import dataclasses

from configs import restock_pretrain
from configs.experiment import DemoConfig, DemonstrationsConfig, EvaluationConfig, FleetConfig, LearningConfig
from configs.restock_pretrain import DEMONSTRATIONS, WORLD
from sop_jax.algorithms.hg_dagger import HgDaggerConfig
from sop_jax.learner.config import LearnerConfig

CONFIG = DemoConfig(
    name="restock_demo",
    title="Four robots learn to restock a shelf",
    policy="assets/policies/restock_compact",
    world=WORLD,
    demonstrations=DEMONSTRATIONS,
    fleet=FleetConfig(num_robots=4),
    learning=LearningConfig(
        algorithm=HgDaggerConfig(),
        learner=LearnerConfig(num_steps=3500, learning_rate=2e-3, schedule="constant", publish_every=25),
    ),
    evaluation=EvaluationConfig(num_trials=120),
    max_loop_s=480.0,
    control_result="assets/results/restock_demo_control.json",
)
"""The demonstrations are those that the base policy was made from: same seed, same number, same bytes."""

PI05_TINY = dataclasses.replace(
    CONFIG,
    name="restock_demo_pi05",
    title="Four robots learn to restock a shelf, with a small pi0.5",
    policy="assets/policies/restock_pi05_tiny",
    demonstrations=restock_pretrain.PI05_TINY.demonstrations,
    learning=dataclasses.replace(
        CONFIG.learning, learner=dataclasses.replace(CONFIG.learning.learner, learning_rate=7e-4)
    ),
    control_result="",
)
"""The same loop in the same time: the time limit ends it, long before the last step."""

TINY = DemoConfig(
    name="restock_tiny",
    title="A tiny run of the loop",
    policy="assets/policies/restock_compact",
    world=WORLD,
    demonstrations=DemonstrationsConfig(num_episodes=4, num_collectors=2),
    fleet=FleetConfig(num_robots=2),
    learning=LearningConfig(
        algorithm=HgDaggerConfig(),
        learner=LearnerConfig(num_steps=100, learning_rate=2e-3, schedule="constant", checkpoint_every=50),
    ),
    evaluation=EvaluationConfig(num_trials=8),
    max_loop_s=240.0,
)
"""Every phase, as short as it gets: it proves that a machine can run the loop, and proves nothing about learning."""
