"""Trials in parallel: worker processes that take seeds on stdin and give results on stdout, one JSON line each.

The first line that a worker writes says whom it evaluates, so that all of them can be seen to evaluate the same.
A worker's numeric libraries run on one thread, so that its results don't depend on the machine's cores and several workers
don't fight over them. A worker ends when its stdin closes, so none outlives the pool, however the pool dies.
"""

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
from collections.abc import Callable, Mapping, Sequence
from typing import IO

from sop_jax.actors.episode import TrialResult
from sop_jax.actors.rollout import never
from sop_jax.evaluation.trials import EvaluationFailedError, TrialRunner
from sop_jax.specs.records import Outcome

SINGLE_THREADED = {
    "JAX_PLATFORMS": "cpu",
    "XLA_FLAGS": "--xla_cpu_multi_thread_eigen=false",
    "OMP_NUM_THREADS": "1",
    "OPENBLAS_NUM_THREADS": "1",
    "LP_NUM_THREADS": "0",
}
"""Environment of a process that should use one core: XLA, BLAS and Mesa's software renderer."""

_STOP_GRACE_S = 3.0
_LOOK_S = 0.2


@dataclasses.dataclass(frozen=True)
class Identity:
    """Whom a worker evaluates: the version and base fingerprint of the weights it loaded, and the world it works in."""

    policy_version: int = -1
    base: str = ""
    world: str = ""


@dataclasses.dataclass(frozen=True)
class PoolResult:
    """Trials in the order of their seeds, and who made them."""

    identity: Identity
    trials: tuple[TrialResult, ...]


OnTrial = Callable[[TrialResult], None]


def num_usable_cores() -> int:
    """Cores that this process may use: the default number of workers."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def run_trials(
    command: Sequence[str],
    seeds: Sequence[int],
    num_workers: int,
    on_trial: OnTrial | None = None,
    environment: Mapping[str, str] | None = None,
    should_stop: Callable[[], bool] = never,
) -> PoolResult:
    """Runs one trial per seed on worker processes. Blocks until all are done.

    Args:
        command: starts a worker; it ends by calling `serve`.
        seeds: one per trial.
        num_workers: processes; no more are started than there are seeds.
        on_trial: called on another thread as each trial ends, one call at a time.
        environment: what the workers need beside SINGLE_THREADED.
        should_stop: asked several times a second.

    Raises:
        KeyboardInterrupt: `should_stop` said so.
        EvaluationFailedError: a worker died (the message holds the end of what it wrote to stderr), or two workers
            evaluate different policies.
    """
    todo: queue.SimpleQueue[int | None] = queue.SimpleQueue()
    num_workers = max(1, min(num_workers, len(seeds)))
    for seed in [*seeds, *([None] * num_workers)]:
        todo.put(seed)
    done: queue.SimpleQueue[TrialResult | BaseException] = queue.SimpleQueue()
    environment = {
        **os.environ,
        "MUJOCO_GL": os.environ.get("MUJOCO_GL", "egl"),
        **SINGLE_THREADED,
        **(environment or {}),
    }
    workers = [_Worker(command, environment) for _ in range(num_workers)]
    trials: dict[int, TrialResult] = {}
    try:
        with concurrent.futures.ThreadPoolExecutor(num_workers) as pool:
            try:
                for worker in workers:
                    pool.submit(_feed, worker, todo, done)
                while len(trials) < len(seeds):
                    if should_stop():
                        raise KeyboardInterrupt
                    try:
                        result = done.get(timeout=_LOOK_S)
                    except queue.Empty:
                        continue
                    if isinstance(result, BaseException):
                        raise result
                    trials[result.seed] = result
                    if on_trial is not None:
                        on_trial(result)
            except BaseException:
                for worker in workers:
                    worker.kill()  # unblocks the threads that wait for it
                raise
    finally:
        for worker in workers:
            worker.close()
    identities = {worker.identity for worker in workers if worker.identity is not None}
    if len(identities) != 1:
        raise EvaluationFailedError(
            f"workers evaluated different policies: {sorted(map(str, identities))}; run it again"
        )
    return PoolResult(identities.pop(), tuple(trials[seed] for seed in seeds))


def serve(
    runner: TrialRunner, identity: Identity, requests: IO[str] = sys.stdin, replies: IO[str] = sys.stdout
) -> None:
    """A worker's main loop: a seed per line in, a trial per line out, until the input ends."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is the pool's business; it then closes our stdin
    try:
        replies.write(json.dumps(dataclasses.asdict(identity)) + "\n")
        replies.flush()
        for line in requests:
            trial = runner.run(int(line))
            replies.write(json.dumps(dataclasses.asdict(trial)) + "\n")
            replies.flush()
    except BrokenPipeError:  # the pool was killed
        os._exit(0)
    finally:
        runner.close()


class _Worker:
    def __init__(self, command: Sequence[str], environment: Mapping[str, str]):
        self.identity: Identity | None = None
        self._stderr = tempfile.TemporaryFile()  # noqa: SIM115 (closed by close)
        self._process = subprocess.Popen(
            list(command),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._stderr,
            env=dict(environment),
            text=True,
            bufsize=1,
        )

    def ask(self, seed: int) -> TrialResult:
        assert self._process.stdin is not None
        if self.identity is None:
            self.identity = Identity(**json.loads(self._read_line(f"before it was ready for seed {seed}")))
        with contextlib.suppress(BrokenPipeError):  # then the next line tells
            self._process.stdin.write(f"{seed}\n")
            self._process.stdin.flush()
        values = json.loads(self._read_line(f"at seed {seed}"))
        return TrialResult(**{**values, "outcome": Outcome(values["outcome"])})

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

    def _read_line(self, when: str) -> str:
        assert self._process.stdout is not None
        line = self._process.stdout.readline()
        if not line.endswith("\n"):
            raise EvaluationFailedError(self._obituary(when))
        return line

    def _obituary(self, when: str) -> str:
        code = self._process.wait()
        self._stderr.seek(0)
        lines = self._stderr.read().decode(errors="replace").strip().splitlines()
        why = lines[-1] if lines else "it said nothing"
        return f"an evaluation worker died {when} with exit code {code}: {why}"


def _feed(
    worker: _Worker, todo: "queue.SimpleQueue[int | None]", done: "queue.SimpleQueue[TrialResult | BaseException]"
) -> None:
    try:
        while (seed := todo.get()) is not None:
            done.put(worker.ask(seed))
    except BaseException as error:
        done.put(error)
