"""One robot's life as a process: policy, weights, spool and store around its actor."""

import contextlib
import dataclasses
import pathlib
import threading
from collections.abc import Callable

from sop_jax.actors.actor import Actor, ActorConfig, ActorReport
from sop_jax.actors.episode_counter import EpisodeCounter
from sop_jax.actors.policy_runner import PolicyRunner
from sop_jax.actors.spool import Spool, SpoolConfig
from sop_jax.actors.weights_feed import BackgroundFeed, InlineFeed
from sop_jax.cli.locations import as_store_url
from sop_jax.cli.output import note, print_json, say
from sop_jax.cli.stopping import StopRequests
from sop_jax.drill.ledger import Ledger
from sop_jax.episodes.paths import episode_of_path
from sop_jax.episodes.store import EpisodeStore
from sop_jax.specs.clock import Clock
from sop_jax.specs.errors import ConfigError, InvalidEpisodeError
from sop_jax.specs.identifiers import number_of_episode
from sop_jax.specs.interfaces import Metrics, Robot, Supervisor
from sop_jax.specs.records import Episode
from sop_jax.weights.follower import Follower

_LISTING_S = 15.0
"""How long a robot that starts waits to hear which episodes the store has."""


@dataclasses.dataclass(frozen=True)
class Upkeep:
    """Where episodes go and weights come from.

    store: a folder or a URL. spool: folder for episodes on their way there; None = runs/spool/<robot-id>.
    ledger: file in which the robot keeps account of what its spool accepted; None = none.
    """

    store: str
    spool: pathlib.Path | None
    spool_gb: float
    weights_poll_s: float
    drain_s: float
    ledger: pathlib.Path | None = None


def run_actor(
    config: ActorConfig,
    upkeep: Upkeep,
    robot: Robot,
    policy: PolicyRunner,
    supervisor: Supervisor | None,
    clock: Clock,
    metrics: Metrics,
    stop: StopRequests,
) -> tuple[ActorReport, bool]:
    """Runs the actor to its end on this thread; returns its report and whether everything was uploaded.

    Raises ConfigError: the spool holds episodes of another store.

    `stop` is a request that may come before the actor is there; the caller has entered it.
    """
    store = EpisodeStore(as_store_url(upkeep.store))
    follower = Follower(as_store_url(upkeep.store), policy.weights_base, policy.norm_stats)
    feed = BackgroundFeed(
        InlineFeed(follower, policy.trained_template, metrics), clock, policy.version, upkeep.weights_poll_s
    )
    room = SpoolConfig(max_bytes=round(upkeep.spool_gb * 1e9))
    robot_id = config.robot_id
    directory = upkeep.spool or pathlib.Path("runs/spool") / robot_id
    counter = EpisodeCounter(directory, store.url)
    if counter.is_of_another_store and (num_waiting := len(list(directory.glob("*.zip")))):
        raise ConfigError(
            f"{directory} holds {num_waiting} episodes on their way to another store than {store.url}: start once more with "
            "that one until they are uploaded, or choose another --spool (has the same store got another name, remove "
            "next_episode.json there)"
        )
    spool = Spool(directory, store, clock, metrics, room)
    if spool.num_unreadable:
        note(
            f"{spool.num_unreadable} files in the spool can't be read: they stay where they are and are not uploaded; look "
            "at the disk (the metric `unreadable` names each file and the error)"
        )
    ledger = None if upkeep.ledger is None else Ledger(upkeep.ledger, spool, tell=note)
    try:
        # After a restart the robot goes on with new scenes instead of repeating those it has seen.
        num_kept = spool.num_pending + spool.num_given_up
        first_episode = max(
            counter.next_number(),
            _first_after_waiting(directory),
            _first_after_stored(store, robot_id, num_kept, clock),
        )
        actor = Actor(
            dataclasses.replace(config, first_episode=first_episode),
            robot,
            policy,
            ledger or spool,
            clock,
            supervisor=supervisor,
            feed=feed,
            metrics=metrics,
            on_episode=_counting(counter, teller(clock)),
        )
        stop.call(actor.stop)
        report = actor.run()
        uploaded = spool.drain(upkeep.drain_s)
        num_pending = spool.num_pending
    finally:
        feed.close()
        if ledger is not None:
            ledger.close()
        spool.close()
    _warn(report, uploaded, num_pending)
    return report, uploaded


