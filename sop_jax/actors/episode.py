"""Recorded episodes and unrecorded trials, over the one loop in `rollout`.

Legend: `A` action dimensions.
"""

import contextlib
import dataclasses
from collections.abc import Callable, Generator

import numpy as np

from sop_jax.actors.chunk_player import ChunkPlayer
from sop_jax.actors.handover import Handover
from sop_jax.actors.interrupts import deferred_interrupt
from sop_jax.actors.marks import MakesMarks, tell_end
from sop_jax.actors.pilot import Demonstrator, ExpertPilot, FrameLabel, Pilot, PolicyPilot
from sop_jax.actors.rollout import (
    INTERRUPTED,
    NoSink,
    RolloutConfig,
    RolloutReport,
    Step,
    never,
    rollout_steps,
    run_through,
)
from sop_jax.actors.stages import ShowsStages, StageWatch
from sop_jax.episodes.images import DEFAULT_QUALITY
from sop_jax.episodes.recorder import EpisodeRecorder
from sop_jax.specs.clock import Clock
from sop_jax.specs.errors import ConfigError, SopError
from sop_jax.specs.interfaces import ActionSource, Metrics, Robot, Supervisor
from sop_jax.specs.metrics import NoMetrics
from sop_jax.specs.records import NO_POLICY, Episode, Observation, Outcome, Source


class EmptyEpisodeError(SopError):
    """The episode was over before its first frame, so there is nothing to keep."""


@dataclasses.dataclass(frozen=True)
class RecordingConfig:
    """What an episode keeps.

    image_stride: images of every frame whose index it divides; 3 = 10 Hz on a 30 Hz robot. Only frames with images can
        become training frames.
    jpeg_quality: 1 to 100.
    """

    image_stride: int = 3
    jpeg_quality: int = DEFAULT_QUALITY

    def __post_init__(self) -> None:
        if self.image_stride < 1:
            raise ConfigError(f"RecordingConfig.image_stride must be >= 1, got {self.image_stride}")
        if not 1 <= self.jpeg_quality <= 100:
            raise ConfigError(f"RecordingConfig.jpeg_quality must be 1 to 100, got {self.jpeg_quality}")


@dataclasses.dataclass(frozen=True)
class EpisodeHeader:
    """What is known of an episode before it starts; `seed` draws the scene, and the policy's noise follows from it."""

    episode_id: str
    seed: int
    source: Source = Source.ONLINE
    world: str = ""
    weights_base: str = ""
    norm_stats: str = ""


@dataclasses.dataclass(frozen=True)
class TrialResult:
    """One evaluation trial. `duration_s` is robot time: frames over the control rate.

    last_stage, furthest_stage: where the task stood at the end, and how far it had come at best; "" on a robot that
    doesn't know.
    """

    seed: int
    outcome: Outcome
    failure_kind: str
    num_frames: int
    duration_s: float
    last_stage: str = ""
    furthest_stage: str = ""

    @property
    def success(self) -> bool:
        return self.outcome is Outcome.SUCCESS


def run_episode(
    robot: Robot,
    policy: ActionSource | None,
    supervisor: Supervisor | None,
    header: EpisodeHeader,
    config: RolloutConfig,
    clock: Clock,
    *,
    expert: Demonstrator | None = None,
    recording: RecordingConfig | None = None,
    metrics: Metrics | None = None,
    should_stop: Callable[[], bool] = never,
    before_start: Callable[[Robot], None] | None = None,
) -> Episode:
    """Resets the robot with the header's seed, runs one episode and returns it sealed. Blocks until its end.

    Without a policy the expert (or the supervisor) acts from the first tick on: a demonstration (policy_version NO_POLICY,
    every frame an intervention, no takeovers). `before_start` runs between the reset and the first frame, off the record.
    Writes one "rollout" event.

    Ctrl-C or `should_stop` ends it after a whole tick as ABORTED; the frames so far are kept. The caller sees that in the
    outcome: `was_interrupted` tells Ctrl-C from other ends.

    Raises:
        EmptyEpisodeError: it was over before its first frame.
        KeyboardInterrupt: Ctrl-C came before the first frame.
    """
    return run_through(
        episode_steps(
            robot, policy, supervisor, header, config, clock, expert=expert, recording=recording, metrics=metrics,
            should_stop=should_stop, before_start=before_start,
        )
    )  # fmt: skip


def episode_steps(
    robot: Robot,
    policy: ActionSource | None,
    supervisor: Supervisor | None,
    header: EpisodeHeader,
    config: RolloutConfig,
    clock: Clock,
    *,
    expert: Demonstrator | None = None,
    recording: RecordingConfig | None = None,
    metrics: Metrics | None = None,
    should_stop: Callable[[], bool] = never,
    before_start: Callable[[Robot], None] | None = None,
    interrupted: Callable[[], bool] | None = None,
) -> Generator[Step, None, Episode]:
    """The episode of `run_episode` in steps (see `rollout_steps`). Dropped half-way it leaves nothing behind.

    `interrupted` says whether Ctrl-C was pressed; None: the episode listens for itself, as only one at a time can.
    """
    recorder_config = recording or RecordingConfig()
    pilot = _make_pilot(robot, policy, supervisor, expert, header.seed, config)
    robot.reset(header.seed)
    if before_start is not None:
        before_start(robot)
    for human in (supervisor, expert):
        if human is not None:
            human.reset()
    recorder = EpisodeRecorder(
        robot.spec,
        episode_id=header.episode_id,
        task=robot.task,
        instruction=robot.instruction,
        source=header.source,
        policy_version=NO_POLICY if policy is None else policy.version,
        seed=header.seed,
        world=header.world,
        weights_base=header.weights_base,
        norm_stats=header.norm_stats,
        jpeg_quality=recorder_config.jpeg_quality,
    )
    marked = robot if isinstance(robot, MakesMarks) else None
    sink = _RecorderSink(recorder, recorder_config.image_stride, marked)
    listening = deferred_interrupt() if interrupted is None else contextlib.nullcontext(interrupted)
    with contextlib.closing(pilot), listening as was_pressed:
        report = yield from rollout_steps(robot, pilot, sink, config, clock, was_pressed, should_stop)
        tell_end(robot, report.end)  # first, as closing may wait for an inference
    sink.keep_marks()
    if report.num_frames == 0:
        if report.end == INTERRUPTED:
            raise KeyboardInterrupt
        raise EmptyEpisodeError(
            f"episode {header.episode_id} (seed {header.seed}) ended as {report.end.outcome} {report.end.failure_kind!r} "
            "before its first frame; the scene starts in a final state, or the robot is broken"
        )
    _write_report(metrics or NoMetrics(), header.episode_id, report)
    return recorder.seal(report.end)


