"""What a deployment will do, in closed form: loads, waiting, staleness and costs from one pure function.

Legend: `N` robots, `h` requests for help per episode, `P` time between publications [s], `F` time in which a publication
reaches the robots [s]. Means throughout.
"""

import dataclasses
import math

from fleet_sim.deployment import Deployment
from fleet_sim.queueing import FiniteSource, deterministic_wait, finite_source, response_at

_DAY_S = 86_400
_BY_EPISODE = ("shared uplink", "intake", "learner")
"""Resources that episodes load."""


@dataclasses.dataclass(frozen=True)
class Figures:
    """What the model and the simulator both say of a deployment. Times are means [s], rates of the whole fleet.

    episodes_per_hour: played; delivered_per_hour: in the replay, where uploads and intake can follow.
    moving_share: of a robot's time in which it moves (not waiting for a person, nor under repair).
    upload_s: from an episode's end until it is in the store; intake_s: from there until it can be sampled. inf = it grows.
    fan_out_s: from the start of fetching a publication (by the robot, or by the site's cache) until the robot holds it.
    weights_age_s, versions_behind: of the acting weights in the middle of an episode.
    operator_wait_s: from a request to a person's turning to it. operator_load: share of people's time, reaction included.
    """

    episodes_per_hour: float
    delivered_per_hour: float
    moving_share: float
    upload_s: float
    intake_s: float
    fan_out_s: float
    weights_age_s: float
    versions_behind: float
    operator_wait_s: float
    operator_load: float


@dataclasses.dataclass(frozen=True)
class ResourceLoad:
    """What is asked of a resource over what it can do; above 1 it can't follow.

    saturates_at: robots, if there are people enough that none of them waits; inf = never.
    """

    name: str
    load: float
    saturates_at: float


@dataclasses.dataclass(frozen=True)
class Plan:
    """A prediction.

    loads: by resource, the most loaded first.
    correction_latency_s: from a failure in the middle of an episode to the next episode that a policy trained on it begins.
    steps_per_episode: learner steps per new episode. online_share: of a batch, as far as the replay's limit allows.
    draws_per_frame: how often a new frame is drawn.
    *_per_day: bytes stored, bytes of publications fetched by robots (and those that cross the site's link), hours of people
        (their whole time) and of accelerators.
    """

    figures: Figures
    loads: tuple[ResourceLoad, ...]
    correction_latency_s: float
    publication_period_s: float
    steps_per_episode: float
    online_share: float
    draws_per_frame: float
    stored_bytes_per_day: float
    fetched_bytes_per_day: float
    site_fetched_bytes_per_day: float
    operator_hours_per_day: float
    help_hours_per_day: float
    accelerator_hours_per_day: float

    @property
    def bottleneck(self) -> ResourceLoad:
        """The resource that saturates first."""
        return self.loads[0]


def predict(deployment: Deployment) -> Plan:
    """The prediction for a deployment. Takes milliseconds."""
    robots, training, operators = deployment.robots, deployment.training, deployment.operators
    helped = help_queue(deployment)
    wait_s = max(0.0, helped.response_s - operators.reaction_s - operators.help_s)
    cycle_s = _unhelped_cycle_s(deployment) + operators.takeovers_per_episode * (operators.reaction_s + wait_s)
    rate = robots.num_robots / cycle_s
    loads = _loads(deployment, rate)
    by_name = {load.name: load.load for load in loads}
    stored = rate / max(1.0, by_name["robot links"], by_name["shared uplink"])
    delivered = min(stored, rate / max(1.0, by_name["intake"]))
    upload, intake = upload_s(deployment, cycle_s), intake_s(deployment, stored)
    fan_out = FanOut.of(deployment)
    episode_s = robots.episode_s + operators.takeovers_per_episode * (operators.reaction_s + wait_s)
    age_s = fan_out.age_s + episode_s / 2
    age_s += _down_share(deployment) * deployment.network.outage_s  # how long nothing has come, at a random time
    asked = training.online_share * training.batch_size * training.learner_steps_per_s
    new_frames = delivered * robots.episode_s * robots.kept_hz
    drawn = min(asked, training.samples_per_frame * new_frames)
    fetched = robots.num_robots * training.checkpoint_bytes * _DAY_S / fan_out.robot_cycle_s
    figures = Figures(
        episodes_per_hour=3600 * rate,
        delivered_per_hour=3600 * delivered,
        moving_share=deployment.moving_s / cycle_s,
        upload_s=upload,
        intake_s=intake,
        fan_out_s=fan_out.total_s,
        weights_age_s=age_s,
        versions_behind=age_s / deployment.publication_period_s - 0.5,
        operator_wait_s=wait_s,
        operator_load=helped.throughput * (operators.reaction_s + operators.help_s) / operators.num_operators,
    )
    taught_s = 1 / training.learner_steps_per_s + fan_out.taught_s
    return Plan(
        figures=figures,
        loads=loads,
        correction_latency_s=episode_s / 2 + upload + intake + taught_s + cycle_s / 2,
        publication_period_s=deployment.publication_period_s,
        steps_per_episode=training.learner_steps_per_s / delivered,
        online_share=drawn / (training.batch_size * training.learner_steps_per_s),
        draws_per_frame=drawn / new_frames,
        stored_bytes_per_day=stored * deployment.episode_bytes * _DAY_S,
        fetched_bytes_per_day=fetched,
        site_fetched_bytes_per_day=(
            training.checkpoint_bytes * _DAY_S / fan_out.cache_cycle_s if deployment.network.site_cache else fetched
        ),
        operator_hours_per_day=24.0 * operators.num_operators,
        help_hours_per_day=24 * rate * operators.takeovers_per_episode * operators.help_s,
        accelerator_hours_per_day=24.0 * training.num_accelerators,
    )


