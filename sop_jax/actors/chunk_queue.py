"""The actions that a robot will execute next, and how a new chunk takes the place of an old one.

Legend: `H` horizon of an action chunk, `A` action dimensions, `R` actions left.
"""

from typing import final

import numpy as np

from sop_jax.specs.chunking import ChunkPrefix


@final
class ChunkQueue:
    """A chunk under way, while the next one may be computed from an observation that grows older.

        queue.mark()                    # the observation of the next chunk is taken now
        action = queue.pop()            # float32 [A], once per tick; None = nothing left
        queue.replace(chunk)            # the next chunk is there: what was executed since `mark` is dropped from it

    Ticks without an action are not counted: the robot stood still in them, so the chunk's next action is still to come.
    """

    def __init__(self) -> None:
        self._chunk: np.ndarray | None = None
        self._position = 0
        self._num_since_mark = 0

    @property
    def num_left(self) -> int:
        return 0 if self._chunk is None else len(self._chunk) - self._position

    def mark(self) -> None:
        self._num_since_mark = 0

    def pop(self) -> np.ndarray | None:
        if self._chunk is None or self.num_left == 0:
            return None
        action = self._chunk[self._position]
        self._position += 1
        self._num_since_mark += 1
        return action

    def replace(self, chunk: np.ndarray) -> None:
        self._chunk = chunk
        self._position = self._num_since_mark

    def clear(self) -> None:
        self._chunk = None
        self._position = self._num_since_mark = 0

    def prefix(self, horizon: int, delay: int) -> ChunkPrefix | None:
        """What is left, for a policy that continues it and needs `delay` ticks; None if nothing is left."""
        if self._chunk is None or self.num_left == 0:
            return None
        left = self._chunk[self._position :]
        actions = np.concatenate([left, np.repeat(left[-1:], horizon - len(left), axis=0)])
        return ChunkPrefix(actions, min(delay, len(left)), len(left))
