import hashlib
import json

import pytest

from fleet_sim.studies.grid import Cell, CellsFailedError, Grid, StudyRunningError
from fleet_sim.studies.kept_cells import DamagedCellError, KeptCell, KeptCells, StudyMismatchError
from sop_jax.evaluation.provenance import Provenance
from sop_jax.specs.errors import ConfigError, SopError

MACHINE = Provenance("2026-01-01T00:00:00+00:00", "2 cores", "Linux", {"sop-jax": "0"})

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
        KeptCells(tmp_path, {}).write(name, KeptCell({}, elapsed_s, MACHINE))
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


RECAP = (
    Cell("value", "x", leaves=("value/returns.json",)),
    Cell("base", "x", ("value",), leaves=("base/policy.json",)),
    Cell("other", "x"),
    Cell("recap-0", "x", ("value", "base")),
    Cell("recap-1", "x", ("value", "base")),
)


def leave(folder, names, asked):
    """Runs cells: each leaves what it says, those of `names` fail."""

    def run_cell(cell, work, results):
        asked.append(cell.name)
        if cell.name in names:
            raise SopError("its worker died")
        for path in cell.leaves:
            (folder / path).parent.mkdir(exist_ok=True)
            (folder / path).write_text("x")
        return {}

    return run_cell


def test_a_cell_that_fails_takes_those_that_need_it_with_it_and_no_others(tmp_path):
    asked, notes, done = [], [], []
    grid = Grid(tmp_path, {}, RECAP)
    with pytest.raises(CellsFailedError) as failed:
        grid.run(
            leave(tmp_path, {"base"}, asked), on_note=notes.append, on_done=lambda: done.append(len(grid.results()))
        )
    assert asked == ["value", "base", "other"]
    assert done == [1, 2]
    assert notes == [
        "cell base failed: its worker died",
        "cell recap-0 is skipped: it needs base",
        "cell recap-1 is skipped: it needs base",
    ]
    told = str(failed.value)
    assert told.startswith("failed cells: base (its worker died); skipped, for they need these: recap-0, recap-1.")
    assert f"in {tmp_path / 'work'}; mend the cause and run the same command" in told
    assert (tmp_path / "work" / "base").is_dir()
    asked.clear()
    assert list(grid.run(leave(tmp_path, (), asked))) == [cell.name for cell in RECAP]
    assert asked == ["base", "recap-0", "recap-1"]


def test_what_is_skipped_takes_more_with_it_and_equal_errors_are_told_once(tmp_path):
    with pytest.raises(
        CellsFailedError, match=r"^failed cells: value, other \(its worker died\); skip.*: base, recap-0"
    ):
        Grid(tmp_path, {}, RECAP).run(leave(tmp_path, {"value", "other"}, []))


def test_what_needs_a_skipped_cell_is_skipped(tmp_path):
    chain = (Cell("one", "x"), Cell("two", "x", ("one",)), Cell("three", "x", ("two",)))
    with pytest.raises(CellsFailedError, match=r"^failed cells: one .*: two, three"):
        Grid(tmp_path, {}, chain).run(leave(tmp_path, {"one"}, []))


def test_progress_passes_over_cells_that_failed(tmp_path):
    told = []
    with pytest.raises(CellsFailedError):
        Grid(tmp_path, {}, RECAP).run(leave(tmp_path, {"value"}, []), told.append)
    assert [(progress.cell, progress.num_done) for progress in told] == [("value", 0), ("other", 2)]


def test_a_stop_that_reached_a_cells_processes_first_is_a_stop(tmp_path):
    asked, notes = [], []
    grid = Grid(tmp_path, {}, RECAP[:1])
    with pytest.raises(KeyboardInterrupt):
        grid.run(leave(tmp_path, {"value"}, asked), should_stop=lambda: bool(asked), on_note=notes.append)
    assert (asked, notes) == (["value"], [])


