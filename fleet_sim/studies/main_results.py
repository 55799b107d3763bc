"""Runs the cells of the main-results study: fleets, value function, evaluations."""

import contextlib
import dataclasses
import os
import pathlib
import shutil
from collections.abc import Callable, Iterator, Mapping
from typing import Any

from fleet_sim.config import Stage
from fleet_sim.crew import LOCAL, Engine
from fleet_sim.fleet import Progress, SimulatedFleet
from fleet_sim.journal import Journal
from fleet_sim.studies.grid import Cell, Results
from fleet_sim.studies.methods import METHODS, RECAP_BASE_CELL, VALUE_CELL, MainResultsConfig, Method, cell_name
from sop_jax.actors.trained_leaves import replace_trained, trained_template
from sop_jax.algorithms.algorithm import Phase
from sop_jax.algorithms.behaviour_cloning import BehaviourCloningConfig
from sop_jax.algorithms.registry import AlgorithmConfig, create_algorithm
from sop_jax.episodes.store import EpisodeStore
from sop_jax.evaluation.evaluate import Candidate, evaluate_worlds
from sop_jax.evaluation.suites import find_suite
from sop_jax.evaluation.trial_pool import num_usable_cores
from sop_jax.evaluation.worker import find_publication
from sop_jax.evaluation.world import WorldConfig
from sop_jax.models.bundle import PolicyBundle, load_bundle
from sop_jax.sampling.adaptive import SamplerConfig
from sop_jax.specs.conditioning import Conditioning
from sop_jax.specs.errors import ConfigError, SopError
from sop_jax.weights.follower import Follower


@dataclasses.dataclass(frozen=True)
class Places:
    """Where a study finds and leaves things: the base policy's directory, the store folder of its demonstrations, where the
    value function goes; how many workers play episodes (0 = one per core that there is), and on which engine the fleets'
    episodes are played. Evaluations run on this machine. num_demonstrations: that a fleet begins with, the first of them;
    None: all."""

    policy: pathlib.Path
    demonstrations: pathlib.Path
    value: pathlib.Path
    num_workers: int
    engine: Engine = LOCAL
    num_demonstrations: int | None = None

    @property
    def recap_base(self) -> pathlib.Path:
        """Where the base policy of RECAP's methods goes."""
        return self.value.with_name("recap_base")


TrainValueFunction = Callable[[pathlib.Path, pathlib.Path], None]
"""(folder of an episode store, directory that the value function goes to)."""


class NothingLearntError(SopError):
    """A method's fleet ended with the policy that it began with."""


