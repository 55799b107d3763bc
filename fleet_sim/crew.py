"""Worker processes that play episodes: each is a pure function of (weights version, robot, seed, world).

So an episode may be played as soon as it has begun in virtual time, on any worker, while the simulation goes on; whoever
needs to know whether it still lasts waits until the worker has come that far.
"""

import collections
import contextlib
import dataclasses
import json
import os
import pathlib
import subprocess
import sys
import tempfile
import threading
from collections.abc import Mapping, Sequence
from types import TracebackType
from typing import IO, Any, Literal, Self

from sop_jax.evaluation.trial_pool import SINGLE_THREADED
from sop_jax.specs.errors import SopError

_STOP_GRACE_S = 5.0


class CrewFailedError(SopError):
    """A worker died, or an episode could not be played."""


@dataclasses.dataclass(frozen=True)
class EpisodeOrder:
    """One episode to play. `started_ns` is virtual time; `version` 0 is the base policy, -1 nobody (the expert acts).
    `drifts`: how often the robot has become another individual."""

    episode_id: str
    robot_id: str
    task: str
    seed: int
    started_ns: int
    version: int
    actor: Literal["policy", "expert"] = "policy"
    supervised: bool = True
    drifts: int = 0

    def to_json(self) -> str:
        return json.dumps(dataclasses.asdict(self))

    @staticmethod
    def from_json(text: str) -> "EpisodeOrder":
        return EpisodeOrder(**json.loads(text))


@dataclasses.dataclass(frozen=True)
class PlayedEpisode:
    """A finished episode: its length in control ticks, the file that holds its sealed bytes, and whether it ended well."""

    num_frames: int
    path: pathlib.Path
    succeeded: bool


@dataclasses.dataclass(frozen=True)
class Helps:
    """Ticks at which people took over, and at which they had handed back (or the episode was over)."""

    starts: tuple[int, ...] = ()
    ends: tuple[int, ...] = ()

    @staticmethod
    def from_json(values: Mapping[str, Sequence[int]]) -> "Helps":
        return Helps(tuple(values["starts"]), tuple(values["ends"]))


class EpisodeInPlay:
    """An episode that was ordered. `wait` blocks until it is known to last longer than `tick`, or how long it lasted; `drop`
    says that nobody wants it any more. However far ahead a worker is, the answers for a tick are the same."""

    def __init__(self, order: EpisodeOrder):
        self.order = order
        self._changed = threading.Condition()
        self._num_ticks = 0
        self._helps = Helps()
        self._played: PlayedEpisode | None = None
        self._error = ""
        self.is_dropped = False

    def drop(self) -> None:
        with self._changed:
            self.is_dropped = True
            if self._played is not None:
                self._played.path.unlink(missing_ok=True)

    def wait(self, tick: int) -> PlayedEpisode | None:
        """None: it goes on after this tick. Raises CrewFailedError."""
        with self._changed:
            self._changed.wait_for(lambda: self._played is not None or self._error or self._num_ticks > tick)
            if self._error:
                raise CrewFailedError(self._error)
            return self._played if self._played is not None and self._played.num_frames <= tick else None

    def wait_for_end(self) -> PlayedEpisode:
        """Blocks until the episode is over. Raises CrewFailedError."""
        with self._changed:
            self._changed.wait_for(lambda: self._played is not None or self._error)
            if self._played is None:
                raise CrewFailedError(self._error)
            return self._played

    def helps_until(self, tick: int) -> Helps:
        """What is known once `wait(tick)` has returned."""
        with self._changed:
            known = self._helps
        return Helps(*(tuple(edge for edge in edges if edge <= tick) for edges in (known.starts, known.ends)))

    def note(self, num_ticks: int, helps: Helps) -> None:
        with self._changed:
            self._num_ticks, self._helps = num_ticks, helps
            self._changed.notify_all()

    def finish(self, played: PlayedEpisode | None, error: str = "", helps: Helps = Helps()) -> None:
        with self._changed:
            self._played, self._error, self._helps = played, error, helps
            if played is not None and self.is_dropped:
                played.path.unlink(missing_ok=True)
            self._changed.notify_all()


