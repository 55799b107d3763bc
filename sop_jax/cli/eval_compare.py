"""`sop eval --compare FIRST SECOND`: what lies between two evaluations, by their output folders."""

import pathlib

from sop_jax.cli.arguments import UsageError
from sop_jax.cli.output import print_json, say
from sop_jax.evaluation.comparison import FoundTrials, check_pairs, compare_folders, read_folder
from sop_jax.evaluation.retention import forgetting
from sop_jax.evaluation.suites import find_suite
from sop_jax.evaluation.tables import comparison_table, forgetting_table


def compare_evaluations(folders: tuple[pathlib.Path, pathlib.Path], forgot: bool, json: bool) -> int:
    """Prints a table; writes nothing.

    Args:
        folders: the first is subtracted from the second.
        forgot: tell what was forgotten from the first to the second, on the retention suite.
        json: print one JSON object as the last line.
    """
    first, second = (read_folder(folder) for folder in folders)
    for name, found in zip(("first", "second"), (first, second), strict=True):
        say(f"{name}: {found.folder}, {found.actor}")
    told = {
        name: {"folder": found.folder, "actor": found.actor} for name, found in (("first", first), ("second", second))
    }
    if forgot:
        check_pairs(first, second)
        _check_retention(first)
        rows = forgetting(first.trials, second.trials)
        say(forgetting_table(rows).rstrip())
        if json:
            print_json({**told, "forgotten": {row.label: row for row in rows}})
        return 0
    comparisons = compare_folders(first, second)
    say(comparison_table(comparisons, "first", "second").rstrip())
    say("difference: second minus first, with its 95% interval over the trials")
    if json:
        print_json({**told, "comparisons": comparisons})
    return 0


def _check_retention(found: FoundTrials) -> None:
    if strangers := sorted(found.trials.keys() - find_suite("retention").keys()):
        raise UsageError(
            f"{found.folder} has worlds that --suite retention lacks ({', '.join(strangers)}): leave --suite out to compare "
            "them, or evaluate both with --suite retention"
        )
