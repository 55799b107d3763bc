import json

import pytest

from configs.studies import CI
from fleet_sim.studies.methods import make_cells
from sop_jax.cli.main import main
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
