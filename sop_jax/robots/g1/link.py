"""What we need of a transport to the robot, whichever it is, in our units.

Legend: stamps are nanoseconds of the robot's clock, which is also that of the computer beside it, or nearly.
"""

import dataclasses
from typing import Protocol, runtime_checkable

import numpy as np


@dataclasses.dataclass(frozen=True)
class BodyState:
    """What the body measures: arms float64 [14] rad (left, right), grippers [2] 0 open .. 1 closed, head [yaw, pitch] rad,
    waist [pitch rad, lift m]. `time_ns` is the oldest stamp among them, `newest_ns` the newest.
    """

    arms: np.ndarray
    grippers: np.ndarray
    head: np.ndarray
    waist: np.ndarray
    time_ns: int
    newest_ns: int

    @property
    def vector(self) -> np.ndarray:
        """The state in the order of records: float64 [16], 14 joints and 2 grippers."""
        return np.concatenate([self.arms, self.grippers])


@dataclasses.dataclass(frozen=True)
class Frame:
    """One camera's picture, uint8 RGB [h, w, 3], and when it was taken."""

    image: np.ndarray
    time_ns: int


@runtime_checkable
class G1Link(Protocol):
    """Reads and commands one robot.

        state = link.read_state()                  # the newest; at_ns = the nearest to a time
        frame = link.read_frame("head", at_ns)     # None before the camera's first
        link.send(target)                          # float64 [16], absolute
        link.send_posture(head, waist)             # rad, [rad, m]
        link.stopped()                             # why the robot is stopped; "" while it isn't

    No call blocks for longer than the transport's own round trip. `stopped` and `send` come from two threads, in turns; reads
    from one, maybe at the same time. Raises G1Fault.
    """

    def read_state(self, at_ns: int | None = None) -> BodyState: ...

    def read_frame(self, camera: str, at_ns: int | None = None) -> Frame | None: ...

    def send(self, target: np.ndarray) -> None: ...

    def send_posture(self, head: np.ndarray, waist: np.ndarray) -> None: ...

    def stopped(self) -> str: ...

    def close(self) -> None: ...
