import dataclasses
import json

import numpy as np
import pytest

from sop_jax.actors.episode import TrialResult
from sop_jax.cli import eval as eval_command
from sop_jax.cli.main import BAD_INPUT, main
from sop_jax.evaluation.evaluate import Candidate, Evaluated
from sop_jax.evaluation.paired import PairCounts, compare_counts
from sop_jax.evaluation.results import Subject, summarise
from sop_jax.evaluation.seeds import selection_seeds, trial_seeds
from sop_jax.evaluation.suites import MAIN
from sop_jax.evaluation.trial_log import TrialLog
from sop_jax.evaluation.world import WorldConfig
from sop_jax.specs.clock import ManualClock
from sop_jax.specs.conditioning import Conditioning
from sop_jax.specs.records import Outcome
from sop_jax.weights.management import rollback
from sop_jax.weights.publisher import Publisher

POLICY = "assets/policies/restock_compact"
RECAP = Conditioning("Advantage: positive", 1.5)


@pytest.fixture
def asked(monkeypatch):
    """Evaluations that succeed in every trial; what they were asked."""
    calls = []

    def evaluate(candidate, worlds, num_trials, seed, **options):
        calls.append((candidate, worlds, num_trials, seed, options))
        trials = tuple(TrialResult(i, Outcome.SUCCESS, "", 90, 3.0) for i in range(num_trials))
        return {
            label: Evaluated(label, world, summarise(subject_of(candidate, world), trials, seed), trials)
            for label, world in worlds.items()
        }

    monkeypatch.setattr(eval_command, "evaluate_worlds_with_progress", evaluate)
    return calls


def subject_of(candidate, world):
    return Subject(world.task, candidate.name, conditioning=candidate.conditioning)


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
        (["--weights", POLICY, "--base", "x"], "--base belongs to a run or a store"),
        (["--expert", "--condition", "x"], "the expert is told nothing"),
        (["--expert", "--beta", "1.5"], "the expert is told nothing"),
        (["--weights", POLICY, "--beta", "1.5"], "restock_compact is told none: add --condition"),
        (["--weights", POLICY, "--condition", "", "--beta", "2"], "is told none: add --condition"),
        (["--weights", POLICY, "--condition", "x", "--beta", "-1"], "--beta must be finite and at least 0, got -1"),
        (["--weights", POLICY, "--condition", "x", "--beta", "inf"], "--beta must be finite and at least 0, got inf"),
    ],
)
def test_mistakes_are_one_line(asked, words, complaint, capsys):
    assert main(["eval", *words]) == BAD_INPUT
    assert complaint in capsys.readouterr().err
    assert asked == []


def publish(store_url, conditioning):
    publisher = Publisher(store_url, "base", "norm", ManualClock(10**9), conditioning=conditioning)
    publisher.publish({"head": {"kernel": np.zeros((3, 2), np.float32)}}, 25)


@pytest.mark.parametrize(
    ("words", "told"),
    [
        ([], RECAP),
        (["--version", "1"], RECAP),
        (["--beta", "3"], Conditioning("Advantage: positive", 3.0)),
        (["--condition", "Advantage: negative"], Conditioning("Advantage: negative", 1.0)),
        (["--condition", "Advantage: negative", "--beta", "0.5"], Conditioning("Advantage: negative", 0.5)),
        (["--condition", ""], Conditioning()),
        (["--version", "0"], Conditioning()),  # the base policy hasn't learnt the words
        (["--version", "0", "--condition", "Advantage: positive", "--beta", "1.5"], RECAP),
    ],
)
def test_what_a_stores_policy_is_told_is_what_its_publication_says_or_the_options(
    asked, store_url, words, told, capsys
):
    publish(store_url, RECAP)
    rollback(store_url, 1, ManualClock(10**9))  # version 2: what it brings back is told the same
    assert main(["eval", "--weights", store_url, "--base", POLICY, *words, "--trials", "2", "--json"]) == 0
    ((candidate, *_),) = asked
    assert candidate.conditioning == told
    said, err = capsys.readouterr()
    assert f"is told {told.describe()}\n" in said
    result = json.loads(said.splitlines()[-1])
    assert (result["condition"], result["beta"]) == (told.suffix, told.guidance)
    assert "doesn't say" not in err


