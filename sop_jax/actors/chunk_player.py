"""Plays a policy's chunks on a robot while the next one is computed.

Legend: `H` horizon of an action chunk, `A` action dimensions.
"""

import dataclasses
from typing import final

import numpy as np

from sop_jax.actors.chunk_queue import ChunkQueue
from sop_jax.actors.inference import make_inference
from sop_jax.actors.seeds import inference_seed
from sop_jax.specs.chunking import ChunkPrefix
from sop_jax.specs.errors import ConfigError
from sop_jax.specs.interfaces import ActionSource
from sop_jax.specs.records import Observation


class NonFiniteActionError(Exception):
    """The policy or the expert gave an action that is NaN or infinite; the robot must not see it."""


@dataclasses.dataclass(frozen=True)
class ChunkRequest:
    """One question to a policy: the arguments of `ActionSource.infer`."""

    observation: Observation
    seed: int
    prefix: ChunkPrefix | None = None


@dataclasses.dataclass(frozen=True)
class ChunkStats:
    """What became of an episode's chunks.

    num_chunks: chunks that were executed, in part at least. num_held_ticks: ticks on which the robot held its last target
    because none was there. max_delay_ticks: the longest from an observation to its chunk. num_stale: chunks that came too
    late to be executed.
    """

    num_chunks: int = 0
    num_held_ticks: int = 0
    max_delay_ticks: int = 0
    num_stale: int = 0


@final
class ChunkPlayer:
    """Gives every tick's action from a policy's chunks.

        player.begin_tick(frame)
        action = player.act(robot.observe(images=player.needs_images))      # float32 [A]

    `execute_steps` ticks after an inference began, the next one begins from a fresh observation (or as soon as the last one
    is there). While it runs, the robot goes on with its chunk; when the new chunk is there, the actions whose time has
    passed are dropped. A chunk that runs out before leaves the robot holding its last target. Without delay every chunk
    is executed for `execute_steps` ticks, from its first action.

    delay_frames: ticks that an inference takes (simulated, repeatable); None = a thread computes, for as long as it takes.
    continues: tell the policy what is left of the chunk under way (real-time chunking).
    max_inference_ticks: of a thread beside a robot in real time. An inference that takes longer raises InferenceTimeoutError;
        a chunk that comes later than its horizon speaks of a scene that is gone, so it is dropped and the policy is asked
        afresh. None = neither.
    """

    def __init__(
        self,
        policy: ActionSource,
        seed: int,
        action_dim: int,
        execute_steps: int,
        delay_frames: int | None = 0,
        continues: bool = False,
        max_inference_ticks: int | None = None,
    ):
        if not 1 <= execute_steps <= policy.horizon:
            raise ConfigError(
                f"execute_steps must be between 1 and the policy's horizon {policy.horizon}, got {execute_steps}"
            )
        if delay_frames is not None and delay_frames + max(delay_frames, execute_steps) > policy.horizon:
            raise ConfigError(
                f"chunks of {policy.horizon} actions run out before the next one is there: inference_delay_frames "
                f"{delay_frames} + the larger of it and execute_steps {execute_steps} must be at most {policy.horizon}"
            )
        self._policy = policy
        self._version = policy.version
        self._seed = seed
        self._chunk_shape = (policy.horizon, action_dim)
        self._execute_steps = execute_steps
        self._continues = continues
        self._inference = make_inference(delay_frames, max_inference_ticks)
        self._max_age = policy.horizon if max_inference_ticks is not None else None
        self._queue = ChunkQueue()
        self._frame = self._started = 0
        self._last_target: np.ndarray | None = None
        self._num_chunks = self._num_held = self._num_stale = 0
        self._has_acted = False

    @property
    def version(self) -> int:
        """The policy's version at the start of the episode, which it must keep."""
        return self._version

    @property
    def stats(self) -> ChunkStats:
        return ChunkStats(self._num_chunks, self._num_held, self._inference.max_delay_ticks, self._num_stale)

    @property
    def needs_images(self) -> bool:
        """Whether an inference begins on this tick."""
        is_due = self._queue.num_left == 0 or self._frame - self._started >= self._execute_steps
        return is_due and not self._inference.is_busy

    @property
    def has_acted(self) -> bool:
        """Whether an action of a chunk was given since the start, or since the last `drop`."""
        return self._has_acted

    def begin_tick(self, frame: int) -> None:
        self._frame = frame
        self._take()

    def request(self, observation: Observation) -> ChunkRequest | None:
        """What `act` will ask the policy on this tick; None if it won't. Changes nothing."""
        if not self.needs_images:
            return None
        prefix = self._queue.prefix(self._policy.horizon, self._inference.delay_ticks) if self._continues else None
        return ChunkRequest(observation, inference_seed(self._seed, self._frame), prefix)

    def act(self, observation: Observation) -> np.ndarray:
        if (request := self.request(observation)) is not None:
            self._start(request)
            self._take()  # An inference without delay is there at once.
        action = self._queue.pop()
        if action is None:
            self._num_held += 1
            if self._last_target is None:  # Nothing was commanded yet: stay where the robot is.
                self._last_target = np.array(observation.state[: self._chunk_shape[1]], np.float32)
            return self._last_target
        self._has_acted = True
        self._last_target = action
        return action

    def drop(self, last_target: np.ndarray) -> None:
        """Somebody else acts: forgets the chunk and the inference under way."""
        self._queue.clear()
        self._inference.drop()
        self._has_acted = False
        self._last_target = last_target

    def close(self) -> None:
        """Waits for an inference that is still running; with `max_inference_ticks` not for long."""
        self._inference.close()

    def _start(self, request: ChunkRequest) -> None:
        frame = self._started = self._frame
        self._queue.mark()
        self._inference.start(frame, lambda: self._infer(request, frame))

    def _take(self) -> None:
        chunk = self._inference.take(self._frame)
        if chunk is None:
            return
        if self._max_age is not None and self._frame - self._started >= self._max_age:
            self._num_stale += 1
            self._queue.clear()  # What is left of the chunk before is older still.
            return
        self._queue.replace(chunk)
        self._num_chunks += 1

    def _infer(self, request: ChunkRequest, frame: int) -> np.ndarray:
        prefix = () if request.prefix is None else (request.prefix,)
        chunk = self._policy.infer(request.observation, request.seed, *prefix)
        if self._policy.version != self._version:
            raise RuntimeError(
                f"the policy changed from version {self._version} to {self._policy.version} at frame {frame} of an "
                "episode; swap between episodes only"
            )
        if chunk.shape != self._chunk_shape:
            raise ValueError(f"policy chunk must be [H, A] = {self._chunk_shape}, got {chunk.shape}")
        return require_finite(chunk, f"policy version {self._version}", frame)


def require_finite(action: np.ndarray, who: str, frame: int) -> np.ndarray:
    """The action or chunk unchanged. Raises NonFiniteActionError."""
    if not np.isfinite(action).all():
        raise NonFiniteActionError(f"{who} gave a NaN or infinite action at frame {frame}")
    return action
