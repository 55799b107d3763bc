"""The robot below the episode: reads what is fresh, sends what is safe, holds when nothing comes."""

import threading
from collections.abc import Callable
from typing import TypeVar

import numpy as np

from sop_jax.robots.g1.body_model import BodyModel
from sop_jax.robots.g1.config import G1RobotConfig
from sop_jax.robots.g1.faults import (
    CameraLateError,
    ClockSkewError,
    CommandsStoppedError,
    EmergencyStopError,
    G1Fault,
    LinkFault,
    NotFollowingError,
    PostureError,
    StateLateError,
)
from sop_jax.robots.g1.link import BodyState, G1Link
from sop_jax.robots.g1.loop_timing import LoopTimer
from sop_jax.robots.g1.posture import find_deviations
from sop_jax.robots.g1.safety import ARMS, SafetyFilter
from sop_jax.robots.g1.safety_log import SafetyLog
from sop_jax.robots.g1.synchroniser import Sample, Synchroniser
from sop_jax.robots.g1.watchdog import FollowingWatch, Watchdog
from sop_jax.specs.clock import Clock
from sop_jax.specs.interfaces import Metrics

_POLL_S = 0.005
_PASSING = (StateLateError, CameraLateError, ClockSkewError)  # may be over at the next look
Read = TypeVar("Read")


