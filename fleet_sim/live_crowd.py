"""Many robots with bodies on one thread, tick by tick: they look, ask one policy, and move together.

Each is an actor of its own (`sop_jax.actors.actor.Actor`), whose steps stop where something can be done for all at once.
"""

import dataclasses
import time
from collections.abc import Callable, Generator, Sequence
from typing import Protocol, final

import numpy as np

from fleet_sim.bodies import Bodies
from sop_jax.actors.actor import Actor
from sop_jax.actors.chunk_player import ChunkRequest
from sop_jax.actors.policy_seat import PolicySeat
from sop_jax.actors.rollout import Pause, Step, never
from sop_jax.specs.clock import Clock


class Pace(Protocol):
    """When ticks begin (`specs.clock.Ticker`)."""

    def wait(self) -> float:
        """Blocks until the next tick is due; by how much that is past already [s]."""
        ...


@final
class TickClock:
    """Implements `Clock` and `Pace` by counting ticks: as fast, or as slowly, as the machine can. Nobody is ever late."""

    def __init__(self, start_ns: int, rate_hz: float):
        self._start_ns, self._rate_hz = start_ns, rate_hz
        self._num_ticks = 0

    def now_ns(self) -> int:
        return self._start_ns + round(self._num_ticks * 1e9 / self._rate_hz)

    def sleep_s(self, duration_s: float) -> None:
        raise RuntimeError(f"nothing may sleep between ticks, asked for {duration_s} s")

    def wait(self) -> float:
        self._num_ticks += 1
        return 0.0


class SharedAnswers(Protocol):
    """One policy of many robots (`BatchedPolicy`)."""

    def answer(self, asking: Sequence[tuple[PolicySeat, ChunkRequest]]) -> None: ...


@final
class Life:
    """One robot's: its actor's steps, and when it begins. `is_busy`: its last episode is not durable yet."""

    def __init__(self, actor: Actor, seat: PolicySeat, first_tick: int, is_busy: Callable[[], bool] = never):
        self.actor, self.seat = actor, seat
        self._is_busy = is_busy
        self._steps: Generator[Step, None, None] = actor.steps()
        self._begins = first_tick
        self.pause: Step | None = None
        self.advance()

    @property
    def is_in_episode(self) -> bool:
        return self.pause is not None and self.pause is not Pause.BETWEEN

    def is_due(self, tick: int) -> bool:
        return self.is_in_episode or (self.pause is not None and tick >= self._begins and not self._is_busy())

    def advance(self) -> None:
        """To its next pause; None once it is over."""
        self.pause = next(self._steps, None)

    def rest_until(self, tick: int) -> None:
        self._begins = tick

    def end(self) -> None:
        """What it had begun is dropped."""
        self._steps.close()
        self.pause = None


@dataclasses.dataclass(frozen=True)
class TickReport:
    """How the ticks went.

    robot_s: time that robots were in episodes, of all together [robot seconds]. late_*_s: from when a tick was due until it
    began.
    late_share: of ticks that were late at all. real_time_factor: time that passed for the robots over the machine's; below 1
    the machine doesn't hold their rate. cpu_s: of this process.
    """

    num_ticks: int
    robot_s: float
    wall_s: float
    cpu_s: float
    late_p50_s: float
    late_p99_s: float
    max_late_s: float
    late_share: float
    real_time_factor: float

    @property
    def cpu_ms_per_robot_s(self) -> float:
        """Processor time that a robot's second in an episode costs."""
        return 1e3 * self.cpu_s / self.robot_s if self.robot_s else 0.0


@final
class LiveCrowd:
    """Runs lives side by side.

        crowd = LiveCrowd(lives, bodies, policy, wall_clock, Ticker(wall_clock, 30.0), reset_ticks=300)
        report = crowd.run(until_ns, should_stop)

    On every tick the robots that read their cameras do so together, then those that ask the policy are answered together (a
    call per version that still acts), then all move. What happens to a robot does not depend on its neighbours.
    """

    def __init__(
        self,
        lives: Sequence[Life],
        bodies: Bodies,
        policy: SharedAnswers,
        clock: Clock,
        pace: Pace,
        rate_hz: float,
        reset_ticks: int,
    ):
        """`clock` is the machine's; `pace` the robots', whose ticks have `rate_hz`."""
        self._lives, self._bodies, self._policy = tuple(lives), bodies, policy
        self._clock, self._pace, self._rate_hz = clock, pace, rate_hz
        self._reset_ticks = reset_ticks
        self._num_robot_ticks = 0

    def run(self, until_ns: int, should_stop: Callable[[], bool] = never) -> TickReport:
        """Blocks until the clock's `until_ns`, when what is under way is dropped, or until `should_stop`, when it ends as
        ABORTED and is kept."""
        began_ns, began_cpu_s, late_s = self._clock.now_ns(), time.process_time(), []
        while self._clock.now_ns() < until_ns and not should_stop():
            self._tick(len(late_s))
            late_s.append(self._pace.wait())
        for life in self._lives:
            if should_stop() and life.is_in_episode:
                life.actor.stop()
                life.advance()
            life.end()
        wall_s = (self._clock.now_ns() - began_ns) / 1e9
        late = np.array(late_s or [0.0])
        return TickReport(
            num_ticks=len(late_s),
            robot_s=self._num_robot_ticks / self._rate_hz,
            wall_s=wall_s,
            cpu_s=time.process_time() - began_cpu_s,
            late_p50_s=float(np.percentile(late, 50)),
            late_p99_s=float(np.percentile(late, 99)),
            max_late_s=float(late.max()),
            late_share=float((late > 0).mean()),
            real_time_factor=len(late_s) / self._rate_hz / wall_s if wall_s else 0.0,
        )

    def _tick(self, tick: int) -> None:
        lives = self._lives
        due = [robot for robot, life in enumerate(lives) if life.is_due(tick)]
        for robot in due:
            lives[robot].advance()
        looking = [robot for robot in due if lives[robot].pause is Pause.LOOK]
        if looking:
            self._bodies.look(looking)
        for robot in looking:
            lives[robot].advance()
        asking = [(life, life.pause) for robot in due if isinstance((life := lives[robot]).pause, ChunkRequest)]
        if asking:
            self._policy.answer([(life.seat, request) for life, request in asking if isinstance(request, ChunkRequest)])
        for life, _ in asking:
            life.advance()
        moving = [robot for robot in due if lives[robot].pause is Pause.MOVE]
        if moving:
            self._bodies.move(moving)
        self._num_robot_ticks += len(moving)
        for robot in due:
            if lives[robot].pause is Pause.BETWEEN:
                lives[robot].rest_until(tick + self._reset_ticks)
