import json
import math
import socket

import pytest

from sop_jax.actors.operator.commands import (
    BadMessageError,
    HandBack,
    Mark,
    Move,
    Ready,
    StageMark,
    Take,
    Targets,
    parse_command,
    read_object,
    write_command,
)
from sop_jax.actors.operator.desk_address import DeskAddress, new_token, parse_link, seen_from_elsewhere
from sop_jax.actors.operator.pictures import PictureHead, join_picture, read_head
from sop_jax.actors.operator.status import Status, parse_status
from sop_jax.specs.errors import ConfigError
from sop_jax.specs.records import Outcome

COMMANDS = [
    Take(),
    HandBack(),
    Ready(),
    Ready(3),
    Mark(Outcome.FAILURE),
    Mark(Outcome.SUCCESS, 0),
    StageMark("grasped"),
    StageMark("grasped", 12),
    Move("left", (0.1, -0.25, 0.0), (0.0, 1.2, 0.0), 1.0),
    Move("right"),
    Targets(tuple(0.1 * number for number in range(16))),
]


@pytest.mark.parametrize("command", COMMANDS, ids=lambda command: type(command).__name__)
def test_commands_come_back_as_they_were(command):
    assert parse_command(read_object(write_command(command))) == command


@pytest.mark.parametrize(
    ("message", "complaint"),
    [
        ({"type": "jump"}, "expected a take, hand_back"),
        ({"type": "mark", "outcome": "error"}, "success or failure, got 'error'"),
        ({"type": "stage", "stage": "../up"}, "stage '../up' is not a valid name"),
        ({"type": "stage", "stage": 3}, "not a valid name"),
        ({"type": "mark", "outcome": "success", "episode": -1}, "episode must be the robot's num_episodes"),
        ({"type": "stage", "stage": "grasped", "episode": "1"}, "episode must be the robot's num_episodes"),
        ({"type": "ready", "episode": True}, "episode must be the robot's num_episodes"),
        ({"type": "ready", "episode": 1.5}, "episode must be the robot's num_episodes"),
        ({"type": "move", "hand": "both"}, "left or right, got 'both'"),
        ({"type": "move", "hand": "left", "linear": [0, 0, 0.3]}, "at most 0.25"),
        ({"type": "move", "hand": "left", "linear": [0, 0]}, "expected 3 numbers"),
        ({"type": "move", "hand": "left", "angular": [0, "1", 0]}, "expected 3 numbers"),
        ({"type": "move", "hand": "left", "angular": [0, True, 0]}, "expected 3 numbers"),
        ({"type": "move", "hand": "left", "gripper": -0.1}, "0 open .. 1 closed"),
        ({"type": "move", "hand": "left", "gripper": 2}, "at most 1.0"),
        ({"type": "targets", "action": [0.0] * 15}, "expected 16 numbers"),
        ({"type": "targets", "action": [math.nan] + [0.0] * 15}, "finite numbers"),
        ({"type": "targets", "action": [10**400] + [0.0] * 15}, "finite numbers"),
        ({"type": "move", "hand": "left", "gripper": -math.inf}, "finite numbers"),
        ({"type": "targets", "action": [5.0] + [0.0] * 15}, "at most 4.0"),
    ],
)
def test_what_isnt_a_command_is_refused(message, complaint):
    with pytest.raises(BadMessageError, match=complaint):
        parse_command(message)


@pytest.mark.parametrize(
    "text", ["", "[]", '{"kind": 1}', '{"type": 1}', "[" * 100_000, b"\xff\xfe", '{"type": "take"']
)
def test_what_isnt_a_message_is_refused(text):
    with pytest.raises(BadMessageError, match="expected"):
        read_object(text)


def test_statuses_come_back_and_others_are_refused():
    status = Status(
        "g1-1", "fold", "fold it", 3, "policy", True, "stuck", "", 9, 30.0, (0.5, 1), ("a", "b"), "a", "success", 2
    )
    raw = json.loads(status.to_json())
    assert parse_status(raw) == status
    for change, complaint in (
        ({"robot_id": "G1 1"}, "not a valid name"),
        ({"control": "dance"}, "control must be one of"),
        ({"state": ["a"]}, "state holds something else"),
        ({"stages": ["a"] * 65}, "at most 64"),
        ({"frame": math.inf}, "frame has the wrong type"),
        ({"frame": 10**400}, "frame has the wrong type"),
        ({"state": [10**400]}, "state holds something else"),
        ({"state": [math.nan]}, "state holds something else"),
        ({"frame": None}, "frame has the wrong type"),
        ({"frame": "abc"}, "frame has the wrong type"),
        ({"frame": 1.5}, "frame must be a whole number"),
        ({"frame": True}, "frame has the wrong type"),
        ({"wants_operator": 1}, "wants_operator has the wrong type"),
        ({"task": 5}, "task must be a text"),
    ):
        with pytest.raises(BadMessageError, match=complaint):
            parse_status(raw | change)
    assert len(parse_status(raw | {"instruction": "x" * 1000}).instruction) == 300


def test_pictures_say_whose_they_are():
    head = PictureHead("g1-1", "head", 17)
    message = join_picture(head, b"\xff\xd8\n\n")
    assert (read_head(message), message.partition(b"\n")[2]) == (head, b"\xff\xd8\n\n")
    for wrong in (
        b"",
        b"\xff\xd8",
        b'{"robot": "a", "camera": "b"}\n',
        b'{"robot": 1, "camera": "b", "number": 1}\n',
        b"[1]\n",
    ):
        with pytest.raises(BadMessageError, match="picture must begin"):
            read_head(wrong)
    with pytest.raises(BadMessageError, match="picture must begin"):
        read_head(json.dumps({"robot": "a", "camera": "b", "number": 1}).encode())  # no line


def test_other_computers_are_told_a_name_and_not_any_address():
    for host in ("0.0.0.0", "::"):
        link = seen_from_elsewhere(DeskAddress(host, 8790, "abc")).link
        assert link == f"http://{socket.gethostname()}:8790/#abc"
    for host in ("127.0.0.1", "10.0.0.7", "::1", "station-3"):
        address = DeskAddress(host, 8790, "abc")
        assert seen_from_elsewhere(address) == address


def test_a_link_holds_all_that_is_needed_and_its_token_stays_out_of_logs():
    address = DeskAddress("127.0.0.1", 8790, new_token())
    assert parse_link(address.link) == address
    assert parse_link("http://[::1]:9/#abc").socket_url == "ws://[::1]:9/line"
    assert address.token not in repr(address)
    assert new_token() != address.token
    assert len(address.token) == 32
    for wrong in (
        "",
        "http://127.0.0.1:8790/",
        "https://127.0.0.1:1/#a",
        "http://127.0.0.1/#a",
        "http://[::1/#a",
        "http://a:b/#c",
    ):
        with pytest.raises(ConfigError, match="must be http://HOST:PORT/#TOKEN"):
            parse_link(wrong)
    with pytest.raises(ConfigError) as caught:
        parse_link("ftp://127.0.0.1:8790/#secret")
    assert "secret" not in str(caught.value)
