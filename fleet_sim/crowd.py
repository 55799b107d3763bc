"""Many replayed robots on wall time in one process: `python -m fleet_sim.crowd SETTINGS` (a `CrowdSettings` as JSON).

It says "ready", is told when to begin (`wall_processes`), and works for that time or until SIGTERM. Each robot begins an
episode with the newest version that the store names, lasts as long as the recording does, uploads, rests and begins again.
Times are planned from the robots' own lives, so that a machine that is late catches up; how late it was is in the report, the
last line of the output.
"""

import collections
import dataclasses
import heapq
import json
import sys
import time
from collections.abc import Callable

from fleet_sim.crew import EpisodeOrder
from fleet_sim.replayed import Recordings, relive
from fleet_sim.told_to_stop import told_to_stop
from fleet_sim.wall_processes import WallOrder, serve_until_stopped
from sop_jax.actors.rollout import never
from sop_jax.actors.seeds import episode_seed
from sop_jax.episodes.paths import episode_of_path
from sop_jax.episodes.store import EpisodeStore
from sop_jax.specs.clock import Clock, WallClock
from sop_jax.specs.identifiers import make_episode_id, number_of_episode, robot_of_episode
from sop_jax.weights.management import current_version

_LOOK_S = 0.2
"""How often somebody who waits asks whether to go on."""


@dataclasses.dataclass(frozen=True)
class CrowdSettings:
    """Who works where: the store of the recordings, the fleet's store, robots, and when they start (wall clock) and end.

    first_s: when each robot begins, after the start; the same number as robots. poll_s: how often the store is asked for a
    new version.
    """

    recordings: str
    store: str
    task: str
    robot_ids: tuple[str, ...]
    first_s: tuple[float, ...]
    start_ns: int
    duration_s: float
    reset_s: float
    seed: int = 0
    poll_s: float = 0.5

    @staticmethod
    def from_json(text: str) -> "CrowdSettings":
        values = json.loads(text)
        tuples = {name: tuple(values[name]) for name in ("robot_ids", "first_s")}
        return CrowdSettings(**{**values, **tuples})


@dataclasses.dataclass(frozen=True)
class CrowdReport:
    """What a crowd did. late_s: from when something was due until it was begun, mean and worst. cpu_s: of this process."""

    num_episodes: int
    mean_late_s: float
    max_late_s: float
    cpu_s: float


class Crowd:
    """Lives all robots' lives on one thread.

        report = Crowd(settings, recordings, clock).run()

    After a kill the next one goes on from then, with new episodes: what the store holds by then is not lived again.
    """

    def __init__(self, settings: CrowdSettings, recordings: Recordings, clock: Clock):
        self._settings, self._recordings, self._clock = settings, recordings, clock
        self._store = EpisodeStore(settings.store, clock=clock)
        self._counts = _num_lived(self._store)
        self._version, self._asked_s = 0, float("-inf")
        self._late_s: list[float] = []
        self._num_episodes = 0

    def run(self, should_stop: Callable[[], bool] = never) -> CrowdReport:
        """Blocks until the end of the settings' time, or until told to stop; episodes that would end later are not kept."""
        settings = self._settings
        due: list[tuple[float, int, EpisodeOrder | None]] = [
            (first_s, robot, None) for robot, first_s in enumerate(self._first_s())
        ]
        heapq.heapify(due)
        while due and due[0][0] <= settings.duration_s:
            due_s, robot, order = heapq.heappop(due)
            self._wait_until(due_s, should_stop)
            if should_stop():
                break
            if order is None:
                order = self._begin(robot, due_s)
                frames = self._recordings.find(order.seed).manifest
                heapq.heappush(due, (due_s + frames.num_frames / frames.control_hz, robot, order))
            else:
                self._store.put(relive(self._recordings.find(order.seed), order))
                self._num_episodes += 1
                heapq.heappush(due, (due_s + settings.reset_s, robot, None))
        late = self._late_s or [0.0]
        return CrowdReport(self._num_episodes, sum(late) / len(late), max(late), time.process_time())

    def _first_s(self) -> list[float]:
        """When each robot begins: as settled; who would have begun already, as long from now, so that they stay apart."""
        now_s = self._now_s()
        return [first_s if first_s >= now_s else now_s + first_s for first_s in self._settings.first_s]

    def _wait_until(self, due_s: float, should_stop: Callable[[], bool]) -> None:
        early_s = due_s - self._now_s()
        self._late_s.append(max(0.0, -early_s))
        while early_s > 0 and not should_stop():
            self._clock.sleep_s(min(early_s, _LOOK_S))
            early_s -= _LOOK_S

    def _now_s(self) -> float:
        return (self._clock.now_ns() - self._settings.start_ns) / 1e9

    def _begin(self, robot: int, due_s: float) -> EpisodeOrder:
        settings = self._settings
        robot_id = settings.robot_ids[robot]
        count = self._counts[robot_id]
        self._counts[robot_id] += 1
        if self._now_s() - self._asked_s >= settings.poll_s:
            self._version, self._asked_s = current_version(settings.store) or 0, self._now_s()
        return EpisodeOrder(
            episode_id=make_episode_id(robot_id, 0, count),
            robot_id=robot_id,
            task=settings.task,
            seed=episode_seed(settings.seed, robot_id, count),
            started_ns=settings.start_ns + round(due_s * 1e9),
            version=self._version,
        )


def _num_lived(store: EpisodeStore) -> collections.Counter[str]:
    """By robot, the number that its next episode gets."""
    lived: collections.Counter[str] = collections.Counter()
    for path in store.list_paths():
        episode_id = episode_of_path(path)
        robot_id = robot_of_episode(episode_id)
        lived[robot_id] = max(lived[robot_id], number_of_episode(episode_id) + 1)
    return lived


def main(text: str) -> None:
    should_stop = told_to_stop()
    settings = CrowdSettings.from_json(text)
    recordings = Recordings.of_store(EpisodeStore(settings.recordings), settings.task)

    def work(order: WallOrder) -> CrowdReport:
        ordered = dataclasses.replace(settings, start_ns=order.start_ns, duration_s=order.duration_s)
        return Crowd(ordered, recordings, WallClock()).run(should_stop)

    serve_until_stopped(work)


if __name__ == "__main__":
    main(sys.argv[1])
