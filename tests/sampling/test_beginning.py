"""When a learner that waits for online data begins."""

import pytest

from sop_jax.algorithms.algorithm import Algorithm
from sop_jax.algorithms.behaviour_cloning import BehaviourCloning, BehaviourCloningConfig
from sop_jax.algorithms.hg_dagger import HgDagger
from sop_jax.algorithms.recap.recap import Recap
from sop_jax.sampling.beginning import MAX_WAIT_S, Beginning
from sop_jax.specs.clock import ManualClock
from sop_jax.specs.interfaces import TableInfo

HG_DAGGER = HgDagger()
TASKS = ("restock_shelf", "laundry_fold")


def holding(**sizes: int) -> dict[str, TableInfo]:
    """Tables of both tasks; `sizes`: how many online items each has."""
    names = {f"{task}/online": sizes.get(task, 0) for task in TASKS} | {f"{task}/offline": 100 for task in TASKS}
    return {name: TableInfo(name, size, 1000, size, 0) for name, size in names.items()}


def make(algorithm: Algorithm = HG_DAGGER, num_items: int = 2) -> tuple[Beginning, ManualClock]:
    clock = ManualClock(start_ns=10**15)
    return Beginning(algorithm, TASKS, num_items, clock), clock


def test_it_waits_for_as_many_online_items_as_asked_for():
    beginning, _ = make()
    assert not beginning.has_come({})  # a server that still starts
    assert not beginning.has_come(holding())
    assert not beginning.has_come(holding(restock_shelf=1, laundry_fold=1))
    assert beginning.has_come(holding(restock_shelf=2))
    assert beginning.num_items == 2


@pytest.mark.parametrize("task", TASKS)
def test_a_task_that_never_needs_a_correction_holds_up_no_other(task):
    beginning, _ = make()
    assert beginning.has_come(holding(**{task: 2}))


def test_once_begun_it_has_begun():
    beginning, _ = make()
    assert beginning.has_come(holding(restock_shelf=2))
    assert beginning.has_come(holding())  # retention took them out


@pytest.mark.parametrize(
    ("algorithm", "waits"),
    [
        (BehaviourCloning(), False),
        (BehaviourCloning(BehaviourCloningConfig(online_successes=True)), True),
        (HgDagger(), True),
        (Recap(), True),
    ],
)
def test_nobody_waits_for_data_that_teach_nothing(algorithm, waits):
    beginning, _ = make(algorithm)
    assert beginning.has_come(holding()) is not waits
    assert beginning.num_items == 2 * waits


def test_none_asked_for_is_none_waited_for():
    beginning, _ = make(num_items=0)
    assert not beginning.has_come({})  # a server that still starts
    assert beginning.has_come(holding())


def test_a_fleet_without_people_gets_a_learner_after_all():
    """Its online tables stay empty for ever."""
    beginning, clock = make()
    clock.advance_s(10 * MAX_WAIT_S)
    assert not beginning.has_come(holding())  # from the first asking on
    clock.advance_s(MAX_WAIT_S - 1)
    assert not beginning.has_come(holding())
    clock.advance_s(1)
    assert beginning.has_come(holding())
