"""From the stations' metrics to words: what holds the loop back, and what to do about it."""

import dataclasses
import enum
from collections.abc import Callable, Iterator

from sop_jax.monitoring.progress import SILENCE_S, is_starved, overdue_s, stands_still
from sop_jax.monitoring.scrape import Window


class Weight(enum.IntEnum):
    """How much a verdict matters. STOPPED: nothing passes there, or data are lost. SLOW: it holds the others back."""

    STOPPED = 0
    SLOW = 1
    NOTE = 2


@dataclasses.dataclass(frozen=True)
class Verdict:
    """One finding: a short name for programs, what is the matter, and what to do."""

    code: str
    weight: Weight
    says: str
    advice: str


@dataclasses.dataclass(frozen=True)
class Limits:
    """From where on something counts.

    spool_episodes: so many waiting in one spool mean that the link is slower than the robot.
    spool_share: of the bytes that a spool may hold.
    backlog_episodes: found by intake and not dealt with.
    held_back_share: of a task's examples, asked from online and not given.
    wait_share: of the learner's time.
    versions_behind: a robot's version behind the newest.
    late_share: of a robot's control ticks.
    silence_s: without a word from the tables, or a step of the learner.
    """

    spool_episodes: int = 4
    spool_share: float = 0.8
    backlog_episodes: int = 16
    held_back_share: float = 0.1
    wait_share: float = 0.2
    versions_behind: int = 3
    late_share: float = 0.05
    silence_s: float = SILENCE_S


def diagnose(window: Window, limits: Limits | None = None) -> list[Verdict]:
    """Every finding, the bottleneck first: by weight, and among equals along the data's way."""
    found = [verdict for check in _CHECKS for verdict in check(window, limits or Limits())]
    return sorted(found, key=lambda verdict: verdict.weight)  # stable: equals stay in order


def bottleneck(verdicts: list[Verdict]) -> Verdict | None:
    """The first that holds the loop back; None if nothing does."""
    return next((verdict for verdict in verdicts if verdict.weight is not Weight.NOTE), None)


def _silent(window: Window, limits: Limits) -> Iterator[Verdict]:
    for address, reason in window.after.silent.items():
        yield Verdict(
            "station_silent",
            Weight.STOPPED,
            f"nobody answers at {address}: {reason}.",
            "Is that process running, and was it started with --metrics-port? See its log.",
        )
    for address in window.after.mute:
        if address in window.before.mute:
            yield Verdict(
                "station_mute",
                Weight.SLOW,
                f"{address} answers, and has done nothing yet.",
                "It may still load or compile, or wait for another station: see its log. Or it's no station of this project.",
            )


def _uploads(window: Window, limits: Limits) -> Iterator[Verdict]:
    for waiting in window.samples("spool_episodes"):
        robot, num = waiting.station, int(waiting.value)
        failed_s, done_s = window.last_s("upload_failed", robot), window.last_s("upload", robot)
        if num and failed_s is not None and failed_s > (done_s or 0.0):
            yield Verdict(
                "upload_fails",
                Weight.STOPPED,
                f"{robot} can't upload: its last attempt failed, {num} episodes wait in its spool.",
                "Check the robot's way to the store and its credentials; its metrics give the reason (upload_failed).",
            )
        elif num >= limits.spool_episodes:
            yield Verdict(
                "upload_slow",
                Weight.SLOW,
                f"{robot} records faster than it uploads: {num} episodes wait in its spool.",
                "Give it a faster link, or smaller episodes (image_stride, JPEG quality, fewer cameras).",
            )


def _spools(window: Window, limits: Limits) -> Iterator[Verdict]:
    for lost in window.growth("spool_given_up_total"):
        if lost.value:
            yield Verdict(
                "spool_gives_up",
                Weight.STOPPED,
                f"{lost.station} gave up {lost.value:.0f} episodes for want of room: they are lost.",
                "Give its spool more disk (--spool-gb), or mend its uploads.",
            )
    for used in window.samples("spool_bytes"):
        room = window.value("spool_max_bytes", used.station)
        if room and used.value >= limits.spool_share * room:
            yield Verdict(
                "spool_near_full",
                Weight.SLOW,
                f"{used.station}'s spool is {used.value / room:.0%} full ({used.value / 1e9:.2f} GB): soon it gives up "
                "episodes, the oldest autonomous ones first.",
                "Mend its uploads, or give it more disk (--spool-gb).",
            )


