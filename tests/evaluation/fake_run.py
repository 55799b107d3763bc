"""A made-up run for tests: events and episodes whose sums are easy to do by hand."""

import dataclasses

import numpy as np

from sop_jax.evaluation.event_log import Event
from sop_jax.evaluation.run_history import EpisodeSummary
from sop_jax.evaluation.run_tracker import RunTracker
from sop_jax.specs.errors import InvalidEpisodeError
from sop_jax.specs.records import EpisodeArrays, EpisodeManifest, Outcome, Source, TakeoverEvent


def event(time_s: float, name: str, **values) -> Event:
    return Event(time_s, "learner", name, values)


def episode(
    count: int,
    *,
    robot: str = "robot-0",
    version: int = 0,
    success: bool = True,
    failed_s: tuple[float, ...] = (),
    started_s: float = 0.0,
    duration_s: float = 4.0,
    source: Source = Source.ONLINE,
    outcome: Outcome | None = None,
) -> EpisodeSummary:
    episode_id = f"{robot}.{1:020d}.{count:06d}"
    return EpisodeSummary(
        episode_id=episode_id,
        path=f"episodes/{robot}/{episode_id}.zip",
        robot_id=robot,
        task="shelf",
        source=source,
        policy_version=version,
        outcome=outcome or (Outcome.SUCCESS if success else Outcome.TIMEOUT),
        failure_kind="" if success else "timeout",
        num_frames=round(duration_s * 30),
        num_intervention_frames=10 * len(failed_s),
        started_s=started_s,
        ended_s=started_s + duration_s,
        failed_s=failed_s,
    )


def improving_run(num_episodes: int = 240, num_robots: int = 4, seed: int = 0) -> RunTracker:
    """A plausible run: success climbs from half to nearly all, weights are published every 10 s. FAKE data."""
    rng = np.random.default_rng(seed)
    tracker = RunTracker()
    start = 1_000_000.0
    tracker.add_events([event(start - 5, "table", table="shelf/offline", size=812)])
    for step in range(1, 401):
        time_s = start + step * 0.8
        progress = step / 400
        if step % 4 == 0:
            speed = 28 + 4 * np.sin(step / 30) + rng.normal(0, 1.5)
            tracker.add_events(
                [
                    event(
                        time_s, "learner_step", step=step * 25, steps_per_s=speed, wait_share=0.02,
                        loss=float(0.4 * np.exp(-2 * progress) + 0.08 + rng.normal(0, 0.01)),
                    ),
                    event(
                        time_s, "sampler", task="shelf", online_share_asked=float(0.5 + 0.25 * np.sin(progress * 3)),
                        online_share_given=float(min(0.5 + 0.25 * np.sin(progress * 3), 2.5 * progress)),
                    ),
                    event(time_s, "table", table="shelf/online", size=int(700 * progress)),
                ]
            )  # fmt: skip
        if step % 12 == 0:
            tracker.add_events([event(time_s, "publication", version=step // 12, learner_step=step * 25)])
    for count in range(num_episodes):
        progress = count / num_episodes
        started_s = start + 320 * progress + rng.uniform(0, 1)
        version = max(0, int((started_s - start - 2) / 9.6))
        success = rng.random() < 0.5 + 0.45 * progress
        failed = () if success else (started_s + 2.0,)
        made = episode(
            count, robot=f"robot-{count % num_robots}", version=version, success=True, failed_s=failed,
            started_s=started_s, duration_s=float(rng.uniform(3, 6)),
        )  # fmt: skip
        tracker.add_episode(made)
        if failed:
            step = int((started_s + 12 - start) / 0.8) * 25
            tracker.add_events([event(started_s + 12, "first_use", episode_id=made.episode_id, learner_step=step)])
    return tracker


@dataclasses.dataclass(frozen=True)
class FakeParsed:
    manifest: EpisodeManifest
    arrays: EpisodeArrays


class FakeStore:
    """Satisfies `run_history.EpisodeSource`; `broken` paths can't be read."""

    def __init__(self):
        self.parsed: dict[str, FakeParsed] = {}
        self.broken: set[str] = set()
        self.num_reads = 0

    def add(self, count: int, takeovers: tuple[TakeoverEvent, ...] = (), num_frames: int = 90) -> str:
        manifest = EpisodeManifest(
            episode_id=f"robot-0.{1:020d}.{count:06d}", robot_id="robot-0", task="shelf", instruction="fill the shelf",
            source=Source.ONLINE, policy_version=2, outcome=Outcome.SUCCESS, control_hz=30.0, num_frames=num_frames,
            cameras=(), action_names=(), started_ns=10**9 * count, ended_ns=10**9 * (count + 3), takeovers=takeovers,
        )  # fmt: skip
        intervention = np.zeros(num_frames, bool)
        for takeover in takeovers:
            intervention[takeover.takeover_frame : takeover.handback_frame] = True
        arrays = EpisodeArrays(
            state=np.zeros((num_frames, 16), np.float32), action=np.zeros((num_frames, 16), np.float32),
            intervention=intervention, policy_version=np.full(num_frames, 2, np.int32),
            time_ns=10**9 * count + np.arange(num_frames, dtype=np.int64) * 33_333_333,
            image_frames=np.arange(0, num_frames, 3, dtype=np.int32),
        )  # fmt: skip
        path = f"episodes/robot-0/{manifest.episode_id}.zip"
        self.parsed[path] = FakeParsed(manifest, arrays)
        return path

    def list_paths(self) -> list[str]:
        return sorted(self.parsed)

    def read_without_images(self, path: str) -> FakeParsed:
        self.num_reads += 1
        if path in self.broken:
            raise InvalidEpisodeError(f"{path} is torn")
        return self.parsed[path]
