"""Named sets of worlds to evaluate in, by label."""

import difflib
from collections.abc import Callable, Collection, Mapping
from types import MappingProxyType

import envs
from sop_jax.evaluation.world import WorldConfig
from sop_jax.specs.errors import ConfigError

MAIN = ("restock_shelf", "laundry_fold", "box_assembly")
RESTOCKING = ("restock_shelf", "restock_misplaced", "restock_freezer", "restock_cooler")
NEW_GOODS = "new_goods"
"""What a label of a restocking task ends in where the goods are those that nobody trains on."""


def tasks_suite(tasks: Collection[str], image_size: int = 64) -> dict[str, WorldConfig]:
    """These tasks as they are. Raises ConfigError: one of them is unknown."""
    for task in tasks:
        if task not in envs.TASKS:
            near = difflib.get_close_matches(task, envs.TASKS, n=1)
            hint = f"; did you mean {near[0]!r}?" if near else ""
            raise ConfigError(f"unknown task {task!r}: expected some of {', '.join(envs.TASKS)}{hint}")
    return {task: WorldConfig(task, image_size=image_size) for task in tasks}


def find_suite(name: str, *, trained: Collection[str] = (), image_size: int = 64) -> dict[str, WorldConfig]:
    """The suite of this name.

    | suite | worlds |
    |---|---|
    | main | the tasks of the paper's main results: one of each kind |
    | restocking | the four restocking tasks |
    | retention | what is not being trained now: all tasks but `trained`, and every restocking task with the goods of the \
`evaluation` catalogue, whose pairs of shape and colour are in no training |

    Args:
        trained: the tasks that are being trained; only `retention` asks.

    Raises:
        ConfigError: no suite has this name, or no task one of `trained`.
    """
    if name not in _SUITES:
        raise ConfigError(f"unknown suite {name!r}: expected one of {', '.join(_SUITES)}")
    tasks_suite(trained)
    return _SUITES[name](trained, image_size)


def _retention(trained: Collection[str], image_size: int) -> dict[str, WorldConfig]:
    untrained = tasks_suite([task for task in envs.TASKS if task not in trained], image_size)
    unseen = {f"{task}.{NEW_GOODS}": WorldConfig(task, image_size, catalogue="evaluation") for task in RESTOCKING}
    return untrained | unseen


_SUITES: Mapping[str, Callable[[Collection[str], int], dict[str, WorldConfig]]] = MappingProxyType(
    {
        "main": lambda _, image_size: tasks_suite(MAIN, image_size),
        "restocking": lambda _, image_size: tasks_suite(RESTOCKING, image_size),
        "retention": _retention,
    }
)
SUITES = tuple(_SUITES)
