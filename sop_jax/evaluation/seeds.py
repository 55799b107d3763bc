"""Seeds of evaluation trials: a range that no training or collection uses, so that what is measured was never practised.

Episodes of actors and demonstrations draw their seeds from [0, 2^31) (`sop_jax.actors.seeds`). Trial `i` of the evaluation
with seed `S` uses 2^31 + S * 100,000 + i, below 2^32.
"""

from sop_jax.specs.errors import ConfigError

FIRST_EVALUATION_SEED = 2**31
MAX_TRIALS = 100_000
MAX_EVALUATION_SEED = (2**32 - FIRST_EVALUATION_SEED) // MAX_TRIALS - 1


def trial_seeds(seed: int, num_trials: int) -> list[int]:
    """The trials' seeds; a longer evaluation with the same seed begins with a shorter one's trials. Raises ConfigError."""
    if not 0 <= seed <= MAX_EVALUATION_SEED:
        raise ConfigError(f"evaluation seed must lie in [0, {MAX_EVALUATION_SEED}], got {seed}")
    if not 1 <= num_trials <= MAX_TRIALS:
        raise ConfigError(f"number of trials must lie in [1, {MAX_TRIALS}], got {num_trials}")
    first = FIRST_EVALUATION_SEED + seed * MAX_TRIALS
    return list(range(first, first + num_trials))
