"""Where a drill happens: starts the processes, lets faults strike, restarts what was killed."""

import collections
import dataclasses
import json
import os
import pathlib
import shutil
import signal
import subprocess
import sys
import time
from types import TracebackType
from typing import Self, final

from sop_jax.drill.ledger import read_ledgers
from sop_jax.drill.place import Place
from sop_jax.drill.schedule import Fault, Schedule, Step
from sop_jax.drill.stations import StationSpec
from sop_jax.episodes import kvstore, paths
from sop_jax.episodes.store import EpisodeStore
from sop_jax.episodes.zip_layout import FOOTER_BYTES
from sop_jax.replay.server import ReverbServer
from sop_jax.specs.errors import SopError
from sop_jax.specs.identifiers import make_episode_id

_POLL_S = 0.05
_CUT_S = 0.4
"""How long a link stays cut, or a disk full."""
_FLAT_HOUR_S = 3600.0
_ROOT = pathlib.Path(__file__).resolve().parents[2]


class DrillStuckError(SopError):
    """The robots of a drill did not get on within the deadline."""


@dataclasses.dataclass(frozen=True)
class Surroundings:
    """Where the processes of a drill run, if not beside the yard.

    wrap: the words before a process's own that bring it there. replay: the address of the tables as seen from there. tls and
    pause_s: as in StationSpec.
    """

    wrap: tuple[str, ...] = ()
    replay: str = ""
    tls: str = ""
    pause_s: float = 0.05


HERE = Surroundings()


@dataclasses.dataclass
class Injected:
    """What the drill itself did. Paths in the store: `damaged` hold no whole episode, `vanished` were removed.
    `full_disks`: robots whose disk was full for a while.

    `counts`: faults that struck; one that found nothing to strike isn't counted.
    """

    damaged: set[str] = dataclasses.field(default_factory=set)
    vanished: set[str] = dataclasses.field(default_factory=set)
    full_disks: set[str] = dataclasses.field(default_factory=set)
    counts: collections.Counter[str] = dataclasses.field(default_factory=collections.Counter)


