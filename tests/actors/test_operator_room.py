"""Who drives, who watches and who waits, without a network."""

import dataclasses
import json

import pytest

from sop_jax.actors.operator.commands import BadMessageError
from sop_jax.actors.operator.pictures import PictureHead, join_picture
from sop_jax.actors.operator.queue import Waiting, judge, order, renew
from sop_jax.actors.operator.room import Guest, Room
from sop_jax.actors.operator.status import Status


class Place:
    """A room, its time, and what everybody in it heard."""

    def __init__(self):
        self.now_s = 100.0
        self.room = Room(lambda: round(self.now_s * 1e9))

    def robot(self, name, **status):
        guest = Guest("robot", name)
        self.room.enter(guest)
        self.say(guest, **status)
        return guest

    def guest(self, role="person"):
        guest = Guest(role)
        self.room.enter(guest)
        return guest

    def say(self, robot, **status):
        self.room.hear(robot, json.loads(Status(robot.robot, **{"control": "policy", **status}).to_json()))

    def tell(self, guest, kind, robot="g1-1", **values):
        self.room.hear(guest, {"type": kind, "robot": robot, **values})

    def report(self, person):
        self.room.report()
        return heard(person, "robots")[-1]["robots"]


def heard(guest, kind=None):
    """What waits for a guest; forgotten afterwards."""
    messages = [message for message in guest.outbox._waiting.values() if isinstance(message, str)]
    guest.outbox._waiting.clear()
    objects = [json.loads(message) for message in messages]
    return [message for message in objects if kind is None or message["type"] == kind]


@pytest.fixture
def place():
    return Place()


def test_commands_reach_their_robot_and_no_other(place):
    first, second, person = place.robot("g1-1"), place.robot("g1-2"), place.guest()
    heard(first), heard(second)
    place.tell(person, "take", "g1-2")
    place.tell(person, "move", "g1-2", hand="left", linear=[0.1, 0, 0])
    place.tell(person, "move", "g1-2", hand="left", linear=[0.2, 0, 0])
    assert heard(first) == []
    take, move = heard(second)
    assert take == {"type": "take"}
    assert (move["type"], move["linear"]) == ("move", [0.2, 0.0, 0.0])  # Motions that were overtaken don't arrive.
    place.tell(person, "move", "g1-2", hand="left", gripper=1)
    place.tell(person, "move", "g1-2", hand="left")
    assert [message["gripper"] for message in heard(second)] == [1.0, None]


def test_one_person_drives_at_a_time(place):
    robot, first, second = place.robot("g1-1"), place.guest(), place.guest()
    heard(robot)
    place.tell(first, "move", hand="left", linear=[0.1, 0, 0])
    assert heard(robot) == []  # Whoever drives has taken over before.
    place.tell(first, "take")
    for kind, values in (("take", {}), ("hand_back", {}), ("move", {"hand": "left"})):
        place.tell(second, kind, **values)
    assert [message["why"] for message in heard(second, "refused")] == ["somebody else drives g1-1"] * 3
    assert [message["type"] for message in heard(robot)] == ["take"]
    place.tell(second, "mark", outcome="failure", episode=0)  # Anybody may judge.
    assert heard(robot, "mark") == [{"type": "mark", "outcome": "failure", "episode": 0}]
    place.say(robot, control="operator", wants_operator=True)
    assert [place.report(person)[0]["driver"] for person in (first, second)] == ["you", "somebody else"]
    place.tell(first, "hand_back")
    place.tell(second, "take")
    assert [message["type"] for message in heard(robot)] == ["hand_back", "take"]


def test_a_driver_who_leaves_leaves_a_robot_alone(place):
    robot, first, second = place.robot("g1-1"), place.guest(), place.guest()
    place.tell(first, "take")
    place.say(robot, control="operator", wants_operator=True)
    assert place.report(second)[0]["waits_for"] == ""
    place.room.leave(first)
    (listed,) = place.report(second)
    assert (listed["waits_for"], listed["urgency"], listed["driver"]) == ("nobody drives", 4, "nobody")
    place.tell(second, "take")
    assert place.report(second)[0]["driver"] == "you"


