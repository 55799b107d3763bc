"""`sop act --station`: a file says which robot; the real one's path runs over the emulator behind the SDK's own names."""

import json
import socket
import sys
import threading
import types

import pytest
from websockets.sync.client import connect

import envs
from configs.files import from_json, to_json
from configs.station import StationConfig, read_station
from sop_jax.actors.operator.commands import Take
from sop_jax.actors.operator.console import Console
from sop_jax.actors.operator.desk import Desk
from sop_jax.cli import act_station
from sop_jax.cli.main import BAD_INPUT, main
from sop_jax.cli.operator_options import LINK_VARIABLE, OperatorOptions, open_console
from sop_jax.cli.station_robot import _watch_of
from sop_jax.cli.stopping import StopRequests
from sop_jax.drill.ledger import read_ledgers
from sop_jax.episodes.store import EpisodeStore
from sop_jax.robots.g1.config import CameraConfig, UnitsConfig
from sop_jax.robots.g1.emulated_sdk import EmulatedCosineCamera, EmulatedRobotController, EmulatedRobotDds
from sop_jax.robots.g1.emulator import Emulator
from sop_jax.robots.g1.faults import StartStoppedError
from sop_jax.specs.clock import WallClock
from sop_jax.specs.errors import ConfigError
from sop_jax.specs.metrics import MemoryMetrics
from sop_jax.specs.records import Outcome

POLICY = "assets/policies/restock_compact"
CAMERAS = [
    {"name": name, "sdk_name": name, "frame_height": 64, "frame_width": 64, "height": 64, "width": 64}
    for name in ("head", "hand_left", "hand_right")
]
# Deadlines for a machine that does other work too.
PATIENT = {
    "command_late_s": 10.0,
    "give_up_s": 30.0,
    "max_state_age_s": 10.0,
    "max_frame_age_s": 10.0,
    "max_frozen_s": None,
}
REAL = {
    "robot": "g1",
    "task": "fold",
    "instruction": "fold it",
    "policy": POLICY,
    "g1": {"cameras": CAMERAS, "timing": PATIENT},
    "drain_s": 30.0,
}


@pytest.fixture
def station(tmp_path):
    def write(values):
        path = tmp_path / "station.json"
        path.write_text(json.dumps(values))
        return ["act", "--station", str(path), "--robot-id", "g1-1", "--store", str(tmp_path / "store"), "--episodes", "1",
                "--spool", str(tmp_path / "spool"), "--metrics", str(tmp_path / "metrics"), "--json"]  # fmt: skip

    return write


def _episodes(tmp_path):
    store = EpisodeStore(f"file://{tmp_path}/store/")
    return [store.read_without_images(path).manifest for path in store.list_paths()]


def test_a_signal_or_a_person_stops_the_way_to_the_start():
    console = Console("g1-1", WallClock())
    stop = StopRequests()
    watch = _watch_of(console, stop)
    watch()
    console.obey(Take())
    with pytest.raises(StartStoppedError, match="a person stopped the robot"):
        watch()
    stop._requested.set()
    with pytest.raises(KeyboardInterrupt):
        watch()
    with pytest.raises(KeyboardInterrupt):
        _watch_of(None, stop)()


@pytest.mark.slow
@pytest.mark.parametrize("robot", ["simulated", "g1_emulator"])
def test_a_station_without_a_real_robot(station, tmp_path, capsys, robot):
    world = {"time_limit_s": 0.5}
    words = station({"robot": robot, "policy": POLICY, "world": world, "g1": {"timing": PATIENT}, "drain_s": 30.0})
    assert main(words) == 0
    report = json.loads(capsys.readouterr().out.splitlines()[-1])
    assert (report["num_episodes"], report["all_uploaded"]) == (1, True)
    (manifest,) = _episodes(tmp_path)
    assert (manifest.robot_id, manifest.task, manifest.outcome) == ("g1-1", "restock_shelf", Outcome.TIMEOUT)
    assert manifest.world.startswith("restock_shelf")
    assert 1 <= manifest.num_frames <= 16  # Half a second at 30 Hz; a busy machine misses ticks.


@pytest.mark.parametrize("dry_run", [True, False])
def test_a_dry_run_says_so_at_the_start(station, monkeypatch, capsys, dry_run):
    def stop(*_):
        raise KeyboardInterrupt

    monkeypatch.setattr(act_station, "run_actor", stop)
    main(station({"robot": "g1_emulator", "policy": POLICY, "g1": {"dry_run": dry_run}}))
    assert (
        "g1-1: DRY RUN, nothing is sent to the robot; episodes end as aborted" in capsys.readouterr().err
    ) is dry_run