class MainResults:
    """Runs the study's cells; see `grid.Grid`."""

    def __init__(
        self,
        config: MainResultsConfig,
        places: Places,
        train_value_function: TrainValueFunction,
        on_progress: Callable[[str], None] = lambda text: None,
        should_stop: Callable[[], bool] = lambda: False,
        retained: Mapping[str, WorldConfig] | None = None,
    ):
        """`retained`: worlds in which retention is looked at, also wherever a curve has a point; None: all of the retention
        suite, before and after only."""
        self._config = config
        self._places = places
        self._train_value_function = train_value_function
        self._on_progress = on_progress
        self._should_stop = should_stop
        self._retained = retained

    def run_cell(self, cell: Cell, work: pathlib.Path, results: Results) -> Mapping[str, Any]:
        """One cell's result, JSON-able. Raises KeyboardInterrupt."""
        if cell.name == VALUE_CELL:
            return self._make_value_function(work)
        if cell.name == RECAP_BASE_CELL:
            return {**self._make_recap_base(work), "evaluation": self.evaluate(self._told_base())}
        name, _, seed = cell.name.rpartition("-")
        method = METHODS[name]
        if method.way == "none":
            candidate = Candidate(str(self._places.policy))
            return {"evaluation": self.evaluate(candidate), **self._retention(candidate)}
        twin = results.get(cell_name(method.twin, int(seed)))
        return self._train(method, int(seed), work, twin)

    @contextlib.contextmanager
    def fleet(
        self, work: pathlib.Path, algorithm: AlgorithmConfig, seed: int, sampler: SamplerConfig, policy: pathlib.Path
    ) -> Iterator[SimulatedFleet]:
        """A fleet of the study's, with the demonstrations in its store."""
        link_episodes(self._places.demonstrations, work / "store", self._places.num_demonstrations)
        config = dataclasses.replace(self._config.fleet, algorithm=algorithm, seed=seed, sampler=sampler)
        fleet = SimulatedFleet(
            config, load_bundle(policy), policy, create_algorithm(algorithm), work, self._places.num_workers,
            on_progress=self._watch, engine=self._places.engine, base_is_told=policy == self._places.recap_base,
        )  # fmt: skip
        try:
            yield fleet
        finally:
            fleet.close()

    def _train(self, method: Method, seed: int, work: pathlib.Path, twin: Mapping[str, Any] | None) -> dict[str, Any]:
        config, points = self._config, self._config.curve_points
        algorithm, policy = self._algorithm(method), self._base_of(method)
        with self.fleet(work, algorithm, seed, self.sampler_of(method), policy) as fleet:
            if method.way == "online":
                fleet.keep_versions_at([config.duration_s * (n + 1) / points for n in range(points)])
            for stage in self.stages_of(method, twin):
                fleet.run(stage)
            versions = fleet.kept_versions()
            journal = fleet.journal()
        if not journal.last_version:
            raise NothingLearntError(
                f"{method.label}, training seed {seed}: the learner took no step in {config.duration_s:g} s of the fleet's "
                f"time, with {len(journal.episodes)} episodes, so the base policy would be judged. Did any of them teach?"
            )
        conditioning = create_algorithm(algorithm).conditioning(Phase.EVALUATING)

        def candidate(version: int) -> Candidate:
            if not version:
                told = conditioning if policy == self._places.recap_base else Conditioning()
                return Candidate(str(policy), conditioning=told)
            return Candidate(str(policy), _url(work), version, conditioning)

        last = candidate(journal.last_version)
        return {
            "evaluation": self.evaluate(last),
            "fleet": summarise_fleet(journal),
            "curve": [
                {
                    "time_s": time_s,
                    "version": version,
                    "evaluation": self.evaluate(candidate(version), selection=True),
                    **({} if self._retained is None else self._retention(candidate(version))),
                }
                for time_s, version in versions.items()
            ],
            **(self._retention(last) if method.way == "online" and self._retained is None else {}),
        }

    def stages_of(self, method: Method, twin: Mapping[str, Any] | None) -> list[Stage]:
        """What the fleet does; `twin` is the result of the method's twin."""
        config = self._config
        steps = round(config.duration_s * config.fleet.timing.learner_steps_per_s)
        if method.way == "online":
            return [Stage(config.duration_s, learner_steps=steps)]
        spent = twin["fleet"] if twin is not None else {"learner_steps": steps, "human_s": None}
        if method.way == "demonstrations":
            return [Stage(config.duration_s, robots="expert", then_steps=spent["learner_steps"])]
        rounds = config.num_rounds
        steps_each = [
            spent["learner_steps"] * (n + 1) // rounds - spent["learner_steps"] * n // rounds for n in range(rounds)
        ]
        human_s = [None if spent["human_s"] is None else spent["human_s"] * (n + 1) / rounds for n in range(rounds)]
        # Finishing but for the last, so that rounds lose what is under way once, as the online twin does.
        return [
            Stage(config.duration_s / rounds, then_steps=steps, human_total_s=total_s, finishes=n + 1 < rounds)
            for n, (steps, total_s) in enumerate(zip(steps_each, human_s, strict=True))
        ]

    def _algorithm(self, method: Method) -> AlgorithmConfig:
        if method.algorithm == "recap":
            return dataclasses.replace(self._config.recap, value_function=str(self._places.value))
        return self._config.hg_dagger if method.algorithm == "hg_dagger" else BehaviourCloningConfig()

    def sampler_of(self, method: Method) -> SamplerConfig:
        """How the learner mixes."""
        sampler = self._config.fleet.sampler
        if method.way == "demonstrations":
            return dataclasses.replace(sampler, mode="fixed", fixed_online_share=0.0)
        if method.sampler == "fixed":
            return dataclasses.replace(sampler, mode="fixed", fixed_online_share=0.5)
        if method.sampler == "online_only":
            return dataclasses.replace(sampler, mode="fixed", fixed_online_share=1.0)
        if method.sampler == "task_proportional":
            return dataclasses.replace(sampler, task_weights=frames_by_task(self._places.demonstrations))
        return sampler

    def _make_value_function(self, work: pathlib.Path) -> dict[str, Any]:
        """The base policy works unhelped for a while; its episodes and the demonstrations teach the value function."""
        config = self._config
        with self.fleet(work, BehaviourCloningConfig(), 10_000, config.fleet.sampler, self._places.policy) as fleet:
            fleet.run(Stage(config.value_rollouts_s, human_total_s=0.0))
            journal = fleet.journal()
        shutil.rmtree(self._places.value, ignore_errors=True)
        self._train_value_function(work / "store", self._places.value)
        return {"fleet": summarise_fleet(journal)}

    def _make_recap_base(self, work: pathlib.Path) -> dict[str, Any]:
        """The base policy learns from demonstrations what RECAP's prompt means."""
        sampler = dataclasses.replace(self._config.fleet.sampler, mode="fixed", fixed_online_share=0.0)
        algorithm = self._algorithm(METHODS["sop_recap"])
        with self.fleet(work, algorithm, 10_001, sampler, self._places.policy) as fleet:
            fleet.run(Stage(0.0, then_steps=self._config.recap_base_steps))
            journal = fleet.journal()
        store, base = _url(work), load_bundle(self._places.policy)
        publication = find_publication(Candidate(str(self._places.policy), store, journal.last_version))
        follower = Follower(store, base.fingerprint, base.norm.fingerprint)
        learnt = follower.load(publication, trained_template(base.model, base.params))
        shutil.rmtree(self._places.recap_base, ignore_errors=True)
        replaced = replace_trained(base.model, base.params, learnt, journal.last_version)
        PolicyBundle(base.config, replaced, base.norm).save(self._places.recap_base)
        return {"fleet": summarise_fleet(journal)}

    def _told_base(self) -> Candidate:
        """RECAP's base, told what its methods' policies are told: it has learnt the words."""
        conditioning = create_algorithm(self._algorithm(METHODS["sop_recap"])).conditioning(Phase.EVALUATING)
        return Candidate(str(self._places.recap_base), conditioning=conditioning)

    def _base_of(self, method: Method) -> pathlib.Path:
        """The policy that a method starts from."""
        has_own = method.algorithm == "recap" and self._config.recap_base_steps
        return self._places.recap_base if has_own else self._places.policy

    def evaluate(self, candidate: Candidate, selection: bool = False) -> dict[str, Any]:
        """On reserved seeds, or on those that are kept for curves and choices."""
        config = self._config
        worlds = {task: config.fleet.world_of(task) for task in config.tasks}
        return self._run_trials(
            candidate, worlds, config.curve_trials if selection else config.num_trials, selection=selection
        )

    def _retention(self, candidate: Candidate) -> dict[str, Any]:
        if not self._config.retention_trials:
            return {}
        worlds = self._retained or find_suite(
            "retention", trained=self._config.tasks, image_size=self._config.fleet.world.image_size
        )
        return {"retention": self._run_trials(candidate, worlds, self._config.retention_trials)}

    def _run_trials(
        self, candidate: Candidate, worlds: Mapping[str, Any], num_trials: int, selection: bool = False
    ) -> dict[str, Any]:
        num_done = 0

        def on_trial(label: str, trial: Any) -> None:
            nonlocal num_done
            del trial
            num_done += 1
            self._on_progress(f"evaluation {num_done} of {num_trials * len(worlds)} ({label})")

        found = evaluate_worlds(
            candidate,
            worlds,
            num_trials,
            self._config.evaluation_seed,
            rollout=self._config.fleet.rollout,
            num_workers=self._places.num_workers or num_usable_cores(),
            for_selection=selection,
            on_trial=on_trial,
            should_stop=self._should_stop,
        )
        return {
            label: {
                "result": dataclasses.asdict(evaluated.result),
                "trials": [dataclasses.asdict(trial) for trial in evaluated.trials],
            }
            for label, evaluated in found.items()
        }

    def _watch(self, progress: Progress) -> None:
        if self._should_stop():
            raise KeyboardInterrupt
        self._on_progress(
            f"{progress.virtual_s / 60:.1f} robot minutes, {progress.num_episodes} episodes, step "
            f"{progress.learner_step}, version {progress.version}"
        )