def test_a_driver_who_looks_at_another_robot_leaves_the_first_alone(place):
    robot, other, first, second = place.robot("g1-1"), place.robot("g1-2"), place.guest(), place.guest()
    place.tell(first, "watch")
    place.tell(first, "take")
    place.say(robot, control="operator", wants_operator=True)
    place.tell(first, "watch", "g1-2")
    place.tell(first, "take", "g1-2")
    place.say(other, control="operator", wants_operator=True)
    listed = {each["robot_id"]: each for each in place.report(second)}
    left = listed["g1-1"]
    assert (left["waits_for"], left["urgency"], left["driver"]) == ("nobody drives", 4, "nobody")
    assert (listed["g1-2"]["waits_for"], listed["g1-2"]["driver"]) == ("", "somebody else")
    heard(robot)
    place.tell(second, "move", hand="left", linear=[0.1, 0, 0])
    assert heard(robot) == []  # It must be taken on first.

    place.tell(first, "watch")  # Back in time: it is still theirs.
    assert [place.report(person)[-1]["driver"] for person in (first, second)] == ["you", "somebody else"]
    place.tell(second, "take")
    assert heard(second, "refused") == [{"type": "refused", "why": "somebody else drives g1-1"}]
    place.tell(first, "watch", "g1-2")
    assert {each["robot_id"]: each["driver"] for each in place.report(first)} == {"g1-1": "you", "g1-2": "you"}
    place.tell(second, "watch")
    place.tell(second, "take")
    place.tell(second, "move", hand="left", linear=[0.1, 0, 0])
    assert [message["type"] for message in heard(robot) if message["type"] != "watched"] == ["take", "move"]
    place.tell(first, "watch")
    place.tell(first, "move", hand="left", linear=[0.1, 0, 0])
    assert heard(first, "refused") == [{"type": "refused", "why": "somebody else drives g1-1"}]
    (listed,) = [each for each in place.report(first) if each["robot_id"] == "g1-1"]
    assert (listed["waits_for"], listed["driver"]) == ("", "somebody else")


def test_a_persons_device_that_watches_nothing_holds_its_robot(place):
    robot, device, second = place.robot("g1-1"), place.guest(), place.guest()
    place.tell(device, "take")
    place.say(robot, control="operator", wants_operator=True)
    assert place.report(second)[0]["waits_for"] == ""
    place.tell(second, "take")
    assert heard(second, "refused") == [{"type": "refused", "why": "somebody else drives g1-1"}]


def test_a_judgement_of_an_episode_that_is_over_is_refused(place):
    robot, person = place.robot("g1-1"), place.guest()
    place.say(robot, num_episodes=3)
    heard(robot)
    place.tell(person, "mark", outcome="success", episode=2)
    assert heard(person, "refused") == [{"type": "refused", "why": "that episode of g1-1 is over"}]
    assert heard(robot) == []
    place.tell(person, "mark", outcome="success", episode=3)
    place.tell(person, "mark", outcome="success")
    assert [message["episode"] for message in heard(robot)] == [3, None]


def test_driving_ends_with_the_episode(place):
    robot, first, second = place.robot("g1-1"), place.guest(), place.guest()
    place.tell(first, "take")
    place.say(robot)  # The robot hasn't heard it yet.
    assert place.report(first)[0]["driver"] == "you"
    place.say(robot, control="operator", wants_operator=True)
    place.now_s += 3.0
    place.say(robot, control="between")
    assert place.report(first)[0]["driver"] == "nobody"
    heard(robot)
    place.tell(second, "take")
    assert heard(robot, "take") == [{"type": "take"}]


def test_devices_move_and_do_nothing_else(place):
    robot, person, device = place.robot("g1-1"), place.guest(), place.guest("device")
    place.tell(person, "take")
    heard(robot)
    place.tell(device, "targets", action=[0.25] * 16)
    (message,) = heard(robot)
    assert message == {"type": "targets", "action": [0.25] * 16}
    for kind, values in (("take", {}), ("mark", {"outcome": "success"}), ("ready", {})):
        with pytest.raises(BadMessageError, match="a device may send move and targets"):
            place.tell(device, kind, **values)
    place.room.report()
    assert heard(device) == []


