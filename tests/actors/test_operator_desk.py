"""The desk over real sockets: a robot's link, a person, a device, and strangers."""

import http.client
import json
import time

import numpy as np
import pytest
from websockets.exceptions import ConnectionClosed
from websockets.sync.client import connect

from sop_jax.actors.operator import device as device_module
from sop_jax.actors.operator import link as link_module
from sop_jax.actors.operator.commands import Move, Take, Targets
from sop_jax.actors.operator.console import Console
from sop_jax.actors.operator.desk import Desk
from sop_jax.actors.operator.desk_address import PING_S, PONG_S, DeskAddress
from sop_jax.actors.operator.link import ConsoleLink
from sop_jax.actors.operator.pictures import read_head
from sop_jax.specs.clock import WallClock
from sop_jax.specs.errors import ConfigError

ADDRESS = DeskAddress("127.0.0.1", 8790, "token")


@pytest.fixture
def desk():
    with Desk() as desk:
        yield desk


def call_in(desk, role, token=None, robot=""):
    """A line that has said hello."""
    line = connect(desk.address.socket_url, proxy=None, compression=None)
    return _Line(line, {"type": "hello", "token": token or desk.address.token, "role": role, "robot": robot})


class _Line:
    def __init__(self, line, hello):
        self._context, self._hello = line, hello

    def __enter__(self):
        self.line = self._context.__enter__()
        self.send(**self._hello)
        return self

    def __exit__(self, *details):
        self._context.__exit__(*details)

    def send(self, **message):
        self.line.send(json.dumps(message))

    def hear(self, kind):
        """The next message of this type."""
        while True:
            message = self.line.recv(timeout=10)
            if isinstance(message, bytes):
                if kind == "picture":
                    return message
            elif json.loads(message)["type"] == kind:
                return json.loads(message)

    def closed(self):
        """The code and reason with which the desk hung up."""
        try:
            while True:
                self.line.recv(timeout=10)
        except ConnectionClosed as end:
            return end.rcvd.code, end.rcvd.reason


@pytest.fixture
def robot(desk):
    console = Console("g1-1", WallClock(), lambda: 3)
    link = ConsoleLink(console, desk.address, WallClock())
    yield console
    link.close()


def wait_until(condition):
    deadline = time.monotonic() + 10
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.01)


def test_a_person_and_a_device_at_one_robot(desk, robot):
    with call_in(desk, "person") as person, call_in(desk, "device") as device:
        person.hear("welcome")
        wait_until(lambda: person.hear("robots")["robots"])
        robot.begin_episode("fold", "fold it", 30.0)
        person.send(type="watch", robot="g1-1")
        wait_until(lambda: robot.watched)
        robot.show({"head": np.full((8, 8, 3), 200, np.uint8)})
        assert read_head(person.hear("picture")).camera == "head"
        person.send(type="take", robot="g1-1")
        wait_until(lambda: robot.operator_wanted)
        device.send(type="targets", robot="g1-1", action=[0.5] * 16)
        wait_until(lambda: robot.motion == Targets((0.5,) * 16))
        person.send(type="move", robot="g1-1", hand="left", gripper=1)
        wait_until(lambda: isinstance(robot.motion, Move))
        wait_until(lambda: person.hear("robots")["robots"][0]["driver"] == "you")
        assert person.hear("robots")["robots"][0]["policy_version"] == 3
        person.send(type="hand_back", robot="g1-1")
        wait_until(lambda: not robot.operator_wanted)
    wait_until(lambda: not robot.watched)  # They left.


def test_a_driver_whose_network_vanished_soon_drives_no_longer(desk, robot):
    """Without an answer to a ping the line is closed. Here: somebody who no longer reads what comes."""
    with call_in(desk, "person") as witness:
        wait_until(lambda: witness.hear("robots")["robots"])
        robot.begin_episode("fold", "fold it", 30.0)
        with call_in(desk, "person") as gone:
            gone.send(type="take", robot="g1-1")
            wait_until(lambda: witness.hear("robots")["robots"][0]["driver"] == "somebody else")
            gone.line.protocol.receive_data = lambda data: None  # deaf from here on, with the socket open
            started = time.monotonic()
            wait_until(lambda: witness.hear("robots")["robots"][0]["driver"] == "nobody")
            assert 1.0 < time.monotonic() - started < PING_S + PONG_S + 3.0
            gone.line.socket.close()
        assert witness.hear("robots")["robots"][0]["wants_operator"]  # It is held, and waits for somebody.