def test_a_publication_that_does_not_say_what_its_policy_is_told_is_evaluated_bare_and_complained_of(
    asked, store_url, capsys
):
    publish(store_url, None)
    words = ["eval", "--weights", store_url, "--base", POLICY, "--trials", "2"]
    assert main(words) == 0
    assert "version 1 doesn't say what its policy is told" in capsys.readouterr().err
    assert main([*words, "--condition", "Advantage: positive", "--beta", "1.5"]) == 0
    said, err = capsys.readouterr()
    assert "doesn't say" not in err
    assert "restock_shelf, restock_compact, version 1, told 'Advantage: positive', beta 1.5: success 100%" in said
    assert [candidate.conditioning for candidate, *_ in asked] == [Conditioning(), RECAP]


def test_a_policy_directory_is_told_what_the_options_say(asked, tmp_path, capsys):
    words = ["eval", "--weights", POLICY, "--trials", "2"]
    assert main(words) == 0
    assert "restock_compact is told the bare instruction" in capsys.readouterr().out
    told = ["--condition", "Advantage: positive", "--beta", "1.5", "--output", str(tmp_path)]
    assert main([*words, *told]) == 0
    assert [candidate.conditioning for candidate, *_ in asked] == [Conditioning(), RECAP]
    assert json.loads((tmp_path / "results.json").read_text())["results"]["restock_shelf"]["beta"] == 1.5
    assert "told &#39;Advantage: positive&#39;, beta 1.5" in (tmp_path / "report.html").read_text()


@pytest.fixture
def folders(tmp_path):
    """Writes what an evaluation with --output leaves of its trials: "1" success, "0" failure."""

    def write(name, ends, seed=0, for_selection=False, conditioning=None, **more):
        for label, successes in ends.items():
            header = {
                "candidate": dataclasses.asdict(Candidate(POLICY, conditioning=conditioning or Conditioning())),
                "world": dataclasses.asdict(WorldConfig(label.partition(".")[0])),
                "world_version": f"{label}/1",
                "policy_version": 0,
                "base": "abcd",
                **more,
            }
            log = TrialLog(tmp_path / name / "trials" / f"{label}.jsonl")
            log.claim(header)
            seeds = (selection_seeds if for_selection else trial_seeds)(seed, len(successes))
            for trial_seed, end in reversed(
                list(zip(seeds, successes, strict=True))
            ):  # in the order in which they ended
                outcome = Outcome.SUCCESS if end == "1" else Outcome.FAILURE
                log.append(TrialResult(trial_seed, outcome, "" if end == "1" else "dropped", 30, 1.0))
            log.close()
        return str(tmp_path / name)

    return write


def test_two_folders_are_compared_trial_by_trial_and_nothing_is_written(folders, tmp_path, capsys):
    first = folders("bare", {"box_assembly": "1110000000", "restock_shelf": "00001"})
    second = folders("told", {"box_assembly": "1101111111", "restock_shelf": "00001"}, conditioning=RECAP)
    log = tmp_path / "told" / "trials" / "box_assembly.jsonl"
    log.write_bytes(log.read_bytes() + b'{"seed": 3, "outco')  # torn by a kill
    before = {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()}
    assert main(["eval", "--compare", first, second, "--json"]) == 0
    said = capsys.readouterr().out
    expected = compare_counts(PairCounts(both=2, first_only=1, second_only=7, neither=0))
    values = json.loads(said.splitlines()[-1])
    box = values["comparisons"]["box_assembly"]
    assert box["counts"] == {"both": 2, "first_only": 1, "second_only": 7, "neither": 0}
    assert (box["difference"]["value"], box["p_value"]) == (pytest.approx(0.6), pytest.approx(expected.p_value))
    assert box["difference"]["low"] == pytest.approx(expected.difference.low)
    assert list(values["comparisons"]) == ["box_assembly", "restock_shelf", "all"]
    assert values["comparisons"]["all"]["counts"] == {"both": 3, "first_only": 1, "second_only": 7, "neither": 4}
    assert "| `box_assembly` | 30% | 90% | +60 [" in said
    assert f"second: {second}, version 0 of base abcd, told 'Advantage: positive', beta 1.5" in said
    assert values["first"]["actor"].endswith("told the bare instruction")
    assert {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()} == before


