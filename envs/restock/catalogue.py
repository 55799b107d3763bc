"""The catalogue: hundreds of goods made of primitives, each with a name that can be said in an instruction.

`basic` is what the first restocking policies knew: three shapes, all of one size and weight. `pool` (for training) and
`evaluation` are drawn once, always the same: they differ in shape, size, colour, decoration and mass, and no pair of
shape and colour is in both, so that evaluation asks for things never seen, in words that are all known.
"""

import dataclasses
import functools
import itertools
from collections.abc import Mapping
from types import MappingProxyType

import numpy as np

Colour = tuple[float, float, float]

COLOURS: Mapping[str, Colour] = MappingProxyType(
    {
        "red": (0.90, 0.10, 0.10),
        "green": (0.05, 0.65, 0.15),
        "blue": (0.10, 0.20, 0.90),
        "yellow": (0.98, 0.85, 0.05),
        "purple": (0.55, 0.10, 0.70),
        "white": (0.97, 0.97, 0.97),
        "orange": (0.98, 0.48, 0.05),
        "pink": (0.98, 0.55, 0.75),
        "brown": (0.42, 0.24, 0.10),
        "black": (0.08, 0.08, 0.09),
        "turquoise": (0.10, 0.75, 0.75),
    }
)
SHAPES = ("can", "box", "bottle")
CATALOGUE_SHAPES = ("can", "bottle", "jar", "tub", "flask", "box", "carton")
CATALOGUES = ("basic", "pool", "evaluation")
HALF_HEIGHT_M = 0.035
HALF_WIDTH_M = 0.026

_NUM_POOL, _NUM_EVALUATION, _NUM_PAIRS_HELD_OUT = 600, 60, 12
_SEED = 2026
_METAL = (0.72, 0.73, 0.75)
_SKIN_M = 0.0015  # how far a label stands out, so that it is drawn in front of what it covers
_HALF_HEIGHTS_M = MappingProxyType({"short": (0.0295, 0.0315), "": (0.0345, 0.0365), "tall": (0.0395, 0.0415)})
# The gripper opens 10 cm: what is square must pass it cornerwise.
_HALF_WIDTHS_M = MappingProxyType(
    {
        "can": (0.023, 0.031),
        "bottle": (0.022, 0.029),
        "jar": (0.024, 0.031),
        "tub": (0.029, 0.033),
        "flask": (0.024, 0.027),
        "box": (0.020, 0.026),
        "carton": (0.022, 0.026),
    }
)
_CAPPED = ("bottle", "jar", "tub", "flask")


@dataclasses.dataclass(frozen=True)
class Part:
    """One primitive of a product, upright: `size_m` is (radius, half height) or three half edges; `height_m` its centre
    over the product's centre; `solid` parts collide, others are paint.
    """

    kind: str
    size_m: tuple[float, ...]
    height_m: float
    colour: Colour
    solid: bool = True


@dataclasses.dataclass(frozen=True)
class Product:
    """One kind of goods. Its origin is the middle of its height; `half_width_m` is its half width, or radius."""

    name: str
    shape: str
    colour: str
    parts: tuple[Part, ...]
    half_height_m: float = HALF_HEIGHT_M
    half_width_m: float = HALF_WIDTH_M
    mass_kg: float = 0.2

    @property
    def sized_alike_name(self) -> str:
        """The name without the word for its size: goods that differ in size alone are hard to tell apart."""
        return self.name.removeprefix("short ").removeprefix("tall ")

    @property
    def inertia(self) -> tuple[float, float, float]:
        """Principal moments about the centre of mass, those of a cylinder of the same size [kg m^2]."""
        radius, height = self.half_width_m, 2 * self.half_height_m
        tumbling = self.mass_kg * (3 * radius**2 + height**2) / 12
        return tumbling, tumbling, self.mass_kg * radius**2 / 2


@functools.cache
def basic_product(colour: str, shape: str) -> Product:
    """A `red can` and its like."""
    rgb = COLOURS[colour]
    parts = {
        "can": (Part("cylinder", (0.027, HALF_HEIGHT_M), 0.0, rgb),),
        "box": (Part("box", (0.025, 0.025, HALF_HEIGHT_M), 0.0, rgb),),
        "bottle": (Part("cylinder", (0.026, 0.025), -0.010, rgb), Part("cylinder", (0.011, 0.010), 0.025, rgb)),
    }[shape]
    return Product(f"{colour} {shape}", shape, colour, parts)


