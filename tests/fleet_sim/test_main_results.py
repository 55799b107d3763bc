import copy
import dataclasses
import json
import pathlib
import re

import pytest

from configs.studies import CI, MAIN_RESULTS, SMALL
from fleet_sim.config import Stage
from fleet_sim.studies.grid import Cell
from fleet_sim.studies.main_analysis import analyse, mean_success
from fleet_sim.studies.main_report import as_json, render_study, table_md
from fleet_sim.studies.main_results import MainResults, Places, frames_by_task, link_episodes
from fleet_sim.studies.methods import METHODS, RECAP_BASE_CELL, VALUE_CELL, MainResultsConfig, make_cells
from fleet_sim.studies.study import Making
from sop_jax.algorithms.recap.recap import POSITIVE
from sop_jax.cli.locations import REPOSITORY
from sop_jax.episodes.store import EpisodeStore
from sop_jax.episodes.synthetic import make_episode
from sop_jax.evaluation.provenance import Provenance
from sop_jax.specs.conditioning import Conditioning
from sop_jax.specs.errors import ConfigError
from tests.fleet_sim.study_results import cell, evaluation, fleet

PROVENANCE = Provenance("2026-01-01T00:00:00+00:00", "2 cores", "Linux", {"sop-jax": "0"})
PLACES = Places(pathlib.Path("policy"), pathlib.Path("demonstrations"), pathlib.Path("value"), 1)
RESULTS = {
    "pretrained-0": {
        "evaluation": evaluation("1000000000"),
        "retention": evaluation("1100", tasks=("restock_freezer",)),
    },
    "sop_hg_dagger-0": cell(
        "1111111110", curve=[(300.0, "1110"), (600.0, "1111")], retention=evaluation("1000", tasks=("restock_freezer",))
    ),
    "sop_hg_dagger-1": cell("1111111100", curve=[(300.0, "1111"), (600.0, "1111")], human_s=180.0),
    "offline_hg_dagger-0": cell("1111100000", human_s=60.0),
    "offline_hg_dagger-1": cell("1111000000", human_s=60.0),
}
STUDY = dataclasses.replace(
    SMALL.study, methods=("pretrained", "sop_hg_dagger", "offline_hg_dagger"), duration_s=1200.0
)
WITH_RECAP = {
    **RESULTS,
    VALUE_CELL: {"fleet": fleet(human_s=0.0, steps=0, successes=22)},
    RECAP_BASE_CELL: {"fleet": fleet(human_s=0.0, steps=2000, successes=0), "evaluation": evaluation("1110000000")},
    "sop_recap-0": cell("1111110000"),
    "sop_recap-1": cell("1111100000"),
    "offline_recap-1": cell("1111000000"),
}


def differences(analysis, task="restock_shelf"):
    """(second, first) -> the difference, in points, and of how many training seeds."""
    return {
        (one.second, one.first): (round(100 * one.difference.value), one.num_seeds)
        for one in analysis.contrasts
        if one.task == task
    }


def test_the_grid_holds_every_method_and_seed_after_what_it_needs():
    cells = make_cells(SMALL.study)
    names = [one.name for one in cells]
    assert names[0] == VALUE_CELL
    assert names.count("pretrained-0") == 1
    assert "pretrained-1" not in names  # nothing in it is drawn anew
    assert len(cells) == 3 + 2 * 5
    needs = {one.name: one.needs for one in cells}
    assert needs[RECAP_BASE_CELL] == (VALUE_CELL,)
    assert needs["offline_recap-1"] == ("sop_recap-1", VALUE_CELL, RECAP_BASE_CELL)
    leaves = {one.name: one.leaves for one in cells if one.leaves}
    assert leaves == {
        VALUE_CELL: ("value/value.json", "value/returns.json"),
        RECAP_BASE_CELL: ("recap_base/policy.json",),
    }
    unprepared = make_cells(dataclasses.replace(SMALL.study, recap_base_steps=0))
    assert {one.name: one.needs for one in unprepared}["sop_recap-0"] == (VALUE_CELL,)
    assert RECAP_BASE_CELL not in [one.name for one in unprepared]
    assert needs["more_demonstrations-0"] == ("sop_hg_dagger-0",)
    assert needs["sop_hg_dagger-1"] == ()


