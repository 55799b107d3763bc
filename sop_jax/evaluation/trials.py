"""Trials of one policy or expert, several side by side; nobody takes over, nothing is recorded.

Legend: `N` requests, `H` horizon of an action chunk, `A` action dimensions.
"""

import dataclasses
from collections.abc import Callable, Generator, Sequence
from typing import Protocol, final

import numpy as np

from sop_jax.actors.chunk_player import ChunkRequest
from sop_jax.actors.episode import TrialResult, trial_steps
from sop_jax.actors.pilot import Demonstrator
from sop_jax.actors.rollout import RolloutConfig, Step
from sop_jax.specs.chunking import ChunkPrefix
from sop_jax.specs.clock import Clock
from sop_jax.specs.errors import SopError
from sop_jax.specs.interfaces import Robot
from sop_jax.specs.records import Observation


class EvaluationFailedError(SopError):
    """The trials could not be run to their end."""


@dataclasses.dataclass(frozen=True)
class TrialJob:
    """One trial to run: which of the evaluation's worlds (its place among them), and the seed."""

    world: int
    seed: int


class TrialRunner(Protocol):
    """Runs several trials at once, each a pure function of the policy's weights, the world and the seed.

    while jobs or runner.num_running:
        while jobs and runner.has_room:
            runner.begin(jobs.pop())
        for job, trial in runner.advance():     # some way on; those that ended
            ...
    """

    @property
    def has_room(self) -> bool: ...

    @property
    def num_running(self) -> int: ...

    def begin(self, job: TrialJob) -> None: ...

    def advance(self) -> list[tuple[TrialJob, TrialResult]]: ...

    def close(self) -> None: ...


class AnswersTogether(Protocol):
    """A policy that answers several robots' requests in one call of a fixed size (see `PolicyRunner.infer_rows`)."""

    @property
    def version(self) -> int: ...

    @property
    def horizon(self) -> int: ...

    def infer_rows(self, requests: Sequence[ChunkRequest], num_rows: int) -> np.ndarray: ...


@dataclasses.dataclass(frozen=True)
class Workplace:
    """A robot in one of the worlds, with its expert if that is whom the trials are about."""

    robot: Robot
    expert: Demonstrator | None = None


@final
class SideBySide:
    """Implements TrialRunner in one process and one thread: a seat per trial, one call of the policy for all seats.

    `make_workplace(world)` gives a robot in a world; a seat keeps its robot until it gets a trial in another world.
    `policy` None: the workplaces' experts act. Every call of the policy has `num_seats` rows, whatever is on them, so that
    a trial does not depend on what runs beside it.
    """

    def __init__(
        self,
        make_workplace: Callable[[int], Workplace],
        policy: AnswersTogether | None,
        config: RolloutConfig,
        clock: Clock,
        num_seats: int = 1,
    ):
        self._make_workplace = make_workplace
        self._policy = policy
        self._config = config
        self._clock = clock
        self._seats = [_Seat(policy) for _ in range(num_seats)]

    @property
    def has_room(self) -> bool:
        return self.num_running < len(self._seats)

    @property
    def num_running(self) -> int:
        return sum(seat.steps is not None for seat in self._seats)

    def begin(self, job: TrialJob) -> None:
        seat = next(seat for seat in self._seats if seat.steps is None)
        if seat.workplace is None or seat.job.world != job.world:
            seat.leave()
            seat.workplace = self._make_workplace(job.world)
        seat.job, place = job, seat.workplace
        seat.steps = trial_steps(place.robot, seat.policy, self._config, self._clock, job.seed, place.expert)

    def advance(self) -> list[tuple[TrialJob, TrialResult]]:
        running = [seat for seat in self._seats if seat.steps is not None]
        asking = [(seat, seat.request) for seat in running if seat.request is not None]
        if asking and self._policy is not None:
            chunks = self._policy.infer_rows([request for _, request in asking], len(self._seats))
            for (seat, request), chunk in zip(asking, chunks, strict=True):
                seat.answer(request, chunk)
        ended = [(seat.job, seat.advance()) for seat in running]
        return [(job, trial) for job, trial in ended if trial is not None]

    def run(self, seed: int, world: int = 0) -> TrialResult:
        """One trial, with all other seats empty."""
        self.begin(TrialJob(world, seed))
        while not (ended := self.advance()):
            pass
        return ended[0][1]

    def close(self) -> None:
        for seat in self._seats:
            seat.leave()


class _Seat:
    """One trial under way. Its policy gives the answers that were laid ready for it."""

    def __init__(self, policy: AnswersTogether | None):
        self.policy = None if policy is None else _LaidReady(policy.version, policy.horizon)
        self.workplace: Workplace | None = None
        self.job = TrialJob(-1, 0)
        self.steps: Generator[Step, None, TrialResult] | None = None
        self.request: ChunkRequest | None = None

    def answer(self, request: ChunkRequest, chunk: np.ndarray) -> None:
        assert self.policy is not None
        self.policy.ready[request.seed] = chunk
        self.request = None

    def advance(self) -> TrialResult | None:
        """On to the next question; the result if the trial ended before it."""
        assert self.steps is not None
        try:
            while not isinstance(step := next(self.steps), ChunkRequest):
                pass  # A robot here looks and moves for itself.
            self.request = step
        except StopIteration as end:
            self.steps = self.request = None
            return end.value
        return None

    def leave(self) -> None:
        if self.steps is not None:
            self.steps.close()
            self.steps = self.request = None
        if self.workplace is not None:
            self.workplace.robot.close()
            self.workplace = None


class _LaidReady:
    """An ActionSource whose chunks [H, A] were computed before it is asked, by the seed of the request."""

    def __init__(self, version: int, horizon: int):
        self.version = version
        self.horizon = horizon
        self.ready: dict[int, np.ndarray] = {}

    def infer(self, observation: Observation, seed: int, prefix: ChunkPrefix | None = None) -> np.ndarray:
        del observation, prefix
        return self.ready.pop(seed)
