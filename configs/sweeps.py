"""Presets of the sweeps: `sop study scaling|staleness|operators --preset ci|dynamics|small`."""

import dataclasses
import math
import types
from collections.abc import Mapping, Sequence

from configs import restock_demo, restock_pretrain
from configs.experiment import DemonstrationsConfig
from configs.studies import SHELF
from fleet_sim.config import Operation, TimingConfig, operated
from fleet_sim.deployment import Deployment, Network, Operators, Robots, Training
from fleet_sim.operator_pool import RULES
from fleet_sim.studies.methods import MainResultsConfig
from fleet_sim.studies.sweeps import DynamicsPoint, LearningPoint, SweepConfig


@dataclasses.dataclass(frozen=True)
class SweepPreset:
    """The study, and the demonstrations that the base policy of its learning points was made from."""

    study: SweepConfig
    demonstrations: DemonstrationsConfig = restock_pretrain.DEMONSTRATIONS


ROBOTS = (1, 2, 4, 8, 16, 64, 256, 1000)
LEARNING_ROBOTS = (1, 2, 4, 8, 16, 32, 64)
PERIODS_S = (5, 15, 30, 60, 120, 300, 600, 1200, 3600)
PEOPLE = (1, 2, 3, 4, 6, 8, 12, 25, 50)
PATIENCE_S = 120.0
HOUR_S = 3600.0

_LEARNING_STUDY = dataclasses.replace(
    SHELF.study,
    name="sweep",
    methods=("pretrained", "sop_hg_dagger"),
    duration_s=1200.0,
    curve_points=8,
    curve_trials=40,
    training_seeds=2,
    retention_trials=0,
)
"""What a learning point does: the shelf, SOP + HG-DAgger, evaluated as in the main results."""


def as_bought(num_robots: int) -> Deployment:
    """What eight robots need: a learner, two people, a site link of 1 Gbps. It doesn't grow with the fleet."""
    network = Network(link_bps=100e6, site_link_bps=1e9)
    return Deployment(Robots(num_robots), network, Training(publish_every=100), Operators(2))


def grown(num_robots: int) -> Deployment:
    """A person for every four robots, a cache at the site, 10 Gbps, a faster intake and 64 accelerators; a publication every
    100 s, as in `as_bought`."""
    network = Network(link_bps=100e6, site_link_bps=10e9, site_cache=True)
    training = Training(intake_bytes_per_s=1e9).with_accelerators(64)
    training = dataclasses.replace(training, publish_every=round(100 * training.learner_steps_per_s))
    return Deployment(Robots(num_robots), network, training, Operators(math.ceil(num_robots / 4)))


def scaling_points(robots: Sequence[int]) -> tuple[DynamicsPoint, ...]:
    return tuple(
        DynamicsPoint(series, number, deployment(number))
        for series, deployment in (("as bought for eight", as_bought), ("grown with the fleet", grown))
        for number in robots
    )


def staleness_points(periods_s: Sequence[int]) -> tuple[DynamicsPoint, ...]:
    """Eight robots; one learner step per second, so a publication every k steps comes every k seconds."""
    return tuple(
        DynamicsPoint(
            series,
            period_s,
            Deployment(Robots(8), Network(link_bps=link_bps), Training(publish_every=period_s), Operators(4)),
        )
        for series, link_bps in (("50 Mbps to each robot", 50e6), ("1 Gbps to each robot", 1e9))
        for period_s in periods_s
    )


def operator_points(people: Sequence[int]) -> tuple[DynamicsPoint, ...]:
    """Fifty robots on fast links, for each rule."""
    training = Training(checkpoint_bytes=6e6)
    return tuple(
        DynamicsPoint(
            rule.replace("_", " "),
            number,
            Deployment(Robots(50), Network(link_bps=1e9), training, Operators(number)),
            rule,
            PATIENCE_S,
        )
        for rule in RULES
        for number in people
    )


