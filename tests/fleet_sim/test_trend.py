import math
import mmap
import subprocess

import numpy as np
import pytest

from fleet_sim.resources import measure
from fleet_sim.studies.trend import series_slope, slope, success_slope
from sop_jax.evaluation.statistics import Interval


def test_slope_by_hand():
    assert slope([0.0, 1.0, 2.0], [1.0, 3.0, 2.0]) == pytest.approx(0.5)
    with pytest.raises(ValueError, match="at least two different times"):
        slope([1.0, 1.0], [0.0, 1.0])


def test_a_decline_is_told_from_none():
    times = [0.0, 1.0, 2.0, 3.0]
    falling = np.array([[n >= 20 * row for n in range(100)] for row in range(4)])  # 100%, 80%, 60%, 40%
    found = success_slope(times, falling)
    assert found.value == pytest.approx(-0.2)
    assert -0.3 < found.low < -0.2 < found.high < -0.1
    level = np.array([[n % 10 < (8 if row % 2 else 7) for n in range(100)] for row in range(4)])
    around = success_slope(times, level)
    assert around.low < 0 < around.high
    assert success_slope(times, level) == around


def test_a_disk_that_is_cleaned_now_and_then_does_not_grow():
    times = [float(n) for n in range(40)]
    cleaned = [100.0 + n % 8 for n in range(40)]
    found = series_slope(times, cleaned)
    assert found.low < 0 < found.high
    assert abs(found.value) < 0.05
    growing = series_slope(times, [value + 0.5 * n for n, value in enumerate(cleaned)])
    assert growing.value - found.value == pytest.approx(0.5)
    assert growing.low > 0.4
    assert series_slope(times, [9.0] * 40) == Interval(0.0, 0.0, 0.0)


def test_the_slope_of_a_cubic_by_hand():
    """Of the polynomials beyond the line only the one of third degree sees a cubic, so that one holds all its residuals."""
    times = [float(n) for n in range(-4, 5)]
    cubic = [t**3 for t in times]
    residuals = [value - slope(times, cubic) * t for t, value in zip(times, cubic, strict=True)]
    half = 3.182446 * math.sqrt(sum(r * r for r in residuals) / 3 / sum(t * t for t in times))
    found = series_slope(times, cubic)
    assert (found.low, found.high) == pytest.approx((found.value - half, found.value + half))
    later = series_slope([1e4 + t / 60 for t in times], cubic)
    assert (later.low, later.high) == pytest.approx((60 * found.low, 60 * found.high))


@pytest.mark.parametrize(("correlation", "least"), [(0.0, 0.93), (0.7, 0.91), (0.9, 0.86)])
def test_an_interval_covers_no_trend_as_often_as_it_says(correlation, least):
    rng = np.random.default_rng(0)
    num_series, num_looks = 800, 73
    noise = rng.standard_normal((num_looks, num_series))
    noise[0] /= math.sqrt(1 - correlation**2)
    for now in range(1, num_looks):
        noise[now] += correlation * noise[now - 1]
    found = [series_slope(list(range(num_looks)), series) for series in noise.T.tolist()]
    assert least < np.mean([one.low <= 0 <= one.high for one in found]) < 0.98


def test_too_few_looks_tell_of_no_trend():
    values = [0.0, 1.0, 2.0, 3.0, 4.0, 5.5]
    few = series_slope([0.0, 1.0, 2.0, 3.0, 4.0, 4.0], values)
    assert (few.low, few.high) == (-math.inf, math.inf)
    assert few.value == slope([0.0, 1.0, 2.0, 3.0, 4.0, 4.0], values)
    assert series_slope([0.0, 1.0, 2.0, 3.0, 4.0, 5.0], values).low > 0


def test_what_a_process_holds_is_measured(tmp_path):
    (tmp_path / "store" / "weights" / "00000003").mkdir(parents=True)
    (tmp_path / "store" / "weights" / "00000004").mkdir()  # killed before its manifest
    (tmp_path / "store" / "weights" / "00000003" / "manifest.json").write_bytes(b"x" * 10)
    (tmp_path / "scratch").mkdir()
    (tmp_path / "scratch" / "left.zip").write_bytes(b"x" * 90)
    found = measure(60.0, tmp_path, {"online": 3, "offline": 4})
    assert (found.disk_bytes, found.num_objects, found.num_publications, found.num_items) == (100, 2, 1, 7)
    size = 64 << 20
    with mmap.mmap(-1, size) as held:  # pages of its own: a bytearray might lie in memory that was freed before
        for page in range(0, size, mmap.PAGESIZE):
            held[page] = 1
        with (tmp_path / "scratch" / "left.zip").open("rb"):
            later = measure(61.0, tmp_path, {})
    assert size // 2 < later.memory_bytes - found.memory_bytes < 2 * size
    assert later.num_files == found.num_files + 1


def test_workers_on_other_machines_are_not_measured(tmp_path):
    with subprocess.Popen(["sleep", "60"]) as child:
        try:
            here = measure(60.0, tmp_path, {})
            elsewhere = measure(60.0, tmp_path, {}, workers_are_children=False)
        finally:
            child.kill()
    assert here.workers_bytes is not None
    assert here.workers_bytes > 0
    assert elsewhere.workers_bytes is None
