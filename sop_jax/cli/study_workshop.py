"""What `sop study` brings to a study's cells: demonstrations, policies, and the trainings that are processes of their own."""

import functools
import pathlib
import shlex
import sys
from collections.abc import Callable, Sequence

from configs.experiment import DemonstrationsConfig
from configs.restock_pretrain import CONFIG as BASE_CONFIG
from fleet_sim.crew import Engine
from fleet_sim.studies.main_results import TrainValueFunction
from fleet_sim.studies.study import Workshop
from sop_jax.cli.collection import collect
from sop_jax.cli.locations import find_policy
from sop_jax.cli.processes import ProcessGroup, ProcessSpec
from sop_jax.evaluation.world import WorldConfig
from sop_jax.specs.errors import SopError

Collection = tuple[DemonstrationsConfig, WorldConfig]
_LOOK_S = 0.1


class StudyFailedError(SopError):
    """A step of a study that runs as a process of its own did not succeed."""


def make_workshop(
    folder: pathlib.Path,
    collections: Sequence[Collection],
    num_workers: int,
    engine: Engine,
    on_progress: Callable[[str], None],
    should_stop: Callable[[], bool],
) -> Workshop:
    """`collections`: the demonstrations that the study needs; they are made when `Workshop.collect` is first called, which
    is for cells that run, while nobody else runs cells in this folder."""

    def collect_all() -> pathlib.Path:
        place = folder / "demonstrations"
        for demonstrations, world in collections:
            collect(demonstrations, world, place / "store", place / "logs", should_stop)
        return place / "store"

    return Workshop(
        folder, collect_all, find_policy, functools.partial(_train_base, should_stop),
        functools.partial(_train_value, should_stop), num_workers, engine, on_progress, should_stop,
    )  # fmt: skip


def _train_base(
    should_stop: Callable[[], bool], work: pathlib.Path, num_demonstrations: int, steps: int, output: pathlib.Path
) -> None:
    """As the demo's base policy was made, but for the number of demonstrations and of steps."""
    output.parent.mkdir(parents=True, exist_ok=True)
    _pretrain(
        should_stop, work.parent / "pretrain.log",
        "--config", BASE_CONFIG.name, "--work", str(work), "--output", str(output), "--skip-evaluation",
        "--demonstrations.num-episodes", str(num_demonstrations), "--learning.learner.num-steps", str(steps),
    )  # fmt: skip


def _train_value(should_stop: Callable[[], bool], policy: pathlib.Path, steps: int) -> TrainValueFunction:
    def train(store: pathlib.Path, output: pathlib.Path) -> None:
        _pretrain(
            should_stop, store.parent / "value.log",
            "--value-of", str(policy), "--store", str(store), "--output", str(output), "--work",
            str(store.parent / "value"), "--learner.num-steps", str(steps),
        )  # fmt: skip

    return train


def _pretrain(should_stop: Callable[[], bool], log: pathlib.Path, *arguments: str) -> None:
    """`sop pretrain` as a process that ends with this one. Raises KeyboardInterrupt once asked to stop, StudyFailedError."""
    command = [sys.executable, "-m", "sop_jax.cli.main", "pretrain", *arguments]
    with ProcessGroup() as group:
        group.start(ProcessSpec("pretrain", command, log, max_restarts=0))
        while not group.finished("pretrain"):
            if should_stop():
                raise KeyboardInterrupt
            if group.poll():
                said = log.read_text(encoding="utf-8", errors="replace").strip()[-500:]
                raise StudyFailedError(f"{shlex.join(command)} failed: {said}")
            group.wait(_LOOK_S)
