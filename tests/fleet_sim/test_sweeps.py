import dataclasses
import math

import pytest

from configs.sweeps import SWEEPS, as_bought, grown
from fleet_sim.deployment import Deployment, Network, Operators, Robots, Training
from fleet_sim.planning import predict
from fleet_sim.studies.grid import Grid
from fleet_sim.studies.study import Making
from fleet_sim.studies.sweep_analysis import Range, SweepAnalysis, analyse_sweep
from fleet_sim.studies.sweep_report import pictures_of, report_sweep
from fleet_sim.studies.sweep_words import plain, words_of
from fleet_sim.studies.sweeps import DynamicsPoint, LearningPoint, Sweep, SweepConfig, make_sweep_cells
from sop_jax.evaluation.provenance import Provenance
from sop_jax.evaluation.statistics import wilson_interval
from sop_jax.specs.errors import ConfigError
from tests.fleet_sim.study_results import cell as learnt_cell

FAST, SMALL = Network(link_bps=1e9), Training(checkpoint_bytes=6e6)


def make(kind, points, **changes):
    values = {"duration_s": 1200.0, "warm_up_s": 200.0, "num_seeds": 2, "least_robot_s": 0.0, **changes}
    return SweepConfig(kind, "test", tuple(points), **values)


SCALING = make(
    "scaling",
    [
        DynamicsPoint("one person", n, Deployment(Robots(n), FAST, SMALL, Operators(1, takeovers_per_episode=1.0)))
        for n in (1, 20)
    ],
)


def refuse(study):
    raise AssertionError(f"nothing learns here: {study}")


@pytest.fixture(scope="module")
def scaled(tmp_path_factory):
    """The results of the small scaling study, and its folder."""
    folder = tmp_path_factory.mktemp("scaling")
    grid = Grid(folder, {}, make_sweep_cells(SCALING))
    return grid.run(Sweep(SCALING, refuse).run_cell), folder


def test_cells_have_names_and_go_on(scaled):
    results, folder = scaled
    assert list(results) == ["one_person-1-s0", "one_person-1-s1", "one_person-20-s0", "one_person-20-s1"]

    def refuse_to_run(cell, work, needed):
        raise AssertionError(cell)

    again = Grid(folder, {}, make_sweep_cells(SCALING)).run(refuse_to_run)
    assert again == results


def test_rows_say_what_the_seeds_say(scaled):
    results, _ = scaled
    analysis = analyse_sweep(SCALING, results)
    alone, many = analysis.of_series("one person")
    figures = [results[f"one_person-20-s{seed}"]["simulated"]["figures"] for seed in range(2)]
    rates = sorted(found["delivered_per_hour"] for found in figures)
    assert (many.delivered_per_hour.low, many.delivered_per_hour.high) == tuple(rates)
    assert many.delivered_per_hour.mean == pytest.approx(sum(rates) / 2)
    # One robot cycles in 60 + 15 + 3 s; one person serves a request in 13 s, so 20 robots get 1/13 per second at most.
    assert alone.speed_up.mean == pytest.approx(1.0, rel=0.25)
    assert many.speed_up.mean == pytest.approx(78 / 13, rel=0.2)
    assert many.moving_share.mean < 0.5
    assert "operators" in many.saturated
    assert alone.saturated == []
    # Half of 256 examples a second are asked from online data; a frame may be drawn 32 times.
    frames_per_s = many.delivered_per_hour.mean / 3600 * 600
    assert many.draws_per_frame.mean == pytest.approx(min(128.0, 32 * frames_per_s) / frames_per_s, rel=0.05)
    (sentence,) = words_of(SCALING, analysis)
    assert sentence.startswith("one person: episodes in the replay grow")
    assert "operators (from 20 robots)" in sentence


def test_the_page_and_the_table_hold_every_row(scaled):
    results, _ = scaled
    analysis = analyse_sweep(SCALING, results)
    report = report_sweep(SCALING, analysis)
    table = report.table
    assert [line.split(" | ")[0] for line in table.splitlines() if line[:3] in ("| 1", "| 2")] == ["| 1", "| 20"]
    assert len(report.numbers["dynamics"]) == 2
    pictures = pictures_of(SCALING, analysis)
    assert "Speed-up against ideal" in pictures
    assert all(svg.startswith("<svg") for svg in pictures.values())
    provenance = Provenance("today", "a machine", "a system", {"jax": "1"})
    page = report.page(Making("sop study scaling", provenance, 1.0))
    assert "From one robot to a thousand" in page
    assert page.count("<svg") == len(pictures)
    some = analyse_sweep(SCALING, {name: results[name] for name in list(results)[:1]})
    assert len(some.rows) == 1


