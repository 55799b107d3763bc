"""Presets of the studies: `sop study main-results --preset ci|shelf|box|pair|small|long|ablations|paper`."""

import dataclasses
import types
from collections.abc import Mapping

from configs import generalist, restock_demo, restock_pretrain
from configs.experiment import DemonstrationsConfig
from fleet_sim.config import SimulatedFleetConfig, TimingConfig
from fleet_sim.studies.methods import MainResultsConfig
from sop_jax.algorithms.hg_dagger import HgDaggerConfig
from sop_jax.evaluation.world import WorldConfig


@dataclasses.dataclass(frozen=True)
class MainResultsPreset:
    """The study, and the demonstrations in its offline buffer: those that its base policy was made from (same seed, same
    number, same bytes), but for `box`, which has 200 others of the same expert.

    demonstrated: the world that they were made in, where the fleet's is another one.
    """

    study: MainResultsConfig
    demonstrations: DemonstrationsConfig
    demonstrated: WorldConfig | None = None

    def demonstrations_of(self, task: str) -> DemonstrationsConfig:
        """Of one of the study's tasks."""
        return self.demonstrations.for_task(task) if len(self.study.tasks) > 1 else self.demonstrations

    def demonstrated_of(self, task: str) -> WorldConfig:
        """The world of one task's demonstrations."""
        return self.study.fleet.world_of(task) if self.demonstrated is None else self.demonstrated.for_task(task)


MAIN_METHODS = (
    "pretrained",
    "sop_hg_dagger",
    "offline_hg_dagger",
    "sop_recap",
    "offline_recap",
    "more_demonstrations",
)
ABLATIONS = (
    "pretrained",
    "sop_hg_dagger",
    "sop_hg_dagger_fixed",
    "sop_hg_dagger_online_only",
    "sop_hg_dagger_task_proportional",
)

FRESH_EVALUATION_SEED = 2
"""Of `shelf` and the sweeps and studies around it, whose choices were made after seeing results on the default one."""
MAIN_EVALUATION_SEED = 5
"""Of the studies of several kinds of work: the base policy, the sizes and RECAP were changed after seeing results on the
others."""
LONG_EVALUATION_SEED = 6
"""Of `long`, which was made after seeing that the box gained nothing in the quarter of an hour of `small`."""

CI = MainResultsPreset(
    MainResultsConfig(
        name="ci",
        policy="assets/policies/restock_compact",
        fleet=SimulatedFleetConfig(
            robots={"restock_shelf": 4},
            algorithm=HgDaggerConfig(),
            world=restock_pretrain.WORLD,
            timing=TimingConfig(learner_steps_per_s=3.0),
            learner=restock_demo.CONFIG.learning.learner,
        ),
        methods=("pretrained", "sop_hg_dagger", "offline_hg_dagger"),
        duration_s=300.0,
        num_trials=80,
    ),
    restock_pretrain.DEMONSTRATIONS,
)
"""The shelf alone, with the demo's base policy: what a change to the system breaks shows here within minutes."""

SHELF = dataclasses.replace(
    CI,
    study=dataclasses.replace(
        CI.study,
        name="shelf",
        methods=MAIN_METHODS,
        training_seeds=2,
        duration_s=600.0,
        num_trials=100,
        evaluation_seed=FRESH_EVALUATION_SEED,
        curve_points=4,
        curve_trials=40,
        retention_trials=20,
        recap_base_steps=1000,
    ),
)
"""The shelf alone, with every method: two hours on two cores."""

