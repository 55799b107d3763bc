"""Workers that are processes of this machine."""

import contextlib
import json
import os
import pathlib
import subprocess
import sys
import tempfile
from collections.abc import Mapping, Sequence
from typing import IO, Any

from fleet_sim.crew import CrewFailedError, EpisodeInPlay, Helps, PlayedEpisode
from sop_jax.evaluation.trial_pool import SINGLE_THREADED, num_usable_cores

_STOP_GRACE_S = 5.0


def make_workers(settings: Mapping[str, Any], num_workers: int, address: str = "") -> "Sequence[ProcessWorker]":
    """`settings`: a `crew_worker.WorkerSettings` as JSON. `num_workers` 0 = one per usable core."""
    del address  # this machine's
    variables = {**os.environ, "MUJOCO_GL": os.environ.get("MUJOCO_GL", "egl"), **SINGLE_THREADED}
    command = [sys.executable, "-m", "fleet_sim.crew_worker", json.dumps(settings)]
    return [ProcessWorker(command, variables) for _ in range(num_workers or num_usable_cores())]


class ProcessWorker:
    """One process: an order per line in; progress, and then the result, per line out. A dead one is a bug, not replaced."""

    def __init__(self, command: list[str], environment: Mapping[str, str]):
        self._stderr: IO[bytes] = tempfile.TemporaryFile()  # noqa: SIM115 (closed by kill)
        self._process = subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=self._stderr, env=dict(environment), text=True,
            bufsize=1,
            process_group=0,  # Ctrl-C at the terminal, also while it starts, is the simulation's business
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

    def wait_until_there(self) -> bool:
        return True  # what it lacks, or dies of, shows when it plays

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
