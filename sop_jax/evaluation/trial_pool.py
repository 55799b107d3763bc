"""Trials in parallel: worker processes that take trials to run on stdin and give results on stdout, one JSON line each.

A worker is given as many trials as it runs side by side, and a new one as each ends. The first line that it writes says
whom it evaluates, so that all of them can be seen to evaluate the same.
A worker's numeric libraries run on one thread, so that its results don't depend on the machine's cores and several workers
don't fight over them. A worker ends when its stdin closes, so none outlives the pool, however the pool dies.
"""

import collections
import concurrent.futures
import contextlib
import dataclasses
import json
import os
import queue
import signal
import subprocess
import sys
import tempfile
import threading
from collections.abc import Callable, Mapping, Sequence
from typing import IO, Any

from sop_jax.actors.episode import TrialResult
from sop_jax.actors.rollout import never
from sop_jax.evaluation.trials import EvaluationFailedError, TrialJob, TrialRunner
from sop_jax.specs.records import Outcome

SINGLE_THREADED = {
    "JAX_PLATFORMS": "cpu",
    "XLA_FLAGS": "--xla_cpu_multi_thread_eigen=false",
    "OMP_NUM_THREADS": "1",
    "OPENBLAS_NUM_THREADS": "1",
    "LP_NUM_THREADS": "0",
    "MALLOC_ARENA_MAX": "1",
}
"""Environment of a process that should use one core: XLA, BLAS, Mesa's software renderer, and glibc's heaps.

One heap: with one for each of the short-lived threads that read a publication, those of a robot that swaps weights all day
break up more and more.
"""

_STOP_GRACE_S = 3.0
_LOOK_S = 0.2


@dataclasses.dataclass(frozen=True)
class Identity:
    """Whom a worker evaluates, and where.

    policy_version, base: version and base fingerprint of the weights it loaded. weights: a digest that tells publications
    of one base and version in different stores apart. worlds: names and versions of the worlds it works in. stages: of
    each world, its stages in the order in which they are passed.
    """

    policy_version: int = -1
    base: str = ""
    weights: str = ""
    worlds: tuple[str, ...] = ()
    stages: tuple[tuple[str, ...], ...] = ()

    @staticmethod
    def from_json(values: Mapping[str, Any]) -> "Identity":
        stages = tuple(tuple(names) for names in values["stages"])
        return Identity(**{**values, "worlds": tuple(values["worlds"]), "stages": stages})


@dataclasses.dataclass(frozen=True)
class PoolResult:
    """Trials in the order of the jobs, and who made them."""

    identity: Identity
    trials: tuple[TrialResult, ...]


OnTrial = Callable[[TrialJob, TrialResult], None]


def num_usable_cores() -> int:
    """Cores that this process may use: the default number of workers."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def run_trials(
    command: Sequence[str],
    jobs: Sequence[TrialJob],
    num_workers: int,
    *,
    side_by_side: int = 1,
    on_trial: OnTrial | None = None,
    on_identity: Callable[[Identity], None] | None = None,
    environment: Mapping[str, str] | None = None,
    should_stop: Callable[[], bool] = never,
) -> PoolResult:
    """Runs the jobs, no two of them equal, on worker processes. Blocks until all are done.

    Args:
        command: starts a worker; it ends by calling `serve`.
        jobs: at least one; begun in this order.
        num_workers: processes; no more are started than there are jobs.
        side_by_side: how many trials a worker has at once, at most.
        on_trial: called as each trial ends.
        on_identity: called before the first trial with what the workers evaluate. It may raise.
        environment: what the workers need beside SINGLE_THREADED.
        should_stop: asked several times a second.

    Raises:
        KeyboardInterrupt: `should_stop` said so.
        EvaluationFailedError: a worker died (the message holds the end of what it wrote to stderr), or two workers
            evaluate different policies.
    """
    num_workers = max(1, min(num_workers, len(jobs)))
    side_by_side = max(1, min(side_by_side, -(-len(jobs) // num_workers)))
    todo = collections.deque(jobs)
    news: queue.SimpleQueue[_News] = queue.SimpleQueue()
    workers = [_Worker(command, environment) for _ in range(num_workers)]
    trials: dict[TrialJob, TrialResult] = {}
    identity: Identity | None = None
    try:
        with concurrent.futures.ThreadPoolExecutor(num_workers) as pool:
            try:
                for worker in workers:
                    pool.submit(_feed, worker, todo, side_by_side, news)
                while len(trials) < len(jobs):
                    if should_stop():
                        raise KeyboardInterrupt
                    try:
                        new = news.get(timeout=_LOOK_S)
                    except queue.Empty:
                        continue
                    if isinstance(new, BaseException):
                        raise new
                    if isinstance(new, Identity):
                        identity = _agree(identity, new, on_identity)
                        continue
                    job, trials[job] = new
                    if on_trial is not None:
                        on_trial(*new)
            except BaseException:
                for worker in workers:
                    worker.kill()  # unblocks the threads that wait for it
                raise
    finally:
        for worker in workers:
            worker.close()
    assert identity is not None
    return PoolResult(identity, tuple(trials[job] for job in jobs))


def ask_identity(command: Sequence[str], should_stop: Callable[[], bool] = never) -> Identity:
    """Whom the command's workers would evaluate: starts one, which is given nothing to run. Blocks until it has loaded.

    Raises:
        KeyboardInterrupt: `should_stop` said so; it is asked several times a second.
        EvaluationFailedError: the worker died.
    """
    worker = _Worker(command)
    try:
        with concurrent.futures.ThreadPoolExecutor(1) as pool:
            try:
                asked = pool.submit(worker.read_identity)
                while not concurrent.futures.wait([asked], timeout=_LOOK_S).done:
                    if should_stop():
                        raise KeyboardInterrupt
                return asked.result()
            except BaseException:
                worker.kill()  # unblocks the thread that waits for it
                raise
    finally:
        worker.close()


def serve(
    runner: TrialRunner, identity: Identity, requests: IO[str] = sys.stdin, replies: IO[str] = sys.stdout
) -> None:
    """A worker's main loop: a job per line in, a trial per line out as each ends, until the input ends."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is the pool's business; it then closes our stdin
    inbox: queue.SimpleQueue[str] = queue.SimpleQueue()
    threading.Thread(target=_read_into, args=(requests, inbox), name="requests", daemon=True).start()

    def reply(values: Mapping[str, Any]) -> None:
        replies.write(json.dumps(values) + "\n")
        replies.flush()

    try:
        reply(dataclasses.asdict(identity))
        while True:
            while runner.has_room:
                try:
                    line = inbox.get(block=not runner.num_running)
                except queue.Empty:
                    break
                if not line:
                    return
                runner.begin(TrialJob(**json.loads(line)))
            for job, trial in runner.advance():
                reply({"job": dataclasses.asdict(job), "trial": dataclasses.asdict(trial)})
    except BrokenPipeError:  # the pool was killed
        os._exit(0)
    finally:
        runner.close()


