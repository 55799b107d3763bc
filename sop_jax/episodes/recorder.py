"""Collects one episode, a control tick at a time, and seals it.

recorder = EpisodeRecorder(robot.spec, episode_id=..., task=..., ...)
while not done:
    recorder.takeover_asked("no_progress")          # when a supervisor asks, before its reaction delay
    recorder.add(observation, executed_action, intervention=supervisor_acts)
episode = recorder.seal(robot.check_end())
"""

import dataclasses

import numpy as np

from sop_jax.episodes.images import DEFAULT_QUALITY, encode_image
from sop_jax.episodes.manifest_codec import MAX_FRAMES, MAX_MARKS, MAX_TEXT
from sop_jax.specs.identifiers import check_name, robot_of_episode
from sop_jax.specs.records import (
    NO_POLICY,
    Episode,
    EpisodeArrays,
    EpisodeEnd,
    EpisodeManifest,
    EpisodeMark,
    Observation,
    RobotSpec,
    Source,
    TakeoverEvent,
)


@dataclasses.dataclass
class _Frames:
    """Columns as they grow; one entry per control tick, images apart."""

    state: list[np.ndarray] = dataclasses.field(default_factory=list)
    action: list[np.ndarray] = dataclasses.field(default_factory=list)
    intervention: list[bool] = dataclasses.field(default_factory=list)
    policy_version: list[int] = dataclasses.field(default_factory=list)
    time_ns: list[int] = dataclasses.field(default_factory=list)
    image_frames: list[int] = dataclasses.field(default_factory=list)
    jpegs: list[tuple[bytes, ...]] = dataclasses.field(default_factory=list)


