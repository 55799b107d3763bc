import json

from benchmarks.main_results import EXPECTED, out_of_range

GOOD = {"pretrained": 0.4, "sop_hg_dagger": 0.9, "offline_hg_dagger": 0.8}


def test_ranges_hold_what_they_say():
    expected = json.loads(EXPECTED.read_text())
    assert out_of_range(GOOD, expected) == []
    assert out_of_range({**GOOD, "sop_hg_dagger": 0.5}, expected) == [
        "sop_hg_dagger: expected 75% to 100%, got 50%",
        "SOP + HG-DAgger rose by +10%, expected at least +25%",
    ]
    assert out_of_range({**GOOD, "pretrained": 0.1}, expected) == ["pretrained: expected 25% to 55%, got 10%"]