def trial_from_json(values: Mapping[str, Any]) -> TrialResult:
    """Reads what `dataclasses.asdict` wrote. Raises KeyError, TypeError, ValueError."""
    return TrialResult(**{**values, "outcome": Outcome(values["outcome"])})


def _read_into(requests: IO[str], inbox: "queue.SimpleQueue[str]") -> None:
    """Every line, and "" at the end."""
    for line in requests:
        inbox.put(line)
    inbox.put("")


def _agree(known: Identity | None, new: Identity, on_identity: Callable[[Identity], None] | None) -> Identity:
    if known is None and on_identity is not None:
        on_identity(new)
    if known not in (None, new):
        raise EvaluationFailedError(f"workers evaluated different policies: {known} and {new}; run it again")
    return new


class _Worker:
    def __init__(self, command: Sequence[str], environment: Mapping[str, str] | None = None):
        surroundings = {
            **os.environ,
            "MUJOCO_GL": os.environ.get("MUJOCO_GL", "egl"),
            **SINGLE_THREADED,
            **(environment or {}),
        }
        self._jobs: list[TrialJob] = []
        self._stderr = tempfile.TemporaryFile()  # noqa: SIM115 (closed by close)
        self._process = subprocess.Popen(
            list(command),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._stderr,
            env=surroundings,
            text=True,
            bufsize=1,
            process_group=0,  # Ctrl-C at the terminal, also while it starts, is the pool's business
        )

    @property
    def num_given(self) -> int:
        """Jobs that were given and haven't come back."""
        return len(self._jobs)

    def give(self, job: TrialJob) -> None:
        assert self._process.stdin is not None
        self._jobs.append(job)
        with contextlib.suppress(BrokenPipeError):  # then the next line tells
            self._process.stdin.write(json.dumps(dataclasses.asdict(job)) + "\n")
            self._process.stdin.flush()

    def read_identity(self) -> Identity:
        return Identity.from_json(json.loads(self._read_line()))

    def read_trial(self) -> tuple[TrialJob, TrialResult]:
        values = json.loads(self._read_line())
        job = TrialJob(**values["job"])
        self._jobs.remove(job)
        return job, trial_from_json(values["trial"])

    def kill(self) -> None:
        self._process.kill()

    def close(self) -> None:
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        with contextlib.suppress(BrokenPipeError):
            self._process.stdin.close()
        try:
            self._process.wait(_STOP_GRACE_S)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        self._process.stdout.close()
        self._stderr.close()

    def _read_line(self) -> str:
        assert self._process.stdout is not None
        line = self._process.stdout.readline()
        if not line.endswith("\n"):
            raise EvaluationFailedError(self._obituary())
        return line

    def _obituary(self) -> str:
        code = self._process.wait()
        self._stderr.seek(0)
        lines = self._stderr.read().decode(errors="replace").strip().splitlines()
        why = lines[-1] if lines else "it said nothing"
        seeds = ", ".join(str(job.seed) for job in self._jobs)
        where = f"at seed {seeds}" if seeds else "before its first trial"
        return f"an evaluation worker died {where} with exit code {code}: {why}"


_News = Identity | tuple[TrialJob, TrialResult] | BaseException


def _feed(
    worker: _Worker, todo: "collections.deque[TrialJob]", side_by_side: int, news: "queue.SimpleQueue[_News]"
) -> None:
    """Keeps one worker busy until nothing is left to do. `popleft` is atomic: no job is given twice."""
    is_known = False
    try:
        while True:
            while worker.num_given < side_by_side and todo:
                with contextlib.suppress(IndexError):  # another worker took it
                    worker.give(todo.popleft())
            if not worker.num_given:
                return
            if not is_known:
                news.put(worker.read_identity())
                is_known = True
            news.put(worker.read_trial())
    except BaseException as error:
        news.put(error)
