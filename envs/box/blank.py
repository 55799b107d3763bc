"""The blank: a bottom, four walls hinged to it, and a tab at either end of the two side walls.

Every flap's own frame has x away from its hinge and z towards the inside of the box, so that one hinge axis raises them
all. Flaps touch the robot's arms; of the board itself only tabs and end walls touch each other: that decides whether a
tab ends up inside or outside. The bottom moves in its plane only, against the friction of the stand's pad.
"""

import math
from types import MappingProxyType

import mujoco
import numpy as np

from envs.box.config import BOARDS, ENDS, SIDES, TAB_INSET_M, TABS, WALLS, BlankSize, BoxConfig
from envs.box.situation import BlankState
from envs.composing import mjcf
from envs.g1.collision import LEFT_BIT, RIGHT_BIT

HALF_THICKNESS_M = 0.0015
OPEN_RAD, SPRING_RAD, TAB_SPRING_RAD = 0.0, 1.65, 1.70
_CLEARANCE_M = 0.004
_SIDE_DROP_M = 0.006  # side walls are this much lower than the ends: a finger that closes an end passes above them
_TAB_GAP_M = 0.014  # tabs are cut short at the bottom, so that they pass over the creased end wall
_OUTWARD_YAW = MappingProxyType({"left": math.pi / 2, "right": -math.pi / 2, "far": 0.0, "near": math.pi})
_ARMS_ONLY = {"contype": 0, "conaffinity": LEFT_BIT | RIGHT_BIT}
_SKIN = {"friction": (0.3, 0.01, 0.001), "priority": 1, "solref": (0.015, 1)}


def add_blank(root: mjcf.RootElement, config: BoxConfig) -> None:
    """Adds the blank to the world, with the equalities that `BlankBody.latch` switches."""
    bottom = root.worldbody.add("body", name="blank", pos=(config.stand_x_m, 0, config.blank_height_m))
    bottom.add("inertial", pos=(0, 0, 0), mass=0.05, diaginertia=(1e-4, 1e-4, 2e-4))
    for axis in ((1, 0, 0), (0, 1, 0)):
        bottom.add(
            "joint",
            name=f"blank_{'xy'[axis[1]]}",
            type="slide",
            axis=axis,
            frictionloss=config.sliding_friction_n,
            damping=2.0,
        )
    bottom.add(
        "joint", name="blank_yaw", axis=(0, 0, 1), frictionloss=config.turning_friction_nm, damping=0.02, armature=1e-4
    )
    bottom.add("geom", name="blank_bottom", type="box", size=(0.1, 0.1, HALF_THICKNESS_M), **_ARMS_ONLY, **_SKIN)
    for wall in WALLS:
        body = _add_flap(bottom, wall, _OUTWARD_YAW[wall], SPRING_RAD, config.hinge_friction_nm)
        if wall in SIDES:
            for end in ENDS:
                _add_flap(body, f"{wall}_{end}", _tab_yaw(wall, end), TAB_SPRING_RAD, config.tab_friction_nm)
    for tab in TABS:
        root.contact.add(
            "pair", geom1=f"flap_{tab}", geom2=f"flap_{tab.split('_')[1]}", friction=(0.1, 0.1, 0.001, 1e-4, 1e-4)
        )
    for name in (*WALLS, *TABS):
        root.equality.add(
            "joint",
            name=f"latch_{name}",
            joint1=root.find("joint", f"hinge_{name}"),
            polycoef=(math.pi / 2, 0, 0, 0, 0),
            active=False,
            solref=(0.03, 1),
        )


def _add_flap(parent: mjcf.Element, name: str, yaw_rad: float, spring_rad: float, friction_nm: float) -> mjcf.Element:
    body = parent.add("body", name=f"flap_{name}", quat=(math.cos(yaw_rad / 2), 0, 0, math.sin(yaw_rad / 2)))
    body.add("inertial", pos=(0.03, 0, 0), mass=0.008, diaginertia=(4e-6, 4e-6, 8e-6))
    # Past the upright the crease springs back: a soft limit.
    body.add(
        "joint",
        name=f"hinge_{name}",
        axis=(0, -1, 0),
        range=(OPEN_RAD, spring_rad),
        solreflimit=(0.02, 1),
        solimplimit=(0.98, 0.999, 0.001, 0.5, 2),
        frictionloss=friction_nm,
        damping=0.002,
        armature=3e-5,
    )
    size = (0.03, 0.05, HALF_THICKNESS_M)
    body.add("geom", name=f"flap_{name}", type="box", size=size, pos=(0.03, 0, 0), **_ARMS_ONLY, **_SKIN)
    return body


def _tab_yaw(side: str, end: str) -> float:
    """A tab's x axis runs on along its side wall, beyond the end."""
    return math.remainder(_OUTWARD_YAW[end] - _OUTWARD_YAW[side], 2 * math.pi)


