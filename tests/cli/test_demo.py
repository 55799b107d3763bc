"""The demo's phases and results, with the work of the phases replaced; the real ones are tested by their own stations."""

import dataclasses
import json

import numpy as np
import pytest

from configs.files import to_json
from configs.registry import DEMOS
from sop_jax.actors.episode import TrialResult
from sop_jax.cli import demo, demo_phases, demo_results
from sop_jax.cli.act import ActArguments
from sop_jax.cli.arguments import UsageError, parse
from sop_jax.cli.demo_phases import DemoPhases
from sop_jax.cli.demo_results import UnfinishedRunError, find_control, finish
from sop_jax.cli.fleet_loop import LoopBrokenError, LoopEnd, LoopProgress, process_specs
from sop_jax.cli.learn import LearnArguments
from sop_jax.cli.locations import find_in_repository
from sop_jax.cli.main import BAD_INPUT, INTERRUPTED, main
from sop_jax.cli.replay import ReplayArguments
from sop_jax.cli.run_directory import RunDirectory, RunStart
from sop_jax.episodes.store import EpisodeStore
from sop_jax.episodes.synthetic import make_episode
from sop_jax.evaluation.provenance import Provenance
from sop_jax.evaluation.results import EvaluationResult, Subject, summarise
from sop_jax.specs.clock import ManualClock
from sop_jax.specs.metrics import JsonlMetrics
from sop_jax.specs.records import Outcome

CONFIG = DEMOS["restock_tiny"]
MACHINE = Provenance("2026-01-02T03:04:05+00:00", "two cores, 1 x NVIDIA H100", "Linux", {"sop-jax": "0.1.0"})


def result(num_successes, num_trials=120, version=0, base="fingerprint", **options):
    trials = [
        TrialResult(i, Outcome.SUCCESS if i < num_successes else Outcome.TIMEOUT, "", 120, 4.0)
        for i in range(num_trials)
    ]
    return summarise(Subject("restock_shelf", f"version {version}", version, base), trials, **{"seed": 0, **options})


@pytest.fixture
def policy(tmp_path):
    directory = tmp_path / "policy"
    directory.mkdir()
    (directory / "policy.json").write_text("{}")
    return str(directory)


@pytest.fixture
def run(tmp_path):
    directory = RunDirectory(tmp_path / "run")
    directory.create(CONFIG)
    return directory


class Work:
    """Stands in for what the phases do, and writes down what was asked of it."""

    def __init__(self, monkeypatch, loop_ends=(True,)):
        self.done = []
        self.loop_ends = list(loop_ends)
        self.stop = False
        monkeypatch.setattr(demo_phases, "collect", self.collect)
        monkeypatch.setattr(demo_phases, "evaluate_with_progress", self.evaluate)
        monkeypatch.setattr(demo_phases, "run_loop", self.loop)
        monkeypatch.setattr(demo_phases, "current_version", lambda url: 7)

    def collect(self, *arguments):
        self.done.append("collect")
        return 4

    def evaluate(self, name, candidate, *arguments, **options):
        self.done.append(f"evaluate {candidate.version}")
        return result(60 + candidate.version, version=candidate.version)

    def loop(self, config, run, clock, should_stop, so_far, keep):
        """True: the loop is over. False: it was stopped. An error: it broke, with that error."""
        end = self.loop_ends.pop(0)
        self.done.append(f"loop after {so_far.elapsed_s:g} s")
        notes = (*so_far.notes, f"note {len(self.done)}")
        progress = LoopProgress(so_far.elapsed_s + 30.0, so_far.num_restarts + 1, notes)
        keep(progress)
        if isinstance(end, Exception):
            raise end
        self.stop = not end
        return LoopEnd(end, 500, progress)


def _phases(run, policy, work) -> DemoPhases:
    return DemoPhases(dataclasses.replace(CONFIG, policy=policy), run, ManualClock(), lambda: work.stop)


def test_phases_run_in_order_and_once(run, policy, monkeypatch):
    work = Work(monkeypatch)
    _phases(run, policy, work).run_all(control=False, preflight=False)
    assert work.done == ["collect", "evaluate 0", "loop after 0 s", "evaluate 7"]
    assert run.read_phase("loop")["learner_step"] == 500
    assert demo_phases.read_result(run, "after").num_successes == 67
    _phases(run, policy, work).run_all(control=False, preflight=False)
    assert len(work.done) == 4


