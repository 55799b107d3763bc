"""The figures of a real deployment as options: of `sop fleet plan`, and of a fleet that learns in such a deployment."""

import dataclasses
from typing import Literal

from fleet_sim.deployment import Deployment, Network, Operators, Robots, Training
from fleet_sim.quantities import parse_bits_per_s, parse_bytes, parse_seconds, parse_share


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
