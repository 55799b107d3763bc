"""A deployment in figures, without worlds or weights: what `planning` computes from and `dynamics` plays."""

import dataclasses
import math
from collections.abc import Sequence

from sop_jax.specs.errors import ConfigError

_NON_NEGATIVE = ("reset_s", "repair_s", "latency_s", "outage_s", "help_s", "reaction_s", "takeovers_per_episode")
_POSITIVE = (
    "episode_s", "failure_every_s", "drift_every_s", "kept_hz", "frame_bytes", "link_bps", "site_link_bps", "outage_every_s",
    "checkpoint_bytes", "intake_bytes_per_s", "learner_steps_per_s", "samples_per_frame",
)  # fmt: skip
_UNLIMITED = ("failure_every_s", "drift_every_s", "link_bps", "site_link_bps", "outage_every_s", "intake_bytes_per_s",
              "samples_per_frame")  # fmt: skip
"""Of these: rates without a limit, and what never happens."""


@dataclasses.dataclass(frozen=True)
class Robots:
    """The robots and what an episode is; means, in seconds.

    episode_s: time in which the robot moves, a person's help included. reset_s: from an episode's end to the next one.
    failure_every_s, repair_s: moving time (episodes and resets) between failures, and how long a repair takes. A robot breaks
        between episodes.
    drift_every_s: time between two drifts of a robot: its cameras, servos and light are then those of another individual.
        Only robots in worlds show it (`fleet.py`); drawn episodes have none.
    kept_hz, frame_bytes: frames per second whose images are kept (every third of 30 Hz), and the bytes of one (3 cameras).
    """

    num_robots: int = 4
    episode_s: float = 60.0
    reset_s: float = 15.0
    failure_every_s: float = math.inf
    repair_s: float = 0.0
    drift_every_s: float = math.inf
    kept_hz: float = 10.0
    frame_bytes: float = 36_000.0


@dataclasses.dataclass(frozen=True)
class Network:
    """The way to the store and back; rates hold in each direction.

    link_bps: of each robot. site_link_bps: shared by all robots, in equal parts. latency_s: added to each transfer. loss:
        share of the bytes that is sent again.
    outage_every_s, outage_s: time between outages of all links, and how long one lasts.
    site_cache: a publication crosses the site's link once, and robots fetch it from a cache behind it.
    """

    link_bps: float = 50e6
    site_link_bps: float = math.inf
    latency_s: float = 0.05
    loss: float = 0.0
    outage_every_s: float = math.inf
    outage_s: float = 0.0
    site_cache: bool = False


@dataclasses.dataclass(frozen=True)
class Training:
    """Intake, learner and publications.

    intake_bytes_per_s: how fast intake reads and checks episodes, one after another.
    online_share: of a batch. samples_per_frame: most times that the replay lets a frame be drawn, on average.
    """

    intake_bytes_per_s: float = 100e6
    learner_steps_per_s: float = 1.0
    batch_size: int = 256
    online_share: float = 0.5
    samples_per_frame: float = 32.0
    publish_every: int = 25
    checkpoint_bytes: float = 780e6
    num_accelerators: int = 8
    serial_share: float = 0.05

    def with_accelerators(self, num_accelerators: int) -> "Training":
        """The same learner on another number of accelerators, by Amdahl's law: a step takes s + (1 - s)/n of one's time."""
        serial = self.serial_share

        def share(num: int) -> float:
            return serial + (1 - serial) / num

        speed = self.learner_steps_per_s * share(self.num_accelerators) / share(num_accelerators)
        return dataclasses.replace(self, num_accelerators=num_accelerators, learner_steps_per_s=speed)


@dataclasses.dataclass(frozen=True)
class Operators:
    """People who take over when a robot asks, one robot at a time each. A robot that asked holds still until one acts.

    takeovers_per_episode: requests, on average. help_s: how long a person acts. reaction_s: from a person's being free for
        the robot to the first action.
    """

    num_operators: int = 1
    takeovers_per_episode: float = 0.5
    help_s: float = 10.0
    reaction_s: float = 3.0