def test_a_stopped_loop_is_taken_up_where_it_was(run, policy, monkeypatch):
    work = Work(monkeypatch, loop_ends=(False, True))
    with pytest.raises(KeyboardInterrupt):
        _phases(run, policy, work).run_all(control=False, preflight=False)
    assert run.read_phase("loop") is None
    work.stop = False
    _phases(run, policy, work).run_all(control=False, preflight=False)
    assert work.done == ["collect", "evaluate 0", "loop after 0 s", "loop after 30 s", "evaluate 7"]
    loop = run.read_phase("loop")
    assert (loop["elapsed_s"], loop["num_restarts"], loop["notes"]) == (60.0, 2, ["note 3", "note 4"])
    assert sorted(path.stem for path in run.phase("loop").parent.iterdir()) == [
        "after",
        "before",
        "demonstrations",
        "loop",
    ]


def test_a_loop_that_broke_keeps_its_time_notes_and_restarts(run, policy, monkeypatch):
    work = Work(monkeypatch, loop_ends=(LoopBrokenError("learner died"), True))
    with pytest.raises(LoopBrokenError):
        _phases(run, policy, work).run_all(control=False, preflight=False)
    _phases(run, policy, work).run_all(control=False, preflight=False)
    assert work.done == ["collect", "evaluate 0", "loop after 0 s", "loop after 30 s", "evaluate 7"]
    loop = run.read_phase("loop")
    assert (loop["elapsed_s"], loop["num_restarts"], loop["notes"]) == (60.0, 2, ["note 3", "note 4"])


def test_a_phase_that_was_interrupted_leaves_nothing_and_one_that_finished_counts(run, policy, monkeypatch):
    work = Work(monkeypatch)

    def interrupted(*arguments):
        raise KeyboardInterrupt

    def finished_just_before(*arguments):
        work.stop = True
        return 1

    monkeypatch.setattr(demo_phases, "collect", interrupted)
    with pytest.raises(KeyboardInterrupt):
        _phases(run, policy, work).run_all(control=False, preflight=False)
    assert run.read_phase("demonstrations") is None
    monkeypatch.setattr(demo_phases, "collect", finished_just_before)
    with pytest.raises(KeyboardInterrupt):
        _phases(run, policy, work).run_all(control=False, preflight=False)
    assert run.read_phase("demonstrations")["num_episodes"] == 1
    assert run.read_phase("before") is None


def test_control_takes_as_many_steps_as_the_loop(run, policy, monkeypatch):
    work = Work(monkeypatch)
    phases = _phases(run, policy, work)
    steps = []
    monkeypatch.setattr(DemoPhases, "_learn_on_demonstrations", lambda self, num: steps.append(num))
    phases.run_all(control=True, preflight=False)
    assert steps == [500]
    assert run.read_phase("control")["learner_step"] == 500


def test_missing_parts_are_told_with_their_fix(run, policy, monkeypatch):
    work = Work(monkeypatch)
    lacking = demo_phases.check_machine.__globals__["Check"]("Rendering", False, "none", fix="install it")
    monkeypatch.setattr(demo_phases, "check_machine", lambda directory: [lacking])
    with pytest.raises(demo_phases.MissingDependencyError, match="Rendering: install it"):
        _phases(run, policy, work).run_all(control=False, preflight=True)
    assert work.done == []


def test_the_processes_get_commands_that_the_commands_understand(run):
    specs = {spec.name: spec for spec in process_specs(CONFIG, run, 4321)}
    assert sorted(specs) == ["learner", "replay", "robot-0", "robot-1"]
    kinds = {"replay": ReplayArguments, "learner": LearnArguments, "robot-0": ActArguments, "robot-1": ActArguments}
    parsed = {name: parse(kinds[name], spec.command[4:], name) for name, spec in specs.items()}
    assert [spec.command[3] for spec in specs.values()] == ["replay", "learn", "act", "act"]
    assert (parsed["replay"].port, parsed["replay"].owns_store) == (4321, True)
    assert parsed["learner"].replay == "localhost:4321"
    assert {arguments.store for arguments in parsed.values()} == {run.store_url}
    assert parsed["robot-1"].robot_id == "robot-1"
    assert parsed["robot-0"].spool != parsed["robot-1"].spool
    assert not parsed["robot-0"].unsupervised
    assert specs["learner"].niceness == CONFIG.learning.niceness
    assert len({spec.log_path for spec in specs.values()}) == 4


