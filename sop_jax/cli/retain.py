"""`sop episodes retain`: old episodes leave the store, never under a reader's feet."""

import dataclasses
from collections import Counter

from sop_jax.cli.arguments import UsageError
from sop_jax.cli.locations import as_store_url
from sop_jax.cli.output import note, print_json, say
from sop_jax.episodes.retention import RetentionConfig, apply_plan, plan_for
from sop_jax.episodes.store import EpisodeStore
from sop_jax.specs.clock import WallClock
from sop_jax.specs.errors import ConfigError


@dataclasses.dataclass(frozen=True)
class RetainArguments:
    """Keeps each task's online and offline episodes below a size and an age. Shows what it would do; --apply does it.

    An episode is first retired: intake takes its items out of the tables. A later call, after the grace, removes the object.
    So call it again and again, from cron or a timer. Episodes that are set aside are left alone."""

    store: str
    """Store root: a folder, or a URL (file://, gs://, s3://)."""

    max_gb: float | None = None
    """Size of each task's online and of its offline episodes [GB]; the oldest autonomous ones go first, corrections last."""

    max_age_h: float | None = None
    """Age of autonomous episodes [hours]."""

    correction_factor: float = 4.0
    """Episodes with interventions, and demonstrations, may be so many times as old."""

    min_age_h: float = 1.0
    """Nothing younger goes [hours]."""

    grace_h: float = 1.0
    """From retirement to removal [hours]; longer than intake may be down."""

    apply: bool = False
    """Do it."""

    json: bool = False
    """Print one JSON object as the last line."""


def retain(arguments: RetainArguments) -> int:
    if arguments.max_gb is None and arguments.max_age_h is None:
        raise UsageError("say what to keep: --max-gb, --max-age-h or both")
    try:
        config = RetentionConfig(
            max_bytes=None if arguments.max_gb is None else round(arguments.max_gb * 1e9),
            max_age_s=None if arguments.max_age_h is None else arguments.max_age_h * 3600,
            correction_factor=arguments.correction_factor,
            min_age_s=arguments.min_age_h * 3600,
            grace_s=arguments.grace_h * 3600,
        )
    except ConfigError as error:
        raise UsageError(str(error)) from error
    store = EpisodeStore(as_store_url(arguments.store))
    plan = plan_for(store, WallClock(), config)
    for problem in plan.damaged:
        note(problem)
    verb = "" if arguments.apply else "would "
    for record in plan.retire:
        say(f"{verb}retire  {record.path}: {record.reason}")
    for path in plan.remove:
        say(f"{verb}remove  {path}")
    left = apply_plan(store, plan) if arguments.apply else []
    for problem in left:
        note(problem)
    num_bytes = Counter[str]()
    for record in plan.retire:
        num_bytes[f"{record.task}/{record.source.value}"] += record.num_bytes
    for group, size in sorted(num_bytes.items()):
        say(f"{verb}retire  {size / 1e6:.1f} MB of {group}")
    say(
        f"{len(plan.retire)} to retire, {len(plan.remove)} to remove now that their grace has passed"
        + ("" if arguments.apply else "; nothing was changed, add --apply")
    )
    if arguments.json:
        print_json(
            {
                "applied": arguments.apply,
                "retire": [record.path for record in plan.retire],
                "remove": list(plan.remove),
                "forget": list(plan.forget),
                "damaged": list(plan.damaged),
                "retired_bytes": dict(num_bytes),
            }
        )
    return 0
