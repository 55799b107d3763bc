"""What a store's online episodes came to, and what people did for it: the end of `sop episodes ls --work`."""

from collections.abc import Collection

from sop_jax.cli.output import say
from sop_jax.episodes.store import EpisodeStore
from sop_jax.evaluation.supervision import SupervisedWork, read_work, sum_up_work
from sop_jax.evaluation.tables import interval, percent

ALL = "all"
"""The label of all tasks together."""


def tell_work(store: EpisodeStore, paths: Collection[str], reset_s: float) -> dict[str, SupervisedWork]:
    """Says a sentence for each task, and (of several) one for all; returns what they say, by task.

    paths: the episodes that count, if they are online and ended by themselves. reset_s: to set up the scene after each [s].
    """
    episodes = [episode for episode in read_work(store, paths=paths) if episode.counts]
    if not episodes:
        say("no online episode that ended by itself: no work to sum up")
        return {}
    tasks = sorted({episode.task for episode in episodes})
    work = {task: sum_up_work([one for one in episodes if one.task == task], reset_s) for task in tasks}
    if len(work) > 1:
        work[ALL] = sum_up_work(episodes, reset_s)
    for task, done in work.items():
        say(f"{task}: {_in_words(done)}")
    return work


def _in_words(work: SupervisedWork) -> str:
    return (
        f"{work.num_successes} successes in {work.num_episodes} online episodes, {percent(work.autonomous)} "
        f"{interval(work.autonomous_low, work.autonomous_high)} without help; {work.robot_h:.2f} robot hours; people acted "
        f"{work.intervention_min:.1f} min in {work.num_interventions} takeovers{_each(work.intervention_min_per_success)}, "
        f"with {work.reset_s:g} s per reset {work.human_min:.1f} min{_each(work.human_min_per_success)}; "
        f"{work.successes_per_hour:.0f} successes/h of robot time and resets"
    )


def _each(minutes: float | None) -> str:
    return "" if minutes is None else f" ({minutes:.2f} per success)"
