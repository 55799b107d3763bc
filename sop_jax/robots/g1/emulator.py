"""A G1 that isn't there: one of our worlds behind names, shapes, units and rates like those of the vendor's SDK.

    emulator = Emulator(envs.load("restock_shelf"), clock, units, cameras)
    robot = G1Robot(config, connect_emulator(emulator), emulator, clock, background=False)
    emulator.at(30, emergency_stop=True)            # one second into the episode

Time is the clock's: whenever somebody looks, the world is brought up to the present, one control tick after the other. So on
a simulated clock nothing waits, and the same seed gives the same episode. It was made from public descriptions of the SDK,
and shows that our side keeps to them; it is no proof of what a real robot does. Thread-safe: the robot's watchdog looks from
a thread of its own.

Legend: `tick` counts 1/30 s since the last `prepare`.
"""

import bisect
import collections
import threading
from collections.abc import Callable, Sequence

import numpy as np

from envs.environment import Environment
from envs.errors import DivergedError
from envs.g1.kinematics import load_kinematics
from sop_jax.robots.g1.config import CameraConfig, UnitsConfig
from sop_jax.robots.g1.emulated_pictures import HISTORY_TICKS, Moment, Pictures, read_physics
from sop_jax.robots.g1.emulator_faults import EmulatorFaults
from sop_jax.robots.simulated import DIVERGED, read_end
from sop_jax.specs.clock import Clock
from sop_jax.specs.errors import ConfigError
from sop_jax.specs.records import EpisodeEnd

PERIOD_NS = round(1e9 / 30)
FRAME_AGE_TICKS = 2
"""A frame can be had so long after it was taken; about 60 ms were seen on a real robot."""

PAST_TICKS = 8  # before its scene was set, the robot stood there already