@pytest.mark.parametrize("preset", MAIN_RESULTS.values(), ids=MAIN_RESULTS)
def test_presets_can_be_laid_out(preset):
    assert make_cells(preset.study)
    for task in preset.study.tasks:
        assert preset.demonstrations_of(task).num_episodes > 0
    assert (REPOSITORY / preset.study.policy / "policy.json").is_file(), (
        f"{preset.study.policy} isn't in the repository"
    )


def test_offline_methods_spend_what_their_twin_spent():
    study = MainResults(STUDY, PLACES, lambda store, output: None)
    twin = {"fleet": {"learner_steps": 1001, "human_s": 90.0}}
    online = study.stages_of(METHODS["sop_hg_dagger"], None)
    assert online == [Stage(1200.0, learner_steps=14_400)]
    rounds = study.stages_of(METHODS["offline_hg_dagger"], twin)
    assert rounds == [  # what people didn't spend in the first round is left for the second
        Stage(600.0, then_steps=500, human_total_s=45.0, finishes=True),
        Stage(600.0, then_steps=501, human_total_s=90.0),
    ]
    demonstrations = study.stages_of(METHODS["more_demonstrations"], twin)
    assert demonstrations == [Stage(1200.0, robots="expert", then_steps=1001)]


def test_samplers_of_the_ablations(tmp_path):
    store = EpisodeStore(f"file://{tmp_path}/store/")
    for task, num_frames in (("restock_shelf", 30), ("restock_shelf", 30), ("box_assembly", 90)):
        store.put(make_episode(len(store.list_paths()), num_frames, task=task, robot_id="demonstrator-0"))
    assert frames_by_task(tmp_path / "store") == {"restock_shelf": 60.0, "box_assembly": 90.0}
    places = dataclasses.replace(PLACES, demonstrations=tmp_path / "store")
    study = MainResults(STUDY, places, lambda store, output: None)
    assert study.sampler_of(METHODS["sop_hg_dagger_task_proportional"]).task_weights["box_assembly"] == 90.0
    only = study.sampler_of(METHODS["sop_hg_dagger_online_only"])
    assert (only.mode, only.fixed_online_share) == ("fixed", 1.0)
    assert study.sampler_of(METHODS["sop_hg_dagger_fixed"]).fixed_online_share == 0.5
    assert study.sampler_of(METHODS["sop_hg_dagger"]).mode == "adaptive"


def test_demonstrations_are_linked_and_not_copied(tmp_path):
    store = EpisodeStore(f"file://{tmp_path}/one/")
    store.put(make_episode(0, 30, robot_id="demonstrator-0"))
    link_episodes(tmp_path / "one", tmp_path / "two")
    (path,) = EpisodeStore(f"file://{tmp_path}/two/").list_paths()
    assert (tmp_path / "one" / path).samefile(tmp_path / "two" / path)


def test_the_first_demonstrations_are_those_of_a_smaller_collection(tmp_path):
    store = EpisodeStore(f"file://{tmp_path}/all/")
    for seed in range(8):
        store.put(make_episode(seed, 30, robot_id=f"demonstrator-{seed % 2}"))
    link_episodes(tmp_path / "all", tmp_path / "five", 5)
    paths, kept = store.list_paths(), EpisodeStore(f"file://{tmp_path}/five/").list_paths()
    assert [path for path in paths if path in kept] == paths[:3] + paths[4:6]  # as `DemonstrationsConfig.share_of`
    with pytest.raises(ConfigError, match=r"holds 4 demonstrations, expected at least 5"):
        link_episodes(tmp_path / "all", tmp_path / "ten", 10)


def test_the_first_demonstrations_are_those_of_the_first_collectors(tmp_path):
    for number in range(12):
        folder = tmp_path / "all" / "episodes" / f"demonstrator-{number}"
        folder.mkdir(parents=True)
        (folder / "000.zip").write_text("x")
    link_episodes(tmp_path / "all", tmp_path / "three", 3)
    linked = [path.parent.name for path in (tmp_path / "three").rglob("*.zip")]
    assert sorted(linked) == ["demonstrator-0", "demonstrator-1", "demonstrator-2"]


