"""Follows a run while it goes on: `runs/<name>/metrics/*.jsonl` and the episodes in its store, read once each.

Also writes what a run leaves behind: the merged `metrics.jsonl`, TensorBoard events, `summary.json`.
"""

import dataclasses
import json
import pathlib
from typing import Any

from tensorboardX import SummaryWriter

from sop_jax.evaluation.event_log import Event, EventReader
from sop_jax.evaluation.run_history import EpisodeSource, EpisodeSummary, RunHistory, RunState, summary_of
from sop_jax.evaluation.run_tracker import RunTracker
from sop_jax.evaluation.statistics import Interval, bootstrap_median
from sop_jax.specs.errors import EpisodeNotFoundError, InvalidEpisodeError

MAX_ATTEMPTS = 3
"""Polls at which an unreadable episode is tried again before it is left out (a torn upload stays torn)."""


class RunReader:
    """Reads what is new at each `poll`, and answers for the whole run.

        reader = RunReader(run / "metrics", store)
        state = reader.poll()            # cheap: only new lines and new episodes are read
        history = reader.history()

    Not thread-safe.
    """

    def __init__(self, metrics_directory: pathlib.Path, store: EpisodeSource):
        self._events = EventReader(metrics_directory)
        self._store = store
        self._tracker = RunTracker()
        self._seen: set[str] = set()
        self._attempts: dict[str, int] = {}

    def poll(self) -> RunState:
        self._tracker.add_events(self._events.poll())
        for path in self._store.list_paths():
            if path not in self._seen:
                self._read(path)
        return self._tracker.state()

    def history(self) -> RunHistory:
        return self._tracker.history()

    @property
    def num_unreadable(self) -> int:
        """Episodes that were left out because they can't be read; intake says why in their quarantine record."""
        return sum(attempts >= MAX_ATTEMPTS for attempts in self._attempts.values())

    def _read(self, path: str) -> None:
        try:
            parsed = self._store.read_without_images(path)
        except (InvalidEpisodeError, EpisodeNotFoundError):
            self._attempts[path] = self._attempts.get(path, 0) + 1
            if self._attempts[path] >= MAX_ATTEMPTS:
                self._seen.add(path)
            return
        self._tracker.add_episode(summary_of(parsed.manifest, parsed.arrays, path))
        self._seen.add(path)


@dataclasses.dataclass(frozen=True)
class RunTotals:
    """A run in numbers. Intervals are 95% bootstrap intervals of the medians; None where nothing was measured.

    Staleness is the age of the acting policy at the middle of an episode [s] and in versions; correction latency is from
    a failure seen to the first action of a policy trained on its correction [s].
    """

    num_episodes: int
    num_frames: int
    num_interventions: int
    num_intervention_frames: int
    num_demonstrations: int
    num_publications: int
    num_swaps: int
    learner_steps: int
    median_steps_per_s: float | None
    median_wait_share: float | None
    median_staleness_s: Interval | None
    median_staleness_versions: Interval | None
    median_correction_latency_s: Interval | None
    num_corrections_returned: int


def totals_of(history: RunHistory) -> RunTotals:
    """Sums up a history. Seeded: the same history gives the same intervals."""
    speed = bootstrap_median([sample.steps_per_s for sample in history.learner])
    waiting = bootstrap_median([sample.wait_share for sample in history.learner])
    return RunTotals(
        num_episodes=len(history.episodes),
        num_frames=sum(episode.num_frames for episode in history.episodes),
        num_interventions=sum(episode.num_interventions for episode in history.episodes),
        num_intervention_frames=sum(episode.num_intervention_frames for episode in history.episodes),
        num_demonstrations=history.num_demonstrations,
        num_publications=len(history.publications),
        num_swaps=history.num_swaps,
        learner_steps=max((sample.learner_step for sample in (*history.learner, *history.publications)), default=0),
        median_steps_per_s=speed.value if speed else None,
        median_wait_share=waiting.value if waiting else None,
        median_staleness_s=bootstrap_median([value.age_s for value in history.staleness]),
        median_staleness_versions=bootstrap_median([value.num_versions for value in history.staleness]),
        median_correction_latency_s=bootstrap_median(history.correction_latencies_s),
        num_corrections_returned=len(history.correction_latencies_s),
    )


def write_merged_log(metrics_directory: pathlib.Path, target: pathlib.Path) -> int:
    """Merges all processes' events into one file in order of time; returns how many there are. Replaces the file."""
    events = EventReader(metrics_directory).poll()
    temporary = target.with_suffix(".partial")
    with temporary.open("w", encoding="utf-8") as file:
        for event in events:
            file.write(json.dumps(_plain(event)) + "\n")
    temporary.replace(target)
    return len(events)


def write_tensorboard(history: RunHistory, directory: pathlib.Path) -> None:
    """Writes curves as TensorBoard events: by learner step for the learner, by episode count for the robots."""
    with SummaryWriter(str(directory), write_to_disk=True) as writer:
        for sample in history.learner:
            at = {"global_step": sample.learner_step, "walltime": sample.time_s}
            writer.add_scalar("learner/loss", sample.loss, **at)
            writer.add_scalar("learner/steps_per_s", sample.steps_per_s, **at)
            writer.add_scalar("learner/wait_share", sample.wait_share, **at)
        for count, sample in enumerate(history.sampler):
            writer.add_scalar(f"sampler/online_share/{sample.task}", sample.asked_share, count, sample.time_s)
        for count, episode in enumerate(history.episodes):
            _write_episode(writer, count, episode)


def write_json(path: pathlib.Path, value: Any) -> None:
    """Writes JSON atomically: readers see the old file or the new one."""
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_suffix(path.suffix + ".partial")
    temporary.write_text(json.dumps(value, indent=2) + "\n", encoding="utf-8")
    temporary.replace(path)


def _write_episode(writer: SummaryWriter, count: int, episode: EpisodeSummary) -> None:
    values = {
        "success": float(episode.autonomous_success),
        "interventions": float(episode.num_interventions),
        "frames": float(episode.num_frames),
        "policy_version": float(episode.policy_version),
    }
    for name, value in values.items():
        writer.add_scalar(f"robots/{name}", value, count, episode.ended_s)


def _plain(event: Event) -> dict[str, Any]:
    return {"time_s": event.time_s, "process": event.process, "event": event.name, **event.values}
