"""Worlds for the AgiBot G1 in MuJoCo: tasks, scripted experts and gates. Imports nothing of `sop_jax`."""

from envs import _backend as _backend
from envs.environment import CAMERAS, Environment
from envs.errors import DivergedError, InvalidActionError, UnknownTaskError
from envs.registry import TASKS, load, make_expert, make_gate
from envs.task import Expert, Gate, Task

__all__ = [
    "CAMERAS",
    "TASKS",
    "DivergedError",
    "Environment",
    "Expert",
    "Gate",
    "InvalidActionError",
    "Task",
    "UnknownTaskError",
    "load",
    "make_expert",
    "make_gate",
]
