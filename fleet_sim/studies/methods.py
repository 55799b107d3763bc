"""The paper's main results (arXiv 2601.03044): which methods, at which size, as a grid of cells.

All methods start from one base policy and are evaluated on the same trials. What is compared has equal robot-hours, equal
learner steps and equal human minutes, so that the difference is the system:

    pretrained              the base policy
    more_demonstrations     the robots' time is spent on demonstrations, then the learner's steps on all of them
    sop_*                   online: robots, learner and publications side by side
    offline_*               collect, train, redeploy, twice; people help until they have helped as long as its online twin's

RECAP, online and in rounds alike, has more than the others: rollouts of the base policy for its value function, that
function's training, and (`recap_base_steps`) learner steps on demonstrations with its prompt. Both of its methods have the
same, so they may be compared; beside HG-DAgger its budget is larger.
"""

import dataclasses
import types
from collections.abc import Mapping
from typing import Literal

from fleet_sim.config import SimulatedFleetConfig
from fleet_sim.studies.grid import Cell
from sop_jax.algorithms.hg_dagger import HgDaggerConfig
from sop_jax.algorithms.recap.recap import RecapConfig
from sop_jax.specs.errors import ConfigError

VALUE_CELL = "value_function"
RECAP_BASE_CELL = "recap_base"
LEAVES: Mapping[str, tuple[str, ...]] = types.MappingProxyType(
    {VALUE_CELL: ("value/value.json", "value/returns.json"), RECAP_BASE_CELL: ("recap_base/policy.json",)}
)
"""What these leave to RECAP's methods (`main_results.Places`): of each directory the files that tell its fingerprint, and how
the value function judges; the last is written last."""


@dataclasses.dataclass(frozen=True)
class Method:
    """A way from the base policy to a better one.

    twin: the online method whose human time and learner steps an offline one may spend. against: the method from which this
        one differs by one thing. paper, paper_per_h: the paper's success rates and throughputs for restocking, laundry and
        box; throughput is episodes ended per hour of policy execution, successful or not, None where it gives none.
    """

    label: str
    way: Literal["none", "demonstrations", "online", "rounds"]
    algorithm: Literal["none", "behaviour_cloning", "hg_dagger", "recap"] = "none"
    twin: str = ""
    against: str = ""
    sampler: Literal["adaptive", "fixed", "online_only", "task_proportional"] = "adaptive"
    paper: tuple[float, float, float] | None = None
    paper_per_h: tuple[float | None, float | None, float | None] | None = None


def _sampled(label: str, sampler: Literal["fixed", "online_only", "task_proportional"]) -> Method:
    return Method(label, "online", "hg_dagger", against="sop_hg_dagger", sampler=sampler)


METHODS: Mapping[str, Method] = types.MappingProxyType(
    {
        "pretrained": Method("pre-trained", "none", paper=(0.61, 0.58, 0.70), paper_per_h=(None, 11, 18)),
        "sop_hg_dagger": Method(
            "SOP + HG-DAgger", "online", "hg_dagger", paper=(0.94, 0.96, 0.98), paper_per_h=(None, 45, 42)
        ),
        "offline_hg_dagger": Method(
            "HG-DAgger", "rounds", "hg_dagger", "sop_hg_dagger", paper=(0.80, 0.84, 0.82), paper_per_h=(None, 21, 26)
        ),
        "sop_recap": Method("SOP + RECAP", "online", "recap", paper=(0.85, 0.92, 0.96), paper_per_h=(None, 38, 38)),
        "offline_recap": Method(
            "RECAP", "rounds", "recap", "sop_recap", paper=(0.76, 0.86, 0.90), paper_per_h=(None, 27, 33)
        ),
        "more_demonstrations": Method(
            "BC on more demonstrations", "demonstrations", "behaviour_cloning", "sop_hg_dagger"
        ),
        "sop_hg_dagger_fixed": _sampled("SOP + HG-DAgger, half online", "fixed"),
        "sop_hg_dagger_online_only": _sampled("SOP + HG-DAgger, online only", "online_only"),
        "sop_hg_dagger_task_proportional": _sampled("SOP + HG-DAgger, tasks by their frames", "task_proportional"),
    }
)
"""In the order in which they run; a twin comes before those that lean on it."""


@dataclasses.dataclass(frozen=True)
class MainResultsConfig:
    """A preset of the study.

    policy: directory of the base policy. methods: names of `METHODS`. training_seeds: repetitions of each.
    duration_s: how long the fleet works, on virtual time. num_rounds: of the offline methods.
    num_trials, evaluation_seed: per task, equal for all methods. curve_points, curve_trials: held-out evaluations, on
        selection seeds, of what an online method had learnt by evenly spaced times; 0 = none.
    retention_trials: trials in each world of the retention suite, before and after the online methods; 0 = none.
    value_rollouts_s: how long the fleet works unhelped to show the value function failures. value_steps: its learner's steps.
    recap_base_steps: learner steps on demonstrations with which RECAP's methods teach the base policy the words of its
        prompt, which it hasn't seen; 0 = they start from the base policy as it is.
    """

    name: str
    policy: str
    fleet: SimulatedFleetConfig
    methods: tuple[str, ...]
    training_seeds: int = 1
    duration_s: float = 1200.0
    num_rounds: int = 2
    num_trials: int = 100
    evaluation_seed: int = 1
    curve_points: int = 0
    curve_trials: int = 30
    retention_trials: int = 0
    value_rollouts_s: float = 300.0
    value_steps: int = 300
    recap_base_steps: int = 0
    hg_dagger: HgDaggerConfig = dataclasses.field(default_factory=HgDaggerConfig)
    recap: RecapConfig = dataclasses.field(default_factory=RecapConfig)

    def __post_init__(self) -> None:
        unknown = sorted(set(self.methods) - set(METHODS))
        if unknown or not self.methods or len(set(self.methods)) != len(self.methods):
            raise ConfigError(
                f"MainResultsConfig.methods: expected different ones of {list(METHODS)}, got {self.methods}"
            )
        for name in self.methods:
            if METHODS[name].twin not in ("", *self.methods):
                raise ConfigError(f"method {name!r} spends what its twin {METHODS[name].twin!r} spent: ask for both")
        if min(self.training_seeds, self.num_rounds, self.num_trials) < 1 or not self.duration_s > 0:
            raise ConfigError(f"MainResultsConfig: seeds, rounds, trials and duration must be positive, got {self}")

    @property
    def tasks(self) -> tuple[str, ...]:
        return self.fleet.tasks


def cell_name(method: str, seed: int) -> str:
    """The cell of one method and training seed."""
    return f"{method}-{seed}"


def make_cells(config: MainResultsConfig) -> list[Cell]:
    """The grid: the base policy once, everything else per training seed, twins first."""
    cells = []
    chosen = [name for name in METHODS if name in config.methods]
    shared = [VALUE_CELL, RECAP_BASE_CELL] if config.recap_base_steps else [VALUE_CELL]
    if any(METHODS[name].algorithm == "recap" for name in chosen):
        cells = [Cell(name, name, tuple(shared[:place]), 0.5, LEAVES[name]) for place, name in enumerate(shared)]
    for seed in range(config.training_seeds):
        for name in chosen:
            method = METHODS[name]
            if method.way == "none" and seed:
                continue
            needs = [cell_name(method.twin, seed)] if method.twin else []
            needs += shared if method.algorithm == "recap" else []
            cells.append(
                Cell(cell_name(name, seed), method.way, tuple(needs), cost=0.3 if method.way == "none" else 1.0)
            )
    return cells
