"""Worlds for the AgiBot G1 in MuJoCo: tasks, scripted experts and gates. Imports nothing of `sop_jax`."""

from envs.batch import EnvironmentBatch
from envs.environment import CAMERAS, Environment
from envs.errors import DivergedError, InvalidActionError, RenderingError, UnknownTaskError
from envs.individual import DISTRIBUTIONS, Individual, draw_individual
from envs.registry import TASKS, load, make_expert, make_gate, stages_of
from envs.task import Expert, Gate, Task

__all__ = [
    "CAMERAS",
    "DISTRIBUTIONS",
    "TASKS",
    "DivergedError",
    "Environment",
    "EnvironmentBatch",
    "Expert",
    "Gate",
    "Individual",
    "InvalidActionError",
    "RenderingError",
    "Task",
    "UnknownTaskError",
    "draw_individual",
    "load",
    "make_expert",
    "make_gate",
    "stages_of",
]
