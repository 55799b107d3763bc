import dataclasses
import json
import os
import pathlib
import signal
import subprocess
import sys
import time

import pytest
from trial_worker import IDENTITY, noisy_policy_trials

from sop_jax.actors.episode import TrialResult
from sop_jax.evaluation import evaluate as evaluate_module
from sop_jax.evaluation.evaluate import Candidate, evaluate_worlds
from sop_jax.evaluation.seeds import selection_seeds, trial_seeds
from sop_jax.evaluation.trial_log import ForeignTrialsError, TrialLog
from sop_jax.evaluation.world import WorldConfig
from sop_jax.specs.conditioning import Conditioning
from sop_jax.specs.errors import ConfigError
from sop_jax.specs.records import Outcome

HERE = pathlib.Path(__file__).parent
WORLDS = {"fake": WorldConfig("fake"), "short": WorldConfig("short")}


def trial(seed):
    return TrialResult(seed, Outcome.FAILURE, "dropped", 30, 1.0, "approach", "move")


def test_a_log_is_read_back_without_its_torn_last_line(tmp_path):
    path = tmp_path / "trials" / "shelf.jsonl"
    log = TrialLog(path)
    log.claim({"seed": 3, "worlds": ("a",)})
    for seed in (1, 2):
        log.append(trial(seed))
    log.close()
    with path.open("ab") as file:
        file.write(b'{"seed": 3, "outco')
    again = TrialLog(path)
    again.claim({"seed": 3, "worlds": ("a",)})
    assert again.trials == {1: trial(1), 2: trial(2)}
    again.append(trial(3))
    again.close()
    last = TrialLog(path)
    assert list(last.trials) == [1, 2, 3]
    last.close()


def test_another_evaluations_log_is_refused_with_what_differs(tmp_path):
    log = TrialLog(tmp_path / "a.jsonl")
    log.claim({"weights": "abc", "first_seed": 7})
    with pytest.raises(ConfigError, match="another evaluation is writing"):
        TrialLog(tmp_path / "a.jsonl")
    log.close()
    again = TrialLog(tmp_path / "a.jsonl")
    again.check({"first_seed": 7})
    with pytest.raises(ForeignTrialsError, match=r"weights: abc there, xyz now\); choose another output folder"):
        again.claim({"weights": "xyz", "first_seed": 7})
    again.close()
    (tmp_path / "b.jsonl").write_text("hello\n")
    with pytest.raises(ConfigError, match="not a log of trials"):
        TrialLog(tmp_path / "b.jsonl")


@pytest.fixture
def fake_workers(monkeypatch):
    """Evaluations whose workers are FakeRobots; counts the jobs that were really run."""
    jobs = []
    real = evaluate_module.run_trials

    def run(command, todo, num_workers, **options):
        del command
        jobs.append(len(todo))
        return real([sys.executable, str(HERE / "trial_worker.py")], todo, num_workers, **options)

    def ask(command, should_stop):
        del command
        return real_ask([sys.executable, str(HERE / "trial_worker.py")], should_stop)

    real_ask = evaluate_module.ask_identity
    monkeypatch.setattr(evaluate_module, "run_trials", run)
    monkeypatch.setattr(evaluate_module, "ask_identity", ask)
    return jobs


def test_an_evaluation_goes_on_where_it_was(tmp_path, fake_workers):
    candidate, seen = Candidate(bundle="policies/mine", conditioning=Conditioning("Advantage: positive", 1.5)), []
    first = evaluate_worlds(candidate, WORLDS, 2, num_workers=2, side_by_side=1, folder=tmp_path)
    assert [len(found.trials) for found in first.values()] == [2, 2]
    more = evaluate_worlds(
        candidate, WORLDS, 3, num_workers=2, side_by_side=1, folder=tmp_path, on_trial=lambda *new: seen.append(new)
    )
    assert fake_workers == [4, 2]
    assert len(seen) == 6
    for index, (label, found) in enumerate(more.items()):
        expected = tuple(noisy_policy_trials().run(seed, index) for seed in trial_seeds(0, 3))
        assert found.trials == expected
        assert found.trials[:2] == first[label].trials
        assert (found.result.policy_version, found.result.base) == (IDENTITY.policy_version, IDENTITY.base)
        assert (found.result.condition, found.result.beta) == ("Advantage: positive", 1.5)
    again = evaluate_worlds(candidate, WORLDS, 3, side_by_side=1, folder=tmp_path)
    assert fake_workers == [4, 2]  # nothing left to run
    assert again == more