def _intake(window: Window, limits: Limits) -> Iterator[Verdict]:
    for backlog in window.samples("intake_backlog_episodes"):
        if backlog.value >= limits.backlog_episodes:
            yield Verdict(
                "intake_behind",
                Weight.SLOW,
                f"intake is behind: {backlog.value:.0f} episodes lie in the store and not yet in the tables.",
                "Give it cores or more readers (IntakeConfig.num_readers), leave decode_all_images off where robots are "
                "trusted, or start a second intake with the same config: two disturb each other in nothing.",
            )
    for intake in window.wrote("table", "intake", "server_silent"):
        heard_s = window.last_s("table", intake)
        if heard_s is None or window.after.time_s - heard_s > limits.silence_s:
            silence = "yet" if heard_s is None else f"for {window.after.time_s - heard_s:.0f} s"
            yield Verdict(
                "tables_silent",
                Weight.STOPPED,
                f"{intake} hasn't heard from the replay server {silence}.",
                "Is the server up, and can intake reach it? Its log says more.",
            )
    for problem in window.growth("intake_problems_total"):
        if problem.value:
            yield Verdict(
                "intake_troubled",
                Weight.NOTE,
                f"{problem.value:.0f} of intake's looks met a problem.",
                "Its metrics give the reason (intake, problem).",
            )
    for bad in window.growth("intake_quarantined_total"):
        if bad.value:
            yield Verdict(
                "episodes_set_aside",
                Weight.NOTE,
                f"intake set {bad.value:.0f} episodes aside.",
                "sop episodes ls gives the reasons.",
            )
    for foreign in window.growth("intake_foreign_total"):
        if foreign.value:
            yield Verdict(
                "episodes_of_other_tasks",
                Weight.NOTE,
                f"{foreign.value:.0f} episodes came of a task that has no table here.",
                "A robot's task is misspelt, or the config that sop replay was started with lacks it (its metrics name them: "
                "foreign_episode). Misspelt ones are set aside by sop episodes verify --tasks ... --repair, or at once by "
                "sop replay --owns-store.",
            )


def _limiter(window: Window, limits: Limits) -> Iterator[Verdict]:
    blocks = {sample.labels.get("table", ""): sample.value for sample in window.growth("limiter_blocks_total")}
    for asked in window.samples("sampler_online_share_asked"):
        task = asked.labels["task"]
        given = window.value("sampler_online_share_given", asked.station, task=task)
        if given is None or asked.value - given < limits.held_back_share or not blocks.get(f"{task}/online"):
            continue
        yield Verdict(
            "limiter_blocks",
            Weight.SLOW,
            f"the limiter of {task}/online holds the learner back: it asks for {asked.value:.0%} online data and gets "
            f"{given:.0%}, because robots don't bring enough new episodes.",
            "More robots, a slower learner, or more uses of each item (MixConfig.online_samples_per_insert).",
        )


def _learner(window: Window, limits: Limits) -> Iterator[Verdict]:
    for awaited in window.samples("learner_awaited_items"):
        if awaited.value:
            yield Verdict(
                "learner_awaits_items",
                Weight.SLOW,
                f"the learner hasn't begun: the online tables lack {awaited.value:.0f} items of the first that it waits for.",
                "If robots have just begun, wait. Otherwise: do they upload, does intake take episodes in, does the replay "
                "server answer?",
            )
    for learner in window.wrote("learner_step", "starved"):
        if is_starved(window, learner):
            yield Verdict(
                "learner_starved",
                Weight.STOPPED,
                "the learner got no batch within its deadline.",
                "Is intake running, does the replay server answer, are there demonstrations of every task (the offline "
                "tables)?",
            )
        elif (silent_s := overdue_s(window, learner, limits.silence_s)) is not None:
            yield Verdict(
                "learner_silent",
                Weight.STOPPED,
                f"the learner has told of no step for {silent_s:.0f} s.",
                "It waits for data (is intake running, does the replay server answer?), or a checkpoint or a device holds it "
                "up: see its log.",
            )
    for waits in window.samples("learner_wait_share"):
        if waits.value < limits.wait_share or stands_still(window, waits.station):
            continue
        ready = window.value("loader_ready_batches", waits.station)
        made_late = " and no batch is ready" if ready == 0 else ""
        yield Verdict(
            "learner_waits",
            Weight.SLOW,
            f"the learner waits for data {waits.value:.0%} of its time{made_late}.",
            "The loader is too slow: more threads (LoaderConfig.num_threads) or cores, larger caches, a nearer store.",
        )