def run_trial(
    robot: Robot,
    policy: ActionSource | None,
    config: RolloutConfig,
    clock: Clock,
    seed: int,
    *,
    expert: Demonstrator | None = None,
    should_stop: Callable[[], bool] = never,
) -> TrialResult:
    """Runs one unrecorded episode of the policy (or, without one, of the expert) alone; cameras are read for it only.

    The same seed draws the same scene and the same policy noise as in `run_episode`. Raises KeyboardInterrupt on Ctrl-C.
    """
    with deferred_interrupt() as interrupted:
        return run_through(trial_steps(robot, policy, config, clock, seed, expert, interrupted, should_stop))


def trial_steps(
    robot: Robot,
    policy: ActionSource | None,
    config: RolloutConfig,
    clock: Clock,
    seed: int,
    expert: Demonstrator | None = None,
    interrupted: Callable[[], bool] = never,
    should_stop: Callable[[], bool] = never,
) -> Generator[Step, None, TrialResult]:
    """The trial of `run_trial` in steps (see `rollout_steps`)."""
    pilot = _make_pilot(robot, policy, None, expert, seed, config)
    robot.reset(seed)
    if expert is not None:
        expert.reset()
    watch = StageWatch(robot) if isinstance(robot, ShowsStages) else None
    with contextlib.closing(pilot):
        report = yield from rollout_steps(robot, pilot, watch or NoSink(), config, clock, interrupted, should_stop)
        tell_end(robot, report.end)
    if report.end == INTERRUPTED:
        raise KeyboardInterrupt
    stages = (watch.last, watch.furthest) if watch else ("", "")
    return TrialResult(seed, report.end.outcome, report.end.failure_kind, report.num_frames, report.duration_s, *stages)


def was_interrupted(episode: Episode) -> bool:
    """Whether Ctrl-C ended the episode."""
    return (episode.manifest.outcome, episode.manifest.failure_kind) == dataclasses.astuple(INTERRUPTED)


class _RecorderSink:
    """Hands frames to the recorder, with images on every `image_stride`-th only, and what the robot noted about them."""

    def __init__(self, recorder: EpisodeRecorder, image_stride: int, robot: MakesMarks | None):
        self._recorder = recorder
        self._image_stride = image_stride
        self._robot = robot

    def keeps_images(self, frame: int) -> bool:
        return frame % self._image_stride == 0

    def add(self, observation: Observation, action: np.ndarray, label: FrameLabel) -> None:
        if observation.images and not self.keeps_images(self._recorder.num_frames):
            observation = dataclasses.replace(observation, images={})
        if label.request:
            self._recorder.takeover_asked(label.request)
        self._recorder.add(observation, action, intervention=label.intervention, policy_version=label.policy_version)
        self.keep_marks()

    def keep_marks(self) -> None:
        for mark in () if self._robot is None else self._robot.take_marks():
            self._recorder.mark(mark)


def _make_pilot(
    robot: Robot,
    policy: ActionSource | None,
    supervisor: Supervisor | None,
    expert: Demonstrator | None,
    seed: int,
    config: RolloutConfig,
) -> Pilot:
    if policy is not None:
        player = ChunkPlayer(
            policy,
            seed,
            robot.spec.action_dim,
            config.execute_steps,
            config.inference_delay_frames,
            continues=config.chunking.mode != "none",
            max_inference_ticks=config.max_inference_ticks(robot.spec.control_hz),
        )
        handover = Handover(config.handover, robot.spec)
        return PolicyPilot(player, supervisor, config.delay_frames(robot.spec.control_hz), handover)
    demonstrator = expert or supervisor
    if demonstrator is None:
        raise ConfigError("nobody acts: expected a policy, an expert or a supervisor, got none of them")
    return ExpertPilot(demonstrator)


def _write_report(metrics: Metrics, episode_id: str, report: RolloutReport) -> None:
    metrics.write(
        "rollout",
        episode_id=episode_id,
        num_frames=report.num_frames,
        duration_s=report.duration_s,
        wall_s=report.wall_s,
        mean_tick_s=report.mean_tick_s,
        max_tick_s=report.max_tick_s,
        num_late_ticks=report.num_late_ticks,
        max_late_s=report.max_late_s,
        num_chunks=report.chunks.num_chunks,
        num_held_ticks=report.chunks.num_held_ticks,
        num_stale_chunks=report.chunks.num_stale,
        max_inference_ticks=report.chunks.max_delay_ticks,
    )