def test_figures_by_hand():
    analysis = analyse(STUDY, RESULTS)
    rows = {row.name: row for row in analysis.rows}
    assert list(rows) == ["pretrained", "sop_hg_dagger", "offline_hg_dagger"]
    assert rows["pretrained"].tasks["laundry_fold"].success.value == pytest.approx(0.1)
    assert rows["pretrained"].tasks["laundry_fold"].paper == 0.58
    assert rows["pretrained"].spending.robot_hours is None
    sop = rows["sop_hg_dagger"]
    assert sop.num_seeds == 2
    assert sop.tasks["restock_shelf"].success.value == pytest.approx(0.85)
    assert sop.tasks["restock_shelf"].success.low < 0.85 < sop.tasks["restock_shelf"].success.high
    assert (sop.tasks["box_assembly"].failures, sop.tasks["box_assembly"].num_trials) == (
        {"": {"dropped": 3}},
        20,
    )
    assert sop.spending.human_minutes == pytest.approx(2.0)
    assert sop.spending.people_minutes == pytest.approx(2.0 + 48 * 10 / 60)
    assert sop.spending.human_minutes_per_success == pytest.approx(4.0 / 80)
    assert mean_success(sop) == pytest.approx(0.85)
    assert (sop.twin_minutes, rows["offline_hg_dagger"].twin_minutes) == (None, pytest.approx(2.0))

    against_offline = [c for c in analysis.contrasts if c.first == "HG-DAgger"]
    assert [c.task for c in against_offline] == list(STUDY.tasks)
    assert against_offline[0].second == "SOP + HG-DAgger"
    assert against_offline[0].difference.value == pytest.approx(0.4)
    assert against_offline[0].difference.low > 0
    assert against_offline[0].p_value is None
    assert [c.first for c in analysis.contrasts[3:]] == ["pre-trained"] * 3

    time = analysis.times["SOP + HG-DAgger", "restock_shelf"]
    # Of the two seeds one is there at 5 minutes and one at 10: the later of the two in the middle.
    assert (time.time_s, time.num_reached) == (600.0, 2)
    (lost, overall) = analysis.forgotten["SOP + HG-DAgger"]
    assert (lost.label, lost.before, lost.after) == ("restock_freezer", 0.5, 0.25)
    assert overall.forgotten.value == pytest.approx(0.25)
    assert "HG-DAgger" not in analysis.forgotten


def failing(*ways, num_successes=0):
    """An evaluation of laundry: trials that fail so, (furthest stage, kind), and some that succeed."""
    found = evaluation("0" * len(ways) + "1" * num_successes, ("laundry_fold",))
    for trial, (stage, kind) in zip(found["laundry_fold"]["trials"], ways, strict=False):
        trial.update(furthest_stage=stage, failure_kind=kind)
    return {**evaluation("1" * (len(ways) + num_successes)), **found}


STAGEWISE = {
    "pretrained-0": {
        "evaluation": failing(("stack", "dropped"), ("", "timeout"), ("flatten", "timeout"), ("flatten", "timeout"))
    },
    "sop_hg_dagger-0": {
        **cell("1"),
        "evaluation": failing(("fold_bottom", "fold_error"), ("fold_bottom", "timeout"), num_successes=2),
    },
    "sop_hg_dagger-1": {**cell("1"), "evaluation": failing(("fold_bottom", "timeout"), num_successes=3)},
}


