import pytest

import envs
from envs.restock.catalogue import products
from sop_jax.evaluation.suites import MAIN, RESTOCKING, SUITES, find_suite, tasks_suite
from sop_jax.evaluation.world import EVALUATED_ROBOT, make_robot
from sop_jax.specs.clock import ManualClock
from sop_jax.specs.errors import ConfigError


def test_main_has_one_task_of_each_kind_and_restocking_all_variants():
    assert tuple(find_suite("main")) == MAIN
    assert tuple(find_suite("restocking")) == RESTOCKING
    assert {world.task for world in find_suite("restocking", image_size=96).values()} == set(RESTOCKING)
    assert {world.image_size for world in find_suite("restocking", image_size=96).values()} == {96}


def test_retention_is_what_is_not_trained_and_goods_that_nobody_trains_on():
    suite = find_suite("retention", trained=["restock_shelf", "box_assembly"])
    as_they_are = {label: world for label, world in suite.items() if world.catalogue is None}
    assert set(as_they_are) == set(envs.TASKS) - {"restock_shelf", "box_assembly"}
    unseen = {label: world for label, world in suite.items() if world.catalogue is not None}
    assert {world.task for world in unseen.values()} == set(RESTOCKING)
    assert {world.catalogue for world in unseen.values()} == {"evaluation"}
    assert set(find_suite("retention")) >= set(envs.TASKS)


@pytest.mark.parametrize("label", sorted(find_suite("retention", trained=envs.TASKS)))
def test_new_goods_are_from_the_catalogue_that_is_held_out(label):
    robot = make_robot(find_suite("retention")[label], ManualClock(), EVALUATED_ROBOT)
    held_out = [product.name for product in products("evaluation")]
    trained = [product.name for product in products("pool")]
    for seed in range(3):
        robot.reset(seed)
        assert any(name in robot.instruction for name in held_out)
        assert not any(f"the {name} " in robot.instruction for name in trained)
    robot.close()


def test_unknown_names_are_refused_with_a_near_one():
    with pytest.raises(ConfigError, match="did you mean 'laundry_fold'"):
        tasks_suite(["laundry_fould"])
    with pytest.raises(ConfigError, match="unknown suite 'mane'"):
        find_suite("mane")
    with pytest.raises(ConfigError, match="unknown task 'shelf'"):
        find_suite("retention", trained=["shelf"])
    assert set(SUITES) == {"main", "restocking", "retention"}
