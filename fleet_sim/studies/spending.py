"""What a method took: robots' hours, people's minutes, learner steps."""

import dataclasses
import statistics
from collections.abc import Iterable, Mapping
from typing import Any

from fleet_sim.studies.grid import Results
from fleet_sim.studies.methods import RECAP_BASE_CELL, VALUE_CELL, MainResultsConfig
from sop_jax.evaluation.supervision import completions_per_hour


@dataclasses.dataclass(frozen=True)
class Spending:
    """What a method took, mean over training seeds; None where nothing was spent.

    human_minutes: people acted. people_minutes: they acted, or set a scene up again (`reset_s` after every episode); watching
        isn't counted.
    """

    robot_hours: float | None
    human_minutes: float | None
    people_minutes: float | None
    learner_steps: float | None
    human_minutes_per_success: float | None
    staleness_s: float | None
    online_share: float | None


@dataclasses.dataclass(frozen=True)
class Besides:
    """What RECAP's methods have on top of their spending, made once for all of their training seeds.

    robot_hours: for which the base policy worked unhelped, for the value function. reset_minutes: of people, who set scenes
        up again in these.
    value_steps: of the value function's training. base_steps: of the learner, on demonstrations with the prompt.
    """

    robot_hours: float
    reset_minutes: float
    value_steps: int
    base_steps: int


def spending_of(cells: Iterable[Mapping[str, Any]], reset_s: float) -> Spending:
    """Means over a method's cells, one per training seed; `reset_s` of a person's time after every episode."""
    fleets = [cell["fleet"] for cell in cells if "fleet" in cell]
    if not fleets:
        return Spending(None, None, None, None, None, None, None)
    human = [fleet["human_s"] / 60 for fleet in fleets]
    resets = [_reset_minutes(fleet, reset_s) for fleet in fleets]
    successes = [sum(task["num_successes"] for task in fleet["tasks"].values()) for fleet in fleets]
    ages = [fleet["median_staleness_s"] for fleet in fleets if fleet["median_staleness_s"] is not None]
    return Spending(
        robot_hours=statistics.fmean(fleet["robot_hours"] for fleet in fleets),
        human_minutes=statistics.fmean(human),
        people_minutes=statistics.fmean(human) + statistics.fmean(resets),
        learner_steps=statistics.fmean(fleet["learner_steps"] for fleet in fleets),
        human_minutes_per_success=sum(human) / sum(successes) if sum(successes) else None,
        staleness_s=statistics.fmean(ages) if ages else None,
        online_share=statistics.fmean(fleet["online_share"] for fleet in fleets),
    )


def fleet_completions_per_h(cells: Iterable[Mapping[str, Any]], task: str, reset_s: float) -> float | None:
    """What a method's fleets completed of a task while they learnt, with or without help, per hour of one robot: of its
    episodes, while people act too, and `reset_s` after each. Over all training seeds together.

    None: there were no episodes of it, or a cell doesn't say how long they took.
    """
    fleets = [cell["fleet"]["tasks"] for cell in cells if "fleet" in cell]
    totals = [tasks[task] for tasks in fleets if task in tasks]
    if not totals or any("robot_s" not in total for total in totals):
        return None
    num_successes, num_episodes, robot_s = (
        sum(total[name] for total in totals) for name in ("num_successes", "num_episodes", "robot_s")
    )
    return completions_per_hour(num_successes, num_episodes, robot_s, reset_s) if num_episodes else None


def besides_of(config: MainResultsConfig, results: Results) -> Besides | None:
    """Of the cells that are done; None before RECAP has anything."""
    if VALUE_CELL not in results:
        return None
    rollouts, base = results[VALUE_CELL]["fleet"], results.get(RECAP_BASE_CELL)
    return Besides(
        robot_hours=rollouts["robot_hours"],
        reset_minutes=_reset_minutes(rollouts, config.fleet.reset_s),
        value_steps=config.value_steps,
        base_steps=0 if base is None else base["fleet"]["learner_steps"],
    )


def _reset_minutes(fleet: Mapping[str, Any], reset_s: float) -> float:
    return reset_s / 60 * sum(task["num_episodes"] for task in fleet["tasks"].values())
