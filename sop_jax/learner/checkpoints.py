"""Checkpoints of the whole training: state, data order, config. Orbax's v0 CheckpointManager behind a thin wrapper."""

import dataclasses
import json
import os
import pathlib
from collections.abc import Mapping
from typing import Any, final

import orbax.checkpoint as ocp

from sop_jax.learner.state import TrainState
from sop_jax.specs.errors import ConfigError, SopError


class CheckpointError(SopError):
    """A checkpoint could not be written. The training itself is unharmed, and may save again."""

    def __init__(self, message: str, step: int):
        super().__init__(message)
        self.step = step


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
    checkpoints.wait()                              # raises CheckpointError if they could not be written
    checkpoints.close()

    All methods belong to one thread: Orbax tells of a failure once to every thread that asks.
    """

    def __init__(self, directory: pathlib.Path, keep: int):
        self._directory = directory.absolute()
        # By default Orbax makes a save's folders in the background, and the writers wait for them by a number that every
        # process counts by itself. Publications count it up too, on the first host alone: another host would look under a
        # number of its own, find nothing to wait for, and write into a folder that the first then makes anew, empty. And a
        # publication beside a save could wait for the save's folders for ever.
        in_order = ocp.AsyncOptions(create_directories_asynchronously=False)
        options = ocp.CheckpointManagerOptions(
            max_to_keep=keep, create=True, cleanup_tmp_directories=True, async_options=in_order
        )
        self._manager = ocp.CheckpointManager(self._directory, options=options, item_names=("state", "bookkeeping"))
        self._last_saved = 0

    def latest_step(self) -> int | None:
        return self._manager.latest_step()

    def all_steps(self) -> list[int]:
        return sorted(self._manager.all_steps())

    def save(self, step: int, state: TrainState, bookkeeping: Bookkeeping) -> None:
        """Blocks while the arrays are copied to the host (and while an earlier save is still being written). Raises
        CheckpointError if an earlier save failed and nobody has waited for it, or if this one fails before it is under way.
        """
        self.wait()
        self._last_saved = step
        args = ocp.args.Composite(
            state=ocp.args.StandardSave(_as_dict(state)), bookkeeping=ocp.args.JsonSave(dataclasses.asdict(bookkeeping))
        )
        try:
            is_under_way = self._manager.save(step, args=args)
        except Exception as error:  # whatever the file system, TensorStore or Orbax raised
            raise self._failure(f"{type(error).__name__}: {error}") from error
        if not is_under_way:
            raise self._failure(f"there is one of step {self._manager.latest_step()} already")

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
        """Blocks until every save has been written. Raises CheckpointError, once, if the last one could not be."""
        try:
            self._manager.wait_until_finished()
        except Exception as error:  # whatever the writing threads raised
            raise self._failure(f"{type(error).__name__}: {error}") from error

    def close(self) -> None:
        """Waits as `wait` does, then gives everything back."""
        try:
            self.wait()
        finally:
            self._manager.close()

    def _failure(self, reason: str) -> CheckpointError:
        return CheckpointError(
            f"checkpoint {self._directory}/{self._last_saved} could not be written ({reason[:500]}). Look at the space and "
            "the rights in that folder; a learner that is started again goes on from the newest checkpoint there.",
            self._last_saved,
        )


def newest_step(directory: pathlib.Path) -> int:
    """The step of the newest complete checkpoint in `directory`, 0 if there is none. Only looks, and makes nothing."""
    return max((int(path.name) for path in directory.glob("*") if path.name.isdigit()), default=0)


def has_checkpoint(directory: pathlib.Path) -> bool:
    """Whether a complete checkpoint is in `directory`: also one of step 0, of a training stopped before its first step."""
    return any(path.name.isdigit() for path in directory.glob("*"))


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
