"""`sop fleet plan`: what a real deployment would do, before it is built. `sop fleet --clock ...`: see `fleet_run`."""

import dataclasses
import math
from collections.abc import Sequence

from rich.table import Table

from fleet_sim.deployment import Deployment
from fleet_sim.drawn_episodes import DrawnFromMeans, Spread
from fleet_sim.dynamics import DynamicsConfig, simulate
from fleet_sim.planning import Figures, Plan, predict
from fleet_sim.quantities import parse_seconds, show_bytes, show_seconds
from fleet_sim.tally import DynamicsResult
from sop_jax.cli.arguments import parse, refuse_unused
from sop_jax.cli.deployment_options import PlanArguments, deployment_of
from sop_jax.cli.episodes import take_action
from sop_jax.cli.fleet_run import run_fleet
from sop_jax.cli.output import console, print_json, say

ACTIONS = ("plan",)
_FORMS = """usage: sop fleet plan [OPTIONS]
       sop fleet --clock virtual|wall [OPTIONS]

plan: what a real deployment would do (bottleneck, staleness, data, costs), predicted in a moment.
--clock: a fleet that learns, on virtual time or, as processes with a real replay server, on wall time. It comes first.

sop fleet plan --help and sop fleet --clock virtual --help show the options."""

_ADVICE = {
    "robot links": "faster robot links, fewer kept frames per second, or smaller images",
    "shared uplink": "a faster site link, fewer kept frames per second, or robots at more sites",
    "publication on robot links": "publish less often, publish less (fewer trained weights), or faster robot links",
    "publication on the shared link": "a cache at the site (--site-cache), publish less often, or a faster site link",
    "intake": "a faster intake (more readers, nearer to the store)",
    "learner": "more learner steps per second (--steps-per-s), larger batches (--batch), or a larger online share "
    "(--online-share): new frames go by undrawn",
    "operators": "more people, shorter help, or a better base policy: robots stand and wait for people",
}
"""Resource -> what to change when it saturates."""


def run(argv: Sequence[str]) -> int:
    if argv and argv[0].startswith("--clock"):
        return run_fleet(argv)
    if argv and argv[0] in ("-h", "--help"):
        say(_FORMS)
        return 0
    _, rest = take_action("fleet", ACTIONS, argv)
    arguments = parse(PlanArguments, rest, "fleet plan")
    deployment = deployment_of(arguments)
    duration_s = parse_seconds("--simulate", arguments.simulate)
    if not duration_s:
        refuse_unused(arguments, ("rule", "patience", "seed"), "without --simulate")
    plan = predict(deployment)
    _show(deployment, plan)
    simulated = _simulate(arguments, deployment, duration_s) if duration_s else None
    if simulated is not None:
        _show_both(plan.figures, simulated)
    if arguments.json:
        summary = {**dataclasses.asdict(plan), "bottleneck": plan.bottleneck.name, "deployment": deployment}
        print_json(summary | ({} if simulated is None else {"simulated": _summary(simulated)}))
    return 0


def _simulate(arguments: PlanArguments, deployment: Deployment, duration_s: float) -> DynamicsResult:
    config = DynamicsConfig(deployment, duration_s, duration_s / 4, arguments.seed, arguments.rule)
    spread = Spread(patience_s=parse_seconds("--patience", arguments.patience))
    return simulate(config, DrawnFromMeans(deployment, spread))


def _summary(result: DynamicsResult) -> dict:
    return {
        **dataclasses.asdict(result),
        "successes_per_operator_minute": result.successes_per_operator_minute,
        "successes_per_robot_hour": result.successes_per_robot_hour,
    }


