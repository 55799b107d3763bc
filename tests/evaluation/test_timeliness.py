from sop_jax.evaluation.timeliness import Acted, Correction, Published, Staleness, correction_latencies, staleness

PUBLISHED = [Published(1, 25, 100.0), Published(2, 50, 110.0), Published(3, 75, 120.0)]


def _acted(version, started_s, ended_s, task="shelf", robot="r0"):
    return Acted(robot, task, version, started_s, ended_s)


def test_staleness_hand_computed():
    acted = [
        _acted(0, 80, 84),  # before learning began: left out
        _acted(0, 90, 98),  # middle 94: nothing published; the base is 94 - 88 = 6 s old
        _acted(0, 101, 109),  # middle 105: 1 behind, 105 - 88 = 17 s old
        _acted(1, 108, 114),  # middle 111: version 2 is out, 1 behind, 11 s old
        _acted(3, 121, 125),  # middle 123: the newest, 3 s old
    ]
    assert staleness(acted, PUBLISHED, learning_since_s=88.0) == [
        Staleness(0, 6.0),
        Staleness(1, 17.0),
        Staleness(1, 11.0),
        Staleness(0, 3.0),
    ]


def test_correction_goes_round_the_loop():
    # Failed at 95, first learnt from in step 30 -> publication 2 (step 50) -> first start with version >= 2 is at 126.
    corrections = [Correction("e1", "shelf", 95.0)]
    acted = [_acted(1, 112, 116), _acted(2, 117, 120, task="cooler"), _acted(3, 126, 130), _acted(2, 128, 131)]
    assert correction_latencies(corrections, {"e1": 30}, PUBLISHED, acted) == [31.0]


def test_step_at_the_publication_itself_is_in_it():
    assert correction_latencies([Correction("e", "shelf", 90.0)], {"e": 50}, PUBLISHED, [_acted(2, 111, 112)]) == [21.0]


def test_corrections_still_on_their_way_are_left_out():
    acted = [_acted(2, 111, 115)]
    unsampled = Correction("e1", "shelf", 95.0)
    unpublished = Correction("e2", "shelf", 95.0)
    unused = Correction("e3", "shelf", 95.0)
    first_use = {"e2": 76, "e3": 51}
    assert correction_latencies([unsampled, unpublished, unused], first_use, PUBLISHED, acted) == []


def test_each_takeover_counts():
    corrections = [Correction("e1", "shelf", 95.0), Correction("e1", "shelf", 97.0)]
    assert correction_latencies(corrections, {"e1": 10}, PUBLISHED, [_acted(1, 101, 103)]) == [6.0, 4.0]
