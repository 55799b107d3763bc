"""Results as Markdown tables, for pages and papers."""

from collections.abc import Mapping, Sequence

from sop_jax.evaluation.paired import PairedComparison
from sop_jax.evaluation.results import EvaluationResult
from sop_jax.evaluation.retention import Forgetting


def results_table(results: Mapping[str, EvaluationResult]) -> str:
    """One row per label."""
    rows = [
        (
            f"`{label}`",
            f"{percent(result.success)} {interval(result.success_low, result.success_high)}",
            f"{result.num_successes} / {result.num_trials}",
            f"{result.successes_per_hour:.0f}",
            f"{result.throughput_per_hour:.0f}",
            f"{result.mean_duration_s:.1f} s",
            f"{result.mean_success_duration_s:.1f} s" if result.num_successes else "-",
            counts(result.failures),
        )
        for label, result in results.items()
    ]
    heads = ("task", "success", "trials", "successes/h", "episodes/h", "mean episode", "mean success", "failures")
    return markdown_table(heads, rows)


def comparison_table(comparisons: Mapping[str, PairedComparison], first: str, second: str) -> str:
    """One row per label: two methods on equal trials."""
    rows = [
        (
            f"`{label}`",
            percent(pair.first),
            percent(pair.second),
            f"{points(pair.difference.value)} [{points(pair.difference.low)}, {points(pair.difference.high)}]",
            f"{pair.counts.first_only} / {pair.counts.second_only}",
            p_value(pair.p_value),
        )
        for label, pair in comparisons.items()
    ]
    heads = ("task", first, second, "difference, points", f"only {first} / only {second}", "McNemar's p")
    return markdown_table(heads, rows)


def forgetting_table(rows: Sequence[Forgetting]) -> str:
    """One row per world; positive points were forgotten."""
    cells = [
        (
            f"`{row.label}`",
            percent(row.before),
            percent(row.after),
            f"{points(row.forgotten.value)} [{points(row.forgotten.low)}, {points(row.forgotten.high)}]",
            str(row.num_trials),
            p_value(row.p_value),
        )
        for row in rows
    ]
    return markdown_table(("task", "before", "after", "forgotten, points", "trials", "McNemar's p"), cells)


def markdown_table(heads: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """A table, its last line ended."""
    lines = [heads, ["---"] * len(heads), *rows]
    return "".join(f"| {' | '.join(cells)} |\n" for cells in lines)


def percent(value: float) -> str:
    return f"{value:.0%}"


def interval(low: float, high: float) -> str:
    """Shares of 1 as "[29, 46]", in percent."""
    return f"[{100 * low:.0f}, {100 * high:.0f}]"


def points(value: float) -> str:
    """A share of 1 as signed points."""
    return f"{100 * value + 0.0:+.0f}"


def p_value(value: float) -> str:
    return f"{value:.2g}" if value >= 0.001 else "< 0.001"


def counts(kinds: Mapping[str, int]) -> str:
    """For example "dropped 3, timeout 1"; "-" for nothing."""
    return ", ".join(f"{kind} {count}" for kind, count in kinds.items()) or "-"