def tell_report(robot_id: str, report: ActorReport, uploaded: bool, json: bool) -> None:
    """The last lines of a robot's command."""
    say(f"{robot_id}: {report.num_episodes} episodes, {report.num_successes} successes, {report.num_swaps} swaps")
    if json:
        print_json({**dataclasses.asdict(report), "all_uploaded": uploaded})


def teller(clock: Clock) -> Callable[[Episode], None]:
    """What says a line about each episode."""

    def tell(episode: Episode) -> None:
        manifest = episode.manifest
        helped = f", {manifest.num_interventions} takeovers" if manifest.takeovers else ""
        kind = f" ({manifest.failure_kind})" if manifest.failure_kind else ""
        note(
            f"{clock.now_ns() / 1e9:.1f} {manifest.episode_id} version {manifest.policy_version}: "
            f"{manifest.outcome.value}{kind}, {manifest.num_frames} frames{helped}"
        )

    return tell


def _counting(counter: EpisodeCounter, tell: Callable[[Episode], None]) -> Callable[[Episode], None]:
    """Counts each episode as well as telling it."""

    def count(episode: Episode) -> None:
        try:
            counter.note(number_of_episode(episode.manifest.episode_id))
        except OSError as error:  # The worst that can come of it is a scene that the robot meets twice.
            note(f"the number of the next episode wasn't written down: {error}")
        tell(episode)

    return count


def _warn(report: ActorReport, uploaded: bool, num_pending: int) -> None:
    if report.num_given_up:
        note(
            f"{report.num_given_up} episodes found no room in the spool and are lost: "
            "give it more (--spool-gb), or a faster link"
        )
    if not uploaded:
        note(f"{num_pending} episodes still wait in the spool; the next start uploads them")


def _first_after_waiting(directory: pathlib.Path) -> int:
    """A number after those in the spool, if the counter was lost: what a full spool gives up first goes by their order."""
    numbers = []
    for path in directory.glob("*.zip"):
        with contextlib.suppress(InvalidEpisodeError):  # a file that Spool left where it is
            numbers.append(number_of_episode(path.stem))
    return max(numbers, default=-1) + 1


def _first_after_stored(store: EpisodeStore, robot_id: str, num_kept: int, clock: Clock) -> int:
    """A number after those of this robot's episodes in the store, and of the `num_kept` that its spool knows; one that no
    other start gets, if the store is away: the spool is there for that."""
    answer = _list_in_time(store, robot_id)
    if isinstance(answer, Exception):
        note(f"the store doesn't answer, episodes wait in the spool: {answer}")
        return clock.now_ns() // 10**9 + num_kept
    numbers = [number_of_episode(episode_of_path(path)) for path in answer]
    return max(len(numbers) + num_kept, max(numbers, default=-1) + 1)


def _list_in_time(store: EpisodeStore, robot_id: str) -> list[str] | Exception:
    """The robot's paths, or why there are none: a robot doesn't wait for a store as long as storage drivers do."""
    answers: list[list[str] | Exception] = []

    def ask() -> None:
        try:
            answers.append(store.list_paths(robot_id))
        except Exception as error:  # storage drivers raise what they like
            answers.append(error)

    thread = threading.Thread(target=ask, name="first-listing", daemon=True)
    thread.start()
    thread.join(_LISTING_S)
    return answers[0] if answers else TimeoutError(f"no list of its episodes within {_LISTING_S:.0f} s")