class EpisodeRecorder:
    """Records what was observed and executed. Not thread-safe; JPEGs are encoded inside `add`, on image frames only.

    Takeover events follow from the intervention flags: a takeover begins at the first flagged frame and ends where the
    flags end; `takeover_asked` adds when and why it was asked for. Demonstrations (NO_POLICY) have no takeovers.
    """

    def __init__(
        self,
        spec: RobotSpec,
        *,
        episode_id: str,
        task: str,
        instruction: str,
        source: Source,
        policy_version: int,
        seed: int = 0,
        world: str = "",
        weights_base: str = "",
        norm_stats: str = "",
        started_ns: int | None = None,
        jpeg_quality: int = DEFAULT_QUALITY,
    ):
        """`started_ns` defaults to the first frame's time. Raises InvalidEpisodeError for bad names, ValueError else."""
        if not 1 <= jpeg_quality <= 100:
            raise ValueError(f"recorder of {episode_id}: jpeg_quality must be 1 to 100, got {jpeg_quality}")
        if not instruction:
            raise ValueError(f"recorder of {episode_id}: instruction must not be empty")
        if policy_version < NO_POLICY:
            raise ValueError(f"recorder of {episode_id}: policy_version must be >= {NO_POLICY}, got {policy_version}")
        self._spec = spec
        self._episode_id = episode_id
        self._robot_id = robot_of_episode(episode_id)
        self._task = check_name("task", task)
        self._instruction = instruction
        self._source = Source(source)
        self._policy_version = policy_version
        self._seed = seed
        self._world = world
        self._weights_base = weights_base
        self._norm_stats = norm_stats
        self._started_ns = started_ns
        self._jpeg_quality = jpeg_quality
        self._frames = _Frames()
        self._asked: tuple[int, str] | None = None
        self._open: tuple[int, int, str] | None = None
        self._takeovers: list[TakeoverEvent] = []
        self._marks: list[EpisodeMark] = []
        self._sealed = False

    @property
    def num_frames(self) -> int:
        return len(self._frames.time_ns)

    @property
    def num_image_frames(self) -> int:
        return len(self._frames.image_frames)

    def takeover_asked(self, reason: str) -> None:
        """Notes that a takeover is wanted from the coming frame on; the first request before a takeover counts."""
        if self._asked is None and self._open is None:
            self._asked = (self.num_frames, reason)

    def takeover_withdrawn(self) -> None:
        """Forgets a request that was not followed by a takeover."""
        self._asked = None

    def mark(self, mark: EpisodeMark) -> None:
        """Keeps what is worth knowing about a frame. The note is cut to its bound, less what can't be printed. Only the first
        `MAX_MARKS` of an episode are kept: a robot whose every command breaches a limit says so in them.
        """
        check_name("kind of mark", mark.kind)
        note = "".join(character for character in mark.note if character.isprintable())[:MAX_TEXT]
        if len(self._marks) < MAX_MARKS:
            self._marks.append(dataclasses.replace(mark, note=note))

    def add(
        self,
        observation: Observation,
        action: np.ndarray,
        *,
        intervention: bool,
        policy_version: int | None = None,
    ) -> None:
        """Appends one control tick.

        Args:
            observation: Before the action. Non-empty `images` (then every camera's) make it an image frame.
            action: The executed command, float32 [A].
            intervention: Whether a human or a scripted supervisor gave the action.
            policy_version: None = the episode's; a policy never changes within an episode.

        Raises:
            ValueError: Something doesn't fit the robot's spec, or time did not move on.
        """
        version = self._policy_version if policy_version is None else policy_version
        self._check(observation, action, version)
        if observation.images:
            self._frames.jpegs.append(self._encode(observation))
            self._frames.image_frames.append(self.num_frames)
        self._track_takeover(bool(intervention))
        self._frames.state.append(np.array(observation.state, np.float32))
        self._frames.action.append(np.array(action, np.float32))
        self._frames.intervention.append(bool(intervention))
        self._frames.policy_version.append(version)
        self._frames.time_ns.append(int(observation.time_ns))

    def seal(self, end: EpisodeEnd, *, ended_ns: int | None = None) -> Episode:
        """Ends the episode; the recorder can't be used again. `ended_ns` defaults to one period after the last frame."""
        if self._sealed or not self.num_frames:
            state = "sealed already" if self._sealed else "without a frame"
            raise ValueError(f"recorder of {self._episode_id}: expected an open episode with frames, got one {state}")
        self._sealed = True
        self._track_takeover(False)
        times = self._frames.time_ns
        period_ns = round(1e9 / self._spec.control_hz)
        manifest = EpisodeManifest(
            episode_id=self._episode_id,
            robot_id=self._robot_id,
            task=self._task,
            instruction=self._instruction,
            source=self._source,
            policy_version=self._policy_version,
            outcome=end.outcome,
            failure_kind=end.failure_kind,
            control_hz=self._spec.control_hz,
            num_frames=self.num_frames,
            cameras=self._spec.cameras,
            action_names=self._spec.action_names,
            started_ns=times[0] if self._started_ns is None else self._started_ns,
            ended_ns=times[-1] + period_ns if ended_ns is None else ended_ns,
            weights_base=self._weights_base,
            norm_stats=self._norm_stats,
            seed=self._seed,
            world=self._world,
            takeovers=tuple(self._takeovers),
            marks=self._marks_in_order(),
        )
        arrays = EpisodeArrays(
            state=np.stack(self._frames.state),
            action=np.stack(self._frames.action),
            intervention=np.array(self._frames.intervention, bool),
            policy_version=np.array(self._frames.policy_version, np.int32),
            time_ns=np.array(times, np.int64),
            image_frames=np.array(self._frames.image_frames, np.int32),
        )
        return Episode(manifest, arrays, tuple(self._frames.jpegs))

    def _marks_in_order(self) -> tuple[EpisodeMark, ...]:
        """A mark that came after the last frame is about that one."""
        last = self.num_frames - 1
        inside = [dataclasses.replace(mark, frame=min(max(mark.frame, 0), last)) for mark in self._marks]
        return tuple(sorted(inside, key=lambda mark: mark.frame))

    def _check(self, observation: Observation, action: np.ndarray, version: int) -> None:
        where = f"recorder of {self._episode_id}, frame {self.num_frames}"
        if self._sealed or self.num_frames >= MAX_FRAMES:
            raise ValueError(f"{where}: the episode is sealed, or has {MAX_FRAMES} frames; start a new recorder")
        shape = (self._spec.action_dim,)
        if np.shape(observation.state) != shape or np.shape(action) != shape:
            got = f"{np.shape(observation.state)} and {np.shape(action)}"
            raise ValueError(f"{where}: state and action must both have shape {shape}, got {got}")
        if version not in (self._policy_version, NO_POLICY):
            raise ValueError(
                f"{where}: policy_version {version} in an episode of version {self._policy_version}; "
                "swap policies at the episode's boundary only"
            )
        if self.num_frames and observation.time_ns <= self._frames.time_ns[-1]:
            raise ValueError(
                f"{where}: time_ns must exceed {self._frames.time_ns[-1]}, got {observation.time_ns}; advance the clock"
            )

    def _encode(self, observation: Observation) -> tuple[bytes, ...]:
        where = f"recorder of {self._episode_id}, frame {self.num_frames}"
        jpegs = []
        for camera in self._spec.cameras:
            image, expected = observation.images.get(camera.name), ("uint8", (camera.height, camera.width, 3))
            got = None if image is None else (image.dtype.name, image.shape)
            if image is None or got != expected:
                raise ValueError(f"{where}: camera {camera.name} must give {expected}, got {got}")
            jpegs.append(encode_image(image, self._jpeg_quality))
        return tuple(jpegs)

    def _track_takeover(self, intervention: bool) -> None:
        if self._policy_version == NO_POLICY:
            return
        frame = self.num_frames
        if intervention and self._open is None:
            asked, reason = self._asked or (frame, "operator")
            self._open, self._asked = (asked, frame, reason), None
        elif not intervention and self._open is not None:
            asked, takeover, reason = self._open
            self._takeovers.append(TakeoverEvent(asked, takeover, frame, reason))
            self._open = None
