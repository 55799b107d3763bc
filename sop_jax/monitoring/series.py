"""Which event of which station becomes which Prometheus series. Stations write events (`specs.interfaces.Metrics`) only."""

import dataclasses
import enum


class Kind(enum.Enum):
    """COUNT adds the value (1 without a key; a text counts as 1 unless it is empty). TOTAL is told as a sum since the process
    began. GAUGE is the last value. TIMES is a histogram of seconds."""

    COUNT = "count"
    TOTAL = "total"
    GAUGE = "gauge"
    TIMES = "times"


@dataclasses.dataclass(frozen=True)
class Series:
    """One series, `sop_<name>`: `value = (event[key] - event[minus]) * scale`, with the event's `labels` as labels."""

    name: str
    kind: Kind
    event: str
    help: str
    key: str = ""
    labels: tuple[str, ...] = ()
    scale: float = 1.0
    minus: str = ""


_COUNT, _TOTAL, _GAUGE, _TIMES = Kind.COUNT, Kind.TOTAL, Kind.GAUGE, Kind.TIMES
_NS = 1e-9


def _waiting(event: str) -> tuple[Series, ...]:
    """What waits in a spool is told by every event that changes it."""
    return (
        Series("spool_bytes", _GAUGE, event, "Bytes that wait in the robot's spool.", "pending_bytes"),
        Series("spool_max_bytes", _GAUGE, event, "Bytes that may wait in the robot's spool.", "max_bytes"),
        Series("spool_episodes", _GAUGE, event, "Episodes that wait in the robot's spool.", "num_pending"),
    )


ROBOT = (
    *(series for event in ("accepted", "upload", "upload_failed") for series in _waiting(event)),
    Series("spool_accepted", _COUNT, "accepted", "Episodes that the spool accepted."),
    Series("spool_given_up", _COUNT, "given_up", "Episodes that found no room in the spool, and are lost."),
    Series("spool_set_aside", _COUNT, "set_aside", "Files in the spool that can't be uploaded."),
    Series("spool_unreadable", _COUNT, "unreadable", "Files in the spool that couldn't be read."),
    Series("upload_seconds", _TIMES, "upload", "From an episode's end until the store has it.", "upload_s"),
    Series("upload_bytes", _COUNT, "upload", "Bytes uploaded.", "num_bytes"),
    Series("upload_failures", _COUNT, "upload_failed", "Attempts to upload that failed."),
    Series("episodes", _COUNT, "episode_end", "Episodes ended.", labels=("outcome",)),
    Series("interventions", _COUNT, "episode_end", "Takeovers.", "num_interventions"),
    Series("ticks", _COUNT, "rollout", "Control ticks.", "num_frames"),
    Series("late_ticks", _COUNT, "rollout", "Control ticks that came late.", "num_late_ticks"),
    Series("policy_version", _GAUGE, "acting", "Version that the robot acts with.", "version"),
    Series("policy_version", _GAUGE, "swap", "Version that the robot acts with.", "version"),
    Series("policy_learner_step", _GAUGE, "swap", "Learner steps in that version.", "learner_step"),
    Series("policy_created_timestamp_seconds", _GAUGE, "swap", "When that version was published.", "created_ns",
           scale=_NS),
    Series("swap_seconds", _TIMES, "swap", "From a publication until the robot acts with it.", "now_ns", (), _NS,
           "created_ns"),
    Series("publications_refused", _COUNT, "publication_refused", "Torn or foreign publications."),
    Series("weights_unavailable", _COUNT, "weights_unavailable", "Looks for new weights that the store didn't answer."),
)  # fmt: skip

REPLAY = (
    Series("intake_backlog_episodes", _GAUGE, "look", "Episodes found and not yet dealt with.", "num_new"),
    Series("intake_backlog_episodes", _GAUGE, "intake", "Episodes found and not yet dealt with.", "waiting"),
    Series("intake_problems", _COUNT, "intake", "Looks at the store that met a problem.", "problem"),
    Series("intake_episodes", _COUNT, "episode", "Episodes dealt with.", labels=("intake",)),
    Series("intake_seconds", _TIMES, "episode", "From finding an episode until its items are in the tables.", "intake_s"),
    Series("sampleable_seconds", _TIMES, "episode", "From an episode's end until its items are in the tables.",
           "intake_delay_s"),
    Series("intake_quarantined", _COUNT, "quarantine", "Episodes set aside."),
    Series("intake_unreadable", _COUNT, "unreadable_episode", "Episodes that the store didn't serve at a look."),
    Series("intake_foreign", _COUNT, "foreign_episode", "Episodes of a task that has no table."),
    Series("intake_unlabelled", _COUNT, "unlabelled_episode", "Episodes that the algorithm's labeler couldn't read."),
    Series("table_items", _GAUGE, "table", "Items in the table.", "size", ("table",)),
    Series("table_max_items", _GAUGE, "table", "Items that the table may hold.", "max_size", ("table",)),
    Series("table_inserted_items", _TOTAL, "table", "Items inserted.", "num_inserted", ("table",)),
    Series("table_sampled_items", _TOTAL, "table", "Items sampled.", "num_sampled", ("table",)),
)  # fmt: skip

