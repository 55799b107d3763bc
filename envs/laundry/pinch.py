"""Holding cloth: a gripper that closes on it holds the nearest vertex, by a connect constraint, until it opens.

Friction between flat pads and a mesh this coarse lifts the middle of a cloth but no corner, so holding is a constraint,
gated on what would make a real pinch work: the pads are closing, nearly closed, and the cloth is between their tips.
Fingertips pressed down onto the surface take every layer that lies there; fingertips a little higher take one.
"""

import mujoco
import numpy as np

from envs.composing import mjcf
from envs.laundry.shirt import Shirt

PINCH_RADIUS_M = 0.017  # sideways from the fingertips; a cell's middle is as far from its corners
PINCH_DEPTH_M = 0.027  # up or down from the fingertips
DEEP_M = 0.012  # with the lowest layer no further below than this, every layer is taken
EDGE_BONUS_M = 0.008  # fingertips catch an edge before the middle of a layer that is so much nearer
TIP_M = 0.018  # from the tool's centre to the fingertips, along the tool's z axis
_TOP_M, _ALL_M = 0.020, 0.006  # fingertips above the lowest layer: to take one layer, to take all
_INTO_M = 0.006  # fingertips above a vertex high up in a crumple
_LIES_M = 0.002  # a vertex no further above the lowest layer lies on it
_NEARLY_CLOSED = 0.8
_CLOSING_MARGIN = 0.03  # the command must be this much further closed than the pads are
_RELEASE_MARGIN = 0.05  # the command must be this much further open than the pads were when they gripped
_MAX_LAYERS = 4
_SAME_LAYER_CELLS = 2.5  # vertices that lie closer than this in the flat shirt belong to one layer


def add_pinches(root: mjcf.RootElement, hand: mjcf.Element, side: str) -> None:
    """Adds the inactive constraints, one per layer, that `ClothPinch` aims at vertices and switches."""
    for layer in range(_MAX_LAYERS):
        placeholder = root.find("body", "g1/base_link")  # the vertices' bodies exist only after compilation
        root.equality.add(
            "connect",
            name=f"{side}_pinch_{layer}",
            body1=hand,
            body2=placeholder,
            anchor=(0, 0, 0),
            active=False,
            solref=(0.01, 1),
        )


class ClothPinch:
    """Which vertices one gripper holds. `update` once per control tick, after the physics."""

    def __init__(self, model: mujoco.MjModel, side: str, shirt: Shirt, prefix: str = "g1/") -> None:
        """Both hands may hold the same vertex."""
        self._model = model
        self._hand = model.body(f"{prefix}gripper_{side[0]}_base_link").id
        self._tool = model.site(f"{prefix}{side}_tcp").id
        self._constraints = [model.equality(f"{side}_pinch_{layer}").id for layer in range(_MAX_LAYERS)]
        self._bodies = model.flex_vertbodyid
        self._shirt = shirt
        self._gripped_at = 0.0
        self.held: tuple[int, ...] = ()

    def tip(self, data: mujoco.MjData) -> np.ndarray:
        """The point between the fingertips [3]."""
        return data.site_xpos[self._tool] + TIP_M * data.site_xmat[self._tool].reshape(3, 3)[:, 2]

    def reset(self, data: mujoco.MjData) -> None:
        """Lets go of everything."""
        self.held = ()
        data.eq_active[self._constraints] = 0

    def update(self, data: mujoco.MjData, command: float, closure: float) -> None:
        """Grips or lets go. `command` and `closure` (how far the pads are closed) run 0 open .. 1 closed."""
        if self.held:
            if command < self._gripped_at - _RELEASE_MARGIN:
                self.reset(data)
        elif closure > _NEARLY_CLOSED and command > closure + _CLOSING_MARGIN:
            self.held = vertices_in_reach(self.tip(data), data.flexvert_xpos, self._shirt)
            self._gripped_at = closure
            for constraint, vertex in zip(self._constraints, self.held, strict=False):
                self._attach(data, constraint, vertex)

    def _attach(self, data: mujoco.MjData, constraint: int, vertex: int) -> None:
        """Ties a vertex to where it is now in the hand's frame: nothing jumps."""
        hand, model = self._hand, self._model
        offset = data.xmat[hand].reshape(3, 3).T @ (data.flexvert_xpos[vertex] - data.xpos[hand])
        model.eq_obj2id[constraint] = self._bodies[vertex]
        model.eq_data[constraint, 0:3] = offset
        model.eq_data[constraint, 3:6] = 0.0
        data.eq_active[constraint] = 1


def tip_height(point: np.ndarray, vertices: np.ndarray, deep: bool) -> float:
    """How high fingertips over `point` [3] close on the cloth `vertices` [V, 3]: to take one layer, or `deep` for all."""
    near = np.hypot(*(vertices[:, :2] - point[:2]).T) < PINCH_RADIUS_M
    lowest = float(vertices[near, 2].min(initial=point[2]))
    if deep:  # a corner that stands up must not keep the fingers from the layers below
        return min(float(point[2]), lowest + _LIES_M) + _ALL_M
    return max(float(point[2]) + _INTO_M, lowest + _TOP_M)


def vertices_in_reach(tip: np.ndarray, vertices: np.ndarray, shirt: Shirt) -> tuple[int, ...]:
    """What fingertips at `tip` [3] hold of the cloth `vertices` [V, 3]: nothing, the nearest vertex, or one per layer."""
    sideways = np.hypot(*(vertices[:, :2] - tip[:2]).T)
    below = tip[2] - vertices[:, 2]
    near = np.flatnonzero((sideways < PINCH_RADIUS_M) & (np.abs(below) < PINCH_DEPTH_M))
    if not len(near):
        return ()
    nearest_first = near[np.argsort(catching_distance(tip, vertices, shirt)[near], kind="stable")]
    held = [int(nearest_first[0])]
    if below[near].max() > DEEP_M:
        return tuple(held)
    same_layer_m = _SAME_LAYER_CELLS * shirt.cell_m
    for vertex in nearest_first[1:]:
        apart = np.linalg.norm(shirt.rest[held] - shirt.rest[vertex], axis=1)
        if (apart > same_layer_m).all() and len(held) < _MAX_LAYERS:
            held.append(int(vertex))
    return tuple(held)


def catching_distance(tip: np.ndarray, vertices: np.ndarray, shirt: Shirt) -> np.ndarray:
    """How far each vertex [V, 2 or 3] is from the fingertips, less what makes an edge easier to catch than a fold."""
    return np.linalg.norm(vertices - tip, axis=-1) - EDGE_BONUS_M * shirt.is_edge
