"""The Protocols at which stations meet. Each has one fake and one contract test that all implementations pass."""

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Protocol, runtime_checkable

import numpy as np

from sop_jax.specs.chunking import ChunkPrefix
from sop_jax.specs.records import EpisodeEnd, Observation, RobotSpec


@runtime_checkable
class Robot(Protocol):
    """A robot, real or simulated, at its control rate.

        robot.reset(seed)
        while (end := robot.check_end()) is None:
            observation = robot.observe(images=True)
            executed = robot.apply(action)

    Not thread-safe: one thread drives a robot. `reset` may block for as long as the scene takes; `apply` advances the
    robot by one control tick and returns the command after clipping to the limits, float32 [A]; pacing is the caller's.
    """

    @property
    def spec(self) -> RobotSpec: ...

    @property
    def task(self) -> str: ...

    @property
    def instruction(self) -> str: ...

    def reset(self, seed: int) -> None: ...

    def observe(self, images: bool = True) -> Observation: ...

    def apply(self, action: np.ndarray) -> np.ndarray: ...

    def check_end(self) -> EpisodeEnd | None: ...

    def close(self) -> None: ...


@dataclasses.dataclass(frozen=True)
class Request:
    """A supervisor's wish to act: `reason` is short and machine-readable ("no_progress", "wrong_object", "operator")."""

    reason: str


@runtime_checkable
class Supervisor(Protocol):
    """Who may take over: a person at a device, or a scripted expert that stands in for one.

    The actor asks once per control tick, before it acts:

        supervisor.reset()
        request = supervisor.wants_control()      # while the policy acts; None = all is well
        action = supervisor.act()                 # while the supervisor acts, float32 [A]
        done = supervisor.releases_control()      # while the supervisor acts

    The reaction delay between a request and the takeover is the actor's business.
    """

    def reset(self) -> None: ...

    def wants_control(self) -> Request | None: ...

    def act(self) -> np.ndarray: ...

    def releases_control(self) -> bool: ...


@runtime_checkable
class ActionSource(Protocol):
    """A policy as an actor sees it: one observation in, one chunk float32 [H, A] of absolute targets out.

    `prefix` is what is left of the chunk under way; only a rollout with real-time chunking gives one.
    """

    @property
    def version(self) -> int: ...

    @property
    def horizon(self) -> int: ...

    def infer(self, observation: Observation, seed: int, prefix: ChunkPrefix | None = None) -> np.ndarray: ...


@dataclasses.dataclass(frozen=True)
class TableInfo:
    """One replay table: items held, the limiter's counts since the server started, and its bound."""

    name: str
    size: int
    max_size: int
    num_inserted: int
    num_sampled: int


@dataclasses.dataclass(frozen=True)
class Item:
    """One replay item to insert: flat columns of numpy arrays (no pixels). `key` from `identifiers.item_key`."""

    key: int
    columns: Mapping[str, np.ndarray]
    priority: float = 1.0


@dataclasses.dataclass(frozen=True)
class SampledItem:
    """One sampled item and what the table knew about it at that moment."""

    key: int
    columns: Mapping[str, np.ndarray]
    probability: float
    table_size: int
    times_sampled: int


@runtime_checkable
class ReplayTables(Protocol):
    """Replay tables: a Reverb server, or the in-process set with the same semantics. Thread-safe.

    `insert` returns once every item is acknowledged; inserting an existing key replaces its priority only and keeps its
    age. `sample` blocks until the table's rate limiter allows `num` items or the timeout passes, and raises
    RateLimitedError if it could give none (it may return fewer than `num`). Unknown tables raise TableNotFoundError; a
    server that is away raises ReplayUnavailableError after `timeout_s`.
    `state_id` changes whenever the tables lost their contents (the server restarted): then they must be filled again.
    """

    def insert(self, table: str, items: Sequence[Item], timeout_s: float = 30.0) -> None: ...

    def sample(self, table: str, num: int, timeout_s: float = 1.0) -> list[SampledItem]: ...

    def update_priorities(
        self, table: str, priorities: Mapping[int, float], delete: Sequence[int] = (), timeout_s: float = 30.0
    ) -> None: ...

    def info(self, timeout_s: float = 30.0) -> Mapping[str, TableInfo]: ...

    def state_id(self, timeout_s: float = 30.0) -> str: ...

    def reset(self, table: str, timeout_s: float = 30.0) -> None: ...

    def close(self) -> None: ...


@runtime_checkable
class Metrics(Protocol):
    """Where a process writes what it measured. Values are floats, ints, bools or short strings. Thread-safe."""

    def write(self, event: str, /, **values: float | int | bool | str) -> None: ...