def test_a_real_robot_waits_for_its_scene_and_for_a_judgement(station, tmp_path, monkeypatch, capsys):
    environment = envs.load("restock_shelf", image_size=64)
    cameras = [CameraConfig(**camera) for camera in CAMERAS]
    emulator = Emulator(environment, WallClock(), UnitsConfig(), cameras)
    emulator.prepare(0)
    sdk = types.ModuleType("a2d_sdk.robot")
    sdk.RobotDds = lambda: EmulatedRobotDds(emulator)
    sdk.CosineCamera = lambda names: EmulatedCosineCamera(emulator, names)
    sdk.RobotController = lambda: EmulatedRobotController(emulator)
    monkeypatch.setitem(sys.modules, "a2d_sdk", types.ModuleType("a2d_sdk"))
    monkeypatch.setitem(sys.modules, "a2d_sdk.robot", sdk)
    with Desk() as desk:
        monkeypatch.setenv(LINK_VARIABLE, desk.address.link)
        person = threading.Thread(target=_judge_one, args=(desk,))
        person.start()
        more = ["--join-operator", "--ledger", str(tmp_path / "ledger.jsonl"), "--metrics-port", "0"]
        assert main([*station(REAL), *more]) == 0
        person.join(30)
    environment.close()
    assert emulator.num_commands > 0
    captured = capsys.readouterr()
    assert json.loads(captured.out.splitlines()[-1])["num_successes"] == 0
    assert "g1-1 serves its metrics at http://127.0.0.1:" in captured.err
    (manifest,) = _episodes(tmp_path)
    (entry,) = read_ledgers([tmp_path / "ledger.jsonl"]).values()
    assert (entry.episode_id, entry.accepted) == (manifest.episode_id, True)
    assert (manifest.task, manifest.instruction, manifest.world) == ("fold", "fold it", "")
    assert (manifest.outcome, manifest.failure_kind) == (Outcome.FAILURE, "after_first_fold")
    events = [json.loads(line) for line in (tmp_path / "metrics" / "g1-1.jsonl").read_text().splitlines()]
    names = [event["event"] for event in events]
    assert names.index("operator_stage") < names.index("operator_mark") < names.index("g1_episode")


def _judge_one(desk):
    """A person's line: sets the scene when asked to, sees the robot act, and judges."""
    with connect(desk.address.socket_url, proxy=None) as line:
        line.send(json.dumps({"type": "hello", "token": desk.address.token, "role": "person"}))
        todo = {
            "scene": [{"type": "ready"}],
            "policy": [{"type": "stage", "stage": "first_fold"}, {"type": "mark", "outcome": "failure"}],
        }
        while todo:
            message = json.loads(line.recv(timeout=60))
            for robot in message.get("robots", []):
                for command in todo.pop(robot["control"], []):
                    line.send(json.dumps({**command, "robot": "g1-1"}))


@pytest.mark.parametrize(
    ("change", "more", "complaint"),
    [
        ({}, [], "needs a person who sets its scenes"),
        ({}, ["--operator", "70000"], "can't listen on 127.0.0.1:70000: "),
        ({}, ["--operator", "0"], "the G1's SDK (a2d_sdk.robot) can't be imported"),
        ({}, ["--operator", "0", "--join-operator"], "exclude each other"),
        ({}, ["--join-operator"], "the operator's link must be"),
        ({"task": "Fold It"}, [], "task 'Fold It' is not a valid name"),
        ({"instruction": ""}, [], "must say what the robot is to do"),
        ({"robot": "g2"}, [], "expected one of ['g1', 'g1_emulator', 'simulated'], got 'g2'"),
        ({"g1": {"dry_runs": True}}, [], "did you mean 'dry_run'?"),
        ({"rollout": {"realtime": False}}, [], "realtime must be true"),
        (
            {"g1": {"dry_run": True}, "rollout": {"realtime": True, "max_frames": 99}},
            [],
            "which is 3600 frames, got 99",
        ),
        ({"policy": "no/such"}, [], "no/such is no policy"),
    ],
)
def test_mistakes_are_one_clear_line(station, monkeypatch, capsys, change, more, complaint):
    monkeypatch.delenv(LINK_VARIABLE, raising=False)
    monkeypatch.setitem(sys.modules, "a2d_sdk", None)
    assert main([*station({**REAL, **change}), *more]) == BAD_INPUT
    last = capsys.readouterr().err.strip().splitlines()[-1]
    assert last.startswith("sop act: ")
    assert complaint in last


def test_a_port_for_metrics_needs_a_package_that_robots_dont_get(station, monkeypatch, capsys):
    monkeypatch.setitem(sys.modules, "prometheus_client", None)
    monkeypatch.delitem(sys.modules, "sop_jax.monitoring.prometheus", raising=False)
    assert main([*station(REAL), "--metrics-port", "0"]) == BAD_INPUT
    last = capsys.readouterr().err.strip().splitlines()[-1]
    assert last.startswith("sop act: --metrics-port needs a package")
    assert "uv pip install prometheus-client" in last


def test_a_page_for_the_whole_network_has_a_link_that_opens_from_elsewhere(capsys):
    options = OperatorOptions(operator=0, operator_host="0.0.0.0")
    with open_console(options, "g1-1", WallClock(), lambda: 0, MemoryMetrics()):
        told = capsys.readouterr().err
    assert "not encrypted" in told
    assert f"operator: open http://{socket.gethostname()}:" in told


def test_a_person_needs_a_robot_that_can_be_taken_over(capsys):
    words = ["act", "--robot-id", "r", "--store", "s", "--operator", "0"]
    for flag in ("--fast", "--unsupervised", "--expert"):
        assert main([*words, flag]) == BAD_INPUT
        assert "needs a paced robot" in capsys.readouterr().err


def test_stations_come_back_from_their_files(tmp_path):
    config = from_json(StationConfig, REAL)
    (tmp_path / "s.json").write_text(json.dumps(to_json(config)))
    assert read_station(tmp_path / "s.json") == config
    assert (config.rollout.realtime, config.rollout.reaction_delay_s, config.rollout.handover.blend_s) == (
        True,
        0.0,
        0.25,
    )
    (tmp_path / "s.json").write_text("{")
    with pytest.raises(ConfigError, match="expected JSON"):
        read_station(tmp_path / "s.json")