def test_pictures_go_to_those_who_watch(place):
    robot, other, person, second = place.robot("g1-1"), place.robot("g1-2"), place.guest(), place.guest()
    heard(robot)
    place.tell(person, "watch")
    assert heard(robot) == [{"type": "watched", "by": 1}]
    picture = join_picture(PictureHead("g1-1", "head", 1), b"jpeg")
    place.room.hear_picture(robot, picture)
    assert list(person.outbox._waiting.values()) == [picture]
    assert list(second.outbox._waiting.values()) == []
    place.tell(person, "watch", "g1-2")
    assert heard(robot) == [{"type": "watched", "by": 0}]
    assert heard(other)[-1] == {"type": "watched", "by": 1}
    place.room.leave(person)
    assert heard(other) == [{"type": "watched", "by": 0}]
    for guest in (other, person):
        with pytest.raises(BadMessageError, match="sent a picture of 'g1-1'"):
            place.room.hear_picture(guest, picture)


def test_a_robots_name_is_its_own(place):
    robot, person = place.robot("g1-1"), place.guest()
    with pytest.raises(BadMessageError, match="named g1-1 is at this desk already"):
        place.room.enter(Guest("robot", "g1-1"))
    with pytest.raises(BadMessageError, match="robot g1-1 sent a status of g1-9"):
        place.room.hear(robot, json.loads(Status("g1-9").to_json()))
    place.room.leave(robot)
    (listed,) = place.report(person)
    assert (listed["has_signal"], listed["waits_for"]) == (False, "no signal")
    place.tell(person, "take")
    assert heard(person, "refused") == [{"type": "refused", "why": "g1-1 has no line to this desk"}]
    place.robot("g1-1")
    assert place.report(person)[0]["has_signal"]


def test_silent_robots_have_no_signal(place):
    place.robot("g1-1")
    person = place.guest()
    place.now_s += 1.9
    assert place.report(person)[0]["has_signal"]
    place.now_s += 0.2
    assert not place.report(person)[0]["has_signal"]


def test_the_worst_comes_first_and_among_equals_the_longest_wait(place):
    person = place.guest()
    robots = {name: place.robot(name) for name in ("calm", "late", "early", "broken", "scene")}
    for name, status in (
        ("scene", {"control": "scene"}),
        ("early", {"asks": "no_progress"}),
        ("late", {"asks": "wrong_object"}),
        ("broken", {"control": "between", "fault": "camera_late"}),
    ):
        place.say(robots[name], **status)
        place.room.report()
        place.now_s += 0.25
    listed = place.report(person)
    assert [each["robot_id"] for each in listed] == ["broken", "early", "late", "scene", "calm"]
    assert [each["waits_for"] for each in listed][:3] == ["fault: camera_late", "no_progress", "wrong_object"]
    assert [each["waits_s"] for each in listed] == [0.2, 0.8, 0.5, 1.0, 0.0]
    place.say(robots["early"], asks="unsafe")  # Another reason is another wait.
    assert [each["robot_id"] for each in place.report(person)][:3] == ["broken", "late", "early"]


def test_order_is_by_urgency_then_wait_then_name():
    waiting = {
        "b": Waiting("x", 3, 5),
        "a": Waiting("x", 3, 5),
        "c": Waiting("y", 3, 4),
        "d": Waiting(),
        "e": Waiting("z", 4, 9),
    }
    assert order(waiting) == ["e", "c", "a", "b", "d"]
    assert renew(Waiting("x", 3, 5), "x", 3, 9).since_ns == 5
    assert renew(Waiting("x", 3, 5), "", 0, 9) == Waiting("", 0, 9)


def test_one_reason_at_a_time():
    status = Status("g1-1", control="operator", asks="no_progress", fault="posture")
    assert judge(status, is_silent=True, is_driven=True) == ("no signal", 1)
    assert judge(status, is_silent=False, is_driven=False)[0] == "fault: posture"
    healthy = dataclasses.replace(status, fault="")
    assert judge(healthy, is_silent=False, is_driven=False) == ("nobody drives", 4)
    assert judge(healthy, is_silent=False, is_driven=True) == ("no_progress", 3)
