"""How a command hands over a policy directory that it has made elsewhere."""

import pathlib
import shutil

PROVENANCE = "provenance.json"
"""In a policy directory: how it was made."""


def hand_over(made: pathlib.Path, output: pathlib.Path) -> None:
    """Moves a finished policy to its place: all of it or nothing, where both lie on one file system."""
    output.parent.mkdir(parents=True, exist_ok=True)
    try:
        made.rename(output.resolve())
    except OSError:  # another file system, or a volume that is mounted at OUTPUT itself
        last = "policy.json"  # a directory without it is no policy
        shutil.copytree(made, output, ignore=shutil.ignore_patterns(last), dirs_exist_ok=True)
        shutil.copy2(made / last, output / last)
        shutil.rmtree(made)
