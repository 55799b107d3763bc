"""How far acting lags behind learning: staleness of the acting policy, and the latency of a correction.

All times are seconds on one clock. A correction's way round the loop: a failure is seen and a human takes over -> the
episode is sealed, uploaded and inserted -> a learner step samples it for the first time -> the first publication that
contains this step -> the first episode of the same task that a robot starts with this version or a later one.
"""

import bisect
import dataclasses
from collections.abc import Iterable, Mapping, Sequence


@dataclasses.dataclass(frozen=True)
class Published:
    """A publication: made at `time_s`, after `learner_step` steps."""

    version: int
    learner_step: int
    time_s: float


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
    first_use_steps: Mapping[str, int],
    published: Iterable[Published],
    acted: Iterable[Acted],
) -> list[float]:
    """Seconds from each correction's failure to the first action of a policy trained on it.

    `first_use_steps` maps an episode_id to the number of learner steps done once the first batch with one of its frames
    was learnt from, so that a publication contains it if its `learner_step` is at least that. Corrections that haven't
    come all the way round yet are left out.
    """
    releases = sorted(published, key=lambda publication: publication.learner_step)
    release_steps = [publication.learner_step for publication in releases]
    starts: dict[str, list[Acted]] = {}
    for episode in acted:
        starts.setdefault(episode.task, []).append(episode)
    for episodes in starts.values():
        episodes.sort(key=lambda episode: episode.started_s)
    result = []
    for correction in corrections:
        step = first_use_steps.get(correction.episode_id)
        if step is None:
            continue
        index = bisect.bisect_left(release_steps, step)
        if index == len(releases):
            continue
        version = releases[index].version
        acted_s = next(
            (
                episode.started_s
                for episode in starts.get(correction.task, ())
                if episode.policy_version >= version and episode.started_s >= correction.failed_s
            ),
            None,
        )
        if acted_s is not None:
            result.append(acted_s - correction.failed_s)
    return result