class G1Body:
    """One thread reads and moves it; `watch` may be called from another. Once a fault stands, nothing is sent until `start`.

    `fault` is the first that happened since `start`, None while all is well.
    """

    def __init__(self, config: G1RobotConfig, link: G1Link, clock: Clock, metrics: Metrics):
        self._config = config
        self._link = link
        self._clock = clock
        self._lock = threading.RLock()
        self._synchroniser = Synchroniser(link, config.cameras, config.timing)
        self._filter = SafetyFilter(config, BodyModel(config.posture, config.limits))
        self._watchdog = Watchdog(config.timing)
        self._following = FollowingWatch(config.timing)
        self._is_waiting = self._is_holding = False
        self._is_paused = True
        self.timer = LoopTimer(config.timing.period_ns)
        self.log = SafetyLog(metrics)
        self.fault: G1Fault | None = None
        self.frame = 0

    @property
    def command(self) -> np.ndarray:
        """The last command, float32 [16]."""
        return self._filter.command.astype(np.float32)

    @property
    def period_s(self) -> float:
        """One control period."""
        return 1.0 / self._config.timing.control_hz

    def start(self) -> BodyState:
        """Forgets former faults and takes the robot as it stands, at rest. Raises G1Fault if it isn't fit to move."""
        with self._lock:
            self.fault, self.frame, self._is_holding = None, 0, False
            self.timer.reset()
            self._synchroniser.reset()
            self._following.reset()
            self._watchdog.stop()
            self.log.reset(self._clock.now_ns())
        self._require_running()
        state = self._wait_for(self._synchroniser.read_state)
        with self._lock:
            self._filter.reset(state.vector, self._clock.now_ns())
            self._watchdog.feed(self._clock.now_ns())
        return state

    def fail(self, fault: G1Fault) -> None:
        """Ends all sending; the first fault stands."""
        with self._lock:
            if self.fault is None:
                self.fault = fault
                self.log.write("g1_fault", self.frame, kind=fault.kind, reason=str(fault)[:300])

    def read_state(self) -> BodyState:
        """The newest states; waits a little for fresh ones. Raises G1Fault."""
        return self._wait_for(self._synchroniser.read_state)

    def read_sample(self) -> Sample:
        """Pictures and states of one instant; waits a little for fresh ones. Raises G1Fault."""
        return self._wait_for(self._synchroniser.read_sample)

    def move(self, target: np.ndarray) -> np.ndarray:
        """Sends the nearest command that is safe, float32 [16]. Raises G1Fault; then the last command is what stands."""
        self._require_running()
        state = self.read_state()
        if found := find_deviations(self._config.posture, state):
            raise PostureError(
                f"{'; '.join(found)}: somebody or something moved it, and the body model no longer holds"
            )
        measured = state.vector
        with self._lock:
            if self.fault is not None:
                raise self.fault
            now_ns = self._clock.now_ns()
            self._require_following(measured, now_ns)
            verdict = self._filter.check(target, measured, now_ns)
            self.log.note(self.frame, verdict.breaches)
            self._send(verdict.command)
            self._is_holding = False
            self._watchdog.feed(now_ns)
            self.timer.commanded(now_ns)
        return verdict.command.astype(np.float32)

    def hold(self) -> None:
        """Sends the last command again. Raises G1Fault."""
        with self._lock:
            self._require_running()
            self._send(self._filter.command)
            self._watchdog.feed(self._clock.now_ns())

    def send_posture(self, head: np.ndarray, waist: np.ndarray) -> None:
        """Commands head [yaw, pitch] in rad and waist [pitch rad, lift m]. Raises G1Fault."""
        self._require_running()
        self._link.send_posture(head, waist)

    def watch(self) -> None:
        """Holds the robot if the next command is late, gives up if none comes. Call it often; it takes as long as the link
        does."""
        with self._lock:
            now_ns = self._clock.now_ns()
            if self.fault is not None or not self._watchdog.is_late(now_ns):
                return
            try:
                self._hold(now_ns)
            except G1Fault as fault:
                self.fail(fault)
                return
            except Exception as error:  # nobody may be left who thinks that the robot is held
                self.fail(LinkFault(f"{type(error).__name__}: {error}"))
                return
            if self._watchdog.is_over(now_ns) and not (self._is_waiting or self._is_paused):
                limit_s = self._config.timing.give_up_s
                self.fail(CommandsStoppedError(f"no command for {limit_s} s; the policy or its computer hangs"))

    def pause(self) -> None:
        """Between episodes nobody commands, and the watchdog holds the robot."""
        with self._lock:
            self._is_paused = True

    def settle(self) -> None:
        """An episode begins from here, softly."""
        with self._lock:
            now_ns = self._clock.now_ns()
            self._filter.rest(now_ns)
            self._watchdog.feed(now_ns)
            self.timer.reset()
            self._is_paused = False

    def close(self) -> None:
        with self._lock:
            self._watchdog.stop()
            self._link.close()

    def _hold(self, now_ns: int) -> None:
        self._require_running()
        self._filter.rest(now_ns)
        self._following.reset()
        self._send(self._filter.command)
        if not (self._is_holding or self._is_paused):
            self._is_holding = True
            self.log.write("g1_hold", self.frame, kind="sensors_late" if self._is_waiting else "command_late")

    def _send(self, command: np.ndarray) -> None:
        if not self._config.dry_run:
            self._link.send(command)

    def _require_running(self) -> None:
        with self._lock:
            why = self._link.stopped()
        if why:
            raise EmergencyStopError(f"the robot is stopped: {why}; release it, look at the scene, then reset")

    def _require_following(self, measured: np.ndarray, now_ns: int) -> None:
        if self._config.dry_run:
            return
        joint = self._following.find_stuck(self._filter.command[ARMS], measured[ARMS], now_ns)
        if joint is not None:
            apart = abs(self._filter.command[joint] - measured[joint])
            raise NotFollowingError(
                f"joint {joint + 1} of 14 stays {apart:.3f} rad from its command; it is blocked, or the robot ignores "
                "commands: is its service in the mode for external control?"
            )

    def _wait_for(self, read: Callable[[int], Read]) -> Read:
        """Reads again until it is fresh, or until it has taken too long; the watchdog holds the robot meanwhile."""
        deadline_ns = self._clock.now_ns() + round(self._config.timing.give_up_s * 1e9)
        try:
            while True:
                try:
                    return read(self._clock.now_ns())
                except _PASSING:
                    if self._clock.now_ns() >= deadline_ns:
                        raise
                except G1Fault:
                    raise
                except Exception as error:  # whatever it is, the episode ends and is kept
                    raise LinkFault(f"{type(error).__name__}: {error}") from error
                self._is_waiting = True
                self.watch()
                if self.fault is not None:
                    raise self.fault
                self._clock.sleep_s(_POLL_S)
        finally:
            self._is_waiting = False
