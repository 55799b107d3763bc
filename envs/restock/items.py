"""The goods in the scene: bodies that are compiled once and dressed as a product at every reset.

A body of the basic catalogue carries the geoms of all basic shapes, of which one is solid and visible; mass, inertia and
height are the same for all. A body of the large catalogue carries a rack of spare primitives that take on sizes, places and
colours, and the body takes on the product's mass and inertia.
"""

import functools
from collections.abc import Mapping
from types import MappingProxyType

import mujoco
import numpy as np

from envs.composing import mjcf
from envs.g1 import collision
from envs.restock.catalogue import HALF_HEIGHT_M, HALF_WIDTH_M, SHAPES, Product, basic_product

_MASS_KG = 0.2
_DAMPING = 5e-4  # N m s: an item that fell over soon stops rolling
_FRICTION = (0.9, 0.01, 0.002)
# Compiled larger than any part, so that what the compiler derives for collision bounds every product; off centre, so that
# it takes nothing for centred that may not be.
_SPARE_SIZE_M: Mapping[str, tuple[float, ...]] = MappingProxyType(
    {"cylinder": (0.04, 0.045), "box": (0.03, 0.03, 0.045)}
)
_SPARE_CENTRE_M = (0.001, 0.001, 0.001)
_NUM_SPARES = 5  # of each kind


def add_item(root: mjcf.RootElement, name: str, catalogue: str = "basic") -> mjcf.Element:
    """Adds one free body that can be dressed as any product of a catalogue; its origin is the middle of its height."""
    body = root.worldbody.add("body", name=name, pos=(0, 0, -1))
    body.add("joint", name=name, type="free", damping=_DAMPING)
    body.add("inertial", pos=(0, 0, -0.008), mass=_MASS_KG, diaginertia=(1.4e-4, 1.4e-4, 0.7e-4))
    if catalogue == "basic":
        for shape in SHAPES:
            for index, part in enumerate(basic_product("red", shape).parts):
                _add_geom(body, f"{name}_{shape}_{index}", part.kind, part.size_m, (0, 0, part.height_m))
    else:
        for kind, size in _SPARE_SIZE_M.items():
            for index in range(_NUM_SPARES):
                _add_geom(body, f"{name}_{kind}_{index}", kind, size, _SPARE_CENTRE_M)
    return body


def _add_geom(
    body: mjcf.Element, name: str, kind: str, size: tuple[float, ...], centre: tuple[float, float, float]
) -> None:
    body.add(
        "geom", name=name, type=kind, size=size, pos=centre, friction=_FRICTION, condim=4, **collision.WORLD
    )  # fmt: skip


class ItemBodies:
    """The item bodies of a compiled model: dress them, place them, read their poses."""

    def __init__(self, model: mujoco.MjModel, names: tuple[str, ...], catalogue: str = "basic") -> None:
        self.names = names
        self._model = model
        self._bodies = np.array([model.body(name).id for name in names])
        self._qpos = np.array([model.joint(name).qposadr[0] for name in names])
        self._linear = np.array([model.joint(name).dofadr[0] for name in names])[:, None] + np.arange(3)
        self._wardrobes = [
            _BasicWardrobe(model, name) if catalogue == "basic" else _Wardrobe(model, name) for name in names
        ]
        self._half_heights = np.full(len(names), HALF_HEIGHT_M)
        self._half_widths = np.full(len(names), HALF_WIDTH_M)
        self._scratch = None if catalogue == "basic" else mujoco.MjData(model)

    def dress(self, goods: tuple[Product, ...]) -> None:
        """Makes the bodies these products, one each."""
        for index, product in enumerate(goods):
            self._wardrobes[index].wear(self._model, product)
        self._half_heights = np.array([product.half_height_m for product in goods])
        self._half_widths = np.array([product.half_width_m for product in goods])
        if self._scratch is not None:  # masses have changed, and with them what the compiler derived from them
            mujoco.mj_setConst(self._model, self._scratch)

    def place(self, data: mujoco.MjData, index: int, position_m: np.ndarray, yaw_rad: float) -> None:
        """Stands one item upright at a position of its centre."""
        start = self._qpos[index]
        data.qpos[start : start + 3] = position_m
        data.qpos[start + 3 : start + 7] = (np.cos(yaw_rad / 2), 0.0, 0.0, np.sin(yaw_rad / 2))

    def states(self, data: mujoco.MjData) -> "ItemStates":
        """Where the items are, how they lie, how fast they are."""
        return ItemStates(
            data.xpos.take(self._bodies, axis=0),
            data.xmat.take(self._bodies, axis=0),
            data.qvel.take(self._linear),
            self._half_heights,
            self._half_widths,
        )