@final
class Yard:
    """One schedule's processes.

        with Yard(place, schedule, replay_address, server) as yard:
            yard.run(deadline_s=120)       # every fault has struck, and every process lives

    `server` is killed and restarted by schedules that ask for it; without one they can't.
    """

    def __init__(
        self,
        place: Place,
        schedule: Schedule,
        replay: str,
        server: ReverbServer | None = None,
        around: Surroundings = HERE,
    ):
        self.injected = Injected()
        self._place = place
        self._schedule = schedule
        self._server = server
        self._store = EpisodeStore(place.store_url)
        self._children: dict[str, subprocess.Popen[bytes]] = {}
        self._heals: list[tuple[float, pathlib.Path]] = []
        self._num_strange = 0
        self._wrap = around.wrap
        common = {"place": str(place.root), "parent": os.getpid(), "replay": around.replay or replay, "seed": schedule.seed,
                  "store": place.store, "tls": around.tls, "pause_s": around.pause_s}  # fmt: skip
        self._specs = {
            name: StationSpec("actor", name, **common, num_episodes=schedule.episodes_per_actor,
                              spool_bytes=schedule.spool_bytes)
            for name in self.robots
        }  # fmt: skip
        self._intakes = [f"intake-{number}" for number in range(schedule.num_intakes)]
        self._specs |= {name: StationSpec("intake", name, **common) for name in self._intakes}
        self._specs["learner"] = StationSpec("learner", "learner", **common)

    @property
    def robots(self) -> list[str]:
        return [f"robot-{number}" for number in range(self._schedule.num_actors)]

    def __enter__(self) -> Self:
        for name in self._specs:
            self._start(name)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for name in list(self._children):
            self._kill(name)

    def run(self, deadline_s: float) -> None:
        """Lets every fault strike at its time, and heals what it broke. Raises DrillStuckError."""
        ends_s = time.monotonic() + deadline_s
        for step in self._schedule.steps:
            self._wait_for_episodes(step.after_episodes, ends_s)
            time.sleep(step.delay_s)
            if self._strike(step):
                self.injected.counts[step.fault] += 1
        self._wait_for_episodes(self._schedule.num_episodes, ends_s)
        while self._heals:
            self._keep_going()
            time.sleep(_POLL_S)

    def check_alive(self) -> list[str]:
        """Restarts nothing; says which processes ended by themselves, which none should."""
        return [
            f"{name} ended with status {child.returncode}; see {self._place.log(name)}"
            for name, child in self._children.items()
            if child.poll() is not None
        ]

    def _wait_for_episodes(self, num: int, ends_s: float) -> None:
        while len(read_ledgers(self._place.ledgers())) < num:
            self._keep_going()
            dead = self.check_alive()
            if dead or time.monotonic() > ends_s:
                raise DrillStuckError(f"schedule {self._schedule.seed}: no {num} episodes in time. {'; '.join(dead)}")
            time.sleep(_POLL_S)

    def _keep_going(self) -> None:
        for heals_s, flag in list(self._heals):
            if time.monotonic() >= heals_s:
                flag.unlink(missing_ok=True)
                self._heals.remove((heals_s, flag))

    def _strike(self, step: Step) -> bool:
        """Lets a fault strike; False if it found nothing to strike."""
        robot = self.robots[step.number % len(self.robots)]
        match step.fault:
            case Fault.KILL_ACTOR:
                self._restart(robot)
            case Fault.KILL_INTAKE:
                self._restart(self._intakes[step.number % len(self._intakes)])
            case Fault.KILL_LEARNER:
                self._restart("learner")
            case Fault.KILL_REVERB:
                return self._kill_reverb()
            case Fault.OLD_CHECKPOINT:
                return self._go_back(step.number)
            case Fault.TORN_UPLOAD | Fault.FLIPPED_BYTES | Fault.NOT_AN_EPISODE:
                return self._upload_damaged(step, robot)
            case Fault.DUPLICATE_UPLOAD:
                return self._upload_again(step.number)
            case Fault.RESTORED_SPOOL:
                return self._restore_spool(robot)
            case Fault.LINK_CUT:
                self._raise_flag(self._place.link_cut(robot))
            case Fault.DISK_FULL:
                self.injected.full_disks.add(robot)
                self._raise_flag(self._place.disk_full(robot))
            case Fault.CLOCK_BACK | Fault.CLOCK_AHEAD:
                sign = -1 if step.fault is Fault.CLOCK_BACK else 1
                self._set_clock(robot, sign * _FLAT_HOUR_S * (1 + step.number % 48))
            case Fault.ITEM_TO_NOTHING:
                return self._remove_object(step.number)
        return True

    def _start(self, name: str) -> None:
        self._place.idle(name).unlink(missing_ok=True)
        log_path = self._place.log(name)
        log_path.parent.mkdir(parents=True, exist_ok=True)
        spec = json.dumps(dataclasses.asdict(self._specs[name]))
        words = [*self._wrap, sys.executable, "-m", "sop_jax.drill.stations", spec]
        environment = {**os.environ, "PYTHONPATH": os.pathsep.join([str(_ROOT), os.environ.get("PYTHONPATH", "")])}
        with log_path.open("ab") as log:
            self._children[name] = subprocess.Popen(
                words, stdin=subprocess.DEVNULL, stdout=log, stderr=subprocess.STDOUT, env=environment
            )

    def _kill(self, name: str) -> None:
        child = self._children.pop(name)
        child.send_signal(signal.SIGKILL)
        child.wait()

    def _restart(self, name: str) -> None:
        self._kill(name)
        self._start(name)

    def _kill_reverb(self) -> bool:
        if self._server is None:
            return False
        self._server.kill()
        self._server.start()
        return True

    def _go_back(self, number: int) -> bool:
        """The learner comes back with an earlier checkpoint; the later ones are gone."""
        self._kill("learner")
        found = sorted(self._place.checkpoints.glob("*.json"))
        for path in found[number % max(1, len(found)) :]:
            path.unlink()
        self._start("learner")
        return bool(found)

    def _upload_damaged(self, step: Step, robot: str) -> bool:
        """An object that no store's client would have let through, as from a program that writes to the bucket itself."""
        whole = self._some_object(step.number)
        if whole is None:
            return False
        data = bytearray(whole)
        if step.fault is Fault.TORN_UPLOAD:
            data = data[: 1 + step.number % (len(data) - 1)]
        elif step.fault is Fault.FLIPPED_BYTES:
            data[step.number % len(data)] ^= 1 << step.number % 8
        else:
            data = bytearray(b"PK\x05\x06" + bytes(step.number % 300 + FOOTER_BYTES))
        self._num_strange += 1
        path = paths.episode_path(make_episode_id(robot, 1, self._num_strange))
        kvstore.create(self._store.root, path, bytes(data))
        self.injected.damaged.add(path)
        return True

    def _upload_again(self, number: int) -> bool:
        listed = self._whole_paths()
        if not listed:
            return False
        path = listed[number % len(listed)]
        self._store.put_bytes(paths.episode_of_path(path), self._store.read_bytes(path))
        return True

    def _restore_spool(self, robot: str) -> bool:
        self._kill(robot)
        stored = [path for path in self._whole_paths() if paths.robot_of_path(path) == robot]
        for path in stored[-3:]:
            shutil.copy(self._place.object(path), self._place.spool(robot))
        self._start(robot)
        return bool(stored)

    def _raise_flag(self, flag: pathlib.Path) -> None:
        flag.touch()
        self._heals.append((time.monotonic() + _CUT_S, flag))

    def _set_clock(self, robot: str, offset_s: float) -> None:
        self._specs[robot] = dataclasses.replace(self._specs[robot], clock_offset_s=offset_s)
        self._restart(robot)

    def _remove_object(self, number: int) -> bool:
        listed = self._whole_paths()
        if not listed:
            return False
        path = listed[number % len(listed)]
        self.injected.vanished.add(path)
        self._place.object(path).unlink()
        return True

    def _some_object(self, number: int) -> bytes | None:
        listed = self._whole_paths()
        return self._store.read_bytes(listed[number % len(listed)]) if listed else None

    def _whole_paths(self) -> list[str]:
        return [path for path in self._store.list_paths() if path not in self.injected.damaged]
