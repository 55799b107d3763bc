"""The files in launch/ that start a learner say what `sop learn` understands, and hold no address and no secret."""

import dataclasses
import json
import os
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
    command = text[text.index("sop learn") :] + " ".join(re.findall(r"hosts=\((.*)\)", text))
    command = re.sub(r"srun --[a-z-]+", "srun", command)
    flags = set(re.findall(r"--([a-z-]+)", command))
    known = {field.name.replace("_", "-") for field in dataclasses.fields(LearnArguments)}
    assert {"config", "store", "replay", "checkpoints", "coordinator"} <= flags
    assert flags <= known
    configs = re.findall(r"pi05_[a-z0-9]+", command)
    assert any(name in FINETUNINGS for name in configs)


@pytest.mark.parametrize("path", [path for path in FILES if path.suffix != ".yaml"], ids=lambda path: path.name)
def test_scripts_are_whole(path):
    subprocess.run(["bash", "-n", str(path)], check=True)


@pytest.mark.parametrize("num_nodes", [1, 2])
def test_slurm_hands_every_word_on_as_it_is(tmp_path, num_nodes):
    def program(name, script):
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(f"#!/usr/bin/env bash\n{script}\n")
        path.chmod(0o755)

    program(".venv/bin/sop", """printf '%s\\n' "$@" """)
    program("bin/srun", 'shift; SLURM_NODEID=1 exec "$@"')
    program("bin/scontrol", "echo node-a; echo node-b")
    store = '{"driver": "s3", "bucket": "b"}'
    environment = {
        "PATH": f"{tmp_path}/bin:{os.environ['PATH']}", "SLURM_NNODES": str(num_nodes), "SLURM_JOB_NODELIST": "node-[a-b]",
        "SLURM_JOB_ID": "1", "SOP_STORE": store, "SOP_REPLAY": "replay:1", "SOP_RUN": "/shared/my run",
    }  # fmt: skip
    done = subprocess.run(["bash", FILES[0]], cwd=tmp_path, env=environment, capture_output=True, text=True, check=True)
    words = done.stdout.splitlines()
    assert words[words.index("--store") + 1] == store
    assert words[words.index("--checkpoints") + 1] == "/shared/my run/checkpoints"
    hosts = ["--coordinator", "node-a:12321", "--num-processes", "2", "--process-id", "1"]
    assert words[-6:] == hosts if num_nodes == 2 else "--process-id" not in words


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
