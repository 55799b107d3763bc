"""The phases of `sop demo`, each done once per run however often the run is stopped and taken up."""

import dataclasses
import sys
from collections.abc import Callable, Mapping
from typing import Any

from configs.experiment import DemoConfig
from sop_jax.algorithms.algorithm import Phase
from sop_jax.algorithms.registry import create_algorithm
from sop_jax.cli.collection import collect
from sop_jax.cli.doctor import describe as describe_check
from sop_jax.cli.eval import describe as describe_result
from sop_jax.cli.eval import evaluate_with_progress
from sop_jax.cli.fleet_loop import LoopProgress, run_loop
from sop_jax.cli.locations import find_policy
from sop_jax.cli.machine import check_machine
from sop_jax.cli.output import note, say
from sop_jax.cli.processes import ProcessGroup, ProcessSpec
from sop_jax.cli.run_directory import RunDirectory
from sop_jax.evaluation.evaluate import Candidate
from sop_jax.evaluation.results import EvaluationResult
from sop_jax.evaluation.run_metrics import write_json
from sop_jax.specs.clock import Clock
from sop_jax.specs.errors import MissingDependencyError, SopError
from sop_jax.weights.management import current_version

PREFLIGHT, DEMONSTRATIONS, BEFORE, LOOP, AFTER, CONTROL = (
    "preflight", "demonstrations", "before", "loop", "after", "control",
)  # fmt: skip
PHASES = (PREFLIGHT, DEMONSTRATIONS, BEFORE, LOOP, AFTER, CONTROL)
_LOOP_SO_FAR = "loop_so_far"
"""Beside the phases' files while the loop isn't over: what it goes on from."""
_POLL_S = 0.5


class ControlFailedError(SopError):
    """The control's learner died again and again."""


class DemoPhases:
    """Runs the phases of one run in order, skipping those that have left their file.

    A request to stop raises KeyboardInterrupt between two phases, or out of one, with every process stopped.
    """

    def __init__(self, config: DemoConfig, run: RunDirectory, clock: Clock, should_stop: Callable[[], bool]):
        self._config = config
        self._run = run
        self._clock = clock
        self._should_stop = should_stop

    def run_all(self, control: bool, preflight: bool) -> None:
        if preflight:
            self._once(PREFLIGHT, "checking this machine", self._preflight)
        self._once(DEMONSTRATIONS, "demonstrations for the offline buffer", self._demonstrations)
        self._once(BEFORE, "evaluating the base policy", lambda: self._evaluate(Candidate(bundle=self._policy)))
        self._once(LOOP, "the fleet works and learns", self._loop)
        self._run.phase(_LOOP_SO_FAR).unlink(missing_ok=True)
        self._once(AFTER, "evaluating what was learnt", self._evaluate_after)
        if control:
            self._once(CONTROL, "control: the same steps on demonstrations alone", self._control)

    @property
    def _policy(self) -> str:
        return str(find_policy(self._config.policy))

    def _once(self, name: str, what: str, phase: Callable[[], Mapping[str, Any]]) -> None:
        if self._should_stop():
            raise KeyboardInterrupt
        if self._run.read_phase(name) is not None:
            note(f"{what}: done before")
            return
        note(f"{what} ...")
        started_ns = self._clock.now_ns()
        result = phase()
        self._run.finish_phase(name, {"elapsed_s": (self._clock.now_ns() - started_ns) / 1e9, **result})

    def _preflight(self) -> dict[str, Any]:
        checks = check_machine(self._run.root)
        for check in checks:
            if not check.ok:
                note(describe_check(check))
        missing = [check for check in checks if check.needed and not check.ok]
        if missing:
            fixes = "; ".join(f"{check.name}: {check.fix}" for check in missing)
            raise MissingDependencyError(f"this machine lacks what the demo needs. {fixes}")
        return {"checks": [dataclasses.asdict(check) for check in checks]}

    def _demonstrations(self) -> dict[str, Any]:
        num = collect(
            self._config.demonstrations, self._config.world, self._run.root / "store", self._run.root / "logs",
            self._should_stop,
        )  # fmt: skip
        return {"num_episodes": num}

    def _evaluate(self, candidate: Candidate) -> dict[str, Any]:
        evaluation = self._config.evaluation
        result = evaluate_with_progress(
            candidate.name, candidate, self._config.world, evaluation.num_trials, evaluation.seed,
            rollout=evaluation.rollout, num_workers=evaluation.num_workers, reset_s=evaluation.reset_s,
            should_stop=self._should_stop,
        )  # fmt: skip
        say(describe_result(result))
        return {"result": dataclasses.asdict(result)}

    def _loop(self) -> dict[str, Any]:
        end = run_loop(
            self._config, self._run, self._clock, self._should_stop, self._loop_so_far(), self._keep_loop_so_far
        )
        if not end.finished:
            raise KeyboardInterrupt
        return {
            **dataclasses.asdict(end.progress),
            "learner_step": end.learner_step,
            "version": current_version(self._run.store_url) or 0,
        }

    def _loop_so_far(self) -> LoopProgress:
        left = self._run.read_phase(_LOOP_SO_FAR) or {}
        return LoopProgress(**{**left, "notes": tuple(left.get("notes", ()))})

    def _keep_loop_so_far(self, progress: LoopProgress) -> None:
        write_json(self._run.phase(_LOOP_SO_FAR), dataclasses.asdict(progress))

    def _evaluate_after(self) -> dict[str, Any]:
        loop = self._run.read_phase(LOOP) or {}
        return self._evaluate(self._published(self._run.store_url, loop.get("version", 0)))

    def _control(self) -> dict[str, Any]:
        """As many steps as the loop took, with the same config, from the same base, without online data."""
        steps = (self._run.read_phase(LOOP) or {}).get("learner_step", 0)
        if steps > 0:
            self._learn_on_demonstrations(steps)
        version = current_version(self._run.control_store_url) or 0 if steps > 0 else 0
        return {"learner_step": steps, **self._evaluate(self._published(self._run.control_store_url, version))}

    def _learn_on_demonstrations(self, steps: int) -> None:
        run, name = self._run, "control-learner"
        command = [
            sys.executable, "-m", "sop_jax.cli.main", "learn", "--config", str(run.config), "--store", run.store_url,
            "--replay", "local", "--demonstrations-only", "--publish-to", run.control_store_url, "--steps", str(steps),
            "--checkpoints", str(run.checkpoints("control")), "--metrics", str(run.control_metrics),
        ]  # fmt: skip
        with ProcessGroup(self._clock) as group:
            group.start(ProcessSpec(name, command, run.log(name), max_restarts=self._config.max_restarts))
            while not group.finished(name):
                for event in group.poll():
                    note(event.text)
                    if not event.restarted:
                        raise ControlFailedError(event.text)
                if self._should_stop():
                    raise KeyboardInterrupt
                group.wait(_POLL_S)

    def _published(self, store: str, version: int) -> Candidate:
        """What was learnt, told what its algorithm tells it; the base policy, bare, if nothing was published."""
        if not version:
            return Candidate(bundle=self._policy)
        conditioning = create_algorithm(self._config.learning.algorithm).conditioning(Phase.EVALUATING)
        return Candidate(self._policy, store, version, conditioning)


def read_result(run: RunDirectory, phase: str) -> EvaluationResult | None:
    """The evaluation that a phase left, or None."""
    left = run.read_phase(phase)
    return None if left is None else EvaluationResult.from_json(left["result"])
