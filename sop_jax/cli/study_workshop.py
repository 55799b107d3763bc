"""What `sop study` brings to a study's cells: demonstrations, policies, and the trainings that are processes of their own."""

import pathlib
import shlex
import subprocess
import sys
from collections.abc import Callable, Sequence

from configs.experiment import DemonstrationsConfig
from configs.restock_pretrain import CONFIG as BASE_CONFIG
from fleet_sim.crew import Engine
from fleet_sim.studies.main_results import TrainValueFunction
from fleet_sim.studies.study import Workshop
from sop_jax.cli.collection import collect
from sop_jax.cli.locations import find_policy
from sop_jax.evaluation.world import WorldConfig
from sop_jax.specs.errors import SopError

Collection = tuple[DemonstrationsConfig, WorldConfig]


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
    """`collections`: the demonstrations that the study needs; they are made when a cell first asks for them."""

    def collect_all() -> pathlib.Path:
        place = folder / "demonstrations"
        for demonstrations, world in collections:
            collect(demonstrations, world, place / "store", place / "logs", should_stop)
        return place / "store"

    return Workshop(
        folder, collect_all, find_policy, _train_base, _train_value, num_workers, engine, on_progress, should_stop
    )


def _train_base(work: pathlib.Path, num_demonstrations: int, steps: int, output: pathlib.Path) -> None:
    """As the demo's base policy was made, but for the number of demonstrations and of steps."""
    output.parent.mkdir(parents=True, exist_ok=True)
    _pretrain(
        "--config", BASE_CONFIG.name, "--work", str(work), "--output", str(output), "--skip-evaluation",
        "--demonstrations.num-episodes", str(num_demonstrations), "--learning.learner.num-steps", str(steps),
    )  # fmt: skip


def _train_value(policy: pathlib.Path, steps: int) -> TrainValueFunction:
    def train(store: pathlib.Path, output: pathlib.Path) -> None:
        _pretrain(
            "--value-of", str(policy), "--store", str(store), "--output", str(output), "--work",
            str(store.parent / "value"), "--learner.num-steps", str(steps),
        )  # fmt: skip

    return train


def _pretrain(*arguments: str) -> None:
    command = [sys.executable, "-m", "sop_jax.cli.main", "pretrain", *arguments]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        raise StudyFailedError(f"{shlex.join(command)} failed: {done.stderr.strip()[-500:]}")