def summarise_fleet(journal: Journal) -> dict[str, Any]:
    """A journal's sums, JSON-able."""
    return {
        "robot_hours": journal.robot_hours,
        "human_s": 60 * journal.human_minutes,
        "learner_steps": journal.learner_steps,
        "num_publications": journal.last_version,
        "median_staleness_s": journal.median_staleness_s,
        "online_share": journal.online_share,
        "tasks": {task: dataclasses.asdict(totals) for task, totals in journal.totals().items()},
    }


def link_episodes(source: pathlib.Path, target: pathlib.Path, num_first: int | None = None) -> None:
    """The same episodes in another store: hard links, for they never change.

    num_first: only so many, shared out evenly and the first of each robot: those that a collection of this number would
        have made. Raises ConfigError if there are fewer.
    """
    folders = sorted((source / "episodes").iterdir(), key=_robot_and_number)
    for place, folder in enumerate(folders):
        if num_first is None:
            shutil.copytree(folder, target / "episodes" / folder.name, copy_function=_link)
            continue
        share = num_first // len(folders) + (place < num_first % len(folders))
        paths = sorted(folder.iterdir())
        if len(paths) < share:
            raise ConfigError(f"{folder} holds {len(paths)} demonstrations, expected at least {share}: collect more")
        (target / "episodes" / folder.name).mkdir(parents=True)
        for path in paths[:share]:
            _link(str(path), str(target / "episodes" / folder.name / path.name))


def _robot_and_number(folder: pathlib.Path) -> tuple[str, int]:
    """In the order of the collectors: demonstrator-10 comes after demonstrator-2."""
    name, _, number = folder.name.rpartition("-")
    return (name, int(number)) if number.isdecimal() else (folder.name, 0)


def frames_by_task(store: pathlib.Path) -> dict[str, float]:
    """Frames of the demonstrations of each task."""
    frames: dict[str, float] = {}
    for summary in EpisodeStore(f"file://{store.absolute()}/").summaries():
        if summary.manifest is not None:
            frames[summary.manifest.task] = frames.get(summary.manifest.task, 0.0) + summary.manifest.num_frames
    return frames


def _url(work: pathlib.Path) -> str:
    return f"file://{(work / 'store').absolute()}/"


def _link(source: str, target: str) -> None:
    try:
        os.link(source, target)
    except OSError:  # another file system
        shutil.copy2(source, target)