def _with_robots(number: int) -> MainResultsConfig:
    return dataclasses.replace(
        _LEARNING_STUDY, fleet=dataclasses.replace(_LEARNING_STUDY.fleet, robots={"restock_shelf": number})
    )


def _with_period(period_s: int) -> MainResultsConfig:
    steps_per_s = 3.0
    fleet = dataclasses.replace(
        _LEARNING_STUDY.fleet,
        timing=TimingConfig(learner_steps_per_s=steps_per_s),
        learner=dataclasses.replace(_LEARNING_STUDY.fleet.learner, publish_every=round(period_s * steps_per_s)),
    )
    return dataclasses.replace(_LEARNING_STUDY, fleet=fleet)


def _with_people(number: int) -> MainResultsConfig:
    fleet, learner = _LEARNING_STUDY.fleet, restock_demo.CONFIG.learning.learner
    deployment = Deployment(
        Robots(fleet.num_robots, reset_s=fleet.timing.reset_s),
        Network(link_bps=1e9),
        Training(
            learner_steps_per_s=3.0,
            batch_size=learner.batch_size,
            publish_every=learner.publish_every,
            checkpoint_bytes=6e6,
        ),
        Operators(number, reaction_s=2.0),
    )
    operation = Operation(deployment, patience_s=PATIENCE_S)
    return dataclasses.replace(_LEARNING_STUDY, fleet=operated(fleet, operation))


# Warm-ups: what is slowest in a sweep must have come round at least twice. Of scaling that is 1000 robots as bought, which
# take 1.8 hours to fetch a publication and as long to be helped; of staleness the longest period, of operators the patience.
# `ci` is too short for that: its ranges say that nothing has changed, not what a fleet does in the long run.
SCALING = {
    "ci": SweepConfig("scaling", "ci", scaling_points((1, 4, 16, 64, 256, 1000)), 2400.0, 600.0, num_seeds=1),
    "dynamics": SweepConfig("scaling", "dynamics", scaling_points(ROBOTS), 24 * HOUR_S, 8 * HOUR_S),
    "small": SweepConfig(
        "scaling", "small", scaling_points(ROBOTS), 24 * HOUR_S, 8 * HOUR_S,
        learning=tuple(LearningPoint(number, _with_robots(number)) for number in LEARNING_ROBOTS),
    ),
}  # fmt: skip
STALENESS = {
    "ci": SweepConfig("staleness", "ci", staleness_points((5, 30, 120, 600, 3600)), 28_800.0, 7200.0, num_seeds=1),
    "dynamics": SweepConfig("staleness", "dynamics", staleness_points(PERIODS_S), 43_200.0, 7200.0),
    "small": SweepConfig(
        "staleness", "small", staleness_points(PERIODS_S), 43_200.0, 7200.0,
        learning=tuple(LearningPoint(period_s, _with_period(period_s)) for period_s in (8, 60, 300, 600)),
    ),
}  # fmt: skip
OPERATORS = {
    "ci": SweepConfig("operators", "ci", operator_points((2, 4, 8)), 3600.0, 900.0, num_seeds=1),
    "dynamics": SweepConfig("operators", "dynamics", operator_points(PEOPLE), 7200.0, 1800.0),
    "small": SweepConfig(
        "operators", "small", operator_points(PEOPLE), 7200.0, 1800.0,
        learning=tuple(LearningPoint(number, _with_people(number)) for number in (1, 2, 4)),
    ),
}  # fmt: skip

SWEEPS: Mapping[str, Mapping[str, SweepPreset]] = types.MappingProxyType(
    {
        kind: types.MappingProxyType({name: SweepPreset(study) for name, study in presets.items()})
        for kind, presets in (("scaling", SCALING), ("staleness", STALENESS), ("operators", OPERATORS))
    }
)
"""Study -> preset -> what it does. ci: seconds; dynamics: minutes, without learning; small: hours on two cores."""
