"""One policy on one device for many robots of a process: their requests are computed in batches.

Legend: `B` batch, `H` horizon, `A` action dimensions.
"""

import collections
import dataclasses
import threading
import weakref
from collections.abc import Mapping, Sequence
from typing import Any, final

import jax
import numpy as np

from sop_jax.actors.chunk_player import ChunkRequest
from sop_jax.actors.chunking import ChunkingConfig
from sop_jax.actors.observation_encoder import ObservationEncoder
from sop_jax.actors.policy_seat import PolicySeat
from sop_jax.actors.request_queue import Request, RequestQueue
from sop_jax.actors.robot_policy import black_scene
from sop_jax.actors.sampler import ChunkSampler
from sop_jax.actors.trained_leaves import replace_trained, trained_template
from sop_jax.models.batch import BarePrompt, ObservationBatch
from sop_jax.models.bundle import PolicyBundle
from sop_jax.models.chunking import ActionPrefix
from sop_jax.models.normalization import NormStats
from sop_jax.models.policy import PolicyModel
from sop_jax.models.pytrees import Params
from sop_jax.specs.chunking import ChunkPrefix
from sop_jax.specs.clock import Clock
from sop_jax.specs.conditioning import Conditioning
from sop_jax.specs.errors import ConfigError
from sop_jax.specs.records import Observation, RobotSpec


@dataclasses.dataclass(frozen=True)
class BatchingConfig:
    """How requests are gathered.

    batch_sizes: the sizes that are compiled, rising; a batch is padded to the next one, and never larger than the last.
    window_s: how long the first request of a batch waits for others [clock seconds].
    deadline_s: how long a robot waits for its chunk before it gives up [clock seconds].
    """

    batch_sizes: tuple[int, ...] = (1, 2, 4, 8, 16)
    window_s: float = 0.005
    deadline_s: float = 5.0

    def __post_init__(self) -> None:
        sizes = self.batch_sizes
        if not sizes or sizes[0] < 1 or list(sizes) != sorted(set(sizes)):
            raise ConfigError(f"BatchingConfig.batch_sizes must be distinct, rising and at least 1, got {sizes}")
        if self.window_s < 0 or self.deadline_s <= 0:
            raise ConfigError(
                f"BatchingConfig needs window_s >= 0 and deadline_s > 0, got {self.window_s} and {self.deadline_s}"
            )


@dataclasses.dataclass(frozen=True)
class BatchingStats:
    """What was served: requests answered, batches computed for them, and rows computed for nothing (padding)."""

    num_requests: int = 0
    num_batches: int = 0
    num_padded_rows: int = 0