class BlankBody:
    """The blank of a compiled model: give it a size and a colour, place it, latch it, read it."""

    def __init__(self, model: mujoco.MjModel, config: BoxConfig) -> None:
        self._model = model
        self._pose = np.array([model.joint(f"blank_{name}").qposadr[0] for name in ("x", "y", "yaw")])
        self._walls = np.array([model.joint(f"hinge_{name}").qposadr[0] for name in WALLS])
        self._tabs = np.array([model.joint(f"hinge_{name}").qposadr[0] for name in TABS])
        self._joints = np.concatenate([self._pose, self._walls, self._tabs])
        self._latches = {name: model.equality(f"latch_{name}").id for name in (*WALLS, *TABS)}
        names = ("blank_bottom", *(f"flap_{name}" for name in (*WALLS, *TABS)))
        self._geoms = np.array([model.geom(name).id for name in names])
        self._board = frozenset(self._geoms.tolist())
        self._stand_x_m, self._plane_m = config.stand_x_m, config.blank_height_m
        self.size = config.size

    def dress(self, size: BlankSize, board: str) -> None:
        """Makes the blank this large, of this board (`BOARDS`)."""
        self.size = size
        self._resize("blank_bottom", (size.half_length, size.half_width), 0.0)
        ends = dict(zip(ENDS, (1.0, -1.0), strict=True))
        for name, sign in zip(SIDES, (1.0, -1.0), strict=True):
            self._model.body(f"flap_{name}").pos[:] = (0.0, sign * size.half_width, 0.0)
            half_height = (size.height - _SIDE_DROP_M) / 2
            self._resize(f"flap_{name}", (half_height, size.half_length - TAB_INSET_M), half_height)
            for end, end_sign in ends.items():
                along = end_sign * -sign * (size.half_length - TAB_INSET_M)
                top, bottom = size.height - _SIDE_DROP_M - _CLEARANCE_M, _TAB_GAP_M
                self._model.body(f"flap_{name}_{end}").pos[:] = ((top + bottom) / 2, along, 0.0)
                self._resize(f"flap_{name}_{end}", (size.tab / 2, (top - bottom) / 2), size.tab / 2)
        for end, end_sign in ends.items():
            self._model.body(f"flap_{end}").pos[:] = (end_sign * size.half_length, 0.0, 0.0)
            self._resize(f"flap_{end}", (size.height / 2, size.half_width - _CLEARANCE_M), size.height / 2)
        outside, inside = BOARDS[board]
        self._model.geom_rgba[self._geoms, :3] = outside
        self._model.geom_rgba[self._geoms[0], :3] = inside

    def _resize(self, geom: str, half_edges: tuple[float, float], offset: float) -> None:
        """Changes a panel of the compiled model, and what collision detection derived from its size."""
        view = self._model.geom(geom)
        view.size[:2] = half_edges
        view.pos[0] = offset
        self._model.geom_rbound[view.id] = np.linalg.norm(view.size)
        self._model.geom_aabb[view.id, 3:] = view.size

    def place(self, data: mujoco.MjData, pose: np.ndarray, walls: np.ndarray, tabs: np.ndarray) -> None:
        """Lays the blank down unlatched: pose (x, y in m from the stand's middle, yaw), angles of walls [4], tabs [4]."""
        data.qpos[self._pose], data.qpos[self._walls], data.qpos[self._tabs] = pose, walls, tabs
        data.eq_active[list(self._latches.values())] = 0

    def latch(self, data: mujoco.MjData, end: str) -> None:
        """Locks one end: its wall, the tabs behind it, and through them the side walls."""
        data.eq_active[[self._latches[name] for name in (*SIDES, end, *(f"{side}_{end}" for side in SIDES))]] = 1

    def state(self, data: mujoco.MjData, latched: frozenset[str]) -> BlankState:
        """How the blank lies now, with these ends latched."""
        x, y, yaw, *angles = data.qpos[self._joints].tolist()
        pose = x + self._stand_x_m, y, yaw
        return BlankState(self.size, pose, self._plane_m, angles[:4], angles[4:], latched)

    def force(self, data: mujoco.MjData) -> float:
        """The largest normal force of one contact between the robot and the board, N."""
        if not data.ncon:
            return 0.0
        # There are few contacts: a look at each takes half as long as arrays. Both of the board: a tab against an end wall.
        contact, board = data.contact, self._board
        pairs = contact.geom.tolist()
        pressed = [index for index, (first, second) in enumerate(pairs) if (first in board) != (second in board)]
        if not pressed:
            return 0.0
        addresses, forces_n = contact.efc_address, data.efc_force
        acting = [address for address in map(addresses.item, pressed) if address >= 0]
        return max(map(forces_n.item, acting), default=0.0)

    def is_pressed(self, data: mujoco.MjData, limit_n: float) -> bool:
        """Whether the robot presses on the board with more than this at one place."""
        # On most ticks nothing at all pushes so hard: the cheaper question.
        return bool(data.ncon) and np.maximum.reduce(data.efc_force) > limit_n and self.force(data) > limit_n