def test_what_was_forgotten_is_told_on_the_retention_suite(folders, capsys):
    ends = {"box_assembly": "1111111110", "restock_shelf.new_goods": "11"}
    first = folders("before", ends)
    second = folders("after", {**ends, "box_assembly": "1000000000"})
    assert main(["eval", "--compare", first, second, "--suite", "retention", "--json"]) == 0
    said = capsys.readouterr().out
    forgotten = json.loads(said.splitlines()[-1])["forgotten"]
    assert list(forgotten) == ["box_assembly", "restock_shelf.new_goods", "all"]
    assert forgotten["box_assembly"]["forgotten"]["value"] == pytest.approx(0.8)
    assert forgotten["all"]["num_trials"] == 12
    assert "| `box_assembly` | 90% | 10% | +80 [" in said


def test_a_single_task_has_no_row_of_all(folders, capsys):
    first, second = (folders(name, {"box_assembly": "10"}) for name in "ab")
    assert main(["eval", "--compare", first, second, "--json"]) == 0
    assert list(last_line(capsys)["comparisons"]) == ["box_assembly"]


@pytest.mark.parametrize(
    ("second", "words", "complaint"),
    [
        ({"seed": 1}, [], "first has 2 trials of seed 0, {folder}/second has 2 trials of seed 1: only equal trials"),
        ({"for_selection": True}, [], "second has 2 selection trials of seed 0: only equal trials are pairs"),
        ({"ends": {"box_assembly": "100"}}, [], "second has 3 trials of seed 0: only equal trials are pairs"),
        ({"ends": {"laundry_fold": "10"}}, [], "first has the worlds box_assembly, {folder}/second has laundry_fold"),
        (
            {"world": dataclasses.asdict(WorldConfig("box_assembly", 32))},
            [],
            "(image_size: 64 and 32), so trials aren't",
        ),
        ({"world_version": "box/2"}, [], "versions of the world differ (box_assembly/1 and box/2)"),
        ({"ends": {}}, [], "second holds no trials: expected what `sop eval --output {folder}/second` leaves"),
        ({}, ["--trials", "5"], "--trials would do nothing with --compare, which evaluates nothing"),
        ({}, ["--suite", "main"], "--suite would do nothing with --compare"),
        ({}, ["--expert"], "--expert would do nothing with --compare"),
    ],
)
def test_what_cannot_be_compared_is_refused_in_one_line(folders, tmp_path, second, words, complaint, capsys):
    one = folders("first", {"box_assembly": "10"})
    two = folders("second", **{"ends": {"box_assembly": "10"}, **second})
    assert main(["eval", "--compare", one, two, *words]) == BAD_INPUT
    assert complaint.format(folder=tmp_path) in capsys.readouterr().err


def test_forgetting_is_told_of_the_retention_suites_worlds_only(folders, capsys):
    first, second = (folders(name, {"tea_making": "10"}) for name in "ab")
    assert main(["eval", "--compare", first, second, "--suite", "retention"]) == BAD_INPUT
    assert "worlds that --suite retention lacks (tea_making)" in capsys.readouterr().err
