"""Algorithms by name, for configurations and the command line."""

import dataclasses
import difflib
import types
from collections.abc import Callable, Sequence
from typing import Any

from sop_jax.algorithms.algorithm import Algorithm
from sop_jax.algorithms.behaviour_cloning import BehaviourCloning, BehaviourCloningConfig
from sop_jax.algorithms.hg_dagger import HgDagger, HgDaggerConfig
from sop_jax.algorithms.recap.recap import Recap, RecapConfig
from sop_jax.specs.errors import ConfigError

AlgorithmConfig = BehaviourCloningConfig | HgDaggerConfig | RecapConfig


@dataclasses.dataclass(frozen=True)
class AlgorithmEntry:
    """How an algorithm is made: `make(config)` with a config of `config_type`. `check` raises ConfigError if something that
    it needs beside the policy to label these tasks is missing."""

    config_type: type
    make: Callable[[Any], Algorithm]
    check: Callable[[Any, Sequence[str]], object] = lambda algorithm, tasks: None


def _check_recap(recap: Recap, tasks: Sequence[str]) -> None:
    value_function = recap.value_function
    for task in tasks:
        value_function.task(task)


ALGORITHMS = types.MappingProxyType(
    {
        "behaviour_cloning": AlgorithmEntry(BehaviourCloningConfig, BehaviourCloning),
        "hg_dagger": AlgorithmEntry(HgDaggerConfig, HgDagger),
        "recap": AlgorithmEntry(RecapConfig, Recap, _check_recap),
    }
)


def default_config(name: str) -> AlgorithmConfig:
    """The defaults of the algorithm of this name. Raises ConfigError on an unknown name, with near matches."""
    if name in ALGORITHMS:
        return ALGORITHMS[name].config_type()
    near = difflib.get_close_matches(name, ALGORITHMS, n=3, cutoff=0.5)
    hint = f"did you mean {' or '.join(near)}?" if near else "these exist:"
    raise ConfigError(f"unknown algorithm {name!r}; {hint} (all: {', '.join(sorted(ALGORITHMS))})")


def create_algorithm(algorithm: str | AlgorithmConfig) -> Algorithm:
    """The algorithm of this name with its defaults, or the one that this config belongs to.

    Raises ConfigError on an unknown name (with near matches) or config. An algorithm of your own needs no entry here: pass
    its object to the loader and the learner.
    """
    if isinstance(algorithm, str):
        algorithm = default_config(algorithm)
    for entry in ALGORITHMS.values():
        if type(algorithm) is entry.config_type:
            return entry.make(algorithm)
    expected = ", ".join(entry.config_type.__name__ for entry in ALGORITHMS.values())
    raise ConfigError(f"no algorithm takes a config of type {type(algorithm).__name__}; expected one of {expected}")


def check_ready(algorithm: Algorithm, tasks: Sequence[str]) -> None:
    """Raises ConfigError, or what reading it raises, if something that labelling these tasks needs is missing: RECAP's value
    function, and what it knows of each."""
    if algorithm.name in ALGORITHMS:
        ALGORITHMS[algorithm.name].check(algorithm, tasks)
