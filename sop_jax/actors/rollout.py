"""One episode on one robot: the loop that recorded episodes, demonstrations and evaluation trials share.

A tick is: ask whether the episode is over, decide who acts, observe, act, keep the frame, wait for the next tick. Cameras
are read only on frames whose images are kept or that the policy infers on.

Legend: `A` action dimensions.
"""

import dataclasses
import enum
import math
from collections.abc import Callable, Generator, Mapping
from typing import Any, Protocol, TypeVar

import numpy as np

from sop_jax.actors.chunk_player import ChunkRequest, ChunkStats, NonFiniteActionError
from sop_jax.actors.chunking import ChunkingConfig
from sop_jax.actors.handover import HandoverConfig
from sop_jax.actors.interrupts import deferred_interrupt
from sop_jax.actors.pilot import FrameLabel, Pilot
from sop_jax.specs.clock import Clock, Ticker
from sop_jax.specs.errors import ConfigError, InferenceTimeoutError
from sop_jax.specs.interfaces import Robot
from sop_jax.specs.records import EpisodeEnd, Observation, Outcome

INTERRUPTED = EpisodeEnd(Outcome.ABORTED, "keyboard_interrupt")
STOPPED = EpisodeEnd(Outcome.ABORTED, "stopped")
MAX_FRAMES = EpisodeEnd(Outcome.TIMEOUT, "max_frames")
NON_FINITE_ACTION = EpisodeEnd(Outcome.ERROR, "non_finite_action")
INFERENCE_TIMEOUT = EpisodeEnd(Outcome.ERROR, "inference_timeout")

T = TypeVar("T")


class Pause(enum.Enum):
    """Where a robot's steps stop for whoever runs many robots on one thread, beside its questions to the policy.

    LOOK: its cameras are about to be read. MOVE: it was commanded, and time may go on. BETWEEN: no episode is under way.
    """

    LOOK = "look"
    MOVE = "move"
    BETWEEN = "between"


Step = ChunkRequest | Pause
"""What a robot's steps stop for."""


@dataclasses.dataclass(frozen=True)
class RolloutConfig:
    """How an episode is run.

    execute_steps: ticks from the start of one inference to the start of the next.
    inference_delay_frames: ticks from an observation to its chunk. 0 computes inside the tick and acts on it at once; more
        simulates an inference that takes so long, repeatably; None computes on a thread while the robot goes on, for as long
        as it takes (real robots).
    max_inference_s: in real time, such a thread may take so long; then the episode ends as ERROR, kind "inference_timeout".
    chunking: whether a new chunk continues the one under way (real-time chunking).
    handover: how the command eases from the policy's targets to the supervisor's and back; off unless set.
    reaction_delay_s: from a supervisor's request to its takeover [robot seconds].
    max_frames: a guard against episodes without end; the episode then ends as TIMEOUT, kind "max_frames".
    realtime: pace ticks by the clock at the robot's control rate; False runs a simulation as fast as the machine can.
    """

    execute_steps: int = 8
    reaction_delay_s: float = 0.3
    max_frames: int = 18_000
    realtime: bool = False
    inference_delay_frames: int | None = 0
    max_inference_s: float = 2.0
    chunking: ChunkingConfig = dataclasses.field(default_factory=ChunkingConfig)
    handover: HandoverConfig = dataclasses.field(default_factory=HandoverConfig)

    def __post_init__(self) -> None:
        if self.execute_steps < 1 or self.max_frames < 1:
            raise ConfigError(f"RolloutConfig: execute_steps and max_frames must be >= 1, got {self}")
        if not (math.isfinite(self.max_inference_s) and self.max_inference_s > 0):
            raise ConfigError(f"RolloutConfig.max_inference_s must be positive, got {self.max_inference_s}")
        if self.reaction_delay_s < 0:
            raise ConfigError(f"RolloutConfig.reaction_delay_s must be >= 0, got {self.reaction_delay_s}")
        if self.inference_delay_frames is not None and self.inference_delay_frames < 0:
            raise ConfigError(
                f"RolloutConfig.inference_delay_frames must be >= 0, or None, got {self.inference_delay_frames}"
            )

    @staticmethod
    def from_dict(values: Mapping[str, Any]) -> "RolloutConfig":
        """The config back from `dataclasses.asdict`, as worker processes are told it."""
        nested = {"chunking": ChunkingConfig(**values["chunking"]), "handover": HandoverConfig(**values["handover"])}
        return RolloutConfig(**{**values, **nested})

    def delay_frames(self, control_hz: float) -> int:
        """The reaction delay in control ticks, rounded to the nearest."""
        return round(self.reaction_delay_s * control_hz)

    def max_inference_ticks(self, control_hz: float) -> int | None:
        """The ticks that an inference on a thread may take; None without real time, where ticks don't measure it."""
        is_timed = self.realtime and self.inference_delay_frames is None
        return max(1, round(self.max_inference_s * control_hz)) if is_timed else None


