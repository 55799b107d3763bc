from sop_jax.evaluation.timeliness import (
    Acted,
    Correction,
    FirstUse,
    Published,
    Staleness,
    correction_latencies,
    staleness,
)

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
    assert correction_latencies(corrections, {"e1": [FirstUse(30)]}, PUBLISHED, acted) == [31.0]


def test_step_at_the_publication_itself_is_in_it():
    assert correction_latencies(
        [Correction("e", "shelf", 90.0)], {"e": [FirstUse(50)]}, PUBLISHED, [_acted(2, 111, 112)]
    ) == [21.0]


def test_corrections_still_on_their_way_are_left_out():
    acted = [_acted(2, 111, 115)]
    unsampled = Correction("e1", "shelf", 95.0)
    unpublished = Correction("e2", "shelf", 95.0)
    unused = Correction("e3", "shelf", 95.0)
    first_use = {"e2": [FirstUse(76)], "e3": [FirstUse(51)]}
    assert correction_latencies([unsampled, unpublished, unused], first_use, PUBLISHED, acted) == []


def test_each_takeover_counts():
    corrections = [Correction("e1", "shelf", 95.0), Correction("e1", "shelf", 97.0)]
    assert correction_latencies(corrections, {"e1": [FirstUse(10)]}, PUBLISHED, [_acted(1, 101, 103)]) == [6.0, 4.0]


def test_a_use_that_a_restart_discarded_counts_until_then_only():
    """Killed at step 60, started again from the checkpoint at 40: version 3 holds what steps 41 to 60 learnt no more."""
    published = [
        Published(1, 25, 100.0),
        Published(2, 50, 110.0),
        Published(3, 50, 130.0, 1),
        Published(4, 75, 140.0, 1),
    ]
    acted = [_acted(2, 112, 116), _acted(3, 131, 135), _acted(4, 141, 145)]

    def latency(failed_s, *uses):
        return correction_latencies([Correction("e", "shelf", failed_s)], {"e": uses}, published, acted, [0, 40])

    assert latency(100.0, FirstUse(30)) == [12.0]
    assert latency(120.0, FirstUse(30)) == [11.0]  # before the checkpoint, so version 3 holds it
    assert latency(100.0, FirstUse(45), FirstUse(60, 1)) == [
        12.0
    ]  # version 2 went out with it, and a robot acted on it
    assert latency(120.0, FirstUse(45), FirstUse(60, 1)) == [21.0]  # version 3 is without it, version 4 has it anew
    assert latency(100.0, FirstUse(55), FirstUse(45, 1)) == [31.0]  # version 2 never had it
    assert latency(120.0, FirstUse(45)) == []
