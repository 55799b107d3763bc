"""Tasks by name: how to load one, who demonstrates it, who watches it."""

import dataclasses
import difflib

from envs.environment import Environment
from envs.errors import UnknownTaskError
from envs.restock.config import RestockConfig
from envs.restock.expert import RestockExpert
from envs.restock.gate import GateConfig, RestockGate
from envs.restock.task import RestockTask
from envs.task import Expert, Gate

TASKS = ("restock_shelf",)


def load(
    task: str,
    *,
    image_size: int = 64,
    seed: int = 0,
    num_distractors: int | None = None,
    time_limit_s: float | None = None,
    config: RestockConfig | None = None,
    render_on_step: bool = False,
) -> Environment:
    """Makes an environment. `num_distractors` and `time_limit_s` replace those of `config` (default: the task's own).

    Raises:
        UnknownTaskError: no task has this name.
    """
    if task not in TASKS:
        near = difflib.get_close_matches(task, TASKS, n=1)
        hint = f"; did you mean {near[0]!r}?" if near else ""
        raise UnknownTaskError(f"unknown task {task!r}: expected one of {TASKS}{hint}")
    config = config or RestockConfig()
    if num_distractors is not None:
        config = dataclasses.replace(config, num_distractors=num_distractors)
    if time_limit_s is not None:
        config = dataclasses.replace(config, time_limit_s=time_limit_s)
    return Environment(RestockTask(config), image_size=image_size, seed=seed, render_on_step=render_on_step)


def make_expert(env: Environment, style_seed: int = 0, instruction: str | None = None) -> Expert:
    """The scripted expert of the environment's task; `instruction` replaces the episode's own."""
    return RestockExpert(env, _restock(env), style_seed, instruction)


def make_gate(env: Environment, config: GateConfig | None = None) -> Gate:
    """The scripted gate of the environment's task."""
    return RestockGate(env, _restock(env), config)


def _restock(env: Environment) -> RestockTask:
    if not isinstance(env.task, RestockTask):
        raise UnknownTaskError(f"task {env.task_name!r} has no expert and no gate: expected one of {TASKS}")
    return env.task
