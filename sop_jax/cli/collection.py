"""Collects demonstrations on several processes. What is collected follows from the config alone, so doing it again (after a
stop, or in another run) gives the same episodes with the same names, and changes nothing that is there."""

import pathlib
import sys
from collections.abc import Callable

from configs.experiment import DemonstrationsConfig
from configs.files import to_json
from sop_jax.cli.collector import collector_name
from sop_jax.cli.output import progress_console
from sop_jax.cli.processes import ProcessGroup, ProcessSpec
from sop_jax.cli.progress import WorkProgress
from sop_jax.cli.run_directory import store_url
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

    Raises:
        KeyboardInterrupt: `should_stop` said so; what was collected stays.
        CollectionFailedError: a collector died again and again.
    """
    store = EpisodeStore(store_url(store_directory))
    names = [collector_name(number) for number in range(config.num_collectors)]

    def num_there() -> int:
        return sum(len(store.list_paths(name)) for name in names)

    if num_there() >= config.num_episodes:
        return num_there()
    settings = logs.parent / "collection.json"
    write_json(settings, {"demonstrations": to_json(config), "world": to_json(world)})
    with ProcessGroup() as group, WorkProgress(progress_console, "demonstrations", config.num_episodes) as progress:
        for number, name in enumerate(names):
            command = [sys.executable, "-m", "sop_jax.cli.collector", str(settings), str(number), str(store_directory)]
            group.start(ProcessSpec(name, command, logs / f"{name}.log", environment=SINGLE_THREADED))
        while not all(group.finished(name) for name in names):
            if should_stop():
                raise KeyboardInterrupt
            for note in group.poll():
                progress.note(note.text)
                if not note.restarted:
                    raise CollectionFailedError(note.text)
            progress.update(num_there())
            group.wait(_POLL_S)
    return num_there()
