"""The episodes that a value training began with: one that goes on keeps them, whatever its store has got since.

Returns are measured by each task's longest episode, so a longer one in mid-training would move every target of the task.
"""

import dataclasses
import json
import os
import pathlib
from collections.abc import Mapping

from sop_jax.cli.arguments import UsageError
from sop_jax.cli.output import note
from sop_jax.learner.checkpoints import has_checkpoint
from sop_jax.specs.errors import ConfigError
from sop_jax.specs.records import EpisodeManifest

EPISODES_FILE = "episodes.json"
"""Beside the checkpoints, and goes with them."""


@dataclasses.dataclass(frozen=True)
class TrainingEpisodes:
    """manifests: of every episode, by its path in the store. longest: T_max of every task [frames], for good: also once the
    longest episode is gone."""

    manifests: Mapping[str, EpisodeManifest]
    longest: Mapping[str, int]


def settle_episodes(checkpoints: pathlib.Path, found: Mapping[str, EpisodeManifest]) -> TrainingEpisodes:
    """Which of the episodes that the store holds now (`found`) are this training's: all of them, unless there are checkpoints
    to go on from. `checkpoints` must be claimed already.

    Raises ConfigError if the record can't be read, UsageError if none of its episodes is left.
    """
    path = checkpoints / EPISODES_FILE
    if not has_checkpoint(checkpoints) or not path.exists():  # without a record: checkpoints of an earlier version
        longest = _longest(found)
        _write(path, {"episodes": sorted(found), "longest": longest})
        return TrainingEpisodes(found, longest)
    episodes, longest = _read(path)
    kept = {name: manifest for name, manifest in found.items() if name in episodes}
    if not kept:
        raise UsageError(
            f"none of the {len(episodes)} episodes that this training began with is left in the store. Remove {checkpoints} "
            "to begin anew with those that are there"
        )
    if num_gone := len(episodes) - len(kept):
        note(f"{num_gone} of the {len(episodes)} episodes that this training began with are gone since")
    if num_new := len(found) - len(kept):
        note(f"{num_new} episodes came since this training began; it goes on without them")
    if odd := {m.task for m in kept.values() if m.num_frames > longest.get(m.task, 0)}:
        raise _unreadable(path, f"longest: of {', '.join(sorted(odd))} it has a longer episode")
    return TrainingEpisodes(kept, longest)


def _longest(manifests: Mapping[str, EpisodeManifest]) -> dict[str, int]:
    longest: dict[str, int] = {}
    for manifest in manifests.values():
        longest[manifest.task] = max(longest.get(manifest.task, 1), manifest.num_frames)
    return longest


def _write(path: pathlib.Path, content: Mapping[str, object]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    started = path.with_suffix(".tmp")
    started.write_text(json.dumps(content, indent=1) + "\n", encoding="utf-8")
    os.replace(started, path)


def _read(path: pathlib.Path) -> tuple[frozenset[str], dict[str, int]]:
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
        return frozenset(content["episodes"]), {str(task): int(num) for task, num in content["longest"].items()}
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise _unreadable(path, f"{type(error).__name__}: {error}") from error


def _unreadable(path: pathlib.Path, reason: str) -> ConfigError:
    return ConfigError(f"{path} can't be read ({reason}): remove {path.parent} to begin this training anew")
