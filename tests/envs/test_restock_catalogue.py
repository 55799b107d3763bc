"""The catalogue of goods: enough of them, told apart by words, never the same in training and evaluation."""

import mujoco
import numpy as np
import pytest

import envs
from envs.restock.catalogue import CATALOGUE_SHAPES, products
from envs.restock.draws import draw_goods
from envs.restock.layouts import MisplacedConfig

POOL, EVALUATION = products("pool"), products("evaluation")


def test_there_are_enough_goods_with_names_of_their_own():
    assert len(POOL) >= 500
    assert len(EVALUATION) >= 40
    names = [product.name for product in (*POOL, *EVALUATION)]
    assert len(set(names)) == len(names)
    assert {product.shape for product in POOL} == set(CATALOGUE_SHAPES)


def test_evaluation_asks_for_pairs_of_shape_and_colour_never_seen_in_training_in_words_that_were():
    pairs = [{(product.shape, product.colour) for product in goods} for goods in (POOL, EVALUATION)]
    assert not pairs[0] & pairs[1]
    words = [{word for product in goods for word in product.name.split()} for goods in (POOL, EVALUATION)]
    assert words[1] <= words[0]


def test_goods_differ_in_size_mass_and_look_and_fit_the_gripper():
    looks = {(product.shape, product.parts) for product in POOL}
    assert len(looks) == len(POOL)
    heights, masses = ([getattr(product, field) for product in POOL] for field in ("half_height_m", "mass_kg"))
    assert max(heights) > 1.3 * min(heights)
    assert max(masses) > 3 * min(masses)
    for product in (*POOL, *EVALUATION):
        square = product.shape in ("flask", "box", "carton")
        assert 0.015 < product.half_width_m * (np.sqrt(2) if square else 1.0) < 0.045
        top = max(part.height_m + part.size_m[-1] for part in product.parts)
        assert top == pytest.approx(product.half_height_m)
        assert min(part.height_m - part.size_m[-1] for part in product.parts) == pytest.approx(-product.half_height_m)


def test_goods_of_one_scene_can_be_told_apart_by_more_than_size():
    config = MisplacedConfig(catalogue="pool", num_distractors=3)
    for seed in range(200):
        goods = draw_goods(config, np.random.default_rng(seed))
        assert len({product.sized_alike_name for product in goods}) == config.num_items


def test_a_dressed_body_weighs_and_looks_what_the_catalogue_says():
    env = envs.load("restock_misplaced", catalogue="pool")
    masses = set()
    for seed in range(5):
        env.reset(seed)
        model = env.task.model
        for index, name in enumerate(env.task.item_names):
            product = next(product for product in POOL if product.name == name)
            body = model.body(f"item_{index}")
            assert body.mass[0] == product.mass_kg
            assert body.subtreemass[0] == pytest.approx(product.mass_kg)
            geoms = range(body.geomadr[0], body.geomadr[0] + body.geomnum[0])
            assert sum(model.geom_rgba[geom, 3] > 0 for geom in geoms) == len(product.parts)
            assert sum(model.geom_contype[geom] > 0 for geom in geoms) == sum(part.solid for part in product.parts)
            masses.add(product.mass_kg)
    assert len(masses) > 5
    fresh = mujoco.MjData(env.task.model)
    mujoco.mj_forward(env.task.model, fresh)
    assert np.isfinite(fresh.qacc).all()


def test_unknown_catalogue_is_refused():
    with pytest.raises(ValueError, match="catalogue must be one of"):
        products("attic")
    with pytest.raises(ValueError, match="catalogue must be one of"):
        envs.load("restock_cooler", catalogue="attic")
