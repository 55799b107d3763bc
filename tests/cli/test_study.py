import dataclasses
import fcntl
import html
import importlib
import json
import signal

import pytest

from configs.learning_studies import LEARNING_STUDIES
from configs.studies import CI, MAIN_RESULTS
from configs.sweeps import SWEEPS, SweepPreset
from fleet_sim.crew import LOCAL
from fleet_sim.studies.grid import Grid
from fleet_sim.studies.kept_cells import KeptCell, KeptCells
from fleet_sim.studies.methods import make_cells
from fleet_sim.studies.sweep_report import SweepStudy
from sop_jax.cli import study_report
from sop_jax.cli.main import main
from sop_jax.cli.study import find_study
from sop_jax.cli.study_report import StudyReport
from sop_jax.cli.study_workshop import StudyFailedError, make_workshop
from sop_jax.evaluation.provenance import Provenance
from sop_jax.specs.clock import ManualClock
from sop_jax.specs.errors import SopError
from tests.fleet_sim.study_results import cell, evaluation

SHELF = ("restock_shelf",)


MACHINE = Provenance("2026-01-01T00:00:00+00:00", "2 cores (one)", "Linux 1", {"sop-jax": "0", "revision": "0123abc"})
RESULTS = {
    "pretrained-0": {"evaluation": evaluation("1000", SHELF)},
    "sop_hg_dagger-0": {**cell("1110"), "evaluation": evaluation("1110", SHELF)},
    "offline_hg_dagger-0": {**cell("1100"), "evaluation": evaluation("1100", SHELF)},
}


def begin(folder, kind="main-results", names=(), machine=MACHINE):
    """A study of the preset `ci` as a first call leaves it, with these cells of the main results."""
    chosen = find_study(kind, "ci")
    Grid(folder, chosen.identity, chosen.study.cells())
    keep(folder, names, machine)
    return folder


def keep(folder, names, machine=MACHINE):
    for name in names:
        KeptCells(folder, find_study("main-results", "ci").identity).write(name, KeptCell(RESULTS[name], 60.0, machine))


@pytest.fixture
def begun(tmp_path):
    return begin(tmp_path)


def page_of(folder):
    return html.unescape((folder / "report.html").read_text())


def test_what_is_done_is_reported(begun, capsys):
    keep(begun, ("pretrained-0", "sop_hg_dagger-0"))
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
    command = ["study", study, "--report-only", "--folder", str(begin(tmp_path, study))]
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


def make_small(monkeypatch, points):
    """`sop study staleness` has these points only, and plays them in a moment."""
    small = dataclasses.replace(SWEEPS["staleness"]["ci"].study, points=points, duration_s=2000.0, warm_up_s=1000.0)
    small = dataclasses.replace(small, least_robot_s=0.0)
    monkeypatch.setattr("sop_jax.cli.study.SWEEPS", {"staleness": {"ci": SweepPreset(small)}})


def test_a_sweep_is_reported_as_it_goes(tmp_path, capsys, monkeypatch):
    first = SWEEPS["staleness"]["ci"].study.points[0]
    make_small(monkeypatch, (first,))
    folder = ["--folder", str(begin(tmp_path, "staleness"))]
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
    begin(tmp_path, kind)
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


@pytest.fixture
def interrupted(monkeypatch):
    """What `sop study staleness` does instead of its second cell is put into the dict that this returns."""
    make_small(monkeypatch, SWEEPS["staleness"]["ci"].study.points[:3])
    plan, runner = {}, SweepStudy.runner

    def instead(study, workshop):
        def run_cell(one, work, results):
            return plan[one.name]() if one.name in plan else runner(study, workshop)(one, work, results)

        return run_cell

    monkeypatch.setattr(SweepStudy, "runner", instead)
    second = find_study("staleness", "ci").study.cells()[1].name
    return lambda action: plan.update({second: action})


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_stopped_study_leaves_a_report(interrupted, number, tmp_path, capsys):
    seen = []

    def stop():
        seen.append(page_of(tmp_path))  # as a kill at this moment would leave it
        (tmp_path / "table.md").unlink()
        (tmp_path / "results.json").unlink()
        (tmp_path / "report.html").unlink()
        signal.raise_signal(number)
        raise KeyboardInterrupt

    interrupted(stop)
    assert main(["study", "staleness", "--folder", str(tmp_path)]) == 130
    assert "stopped; go on with the same command: sop study staleness" in capsys.readouterr().err
    assert "Not finished: 1 of 3 cells are done." in seen[0]
    assert "Not finished: 1 of 3 cells are done." in page_of(tmp_path)
    assert json.loads((tmp_path / "results.json").read_text())["num_cells_done"] == 1
    assert "| 5 | " in (tmp_path / "table.md").read_text()


