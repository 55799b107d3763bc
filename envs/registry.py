"""Tasks by name: how to load one, who demonstrates it, who watches it."""

import dataclasses
import difflib
import types
from collections.abc import Callable, Mapping
from typing import Any

from envs.box.config import BoxConfig
from envs.box.expert import BoxExpert
from envs.box.gate import BoxGate
from envs.box.task import BoxTask
from envs.environment import Environment
from envs.errors import UnknownTaskError
from envs.individual import Individual
from envs.laundry.config import LaundryConfig
from envs.laundry.expert import LaundryExpert
from envs.laundry.gate import LaundryGate
from envs.laundry.task import LaundryTask
from envs.restock.config import RestockConfig
from envs.restock.expert import RestockExpert
from envs.restock.gate import RestockGate
from envs.restock.layouts import CoolerConfig, FreezerConfig, MisplacedConfig
from envs.restock.task import RestockTask
from envs.task import Expert, Gate, Task


@dataclasses.dataclass(frozen=True)
class Registration:
    """How one task is made.

    config: its default configuration, a frozen dataclass with at least `time_limit_s`.
    make_task(config); make_expert(env, task, style_seed, instruction); make_gate(env, task, gate_config or None).
    stages: all of them, in the order in which they are passed.
    """

    config: Any
    make_task: Callable[[Any], Task]
    make_expert: Callable[[Environment, Any, int, str | None], Expert]
    make_gate: Callable[[Environment, Any, Any], Gate]
    stages: tuple[str, ...]


_RESTOCKING = (RestockTask, RestockExpert, RestockGate, RestockTask.stage_names)
_REGISTRATIONS: Mapping[str, Registration] = types.MappingProxyType(
    {
        "restock_shelf": Registration(RestockConfig(), *_RESTOCKING),
        "restock_misplaced": Registration(MisplacedConfig(), *_RESTOCKING),
        "restock_freezer": Registration(FreezerConfig(), *_RESTOCKING),
        "restock_cooler": Registration(CoolerConfig(), *_RESTOCKING),
        "box_assembly": Registration(BoxConfig(), BoxTask, BoxExpert, BoxGate, BoxTask.stage_names),
        "laundry_fold": Registration(LaundryConfig(), LaundryTask, LaundryExpert, LaundryGate, LaundryTask.stage_names),
    }
)
TASKS = tuple(_REGISTRATIONS)


def load(
    task: str,
    *,
    image_size: int = 64,
    seed: int = 0,
    config: Any = None,
    render_on_step: bool = False,
    individual: Individual | None = None,
    shuffle_instructions: bool = False,
    **changes: Any,
) -> Environment:
    """Makes an environment. `changes` replace values of `config` (default: the task's own); None changes nothing.

        envs.load("restock_shelf", num_distractors=1, time_limit_s=5.0)

    Raises:
        UnknownTaskError: no task has this name.
        ValueError: the task's configuration has no such value, or not in this range.
    """
    registration = _find(task)
    config = registration.config if config is None else config
    changes = {name: value for name, value in changes.items() if value is not None}
    known = {field.name for field in dataclasses.fields(config)}
    if unknown := sorted(set(changes) - known):
        raise ValueError(f"task {task!r} has no {', '.join(unknown)} to change; it has {', '.join(sorted(known))}")
    made = registration.make_task(dataclasses.replace(config, **changes))
    return Environment(made, image_size, seed, render_on_step, individual, shuffle_instructions)


def make_expert(env: Environment, style_seed: int = 0, instruction: str | None = None) -> Expert:
    """The scripted expert of the environment's task; `instruction` replaces the episode's own."""
    return _find(env.task_name).make_expert(env, env.task, style_seed, instruction)


def make_gate(env: Environment, config: Any = None) -> Gate:
    """The scripted gate of the environment's task; `config` is that task's gate configuration."""
    return _find(env.task_name).make_gate(env, env.task, config)


def stages_of(task: str) -> tuple[str, ...]:
    """All stages of a task, in the order in which they are passed; its world isn't made."""
    return _find(task).stages


def _find(task: str) -> Registration:
    if task not in _REGISTRATIONS:
        near = difflib.get_close_matches(task, TASKS, n=1)
        hint = f"; did you mean {near[0]!r}?" if near else ""
        raise UnknownTaskError(f"unknown task {task!r}: expected one of {TASKS}{hint}")
    return _REGISTRATIONS[task]
