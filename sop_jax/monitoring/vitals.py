"""The loop's figures at a glance, from the stations' metrics."""

from sop_jax.monitoring.progress import stands_still
from sop_jax.monitoring.scrape import Window


def vitals(window: Window) -> dict[str, float]:
    """What was measured, by name and unit; what wasn't is left out. Means are over all stations of a kind.

    upload_s: episode's end until stored. intake_s: found in the store until in the tables. sampleable_s: both, and the wait
    between. correction_s: a corrected episode's end until published, and from there until a robot acts with it.
    staleness_steps: learner steps since those that the robots act with, mean. What a learner measures as it steps is left out
    while it stands still.
    """
    found = {
        "upload_s": window.mean("upload_seconds"),
        "intake_s": window.mean("intake_seconds"),
        "sampleable_s": window.mean("sampleable_seconds"),
        "correction_s": _correction_s(window),
        "staleness_s": _learning(window, "staleness_seconds"),
        "staleness_versions": _learning(window, "staleness_versions"),
        "staleness_steps": _staleness_steps(window),
        "learner_wait_share": _learning(window, "learner_wait_share"),
        "learner_steps_per_s": _learning(window, "learner_steps_per_second"),
        "ready_batches": _learning(window, "loader_ready_batches"),
        "limiter_blocks": _sum(window, "limiter_blocks_total"),
        "spool_bytes": _sum(window, "spool_bytes"),
        "spool_episodes": _sum(window, "spool_episodes"),
        "backlog_episodes": _sum(window, "intake_backlog_episodes"),
    }
    return {name: value for name, value in found.items() if value is not None}


def _mean(window: Window, name: str) -> float | None:
    return _mean_of([sample.value for sample in window.samples(name)])


def _learning(window: Window, name: str) -> float | None:
    """Mean over the learners that go on."""
    return _mean_of([sample.value for sample in window.samples(name) if not stands_still(window, sample.station)])


def _mean_of(values: list[float]) -> float | None:
    return sum(values) / len(values) if values else None


def _sum(window: Window, name: str) -> float | None:
    values = [sample.value for sample in window.samples(name)]
    return sum(values) if values else None


def _correction_s(window: Window) -> float | None:
    published_s, swapped_s = window.mean("correction_published_seconds"), window.mean("swap_seconds")
    return None if published_s is None or swapped_s is None else published_s + swapped_s


def _staleness_steps(window: Window) -> float | None:
    steps, acting = _mean(window, "learner_step"), _mean(window, "policy_learner_step")
    return None if steps is None or acting is None else max(0.0, steps - acting)