SMALL = MainResultsPreset(
    MainResultsConfig(
        name="small",
        policy="assets/policies/generalist_few",
        fleet=SimulatedFleetConfig(
            robots={"restock_shelf": 4, "laundry_fold": 3, "box_assembly": 3},
            algorithm=HgDaggerConfig(),
            world=WorldConfig(image_size=64),
            # why: the steps are shared out among the tasks; at 5 the box got too few to gain anything
            timing=TimingConfig(learner_steps_per_s=12.0),
            # why: at the demo's rate the box forgets within minutes what the base policy knows
            learner=dataclasses.replace(restock_demo.CONFIG.learning.learner, learning_rate=5e-4),
        ),
        methods=MAIN_METHODS,
        training_seeds=2,
        duration_s=900.0,
        evaluation_seed=MAIN_EVALUATION_SEED,
        num_trials=50,  # of each task; a T-shirt that isn't folded costs ten seconds of a core
        curve_points=0,
        retention_trials=0,
        value_rollouts_s=900.0,  # why: in 300 s the base policy fails too seldom beside a thousand demonstrations a task
        value_steps=900,
        recap_base_steps=2000,
    ),
    generalist.FEW.demonstrations,
)
"""All three kinds of work, robots shared out as in the paper's runs with ten; four hours on two cores. The learner's
speed was chosen with `pair`, on other evaluation seeds."""

LONG = dataclasses.replace(
    SMALL,
    study=dataclasses.replace(
        SMALL.study,
        name="long",
        methods=("pretrained", "sop_hg_dagger", "offline_hg_dagger"),
        duration_s=2700.0,
        evaluation_seed=LONG_EVALUATION_SEED,
        curve_points=3,
        curve_trials=40,
    ),
)
"""`small` for three times as long, HG-DAgger online and in rounds: an hour a cell on two cores."""

BOX = MainResultsPreset(
    dataclasses.replace(
        SMALL.study,
        name="box",
        policy="assets/policies/generalist_compact",
        fleet=dataclasses.replace(
            SMALL.study.fleet,
            robots={"box_assembly": 4},
            timing=dataclasses.replace(SMALL.study.fleet.timing, learner_steps_per_s=4.0),
        ),
        methods=("pretrained", "sop_hg_dagger", "offline_hg_dagger"),
        training_seeds=1,
        num_trials=100,
        curve_points=3,
        curve_trials=32,
        retention_trials=0,
    ),
    DemonstrationsConfig(num_episodes=200, num_collectors=2, seed=0),
)
"""The box alone, from `generalist_compact`: half an hour on two cores."""

PAIR = MainResultsPreset(
    dataclasses.replace(
        SMALL.study,
        name="pair",
        policy="assets/policies/generalist_compact",
        fleet=dataclasses.replace(
            SMALL.study.fleet,
            robots={"restock_shelf": 4, "box_assembly": 3},
            world=WorldConfig(image_size=64, catalogue="pool"),
        ),
        methods=("pretrained", "sop_hg_dagger", "offline_hg_dagger", "sop_recap", "offline_recap"),
        num_trials=100,
    ),
    generalist.PRETRAIN.demonstrations,
    demonstrated=WorldConfig(image_size=64),
)
"""Two kinds of work, one policy, from `generalist_compact`: boxes, and goods that no demonstration showed. Two and a half
hours on two cores."""

ABLATION = dataclasses.replace(
    SMALL,
    study=dataclasses.replace(SMALL.study, name="ablations", methods=ABLATIONS),
)
"""What the sampler is worth."""

PAPER = dataclasses.replace(
    SMALL,
    study=dataclasses.replace(
        SMALL.study,
        name="paper",
        methods=(*MAIN_METHODS, *ABLATIONS[2:]),
        training_seeds=5,
        duration_s=3 * 3600.0,
        num_trials=200,
        curve_points=18,
        curve_trials=100,
        retention_trials=100,
        value_rollouts_s=1200.0,
        value_steps=3000,
    ),
)
"""The paper's 180 minutes, with more seeds and trials than it had; for a machine with an accelerator and 16 cores."""

MAIN_RESULTS: Mapping[str, MainResultsPreset] = types.MappingProxyType(
    {preset.study.name: preset for preset in (CI, SHELF, BOX, PAIR, SMALL, LONG, ABLATION, PAPER)}
)