LEARNER = (
    Series("learner_awaited_items", _GAUGE, "awaits_items", "Online items that must come before it begins.", "missing"),
    Series("learner_step", _GAUGE, "learner_step", "Learner steps done.", "step"),
    Series("learner_steps_per_second", _GAUGE, "learner_step", "Learner steps per second.", "steps_per_s"),
    Series("learner_report_seconds", _GAUGE, "learner_step", "What the steps took that the last report tells of.",
           "elapsed_s"),
    Series("learner_wait_share", _GAUGE, "learner_step", "Share of the time spent waiting for batches.", "wait_share"),
    Series("learner_loss", _GAUGE, "learner_step", "Mean loss.", "loss"),
    Series("learner_skipped_steps", _COUNT, "step_skipped", "Steps without a finite gradient."),
    Series("learner_starved", _COUNT, "starved", "Steps for which no batch came within the deadline."),
    Series("staleness_versions", _GAUGE, "learner_step", "Learner's version minus acting version, mean of the frames.",
           "staleness_versions"),
    Series("staleness_versions_max", _GAUGE, "learner_step", "The largest of them.", "staleness_versions_max"),
    Series("staleness_seconds", _GAUGE, "learner_step", "Age of the online frames learnt from, mean.", "staleness_s"),
    Series("loader_ready_batches", _GAUGE, "loader", "Batches that wait for the learner.", "num_ready"),
    Series("loader_fallback_examples", _TOTAL, "loader", "Examples asked from online, served by offline.", "fallbacks"),
    Series("loader_skipped_examples", _TOTAL, "loader", "Picks whose episode or frame couldn't be used.", "skipped"),
    Series("limiter_blocks", _TOTAL, "limiter", "Calls that a table's limiter held back until they gave up.",
           "num_blocks", ("table",)),
    Series("sampler_online_share_asked", _GAUGE, "sampler", "Share of a task asked from online.", "online_share_asked",
           ("task",)),
    Series("sampler_online_share_given", _GAUGE, "sampler", "Share of a task that online gave.", "online_share_given",
           ("task",)),
    Series("publication_version", _GAUGE, "publication", "Newest version published.", "version"),
    Series("publication_learner_step", _GAUGE, "publication", "Learner steps in it.", "learner_step"),
    Series("publication_timestamp_seconds", _GAUGE, "publication", "When it was made.", "created_ns", scale=_NS),
    Series("unpublished_steps", _GAUGE, "learner_step", "Learner steps since the last publication that is out.",
           "unpublished_steps"),
    Series("publish_every_steps", _GAUGE, "learner_step", "Learner steps from one publication that is due to the next.",
           "publish_every"),
    Series("publish_seconds", _TIMES, "publication", "What publishing took.", "publish_s"),
    Series("publication_failures", _COUNT, "publication_failed", "Publications that failed."),
    Series("publication_clean_up_failures", _COUNT, "clean_up_failed", "Times that old publications couldn't be removed."),
    Series("checkpoint_failures", _COUNT, "checkpoint_failed", "Checkpoints that could not be written."),
    Series("checkpoint_seconds", _TIMES, "checkpoint", "How long a checkpoint held the learner up.", "blocked_s"),
)  # fmt: skip

CORRECTION = Series(
    "correction_published_seconds",
    Kind.TIMES,
    "publication",
    "From the end of a corrected episode to the first publication that learnt from the correction.",
)
"""Follows from several events, see `prometheus.py`. A robot's swap_seconds are the rest of the correction latency."""

PUBLICATION_STEPS = Series(
    "publication_interval_steps", Kind.GAUGE, "publication", "Learner steps between the last two publications."
)

ALL = (*ROBOT, *REPLAY, *LEARNER)
