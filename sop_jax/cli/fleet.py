"""`sop fleet plan`: what a real deployment would do, before it is built. `sop fleet --clock ...`: see `fleet_run`."""

import dataclasses
import math
from collections.abc import Sequence
from typing import Literal

from rich.table import Table

from fleet_sim.deployment import Deployment, Network, Operators, Robots, Training
from fleet_sim.drawn_episodes import DrawnFromMeans, Spread
from fleet_sim.dynamics import DynamicsConfig, simulate
from fleet_sim.planning import Figures, Plan, predict
from fleet_sim.quantities import (
    parse_bits_per_s,
    parse_bytes,
    parse_seconds,
    parse_share,
    show_bytes,
    show_seconds,
)
from fleet_sim.tally import DynamicsResult
from sop_jax.cli.arguments import parse
from sop_jax.cli.episodes import take_action
from sop_jax.cli.fleet_run import run_fleet
from sop_jax.cli.output import console, print_json, say

ACTIONS = ("plan",)

_ADVICE = {
    "robot links": "faster robot links, fewer kept frames per second, or smaller images",
    "shared uplink": "a faster site link, fewer kept frames per second, or robots at more sites",
    "publication on robot links": "publish less often, publish less (fewer trained weights), or faster robot links",
    "publication on the shared link": "a cache at the site (--site-cache), publish less often, or a faster site link",
    "intake": "a faster intake (more readers, nearer to the store)",
    "learner": "larger batches, more accelerators, or a larger online share: new frames go by undrawn",
    "operators": "more people, shorter help, or a better base policy: robots stand and wait for people",
}
"""Resource -> what to change when it saturates."""


@dataclasses.dataclass(frozen=True)
class PlanArguments:
    """Predicts a deployment's bottleneck, staleness, data and costs from its figures, in closed form. Sizes in B, KB, MB, GB;
    rates in kbps, Mbps, Gbps or MB/s; times in ms, s, min, h, d; `unlimited` where there is no limit."""

    robots: int = 4
    """Robots that share one policy."""

    episode: str = "60s"
    """Mean length of an episode, a person's help included."""

    reset: str = "15s"
    """From an episode's end to the robot's next one."""

    failure_every: str = "unlimited"
    """Mean moving time of a robot between failures."""

    repair: str = "0s"
    """Mean time that a repair takes."""

    kept_hz: float = 10.0
    """Frames per second whose images are kept."""

    frame: str = "36KB"
    """Size of a kept frame: three camera images of 12 KB."""

    link: str = "50Mbps"
    """Each robot's link, in each direction."""

    site_link: str = "unlimited"
    """The link that all robots share, in each direction."""

    site_cache: bool = False
    """A publication crosses the site's link once; robots fetch it from a cache."""

    latency: str = "50ms"
    """Added to each transfer."""

    loss: str = "0%"
    """Share of the bytes that is sent again."""

    outage_every: str = "unlimited"
    """Mean time between outages of the links."""

    outage: str = "0s"
    """Mean length of an outage."""

    checkpoint: str = "780MB"
    """Size of a publication: the trained weights."""

    publish_every: int = 25
    """Learner steps between publications."""

    steps_per_s: float = 1.0
    """Learner steps per second."""

    batch: int = 256
    """Examples per learner step."""

    online_share: str = "50%"
    """Share of a batch that is drawn from online data."""

    accelerators: int = 8
    """Accelerators of the learner (for the costs)."""

    intake: str = "100MB/s"
    """How fast the intake reads and checks episodes."""

    operators: int = 1
    """People who take over, one robot at a time each."""

    takeovers: float = 0.5
    """Requests for a person per episode."""

    help: str = "10s"
    """How long a person acts per request."""

    reaction: str = "3s"
    """From a person's turning to a robot to the first action."""

    simulate: str = "0s"
    """Also play the deployment for so long on virtual time (the first quarter is not measured) and show both; 0s = don't."""

    rule: Literal["first_come", "worst_first", "shortest_help"] = "first_come"
    """Whom free people turn to in the simulation."""

    patience: str = "unlimited"
    """In the simulation, how long a robot that asked can wait, on average, before its episode is lost."""

    seed: int = 0
    """Of the simulation."""

    json: bool = False
    """Print one JSON object as the last line."""


def run(argv: Sequence[str]) -> int:
    if argv and argv[0].startswith("--clock"):
        return run_fleet(argv)
    _, rest = take_action("fleet", ACTIONS, argv)
    arguments = parse(PlanArguments, rest, "fleet plan")
    deployment = deployment_of(arguments)
    duration_s = parse_seconds("--simulate", arguments.simulate)
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


def deployment_of(arguments: PlanArguments) -> Deployment:
    """The figures behind the words. Raises ConfigError."""

    def seconds(name: str) -> float:
        return parse_seconds(f"--{name.replace('_', '-')}", getattr(arguments, name))

    return Deployment(
        Robots(
            num_robots=arguments.robots,
            episode_s=seconds("episode"),
            reset_s=seconds("reset"),
            failure_every_s=seconds("failure_every"),
            repair_s=seconds("repair"),
            kept_hz=arguments.kept_hz,
            frame_bytes=parse_bytes("--frame", arguments.frame),
        ),
        Network(
            link_bps=parse_bits_per_s("--link", arguments.link),
            site_link_bps=parse_bits_per_s("--site-link", arguments.site_link),
            latency_s=seconds("latency"),
            loss=parse_share("--loss", arguments.loss),
            outage_every_s=seconds("outage_every"),
            outage_s=seconds("outage"),
            site_cache=arguments.site_cache,
        ),
        Training(
            intake_bytes_per_s=parse_bits_per_s("--intake", arguments.intake) / 8,
            learner_steps_per_s=arguments.steps_per_s,
            batch_size=arguments.batch,
            online_share=parse_share("--online-share", arguments.online_share),
            publish_every=arguments.publish_every,
            checkpoint_bytes=parse_bytes("--checkpoint", arguments.checkpoint),
            num_accelerators=arguments.accelerators,
        ),
        Operators(
            num_operators=arguments.operators,
            takeovers_per_episode=arguments.takeovers,
            help_s=seconds("help"),
            reaction_s=seconds("reaction"),
        ),
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
