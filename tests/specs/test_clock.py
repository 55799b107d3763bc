import pytest

from sop_jax.specs.clock import EARLIEST_WALL_NS, ManualClock, Ticker, WallClock, age_s


def test_manual_clock_moves_only_when_told():
    clock = ManualClock(start_ns=5)
    assert clock.now_ns() == 5
    clock.sleep_s(1.5)
    clock.sleep_s(-1.0)
    assert clock.now_ns() == 5 + 1_500_000_000
    with pytest.raises(ValueError, match="can't go back"):
        clock.advance_s(-0.1)


def test_an_age_needs_two_clocks_of_one_kind():
    today_ns = 1_790_000_000 * 10**9
    assert age_s(today_ns - 10**9, today_ns) == 1.0
    assert age_s(today_ns + 10**9, today_ns) == -1.0  # the other clock is ahead
    assert age_s(EARLIEST_WALL_NS, today_ns) == pytest.approx(212_163_200)
    assert age_s(2 * 10**9, 5 * 10**9) == 3.0  # simulated time
    assert age_s(EARLIEST_WALL_NS - 1, today_ns) is None
    assert age_s(today_ns, 5 * 10**9) is None


def test_wall_clock_rate_scales_time():
    with pytest.raises(ValueError, match="positive, got 0"):
        WallClock(rate=0)
    slow, fast = WallClock(rate=1.0), WallClock(rate=1000.0)
    start_slow, start_fast = slow.now_ns(), fast.now_ns()
    slow.sleep_s(0.01)
    assert fast.now_ns() - start_fast > 100 * (slow.now_ns() - start_slow)


def test_ticker_keeps_the_rate():
    clock = ManualClock()
    ticker = Ticker(clock, rate_hz=10.0)
    assert [ticker.wait() for _ in range(3)] == [0.0, 0.0, 0.0]
    assert clock.now_ns() == 300_000_000


def test_ticker_reports_lateness_and_catches_up_within_one_period():
    clock = ManualClock()
    ticker = Ticker(clock, rate_hz=10.0)
    clock.advance_s(0.15)  # 50 ms late: less than a period, so the next tick stays on the grid
    assert ticker.wait() == pytest.approx(0.05)
    assert ticker.wait() == 0.0
    assert clock.now_ns() == 200_000_000


def test_ticker_never_hurries_after_a_long_stall():
    clock = ManualClock()
    ticker = Ticker(clock, rate_hz=10.0)
    clock.advance_s(1.0)
    assert ticker.wait() == pytest.approx(0.9)
    ticker.wait()
    assert clock.now_ns() == 1_100_000_000  # a whole period after the stall, not ten ticks at once