def test_what_a_cell_left_is_made_again_if_a_cell_still_to_run_needs_it(tmp_path):
    asked, notes = [], []
    Grid(tmp_path, {}, RECAP).run(leave(tmp_path, (), asked))
    (tmp_path / "value" / "returns.json").unlink()
    whole = Grid(tmp_path, {}, RECAP)
    assert whole.left() == []  # nothing needs it any more
    assert whole.unfinished() == ""
    (tmp_path / "cells" / "recap-1.json").unlink()
    assert [cell.name for cell in whole.left()] == ["value", "recap-1"]
    assert whole.unfinished() == "3 of 5 cells are done"
    (tmp_path / "base" / "policy.json").unlink()
    asked.clear()
    assert len(whole.run(leave(tmp_path, (), asked), on_note=notes.append)) == 5
    assert asked == ["value", "base", "recap-1"]
    assert notes[0] == "cell value runs again: what it left to others is gone (value/returns.json)"
    assert len(notes) == 2


def run_all(folder, identity):
    Grid(folder, identity, CELLS).run(lambda cell, work, results: {"by": cell.name})


def test_a_cell_of_another_study_is_refused_by_name(tmp_path):
    run_all(tmp_path / "one", {"seeds": 2})
    run_all(tmp_path / "two", {"seeds": 3})
    strange = tmp_path / "two" / "cells" / "online.json"
    strange.write_bytes((tmp_path / "one" / "cells" / "online.json").read_bytes())
    with pytest.raises(
        StudyMismatchError, match=r"two/cells/online.json belongs to another study: .*or delete the file"
    ):
        Grid(tmp_path / "two", {"seeds": 3}, CELLS)
    (tmp_path / "two" / "study.json").unlink()
    with pytest.raises(StudyMismatchError, match=r"two/cells/base.json belongs to another study"):
        Grid(tmp_path / "two", {"seeds": 4}, CELLS)
    assert not (tmp_path / "two" / "study.json").exists()


def test_a_cell_that_does_not_say_its_study_is_refused(tmp_path):
    run_all(tmp_path, {})
    (tmp_path / "cells" / "base.json").write_text(json.dumps({"result": {}, "elapsed_s": 1.0}))
    with pytest.raises(
        StudyMismatchError, match=r"base.json doesn't say which study it belongs to, .* delete the file"
    ):
        Grid(tmp_path, {}, CELLS)


def test_a_lost_identity_is_written_anew_beside_cells_that_match(tmp_path):
    run_all(tmp_path, {"seeds": 2})
    kept = tmp_path / "study.json"
    text = kept.read_text()
    kept.unlink()
    assert Grid(tmp_path, {"seeds": 2}, CELLS).left() == []
    assert kept.read_text() == text


@pytest.mark.parametrize("torn", ['{"result": {"a"', "", "[]", '"x"', "whole without made_on"])
def test_a_torn_cell_is_told_by_name(tmp_path, torn):
    run_all(tmp_path, {})
    path = tmp_path / "cells" / "online.json"
    if torn.startswith("whole"):
        torn = json.dumps({name: value for name, value in json.loads(path.read_text()).items() if name != "made_on"})
    path.write_text(torn)
    with pytest.raises(DamagedCellError, match=r"cells/online.json holds no finished cell .*: delete it, and the cell"):
        Grid(tmp_path, {}, CELLS)
    path.unlink()
    assert [cell.name for cell in Grid(tmp_path, {}, CELLS).left()] == ["online"]


def test_a_cell_says_what_it_was_made_on(tmp_path, monkeypatch):
    monkeypatch.setattr("sop_jax.evaluation.provenance._revision", lambda file: "0123abc-dirty")
    run_all(tmp_path, {})
    content = json.loads((tmp_path / "cells" / "base.json").read_text())
    assert content["study"] == hashlib.sha256((tmp_path / "study.json").read_bytes()).hexdigest()
    assert content["made_on"]["versions"]["revision"] == "0123abc-dirty"
    assert "core" in content["made_on"]["hardware"]
    assert [made.versions["revision"] for made in Grid(tmp_path, {}, CELLS).made_on()] == ["0123abc-dirty"] * 3


