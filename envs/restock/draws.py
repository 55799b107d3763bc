"""What an episode's seed decides: which goods are there, where they stand, what is asked."""

import numpy as np

from envs.restock.catalogue import Product, basic_product, products
from envs.restock.config import SceneConfig
from envs.restock.situation import Goal

_MAX_DRAWS = 10_000


def draw_goods(config: SceneConfig, rng: np.random.Generator) -> tuple[Product, ...]:
    """The goods of one scene, `config.num_items` of them, told apart by more than their size."""
    if config.catalogue == "basic":
        colours = [str(colour) for colour in rng.permutation(config.colours)[: config.num_items]]
        shapes = [str(shape) for shape in rng.choice(config.shapes, size=config.num_items)]
        return tuple(basic_product(colour, shape) for colour, shape in zip(colours, shapes, strict=True))
    offered = [product for product in products(config.catalogue) if product.shape in config.catalogue_shapes]
    goods: list[Product] = []
    for index in rng.permutation(len(offered)):
        if all(offered[index].sized_alike_name != other.sized_alike_name for other in goods):
            goods.append(offered[index])
        if len(goods) == config.num_items:
            return tuple(goods)
    raise ValueError(
        f"catalogue {config.catalogue!r} has too few {config.catalogue_shapes} for {config.num_items} items"
    )


def draw_goal(config: SceneConfig, rng: np.random.Generator) -> Goal:
    """Any item, any slot."""
    item, names = int(rng.integers(config.num_items)), tuple(config.slots)
    return Goal(item, names[rng.integers(len(names))])


def draw_origins(config: SceneConfig, goal: Goal, rng: np.random.Generator) -> tuple[str | None, ...]:
    """In which slots the items stand at first: each in one of its own, but none where the named one belongs."""
    if not config.starts_in_slots:
        return (None,) * config.num_items
    taken = [name for name in config.slots if name != goal.slot]
    return tuple(taken[i] for i in rng.permutation(len(taken))[: config.num_items])


def draw_stands(
    config: SceneConfig, origins: tuple[str | None, ...], rng: np.random.Generator
) -> tuple[np.ndarray, np.ndarray]:
    """Where the items stand at first: spots [items, 2] and the heights of what is below them [items], in m."""
    slots = [config.slots[name] for name in origins if name is not None]
    if not slots:
        return draw_spots(config, rng), np.full(config.num_items, config.table_height_m)
    spots = np.array([(slot.x_m, slot.y_m) for slot in slots])
    offset = config.start_offset_m
    return spots + rng.uniform(-offset, offset, size=spots.shape), np.array([slot.surface_m for slot in slots])


def draw_spots(config: SceneConfig, rng: np.random.Generator) -> np.ndarray:
    """Spots of the staging area [items, 2] in m, at least `item_spacing_m` apart.

    Raises:
        ValueError: the staging area is too small for that many items.
    """
    low, high = np.array([config.staging_x_m, config.staging_y_m]).T
    for _ in range(_MAX_DRAWS):
        spots = rng.uniform(low, high, size=(config.num_items, 2))
        gaps = np.linalg.norm(spots[:, None] - spots[None], axis=-1) + np.eye(config.num_items)
        if gaps.min() >= config.item_spacing_m:
            return spots
    raise ValueError(
        f"{config.num_items} items {config.item_spacing_m} m apart do not fit into x {config.staging_x_m}, "
        f"y {config.staging_y_m}: fewer distractors or a larger staging area"
    )