def test_a_run_directory_holds_one_run(run):
    with pytest.raises(UsageError, match="holds a run already"):
        run.create(CONFIG)
    assert json.loads(run.config.read_text()) == to_json(CONFIG)


def _leave_a_finished_run(run: RunDirectory, control: bool) -> None:
    store = EpisodeStore(run.store_url)
    clock = ManualClock(10**9)
    metrics = JsonlMetrics(run.metrics / "learner.jsonl", "learner", clock)
    metrics.write("learner_step", step=0, loss=1.0, steps_per_s=20.0, wait_share=0.0)
    for count in range(6):
        takeovers = ((20, 30, 60),) if count < 2 else ()
        store.put(
            make_episode(
                count, 90, takeovers=takeovers, started_ns=10**9 * (1 + 4 * count), policy_version=1 if count > 3 else 0,
                outcome=Outcome.TIMEOUT if count == 2 else Outcome.SUCCESS,
            )
        )  # fmt: skip
    clock.advance_s(10.0)  # now 11 s: episodes 0 to 2 are over
    for episode in EpisodeStore(run.store_url).list_paths()[:2]:
        metrics.write("first_use", episode_id=episode.split("/")[-1].removesuffix(".zip"), learner_step=20)
    metrics.write("publication", version=1, learner_step=25)
    metrics.write("learner_step", step=25, loss=0.5, steps_per_s=30.0, wait_share=0.1)
    metrics.close()
    run.finish_phase("before", {"elapsed_s": 10.0, "result": dataclasses.asdict(result(60))})
    run.finish_phase(
        "loop", {"elapsed_s": 100.0, "learner_step": 25, "version": 1, "num_restarts": 0, "notes": ["a note"]}
    )
    run.finish_phase("after", {"elapsed_s": 10.0, "result": dataclasses.asdict(result(110, version=1))})
    if control:
        run.finish_phase(
            "control", {"elapsed_s": 5.0, "learner_step": 25, "result": dataclasses.asdict(result(63, version=1))}
        )


def test_a_finished_run_says_all_that_was_promised(run, capsys):
    _leave_a_finished_run(run, control=True)
    run.write_start(RunStart("sop demo --seed 0", MACHINE))
    summary = finish(CONFIG, run, "sop demo --seed 0")
    assert summary["success_before"] == 0.5
    assert summary["success_after"] == pytest.approx(110 / 120)
    assert summary["intervals_apart"] is True
    assert summary["success_control"] == pytest.approx(63 / 120)
    assert summary["num_eval_trials"] == 120
    assert (summary["num_episodes"], summary["num_frames"], summary["num_interventions"]) == (6, 540, 2)
    assert (summary["num_publications"], summary["num_swaps"]) == (1, 1)
    # Asked at frame 20 of episodes that start at 1 and 5 s; version 1 first acts at 17 s.
    assert summary["median_correction_latency_s"] == pytest.approx(
        np.median([17 - 1 - 20 / 30, 17 - 5 - 20 / 30]), abs=0.01
    )
    assert summary["median_staleness_s"] is not None
    assert summary["elapsed_s"] == 125.0
    text = capsys.readouterr().out
    assert "91.7%" in text
    assert "[85.3%, 95.4%]" in text
    assert "lies above the interval before" in text
    saved = json.loads(run.summary.read_text())
    assert saved["success_after"] == summary["success_after"]
    page = run.report.read_text()
    assert "25 learner steps on demonstrations alone" in page
    assert "a note" in page
    assert (run.root / "metrics.jsonl").exists()
    assert list((run.root / "tensorboard").iterdir())


def test_a_run_that_was_taken_up_tells_how_it_began(run):
    _leave_a_finished_run(run, control=False)
    run.write_start(RunStart("sop demo --seed 3", MACHINE))
    for _ in range(2):  # a finished run may be resumed too
        assert finish(CONFIG, run, "sop demo --resume runs/x")["command"] == "sop demo --seed 3"
        page = run.report.read_text()
        assert "<code>sop demo --seed 3</code>" in page
        assert MACHINE.created in page
        assert MACHINE.hardware in page
        assert len(list(run.tensorboard.iterdir())) == 1  # TensorBoard draws what it finds in all of them
    run.finish_phase("control", {"learner_step": 25, "result": dataclasses.asdict(result(63))})
    summary = finish(CONFIG, run, "sop demo --resume runs/x --control")
    assert summary["command"] == "sop demo --seed 3 --control"
    assert finish(CONFIG, run, "sop demo --resume runs/x")["command"] == "sop demo --seed 3 --control"