def make_with(folder, asked, text="x", **texts):
    """Runs cells: each leaves files that hold `text`, or what `texts` says for it, and tells what it was made with."""

    def run_cell(cell, work, results):
        asked.append(cell.name)
        for path in cell.leaves:
            (folder / path).parent.mkdir(exist_ok=True)
            (folder / path).write_text(texts.get(cell.name, text))
        return {"made_with": text}

    return run_cell


def test_cells_note_what_they_leant_on(tmp_path):
    Grid(tmp_path, {}, RECAP).run(make_with(tmp_path, [], value="first", base="second"))
    kept = {path.stem: json.loads(path.read_text()) for path in (tmp_path / "cells").iterdir()}
    value, base = kept["value"]["left"], kept["base"]["left"]
    assert len(value) == len(base) == 16
    assert value != base
    assert kept["base"]["leant_on"] == {"value": value}
    assert kept["recap-0"]["leant_on"] == kept["recap-1"]["leant_on"] == {"value": value, "base": base}
    assert (kept["recap-0"]["left"], kept["other"]["leant_on"]) == ("", {})


def test_cells_that_lean_on_another_value_function_are_not_mixed(tmp_path):
    """The value function is lost with a cell still to run, and comes out differently when it is made again."""
    asked, notes = [], []
    Grid(tmp_path, {}, RECAP).run(make_with(tmp_path, asked))
    (tmp_path / "value" / "returns.json").unlink()
    (tmp_path / "cells" / "recap-1.json").unlink()
    asked.clear()
    found = Grid(tmp_path, {}, RECAP).run(make_with(tmp_path, asked, "another"), on_note=notes.append)
    assert asked == ["value", "base", "recap-0", "recap-1"]
    assert {name: result["made_with"] for name, result in found.items()} == {
        **dict.fromkeys(("value", "base", "recap-0", "recap-1"), "another"),
        "other": "x",
    }
    again = "runs again: what it leant on was made anew since, and differs"
    assert notes == [
        "cell value runs again: what it left to others is gone (value/returns.json)",
        f"cell base {again} (value)",
        f"cell recap-0 {again} (value, base)",
    ]
    assert Grid(tmp_path, {}, RECAP).left() == []


def test_a_report_leaves_out_what_leans_on_another_value_function(tmp_path):
    Grid(tmp_path, {}, RECAP).run(make_with(tmp_path, []))
    (tmp_path / "value" / "returns.json").write_text("another")  # the value cell was killed after it had made it anew
    grid = Grid(tmp_path, {}, RECAP)
    assert list(grid.results()) == ["value", "other"]
    assert [cell.name for cell in grid.left()] == ["base", "recap-0", "recap-1"]
    assert grid.unfinished() == (
        "2 of 5 cells are done; to run again, for what they lean on was made anew and differs: base, recap-0, recap-1"
    )
    (tmp_path / "value" / "returns.json").unlink()  # gone: what counts is what the value cell noted
    assert grid.unfinished() == ""
    kept = tmp_path / "cells" / "value.json"
    kept.write_text(json.dumps({**json.loads(kept.read_text()), "left": "0123456789abcdef"}))
    assert [cell.name for cell in grid.left()] == ["value", "base", "recap-0", "recap-1"]


def test_cells_of_before_it_was_noted_stay_until_what_they_leant_on_is_made_anew(tmp_path):
    Grid(tmp_path, {}, RECAP).run(make_with(tmp_path, []))
    for path in (tmp_path / "cells").iterdir():
        content = json.loads(path.read_text())
        del content["left"], content["leant_on"]
        path.write_text(json.dumps(content))
    assert Grid(tmp_path, {}, RECAP).left() == []
    (tmp_path / "cells" / "recap-1.json").unlink()
    asked = []
    Grid(tmp_path, {}, RECAP).run(make_with(tmp_path, asked))
    assert asked == ["recap-1"]
    asked.clear()
    (tmp_path / "value" / "returns.json").unlink()
    (tmp_path / "cells" / "recap-1.json").unlink()
    Grid(tmp_path, {}, RECAP).run(make_with(tmp_path, asked))
    assert asked == ["value", "base", "recap-0", "recap-1"]  # nobody knows whether recap-0 leant on the same
