"""How far acting lags behind learning: staleness of the acting policy, and the latency of a correction.

All times are seconds on one clock. A correction's way round the loop: a failure is seen and a human takes over -> the
episode is sealed, uploaded and inserted -> a learner step samples it for the first time -> the first publication that
contains this step -> the first episode of the same task that a robot starts with this version or a later one.
"""

import bisect
import dataclasses
from collections.abc import Iterable, Iterator, Mapping, Sequence


@dataclasses.dataclass(frozen=True)
class Published:
    """A publication: made at `time_s`, after `learner_step` steps, in the learner's life number `life` (see `FirstUse`)."""

    version: int
    learner_step: int
    time_s: float
    life: int = 0


@dataclasses.dataclass(frozen=True)
class FirstUse:
    """An episode was first learnt from: `learner_step` steps were done with it. A learner that is started again goes on from
    its checkpoint: this begins its next life, in which the steps beyond the checkpoint weren't made."""

    learner_step: int
    life: int = 0


@dataclasses.dataclass(frozen=True)
class Acted:
    """One episode acted by a policy, from `started_s` to `ended_s`."""

    robot_id: str
    task: str
    policy_version: int
    started_s: float
    ended_s: float


@dataclasses.dataclass(frozen=True)
class Correction:
    """A takeover inside an episode; `failed_s` is when the failure was seen (before the reaction delay)."""

    episode_id: str
    task: str
    failed_s: float


@dataclasses.dataclass(frozen=True)
class Staleness:
    """The acting policy at the middle of an episode: versions behind the newest, and age since its publication."""

    num_versions: int
    age_s: float


def staleness(acted: Iterable[Acted], published: Sequence[Published], learning_since_s: float) -> list[Staleness]:
    """Staleness of each episode that ended after learning began.

    The base policy (a version that was never published) counts from `learning_since_s`: nothing newer could exist before.
    """
    by_version = {publication.version: publication.time_s for publication in published}
    in_order = sorted(published, key=lambda publication: publication.time_s)
    times = [publication.time_s for publication in in_order]
    result = []
    for episode in acted:
        middle_s = (episode.started_s + episode.ended_s) / 2
        if middle_s < learning_since_s:
            continue
        num_before = bisect.bisect_right(times, middle_s)
        newest = in_order[num_before - 1].version if num_before else episode.policy_version
        made_s = by_version.get(episode.policy_version, learning_since_s)
        result.append(Staleness(max(0, newest - episode.policy_version), max(0.0, middle_s - made_s)))
    return result


def correction_latencies(
    corrections: Iterable[Correction],
    first_uses: Mapping[str, Sequence[FirstUse]],
    published: Iterable[Published],
    acted: Iterable[Acted],
    began_at: Sequence[int] = (0,),
) -> list[float]:
    """Seconds from each correction's failure to the first action of a policy trained on it.

    `first_uses` maps an episode_id to the steps at which the first batch with one of its frames was learnt from, so that a
    publication of the same life contains it if its `learner_step` is at least that; one of a later life only if no life in
    between began (`began_at`: each one's first step) before it. Corrections that haven't come all the way round yet are left
    out.
    """
    lives: list[list[Published]] = [[] for _ in began_at]
    for publication in sorted(published, key=lambda publication: publication.learner_step):
        lives[publication.life].append(publication)
    starts: dict[str, list[Acted]] = {}
    for episode in acted:
        starts.setdefault(episode.task, []).append(episode)
    for episodes in starts.values():
        episodes.sort(key=lambda episode: episode.started_s)
    result = []
    for correction in corrections:
        uses = first_uses.get(correction.episode_id, ())
        containing = [versions for use in uses for versions in _versions_with(use, lives, began_at)]
        acted_s = next(
            (
                episode.started_s
                for episode in starts.get(correction.task, ())
                if episode.started_s >= correction.failed_s
                and any(episode.policy_version in versions for versions in containing)
            ),
            None,
        )
        if acted_s is not None:
            result.append(acted_s - correction.failed_s)
    return result


def _versions_with(use: FirstUse, lives: Sequence[Sequence[Published]], began_at: Sequence[int]) -> Iterator[range]:
    """The versions that contain a use: in each life from the first to the last of them. `lives`: by learner_step."""
    for life in range(use.life, len(lives)):
        if life > use.life and began_at[life] < use.learner_step:
            return
        releases = lives[life]
        index = bisect.bisect_left(releases, use.learner_step, key=lambda publication: publication.learner_step)
        if index < len(releases):
            yield range(releases[index].version, releases[-1].version + 1)