def help_queue(deployment: Deployment) -> FiniteSource:
    """Robots at their operators: M/M/c//N with Z = (cycle without waiting - help)/h and S = reaction + help.

    A robot that waits asks for nothing, so that even too few people leave a steady state: slower robots.
    """
    operators = deployment.operators
    requests = operators.takeovers_per_episode
    think_s = math.inf if requests == 0 else _unhelped_cycle_s(deployment) / requests - operators.help_s
    return finite_source(
        deployment.robots.num_robots, think_s, operators.reaction_s + operators.help_s, operators.num_operators
    )


def upload_s(deployment: Deployment, cycle_s: float) -> float:
    """From an episode's end to the store: latency + transfer + what outages add; inf if a link can't follow.

    A transfer alone takes S = 8 bytes / min(link, site link); c = site link / that rate transfers run at full speed side by
    side, more share the site's link equally (`response_at`). Outages with share d of the time stretch it by 1 / (1 - d), and
    an upload that begins in one waits for its end: d * outage_s.
    """
    down = _down_share(deployment)
    rate_bps = min(deployment.link_goodput_bps, deployment.site_goodput_bps)
    alone_s = 8 * deployment.episode_bytes / rate_bps / (1 - down)
    transfer_s = response_at(
        deployment.robots.num_robots, cycle_s, alone_s, _side_by_side(deployment.site_goodput_bps, rate_bps)
    )
    return deployment.network.latency_s + transfer_s + down * deployment.network.outage_s


def intake_s(deployment: Deployment, episodes_per_s: float) -> float:
    """From the store to the replay, M/D/1: S = bytes / intake rate, after waiting rho S / (2 (1 - rho))."""
    service_s = deployment.episode_bytes / deployment.training.intake_bytes_per_s
    return service_s + deterministic_wait(episodes_per_s, service_s)


