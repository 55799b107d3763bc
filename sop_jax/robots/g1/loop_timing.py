"""How regular the control loop was, as the robot's own commands show it."""

import dataclasses
import math


@dataclasses.dataclass(frozen=True)
class LoopReport:
    """Of one episode: commands sent, their mean interval, how far intervals were from the period (root mean square and
    worst), and the time from the beginning of an observation to its command (mean and worst). Seconds.
    """

    num_commands: int
    mean_interval_s: float
    rms_jitter_s: float
    max_jitter_s: float
    mean_latency_s: float
    max_latency_s: float


class LoopTimer:
    """Collects the stamps of observations and commands. Not thread-safe."""

    def __init__(self, period_ns: int):
        self._period_ns = period_ns
        self.reset()

    def reset(self) -> None:
        self._num_commands = self._num_latencies = 0
        self._first_ns = self._last_ns = 0
        self._sum_square = self._max_jitter_s = self._sum_latency_s = self._max_latency_s = 0.0
        self._observed_ns: int | None = None

    def observed(self, now_ns: int) -> None:
        self._observed_ns = now_ns

    def commanded(self, now_ns: int) -> None:
        if self._num_commands == 0:
            self._first_ns = now_ns
        else:
            jitter_s = (now_ns - self._last_ns - self._period_ns) / 1e9
            self._sum_square += jitter_s**2
            self._max_jitter_s = max(self._max_jitter_s, abs(jitter_s))
        self._last_ns = now_ns
        self._num_commands += 1
        if self._observed_ns is not None:
            latency_s = (now_ns - self._observed_ns) / 1e9
            self._sum_latency_s += latency_s
            self._max_latency_s = max(self._max_latency_s, latency_s)
            self._num_latencies += 1
            self._observed_ns = None

    def report(self) -> LoopReport:
        num_intervals = max(1, self._num_commands - 1)
        return LoopReport(
            num_commands=self._num_commands,
            mean_interval_s=(self._last_ns - self._first_ns) / num_intervals / 1e9,
            rms_jitter_s=math.sqrt(self._sum_square / num_intervals),
            max_jitter_s=self._max_jitter_s,
            mean_latency_s=self._sum_latency_s / max(1, self._num_latencies),
            max_latency_s=self._max_latency_s,
        )
