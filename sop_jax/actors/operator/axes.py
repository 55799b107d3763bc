"""Six axes of a device, each -1 .. 1, as a motion of one hand."""

import dataclasses
from collections.abc import Mapping

from sop_jax.actors.operator.commands import MAX_SPEED_M_S, MAX_TURN_RAD_S, Hand, Move

AXES = ("x", "y", "z", "roll", "pitch", "yaw")


@dataclasses.dataclass
class HandAxes:
    """What a device remembers between polls: which hand it moves, whether the grippers are closed, how fast it goes.

    share: of the greatest speeds, 0 .. 1.
    """

    hand: Hand = "right"
    share: float = 0.5
    closed: dict[str, bool] = dataclasses.field(default_factory=lambda: {"left": False, "right": False})

    def move(self, axes: Mapping[str, float]) -> Move:
        """Axes beyond -1 .. 1 are cut off; absent ones are 0."""
        x, y, z, roll, pitch, yaw = (max(-1.0, min(1.0, axes.get(axis, 0.0))) for axis in AXES)
        speed, turn = MAX_SPEED_M_S * self.share, MAX_TURN_RAD_S * self.share
        return Move(self.hand, (x * speed, y * speed, z * speed), (roll * turn, pitch * turn, yaw * turn))

    def toggle_gripper(self) -> Move:
        """Opens or closes the present hand's gripper, at rest."""
        self.closed[self.hand] = not self.closed[self.hand]
        return Move(self.hand, gripper=float(self.closed[self.hand]))
