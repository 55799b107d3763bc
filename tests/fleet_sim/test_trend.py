import mmap

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
    assert growing.low > 0.45
    assert series_slope(times, [9.0] * 40) == Interval(0.0, 0.0, 0.0)


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
