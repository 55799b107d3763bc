"""The files in launch/ that start a learner say what `sop learn` understands, and hold no address and no secret."""

import dataclasses
import json
import pathlib
import re
import subprocess

import pytest

from configs.files import from_json
from configs.registry import DEMOS, FINETUNINGS
from configs.station import read_station
from sop_jax.cli.act_station import StationArguments
from sop_jax.cli.learn import LearnArguments
from sop_jax.cli.replay import ReplayArguments
from sop_jax.robots.g1.config import DEFAULT_CAMERAS, G1RobotConfig

LAUNCH = pathlib.Path(__file__).parents[2] / "launch"
FILES = [LAUNCH / name for name in ("slurm/learner.sbatch", "kubernetes/learner-jobset.yaml", "tpu/learner.sh")]


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.name)
def test_every_option_is_one_of_sop_learn(path):
    text = "\n".join(line for line in path.read_text().splitlines() if not line.lstrip().startswith("#"))
    command = text[text.index("sop learn") :].split("srun")[0] + " ".join(re.findall(r"hosts=\((.*)\)", text))
    flags = set(re.findall(r"--([a-z-]+)", command))
    known = {field.name.replace("_", "-") for field in dataclasses.fields(LearnArguments)}
    assert {"config", "store", "replay", "checkpoints", "coordinator"} <= flags
    assert flags <= known
    configs = re.findall(r"pi05_[a-z0-9]+", command)
    assert any(name in FINETUNINGS for name in configs)


@pytest.mark.parametrize("path", [path for path in FILES if path.suffix != ".yaml"], ids=lambda path: path.name)
def test_scripts_are_whole(path):
    subprocess.run(["bash", "-n", str(path)], check=True)


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.name)
def test_no_address_and_no_secret(path):
    text = path.read_text().replace("secret: { secretName: ", "")  # a secret's name may stand there
    assert not re.search(r"\d+\.\d+\.\d+\.\d+|https?://|[a-z]://[a-z0-9-]+/|(?i:password|token|secret)\s*[:=]", text)


G1 = LAUNCH / "g1"


def _command(unit: pathlib.Path) -> str:
    """What a unit's shell runs, which must be whole and know its variables from the unit's head."""
    text = unit.read_text()
    shell = re.search(r"^ExecStart=/bin/bash -c '(.*)'$", text, re.MULTILINE)[1]
    subprocess.run(["bash", "-n", "-c", shell], check=True)
    assert "KillSignal=SIGINT" in text.splitlines()  # which ends an episode whole, and lets the SDK shut down
    given = set(re.findall(r"\$([A-Z0-9_]+)", shell))
    assert given
    assert all(name in text.partition("[Unit]")[0] for name in given)
    return shell


def test_the_robots_unit_starts_sop_act_as_it_is():
    flags = set(re.findall(r"--([a-z-]+)", _command(G1 / "sop-robot.service")))
    known = {field.name.replace("_", "-") for field in dataclasses.fields(StationArguments)}
    assert {"station", "robot-id", "store", "operator"} <= flags <= known


def test_the_replay_servers_unit_starts_sop_replay_with_certificates_and_for_ever():
    unit = LAUNCH / "replay" / "sop-replay.service"
    flags = set(re.findall(r"--([a-z-]+)", _command(unit)))
    known = {field.name.replace("_", "-") for field in dataclasses.fields(ReplayArguments)}
    assert {"store", "config", "port", "tls"} <= flags <= known
    assert "Restart=always" in unit.read_text().splitlines()


def test_the_sdks_unit_serves_the_cameras_and_the_socket_of_the_station():
    station = read_station(G1 / "station.json")
    words = _command(G1 / "sop-sdk.service").split()
    start = words.index("launch/g1/sdk_server.py")
    assert words[start + 1] == station.g1.sdk_socket
    assert words[start + 2 :] == [camera.sdk_name for camera in station.g1.cameras]


def test_the_shipped_station_moves_nothing():
    station = read_station(G1 / "station.json")
    assert (station.robot, station.g1.dry_run, station.g1.arms) == ("g1", True, ("right",))
    assert station.g1.limits.max_speed == 0.5
    assert not station.g1.posture.commanded


def test_the_guides_cameras_give_what_the_small_policies_learn_from():
    (text,) = re.findall(r"```json\n(.*?)```", (G1 / "README.md").read_text(), re.DOTALL)
    cameras = from_json(G1RobotConfig, json.loads("{" + text + "}")).cameras
    assert cameras == tuple(dataclasses.replace(camera, height=64, width=64) for camera in DEFAULT_CAMERAS)
    assert DEMOS["restock_demo"].world.image_size == 64
    assert {config.world.image_size for config in FINETUNINGS.values()} == {DEFAULT_CAMERAS[0].height} == {224}


@pytest.mark.parametrize("path", sorted(G1.iterdir()), ids=lambda path: path.name)
def test_robots_files_hold_no_address_of_anybody(path):
    text = path.read_text().replace("127.0.0.1", "loopback")
    assert not re.search(r"\d+\.\d+\.\d+\.\d+|https?://|[a-z]://[a-z0-9-]+/|(?i:password|token|secret)\s*[:=]", text)
