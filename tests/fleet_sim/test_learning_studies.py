"""Studies of fleets that learn: grids, analyses by hand, words, and going on after a stop; on made-up results."""

import contextlib
import dataclasses
import json
import pathlib

import pytest

from configs.learning_studies import BASES, DEMONSTRATIONS, ENDURANCE, FORGETTING, LEARNING_STUDIES
from fleet_sim.crew import LOCAL, Engine
from fleet_sim.journal import Journal
from fleet_sim.studies.grid import Cell, Grid
from fleet_sim.studies.study import Making
from sop_jax.cli.main import main
from sop_jax.evaluation.provenance import Provenance
from sop_jax.evaluation.world import WorldConfig
from sop_jax.specs.errors import ConfigError
from tests.fleet_sim.study_results import cell, evaluation

MAKING = Making("sop study x", Provenance("2026-01-01", "2 cores", "Linux", {"sop-jax": "0"}), 60.0)
SHELF = ("restock_shelf",)
WORLDS = ("restock_shelf.new_goods", "restock_misplaced")


def base(successes, **more):
    return {"evaluation": evaluation(successes), **more}


def retention(first, second):
    return {world: evaluation(text, (world,))[world] for world, text in zip(WORLDS, (first, second), strict=True)}


def mixed(successes, *points):
    """A cell of the forgetting study: at each point the task's trials, and those of both worlds."""
    found = cell(successes)
    found["curve"] = [
        {"time_s": 75.0 * (n + 1), "version": n, "evaluation": evaluation(task), "retention": retention(*worlds)}
        for n, (task, *worlds) in enumerate(points)
    ]
    return found


def look(time_s, **changes):
    held = {
        "memory_bytes": 500e6, "workers_bytes": 300e6, "num_files": 40, "disk_bytes": 9e6, "num_objects": 70,
        "num_items": 500, "num_publications": 12,
    }  # fmt: skip
    return {"time_s": time_s, **held, **changes}


RESULTS = {
    "bases": {
        "base-31": base("1000000000"),
        "online-31-0": cell("1111100000", human_s=240.0),
        "base-250": base("1111100000"),
        "online-250-0": cell("1111111000", human_s=120.0),
    },
    "demonstrations": {
        "pretrained-0": base("1100000000"),
        "sop_hg_dagger-1x-0": cell("1111110000", human_s=60.0),
        "more_demonstrations-1x-0": cell("1110000000", human_s=300.0),
        "sop_hg_dagger-2x-0": cell("1111111100", human_s=90.0),
        "more_demonstrations-2x-0": cell("1111110000", human_s=600.0),
    },
    "forgetting": {
        "pretrained-0": base("1000", retention=retention("1111", "1100")),
        "sop_hg_dagger-0": mixed("1110", ("1100", "1111", "1100"), ("1110", "1110", "1100")),
        "sop_hg_dagger_online_only-0": mixed("1111", ("1110", "1000", "1000"), ("1111", "0000", "0000")),
    },
    "endurance": {
        "run": {
            "fleet": cell("1")["fleet"],
            "versions": [0, 5, 9, 14, 20, 25, 31],
            "looks": [look(900.0 * n / 30, memory_bytes=500e6 + 2e6 * n) for n in range(1, 31)],
        },
        **{
            f"at-{n}": {"time_s": 150.0 * n, "version": n, "evaluation": evaluation(text)}
            for n, text in enumerate(["1000000000", *["1111111100"] * 2, *["1111111110"] * 4])
        },
    },
}
STUDIES = {
    "bases": BASES["ci"],
    "demonstrations": DEMONSTRATIONS["ci"],
    "forgetting": dataclasses.replace(FORGETTING["ci"], worlds={label: WorldConfig(image_size=8) for label in WORLDS}),
    "endurance": ENDURANCE["ci"],
}


def words_of(kind, results=None):
    return list(STUDIES[kind].report(RESULTS[kind] if results is None else results).words)


