"""Checkpoints of the whole training: state, data order, config. Orbax's v0 CheckpointManager behind a thin wrapper."""

import dataclasses
import json
import os
import pathlib
from collections.abc import Mapping
from typing import Any, final

import orbax.checkpoint as ocp

from sop_jax.learner.state import TrainState
from sop_jax.specs.errors import ConfigError

OWNER_FILE = "belongs_to.json"
"""Beside the checkpoints: what they belong to."""


@dataclasses.dataclass(frozen=True)
class Bookkeeping:
    """What a checkpoint holds beside arrays, all of it JSON.

    batches: `BatchSource.state_dict`. first_used: ids of the online episodes learnt from so far.
    config: the learner's config at that time, for the record.
    """

    batches: Mapping[str, Any]
    first_used: tuple[str, ...]
    config: Mapping[str, Any]


@final
class Checkpoints:
    """Saves while training goes on; only complete checkpoints are ever visible, however the process ends.

    checkpoints = Checkpoints(directory, keep=3)
    if (step := checkpoints.latest_step()) is not None:
        state, bookkeeping = checkpoints.restore(step, shapes)
    checkpoints.save(step, state, bookkeeping)      # returns once the arrays are copied to the host
    checkpoints.close()                             # waits for the last save
    """

    def __init__(self, directory: pathlib.Path, keep: int):
        self._directory = directory.absolute()
        options = ocp.CheckpointManagerOptions(max_to_keep=keep, create=True, cleanup_tmp_directories=True)
        self._manager = ocp.CheckpointManager(self._directory, options=options, item_names=("state", "bookkeeping"))

    def latest_step(self) -> int | None:
        return self._manager.latest_step()

    def all_steps(self) -> list[int]:
        return sorted(self._manager.all_steps())

    def save(self, step: int, state: TrainState, bookkeeping: Bookkeeping) -> None:
        """Blocks while the arrays are copied to the host (and while an earlier save is still being written)."""
        self._manager.save(
            step,
            args=ocp.args.Composite(
                state=ocp.args.StandardSave(_as_dict(state)),
                bookkeeping=ocp.args.JsonSave(dataclasses.asdict(bookkeeping)),
            ),
        )

    def restore(self, step: int, shapes: TrainState) -> tuple[TrainState, Bookkeeping]:
        """The training as it was after `step`. `shapes` holds ShapeDtypeStructs with the shardings wanted now, which may
        differ from those of the time of saving. Raises ConfigError if the checkpoint is of another model or optimiser."""
        try:
            restored = self._manager.restore(
                step,
                args=ocp.args.Composite(
                    state=ocp.args.StandardRestore(_as_dict(shapes)), bookkeeping=ocp.args.JsonRestore()
                ),
            )
        except (ValueError, KeyError, TypeError) as error:
            raise ConfigError(
                f"checkpoint {self._directory}/{step} does not fit this model or learner config ({str(error)[:500]}). "
                "Use the config saved in it, or another checkpoint directory."
            ) from error
        book = restored["bookkeeping"]
        return (
            TrainState(**restored["state"]),
            Bookkeeping(dict(book["batches"]), tuple(book["first_used"]), dict(book["config"])),
        )

    def wait(self) -> None:
        """Blocks until every save has been written."""
        self._manager.wait_until_finished()

    def close(self) -> None:
        self._manager.close()


def claim_checkpoints(directory: pathlib.Path, owner: Mapping[str, str], writes: bool = True) -> None:
    """Makes sure that checkpoints in `directory` are of the training that is about to take them up; called before it does.

    owner: what the parameters in a checkpoint would mean something else without (the base policy, its normalisation): shapes
        alone don't tell one training from another. Kept in the directory, and compared by every later training.
    writes: False on all hosts of a learner but the first.

    A directory whose checkpoints have no owner (of an earlier version) is taken as it is. Raises ConfigError if it belongs to
    another training.
    """
    path = directory / OWNER_FILE
    if any(entry.name.isdigit() for entry in directory.glob("*")):
        found = _read_owner(path)
        differ = [name for name in {**found, **owner} if found.get(name) != owner.get(name)] if found else []
        if differ:
            told = "; ".join(
                f"{name} {_short(found.get(name))}, now it is {_short(owner.get(name))}" for name in sorted(differ)
            )
            raise ConfigError(
                f"the checkpoints in {directory} belong to another training: {told}. Go on with what it began with, choose "
                "another folder, or remove this one"
            )
    if writes:
        directory.mkdir(parents=True, exist_ok=True)
        started = path.with_suffix(".tmp")
        started.write_text(json.dumps(owner, indent=1) + "\n", encoding="utf-8")
        os.replace(started, path)  # other hosts read it meanwhile


def _read_owner(path: pathlib.Path) -> dict[str, str]:
    """{} without one. Raises ConfigError if it can't be read."""
    try:
        return {str(name): str(value) for name, value in json.loads(path.read_text(encoding="utf-8")).items()}
    except FileNotFoundError:
        return {}
    except (OSError, ValueError, AttributeError) as error:
        raise ConfigError(
            f"{path} can't be read ({error}): remove it if the checkpoints beside it are yours"
        ) from error


def _short(value: str | None) -> str:
    return "none" if value is None else value if len(value) <= 100 else f"{value[:97]}..."


def _as_dict(state: TrainState) -> dict[str, Any]:
    return {field.name: getattr(state, field.name) for field in dataclasses.fields(state)}