def test_staleness_and_operators_tell_their_own_story():
    points = [
        DynamicsPoint("slow", s, Deployment(Robots(2), Network(50e6), Training(publish_every=s))) for s in (5, 600)
    ]
    staleness = make("staleness", points, num_seeds=1, duration_s=20_000.0, warm_up_s=4000.0)
    rows = run(staleness)
    assert [row.weights_age_s.mean > 200 for row in rows.rows] == [True, True]
    (sentence,) = words_of(staleness, rows)
    assert "A publication takes 125 s to the robots, so up to one every 5 s they skip versions" in sentence
    points = [
        DynamicsPoint("first come", m, Deployment(Robots(20), FAST, SMALL, Operators(m)), "first_come", 60.0)
        for m in (1, 5)
    ]
    operators = make("operators", points, num_seeds=1)
    rows = run(operators)
    few, enough = rows.rows
    assert few.lost_share.mean > 0.05 > enough.lost_share.mean
    (sentence,) = words_of(operators, rows)
    assert "5 people are enough for 20 robots (4 each" in sentence
    # Fleet-DAgger's metric: per robot over per person.
    assert enough.return_on_effort.mean == pytest.approx(5 / 20 * enough.successes_per_operator_minute.mean)
    assert few.return_on_effort.high == pytest.approx(1 / 20 * few.successes_per_operator_minute.high)
    table = report_sweep(operators, rows).table
    assert "per minute of people | that x people / robots |" in table
    assert f"| {plain(enough.return_on_effort.mean)} |" in table


def test_what_is_far_from_the_plan_is_said(scaled):
    analysis = analyse_sweep(SCALING, scaled[0])
    (told,) = words_of(SCALING, analysis)
    assert "differ" not in told
    alone, many = analysis.rows
    assert f"| {plain(many.weights_age_s.mean)} [" in (table := report_sweep(SCALING, analysis).table)
    assert f"| {plain(many.planned_age_s)} |" in table
    age_s, rate = many.weights_age_s.mean, many.delivered_per_hour.mean
    for changes, expected in (
        ({"planned_age_s": age_s / 1.19}, None),
        ({"planned_age_s": age_s / 1.21}, f"weights' age in s at 20 ({plain(age_s)}, planned {plain(age_s / 1.21)})"),
        ({"planned_age_s": 2 * age_s}, f"weights' age in s at 20 ({plain(age_s)}, planned {plain(2 * age_s)})"),
        (
            {"planned_per_hour": rate / 2},
            f"episodes in the replay per hour at 20 ({plain(rate)}, planned {plain(rate / 2)})",
        ),
        ({"weights_age_s": Range(math.nan, math.nan, math.nan)}, None),
    ):
        rows = (alone, dataclasses.replace(many, **changes))
        (told,) = words_of(SCALING, SweepAnalysis(rows, ()))
        assert (f"differ by more than 20%: {expected}" if expected else "What can't follow") in told, changes
        assert ("differ" in told) == (expected is not None), changes
    short = make("staleness", [point_every(7200)], num_seeds=1, duration_s=9000.0, warm_up_s=1000.0)
    assert "Simulation and plan differ by more than 20%: weights' age in s at 7200 (" in words_of(short, run(short))[0]


def point_every(period_s):
    return DynamicsPoint("fast", period_s, Deployment(Robots(2), FAST, Training(publish_every=period_s)))


@pytest.mark.parametrize("preset", ["dynamics", "small"])
@pytest.mark.parametrize("kind", SWEEPS)
def test_what_is_slowest_comes_round_twice_before_it_is_measured(kind, preset):
    study = SWEEPS[kind][preset].study
    for point in study.points:
        plan = predict(point.deployment)
        waited_s = min(plan.figures.operator_wait_s, point.patience_s)
        slowest_s = max(plan.publication_period_s, plan.figures.fan_out_s, waited_s)
        assert study.warm_up_s >= 2 * slowest_s, point.name
        assert study.measured_s(point) >= 4 * slowest_s, point.name


def run(config):
    sweep = Sweep(config, refuse)
    return analyse_sweep(config, {cell.name: sweep.run_cell(cell, None, {}) for cell in make_sweep_cells(config)})


def test_figures_have_three_digits_and_no_exponent():
    figures = [1955.4, 100.0, 6.2901, 0.0415, 0.0005, 2.06e-5, 0.0, -2e-5, -44.97]
    assert [plain(value) for value in figures] == ["1955", "100", "6.29", "0.0415", "0.0005", "0", "0", "0", "-45"]


