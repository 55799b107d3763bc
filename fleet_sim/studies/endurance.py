"""The long run: one fleet learns on and on, while its store and its tables are kept small.

Looks at evenly spaced times say what the process and the disk hold; at some of them the policy is copied out of the store
(pinned there, it would be what grows), and evaluated afterwards on selection seeds. The run itself is one cell: memory means
nothing across two processes.
"""

import dataclasses
import pathlib
import shutil
from collections.abc import Mapping
from typing import Any

from fleet_sim.config import Stage
from fleet_sim.resources import measure
from fleet_sim.studies.endurance_analysis import HOUR_S, analyse_endurance
from fleet_sim.studies.endurance_report import report_endurance
from fleet_sim.studies.grid import Cell, Results, RunCell
from fleet_sim.studies.main_results import summarise_fleet
from fleet_sim.studies.methods import MainResultsConfig
from fleet_sim.studies.study import Report, Workshop
from sop_jax.algorithms.algorithm import Phase
from sop_jax.algorithms.registry import create_algorithm
from sop_jax.episodes.retention import RetentionConfig
from sop_jax.evaluation.evaluate import Candidate
from sop_jax.specs.errors import ConfigError

_KEPT = "kept"
"""In the study's folder: the policies that the run copied out of its store, for the evaluations. It appears whole."""


@dataclasses.dataclass(frozen=True)
class EnduranceStudy:
    """Implements Study. methods: the run, of one task; its curve's points are when success is measured.

    retention, retain_every_s: of the store, by virtual time. num_looks: at the resources; a multiple of the curve's points.
    num_demonstrations: in the store at the start.
    """

    name: str
    methods: MainResultsConfig
    retention: RetentionConfig
    retain_every_s: float
    num_looks: int
    num_demonstrations: int

    def __post_init__(self) -> None:
        points = self.methods.curve_points
        if points < 4 or self.num_looks % points or not self.retain_every_s > 0 or self.num_demonstrations < 1:
            raise ConfigError(
                f"EnduranceStudy {self.name}: expected at least 4 curve_points, num_looks a multiple of them, and positive "
                f"retain_every_s and num_demonstrations, got {points}, {self.num_looks}, {self.retain_every_s}, "
                f"{self.num_demonstrations}"
            )

    @property
    def kind(self) -> str:
        return "endurance"

    def cells(self) -> list[Cell]:
        """The run, then an evaluation of the base policy (0) and at each point."""
        at = [Cell(f"at-{point}", "evaluation", ("run",), cost=0.1) for point in range(self.methods.curve_points + 1)]
        return [Cell("run", "run", leaves=(_KEPT,)), *at]

    def runner(self, workshop: Workshop) -> RunCell:
        def run_cell(cell: Cell, work: pathlib.Path, results: Results) -> Mapping[str, Any]:
            kept = workshop.folder / _KEPT
            if cell.name == "run":
                return self._run(workshop, work, kept)
            point = int(cell.name.removeprefix("at-"))
            time_s = self.methods.duration_s * point / self.methods.curve_points
            version = results["run"]["versions"][point]
            policy = str(workshop.find_policy(self.methods.policy))
            told = create_algorithm(self.methods.hg_dagger).conditioning(Phase.EVALUATING)
            candidate = Candidate(policy, f"file://{kept.absolute()}/", version, told) if version else Candidate(policy)
            evaluation = workshop.methods(self.methods).evaluate(candidate, selection=True)
            return {"time_s": time_s, "version": version, "evaluation": evaluation}

        return run_cell

    def _run(self, workshop: Workshop, work: pathlib.Path, kept: pathlib.Path) -> dict[str, Any]:
        study, looks, versions = self.methods, [], [0]
        are_children = workshop.engine.kind == "local"
        draft = kept.with_name(f"{_KEPT}.draft")
        for old in (draft, kept):
            shutil.rmtree(old, ignore_errors=True)
        draft.mkdir()
        methods = workshop.methods(study, num_demonstrations=self.num_demonstrations)
        policy = workshop.find_policy(study.policy)
        with methods.fleet(work, study.hg_dagger, 0, study.fleet.sampler, policy) as fleet:

            def look(time_s: float) -> None:
                looks.append(dataclasses.asdict(measure(time_s, work, fleet.table_sizes(), are_children)))

            def keep(time_s: float) -> None:
                versions.append(version := fleet.version_at(time_s))
                place = pathlib.Path("weights") / f"{version:08d}"
                if version and not (draft / place).exists():
                    shutil.copytree(work / "store" / place, draft / place)

            ends_s = study.duration_s
            fleet.keep_store_small(self.retention, self.retain_every_s)
            fleet.at([ends_s * n / study.curve_points for n in range(1, study.curve_points + 1)], keep)
            fleet.at([ends_s * n / self.num_looks for n in range(1, self.num_looks + 1)], look)
            fleet.run(
                Stage(study.duration_s, learner_steps=round(study.duration_s * study.fleet.timing.learner_steps_per_s))
            )
            journal = fleet.journal()
        draft.rename(kept)
        return {"fleet": summarise_fleet(journal), "versions": versions, "looks": looks}

    def report(self, results: Results) -> Report:
        return report_endurance(self.name, self._lead(), self.methods, analyse_endurance(self.methods, results))

    def _lead(self) -> str:
        methods = self.methods
        kept = "any size" if self.retention.max_bytes is None else f"{self.retention.max_bytes / 1e6:.0f} MB"
        return (
            f"{methods.fleet.num_robots} robots learn {methods.tasks[0]} for {methods.duration_s / HOUR_S:.2f} h of their "
            f"time without a break, from {self.num_demonstrations} demonstrations; retention leaves {kept} of episodes of "
            f"each source, every {self.retain_every_s:g} s. {methods.curve_trials} selection trials at each of "
            f"{methods.curve_points} times, one run."
        )
