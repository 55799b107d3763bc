"""What every watcher of a robot looks for, whatever the task."""

import numpy as np

from envs.g1.drive import CONTROL_HZ


class HandWatch:
    """Notices hands that no person would let go on: too fast, or about to meet. One look per control tick."""

    def __init__(self, fastest_m_s: float, nearest_m: float) -> None:
        self._fastest_m_s, self._nearest_m = fastest_m_s, nearest_m
        self._before: np.ndarray | None = None

    def reset(self) -> None:
        """Forgets where the hands were."""
        self._before = None

    def is_unsafe(self, hands: np.ndarray) -> bool:
        """Looks at both hands [2, 3] in m."""
        before, self._before = self._before, hands.copy()
        if float(np.linalg.norm(hands[0] - hands[1])) < self._nearest_m:
            return True
        if before is None:
            return False
        return float(np.linalg.norm(hands - before, axis=1).max()) * CONTROL_HZ > self._fastest_m_s
