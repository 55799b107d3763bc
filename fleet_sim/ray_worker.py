"""Workers that are actors of a Ray cluster: many machines, of which some may die in the middle of a run.

Every machine has this software installed at one version, and reaches the base policy and the store under the same names (a
shared folder, or an object store). A finished episode comes back through Ray, whose own messages are pickled: a cluster is
for machines that trust each other, and none of its ports is for strangers.
"""

import concurrent.futures
import contextlib
import dataclasses
import json
import os
import pathlib
import queue
import time
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import ray
import ray.exceptions

from fleet_sim.crew import (
    CrewFailedError,
    EpisodeInPlay,
    EpisodeOrder,
    Helps,
    PlayedEpisode,
    WorkerLostError,
    is_told,
    keep_file,
)
from sop_jax.evaluation.trial_pool import SINGLE_THREADED

_NOTE_EVERY_S = 0.03  # at most: each message through Ray costs the simulation's process 0.3 ms
_AGAIN_S = 0.5
_COME_S = 600.0  # so long a new or lost actor is waited for: the time in which a cluster replaces a machine
_LOST = (ray.exceptions.RayActorError, ray.exceptions.NodeDiedError, ray.exceptions.ObjectLostError,
         ray.exceptions.WorkerCrashedError)  # fmt: skip


def make_workers(settings: Mapping[str, Any], num_workers: int, address: str = "") -> "Sequence[RayWorker]":
    """One actor and one CPU of the cluster each; `num_workers` 0 = one per CPU of the cluster.

    settings: a `crew_worker.WorkerSettings` as JSON. address: see `crew.Engine`.
    """
    if not ray.is_initialized():
        os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
        where = address or os.environ.get("RAY_ADDRESS")
        ray.init(address=where, include_dashboard=None if where else False, log_to_driver=False, namespace="sop")
    scratch = pathlib.Path(settings["scratch"])
    number = num_workers or int(ray.cluster_resources().get("CPU", 1))
    return [RayWorker(json.dumps(settings), scratch) for _ in range(number)]


@ray.remote(num_cpus=1, max_restarts=-1)
class RemotePlayer:
    """Plays orders on some machine of the cluster, on one thread, for a renderer belongs to the thread that made it."""

    def __init__(self, settings: str):
        """`settings`: a `crew_worker.WorkerSettings` as JSON text."""
        os.environ.setdefault("MUJOCO_GL", "egl")  # unless the machine says otherwise
        self._settings = settings
        self._thread = concurrent.futures.ThreadPoolExecutor(1)
        self._player: Any = None

    def ping(self) -> None:
        """Returns once the actor is there."""

    def play(self, order: str) -> Iterator[tuple[str, bytes]]:
        """Notes (JSON text, b"") as the episode goes on; last its result and its sealed bytes."""
        told: queue.SimpleQueue[tuple[str, bytes] | None] = queue.SimpleQueue()
        done = self._thread.submit(self._play, EpisodeOrder.from_json(order), told)
        done.add_done_callback(lambda _: told.put(None))
        while (note := told.get()) is not None:
            yield note
        done.result()  # raises what went wrong

    def _play(self, order: EpisodeOrder, told: "queue.SimpleQueue[tuple[str, bytes] | None]") -> None:
        # Imported here: this module is imported by the driver, too, which needs neither JAX nor MuJoCo for it.
        from fleet_sim.crew_worker import EpisodePlayer, WorkerSettings  # noqa: PLC0415
        from sop_jax.episodes.format import pack  # noqa: PLC0415
        from sop_jax.specs.records import Outcome  # noqa: PLC0415

        if self._player is None:
            self._player = EpisodePlayer(WorkerSettings.from_json(json.loads(self._settings)))

        due_s = 0.0

        def on_tick(tick: int, helps: Helps) -> None:
            nonlocal due_s
            if is_told(tick) and (now_s := time.monotonic()) >= due_s:
                due_s = now_s + _NOTE_EVERY_S
                told.put((json.dumps({"num_ticks": tick, "helps": dataclasses.asdict(helps)}), b""))

        episode, helps = self._player.play(order, on_tick)
        result = {
            "num_frames": episode.manifest.num_frames,
            "succeeded": episode.manifest.outcome is Outcome.SUCCESS,
            "helps": dataclasses.asdict(helps),
        }
        told.put((json.dumps(result), pack(episode)))


class RayWorker:
    """One actor. Ray starts it as soon as there is a CPU for it, and when its machine dies again on another one."""

    def __init__(self, settings: str, scratch: pathlib.Path):
        self._scratch = scratch
        remote: Any = RemotePlayer
        self._actor: Any = remote.options(runtime_env={"env_vars": SINGLE_THREADED}).remote(settings)
        self._is_killed = False

    def play(self, playing: EpisodeInPlay) -> None:
        try:
            stream = self._actor.play.options(num_returns="streaming").remote(playing.order.to_json())
            for reference in stream:
                text, data = ray.get(reference)
                told = json.loads(text)
                helps = Helps.from_json(told["helps"])
                if "num_ticks" in told:
                    playing.note(told["num_ticks"], helps)
                    continue
                path = keep_file(self._scratch, playing.order.episode_id, data)
                playing.finish(PlayedEpisode(told["num_frames"], path, told["succeeded"]), helps=helps)
        except _LOST as error:
            raise WorkerLostError(" ".join(str(error).split())[:500]) from error
        except ray.exceptions.RayTaskError as error:
            raise CrewFailedError(str(error.cause)) from error

    def wait_until_there(self) -> bool:
        deadline = time.monotonic() + _COME_S
        while not self._is_killed and (left_s := deadline - time.monotonic()) > 0:
            try:
                ray.get(self._actor.ping.remote(), timeout=left_s)
                return True
            except (
                *_LOST,
                ray.exceptions.GetTimeoutError,
            ):  # no CPU yet, lost again, or the cluster hasn't noticed yet
                time.sleep(_AGAIN_S)
        return False

    def kill(self) -> None:
        self._is_killed = True
        with contextlib.suppress(*_LOST):
            ray.kill(self._actor, no_restart=True)
