import dataclasses
import importlib
import json

import pytest

from configs.studies import CI
from configs.sweeps import SWEEPS, SweepPreset
from fleet_sim.crew import LOCAL
from fleet_sim.studies.methods import make_cells
from sop_jax.cli.main import main
from sop_jax.cli.study_workshop import StudyFailedError, make_workshop
from tests.fleet_sim.study_results import cell, evaluation

SHELF = ("restock_shelf",)


@pytest.fixture
def begun(tmp_path, capsys):
    """A study folder as a first call leaves it."""
    assert main(["study", "main-results", "--report-only", "--folder", str(tmp_path)]) == 0
    capsys.readouterr()
    return tmp_path


def test_what_is_done_is_reported(begun, capsys):
    for name, result in (
        ("pretrained-0", {"evaluation": evaluation("1000", SHELF)}),
        ("sop_hg_dagger-0", {**cell("1110"), "evaluation": evaluation("1110", SHELF)}),
    ):
        (begun / "cells" / f"{name}.json").write_text(json.dumps({"result": result, "elapsed_s": 60.0}))
    assert main(["study", "main-results", "--report-only", "--folder", str(begun), "--json"]) == 0
    out = capsys.readouterr()
    numbers = json.loads(out.out.splitlines()[-1])
    assert (numbers["num_cells_done"], numbers["num_cells"]) == (2, len(make_cells(CI.study)))
    assert [method["mean_success"] for method in numbers["methods"]] == [0.25, 0.75]
    assert "2 of 3 cells are done" in out.err
    assert "| SOP + HG-DAgger | 75% [" in (begun / "table.md").read_text()
    assert json.loads((begun / "results.json").read_text())["elapsed_s"] == 120.0
    assert "SOP + HG-DAgger" in (begun / "report.html").read_text()


def test_another_preset_in_the_folder_is_refused(begun, capsys):
    assert main(["study", "main-results", "--preset", "small", "--report-only", "--folder", str(begun)]) == 2
    assert "holds another study" in capsys.readouterr().err


def test_cells_of_another_base_policy_are_not_mixed_in(begun, capsys, monkeypatch):
    monkeypatch.setattr("sop_jax.cli.study.told_fingerprint", lambda directory: "0123456789abcdef")
    assert main(["study", "main-results", "--report-only", "--folder", str(begun)]) == 2
    assert "this base policy" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("study", "module"), [("bases", "configs.restock_pretrain"), ("main-results", "configs.value_training")]
)
def test_cells_of_another_training_are_not_mixed_in(tmp_path, capsys, monkeypatch, study, module):
    recap = dataclasses.replace(CI, study=dataclasses.replace(CI.study, methods=("pretrained", "sop_recap")))
    monkeypatch.setattr("sop_jax.cli.study.MAIN_RESULTS", {"ci": recap})
    command = ["study", study, "--report-only", "--folder", str(tmp_path)]
    assert main(command) == 0
    config = importlib.import_module(module).CONFIG
    monkeypatch.setattr(f"{module}.CONFIG", dataclasses.replace(config, name="another"))
    assert main(command) == 2
    assert "holds another study" in capsys.readouterr().err


def test_a_training_of_a_study_ends_with_it_and_says_why_it_failed(tmp_path):
    workshop = make_workshop(tmp_path, (), 1, LOCAL, print, lambda: False)
    store = tmp_path / "work" / "store"
    with pytest.raises(
        StudyFailedError,
        match=r"pretrain --value-of .*nowhere.* failed: sop pretrain: LearnerConfig.warmup_steps must be in",
    ):
        workshop.train_value(tmp_path / "nowhere", 10)(store, tmp_path / "value")
    stopped = make_workshop(tmp_path, (), 1, LOCAL, print, lambda: True)
    with pytest.raises(KeyboardInterrupt):
        stopped.train_value(tmp_path / "nowhere", 10)(store, tmp_path / "value")


def test_a_sweep_is_reported_as_it_goes(tmp_path, capsys, monkeypatch):
    first = SWEEPS["staleness"]["ci"].study.points[0]
    small = dataclasses.replace(SWEEPS["staleness"]["ci"].study, points=(first,), duration_s=2000.0, warm_up_s=1000.0)
    small = dataclasses.replace(small, least_robot_s=0.0)
    monkeypatch.setattr("sop_jax.cli.study.SWEEPS", {"staleness": {"ci": SweepPreset(small)}})
    folder = ["--folder", str(tmp_path)]
    assert main(["study", "staleness", "--report-only", *folder]) == 0
    assert "0 of 1 cells are done" in capsys.readouterr().err
    assert main(["study", "staleness", "--json", *folder]) == 0
    numbers = json.loads(capsys.readouterr().out.splitlines()[-1])
    assert (numbers["study"], numbers["num_cells_done"]) == ("staleness", 1)
    assert numbers["dynamics"][0]["weights_age_s"]["mean"] > 100
    assert numbers["words"][0].startswith("50 Mbps to each robot")
    assert "<svg" in (tmp_path / "report.html").read_text()
    assert "| 5 | " in (tmp_path / "table.md").read_text()


@pytest.mark.parametrize(("kind", "num_cells"), [("bases", 4), ("demonstrations", 5), ("forgetting", 3)])
def test_studies_of_fleets_that_learn_are_reported_as_they_go(kind, num_cells, tmp_path, capsys):
    assert main(["study", kind, "--report-only", "--json", "--folder", str(tmp_path)]) == 0
    out = capsys.readouterr()
    numbers = json.loads(out.out.splitlines()[-1])
    assert (numbers["study"], numbers["preset"], numbers["num_cells"]) == (kind, "ci", num_cells)
    assert f"0 of {num_cells} cells are done" in out.err
    assert main(["study", kind, "--preset", "pair", "--folder", str(tmp_path)]) == 2
    assert "has no preset 'pair'; expected one of ci, small" in capsys.readouterr().err


def test_presets_belong_to_studies(tmp_path, capsys):
    assert main(["study", "scaling", "--preset", "paper", "--folder", str(tmp_path)]) == 2
    assert "study scaling has no preset 'paper'; expected one of ci, dynamics, small" in capsys.readouterr().err
    assert main(["study", "main-results", "--preset", "dynamics", "--folder", str(tmp_path)]) == 2
    assert "study main-results has no preset 'dynamics'" in capsys.readouterr().err


def test_a_crew_of_nobody_is_refused_before_anything_is_written(tmp_path, capsys):
    assert main(["study", "bases", "--workers", "-1", "--folder", str(tmp_path / "study")]) == 2
    assert "--workers must be at least 0 (one per core), got -1" in capsys.readouterr().err
    assert not (tmp_path / "study").exists()
