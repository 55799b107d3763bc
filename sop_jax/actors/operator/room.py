"""Who is at the desk: robots, people and devices, who watches and who drives whom. No network in here."""

import dataclasses
import json
from collections.abc import Callable
from typing import Any, Literal, final

from sop_jax.actors.operator.commands import (
    BadMessageError,
    Command,
    HandBack,
    Move,
    OfEpisode,
    Take,
    Targets,
    parse_command,
    write_command,
)
from sop_jax.actors.operator.outbox import Outbox
from sop_jax.actors.operator.pictures import read_head
from sop_jax.actors.operator.queue import SILENT_S, Waiting, judge, order, renew
from sop_jax.actors.operator.status import Status, parse_status

Role = Literal["robot", "person", "device"]
_TAKE_S = 2.0
"""So long after a takeover was asked for, the robot has said that somebody acts, or nobody does."""


@dataclasses.dataclass(eq=False)
class Guest:
    """One connection. `robot`: the one that it is, or whose pictures it watches."""

    role: Role
    robot: str = ""
    outbox: Outbox = dataclasses.field(default_factory=Outbox)


@dataclasses.dataclass
class _Robot:
    guest: Guest
    status: Status
    heard_ns: int
    waiting: Waiting = dataclasses.field(default_factory=Waiting)
    driver: Guest | None = None
    taken_ns: int = 0


