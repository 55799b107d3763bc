import json

import pytest

from fleet_sim.studies.grid import Cell, Grid, StudyMismatchError, StudyRunningError
from sop_jax.specs.errors import ConfigError

CELLS = (
    Cell("base", "short"),
    Cell("online", "long", ("base",), cost=4.0),
    Cell("offline", "long", ("base", "online"), 4.0),
)


def test_cells_run_once_in_order_with_what_they_need(tmp_path):
    seen = []

    def run_cell(cell, work, results):
        assert work.is_dir()
        assert not list(work.iterdir())
        (work / "scratch").write_text("x")
        seen.append((cell.name, dict(results)))
        return {"value": len(seen)}

    grid = Grid(tmp_path, {"preset": "test"}, CELLS)
    assert grid.run(run_cell) == {"base": {"value": 1}, "online": {"value": 2}, "offline": {"value": 3}}
    assert seen == [
        ("base", {}),
        ("online", {"base": {"value": 1}}),
        ("offline", {"base": {"value": 1}, "online": {"value": 2}}),
    ]
    assert Grid(tmp_path, {"preset": "test"}, CELLS).run(run_cell)["offline"] == {"value": 3}
    assert len(seen) == 3
    assert not list((tmp_path / "work").iterdir())


def test_a_killed_study_goes_on_and_a_half_cell_begins_anew(tmp_path):
    def dies(cell, work, results):
        (work / "half").write_text("x")
        if cell.name == "online":
            raise OSError("killed")
        return {"by": "first"}

    with pytest.raises(OSError, match="killed"):
        Grid(tmp_path, {}, CELLS).run(dies)
    assert (tmp_path / "work" / "online" / "half").exists()
    names = []

    def lives(cell, work, results):
        names.append(cell.name)
        assert not list(work.iterdir())
        return {"by": "second"}

    results = Grid(tmp_path, {}, CELLS).run(lives)
    assert names == ["online", "offline"]
    assert results["base"] == {"by": "first"}


def test_a_request_to_stop_ends_between_cells(tmp_path):
    done = []
    with pytest.raises(KeyboardInterrupt):
        Grid(tmp_path, {}, CELLS).run(
            lambda cell, work, results: done.append(cell.name) or {}, should_stop=lambda: bool(done)
        )
    assert done == ["base"]


def test_another_study_in_the_folder_is_refused(tmp_path):
    Grid(tmp_path, {"seeds": 2}, CELLS)
    with pytest.raises(StudyMismatchError, match="holds another study"):
        Grid(tmp_path, {"seeds": 3}, CELLS)


def test_time_left_follows_cells_of_the_same_kind(tmp_path):
    told = []
    grid = Grid(tmp_path, {}, CELLS)
    for name, elapsed_s in (("base", 10.0), ("online", 100.0)):
        (tmp_path / "cells" / f"{name}.json").write_text(json.dumps({"result": {}, "elapsed_s": elapsed_s}))
    grid.run(lambda cell, work, results: {}, told.append)
    assert [(p.cell, p.num_done, p.num_cells, p.left_s) for p in told] == [("offline", 2, 3, pytest.approx(100.0))]
    assert grid.elapsed_s() == pytest.approx(110.0, abs=5.0)


def test_time_left_is_unknown_before_the_first_cell(tmp_path):
    told = []
    Grid(tmp_path, {}, CELLS[:1]).run(lambda cell, work, results: {}, told.append)
    assert told[0].left_s is None


@pytest.mark.parametrize("cells", [CELLS[1:], (CELLS[0], CELLS[0])])
def test_cells_must_be_in_order_and_different(tmp_path, cells):
    with pytest.raises(ConfigError, match="repeats, or needs cells"):
        Grid(tmp_path, {}, cells)


def test_names_are_file_names():
    with pytest.raises(ConfigError, match="must consist of letters"):
        Cell("../x", "k")


def test_a_second_process_leaves_the_first_ones_work_alone(tmp_path):
    def run_cell(cell, work, results):
        (work / "scratch").write_text("hours of it")
        with pytest.raises(StudyRunningError, match="another process runs the study"):
            Grid(tmp_path, {}, CELLS).run(lambda cell, work, results: {})
        assert (work / "scratch").read_text() == "hours of it"
        return {"by": "first"}

    assert Grid(tmp_path, {}, CELLS[:1]).run(run_cell) == {"base": {"by": "first"}}
    assert Grid(tmp_path, {}, CELLS[:1]).run(run_cell) == {"base": {"by": "first"}}  # and afterwards it may look


def test_a_folder_keeps_what_it_is_known_by(tmp_path):
    Grid(tmp_path, {"seeds": 2}, CELLS)
    kept = tmp_path / "study.json"
    written = kept.stat().st_mtime_ns, kept.stat().st_ino
    Grid(tmp_path, {"seeds": 2}, CELLS)
    assert (kept.stat().st_mtime_ns, kept.stat().st_ino) == written  # a full disk can't cut what isn't written again
    assert not list(tmp_path.glob("*.draft"))
