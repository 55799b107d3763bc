import json
import math

from benchmarks.sweeps import EXPECTED, out_of_range


def test_ranges_hold_what_they_say():
    expected = json.loads(EXPECTED.read_text())
    middle = {name: (low + high) / 2 for name, (low, high) in expected.items()}
    assert out_of_range(middle, expected) == []
    name = "scaling/grown with the fleet/1000/speed_up"
    assert math.isclose(middle[name], 1000, rel_tol=0.05)
    low, high = expected[name]
    assert out_of_range({**middle, name: 100.0}, expected) == [f"{name}: expected {low:g} to {high:g}, got 100"]
    del middle[name]
    assert out_of_range(middle, expected) == [f"{name}: expected {[low, high]}, got nothing"]