class ItemStates:
    """The items of one moment: `positions` are their centres [items, 3] in m. What few ticks need is worked out on demand."""

    def __init__(
        self,
        positions: np.ndarray,
        rotations: np.ndarray,
        velocities: np.ndarray,
        half_heights: np.ndarray,
        half_widths: np.ndarray,
    ) -> None:
        """Rotations are rows of matrices [items, 9], velocities linear [items, 3] in m/s, half sizes [items] in m."""
        self.positions = positions
        self._rotations, self._velocities = rotations, velocities
        self._half_heights, self._half_widths = half_heights, half_widths

    @functools.cached_property
    def centres(self) -> list[list[float]]:
        """`positions` as plain numbers: what is judged on every tick is judged by them in half the time."""
        return self.positions.tolist()

    @functools.cached_property
    def extents(self) -> np.ndarray:
        """How far each item reaches below its centre [items] in m, whether it stands or lies."""
        up = np.abs(self._rotations[:, 6:9])
        return up[:, 2] * self._half_heights + np.hypot(up[:, 0], up[:, 1]) * self._half_widths

    @functools.cached_property
    def speeds(self) -> np.ndarray:
        """Linear speeds [items] in m/s."""
        return np.sqrt(np.add.reduce(self._velocities * self._velocities, axis=1))


class _BasicWardrobe:
    """Shows one of the geoms that were compiled for each basic shape."""

    def __init__(self, model: mujoco.MjModel, name: str) -> None:
        self._geoms = {
            shape: [model.geom(f"{name}_{shape}_{i}").id for i in range(len(basic_product("red", shape).parts))]
            for shape in SHAPES
        }

    def wear(self, model: mujoco.MjModel, product: Product) -> None:
        for kind, geoms in self._geoms.items():
            worn = kind == product.shape
            _show(model, geoms, product.parts[0].colour if worn else None, worn)


class _Wardrobe:
    """Gives spare primitives the sizes, places and colours of a product's parts, and the body its mass."""

    def __init__(self, model: mujoco.MjModel, name: str) -> None:
        self._body = model.body(name).id
        self._spares = {
            kind: [model.geom(f"{name}_{kind}_{i}").id for i in range(_NUM_SPARES)] for kind in _SPARE_SIZE_M
        }

    def wear(self, model: mujoco.MjModel, product: Product) -> None:
        unused = {kind: list(geoms) for kind, geoms in self._spares.items()}
        for part in product.parts:
            geom = unused[part.kind].pop(0)
            model.geom_size[geom, : len(part.size_m)] = part.size_m
            model.geom_pos[geom] = (0.0, 0.0, part.height_m)
            _show(model, [geom], part.colour, part.solid)
        for geoms in unused.values():
            _show(model, geoms, None, False)
        model.body_mass[self._body] = product.mass_kg
        model.body_inertia[self._body] = product.inertia


def _show(model: mujoco.MjModel, geoms: list[int], colour: tuple[float, float, float] | None, solid: bool) -> None:
    """Paints geoms, or hides them where there is no colour."""
    model.geom_rgba[geoms] = (0.0, 0.0, 0.0, 0.0) if colour is None else (*colour, 1.0)
    bits = collision.WORLD if solid else collision.NOTHING
    model.geom_contype[geoms] = bits["contype"]
    model.geom_conaffinity[geoms] = bits["conaffinity"]
