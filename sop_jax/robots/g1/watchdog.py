"""Notices when commands stop, and when the robot doesn't follow them."""

import numpy as np

from sop_jax.robots.g1.config import TimingConfig


class Watchdog:
    """Counts the time since the last command. Sends nothing itself, and knows no threads.

    watchdog.feed(now_ns)                  # at every command
    if watchdog.is_late(now_ns): ...       # hold
    if watchdog.is_over(now_ns): ...       # give up
    """

    def __init__(self, timing: TimingConfig):
        self._late_ns = round(timing.command_late_s * 1e9)
        self._over_ns = round(timing.give_up_s * 1e9)
        self._fed_ns: int | None = None

    def feed(self, now_ns: int) -> None:
        self._fed_ns = now_ns

    def stop(self) -> None:
        """Nothing is expected until the next `feed`."""
        self._fed_ns = None

    def is_late(self, now_ns: int) -> bool:
        return self._fed_ns is not None and now_ns - self._fed_ns >= self._late_ns

    def is_over(self, now_ns: int) -> bool:
        return self._fed_ns is not None and now_ns - self._fed_ns >= self._over_ns


class FollowingWatch:
    """Notices joints that stay far from their command and don't move: a robot that takes commands and ignores them."""

    _STILL_RAD = 0.01

    def __init__(self, timing: TimingConfig):
        self._max_lag_rad = timing.max_lag_rad
        self._max_lag_ns = round(timing.max_lag_s * 1e9)
        self._since_ns: np.ndarray | None = None
        self._stood_at = np.zeros(0)

    def reset(self) -> None:
        self._since_ns = None

    def find_stuck(self, command: np.ndarray, measured: np.ndarray, now_ns: int) -> int | None:
        """Index of a joint that hasn't followed for too long, whatever the others do. Both are arm joints [14], rad."""
        if self._since_ns is None:
            self._since_ns, self._stood_at = np.full(len(measured), now_ns), measured.copy()
        apart = np.abs(command - measured)
        follows = (apart < self._max_lag_rad) | (np.abs(measured - self._stood_at) > self._STILL_RAD)
        self._since_ns[follows], self._stood_at[follows] = now_ns, measured[follows]
        stuck = now_ns - self._since_ns >= self._max_lag_ns
        return int(np.argmax(np.where(stuck, apart, -1.0))) if stuck.any() else None