@pytest.mark.parametrize(("name", "call"), [("link", "robot"), ("device", "device")])
def test_who_calls_in_asks_whether_the_desk_is_there(monkeypatch, name, call):
    asked = {}

    def connect_and_note(url, **options):
        asked.update(options)
        raise OSError("no network")

    module = {"link": link_module, "device": device_module}[name]
    monkeypatch.setattr(module, "connect", connect_and_note)
    if call == "robot":
        ConsoleLink(Console("g1-1", WallClock()), ADDRESS, WallClock()).close()
    else:
        with pytest.raises(device_module.DeskClosedError, match="no network"):
            device_module.operate(ADDRESS, "g1-1", None, None, None)
    assert (asked["ping_interval"], asked["ping_timeout"]) == (PING_S, PONG_S)


def test_strangers_are_turned_away(desk, robot):
    for token in ("guessed", "\ud800", "ключ"):
        with call_in(desk, "person", token=token) as stranger:
            assert stranger.closed() == (4401, "wrong token")
    robot.begin_episode("fold", "fold it", 30.0)
    with connect(desk.address.socket_url, proxy=None) as line:
        line.send(json.dumps({"type": "take", "robot": "g1-1"}))  # no hello
        with pytest.raises(ConnectionClosed):
            line.recv(timeout=10)
    assert not robot.operator_wanted
    for role, name, why in (
        ("king", "", "got 'king'"),
        ("robot", "G 1", "not a valid name"),
        ("robot", "g1-1", "already"),
    ):
        wait_until(lambda: robot.status.robot_id == "g1-1")
        with call_in(desk, role, robot=name) as guest:
            code, reason = guest.closed()
            assert (code, why in reason) == (4400, True)


def test_nonsense_closes_its_own_line_only(desk, robot):
    with call_in(desk, "person") as person, call_in(desk, "person") as witness:
        wait_until(lambda: witness.hear("robots")["robots"])
        person.send(type="move", robot="g1-1", hand="left", linear=[9, 9, 9])
        assert person.closed()[0] == 4400
        assert witness.hear("robots")["robots"][0]["has_signal"]


def test_a_robot_calls_again_when_its_line_is_back(robot, desk):
    with call_in(desk, "person") as person:
        wait_until(lambda: person.hear("robots")["robots"])
    address = desk.address
    desk.close()
    robot.begin_episode("fold", "fold it", 30.0)
    robot.obey(Take())  # A person beside the robot, at a device of its own, needs no desk.
    assert robot.operator_wanted
    with Desk(address.port, token=address.token) as desk_again, call_in(desk_again, "person") as person:
        wait_until(lambda: person.hear("robots")["robots"])
        assert person.hear("robots")["robots"][0]["wants_operator"]


def test_the_page_is_served_and_nothing_else(desk):
    for path, kind in (("/", "text/html"), ("/page.js", "text/javascript"), ("/page.css", "text/css")):
        answer = _get(desk, path)
        assert (answer.status, answer.headers["Content-Type"].split(";")[0]) == (200, kind)
        assert "script-src 'self'" in answer.headers["Content-Security-Policy"]
        assert desk.address.token not in answer.body
        assert "http://" not in answer.body  # nothing from elsewhere
        assert "https://" not in answer.body
    for path in ("/../desk.py", "/page/index.html", "/%2e%2e/desk.py"):
        assert _get(desk, path).status == 404


def _get(desk, path):
    connection = http.client.HTTPConnection("127.0.0.1", desk.address.port, timeout=10)
    connection.request("GET", path)
    answer = connection.getresponse()
    answer.body = answer.read().decode()
    connection.close()
    return answer


def test_a_port_that_is_taken_is_one_clear_line(desk):
    with pytest.raises(ConfigError, match=r"can't listen on 127.0.0.1.*choose another port"):
        Desk(desk.address.port)


@pytest.mark.parametrize(("port", "host"), [(70_000, "127.0.0.1"), (-1, "127.0.0.1"), (0, "a..b")])
def test_what_is_no_address_is_one_clear_line_too(port, host):
    with pytest.raises(ConfigError, match=rf"can't listen on {host}:{port}: .*choose another port"):
        Desk(port, host)