def test_a_run_of_an_earlier_version_is_told_by_the_present_command(run, monkeypatch):
    monkeypatch.setattr(demo_results, "describe_machine", lambda time_s: MACHINE)
    _leave_a_finished_run(run, control=False)
    assert run.read_start() is None
    assert finish(CONFIG, run, "sop demo --resume runs/x")["command"] == "sop demo --resume runs/x"
    assert MACHINE.hardware in run.report.read_text()


def test_a_new_run_writes_down_how_it_began_and_taking_it_up_leaves_that_alone(tmp_path, monkeypatch, capsys):
    def stopped(self, **options):
        raise KeyboardInterrupt

    monkeypatch.setattr(demo, "describe_machine", lambda time_s: MACHINE)
    monkeypatch.setattr(DemoPhases, "run_all", stopped)
    where = str(tmp_path / "a run")
    assert main(["demo", "--config", "restock_tiny", "--seed", "3", "--run", where]) == INTERRUPTED
    began = RunStart(f"sop demo --config restock_tiny --seed 3 --run '{where}'", MACHINE)
    assert RunDirectory(tmp_path / "a run").read_start() == began
    assert main(["demo", "--resume", where]) == INTERRUPTED
    assert RunDirectory(tmp_path / "a run").read_start() == began
    assert (
        main(["demo", "--resume", where, "--run", str(tmp_path / "another"), "--config", "restock_tiny"]) == BAD_INPUT
    )
    assert "--run, --config would do nothing with --resume" in capsys.readouterr().err
    assert not (tmp_path / "another").exists()


def test_a_stored_control_is_shown_only_if_it_fits(run, tmp_path):
    before, stored = result(60), tmp_path / "control.json"
    run.finish_phase("loop", {"learner_step": 25})
    config = dataclasses.replace(CONFIG, control_result=str(stored))
    assert find_control(dataclasses.replace(CONFIG, control_result=""), run, before)[0] is None
    found, note = find_control(config, run, before)
    assert found is None
    assert "none is stored" in note
    stored.write_text(json.dumps({"learner_step": 25, "result": dataclasses.asdict(result(63))}))
    found, note = find_control(config, run, before)
    assert found == result(63)
    assert "stored result (25 learner steps" in note
    stored.write_text(json.dumps({"learner_step": 25, "result": dataclasses.asdict(result(63, base="another"))}))
    found, note = find_control(config, run, before)
    assert found is None
    assert "another base policy" in note
    for other, says in (
        (result(63, seed=5), "other trials (seed: 5 there, 0 here)"),
        (result(63, num_trials=119), "other trials (trials: 119 there, 120 here)"),
        (result(63, reset_s=20.0), "other trials (reset [s]: 20.0 there, 10.0 here)"),
    ):
        stored.write_text(json.dumps({"learner_step": 25, "result": dataclasses.asdict(other)}))
        found, note = find_control(config, run, before)
        assert found is None
        assert says in note
    for steps in ({"learner_step": 26}, {}):
        stored.write_text(json.dumps({**steps, "result": dataclasses.asdict(result(63))}))
        found, note = find_control(config, run, before)
        assert found is None
        assert f"another training (learner steps: {steps.get('learner_step')} there, 25 here)" in note
    stored.write_text("{")
    assert "can't be read" in find_control(config, run, before)[1]


def test_the_control_that_comes_along_fits_the_demo_as_it_comes(run):
    demo = DEMOS["restock_demo"]
    stored = json.loads(find_in_repository(demo.control_result).read_text())
    run.finish_phase("loop", {"learner_step": demo.learning.learner.num_steps})
    before = result(45, demo.evaluation.num_trials, base=stored["result"]["base"], seed=demo.evaluation.seed)
    found, note = find_control(demo, run, before)
    assert found == EvaluationResult.from_json(stored["result"])
    assert "3500 learner steps" in note


def test_an_unfinished_run_says_how_to_go_on(run):
    with pytest.raises(UnfinishedRunError, match="--resume"):
        finish(CONFIG, run, "c")