@dataclasses.dataclass(frozen=True)
class FanOut:
    """A publication on its way: into the site's cache, then to the robots; while these fetch one, the cache fetches the next.

    Each stage begins with what is then the newest before it, and again as soon as it has ended and there is a newer one.
    Without a cache there is one stage, `robot_s`.

    Legend: C = `cache_s`, R = `robot_s`, P = `period_s`.
    """

    period_s: float
    cache_s: float
    robot_s: float

    @classmethod
    def of(cls, deployment: Deployment) -> "FanOut":
        """All N robots fetch at once, each at min(link, site link / N); with a cache, the site's link once, then its own."""
        size, site_bps = 8 * deployment.training.checkpoint_bytes, deployment.site_goodput_bps
        up_share, latency_s = 1 - _down_share(deployment), deployment.network.latency_s
        own_s = size / deployment.link_goodput_bps
        if deployment.network.site_cache:
            return cls(deployment.publication_period_s, size / site_bps / up_share, own_s / up_share + latency_s)
        shared_s = max(own_s, deployment.robots.num_robots * size / site_bps)
        return cls(deployment.publication_period_s, 0.0, shared_s / up_share + latency_s)

    @property
    def total_s(self) -> float:
        """F, from the start of fetching until the robot holds it."""
        return self.cache_s + self.robot_s

    @property
    def cache_cycle_s(self) -> float:
        """Between two fetches of the cache: max(P, C)."""
        return max(self.period_s, self.cache_s)

    @property
    def robot_cycle_s(self) -> float:
        """Between two fetches of a robot: max(P, C, R)."""
        return max(self.cache_cycle_s, self.robot_s)

    @property
    def age_s(self) -> float:
        """Age of a robot's weights at a random time.

        One stage, F <= P: a version arrives at age F and is the newest for P: F + P/2. F > P: a robot fetches without pause,
        each time what is then the newest (age P/2), and uses it for F: P/2 + F + F/2. With a cache likewise, stage by stage.
        """
        before_cache_s = 0.0 if self.cache_s <= self.period_s else self.period_s / 2
        before_robot_s = 0.0 if self.robot_s <= self.cache_cycle_s else self.cache_cycle_s / 2
        return before_cache_s + self.cache_s + before_robot_s + self.robot_s + self.robot_cycle_s / 2

    @property
    def taught_s(self) -> float:
        """From a learner step to the robots: half a period, fetching, and half of each stage that fetches without pause."""
        pauses_s = self.cache_s / 2 if self.cache_s > self.period_s else 0.0
        pauses_s += self.robot_s / 2 if self.robot_s > self.cache_cycle_s else 0.0
        return self.period_s / 2 + pauses_s + self.total_s


def _loads(deployment: Deployment, episodes_per_s: float) -> tuple[ResourceLoad, ...]:
    """What each resource is asked for, over what it can do; of operators and the learner too:

    operators: hours of help that N robots would ask for if nobody had to wait. learner: drawing each new frame once.

    Waiting for people slows the robots down, the more of them the more, so it may not count in the number of robots that
    fills another resource: that number would grow with the number asked about.
    """
    robots, training, operators = deployment.robots, deployment.training, deployment.operators
    num, up_share = robots.num_robots, 1 - _down_share(deployment)
    cycle_s = num / episodes_per_s
    bits = 8 * deployment.episode_bytes
    free_cycle_s = _unhelped_cycle_s(deployment) + operators.takeovers_per_episode * operators.reaction_s
    asked_s = operators.takeovers_per_episode * (operators.reaction_s + operators.help_s)
    published_bps = 8 * training.checkpoint_bytes / deployment.publication_period_s / up_share
    crossings = 1 if deployment.network.site_cache else num
    per_robot = {
        "robot links": bits / (cycle_s * deployment.link_goodput_bps * up_share),
        "publication on robot links": published_bps / deployment.link_goodput_bps,
    }
    draws = training.online_share * training.batch_size * training.learner_steps_per_s
    new_frames = episodes_per_s * robots.episode_s * robots.kept_hz
    shared = {
        "shared uplink": episodes_per_s * bits / (deployment.site_goodput_bps * up_share),
        "publication on the shared link": crossings * published_bps / deployment.site_goodput_bps,
        "intake": episodes_per_s * deployment.episode_bytes / training.intake_bytes_per_s,
        "learner": new_frames / draws if draws else math.inf,
        "operators": num * asked_s / (free_cycle_s * operators.num_operators),
    }
    loads = [ResourceLoad(name, load, math.inf if load <= 1 else 0.0) for name, load in per_robot.items()]
    for name, load in shared.items():
        grows = load > 0 and not (name == "publication on the shared link" and deployment.network.site_cache)
        unwaited = load * cycle_s / free_cycle_s if name in _BY_EPISODE else load
        loads.append(ResourceLoad(name, load, num / unwaited if grows else math.inf))
    return tuple(sorted(loads, key=lambda resource: -resource.load))


def _unhelped_cycle_s(deployment: Deployment) -> float:
    """Episode, reset and this cycle's share of repairs: (episode + reset)(1 + repair / time between failures)."""
    return deployment.moving_s * (1 + deployment.robots.repair_s / deployment.robots.failure_every_s)


def _down_share(deployment: Deployment) -> float:
    network = deployment.network
    return 0.0 if math.isinf(network.outage_every_s) else network.outage_s / (network.outage_every_s + network.outage_s)


def _side_by_side(site_bps: float, rate_bps: float) -> float:
    return math.inf if math.isinf(site_bps) else site_bps / rate_bps