def _slow_learner(window: Window, limits: Limits) -> Iterator[Verdict]:
    sampled = {sample.labels["table"]: sample.value for sample in window.growth("table_sampled_items_total")}
    waits = [waits.value for waits in window.samples("learner_wait_share") if not stands_still(window, waits.station)]
    if not waits or any(share >= limits.wait_share for share in waits):
        return
    for inserted in window.growth("table_inserted_items_total"):
        table = inserted.labels["table"]
        if table.endswith("/online") and inserted.value > sampled.get(table, 0.0):
            yield Verdict(
                "learner_slower_than_data",
                Weight.SLOW,
                f"data come faster than the learner uses them: {table} took in {inserted.value:.0f} items in "
                f"{window.duration_s:.0f} s and gave {sampled.get(table, 0.0):.0f}.",
                "A faster learner (devices, batch size), or fewer robots; if it has just begun, wait.",
            )


def _publications(window: Window, limits: Limits) -> Iterator[Verdict]:
    failing = set(_failing_publishers(window))
    for _ in failing:
        yield Verdict(
            "publications_fail",
            Weight.STOPPED,
            "the learner can't publish: its last attempt failed.",
            "Check its way to the store and its credentials; its metrics give the reason (publication_failed).",
        )
    for waiting in window.samples("unpublished_steps"):
        # What is due, not what is usual: of what waits only the newest is published, so a slow store makes rare ones usual.
        due = window.value("publish_every_steps", waiting.station)
        if waiting.station not in failing and due and waiting.value > 2 * due:
            yield Verdict(
                "publications_late",
                Weight.SLOW,
                f"publications are late: {waiting.value:.0f} steps since the last, one is due every {due:.0f}.",
                "The store takes weights more slowly than the learner makes them: publish less often, or mend the link.",
            )


def _failing_publishers(window: Window) -> Iterator[str]:
    """Learners whose last attempt to publish failed."""
    for failed in window.samples("publication_failures_total"):
        failed_s = window.last_s("publication_failed", failed.station)
        done_s = window.last_s("publication", failed.station)
        if failed.value and (done_s is None or (failed_s or 0.0) > done_s):
            yield failed.station


def _robots(window: Window, limits: Limits) -> Iterator[Verdict]:
    newest = max((sample.value for sample in window.samples("publication_version")), default=0.0)
    published_s = max((sample.value for sample in window.samples("publication_timestamp_seconds")), default=0.0)
    for acting in window.samples("policy_version"):
        is_behind = newest - acting.value >= limits.versions_behind
        # A look that found the newest would have led to a swap: one that failed since then didn't find it.
        failed_s = window.last_s("weights_unavailable", acting.station) or 0.0
        fails = failed_s > (window.last_s("swap", acting.station) or 0.0)
        if fails and (is_behind or (newest > acting.value and failed_s > published_s)):
            yield Verdict(
                "weights_unavailable",
                Weight.STOPPED,
                f"{acting.station} can't get new weights: its last look for them failed; it acts with version "
                f"{acting.value:.0f}, the newest is {newest:.0f}.",
                "Check its way to the store and its credentials; its metrics give the reason (weights_unavailable).",
            )
        elif is_behind:
            yield Verdict(
                "robot_behind",
                Weight.SLOW,
                f"{acting.station} acts with version {acting.value:.0f}, the newest is {newest:.0f}.",
                "Robots swap between episodes: is this one in a very long episode, or its link slow? Or publish less often.",
            )
    for refused in window.growth("publications_refused_total"):
        if refused.value:
            yield Verdict(
                "publications_refused",
                Weight.STOPPED,
                f"{refused.station} refused {refused.value:.0f} publications as torn or foreign.",
                "Does the robot have the learner's base policy and normalisation? sop weights verify checks the store.",
            )
    ticks = {sample.station: sample.value for sample in window.growth("ticks_total")}
    for late in window.growth("late_ticks_total"):
        total = ticks.get(late.station, 0.0)
        if total and late.value / total >= limits.late_share:
            yield Verdict(
                "robot_late",
                Weight.NOTE,
                f"{late.station} misses its control rate: {late.value / total:.0%} of its ticks come late.",
                "Give it a core of its own, a smaller policy, or inference beside the ticks (inference_delay_frames).",
            )


_CHECKS: tuple[Callable[[Window, Limits], Iterator[Verdict]], ...] = (
    _silent,
    _uploads,
    _spools,
    _intake,
    _limiter,
    _learner,
    _slow_learner,
    _publications,
    _robots,
)
"""Along the data's way."""
