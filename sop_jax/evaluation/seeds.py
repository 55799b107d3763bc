"""Seeds of trials, in ranges that no training or collection uses, so that what is measured was never practised.

| seeds | for |
|---|---|
| [0, 2^31) | episodes of robots and demonstrations (`sop_jax.actors.seeds`) |
| [2^31, 2^31 + 2^30) | evaluation: what is reported |
| [2^31 + 2^30, 2^32) | selection: trials by which a policy, a step or a setting is chosen while training |

Trial `i` with seed `S` uses the range's first seed + S * 100,000 + i. A policy that was chosen by the trials that it is then
reported on looks better than it is: so whoever chooses uses `selection_seeds`, and nothing is chosen by `trial_seeds`.
"""

from sop_jax.specs.errors import ConfigError

FIRST_EVALUATION_SEED = 2**31
FIRST_SELECTION_SEED = 2**31 + 2**30
MAX_TRIALS = 100_000
MAX_EVALUATION_SEED = 2**30 // MAX_TRIALS - 1
"""The largest seed of an evaluation, and of a selection."""


def trial_seeds(seed: int, num_trials: int) -> list[int]:
    """The trials' seeds; a longer evaluation with the same seed begins with a shorter one's trials. Raises ConfigError."""
    return _seeds(FIRST_EVALUATION_SEED, "evaluation", seed, num_trials)


def selection_seeds(seed: int, num_trials: int) -> list[int]:
    """As `trial_seeds`, for held-out trials by which something is chosen. Raises ConfigError."""
    return _seeds(FIRST_SELECTION_SEED, "selection", seed, num_trials)


def _seeds(first_of_all: int, what: str, seed: int, num_trials: int) -> list[int]:
    if not 0 <= seed <= MAX_EVALUATION_SEED:
        raise ConfigError(f"{what} seed must lie in [0, {MAX_EVALUATION_SEED}], got {seed}")
    if not 1 <= num_trials <= MAX_TRIALS:
        raise ConfigError(f"number of trials must lie in [1, {MAX_TRIALS}], got {num_trials}")
    first = first_of_all + seed * MAX_TRIALS
    return list(range(first, first + num_trials))