@final
class Room:
    """Robots by name, and everybody else. Belongs to one thread (the desk's loop); `now_ns` tells the time.

    One person drives a robot at a time: their takeover makes them its driver until they hand back, leave, or the episode is
    over. While they watch another robot nobody holds the first, and whoever likes may take it on; who never watches (a device
    in a person's hands) is thought to look at the robot itself. Devices may move a robot, and no more; anybody else may judge
    and mark.
    """

    def __init__(self, now_ns: Callable[[], int]):
        self._now_ns = now_ns
        self._robots: dict[str, _Robot] = {}
        self._people: set[Guest] = set()

    def enter(self, guest: Guest) -> None:
        """Raises BadMessageError if a robot of this name is here already."""
        if guest.role != "robot":
            self._people.add(guest)
            return
        present = self._robots.get(guest.robot)
        if present is not None and not self._is_silent(present):
            raise BadMessageError(f"a robot named {guest.robot} is at this desk already; names must be unique")
        self._robots[guest.robot] = _Robot(guest, Status(guest.robot), self._now_ns())
        self._tell_watchers(guest.robot)

    def leave(self, guest: Guest) -> None:
        """Robots stay on the list, without a signal; whoever drove one no longer does."""
        self._people.discard(guest)
        for robot in self._robots.values():
            if robot.driver is guest:
                robot.driver = None
            if robot.guest is guest:
                robot.heard_ns = -round(1e18)
        self._watch(guest, "")

    def hear(self, guest: Guest, message: dict[str, Any]) -> None:
        """One JSON message. Raises BadMessageError."""
        if guest.role == "robot":
            self._hear_robot(guest, parse_status(message))
        elif message["type"] == "watch":
            self._watch(guest, str(message.get("robot", "")))
        else:
            self._pass_on(guest, str(message.get("robot", "")), parse_command(message))

    def hear_picture(self, guest: Guest, message: bytes) -> None:
        """A robot's picture goes to whoever watches it. Raises BadMessageError."""
        head = read_head(message)
        if guest.role != "robot" or head.robot != guest.robot:
            raise BadMessageError(f"{guest.role} {guest.robot!r} sent a picture of {head.robot!r}")
        for person in self._watchers(guest.robot):
            person.outbox.put(message, key=("picture", head.robot, head.camera))

    def report(self) -> None:
        """Tells every person where the robots stand, the most urgent first."""
        names = order({name: self._renewed(robot) for name, robot in self._robots.items()})
        for person in self._people:
            if person.role == "person":
                listing = [self._describe(self._robots[name], person) for name in names]
                person.outbox.put(json.dumps({"type": "robots", "robots": listing}), key="robots")

    def _hear_robot(self, guest: Guest, status: Status) -> None:
        if status.robot_id != guest.robot:
            raise BadMessageError(f"robot {guest.robot} sent a status of {status.robot_id}")
        robot = self._robots[guest.robot]
        robot.status, robot.heard_ns = status, self._now_ns()
        just_taken = self._now_ns() - robot.taken_ns < _TAKE_S * 1e9
        if not (status.wants_operator or just_taken):
            robot.driver = None

    def _pass_on(self, guest: Guest, name: str, command: Command) -> None:
        robot = self._robots.get(name)
        if robot is None or self._is_silent(robot):
            self._refuse(guest, f"{name or 'no robot'} has no line to this desk")
            return
        is_motion = isinstance(command, Move | Targets)
        if guest.role == "device" and not is_motion:
            raise BadMessageError("a device may send move and targets, nothing else")
        drives = is_motion or isinstance(command, Take | HandBack)
        if drives and guest.role == "person" and self._holder(robot) not in (None, guest):
            self._refuse(guest, f"somebody else drives {name}")
            return
        if isinstance(command, OfEpisode) and command.episode not in (None, robot.status.num_episodes):
            self._refuse(guest, f"that episode of {name} is over")
            return
        if isinstance(command, Take):
            robot.driver, robot.taken_ns = guest, self._now_ns()
        elif isinstance(command, HandBack):
            robot.driver, robot.taken_ns = None, 0
        elif is_motion and guest.role == "person" and robot.driver is not guest:
            return  # Whoever drives has taken over before.
        # The newest motion will do, but a gripper's command must arrive.
        is_passing = is_motion and getattr(command, "gripper", None) is None
        robot.guest.outbox.put(write_command(command), key=("motion", guest) if is_passing else None)

    def _watch(self, guest: Guest, name: str) -> None:
        before, guest_is_robot = guest.robot, guest.role == "robot"
        if guest_is_robot:
            return
        guest.robot = name if name in self._robots else ""
        for changed in {before, guest.robot} - {""}:
            self._tell_watchers(changed)

    def _tell_watchers(self, name: str) -> None:
        if (robot := self._robots.get(name)) is not None:
            message = json.dumps({"type": "watched", "by": len(self._watchers(name))})
            robot.guest.outbox.put(message, key="watched")

    def _watchers(self, name: str) -> list[Guest]:
        return [person for person in self._people if person.robot == name]

    def _refuse(self, guest: Guest, why: str) -> None:
        guest.outbox.put(json.dumps({"type": "refused", "why": why}))

    def _is_silent(self, robot: _Robot) -> bool:
        return self._now_ns() - robot.heard_ns > SILENT_S * 1e9

    def _holder(self, robot: _Robot) -> Guest | None:
        """Its driver, unless they watch another robot."""
        driver = robot.driver
        return driver if driver is not None and driver.robot in ("", robot.guest.robot) else None

    def _renewed(self, robot: _Robot) -> Waiting:
        reason, urgency = judge(robot.status, self._is_silent(robot), self._holder(robot) is not None)
        robot.waiting = renew(robot.waiting, reason, urgency, self._now_ns())
        return robot.waiting

    def _describe(self, robot: _Robot, person: Guest) -> dict[str, Any]:
        waits_s = (self._now_ns() - robot.waiting.since_ns) / 1e9 if robot.waiting.reason else 0.0
        driver = person if robot.driver is person else self._holder(robot)  # who looks away is told that it's theirs
        drivers = {None: "nobody", person: "you"}
        return {
            **dataclasses.asdict(robot.status),
            "waits_for": robot.waiting.reason,
            "urgency": robot.waiting.urgency,
            "waits_s": round(waits_s, 1),
            "has_signal": not self._is_silent(robot),
            "driver": drivers.get(driver, "somebody else"),
        }
