from sop_jax.sampling.episode_cache import FaultLog
from sop_jax.specs.clock import ManualClock


def test_an_unusable_episode_is_tried_again_after_a_while():
    clock = ManualClock()
    log = FaultLog(clock)
    log.give_up("a", "gone")
    assert "a" in log
    assert "b" not in log
    clock.advance_s(599.0)
    assert "a" in log
    clock.advance_s(2.0)
    assert "a" not in log
    assert log.last_reason == "gone"