def test_failures_are_told_by_kind_and_furthest_stage_in_the_tasks_order():
    analysis = analyse(STUDY, STAGEWISE)
    before, after = (row.tasks["laundry_fold"] for row in analysis.rows)
    assert before.failures == {"flatten": {"timeout": 2}, "stack": {"dropped": 1}, "": {"timeout": 1}}
    assert list(before.failures) == ["flatten", "stack", ""]  # what isn't known comes last
    assert (after.failures, after.num_trials) == ({"fold_bottom": {"timeout": 2, "fold_error": 1}}, 8)
    heads = ["failures", "pre-trained", "SOP + HG-DAgger"]
    rows = [
        ["all", "4 of 4", "3 of 8"],
        ["timeout at flatten", "2", "-"],
        ["timeout at fold_bottom", "-", "2"],
        ["fold_error at fold_bottom", "-", "1"],
        ["dropped at stack", "1", "-"],
        ["timeout", "1", "-"],
    ]
    table = table_md(STUDY, analysis)
    told = "Failures at `laundry_fold`, by kind and furthest stage reached:\n\n"
    lines = table.partition(told)[2].splitlines()
    assert [lines[0], *lines[2 : 2 + len(rows)]] == [f"| {' | '.join(cells)} |" for cells in (heads, *rows)]
    assert "Failures at `box_assembly`" not in table  # nothing failed there
    page = render_study(STUDY, analysis, Making("sop study main-results", PROVENANCE, 7200.0))
    shown = page.partition("<h2>What went wrong</h2>")[2]
    assert re.findall(r"<h3>(\w+)</h3>", shown.partition("<h2>")[0]) == ["laundry_fold"]
    for cells in rows:
        row = r"\s*".join(f"<td[^>]*>{re.escape(one)}</td>" for one in cells)
        assert re.search(f"<tr>{row}</tr>", shown)
    perfect = analyse(STUDY, {"pretrained-0": {"evaluation": evaluation("11")}})
    page = render_study(STUDY, perfect, Making("sop study main-results", PROVENANCE, 7200.0))
    assert "Nothing: no trial failed." in page
    assert "Failures at" not in table_md(STUDY, perfect)


def test_what_an_hour_brings_stands_beside_the_papers():
    rows = {row.name: row.tasks for row in analyse(STUDY, RESULTS).rows}
    shelf = rows["sop_hg_dagger"]["restock_shelf"]
    assert shelf.episodes_per_h == pytest.approx(3600 / 4.0)  # trials of 4 s, whatever their end, without resets
    # Of 48 episodes in 480 s, people's time in it, with 10 s after each: 40 successes in 960 s, in both seeds.
    assert shelf.fleet_successes_per_h == pytest.approx(150.0)
    assert rows["sop_hg_dagger"]["laundry_fold"].fleet_successes_per_h is None  # no episodes of it
    assert rows["pretrained"]["restock_shelf"].fleet_successes_per_h is None  # it had no fleet
    assert [rows["sop_hg_dagger"][task].paper_per_h for task in STUDY.tasks] == [None, 45, 42]
    assert [rows["pretrained"][task].paper_per_h for task in STUDY.tasks] == [None, 11, 18]
    found = {name: method.paper_per_h for name, method in METHODS.items() if method.paper_per_h is not None}
    assert found == {
        "pretrained": (None, 11, 18),
        "offline_recap": (None, 27, 33),
        "offline_hg_dagger": (None, 21, 26),
        "sop_recap": (None, 38, 38),
        "sop_hg_dagger": (None, 45, 42),
    }
    analysis = analyse(STUDY, RESULTS)
    table = table_md(STUDY, analysis)
    assert "| `restock_shelf` | SOP + HG-DAgger | 900 | - | 218 | 150 |\n" in table
    assert "| `laundry_fold` | pre-trained | 900 | 11 | 26 | - |\n" in table
    page = render_study(STUDY, analysis, Making("sop study main-results", PROVENANCE, 7200.0))
    assert "<td>SOP + HG-DAgger</td><td>900</td><td>–</td><td>218</td><td>150</td>" in page


def test_people_who_demonstrate_are_no_fleet_that_completes_work():
    study = dataclasses.replace(STUDY, methods=("pretrained", "sop_hg_dagger", "more_demonstrations"))
    analysis = analyse(study, {**RESULTS, "more_demonstrations-0": cell("1111000000")})
    assert analysis.rows[-1].name == "more_demonstrations"
    assert analysis.rows[-1].tasks["restock_shelf"].fleet_successes_per_h is None