@dataclasses.dataclass(frozen=True)
class Deployment:
    """A fleet, its network, its learner and its people. Raises ConfigError for what can't be."""

    robots: Robots = Robots()
    network: Network = Network()
    training: Training = Training()
    operators: Operators = Operators()

    def __post_init__(self) -> None:
        for part in (self.robots, self.network, self.training, self.operators):
            for field in dataclasses.fields(part):
                _check(type(part).__name__, field.name, getattr(part, field.name))
        if not 0 <= self.network.loss < 1:
            raise ConfigError(f"Network.loss must lie in [0, 1), got {self.network.loss}")
        if not 0 <= self.training.online_share <= 1:
            raise ConfigError(f"Training.online_share must lie in [0, 1], got {self.training.online_share}")
        if not 0 <= self.training.serial_share <= 1:
            raise ConfigError(f"Training.serial_share must lie in [0, 1], got {self.training.serial_share}")
        helped_s = self.operators.takeovers_per_episode * self.operators.help_s
        if helped_s > self.robots.episode_s:
            raise ConfigError(
                f"Operators: takeovers_per_episode * help_s = {helped_s:g} s is more than an episode's "
                f"{self.robots.episode_s:g} s; help is part of the episode"
            )

    @property
    def episode_bytes(self) -> float:
        """Mean size of an episode in the store."""
        return self.robots.episode_s * self.robots.kept_hz * self.robots.frame_bytes

    @property
    def moving_s(self) -> float:
        """Mean of an episode and its reset, nobody waiting."""
        return self.robots.episode_s + self.robots.reset_s

    @property
    def publication_period_s(self) -> float:
        return self.training.publish_every / self.training.learner_steps_per_s

    @property
    def link_goodput_bps(self) -> float:
        """What a robot's link carries in a second in which it works: bytes that were lost are sent again."""
        return self.network.link_bps * (1 - self.network.loss)

    @property
    def site_goodput_bps(self) -> float:
        return self.network.site_link_bps * (1 - self.network.loss)


@dataclasses.dataclass(frozen=True)
class Shift:
    """Robots `first` to `first + num_robots - 1` are there from `joins_s` to `leaves_s`; they leave after an episode."""

    first: int
    num_robots: int
    joins_s: float = 0.0
    leaves_s: float = math.inf

    def __post_init__(self) -> None:
        if self.first < 0 or self.num_robots < 1 or not 0 <= self.joins_s < self.leaves_s:
            raise ConfigError(f"Shift needs first >= 0, num_robots >= 1 and 0 <= joins_s < leaves_s, got {self}")


def shift_of(shifts: Sequence[Shift], robot: int) -> Shift:
    """When a robot is there; one that no shift names is there throughout."""
    found = (shift for shift in shifts if shift.first <= robot < shift.first + shift.num_robots)
    return next(found, Shift(robot, 1))


def check_shifts(who: str, shifts: Sequence[Shift], deployment: Deployment) -> None:
    """Raises ConfigError if a shift names a robot that the deployment doesn't have."""
    last = max((shift.first + shift.num_robots for shift in shifts), default=0)
    if last > deployment.robots.num_robots:
        raise ConfigError(f"{who}.shifts: robot {last - 1} of {deployment.robots.num_robots}")


def _check(part: str, name: str, value: float) -> None:
    if math.isnan(value):
        raise ConfigError(f"{part}.{name} must be a number, got {value}")
    if name.startswith("num_") or name in ("batch_size", "publish_every"):
        if value < 1:
            raise ConfigError(f"{part}.{name} must be at least 1, got {value}")
    elif name in _POSITIVE and value <= 0:
        raise ConfigError(f"{part}.{name} must be above 0, got {value}")
    elif name in _POSITIVE and name not in _UNLIMITED and math.isinf(value):
        raise ConfigError(f"{part}.{name} must be finite, got {value}")
    elif name in _NON_NEGATIVE and not (math.isfinite(value) and value >= 0):
        raise ConfigError(f"{part}.{name} must be finite and >= 0, got {value}")
