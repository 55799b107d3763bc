import json

import pytest

from sop_jax.actors.episode import TrialResult
from sop_jax.cli import eval as eval_command
from sop_jax.cli.main import BAD_INPUT, main
from sop_jax.evaluation.evaluate import Evaluated
from sop_jax.evaluation.results import Subject, summarise
from sop_jax.evaluation.suites import MAIN
from sop_jax.specs.records import Outcome


@pytest.fixture
def asked(monkeypatch):
    """Evaluations that succeed in every trial; what they were asked."""
    calls = []

    def evaluate(candidate, worlds, num_trials, seed, **options):
        calls.append((candidate, worlds, num_trials, seed, options))
        trials = tuple(TrialResult(i, Outcome.SUCCESS, "", 90, 3.0) for i in range(num_trials))
        return {
            label: Evaluated(label, world, summarise(Subject(world.task, candidate.name), trials, seed), trials)
            for label, world in worlds.items()
        }

    monkeypatch.setattr(eval_command, "evaluate_worlds_with_progress", evaluate)
    return calls


def last_line(capsys):
    return json.loads(capsys.readouterr().out.splitlines()[-1])


def test_one_task_ends_with_its_result(asked, capsys):
    assert main(["eval", "--task", "laundry_fold", "--expert", "--trials", "4", "--seed", "9", "--json"]) == 0
    values = last_line(capsys)
    assert values["task"] == "laundry_fold"
    assert (values["success"], values["num_trials"], values["failures"]) == (1.0, 4, {})
    assert values["success_low"] == pytest.approx(4 / (4 + 3.841459), abs=1e-6)
    assert {"success_high", "successes_per_hour"} <= set(values)
    ((_, worlds, num_trials, seed, options),) = asked
    assert (list(worlds), num_trials, seed) == (["laundry_fold"], 4, 9)
    assert options["for_selection"] is False
    assert options["folder"] is None


def test_several_tasks_and_suites_end_with_results_by_label(asked, capsys):
    assert main(["eval", "--expert", "--tasks", "box_assembly", "restock_cooler", "--json"]) == 0
    assert list(last_line(capsys)["results"]) == ["box_assembly", "restock_cooler"]
    assert main(["eval", "--expert", "--suite", "main", "--json", "--shuffle-instructions"]) == 0
    assert tuple(last_line(capsys)["results"]) == MAIN
    assert all(world.shuffle_instructions for world in asked[-1][1].values())
    assert main(["eval", "--expert", "--suite", "retention", "--trained", *MAIN, "--selection", "--json"]) == 0
    labels = list(last_line(capsys)["results"])
    assert "restock_shelf" not in labels
    assert "restock_shelf.new_goods" in labels
    assert asked[-1][4]["for_selection"] is True


def test_an_output_folder_holds_table_results_and_report(asked, tmp_path, capsys):
    output = tmp_path / "out"
    assert main(["eval", "--expert", "--suite", "main", "--trials", "5", "--output", str(output)]) == 0
    assert asked[0][4]["folder"] == output
    assert sorted(path.name for path in output.iterdir()) == ["report.html", "results.json", "table.md"]
    assert (output / "table.md").read_text().count("100% [57, 100]") == 3
    values = json.loads((output / "results.json").read_text())
    assert values["worlds"]["laundry_fold"]["task"] == "laundry_fold"
    assert values["results"]["box_assembly"]["num_successes"] == 5
    assert str(output / "report.html") in capsys.readouterr().out


@pytest.mark.parametrize(
    ("words", "complaint"),
    [
        (["--trials", "3"], "either --expert or --weights"),
        (["--expert", "--weights", "x"], "either --expert or --weights"),
        (["--expert", "--tasks", "box_assembly", "--suite", "main"], "either --tasks or --suite"),
        (["--expert", "--video-failures", "2"], "name it with --output"),
        (["--expert", "--task", "laundry"], "unknown task 'laundry'"),
        (["--expert", "--side-by-side", "0"], "at least 1"),
        (["--expert", "--workers", "-1"], "--workers must be at least 0 (one per core), got -1"),
        (["--expert", "--version", "7"], "the expert has none"),
        (["--expert", "--base", "x"], "the expert has none"),
        (["--weights", "x", "--version", "-1"], "at least 0 (the base policy), got -1"),
        (["--expert", "--trained", "box_assembly"], "belongs to --suite retention"),
        (["--expert", "--reset-s", "-100"], "--reset-s must be at least 0, got -100"),
        (["--weights", "assets/policies/restock_compact", "--base", "x"], "--base belongs to a run or a store"),
    ],
)
def test_mistakes_are_one_line(asked, words, complaint, capsys):
    assert main(["eval", *words]) == BAD_INPUT
    assert complaint in capsys.readouterr().err
    assert asked == []