@functools.cache
def products(catalogue: str) -> tuple[Product, ...]:
    """All products of `pool` or `evaluation`, always the same ones in the same order.

    Raises:
        ValueError: no such catalogue.
    """
    if catalogue == "basic":
        return tuple(basic_product(colour, shape) for colour in COLOURS for shape in SHAPES)
    if catalogue not in CATALOGUES:
        raise ValueError(f"catalogue must be one of {CATALOGUES}, got {catalogue!r}")
    rng = np.random.default_rng(_SEED)
    pairs = list(itertools.product(CATALOGUE_SHAPES, COLOURS))
    held_out = {pairs[i] for i in rng.permutation(len(pairs))[:_NUM_PAIRS_HELD_OUT]}
    in_evaluation = catalogue == "evaluation"
    kinds = [
        (shape, colour, size, decoration, paint)
        for shape, colour in pairs
        if ((shape, colour) in held_out) == in_evaluation
        for size in _HALF_HEIGHTS_M
        for decoration, paint in _decorations(shape, colour)
    ]
    chosen = rng.permutation(len(kinds))[: _NUM_EVALUATION if in_evaluation else _NUM_POOL]
    return tuple(_make(kinds[i], rng) for i in chosen)


def _decorations(shape: str, colour: str) -> list[tuple[str, str]]:
    kinds = ("label", "stripes", "cap") if shape in _CAPPED else ("label", "stripes")
    return [("plain", ""), *((kind, paint) for kind in kinds for paint in COLOURS if paint != colour)]


def _make(kind: tuple[str, str, str, str, str], rng: np.random.Generator) -> Product:
    """One product; what its name leaves open (exact size, shade, mass) comes from `rng`."""
    shape, colour, size, decoration, paint = kind
    half_height, half_width = rng.uniform(*_HALF_HEIGHTS_M[size]), rng.uniform(*_HALF_WIDTHS_M[shape])
    body = _shade(np.array(COLOURS[colour]) + rng.uniform(-0.05, 0.05, size=3))
    second = COLOURS[paint] if paint else body
    top = second if decoration == "cap" else _shade(0.6 * np.array(body) + 0.12)
    article = "an" if paint.startswith("o") else "a"
    solids = _solids(shape, half_width, half_height, body, top)
    name = {
        "plain": f"plain {colour} {shape}",
        "label": f"{colour} {shape} with {article} {paint} label",
        "stripes": f"{colour} {shape} with two {paint} stripes",
        "cap": f"{colour} {shape} with {article} {paint} cap",
    }[decoration]
    volume = 3.0 * half_width**2 * 2 * half_height
    return Product(
        name=f"{size} {name}".strip(),
        shape=shape,
        colour=colour,
        parts=(*solids, *_bands(solids[0], decoration, second)),
        half_height_m=half_height,
        half_width_m=half_width,
        mass_kg=round(volume * rng.uniform(500.0, 1200.0), 4),
    )


def _shade(rgb: np.ndarray) -> Colour:
    red, green, blue = (float(channel) for channel in np.clip(rgb, 0.0, 1.0))
    return red, green, blue


def _solids(shape: str, width: float, height: float, body: Colour, top: Colour) -> tuple[Part, ...]:
    """The body first, then what sits on it; together they are `2 * height` high."""

    def stacked(share: float, *above: tuple[str, tuple[float, ...], Colour, float]) -> tuple[Part, ...]:
        """Parts on top of each other: the body takes `share` of the height, the others theirs."""
        square = shape in ("flask", "box", "carton")
        sizes = (width, depth, share * height) if square else (radius, share * height)
        parts, level = [Part("box" if square else "cylinder", sizes, (share - 1.0) * height, body)], share
        for kind, across, colour, part_share in above:
            centre = (2 * level + part_share - 1.0) * height
            parts.append(Part(kind, (*across, part_share * height), centre, colour))
            level += part_share
        return tuple(parts)

    depth = width * {"box": 0.8, "flask": 0.75}.get(shape, 1.0)
    radius = width * (0.94 if shape == "tub" else 1.0)
    if shape == "can":
        return stacked(0.97, ("cylinder", (0.9 * width,), _METAL, 0.03))
    if shape == "bottle":
        return stacked(0.68, ("cylinder", (0.45 * width,), body, 0.17), ("cylinder", (0.50 * width,), top, 0.15))
    if shape == "flask":
        return stacked(0.76, ("cylinder", (0.55 * width,), top, 0.24))
    if shape == "jar":
        return stacked(0.80, ("cylinder", (0.86 * width,), top, 0.20))
    if shape == "tub":
        return stacked(0.88, ("cylinder", (width,), top, 0.12))
    if shape == "carton":
        return stacked(0.80, ("box", (width, 0.55 * width), body, 0.12), ("box", (width, 0.12 * width), top, 0.08))
    return stacked(1.0)


def _bands(body: Part, decoration: str, colour: Colour) -> tuple[Part, ...]:
    """Paint around a body: one broad label, or two stripes."""
    half = body.size_m[-1]
    heights = {"label": ((0.0, 0.5),), "stripes": ((-0.45, 0.17), (0.45, 0.17))}.get(decoration, ())
    around = tuple(size + _SKIN_M for size in body.size_m[:-1])
    return tuple(
        Part(body.kind, (*around, share * half), body.height_m + at * half, colour, solid=False)
        for at, share in heights
    )