@pytest.mark.parametrize("kind", STUDIES)
def test_cells_come_after_what_they_need_and_are_what_the_analysis_reads(kind, tmp_path):
    study = STUDIES[kind]
    assert study.kind == kind
    assert {one.name for one in Grid(tmp_path, {}, study.cells()).cells} == set(RESULTS[kind])
    for preset in LEARNING_STUDIES[kind].values():
        assert preset.study.cells()
        assert preset.study.kind == kind


@pytest.mark.parametrize("kind", STUDIES)
def test_a_page_can_be_made_at_any_time(kind):
    """Before the first cell, after it and in the middle; the whole one is the same each time."""
    study, results = STUDIES[kind], RESULTS[kind]
    for num in (0, 1, len(results) // 2):
        done = {one.name: results[one.name] for one in study.cells()[:num]}
        page = study.report(done).page(dataclasses.replace(MAKING, unfinished="some"))
        assert "Not finished: some." in page
    report = study.report(results)
    page = report.page(MAKING)
    assert page == study.report(results).page(MAKING)
    assert page.count("<svg") >= 1
    assert all(word in page.replace("&#39;", "'") for word in report.words)
    assert json.loads(json.dumps(report.numbers))["words"] == list(report.words)
    assert report.table.count("| --- |") >= 1


@pytest.mark.parametrize("kind", STUDIES)
def test_a_page_can_be_made_without_a_cell_that_failed(kind):
    study, results = STUDIES[kind], RESULTS[kind]
    for failed in study.cells():
        lost = {failed.name}
        for one in study.cells():
            lost |= {one.name} if lost.intersection(one.needs) else set()
        done = {name: result for name, result in results.items() if name not in lost}
        assert "Not finished: some." in study.report(done).page(dataclasses.replace(MAKING, unfinished="some"))


@pytest.mark.parametrize("kind", STUDIES)
def test_a_study_goes_on_where_it_was(kind, tmp_path):
    """Its cells may be run by several processes after each other, each needing no more than the results that it names."""
    study, asked = STUDIES[kind], []

    def run_cell(one, work, results):
        assert set(results) == set(one.needs)
        if len(asked) == 2:
            asked.append("stopped")
            raise KeyboardInterrupt
        asked.append(one.name)
        for path in one.leaves:
            (tmp_path / path).mkdir(parents=True)
        return RESULTS[kind][one.name]

    with pytest.raises(KeyboardInterrupt):
        Grid(tmp_path, {}, study.cells()).run(run_cell)
    assert Grid(tmp_path, {}, study.cells()).run(run_cell) == RESULTS[kind]
    assert [name for name in asked if name != "stopped"] == [one.name for one in study.cells()]


class Bench:
    """A workshop whose methods remember what they were asked."""

    def __init__(self, folder):
        self.folder, self.asked, self.trained = folder, [], []

    def collect(self):
        for robot in ("demonstrator-0", "demonstrator-1"):
            place = self.folder / "all" / "episodes" / robot
            place.mkdir(parents=True, exist_ok=True)
            for number in range(125):
                (place / f"{number:04d}.zip").write_text("x")
        return self.folder / "all"

    def train_base(self, work, num_demonstrations, steps, output):
        found = len(list((work / "store" / "episodes").glob("*/*.zip")))
        self.trained.append((found, num_demonstrations, steps))
        output.mkdir(parents=True)

    def methods(self, config, **changes):
        bench = self

        class Methods:
            def run_cell(self, one, work, results):
                bench.asked.append((one.name, config.duration_s, sorted(results), changes))
                return {"evaluation": {}}

        return Methods()


def test_bases_are_made_from_the_first_demonstrations_and_kept(tmp_path):
    bench, study = Bench(tmp_path), BASES["ci"]
    run_cell = study.runner(bench)  # type: ignore[arg-type]
    for name in ("base-31", "online-31-0"):
        (tmp_path / name).mkdir()
        run_cell(Cell(name, "x"), tmp_path / name, {})
    assert bench.trained == [(31, 31, study.base_steps)]
    made = tmp_path / "bases" / "31"
    places = {"policy": made / "policy", "demonstrations": made / "store"}
    assert bench.asked == [("pretrained-0", 200.0, [], places), ("sop_hg_dagger-0", 200.0, [], places)]
    assert len(list((made / "store" / "episodes").glob("*/*.zip"))) == 31
    (made / "policy" / "policy.json").write_text("x")  # as `sop pretrain` leaves it
    (base,) = [one for one in study.cells() if one.name == "base-31"]
    assert len(base.leaves) == 2
    assert all((tmp_path / path).exists() for path in base.leaves)


def test_demonstrations_get_the_amount_and_the_twin(tmp_path):
    bench = Bench(tmp_path)
    run_cell = DEMONSTRATIONS["ci"].runner(bench)  # type: ignore[arg-type]
    run_cell(Cell("sop_hg_dagger-2x-0", "online"), tmp_path, {})
    run_cell(Cell("more_demonstrations-2x-0", "x"), tmp_path, {"sop_hg_dagger-2x-0": {"fleet": {}}})
    assert [asked[:3] for asked in bench.asked] == [
        ("sop_hg_dagger-0", 120.0, []),
        ("more_demonstrations-0", 120.0, ["sop_hg_dagger-0"]),
    ]


class ShortRun:
    """A workshop with a fleet that publishes a version per look, and may be killed."""

    def __init__(self, folder, killed=False, engine=LOCAL):
        self.folder, self.find_policy, self._killed, self._looks = folder, pathlib.Path, killed, []
        self.engine = engine

    def methods(self, config, **changes):
        return self

    @contextlib.contextmanager
    def fleet(self, work, *rest):
        self._work = work
        yield self

    def keep_store_small(self, *rest):
        pass

    def at(self, times_s, call):
        self._looks += [(time_s, call) for time_s in times_s]

    def version_at(self, time_s):
        version = round(time_s)
        (self._work / "store" / "weights" / f"{version:08d}").mkdir(parents=True)
        return version

    def table_sizes(self):
        return {}

    def run(self, stage):
        for time_s, call in self._looks:
            call(time_s)
        if self._killed:
            raise KeyboardInterrupt

    def journal(self):
        return Journal((), (), 0, 6, 900.0, 2, 0.5)


def test_what_the_long_run_keeps_appears_whole(tmp_path):
    study = ENDURANCE["ci"]
    run = study.cells()[0]
    kept = tmp_path / run.leaves[0]
    with pytest.raises(KeyboardInterrupt):
        study.runner(ShortRun(tmp_path, killed=True))(run, tmp_path / "work-0", {})
    assert not kept.exists()
    study.runner(ShortRun(tmp_path))(run, tmp_path / "work-1", {})
    assert len(list((kept / "weights").iterdir())) == study.methods.curve_points
    assert sorted(path.name for path in tmp_path.iterdir() if "kept" in path.name) == ["kept"]


@pytest.mark.parametrize(("engine", "are_seen"), [(LOCAL, True), (Engine("ray"), False)])
def test_the_memory_of_a_ray_clusters_workers_is_not_measured(tmp_path, engine, are_seen):
    study = ENDURANCE["ci"]
    found = study.runner(ShortRun(tmp_path, engine=engine))(study.cells()[0], tmp_path / "work", {})
    assert {look["workers_bytes"] is not None for look in found["looks"]} == {are_seen}
    assert all(look["memory_bytes"] > 0 for look in found["looks"])


def test_bases_by_hand():
    few, many, apart = words_of("bases")
    assert few.startswith(
        "From 31 demonstrations the base policy succeeds in 10% [2, 40], and in 50% [24, 76] after the run (+40 ["
    )
    assert few.endswith("for 4.0 minutes of people at the controls.")
    assert many.startswith("From 250 demonstrations the base policy succeeds in 50% [")
    assert apart.startswith("Between the fewest and the most demonstrations lie +40 points before the run and +20 [")
    assert apart.endswith("can't be told from none on these trials.")
    rows = BASES["ci"].report(RESULTS["bases"]).numbers["bases"]
    assert [row["rise"]["difference"]["value"] for row in rows] == pytest.approx([0.4, 0.2])
    assert rows[0]["rise"]["p_value"] == pytest.approx(2 / 2**4)
    assert len(words_of("bases", {"base-31": RESULTS["bases"]["base-31"]})) == 1


def test_unequal_seeds_are_not_compared():
    """Of one number the first training seed is done, of the other the second."""
    two_seeds = {
        name: dataclasses.replace(STUDIES[name].methods, training_seeds=2) for name in ("bases", "demonstrations")
    }
    bases, amounts = (dataclasses.replace(STUDIES[name], methods=methods) for name, methods in two_seeds.items())
    results = {name.replace("-250-0", "-250-1"): found for name, found in RESULTS["bases"].items()}
    report = bases.report(results)
    assert [row["against_most"] for row in report.numbers["bases"]] == [None, None]
    assert [row["rise"]["num_seeds"] for row in report.numbers["bases"]] == [1, 1]
    assert len(report.words) == 2
    shifted = {name.replace("more_demonstrations-1x-0", "more_demonstrations-1x-1"): found
               for name, found in RESULTS["demonstrations"].items()}  # fmt: skip
    assert [one["times"] for one in amounts.report(shifted).numbers["contrasts"]] == [2]


def test_demonstrations_by_hand():
    words = words_of("demonstrations")
    assert words[0] == "The base policy succeeds in 20% [6, 51]."
    assert words[1].startswith(
        "2.00 robot-hours online end at 60% [31, 83] with people at the controls for 1.0 minutes, on demonstrations at 30% ["
    )
    assert "+30 [" in words[1]
    assert words[1].endswith("Demonstrations take people 5.0 times as long at the controls, 1.4 times with resets.")
    assert words[3] == "What 1 x the unit of robot time gave online, demonstrations gave at 2 x."
    report = DEMONSTRATIONS["ci"].report(RESULTS["demonstrations"])
    assert "| BC on more demonstrations | 2 | 60% [31, 83] | 2.00 | 10.0 | 18.0 | 1,000 |" in report.table


def test_forgetting_by_hand():
    adaptive, online_only = words_of("forgetting")
    # Of eight trials elsewhere the base did six; the adaptive mix five at the end, online only none.
    assert adaptive.startswith("SOP + HG-DAgger: restock_shelf +50 [")
    assert "elsewhere (75%) +12 [" in adaptive
    assert "which can't be told from nothing; most in restock_shelf.new_goods (+25 [" in adaptive
    assert "elsewhere (75%) +75 [" in online_only
    assert "more than chance explains; most in restock_shelf.new_goods (+100 [" in online_only
    report = STUDIES["forgetting"].report(RESULTS["forgetting"])
    assert "| all | 75% | 75%, lost +0 [" in report.table
    first = report.numbers["methods"][1]["times"][75.0]
    assert first["all"]["forgotten"]["value"] == pytest.approx(0.5)
    assert first["restock_misplaced"]["kept"]["value"] == pytest.approx(0.25)


def test_forgetting_of_two_training_seeds_is_pooled():
    methods = dataclasses.replace(FORGETTING["ci"].methods, training_seeds=2)
    study = dataclasses.replace(STUDIES["forgetting"], methods=methods)
    again = {**RESULTS["forgetting"], "sop_hg_dagger-1": mixed("1110", *[("1100", "1100", "1100")] * 2)}
    adaptive = study.report(again).numbers["methods"][0]["times"][150.0]
    assert adaptive["all"]["forgotten"]["value"] == pytest.approx((1 / 8 + 2 / 8) / 2)
    assert adaptive["all"]["kept"]["value"] == pytest.approx(9 / 16)


def test_endurance_by_hand():
    spent, trend, flat, grows = words_of("endurance")
    assert spent == "2.00 robot-hours, 1.0 minutes of people at the controls, 1,000 learner steps, 40 publications."
    assert trend.startswith("Over the second half the line through success goes +0 [")
    assert "a decline can't be told from none" in trend
    # Memory grows by 2 MB each 30 s: 240 MB an hour, 30 MB of 545 in the half.
    assert grows.startswith(
        "It grows: memory of simulation and learner (+240.0 MB [+240.0 MB, +240.0 MB] per virtual hour, +5.5%"
    )
    assert "open file descriptors" in flat
    numbers = ENDURANCE["ci"].report(RESULTS["endurance"]).numbers
    assert list(numbers["verdicts"].values()) == ["grows", *["flat"] * 6]
    assert numbers["held"][0]["per_hour"]["value"] == pytest.approx(240e6)
    assert numbers["change"]["low"] < -0.01 < 0.01 < numbers["change"]["high"]  # four looks alike are no certainty


def test_what_no_look_could_see_is_not_called_flat():
    run = RESULTS["endurance"]["run"]
    for found in (None, 0):
        looks = [{**one, "workers_bytes": found} for one in run["looks"]]
        report = ENDURANCE["ci"].report({"run": {**run, "looks": looks}})
        assert report.numbers["verdicts"]["workers_bytes"] == "not measured"
        assert "| memory of the workers | - | - | - | - | - | not measured |" in report.table
        assert report.words[-1].startswith("Not measured: memory of the workers (")
        assert not any("Flat" in words and "workers" in words for words in report.words)
        page = report.page(MAKING)
        assert "Memory of simulation and learner</h" in page
        assert "Memory of the workers</h" not in page
    empty = {"run": {**run, "looks": [{**one, "num_publications": 0} for one in run["looks"]]}}
    assert ENDURANCE["ci"].report(empty).numbers["verdicts"]["num_publications"] == "flat"  # there can be none


def test_a_few_looks_tell_nothing():
    run = RESULTS["endurance"]["run"]
    report = ENDURANCE["ci"].report({"run": {**run, "looks": run["looks"][::6]}})
    assert set(report.numbers["verdicts"].values()) == {"not told"}
    assert "+240.0 MB (too few looks for an interval)" in report.table
    assert "inf" not in report.table


def test_a_decline_is_said():
    falling = {
        **RESULTS["endurance"],
        **{
            f"at-{n}": {"time_s": 150.0 * n, "version": n, "evaluation": evaluation("1" * (80 - 12 * n) + "0" * 12 * n)}
            for n in range(1, 7)
        },
    }
    assert "it declines" in words_of("endurance", falling)[1]


@pytest.mark.parametrize(
    ("study", "changes", "message"),
    [
        (BASES["ci"], {"num_demonstrations": (250, 31)}, "rising numbers of demonstrations"),
        (DEMONSTRATIONS["ci"], {"multiples": (2, 1)}, "multiples must rise"),
        (FORGETTING["ci"], {"worlds": {"all": WorldConfig()}}, "by labels other than 'all'"),
        (ENDURANCE["ci"], {"num_looks": 31}, "num_looks a multiple"),
    ],
)
def test_presets_refuse_nonsense(study, changes, message):
    with pytest.raises(ConfigError, match=message):
        dataclasses.replace(study, **changes)


@pytest.mark.slow
@pytest.mark.timeout(1800)
def test_the_long_run_end_to_end(tmp_path):
    """The preset `ci`, demonstrations included: it learns, and neither memory nor open files grow."""
    assert main(["study", "endurance", "--workers", "1", "--folder", str(tmp_path / "study")]) == 0
    numbers = json.loads((tmp_path / "study" / "results.json").read_text())
    assert numbers["num_cells_done"] == numbers["num_cells"] == 8
    first, last = numbers["curve"][0][1]["value"], numbers["curve"][-1][1]["value"]
    assert last > first
    held = {one["name"]: one for one in numbers["held"]}
    assert held["num_files"]["high"] == held["num_files"]["low"]
    assert held["memory_bytes"]["change"]["value"] < 0.05
    assert held["num_items"]["high"] < 200  # of the 130 episodes that were played, a fifth is kept
    assert held["num_publications"]["high"] < 20  # of 36