class Emulator:
    """The world behind the emulated SDK, and the workplace around it (a `Workplace`)."""

    def __init__(
        self,
        environment: Environment,
        clock: Clock,
        units: UnitsConfig,
        cameras: Sequence[CameraConfig],
        seed: int = 0,
    ):
        """Cameras give square frames of one size here. `seed` draws the pictures' noise."""
        sizes = {size for camera in cameras for size in (camera.frame_height, camera.frame_width)}
        if len(sizes) != 1:
            raise ConfigError(f"the emulator's cameras give square frames of one size, got sizes {sorted(sizes)}")
        self.environment = environment
        self.clock = clock
        self.units = units
        self.cameras = tuple(cameras)
        self.faults = EmulatorFaults()
        self._lock = threading.RLock()
        self._pictures = Pictures(environment, sizes.pop(), seed)
        self._scheduled: list[tuple[int, dict[str, object]]] = []
        self._history: collections.deque[Moment] = collections.deque(maxlen=HISTORY_TICKS)
        home = load_kinematics().home
        self._head = (home.head_yaw_rad, home.head_pitch_rad)
        self._waist = (home.waist_pitch_rad, home.lift_m)
        self._target = np.zeros(16)
        self._end: EpisodeEnd | None = None
        self._started_ns = self._gap_from = self._silent_from = 0
        self.num_commands = 0

    @property
    def task(self) -> str:
        return self.environment.task_name

    @property
    def instruction(self) -> str:
        return self.environment.instruction

    @property
    def started_ns(self) -> int:
        """When the present scene was set."""
        return self._started_ns

    @property
    def target(self) -> np.ndarray:
        """The last command that the robot took, float64 [16] in our units."""
        return self._target.copy()

    def prepare(self, seed: int) -> None:
        """Sets the scene of this seed, with the robot at its posture, from now on."""
        with self._lock:
            timestep = self.environment.reset(seed)
            self._started_ns = self.clock.now_ns()
            self._target = np.array(timestep.observation["state"], np.float64)
            self._end = None
            self._history.clear()
            self._pictures.clear()
            for tick in range(-PAST_TICKS, 1):
                self._keep(tick)

    def verdict(self) -> EpisodeEnd | None:
        with self._lock:
            self.catch_up()
            return self._end

    def at(self, tick: int, **changes: object) -> None:
        """Changes faults when this tick of the present (or else the next) episode is reached."""
        EmulatorFaults().set(**changes)
        with self._lock:
            self._scheduled = sorted([*self._scheduled, (tick, changes)], key=lambda entry: entry[0])

    def inject(self, **changes: object) -> None:
        """Changes faults now."""
        with self._lock:
            self.catch_up()
            self._activate(changes, self._history[-1].tick + 1)

    def close(self) -> None:
        with self._lock:
            self._pictures.close()
            self.environment.close()

    # What the emulated SDK is made of.

    def catch_up(self) -> None:
        """Lets the world go on to the present."""
        with self._lock:
            if not self._history:
                raise RuntimeError("the emulator has no scene yet; call prepare(seed) first")
            while self._history[-1].tick < (self.clock.now_ns() - self._started_ns) // PERIOD_NS:
                self._step(self._history[-1].tick + 1)

    def command(self, change: Callable[[np.ndarray], None]) -> None:
        """Takes a command: `change` alters the target [16] in place."""
        with self._lock:
            self.catch_up()
            if self.faults.rejects:
                raise RuntimeError("command rejected")
            self.num_commands += 1
            if not (self.faults.ignores or self.faults.emergency_stop):
                change(self._target)

    def place(self, head: tuple[float, float] | None = None, waist: tuple[float, float] | None = None) -> None:
        """Head [rad, rad] and waist [rad, m] are there from the next tick on; the world's own robot doesn't show it."""
        with self._lock:
            self._head, self._waist = head or self._head, waist or self._waist

    def moment(self, at_ns: int | None = None) -> tuple[Moment, int]:
        """The newest states, or those nearest to a stamp, and their stamp."""
        with self._lock:
            self.catch_up()
            now_ns = self.clock.now_ns()
            delay_ns, offset_ns = round(self.faults.state_delay_s * 1e9), round(self.faults.state_clock_s * 1e9)
            newest = (now_ns - delay_ns - self._started_ns) // PERIOD_NS
            if self.faults.state_gap:
                newest = min(newest, self._gap_from)
            return self._find(newest, None if at_ns is None else at_ns - offset_ns, offset_ns)

    def picture(self, name: str, at_ns: int | None = None) -> tuple[np.ndarray | None, int | None]:
        """The newest picture of a camera, or the one nearest to a stamp, and its stamp; None before the first."""
        with self._lock:
            self.catch_up()
            faults = self.faults
            delay_ns, offset_ns = round(faults.frame_delay_s * 1e9), round(faults.camera_clock_s * 1e9)
            newest = (self.clock.now_ns() - delay_ns - self._started_ns) // PERIOD_NS - FRAME_AGE_TICKS
            if name in faults.silent_cameras:
                newest = min(newest, self._silent_from)
            newest -= newest % faults.dropped_frames
            if newest < -PAST_TICKS:
                return None, None
            moment, stamp_ns = self._find(newest, None if at_ns is None else at_ns - offset_ns, offset_ns)
            return self._pictures.take(moment, name, name in faults.frozen_cameras), stamp_ns

    def _find(self, newest: int, at_ns: int | None, offset_ns: int) -> tuple[Moment, int]:
        ticks = [moment.tick for moment in self._history]
        wanted = newest if at_ns is None else min(newest, round((at_ns - self._started_ns) / PERIOD_NS))
        moment = self._history[max(0, bisect.bisect_right(ticks, wanted) - 1)]
        return moment, self._started_ns + moment.tick * PERIOD_NS + offset_ns

    def _step(self, tick: int) -> None:
        while self._scheduled and self._scheduled[0][0] <= tick:
            self._activate(self._scheduled.pop(0)[1], tick)
        if self._end is None:
            if self.faults.emergency_stop:
                self._target = self._history[-1].state.copy()
            try:
                timestep = self.environment.step(self._target)
                self._end = read_end(self.environment, timestep) if timestep.last() else None
            except DivergedError:
                self._end = DIVERGED
        self._keep(tick)

    def _activate(self, changes: dict[str, object], tick: int) -> None:
        self.faults.set(**changes)
        self._gap_from = self._silent_from = tick - 1

    def _keep(self, tick: int) -> None:
        state = self.environment.task.drive.state(self.environment.data)
        self._history.append(Moment(tick, state, self._head, self._waist, read_physics(self.environment)))
