"""Whether a learner goes on. One that stands still leaves its gauges at their last values, which then tell nothing."""

from sop_jax.monitoring.scrape import Window

SILENCE_S = 60.0
"""A learner that has told of no step for so long stands still ..."""
_NUM_REPORTS = 3
"""... unless it takes so long for this many reports."""


def is_starved(window: Window, learner: str) -> bool:
    """Whether it had no batch when it last told; it tells once within each deadline (`PickerConfig.starved_after_s`)."""
    starved_s = window.last_s("starved", learner)
    return starved_s is not None and starved_s > (_went_on_s(window, learner) or 0.0)


def overdue_s(window: Window, learner: str, silence_s: float = SILENCE_S) -> float | None:
    """Seconds since it last told of steps, or of data after a want, if more than `silence_s` and than three reports take;
    else None."""
    told_s = _went_on_s(window, learner)
    if told_s is None:
        return None
    usual_s = window.value("learner_report_seconds", learner) or 0.0
    silent_s = window.after.time_s - told_s
    return silent_s if silent_s > max(silence_s, _NUM_REPORTS * usual_s) else None


def stands_still(window: Window, learner: str) -> bool:
    """Whether its gauges tell of earlier times."""
    return is_starved(window, learner) or overdue_s(window, learner) is not None


def _went_on_s(window: Window, learner: str) -> float | None:
    moments_s = (window.last_s(event, learner) for event in ("learner_step", "data_came"))
    return max((moment_s for moment_s in moments_s if moment_s is not None), default=None)
