"""Grasping by a gated weld: while the gripper closes and both pads touch the same item, the item is held fast.

An honest simplification of friction: nothing is held at a distance or by one pad, and opening the pads lets go.
"""

from collections.abc import Sequence

import mujoco
import numpy as np

from envs.composing import mjcf

_CLOSING_MARGIN = 0.03  # the command must be this much further closed than the pads are
_RELEASE_MARGIN = 0.05  # the command must be this much further open than the pads were when they gripped


def add_welds(
    root: mjcf.RootElement,
    hand: mjcf.Element,
    bodies: Sequence[mjcf.Element],
    side: str,
    torque_scale: float = 0.1,
) -> None:
    """Adds the inactive welds, one per item, that `GraspWeld` switches. `torque_scale` is how firmly an item's turning in
    the hand is resisted: at 0.1 a tall one leans by up to 50 degrees on its way, at 1 by less than 10.
    """
    for index, body in enumerate(bodies):
        root.equality.add(
            "weld",
            name=f"{side}_grasp_{index}",
            body1=hand,
            body2=body,
            active=False,
            solref=(0.01, 1),
            torquescale=torque_scale,
        )


class GraspWeld:
    """Which item one gripper holds. `update` once per control tick, after the physics."""

    def __init__(self, model: mujoco.MjModel, side: str, bodies: Sequence[str], prefix: str = "g1/") -> None:
        self._model = model
        self._hand = model.body(f"{prefix}gripper_{side[0]}_base_link").id
        self._pads = tuple(model.geom(f"{prefix}{side}_pad_{index}").id for index in (0, 1))
        self._bodies = tuple(model.body(name).id for name in bodies)
        self._welds = tuple(model.equality(f"{side}_grasp_{index}").id for index in range(len(bodies)))
        self._gripped_at = 0.0
        self.held: int | None = None

    def reset(self, data: mujoco.MjData) -> None:
        """Lets go of everything."""
        self.held = None
        data.eq_active[list(self._welds)] = 0

    def update(self, data: mujoco.MjData, command: float, closure: float) -> None:
        """Grips or lets go. `command` and `closure` (how far the pads are closed) run 0 open .. 1 closed."""
        if self.held is not None:
            if command < self._gripped_at - _RELEASE_MARGIN:
                self.reset(data)
        elif command > closure + _CLOSING_MARGIN:
            item = self._item_between_pads(data)
            if item is not None:
                self._grip(data, item)
                self._gripped_at = closure

    def _item_between_pads(self, data: mujoco.MjData) -> int | None:
        touched = []
        pairs = data.contact.geom
        for pad in self._pads:
            first, second = pairs[pairs[:, 0] == pad, 1], pairs[pairs[:, 1] == pad, 0]
            touched.append({int(body) for body in self._model.geom_bodyid[np.concatenate([first, second])]})
        return next((i for i, body in enumerate(self._bodies) if body in touched[0] and body in touched[1]), None)

    def _grip(self, data: mujoco.MjData, item: int) -> None:
        hand, body = self._hand, self._bodies[item]
        inverse_position, inverse_rotation = np.zeros(3), np.zeros(4)
        position, rotation = np.zeros(3), np.zeros(4)
        mujoco.mju_negPose(inverse_position, inverse_rotation, data.xpos[hand], data.xquat[hand])
        mujoco.mju_mulPose(position, rotation, inverse_position, inverse_rotation, data.xpos[body], data.xquat[body])
        parameters = self._model.eq_data[self._welds[item]]
        parameters[0:3] = 0.0
        parameters[3:6] = position
        parameters[6:10] = rotation
        data.eq_active[self._welds[item]] = 1
        self.held = item
