"""People at a robot, as a command line asks for them."""

import contextlib
import dataclasses
import os
from collections.abc import Callable, Iterator

from sop_jax.actors.handover import HandoverConfig
from sop_jax.actors.operator.console import Console
from sop_jax.actors.operator.desk import HOST, Desk
from sop_jax.actors.operator.desk_address import DeskAddress, parse_link, seen_from_elsewhere
from sop_jax.actors.operator.link import ConsoleLink
from sop_jax.actors.rollout import RolloutConfig
from sop_jax.cli.arguments import UsageError
from sop_jax.cli.output import note
from sop_jax.specs.clock import Clock
from sop_jax.specs.interfaces import Metrics

LINK_VARIABLE = "SOP_OPERATOR_LINK"
BLEND_S = 0.25


@dataclasses.dataclass(frozen=True, kw_only=True)
class OperatorOptions:
    """Whether a person looks after the robot, and at which page."""

    operator: int | None = None
    """A person looks after this robot: serve their page on this port (0: a free one) and print its link."""

    operator_host: str = HOST
    """Address that the page is served on. Nothing is encrypted: anything but loopback belongs behind a tunnel."""

    join_operator: bool = False
    """A person looks after this robot at another one's page, whose link is in the environment variable SOP_OPERATOR_LINK."""

    @property
    def has_operator(self) -> bool:
        return self.operator is not None or self.join_operator


@contextlib.contextmanager
def open_console(
    options: OperatorOptions, robot_id: str, clock: Clock, policy_version: Callable[[], int], metrics: Metrics
) -> Iterator[Console]:
    """A robot's console, connected to the desk that the options say while the context lasts."""
    if options.operator is not None and options.join_operator:
        raise UsageError("--operator and --join-operator exclude each other: serve the page here, or call at another's")
    console = Console(robot_id, clock, policy_version, metrics)
    with contextlib.ExitStack() as stack:
        address = parse_link(os.environ.get(LINK_VARIABLE, "")) if options.join_operator else _serve(options, stack)
        stack.enter_context(contextlib.closing(ConsoleLink(console, address, clock, note)))
        yield console


def with_operator(rollout: RolloutConfig) -> RolloutConfig:
    """The rollout for a person: they bring their own reaction time, and what passes between two hands is eased."""
    handover = rollout.handover if rollout.handover.blend_s else HandoverConfig(BLEND_S)
    return dataclasses.replace(rollout, reaction_delay_s=0.0, handover=handover)


def _serve(options: OperatorOptions, stack: contextlib.ExitStack) -> DeskAddress:
    desk = stack.enter_context(Desk(options.operator or 0, options.operator_host))
    if options.operator_host not in (HOST, "localhost", "::1"):
        note("the operator's page is not encrypted: whoever can listen on this network can drive the robots")
    link = seen_from_elsewhere(desk.address).link
    note(f"operator: open {link} (other robots: {LINK_VARIABLE}=... sop act --join-operator)")
    return desk.address
