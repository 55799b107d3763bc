"""Collects demonstrations on several processes. What is collected follows from the config alone, so doing it again (after a
stop, or in another run) gives the same episodes with the same names, and changes nothing that is there. Another config gives
other episodes of the same names, so what a folder was begun with is written down there, and others are refused."""

import dataclasses
import json
import pathlib
import sys
from collections.abc import Callable
from typing import Any

from configs.experiment import DemonstrationsConfig
from configs.files import from_json, to_json
from sop_jax.cli.arguments import UsageError
from sop_jax.cli.locations import store_url
from sop_jax.cli.output import progress_console
from sop_jax.cli.processes import ProcessGroup, ProcessSpec
from sop_jax.cli.progress import WorkProgress
from sop_jax.episodes.store import EpisodeStore
from sop_jax.evaluation.run_metrics import write_json
from sop_jax.evaluation.trial_pool import SINGLE_THREADED
from sop_jax.evaluation.world import WorldConfig
from sop_jax.specs.errors import SopError

_POLL_S = 0.5


class CollectionFailedError(SopError):
    """A collector died again and again."""


def collect(
    config: DemonstrationsConfig,
    world: WorldConfig,
    store_directory: pathlib.Path,
    logs: pathlib.Path,
    should_stop: Callable[[], bool],
) -> int:
    """Fills the store with the demonstrations of this config; returns how many there are. Blocks, with a progress bar.

    What another call began goes on, also with more `robot_hours` than it was begun with.

    Raises:
        UsageError: these collectors' demonstrations that are there come from another config or world.
        KeyboardInterrupt: `should_stop` said so; what was collected stays.
        CollectionFailedError: a collector died again and again.
    """
    store = EpisodeStore(store_url(store_directory))
    settings = logs.parent / f"collection-{config.name}.json"
    kept = kept_so_far(config, store)
    if kept.num_episodes and settings.exists():  # without a file, others put them there, as studies do
        _check_same(settings, config, world)
    if kept.complete:
        return kept.num_episodes
    write_json(settings, {"demonstrations": to_json(config), "world": to_json(world)})
    what, total = f"{world.task}: demonstrations", config.num_episodes
    if config.robot_hours:
        what, total = f"{world.task}: robot minutes of demonstrations", round(60 * config.robot_hours)
    with ProcessGroup() as group, WorkProgress(progress_console, what, total) as progress:
        for number, name in enumerate(config.collectors):
            command = [sys.executable, "-m", "sop_jax.cli.collector", str(settings), str(number), str(store_directory)]
            group.start(ProcessSpec(name, command, logs / f"{name}.log", environment=SINGLE_THREADED))
        while not all(group.finished(name) for name in config.collectors):
            if should_stop():
                raise KeyboardInterrupt
            for note in group.poll():
                progress.note(note.text)
                if not note.restarted:
                    raise CollectionFailedError(note.text)
            kept = kept_so_far(config, store)
            progress.update(int(kept.robot_s / 60) if config.robot_hours else kept.num_episodes)
            group.wait(_POLL_S)
    return kept_so_far(config, store).num_episodes


def _check_same(settings: pathlib.Path, config: DemonstrationsConfig, world: WorldConfig) -> None:
    """Raises UsageError if what was begun with these settings isn't a beginning of what this config asks for."""
    values = json.loads(settings.read_text(encoding="utf-8"))
    begun = from_json(DemonstrationsConfig, values["demonstrations"], str(settings))
    if 0 < begun.robot_hours <= config.robot_hours:  # the collectors go on where they were, through the same scenes
        begun = dataclasses.replace(begun, robot_hours=config.robot_hours)
    told = {**_fields(begun), **_fields(from_json(WorldConfig, values["world"], str(settings)), "world.")}
    asked = {**_fields(config), **_fields(world, "world.")}
    if differ := [f"{name} {told[name]}, now it is {value}" for name, value in asked.items() if told[name] != value]:
        raise UsageError(
            f"{settings.parent} holds demonstrations of {config.name} that were made otherwise ({'; '.join(differ)}): choose "
            "another folder, or remove this one first"
        )


def _fields(config: DemonstrationsConfig | WorldConfig, prefix: str = "") -> dict[str, Any]:
    return {f"{prefix}{field.name}": getattr(config, field.name) for field in dataclasses.fields(config)}


@dataclasses.dataclass(frozen=True)
class Kept:
    """What the collectors have kept. `robot_s` is 0 unless robot time counts."""

    num_episodes: int
    robot_s: float
    complete: bool


def kept_so_far(config: DemonstrationsConfig, store: EpisodeStore) -> Kept:
    """What the store holds of this config's demonstrations."""
    if not config.robot_hours:
        num = sum(len(store.list_paths(name)) for name in config.collectors)
        return Kept(num, 0.0, num >= config.num_episodes)
    num, robot_s = 0, []
    for name in config.collectors:
        manifests = [found.manifest for found in store.summaries(name) if found.manifest is not None]
        num += len(manifests)
        robot_s.append(sum(manifest.num_frames / manifest.control_hz for manifest in manifests))
    return Kept(num, sum(robot_s), min(robot_s) >= config.robot_s_each)