@dataclasses.dataclass(frozen=True)
class RolloutReport:
    """What an episode was like, as the loop saw it.

    duration_s: frames over the control rate (robot time). wall_s: the clock's time from first tick to last.
    tick_s: the clock's time that a tick's work took, mean and worst (its wait is left out).
    num_late_ticks, max_late_s: ticks that began later than planned, in a paced run.
    chunks: what became of the policy's chunks.
    """

    end: EpisodeEnd
    num_frames: int
    duration_s: float
    wall_s: float
    mean_tick_s: float
    max_tick_s: float
    num_late_ticks: int
    max_late_s: float
    chunks: ChunkStats


class FrameSink(Protocol):
    """What becomes of the frames: a recorder keeps them, a trial throws them away.

    `keeps_images` says before a frame is observed whether `add` wants its images; `add` gets them then, and perhaps when the
    policy needed them.
    """

    def keeps_images(self, frame: int) -> bool: ...

    def add(self, observation: Observation, action: np.ndarray, label: FrameLabel) -> None: ...


class NoSink:
    """Keeps nothing."""

    def keeps_images(self, frame: int) -> bool:
        del frame
        return False

    def add(self, observation: Observation, action: np.ndarray, label: FrameLabel) -> None:
        del observation, action, label


def never() -> bool:
    """The `should_stop` of a rollout that nobody stops."""
    return False


def roll_out(
    robot: Robot,
    pilot: Pilot,
    sink: FrameSink,
    config: RolloutConfig,
    clock: Clock,
    should_stop: Callable[[], bool] = never,
) -> RolloutReport:
    """Runs a robot that was just reset to the end of its episode. Blocks until then; drives the robot on this thread.

    Ctrl-C and `should_stop` end the episode after a whole tick, as ABORTED. A NaN action ends it as ERROR before the robot
    sees it, and so does an inference that missed its deadline. Any other exception of the robot, the pilot or the sink is
    raised.
    """
    with deferred_interrupt() as interrupted:
        return run_through(rollout_steps(robot, pilot, sink, config, clock, interrupted, should_stop))


def rollout_steps(
    robot: Robot,
    pilot: Pilot,
    sink: FrameSink,
    config: RolloutConfig,
    clock: Clock,
    interrupted: Callable[[], bool] = never,
    should_stop: Callable[[], bool] = never,
) -> Generator[Step, None, RolloutReport]:
    """The rollout of `roll_out`, which stops before it looks, before each question to the policy (and says what it will be),
    and after each command.

    So one thread can run many robots side by side and have their pictures, chunks and physics computed together, before it
    goes on.
    """
    pacer = _Pacer(clock, robot.spec.control_hz if config.realtime else None)
    frame = 0
    try:
        while (end := _find_end(robot, frame, config, interrupted, should_stop)) is None:
            label = pilot.begin_tick(frame)
            if looks := sink.keeps_images(frame) or pilot.needs_images:
                yield Pause.LOOK
            observation = robot.observe(images=looks)
            if (request := pilot.request(observation)) is not None:
                yield request
            executed = robot.apply(pilot.act(observation))
            yield Pause.MOVE
            pilot.end_tick(executed)
            sink.add(observation, executed, label)
            frame += 1
            pacer.end_tick()
    except KeyboardInterrupt:
        end = INTERRUPTED
    except NonFiniteActionError:
        end = NON_FINITE_ACTION
    except InferenceTimeoutError:
        end = INFERENCE_TIMEOUT
    return RolloutReport(
        end=end,
        num_frames=frame,
        duration_s=frame / robot.spec.control_hz,
        wall_s=pacer.elapsed_s,
        mean_tick_s=pacer.busy_s / max(1, frame),
        max_tick_s=pacer.max_busy_s,
        num_late_ticks=pacer.num_late,
        max_late_s=pacer.max_late_s,
        chunks=pilot.chunk_stats,
    )


def run_through(steps: Generator[Step, None, T]) -> T:
    """Runs the steps of a robot that does everything for itself to their end."""
    while True:
        try:
            next(steps)
        except StopIteration as end:
            return end.value


def _find_end(
    robot: Robot,
    frame: int,
    config: RolloutConfig,
    interrupted: Callable[[], bool],
    should_stop: Callable[[], bool],
) -> EpisodeEnd | None:
    end = robot.check_end()
    if end is not None:
        return end
    if interrupted():
        return INTERRUPTED
    if should_stop():
        return STOPPED
    return MAX_FRAMES if frame >= config.max_frames else None


class _Pacer:
    """Waits for ticks (if they are paced) and measures them."""

    def __init__(self, clock: Clock, rate_hz: float | None):
        self._clock = clock
        self._ticker = Ticker(clock, rate_hz) if rate_hz is not None else None
        self._started_ns = self._tick_ns = clock.now_ns()
        self.busy_s = 0.0
        self.max_busy_s = 0.0
        self.num_late = 0
        self.max_late_s = 0.0

    @property
    def elapsed_s(self) -> float:
        return (self._clock.now_ns() - self._started_ns) / 1e9

    def end_tick(self) -> None:
        busy_s = (self._clock.now_ns() - self._tick_ns) / 1e9
        self.busy_s += busy_s
        self.max_busy_s = max(self.max_busy_s, busy_s)
        if self._ticker is not None:
            late_s = self._ticker.wait()
            self.num_late += late_s > 0
            self.max_late_s = max(self.max_late_s, late_s)
        self._tick_ns = self._clock.now_ns()
