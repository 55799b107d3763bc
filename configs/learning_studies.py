"""Presets of the studies of fleets that learn: `sop study bases|demonstrations|forgetting|endurance --preset ci|small`."""

import dataclasses
import types
from collections.abc import Mapping, Sequence

from configs import restock_pretrain
from configs.experiment import DemonstrationsConfig
from configs.studies import BOX, CI, FRESH_EVALUATION_SEED, SHELF
from fleet_sim.config import TimingConfig
from fleet_sim.studies.bases import BasesStudy
from fleet_sim.studies.endurance import EnduranceStudy
from fleet_sim.studies.forgetting import ForgettingStudy
from fleet_sim.studies.methods import MainResultsConfig
from fleet_sim.studies.more_demonstrations import MoreDemonstrationsStudy
from fleet_sim.studies.study import Study
from sop_jax.episodes.retention import RetentionConfig
from sop_jax.evaluation.suites import RESTOCKING, find_suite
from sop_jax.evaluation.world import WorldConfig


@dataclasses.dataclass(frozen=True)
class StudyPreset:
    """The study, and the demonstrations that the base policy was or is made from. demonstrated: the world that they are made
    in, where the fleet's is another one."""

    study: Study
    demonstrations: DemonstrationsConfig = restock_pretrain.DEMONSTRATIONS
    demonstrated: WorldConfig | None = None


_NUM_DEMONSTRATIONS = restock_pretrain.DEMONSTRATIONS.num_episodes

_SHELF_CI = dataclasses.replace(
    CI.study, evaluation_seed=FRESH_EVALUATION_SEED, duration_s=120.0, num_trials=40, curve_trials=24
)
_SHELF_SMALL = dataclasses.replace(
    SHELF.study, duration_s=600.0, num_trials=100, curve_points=4, curve_trials=40, retention_trials=0
)


def _run(study: MainResultsConfig, methods: Sequence[str], name: str, **changes: object) -> MainResultsConfig:
    return dataclasses.replace(study, name=name, methods=tuple(methods), **changes)


_ONLINE = ("pretrained", "sop_hg_dagger")
BASES = {
    "ci": BasesStudy(
        "ci",
        _run(_SHELF_CI, _ONLINE, "bases", duration_s=200.0),
        (_NUM_DEMONSTRATIONS // 8, _NUM_DEMONSTRATIONS),
        1200,  # why: after 400 steps a base policy does nothing yet
    ),
    "small": BasesStudy(
        "small",
        _run(_SHELF_SMALL, _ONLINE, "bases"),
        (_NUM_DEMONSTRATIONS // 8, _NUM_DEMONSTRATIONS // 2, _NUM_DEMONSTRATIONS),
        restock_pretrain.CONFIG.learning.learner.num_steps,
    ),
}
"""small: three bases, two training seeds; about an hour on two cores."""

_DEMONSTRATED = (*_ONLINE, "more_demonstrations")
DEMONSTRATIONS = {
    "ci": MoreDemonstrationsStudy("ci", _run(_SHELF_CI, _DEMONSTRATED, "demonstrations", duration_s=60.0), (1, 2)),
    "small": MoreDemonstrationsStudy(
        "small", _run(_SHELF_SMALL, _DEMONSTRATED, "demonstrations", duration_s=200.0, curve_points=0), (1, 2, 4)
    ),
}
"""small: up to 0.9 robot-hours, two training seeds; about an hour on two cores."""

_UNTRAINED = find_suite("retention", trained=BOX.study.tasks, image_size=BOX.study.fleet.world.image_size)
_MIXES = ("pretrained", "sop_hg_dagger", "sop_hg_dagger_fixed", "sop_hg_dagger_online_only")
FORGETTING = {
    "ci": ForgettingStudy(
        "ci",
        _run(
            _SHELF_CI,
            (*_ONLINE, _MIXES[-1]),
            "forgetting",
            curve_points=2,
            retention_trials=40,
            fleet=dataclasses.replace(
                CI.study.fleet, world=dataclasses.replace(restock_pretrain.WORLD, catalogue="pool")
            ),
        ),
        {"restock_shelf.known_goods": restock_pretrain.WORLD},
    ),
    "small": ForgettingStudy(
        "small",
        _run(BOX.study, _MIXES, "forgetting", curve_points=3, curve_trials=30, num_trials=60, retention_trials=15),
        {label: world for label, world in _UNTRAINED.items() if world.task in RESTOCKING},
    ),
}
"""ci: the shelf's policy learns goods that it hasn't seen; what becomes of those that it knows, whose demonstrations are in
the offline buffer. small: the generalist learns boxes; what becomes of its restocking. About an hour on two cores."""


def _long_run(
    hours: float, num_robots: int, steps_per_s: float = 1.0, reset_s: float = 10.0, **changes: object
) -> MainResultsConfig:
    """The shelf, at a pace that a core keeps up with; caches that are full early, so that what grows is seen."""
    fleet = dataclasses.replace(
        CI.study.fleet,
        robots={"restock_shelf": num_robots},
        timing=TimingConfig(learner_steps_per_s=steps_per_s, reset_s=reset_s),
        loader=dataclasses.replace(CI.study.fleet.loader, pixel_cache_bytes=48 << 20, arrays_cache_bytes=16 << 20),
    )
    return _run(CI.study, _ONLINE[1:], "endurance", fleet=fleet, duration_s=3600 * hours, **changes)


def _kept(max_mb: float, grace_s: float) -> RetentionConfig:
    return RetentionConfig(max_bytes=round(max_mb * 1e6), min_age_s=grace_s, grace_s=grace_s, keep_record_s=2 * grace_s)


ENDURANCE = {
    "ci": EnduranceStudy(
        "ci", _long_run(0.25, 2, curve_points=6, curve_trials=24), _kept(6.0, 30.0), 30.0, 30, num_demonstrations=24
    ),
    "small": EnduranceStudy(
        "small", _long_run(4.0, 2, curve_points=16, curve_trials=50), _kept(60.0, 120.0), 120.0, 96,
        num_demonstrations=_NUM_DEMONSTRATIONS,
    ),
    "paced": EnduranceStudy(
        "paced",
        _long_run(36.0, 4, 0.2, 30.0, curve_points=24, curve_trials=50),
        _kept(200.0, 600.0), 600.0, 144, num_demonstrations=_NUM_DEMONSTRATIONS,
    ),
    "paper": EnduranceStudy(
        "paper", _long_run(36.0, 4, curve_points=36, curve_trials=100), _kept(200.0, 600.0), 600.0, 288,
        num_demonstrations=_NUM_DEMONSTRATIONS,
    ),
}  # fmt: skip
"""ci: a quarter of an hour of two robots. small: four hours of them, an hour and a half on two cores. paced: 36 hours of
four robots whose scenes take half a minute to set, and a fifth of the learner steps. paper: without such breaks."""

LEARNING_STUDIES: Mapping[str, Mapping[str, StudyPreset]] = types.MappingProxyType(
    {
        "bases": {name: StudyPreset(study) for name, study in BASES.items()},
        "demonstrations": {name: StudyPreset(study) for name, study in DEMONSTRATIONS.items()},
        "forgetting": {
            "ci": StudyPreset(FORGETTING["ci"], demonstrated=restock_pretrain.WORLD),
            "small": StudyPreset(FORGETTING["small"], BOX.demonstrations),
        },
        "endurance": {
            name: StudyPreset(
                study, dataclasses.replace(restock_pretrain.DEMONSTRATIONS, num_episodes=study.num_demonstrations)
            )
            for name, study in ENDURANCE.items()
        },
    }
)
"""Study -> preset -> what it does."""
