"""`restock_value`: a value function for RECAP on the towers of the compact policy, from demonstrations and the policy's own
episodes. It suits any task; what it learns is in the store."""

import dataclasses
import math

from sop_jax.algorithms.recap.returns import ReturnsConfig
from sop_jax.learner.config import LearnerConfig
from sop_jax.sampling.loader import LoaderConfig
from sop_jax.specs.errors import ConfigError


@dataclasses.dataclass(frozen=True)
class ValueTrainingConfig:
    """How a value function is made from an episode store.

    num_bins: of its distribution. width: of the compact model's last layer.
    from_policy: start with the policy's towers; off, from fresh ones.
    held_out_share: of the episodes, drawn by name, the share that the calibration is measured on.
    seed: of the parameters' start and of the order of data.
    control_hz: rate of the robots that the episodes are from; those of another rate are passed over.
    """

    name: str
    returns: ReturnsConfig = dataclasses.field(default_factory=ReturnsConfig)
    num_bins: int = 201
    width: int = 256
    from_policy: bool = True
    held_out_share: float = 0.2
    seed: int = 0
    control_hz: float = 30.0
    learner: LearnerConfig = dataclasses.field(default_factory=LearnerConfig)
    loader: LoaderConfig = dataclasses.field(default_factory=LoaderConfig)

    def __post_init__(self) -> None:
        if self.learner.batch_size != self.loader.batch_size:
            raise ConfigError(
                "ValueTrainingConfig: learner.batch_size and loader.batch_size must be equal, got "
                f"{self.learner.batch_size} and {self.loader.batch_size}"
            )
        if not 0 < self.held_out_share < 1:
            raise ConfigError(f"ValueTrainingConfig.held_out_share must lie in (0, 1), got {self.held_out_share}")
        if not 0 < self.control_hz < math.inf:
            raise ConfigError(f"ValueTrainingConfig.control_hz must be positive and finite, got {self.control_hz}")


CONFIG = ValueTrainingConfig(
    name="restock_value",
    learner=LearnerConfig(
        # why so few steps, and so much decay: at 1000 steps without it errors are smaller, but the values tremble by what the
        # network remembers of single episodes, and 42% of a failure's frames pass for better than expected (25% so)
        num_steps=300,
        weight_decay=0.3,
        learning_rate=1e-3,
        schedule="cosine",
        warmup_steps=50,
        ema_decay=0.99,
        checkpoint_every=250,
        publish_in_background=False,
    ),
)