@final
class BatchedPolicy:
    """Serves many robots with one policy. Each takes a seat, and uses it as it would use a `PolicyRunner`.

        with BatchedPolicy.from_bundle(bundle, clock) as shared:
            seat = shared.take_seat()
            actor = Actor(config, robot, seat, spool, clock, supervisor=supervisor)
            threading.Thread(target=actor.run).start()  # and joined before the policy is closed

    A robot's chunk is the one it would get alone, to float tolerance: its noise follows from its own seed. Robots may act
    with different versions; each batch is of one version, the parameters of a version are loaded once, its frozen leaves
    are shared by all, and it is let go when no seat is on it. A robot that is slow, or dies, holds nobody up for longer than
    the window. Thread-safe. A batch that fails is computed again row by row, so that an error reaches its own robot only.

    All robots have the cameras, image sizes and state of the first, and all act with one conditioning.
    """

    def __init__(
        self,
        model: PolicyModel,
        params: Params,
        norm: NormStats,
        clock: Clock,
        *,
        version: int = 0,
        weights_base: str = "",
        norm_stats: str | None = None,
        chunking: ChunkingConfig | None = None,
        conditioning: Conditioning | None = None,
        config: BatchingConfig | None = None,
    ):
        self.config = config or BatchingConfig()
        self.clock = clock
        self.weights_base = weights_base
        self.norm_stats = norm.fingerprint if norm_stats is None else norm_stats
        self._model = model
        self._norm: NormStats = jax.device_put(norm)
        self._versions: dict[int, Params] = {version: jax.device_put(params)}
        self._template = trained_template(model, params)
        self._sampler = ChunkSampler(model, chunking or ChunkingConfig(), conditioning)
        self._encoder = ObservationEncoder(model, conditioning)
        self._seats: weakref.WeakSet[PolicySeat] = weakref.WeakSet()
        self._lock = threading.Lock()
        self._warm_lock = threading.Lock()
        self._is_warm = False
        self._stats = BatchingStats()
        self._queue = RequestQueue(
            clock, self.config.batch_sizes[-1], round(self.config.window_s * 1e9), self._num_acting_on
        )
        self._thread = threading.Thread(target=self._serve, name="batched-policy", daemon=True)
        self._thread.start()

    @classmethod
    def from_bundle(
        cls,
        bundle: PolicyBundle,
        clock: Clock,
        *,
        chunking: ChunkingConfig | None = None,
        conditioning: Conditioning | None = None,
        config: BatchingConfig | None = None,
    ) -> "BatchedPolicy":
        """The unpublished base (version 0), with the bundle's fingerprints."""
        fingerprint = bundle.fingerprint
        return cls(
            bundle.model,
            bundle.params,
            bundle.norm,
            clock,
            weights_base=fingerprint,
            chunking=chunking,
            conditioning=conditioning,
            config=config,
        )

    @property
    def horizon(self) -> int:
        return self._model.horizon

    @property
    def trained_template(self) -> Params:
        return self._template

    @property
    def num_compilations(self) -> int:
        """At most one per batch size."""
        return self._sampler.num_compilations

    @property
    def loaded_versions(self) -> tuple[int, ...]:
        """The versions whose parameters are on the device."""
        with self._lock:
            return tuple(sorted(self._versions))

    @property
    def stats(self) -> BatchingStats:
        return self._stats

    def take_seat(self) -> PolicySeat:
        """A robot's own place, on the newest version loaded. Close it, or let go of it, when the robot is gone."""
        with self._lock:
            seat = PolicySeat(self, max(self._versions))
            self._seats.add(seat)
        return seat

    def submit(self, seat: PolicySeat, observation: Observation, seed: int, prefix: ChunkPrefix | None) -> Request:
        """Puts one seat's request into the queue. Raises ValueError, PolicyClosedError."""
        request = self._request(seat, observation, seed, prefix)
        self._queue.put(request)
        return request

    def answer(self, asking: Sequence[tuple[PolicySeat, ChunkRequest]]) -> None:
        """Lays the chunks ready that these seats' robots will ask for next, without the queue: for a thread that runs many
        robots in steps. One call per version and largest batch size. Blocks. Raises ValueError.

        With a single batch size every call is the same program, and rows don't depend on their neighbours: a robot's chunk
        is then the same bits, whoever asks beside it.
        """
        groups: dict[int, list[tuple[PolicySeat, Request]]] = collections.defaultdict(list)
        for seat, asked in asking:
            groups[seat.version].append((seat, self._request(seat, asked.observation, asked.seed, asked.prefix)))
        largest = self.config.batch_sizes[-1]
        for group in groups.values():
            for start in range(0, len(group), largest):
                rows = group[start : start + largest]
                requests = [request for _, request in rows]
                for (seat, request), chunk in zip(rows, self._compute(requests), strict=True):
                    seat.lay_ready(request.seed, chunk)
                self._count(requests)

    def _request(self, seat: PolicySeat, observation: Observation, seed: int, prefix: ChunkPrefix | None) -> Request:
        prefixes = self._encoder.encode_prefix(prefix, self._sampler.takes_prefixes)
        batch = self._encoder.encode(observation)
        bare = self._encoder.encode_bare_prompt(observation)
        now_ns = self.clock.now_ns()
        with self._lock:
            params = self._versions[seat.version]
        deadline_ns = now_ns + round(self.config.deadline_s * 1e9)
        return Request(seat.version, params, batch, seed, prefixes, bare, now_ns, deadline_ns)

    def warm_up(self, spec: RobotSpec, instruction: str) -> None:
        """Compiles every batch size for this kind of robot, once; later calls return at once."""
        with self._warm_lock:
            if self._is_warm:
                return
            scene = black_scene(spec, instruction)
            batch, bare = self._encoder.encode(scene), self._encoder.encode_bare_prompt(scene)
            prefix = self._encoder.encode_prefix(None, self._sampler.takes_prefixes)
            with self._lock:
                version, params = max(self._versions.items())
            request = Request(version, params, batch, 0, prefix, bare, 0, 0)
            for size in self.config.batch_sizes:
                self._compute([request] * size)
            self._is_warm = True

    def move_seat(self, seat: PolicySeat, params: Mapping[str, Any], version: int) -> None:
        """Puts a seat on `version`, whose parameters are loaded unless another seat brought them. Raises as `swap` does."""
        with self._lock:
            loaded = self._versions.get(version)
            present = self._versions[seat.version]
        if loaded is None:
            loaded = replace_trained(self._model, present, params, version)
        with self._lock:
            self._versions.setdefault(version, loaded)
            seat.version = version
            self._let_go_unused()

    def leave_seat(self, seat: PolicySeat) -> None:
        """The seat's robot is gone."""
        with self._lock:
            self._seats.discard(seat)
            self._let_go_unused()

    def close(self) -> None:
        """Fails what still waits, and waits for the batch that is being computed."""
        self._queue.close()
        self._thread.join()

    def __enter__(self) -> "BatchedPolicy":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _let_go_unused(self) -> None:
        """The newest version stays for seats to come."""
        used = {seat.version for seat in self._seats} | {max(self._versions)}
        self._versions = {version: params for version, params in self._versions.items() if version in used}

    def _num_acting_on(self, version: int) -> int:
        with self._lock:
            return sum(seat.in_episode and seat.version == version for seat in self._seats)

    def _serve(self) -> None:
        while (requests := self._queue.take()) is not None:
            try:
                chunks = self._compute(requests)
            except Exception:
                for request in requests:
                    self._serve_alone(request)
            else:
                for request, chunk in zip(requests, chunks, strict=True):
                    request.future.set_result(chunk)
                self._count(requests)

    def _serve_alone(self, request: Request) -> None:
        try:
            (chunk,) = self._compute([request])
        except Exception as error:
            request.future.set_exception(error)
        else:
            request.future.set_result(chunk)
            self._count([request])

    def _compute(self, requests: list[Request]) -> np.ndarray:
        """Chunks [B, H, A] of requests of one version; rows that fill up to a compiled size repeat the last."""
        size = next(size for size in self.config.batch_sizes if size >= len(requests))
        rows = requests + [requests[-1]] * (size - len(requests))
        observations: ObservationBatch = jax.tree.map(_stack, *[row.observation for row in rows])
        prefixes: ActionPrefix | None = jax.tree.map(_stack, *[row.prefix for row in rows])
        bare: BarePrompt | None = jax.tree.map(_stack, *[row.bare_prompt for row in rows])
        seeds = np.array([row.seed for row in rows], np.uint32)
        chunks = self._sampler.sample(rows[0].params, self._norm, observations, seeds, prefixes, bare)
        return chunks[: len(requests)]

    def _count(self, requests: list[Request]) -> None:
        size = next(size for size in self.config.batch_sizes if size >= len(requests))
        self._stats = BatchingStats(
            self._stats.num_requests + len(requests),
            self._stats.num_batches + 1,
            self._stats.num_padded_rows + size - len(requests),
        )


def _stack(*leaves: np.ndarray) -> np.ndarray:
    return np.concatenate(leaves)
