"""Many hosts, one learner: how they meet, and what they tell each other with every step.

Legend: `B` batch of one host, `N` batch of all hosts, `W` bytes of a row.
"""

import dataclasses
from collections.abc import Callable, Sequence

import jax
import numpy as np
from jax.experimental import multihost_utils
from jax.sharding import Mesh
from jaxtyping import Array, Float32, UInt8

from sop_jax.learner.sharding import put_batch, replicated
from sop_jax.sampling.batch_source import Draw, LoadedBatch
from sop_jax.specs.errors import ConfigError
from sop_jax.specs.records import Source

AUTO = "auto"
_SOURCES = (Source.ONLINE, Source.OFFLINE)
_STOP, _STAND_IN = 1, 2
_TASK_BYTES, _EPISODE_BYTES = 64, 100  # the longest names that specs/identifiers.py allows have 63 and 97
_ROW_BYTES = 2 + _TASK_BYTES + _EPISODE_BYTES


def join_hosts(coordinator: str, num_processes: int | None = None, process_id: int | None = None) -> None:
    """Makes this process one of a learner's. Blocks until all have come; call it before anything else uses JAX.

    Args:
        coordinator: address of process 0, HOST:PORT; "auto" where JAX finds the rest by itself (TPU pods, Slurm, GKE).
        num_processes: how many there are.
        process_id: which one this is, from 0.

    Raises:
        ConfigError: if something is missing, or not all have come within five minutes.
    """
    if coordinator != AUTO and (num_processes is None or process_id is None or not 0 <= process_id < num_processes):
        raise ConfigError(
            f"a learner on several hosts needs num_processes and a process_id in [0, num_processes), got {num_processes} and "
            f"{process_id}; only with coordinator {AUTO!r} does JAX find them by itself."
        )
    # Its own handler of SIGTERM would take the signal away from the command, which agrees on stopping with every step.
    jax.config.update("jax_enable_preemption_service", False)
    jax.config.update("jax_cpu_collectives_implementation", "gloo")
    try:
        if coordinator == AUTO:
            jax.distributed.initialize()
        else:
            # Under Slurm JAX would give each process one GPU, whatever it was started for.
            jax.distributed.initialize(coordinator, num_processes, process_id, cluster_detection_method="deactivate")
    except (RuntimeError, ValueError) as error:
        raise ConfigError(
            f"process {process_id} of {num_processes} could not join the learner at {coordinator!r}: {str(error)[:300]}"
        ) from error


def told_by_first(numbers: Sequence[int]) -> tuple[int, ...]:
    """What the first host gives, on every host: for what one of them decides. Blocks until all ask; the others' numbers count
    only by how many they are. Each must fit into 32 bits."""
    if jax.process_count() == 1:
        return tuple(numbers)
    told = multihost_utils.broadcast_one_to_all(np.asarray(numbers, np.int32))
    return tuple(int(number) for number in told)


@dataclasses.dataclass(frozen=True)
class StepOfAll:
    """What all hosts together learnt from one step, the same on each of them. Examples of a stand-in are left out.

    stop: some host was asked to stop before it gave its share to this step.
    """

    draws: tuple[Draw, ...]
    episode_ids: tuple[str, ...]
    per_example: Float32[np.ndarray, "N"]
    stop: bool = False


def encode_rows(loaded: LoadedBatch, stop: bool, stands_in: bool) -> UInt8[np.ndarray, "B W"]:
    """Where each example comes from, as bytes that any host can read. Raises ValueError on a name that is too long."""
    rows = np.zeros((len(loaded.draws), _ROW_BYTES), np.uint8)
    rows[:, 0] = _STOP * stop + _STAND_IN * stands_in
    for row, draw, episode_id in zip(rows, loaded.draws, loaded.episode_ids, strict=True):
        row[1] = _SOURCES.index(draw.source)
        _write(row[2 : 2 + _TASK_BYTES], draw.task)
        _write(row[2 + _TASK_BYTES :], episode_id)
    return rows


def decode_rows(rows: UInt8[np.ndarray, "N W"], per_example: Float32[np.ndarray, "N"]) -> StepOfAll:
    """The inverse of `encode_rows`, over the rows of all hosts."""
    real = rows[rows[:, 0] & _STAND_IN == 0]
    tasks, episodes = real[:, 2 : 2 + _TASK_BYTES], real[:, 2 + _TASK_BYTES :]
    return StepOfAll(
        draws=tuple(Draw(_read(task), _SOURCES[int(row[1])]) for row, task in zip(real, tasks, strict=True)),
        episode_ids=tuple(_read(episode) for episode in episodes),
        per_example=per_example[rows[:, 0] & _STAND_IN == 0],
        stop=bool(np.any(rows[:, 0] & _STOP)),
    )


def stand_in_for(loaded: LoadedBatch) -> LoadedBatch:
    """The same examples, teaching nothing: what a host without data gives so that the others need not wait for it."""
    batch = dataclasses.replace(loaded.batch, weight=np.zeros_like(loaded.batch.weight))
    return dataclasses.replace(loaded, batch=batch)


class Exchange:
    """Shows every host the rows and the losses of all, without waiting for the device: `tell` before a step, `hear` after.

    told = exchange.tell(loaded, stop, stands_in)
    result = step(...)
    heard = exchange.hear(told, result.per_example)   # a computation of its own, queued behind the step
    everyone = exchange.read(heard)                   # blocks until the step is done
    """

    def __init__(self, mesh: Mesh):
        self._mesh = mesh
        self._gather: Callable[..., tuple[Array, Array]] = jax.jit(
            lambda rows, losses: (rows, losses), out_shardings=replicated(mesh)
        )

    def tell(self, loaded: LoadedBatch, stop: bool, stands_in: bool) -> UInt8[Array, "N W"]:
        return put_batch(encode_rows(loaded, stop, stands_in), self._mesh)

    def hear(self, told: UInt8[Array, "N W"], per_example: Float32[Array, "N"]) -> tuple[Array, Array]:
        return self._gather(told, per_example)

    def read(self, heard: Sequence[Array]) -> StepOfAll:
        rows, losses = heard
        return decode_rows(np.asarray(rows), np.asarray(losses))


def _write(field: UInt8[np.ndarray, "_"], name: str) -> None:
    encoded = name.encode()
    if len(encoded) > len(field):
        raise ValueError(f"the name {name!r} has {len(encoded)} bytes, at most {len(field)} travel between hosts")
    field[: len(encoded)] = np.frombuffer(encoded, np.uint8)


def _read(field: UInt8[np.ndarray, "_"]) -> str:
    return field.tobytes().rstrip(b"\0").decode()
