"""A real AgiBot G1 (or its emulator) as a robot."""

import dataclasses
import threading
from collections.abc import Callable

import numpy as np

from sop_jax.robots.g1.body import G1Body
from sop_jax.robots.g1.config import CameraConfig, G1RobotConfig
from sop_jax.robots.g1.faults import G1Fault
from sop_jax.robots.g1.link import BodyState, G1Link
from sop_jax.robots.g1.start import go_to_start, unwatched
from sop_jax.robots.g1.workplace import Workplace
from sop_jax.robots.two_arm import ACTION_NAMES
from sop_jax.specs.clock import Clock, Ticker
from sop_jax.specs.interfaces import Metrics
from sop_jax.specs.metrics import NoMetrics
from sop_jax.specs.records import CameraSpec, EpisodeEnd, EpisodeMark, Observation, Outcome, RobotSpec

ROBOT_TYPE = "g1"
TIME_UP = EpisodeEnd(Outcome.TIMEOUT, "timeout")
DRY_RUN = EpisodeEnd(Outcome.ABORTED, "dry_run")


class G1Robot:
    """Implements `specs.interfaces.Robot` over a link.

    Time: `time_ns` is this computer's clock at the observation. Commands are never closer than the control rate allows, even
    if the caller doesn't pace: the next `observe` or `apply` waits for its tick.

    An observation with images carries the states of the pictures' instant; one without, the newest. Faults end the episode
    as ERROR, kind as in `faults`: the tick under way is completed with the last command, which isn't sent again, and nothing
    is sent until `reset`. Between episodes the robot is held where it was sent last.

    A dry run's episodes end as ABORTED, kind "dry_run", whatever the verdict: their actions were never carried out, so
    nothing may learn from them.

    `background` watches over late commands on a thread; without it, somebody must call `watch` (simulated time).
    `on_the_way` is called on every tick of the way to the start; what it raises stops the robot there. A G1Fault is then the
    end of the episode, anything else is raised by `reset`.
    Metrics: "g1_breach", "g1_hold", "g1_fault" as they happen (see `safety_log`), "g1_episode" at the end.
    """

    def __init__(
        self,
        config: G1RobotConfig,
        link: G1Link,
        workplace: Workplace,
        clock: Clock,
        metrics: Metrics | None = None,
        background: bool = True,
        on_the_way: Callable[[], None] = unwatched,
    ):
        self._config = config
        self._workplace = workplace
        self._clock = clock
        self._metrics = metrics or NoMetrics()
        self._on_the_way = on_the_way
        self._spec = _make_spec(config)
        self._body = G1Body(config, link, clock, self._metrics)
        self._ticker = Ticker(clock, config.timing.control_hz)
        self._tick_is_due = False
        self._end: EpisodeEnd | None = None
        self._state: BodyState | None = None
        self._images: dict[str, np.ndarray] = {}
        self._time_ns = self._started_ns = 0
        self._num_frames = 0
        self._closing = threading.Event()
        self._watcher = threading.Thread(target=self._keep_watch, name="g1-watchdog", daemon=True)
        if background:
            self._watcher.start()

    @property
    def spec(self) -> RobotSpec:
        return self._spec

    @property
    def task(self) -> str:
        return self._workplace.task

    @property
    def instruction(self) -> str:
        return self._workplace.instruction

    @property
    def breaches(self) -> dict[str, int]:
        """Commands of this episode that would have passed a limit, by kind of limit."""
        return self._body.log.counts

    def take_marks(self) -> list[EpisodeMark]:
        """Breaches, holds and faults since the last time."""
        return self._body.log.take_marks()

    def reset(self, seed: int) -> None:
        """Waits for the scene, then brings the robot to its start. A robot that can't is at the end of its episode."""
        self._body.pause()
        self._workplace.prepare(seed)
        self._end, self._num_frames, self._time_ns, self._tick_is_due = None, 0, 0, False
        self._images = {camera.name: _black(camera) for camera in self._config.cameras}
        try:
            self._state = self._body.start()
            self._state = go_to_start(self._config, self._body, self._clock, self._on_the_way)
        except G1Fault as fault:
            self._body.fail(fault)
        self._started_ns = self._clock.now_ns()
        self._body.log.reset(self._started_ns)
        self._body.settle()
        self._ticker = Ticker(self._clock, self._config.timing.control_hz)

    def observe(self, images: bool = True) -> Observation:
        self._await_tick()
        self._body.timer.observed(self._clock.now_ns())
        if self._body.fault is None:
            try:
                self._look(images)
            except G1Fault as fault:
                self._body.fail(fault)
        self._time_ns = max(self._clock.now_ns(), self._time_ns + 1)
        if self._num_frames == 0:
            self._started_ns = self._time_ns
            self._body.log.start_at(self._time_ns)
        return Observation(
            images=dict(self._images) if images else {},
            state=self._present().vector.astype(np.float32),
            instruction=self.instruction,
            time_ns=self._time_ns,
        )

    def apply(self, action: np.ndarray) -> np.ndarray:
        self._present()
        if self._end is not None:
            raise RuntimeError(
                f"task {self.task}: the episode is over ({self._end}); reset the robot before it moves again"
            )
        self._await_tick()
        executed = self._move(action)
        self._num_frames += 1
        self._body.frame = self._num_frames
        self._tick_is_due = True
        return executed

    def check_end(self) -> EpisodeEnd | None:
        if self._end is None and (end := self._find_end()) is not None:
            self.told_end(end)
        return self._end

    def told_end(self, end: EpisodeEnd) -> None:
        """Implements `actors.marks.HearsEnd`: from here on nobody commands, and the watchdog holds the robot."""
        if self._end is None:
            self._end = end
            self._body.pause()
            self._write_report(end)

    def watch(self) -> None:
        """Looks after late commands; the background thread's work."""
        self._body.watch()

    def close(self) -> None:
        self._closing.set()
        if self._watcher.is_alive():
            self._watcher.join()
        self._body.close()

    def _look(self, images: bool) -> None:
        if not images:
            self._state = self._body.read_state()
            return
        sample = self._body.read_sample()
        self._state, self._images = sample.state, dict(sample.images)

    def _move(self, action: np.ndarray) -> np.ndarray:
        if self._body.fault is None:
            try:
                return self._body.move(action)
            except G1Fault as fault:
                self._body.fail(fault)
        return self._body.command

    def _find_end(self) -> EpisodeEnd | None:
        if (fault := self._body.fault) is not None:
            return EpisodeEnd(Outcome.ERROR, fault.kind)
        self._present()
        end = self._workplace.verdict()
        if end is None and self._num_frames >= round(self._config.time_limit_s * self._spec.control_hz):
            end = TIME_UP
        return DRY_RUN if end is not None and self._config.dry_run else end

    def _present(self) -> BodyState:
        if self._state is None:
            raise RuntimeError(f"task {self.task}: the robot was never reset; call reset(seed) first")
        return self._state

    def _await_tick(self) -> None:
        if self._tick_is_due:
            self._tick_is_due = False
            self._ticker.wait()

    def _keep_watch(self) -> None:
        while not self._closing.wait(1.0 / self._spec.control_hz):
            self._body.watch()

    def _write_report(self, end: EpisodeEnd) -> None:
        self._metrics.write(
            "g1_episode",
            episode_started_ns=self._started_ns,
            num_frames=self._num_frames,
            outcome=end.outcome.value,
            failure_kind=end.failure_kind,
            dry_run=self._config.dry_run,
            **{f"num_{kind}": count for kind, count in sorted(self.breaches.items())},
            **dataclasses.asdict(self._body.timer.report()),
        )


def _make_spec(config: G1RobotConfig) -> RobotSpec:
    return RobotSpec(
        robot_type=ROBOT_TYPE,
        cameras=tuple(CameraSpec(camera.name, camera.height, camera.width) for camera in config.cameras),
        action_names=ACTION_NAMES,
        action_low=config.limits.low,
        action_high=config.limits.high,
        control_hz=config.timing.control_hz,
    )


def _black(camera: CameraConfig) -> np.ndarray:
    return np.zeros((camera.height, camera.width, 3), np.uint8)