def test_a_cell_that_fails_is_told_and_the_others_are_reported(interrupted, tmp_path, capsys):
    def fail():
        raise SopError("its worker died")

    interrupted(fail)
    name = find_study("staleness", "ci").study.cells()[1].name
    assert main(["study", "staleness", "--json", "--folder", str(tmp_path)]) == 2
    out = capsys.readouterr()
    assert f"cell {name} failed: its worker died\n" in out.err
    assert out.err.splitlines()[-1].startswith(
        f"sop study: failed cells: {name} (its worker died). All others are done"
    )
    assert json.loads(out.out.splitlines()[-1])["num_cells_done"] == 2
    assert "Not finished: 2 of 3 cells are done." in page_of(tmp_path)


def test_reports_between_cells_keep_a_distance_and_end_no_study(begun, capsys, monkeypatch):
    keep(begun, ("pretrained-0",))
    chosen, clock = find_study("main-results", "ci"), ManualClock()
    report = StudyReport(Grid(begun, chosen.identity, chosen.study.cells()), chosen.study, begun, clock)
    report.write_now_and_then()
    assert "1 of 3 cells" in page_of(begun)
    keep(begun, ("sop_hg_dagger-0",))
    report.write_now_and_then()
    assert "1 of 3 cells" in page_of(begun)
    clock.advance_s(study_report.EVERY_S)
    report.write_now_and_then()
    assert "2 of 3 cells" in page_of(begun)

    def refuse(path, value):
        raise OSError("No space left on device")

    monkeypatch.setattr(study_report, "write_json", refuse)
    clock.advance_s(study_report.EVERY_S)
    report.write_now_and_then()
    assert "can't be written now: No space left on device" in capsys.readouterr().err


def test_the_page_tells_the_study_and_the_machines_that_ran_it(begun):
    keep(begun, ("pretrained-0",))
    versions = {"sop-jax": "0", "revision": "4567def"}
    keep(begun, ("sop_hg_dagger-0",), Provenance("2026-01-02T00:00:00+00:00", "4 cores (two)", "Linux 2", versions))
    command = ["study", "--report-only", "main-results", f"--folder={begun}"]
    assert main(command) == 0
    first = page_of(begun)
    assert "<code>sop study main-results --preset ci</code>" in first
    assert "2 cores (one) / 4 cores (two); Linux 1 / Linux 2<" in first
    assert "sop-jax 0, revision 0123abc / 4567def<" in first
    assert "2026-01-02T00:00:00+00:00. One policy" in first
    assert str(begun) not in first
    assert main(command) == 0
    assert page_of(begun) == first


def test_before_the_first_cell_no_machine_is_told(begun):
    assert main(["study", "main-results", "--report-only", "--folder", str(begun)]) == 0
    assert "<dd>none yet; -</dd>" in page_of(begun)


@pytest.mark.parametrize("made", [True, False])
def test_a_report_of_no_study_is_refused_and_nothing_is_written(tmp_path, capsys, made):
    folder = tmp_path / "study"
    if made:
        folder.mkdir()
    assert main(["study", "main-results", "--report-only", "--folder", str(folder)]) == 2
    assert f"no study was begun in {folder}" in capsys.readouterr().err
    assert folder.exists() == made
    assert not list(tmp_path.rglob("*.*"))


def test_a_report_of_cells_alone_is_made(begun):
    keep(begun, ("pretrained-0",))
    (begun / "study.json").unlink()
    assert main(["study", "main-results", "--report-only", "--folder", str(begun)]) == 0
    assert (begun / "study.json").exists()


def test_demonstrations_are_collected_for_a_cell_that_runs_in_a_folder_that_is_locked(begun, monkeypatch):
    asked = []

    def collect(*rest):
        asked.append(rest)
        with (begun / "lock").open("w") as lock, pytest.raises(BlockingIOError):
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        raise KeyboardInterrupt

    monkeypatch.setattr("sop_jax.cli.study_workshop.collect", collect)
    command = ["study", "main-results", "--folder", str(begun)]
    assert main(command) == 130
    assert len(asked) == 1
    keep(begun, RESULTS)
    assert main(command) == 0  # no cell is left to run
    assert len(asked) == 1


def test_a_torn_cell_is_one_clear_line(begun, capsys):
    (begun / "cells" / "pretrained-0.json").write_text('{"result": ')
    assert main(["study", "main-results", "--folder", str(begun)]) == 2
    assert "cells/pretrained-0.json holds no finished cell" in capsys.readouterr().err


def test_studies_are_called_what_repeats_them():
    for kind, presets in {"main-results": MAIN_RESULTS, **SWEEPS, **LEARNING_STUDIES}.items():
        for name in presets:
            study = find_study(kind, name).study
            assert (study.kind, study.name) == (kind, name)