def _show_both(planned: Figures, result: DynamicsResult) -> None:
    """Plan and simulation, figure by figure."""
    table = Table(box=None, pad_edge=False)
    for column in ("figure", "plan", "simulated"):
        table.add_column(column, justify="left" if column == "figure" else "right")
    for field in dataclasses.fields(Figures):
        values = (getattr(figures, field.name) for figures in (planned, result.figures))
        table.add_row(field.name, *(_figure(value) for value in values))
    say("")
    console.print(table)
    effort = result.successes_per_operator_minute
    say(
        f"{result.num_episodes} episodes: {result.num_successes} succeeded, {result.num_lost} lost while waiting for people; "
        f"{'nobody was needed' if effort is None else f'{effort:.3g} successes per minute of people at robots'}; "
        f"{result.backlog} on their way to the replay at the end"
    )


def verdict(plan: Plan) -> list[str]:
    """What saturates and what to change, in words."""
    saturated = [load for load in plan.loads if load.load > 1]
    if not saturated:
        first = plan.bottleneck
        return [f"Nothing saturates. The nearest to it: {first.name} at {first.load:.0%}{_until(first.saturates_at)}."]
    return [
        f"{load.name} can't follow ({load.load:.3g} times what it can do): {_ADVICE[load.name]}." for load in saturated
    ]


def _until(num_robots: float) -> str:
    return "" if math.isinf(num_robots) else f", full at {num_robots:.0f} robots"


def _show(deployment: Deployment, plan: Plan) -> None:
    table = Table(box=None, pad_edge=False, show_header=False)
    for name, value in _rows(deployment, plan):
        table.add_row(name, value)
    console.print(table)
    loads = Table(box=None, pad_edge=False)
    for column in ("resource", "load", "full at robots"):
        loads.add_column(column, justify="left" if column == "resource" else "right")
    for load in plan.loads:
        full = (
            "-"
            if math.isinf(load.saturates_at)
            else "any number"
            if not load.saturates_at
            else f"{load.saturates_at:.0f}"
        )
        loads.add_row(load.name, f"{load.load:.3g}", full)
    say("")
    console.print(loads)
    say("")
    for line in verdict(plan):
        say(line)


def _rows(deployment: Deployment, plan: Plan) -> list[tuple[str, str]]:
    figures = plan.figures
    robots_each = deployment.robots.num_robots / deployment.operators.num_operators
    publication = (
        f"every {show_seconds(plan.publication_period_s)}, with the robots {show_seconds(figures.fan_out_s)} later"
    )
    weights = (
        f"{show_seconds(figures.weights_age_s)} old ({figures.versions_behind:.1f} versions) in an episode's middle"
    )
    return [
        ("episodes", f"{figures.episodes_per_hour:.4g}/h, {figures.delivered_per_hour:.4g}/h reach the replay"),
        ("an episode", f"{show_bytes(deployment.episode_bytes)}; a robot moves {figures.moving_share:.0%} of its time"),
        ("upload, intake", f"{_or_grows(figures.upload_s)}, {_or_grows(figures.intake_s)}"),
        ("publication", publication),
        ("acting weights", weights),
        ("correction latency", _or_grows(plan.correction_latency_s)),
        ("learner", f"{plan.steps_per_episode:.3g} steps per new episode, {plan.online_share:.0%} of a batch online, "
         f"a new frame is drawn {plan.draws_per_frame:.3g} times"),
        ("operators", f"busy {figures.operator_load:.0%}, a robot waits {show_seconds(figures.operator_wait_s)}; "
         f"{robots_each:.3g} robots each"),
        ("stored per day", show_bytes(plan.stored_bytes_per_day)),
        ("publications per day", f"{show_bytes(plan.fetched_bytes_per_day)} to robots, "
         f"{show_bytes(plan.site_fetched_bytes_per_day)} over the site's link"),
        ("people per day", f"{plan.operator_hours_per_day:.4g} h present, {plan.help_hours_per_day:.4g} h of help"),
        ("accelerators per day", f"{plan.accelerator_hours_per_day:.4g} h"),
    ]  # fmt: skip


def _figure(value: float) -> str:
    return "grows" if math.isinf(value) else "-" if math.isnan(value) else f"{value:.4g}"


def _or_grows(duration_s: float) -> str:
    return "grows without end" if math.isinf(duration_s) else show_seconds(duration_s)