def test_what_differs_is_refused_before_a_worker_starts(tmp_path, fake_workers):
    options = {"num_workers": 1, "side_by_side": 1, "folder": tmp_path}
    evaluate_worlds(Candidate(bundle="policies/mine"), {"fake": WORLDS["fake"]}, 1, **options)
    for candidate, world, seed, more in (
        (Candidate(), WORLDS["fake"], 0, {}),
        (Candidate("policies/mine", "file:///store/", 7), WORLDS["fake"], 0, {}),
        (Candidate("policies/mine", conditioning=Conditioning("Advantage: positive")), WORLDS["fake"], 0, {}),
        (Candidate(bundle="policies/mine"), WorldConfig("fake", image_size=32), 0, {}),
        (Candidate(bundle="policies/mine"), WORLDS["fake"], 1, {}),
        (Candidate(bundle="policies/mine"), WORLDS["fake"], 0, {"for_selection": True}),
        (Candidate(bundle="policies/mine"), WORLDS["fake"], 0, {"side_by_side": 2}),
    ):
        with pytest.raises(ForeignTrialsError, match="another evaluation"):
            evaluate_worlds(candidate, {"fake": world}, 2, seed, **{**options, **more})
    assert fake_workers == [1]


def test_other_weights_of_the_same_name_are_refused(tmp_path, fake_workers):
    options = {"num_workers": 1, "side_by_side": 1, "folder": tmp_path}
    evaluate_worlds(Candidate(bundle="policies/mine"), {"fake": WORLDS["fake"]}, 1, **options)
    path = tmp_path / "trials" / "fake.jsonl"
    path.write_text(path.read_text().replace(IDENTITY.weights, "others"))
    for num_trials in (2, 1):  # one to run; none to run: then the old trials would be reported as the new weights'
        with pytest.raises(ForeignTrialsError, match=f"weights: others there, {IDENTITY.weights} now"):
            evaluate_worlds(Candidate(bundle="policies/mine"), {"fake": WORLDS["fake"]}, num_trials, **options)
    assert len(path.read_text().splitlines()) == 2


def test_trials_for_selection_have_their_own_seeds(fake_workers):
    found = evaluate_worlds(Candidate(bundle="x"), {"fake": WORLDS["fake"]}, 2, 5, num_workers=1, for_selection=True)
    assert [trial.seed for trial in found["fake"].trials] == selection_seeds(5, 2)


def test_a_label_that_is_no_file_name_and_no_world_at_all_are_refused():
    with pytest.raises(ConfigError, match="names a file"):
        evaluate_worlds(Candidate(), {"../up": WORLDS["fake"]}, 1)
    with pytest.raises(ConfigError, match="at least one world"):
        evaluate_worlds(Candidate(), {}, 1)


def test_a_kill_loses_at_most_the_last_line(tmp_path):
    path = tmp_path / "log.jsonl"
    program = (
        "import pathlib, sys; from sop_jax.actors.episode import TrialResult; from sop_jax.specs.records import Outcome\n"
        "from sop_jax.evaluation.trial_log import TrialLog\n"
        "log = TrialLog(pathlib.Path(sys.argv[1])); log.claim({'seed': 0})\n"
        "for seed in range(10**9): log.append(TrialResult(seed, Outcome.SUCCESS, '', 30, 1.0))\n"
    )
    writer = subprocess.Popen([sys.executable, "-c", program, str(path)])
    try:
        while not path.exists() or path.stat().st_size < 20_000:
            assert writer.poll() is None
            time.sleep(0.01)
    finally:
        os.kill(writer.pid, signal.SIGKILL)
        writer.wait()
    log = TrialLog(path)
    lines = path.read_text().splitlines()
    log.close()
    assert list(log.trials) == list(range(len(lines) - 1))
    assert len(log.trials) > 50
    assert json.loads(lines[-1]) == dataclasses.asdict(log.trials[len(lines) - 2])


def test_a_disk_that_fails_is_no_other_evaluation(tmp_path, monkeypatch):
    def broken(self):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(TrialLog, "_read", broken)
    with pytest.raises(OSError, match="No space left"):
        TrialLog(tmp_path / "a.jsonl")