def test_a_cell_that_does_not_say_how_long_its_episodes_took_is_reported():
    results = copy.deepcopy(RESULTS)
    del results["sop_hg_dagger-0"]["fleet"]["tasks"]["restock_shelf"]["robot_s"]
    analysis = analyse(STUDY, results)
    assert [row.tasks["restock_shelf"].fleet_successes_per_h for row in analysis.rows] == [None, None, 150.0]
    assert "| `restock_shelf` | SOP + HG-DAgger | 900 | - | 218 | - |\n" in table_md(STUDY, analysis)


def test_unequal_seeds_are_not_compared():
    """Of an unfinished study: the first training seed is done of one method, the second of the other, or one of two."""
    first_of_two = {name: found for name, found in RESULTS.items() if name != "offline_hg_dagger-0"}
    assert differences(analyse(STUDY, first_of_two)) == {
        ("SOP + HG-DAgger", "HG-DAgger"): (40, 1),  # of the second seed, 80% and 40%
        ("SOP + HG-DAgger", "pre-trained"): (75, 2),
    }
    assert [row.twin_minutes for row in analyse(STUDY, first_of_two).rows] == [None, None, pytest.approx(3.0)]
    apart = {name: found for name, found in first_of_two.items() if name != "sop_hg_dagger-1"}
    assert differences(analyse(STUDY, apart)) == {("SOP + HG-DAgger", "pre-trained"): (80, 1)}


def test_everything_stands_against_what_it_leans_on():
    half, more = "sop_hg_dagger_fixed", "more_demonstrations"
    study = dataclasses.replace(STUDY, methods=("pretrained", "sop_hg_dagger", more, half))
    results = {
        **RESULTS,
        f"{more}-0": cell("1111000000"),
        f"{half}-0": cell("1111110000"),
        f"{half}-1": cell("1" * 10),
    }
    found = differences(analyse(study, results))
    assert found["SOP + HG-DAgger", "BC on more demonstrations"] == (50, 1)
    assert found["SOP + HG-DAgger, half online", "SOP + HG-DAgger"] == (-5, 2)
    assert found["SOP + HG-DAgger, half online", "pre-trained"] == (70, 2)
    assert all(method.sampler == "adaptive" or method.against == "sop_hg_dagger" for method in METHODS.values())


def test_what_recap_had_besides_is_told_and_its_base_is_a_row():
    study = dataclasses.replace(STUDY, methods=("pretrained", "sop_recap", "offline_recap"))
    analysis = analyse(study, WITH_RECAP)
    rows = {row.name: row for row in analysis.rows}
    base = "RECAP's base"
    assert list(rows)[:2] == ["pretrained", RECAP_BASE_CELL]
    assert (rows[RECAP_BASE_CELL].label, rows[RECAP_BASE_CELL].spending.learner_steps) == (
        f"{base}: pre-trained, then 2,000 steps with the prompt",
        2000,
    )
    found = {pair: value for pair, value in differences(analysis).items() if "HG-DAgger" not in "".join(pair)}
    assert found == {
        ("SOP + RECAP", "RECAP"): (10, 1),
        (base, "pre-trained"): (20, 1),
        ("SOP + RECAP", "pre-trained"): (45, 2),
        ("RECAP", "pre-trained"): (30, 1),
        ("SOP + RECAP", base): (25, 2),
        ("RECAP", base): (10, 1),
    }
    told = (
        "RECAP&#39;s methods had more than the table says, made once for all their training seeds: 2.00 robot-hours in which "
        "the base policy worked unhelped (5.0 minutes of people for resets) and 900 training steps for the value function, "
        "and 2,000 learner steps on demonstrations for their base."
    )
    page = render_study(study, analysis, Making("sop study main-results", PROVENANCE, 7200.0))
    assert told in page
    assert told.replace("&#39;", "'") in table_md(study, analysis)
    assert as_json(analysis)["besides"]["reset_minutes"] == pytest.approx(5.0)
    assert analyse(STUDY, RESULTS).besides is None
    # A study whose base policy was made before it was evaluated has no row of it.
    earlier = {**WITH_RECAP, RECAP_BASE_CELL: {"fleet": fleet()}}
    assert RECAP_BASE_CELL not in [row.name for row in analyse(study, earlier).rows]


