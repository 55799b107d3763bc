import pytest

from sop_jax.evaluation.world import WorldConfig, make_robot
from sop_jax.specs.clock import ManualClock
from sop_jax.specs.errors import ConfigError


def test_one_world_for_several_tasks_tells_only_restocking_about_goods():
    world = WorldConfig("restock_shelf", image_size=16, catalogue="pool", num_distractors=1, individuals="workshop")
    assert world.for_task("restock_cooler") == WorldConfig("restock_cooler", 16, "pool", 1, individuals="workshop")
    box = world.for_task("box_assembly")
    assert box == WorldConfig("box_assembly", 16, individuals="workshop")
    make_robot(box, ManualClock(), "box-0").close()
    with pytest.raises(ConfigError, match="catalogue"):  # asked for outright, it is still refused
        make_robot(WorldConfig("box_assembly", catalogue="pool"), ManualClock(), "box-0")