def test_training_seeds_share_a_curves_trials():
    point = SWEEPS["scaling"]["small"].study.learning[0]
    config = dataclasses.replace(SCALING, learning=(point,))
    alike = learnt_cell("1110", curve=((60.0, "1100"), (120.0, "1111")))
    cells = [cell.name for cell in make_sweep_cells(config) if cell.name.startswith(point.name)]
    (row,) = analyse_sweep(config, dict.fromkeys(cells, alike)).learning
    assert len(cells) == row.num_seeds > 1
    # Scenes that are hard for one are hard for all: more seeds on them tell nothing more about other scenes.
    pooled = wilson_interval(2 * len(cells), 4 * len(cells))
    (_, half), _ = row.curve
    assert half.value == 0.5
    assert half.high - half.low > 1.5 * (pooled.high - pooled.low)


def test_learning_points_run_the_main_results_method(scaled, tmp_path):
    study = dataclasses.replace(SWEEPS["scaling"]["small"].study.learning[0].study, training_seeds=1)
    config = dataclasses.replace(SCALING, learning=(LearningPoint(4.0, study),))
    asked = []

    class Learns:
        def run_cell(self, cell, work, results):
            asked.append(cell.name)
            return learnt_cell("1110", curve=((60.0, "1000"), (120.0, "1111")))

    cells = make_sweep_cells(config)
    assert cells[-1].name == "learning-4-s0"
    result = Sweep(config, lambda given: Learns()).run_cell(cells[-1], tmp_path, {})
    assert asked == ["sop_hg_dagger-0"]
    analysis = analyse_sweep(config, {**scaled[0], cells[-1].name: result})
    (row,) = analysis.learning
    assert (row.success.value, row.spending.robot_hours, row.spending.staleness_s) == (0.75, 2.0, 5.0)
    assert row.to_target.time_s == 120.0
    assert [(time_s, rate.value) for time_s, rate in row.curve] == [(60.0, 0.25), (120.0, 1.0)]
    assert row.curve[0][1] == wilson_interval(1, 4)
    assert row.speed_up == 1.0
    assert words_of(config, analysis)[-1].startswith("With learning, final success by robots: 4: 75% [")
    report = report_sweep(config, analysis)
    table = report.table
    assert "| 4 | 1 | 75% [" in table
    assert table.splitlines()[-1].endswith("| 1.00 | 92.5% | 71.7 min | 2.42 |")  # the paper's Table I beside ours
    assert "Success while they learn" in pictures_of(config, analysis)
    page = report.page(Making("sop study scaling", Provenance("today", "m", "s", {}), 1.0))
    assert "With learning" in page
    assert "71.7 min" in page


def test_a_speed_up_is_over_the_smallest_fleet_whatever_is_done_first():
    one, two = SWEEPS["scaling"]["small"].study.learning[:2]
    config = dataclasses.replace(SCALING, learning=(two, one))
    slow, fast = (learnt_cell("1111", curve=((at_s, "1111"),)) for at_s in (600.0, 400.0))
    results = {f"{two.name}-s0": fast}
    (row,) = analyse_sweep(config, results).learning
    assert (row.x, row.speed_up) == (2, None)
    report = report_sweep(config, analyse_sweep(config, results)).table
    assert "| - | 88.7% | 126.5 min |" in report
    second, first = analyse_sweep(config, {**results, f"{one.name}-s0": slow}).learning
    assert (first.x, first.speed_up, second.speed_up) == (1, 1.0, 1.5)


def test_presets_are_what_they_are_called():
    assert {kind: set(presets) for kind, presets in SWEEPS.items()} == {
        kind: {"ci", "dynamics", "small"} for kind in ("scaling", "staleness", "operators")
    }
    scaling = SWEEPS["scaling"]["dynamics"].study
    assert [point.x for point in scaling.points[:8]] == [1, 2, 4, 8, 16, 64, 256, 1000]
    assert [point.x for point in SWEEPS["scaling"]["small"].study.learning] == [1, 2, 4, 8, 16, 32, 64]
    assert as_bought(8).publication_period_s == pytest.approx(grown(8).publication_period_s, rel=0.01)
    periods = [point.deployment.publication_period_s for point in SWEEPS["staleness"]["dynamics"].study.points]
    assert (min(periods), max(periods)) == (5.0, 3600.0)
    assert scaling.measured_s(scaling.points[0]) == 60_000.0
    assert scaling.measured_s(scaling.points[7]) == 16 * 3600.0
    with pytest.raises(ConfigError, match="points must have names of their own"):
        make("scaling", [SCALING.points[0]] * 2)
    with pytest.raises(ConfigError, match="num_seeds must be at least 1"):
        make("scaling", SCALING.points, num_seeds=0)
    assert math.isinf(SCALING.points[0].patience_s)