def test_recaps_base_is_evaluated_as_its_methods_are(tmp_path):
    class Evaluated(MainResults):
        def _make_recap_base(self, work):
            return {"fleet": "spent"}

        def evaluate(self, candidate, selection=False):
            return candidate, selection

    found = Evaluated(SMALL.study, PLACES, lambda store, output: None).run_cell(
        Cell(RECAP_BASE_CELL, "recap_base"), tmp_path, {}
    )
    candidate, for_selection = found["evaluation"]
    assert (found["fleet"], candidate.bundle, for_selection) == ("spent", str(PLACES.recap_base), False)
    assert candidate.conditioning == Conditioning(POSITIVE, SMALL.study.recap.evaluating_guidance)


def test_one_seed_has_wilson_intervals_and_mcnemar():
    study = dataclasses.replace(STUDY, training_seeds=1)
    analysis = analyse(study, RESULTS)
    contrast = next(c for c in analysis.contrasts if c.first == "HG-DAgger")
    assert contrast.p_value == pytest.approx(2 / 2**4)  # four pairs differ, all one way
    assert analysis.rows[1].tasks["restock_shelf"].success.value == pytest.approx(0.9)


def test_an_unfinished_study_reports_what_is_done():
    analysis = analyse(STUDY, {"pretrained-0": RESULTS["pretrained-0"]})
    assert [row.name for row in analysis.rows] == ["pretrained"]
    assert analysis.contrasts == ()
    assert "pre-trained" in table_md(STUDY, analysis)
    assert analyse(STUDY, {}).rows == ()


@pytest.mark.parametrize("failed", RESULTS)
def test_a_page_can_be_made_without_a_cell_that_failed(failed):
    skipped = {failed, failed.replace("sop_", "offline_")}
    analysis = analyse(STUDY, {name: result for name, result in RESULTS.items() if name not in skipped})
    assert table_md(STUDY, analysis)
    assert "Not finished: some." in render_study(STUDY, analysis, Making("sop study", PROVENANCE, 1.0, "some"))


def test_the_report_shows_the_numbers():
    analysis = analyse(STUDY, RESULTS)
    table = table_md(STUDY, analysis)
    assert "| SOP + HG-DAgger | 85% [" in table
    assert "(94%)" in table
    assert "| `restock_shelf` | SOP + HG-DAgger against HG-DAgger | 2 | +40 [" in table
    assert "| HG-DAgger | 2 | 2.00 | 1.0 | 2.0 |" in table  # what people did, and what its twin's did
    making = Making("sop study main-results", PROVENANCE, 7200.0)
    page = render_study(STUDY, analysis, making)
    assert page == render_study(STUDY, analysis, making)
    assert "Not finished" not in page
    part = render_study(STUDY, analysis, dataclasses.replace(making, unfinished="3 of 4 cells are done"))
    assert "Not finished: 3 of 4 cells are done." in part
    failed = ("<td>9 of 10</td>", "<td>3 of 20</td>", "<td>11 of 20</td>")
    for text in ("SOP + HG-DAgger", "+40", "120.0 min", "restock_freezer", "10.0 min", "2 cores", *failed):
        assert text in page
    assert re.search(r"<td>SOP \+ HG-DAgger</td>\s*<td>2</td>\s*<td>2.00</td>", page)  # two training seeds
    perfect = {**RESULTS, "pretrained-0": {"evaluation": evaluation("1" * 10)}}
    assert "<td>0 of 10</td>" in render_study(STUDY, analyse(STUDY, perfect), making)
    numbers = json.loads(json.dumps(as_json(analysis)))
    assert numbers["methods"][1]["mean_success"] == pytest.approx(0.85)
    assert len(numbers["time_to_target"]) == 3


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"methods": ("sop_hg_daggr",)}, "expected different ones of"),
        ({"methods": ("offline_recap",)}, "spends what its twin 'sop_recap' spent: ask for both"),
        ({"training_seeds": 0}, "must be positive"),
    ],
)
def test_presets_refuse_nonsense(change, message):
    with pytest.raises(ConfigError, match=message):
        dataclasses.replace(CI.study, **change)
    assert isinstance(CI.study, MainResultsConfig)
