"""Where the control loop and the people meet: one robot's console.

The loop writes what it sees and asks what people want; links and devices do it the other way round, from their own threads.
"""

import collections
import dataclasses
import threading
from collections.abc import Callable, Mapping
from typing import final

import numpy as np

from sop_jax.actors.operator.commands import (
    Command,
    HandBack,
    Mark,
    Motion,
    Move,
    OfEpisode,
    Ready,
    StageMark,
    Take,
    Targets,
)
from sop_jax.actors.operator.status import Control, Status
from sop_jax.specs.clock import Clock
from sop_jax.specs.interfaces import Metrics
from sop_jax.specs.metrics import NoMetrics
from sop_jax.specs.records import EpisodeEnd, EpisodeMark, Outcome

MOTION_LIFE_S = 0.3
"""A motion that isn't said again within this time is over: a link that drops stops the hand."""

_POLL_S = 0.1


@final
class Console:
    """Thread-safe.

        console.obey(Take())                         # people: links, devices
        console.begin_episode(task, instruction)     # the loop
        if console.operator_wanted: ...

    Scenes and marks that name another episode than this one are dropped. Marks go to `judge`, which ends the episode; a
    failure's kind is "operator", or the last stage that was marked with "after_" before it. Metrics: "operator_take",
    "operator_stop", "operator_hand_back", "operator_stage", "operator_mark", each with the frame and with
    `episode_started_ns`, which is the manifest's `started_ns`.
    """

    def __init__(
        self,
        robot_id: str,
        clock: Clock,
        policy_version: Callable[[], int] = lambda: -1,
        metrics: Metrics | None = None,
    ):
        self._clock = clock
        self._policy_version = policy_version
        self._metrics = metrics or NoMetrics()
        self._lock = threading.Lock()
        self._status = Status(robot_id)
        self._judge: Callable[[EpisodeEnd], None] | None = None
        self._motion: Motion | None = None
        self._grippers: dict[str, float] = {}
        self._motion_ns = self._started_ns = 0
        self._images: Mapping[str, np.ndarray] = {}
        self._images_number = 0
        self._scene_is_set = self._stop_wanted = self._stop_told = False
        self._marked_stage = ""
        self._marks: collections.deque[EpisodeMark] = collections.deque()
        self.watched = False

    @property
    def status(self) -> Status:
        with self._lock:
            return dataclasses.replace(self._status, policy_version=self._policy_version())

    @property
    def pictures(self) -> tuple[int, Mapping[str, np.ndarray]]:
        """The newest pictures, uint8 RGB [h, w, 3] by camera, and their number, which rises by one each time."""
        with self._lock:
            return self._images_number, self._images

    @property
    def operator_wanted(self) -> bool:
        with self._lock:
            return self._status.wants_operator

    @property
    def motion(self) -> Motion | None:
        """What the person's hand is doing; None once that is too long ago. Absolute targets stay what they are."""
        with self._lock:
            age_s = (self._clock.now_ns() - self._motion_ns) / 1e9
            return self._motion if age_s <= MOTION_LIFE_S or isinstance(self._motion, Targets) else None

    # People and their devices.

    def obey(self, command: Command) -> None:
        """Does what a person said, where it has a meaning now; else nothing."""
        match command:
            case Take():
                self._take()
            case HandBack():
                self._want_operator(False)
            case Ready():
                self._set_scene(command)
            case Mark():
                self._mark(command)
            case StageMark():
                self._mark_stage(command)
            case Move() | Targets():
                self._take_motion(command)

    # The control loop.

    def take_marks(self) -> list[EpisodeMark]:
        """Stages that people marked since the last time."""
        with self._lock:
            return [self._marks.popleft() for _ in range(len(self._marks))]

    def set_judge(self, judge: Callable[[EpisodeEnd], None]) -> None:
        """Who is told how an episode ended, on the thread of whoever marks it; it must not call the console."""
        self._judge = judge

    def wait_for_scene(self, task: str, instruction: str, should_stop: Callable[[], bool] = lambda: False) -> bool:
        """Blocks until a person says that the scene is set, and returns True; False if `should_stop` came first."""
        with self._lock:
            self._scene_is_set = self._stop_wanted = self._stop_told = False
            self._status = dataclasses.replace(self._status, control="scene", task=task, instruction=instruction)
        while not (self._scene_is_set or should_stop()):
            self._clock.sleep_s(_POLL_S)
        self._change(control="between")
        return self._scene_is_set

    def allow_way(self) -> bool:
        """On the way to the start, once per tick: shows it to the people. False: one of them wants the robot to stop."""
        self.tell("start")
        with self._lock:
            self._stop_told = self._stop_wanted
            return not self._stop_wanted

    def begin_episode(self, task: str, instruction: str, control_hz: float, stages: tuple[str, ...] = ()) -> None:
        """The robot stands at its start. A stop that came too late for the way there is a takeover: no policy acts."""
        with self._lock:
            is_late_stop = self._stop_wanted and not self._stop_told
            self._stop_wanted = self._stop_told = False
            self._motion, self._grippers, self._marked_stage, self._started_ns = None, {}, "", 0
            self._marks.clear()
            self._status = dataclasses.replace(
                self._status, task=task, instruction=instruction, control="policy", control_hz=control_hz,
                wants_operator=is_late_stop, asks="", fault="", frame=0, stages=stages, stage="",
            )  # fmt: skip

    def see(self, frame: int, state: np.ndarray, time_ns: int, stage: str = "") -> None:
        """What the robot measured at a tick."""
        values = tuple(round(float(value), 4) for value in state)
        with self._lock:
            self._started_ns = self._started_ns or time_ns
            self._status = dataclasses.replace(
                self._status, frame=frame, state=values, stage=self._marked_stage or stage
            )

    def show(self, images: Mapping[str, np.ndarray]) -> None:
        """Pictures for people."""
        with self._lock:
            self._images, self._images_number = dict(images), self._images_number + 1

    def tell(self, control: Control, asks: str = "") -> None:
        """Who acts on this tick, and whether the robot would like help."""
        if (control, asks) != (self._status.control, self._status.asks):
            self._change(control=control, asks=asks)

    def end_episode(self, end: EpisodeEnd) -> None:
        kind = f" ({end.failure_kind})" if end.failure_kind else ""
        with self._lock:
            self._motion = None
            self._status = dataclasses.replace(
                self._status, control="between", wants_operator=False, asks="", last_end=f"{end.outcome.value}{kind}",
                fault=end.failure_kind if end.outcome is Outcome.ERROR else "",
                num_episodes=self._status.num_episodes + 1,
            )  # fmt: skip

    def _take(self) -> None:
        with self._lock:
            is_on_its_way = self._status.control == "start"
            if is_on_its_way:
                self._stop_wanted = True
        if is_on_its_way:
            self._write("operator_stop")
        else:
            self._want_operator(True)

    def _want_operator(self, wanted: bool) -> None:
        with self._lock:
            is_under_way = self._status.control in ("policy", "operator")
            if not is_under_way or wanted == self._status.wants_operator:
                return
            self._motion, self._grippers = None, {}
            self._status = dataclasses.replace(self._status, wants_operator=wanted)
        self._write("operator_take" if wanted else "operator_hand_back")

    def _take_motion(self, motion: Motion) -> None:
        with self._lock:
            if isinstance(motion, Move):
                # Motions may be overtaken by newer ones before the loop sees them; what a gripper was told must not be.
                if motion.gripper is not None:
                    self._grippers[motion.hand] = motion.gripper
                motion = dataclasses.replace(motion, gripper=self._grippers.get(motion.hand))
            self._motion, self._motion_ns = motion, self._clock.now_ns()

    def _set_scene(self, command: Ready) -> None:
        with self._lock:
            if self._is_meant(command):
                self._scene_is_set = True

    def _mark(self, command: Mark) -> None:
        outcome = command.outcome
        with self._lock:  # until the judge has it: another episode can't begin in between and get this one's label
            if self._judge is None or not self._is_under_way or not self._is_meant(command):
                return
            kind = f"after_{self._marked_stage}" if self._marked_stage else "operator"
            self._write("operator_mark", outcome=outcome.value)
            self._judge(EpisodeEnd(outcome, "" if outcome is Outcome.SUCCESS else kind))

    def _mark_stage(self, command: StageMark) -> None:
        stage = command.stage
        with self._lock:
            if not self._is_under_way or not self._is_meant(command):
                return
            self._marked_stage = stage
            self._status = dataclasses.replace(self._status, stage=stage)
            self._marks.append(EpisodeMark(self._status.frame, "stage", stage))
        self._write("operator_stage", stage=stage)

    @property
    def _is_under_way(self) -> bool:
        return self._status.control in ("policy", "operator")

    def _is_meant(self, command: OfEpisode) -> bool:
        return command.episode in (None, self._status.num_episodes)

    def _change(self, **values: object) -> None:
        with self._lock:
            self._status = dataclasses.replace(self._status, **values)

    def _write(self, event: str, **values: str) -> None:
        status = self._status
        started_ns = self._started_ns
        self._metrics.write(
            event, robot_id=status.robot_id, frame=status.frame, episode_started_ns=started_ns, **values
        )