class Crew:
    """Plays episodes on `num_workers` processes, first come, first served. What is played doesn't depend on their number.

    with Crew(settings, num_workers) as crew:
        playing = crew.play(order)
        played = playing.wait(tick)
    """

    def __init__(self, settings: Mapping[str, Any], num_workers: int, environment: Mapping[str, str] | None = None):
        """`settings`: JSON for the workers, see `crew_worker`."""
        self._todo: collections.deque[EpisodeInPlay] = collections.deque()
        self._wanted = threading.Condition()
        self._closing = False
        variables = {
            **os.environ,
            "MUJOCO_GL": os.environ.get("MUJOCO_GL", "egl"),
            **SINGLE_THREADED,
            **(environment or {}),
        }
        command = [sys.executable, "-m", "fleet_sim.crew_worker", json.dumps(settings)]
        self._workers = [_Worker(command, variables) for _ in range(num_workers)]
        self._threads = [
            threading.Thread(target=self._feed, args=(worker,), name=f"crew-{number}", daemon=True)
            for number, worker in enumerate(self._workers)
        ]
        for thread in self._threads:
            thread.start()

    def play(self, order: EpisodeOrder) -> EpisodeInPlay:
        """Orders an episode; returns at once."""
        playing = EpisodeInPlay(order)
        with self._wanted:
            self._todo.append(playing)
            self._wanted.notify()
        return playing

    def close(self) -> None:
        """Ends the workers; episodes in play are lost."""
        with self._wanted:
            self._closing = True
            self._wanted.notify_all()
        for worker in self._workers:
            worker.kill()
        for thread in self._threads:
            thread.join()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()

    def _feed(self, worker: "_Worker") -> None:
        while True:
            with self._wanted:
                self._wanted.wait_for(lambda: self._todo or self._closing)
                if self._closing:
                    return
                playing = self._todo.popleft()
            try:
                if not playing.is_dropped:
                    worker.play(playing)
            except Exception as error:
                playing.finish(None, f"episode {playing.order.episode_id}: {error}")
                return  # the simulation ends with the first failure


class _Worker:
    """One process: an order per line in; progress, and then the result, per line out."""

    def __init__(self, command: list[str], environment: Mapping[str, str]):
        self._stderr: IO[bytes] = tempfile.TemporaryFile()  # noqa: SIM115 (closed by kill)
        self._process = subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=self._stderr, env=dict(environment), text=True,
            bufsize=1,
        )  # fmt: skip

    def play(self, playing: EpisodeInPlay) -> None:
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        with contextlib.suppress(BrokenPipeError):  # then the next line tells
            self._process.stdin.write(playing.order.to_json() + "\n")
            self._process.stdin.flush()
        while True:
            line = self._process.stdout.readline()
            if not line.endswith("\n"):
                raise CrewFailedError(self._obituary())
            told = json.loads(line)
            helps = Helps.from_json(told["helps"])
            if "num_ticks" in told:
                playing.note(told["num_ticks"], helps)
            else:
                played = PlayedEpisode(told["num_frames"], pathlib.Path(told["path"]), told["succeeded"])
                playing.finish(played, helps=helps)
                return

    def kill(self) -> None:
        self._process.kill()
        self._process.wait(_STOP_GRACE_S)
        for pipe in (self._process.stdin, self._process.stdout):
            assert pipe is not None
            with contextlib.suppress(BrokenPipeError):
                pipe.close()
        self._stderr.close()

    def _obituary(self) -> str:
        code = self._process.wait()
        self._stderr.seek(0)
        lines = self._stderr.read().decode(errors="replace").strip().splitlines()
        return f"a worker died with exit code {code}: {lines[-1] if lines else 'it said nothing'}"
