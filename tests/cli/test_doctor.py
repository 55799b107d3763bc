import dataclasses
import json

import pytest

from sop_jax.cli import doctor, machine
from sop_jax.cli.machine import (
    Check,
    check_cores,
    check_disk,
    check_memory,
    check_python,
    check_rendering,
    check_reverb,
    describe_machine,
)
from sop_jax.cli.main import BAD_INPUT, main
from sop_jax.evaluation.provenance import describe


def test_quick_checks_at_their_limits(tmp_path):
    assert check_python((3, 11, 0)).ok
    assert not check_python((3, 10, 9)).ok
    assert check_cores(2).ok
    assert not check_cores(1).ok
    assert not check_cores(1).needed
    assert check_memory(4 * 10**9).ok
    assert "add memory" in check_memory(10**9).fix
    assert check_disk(tmp_path, 3 * 10**9).ok
    short = check_disk(tmp_path / "not" / "yet", 10**9)
    assert not short.ok
    assert "free 2.0 GB" in short.fix
    assert str(tmp_path) in short.found


def test_rendering_is_really_tried(monkeypatch):
    assert check_rendering() == Check("Rendering", True, check_rendering().found)
    monkeypatch.setenv("MUJOCO_GL", "osmeso")
    broken = check_rendering()
    assert not broken.ok
    assert "libegl1" in broken.fix


def test_reverb_that_is_not_there(monkeypatch, tmp_path):
    monkeypatch.setenv("SOP_REVERB_PYTHON", str(tmp_path / "python"))
    missing = check_reverb()
    assert not missing.ok
    assert "reverb-env" in missing.fix
    broken = tmp_path / "python"
    broken.write_text("#!/bin/sh\necho 'no module named reverb' >&2\nexit 1\n")
    broken.chmod(0o755)
    assert check_reverb().found == "no module named reverb"


def test_a_probe_that_hangs_is_given_up(monkeypatch, tmp_path):
    hanging = tmp_path / "python"
    hanging.write_text("#!/bin/sh\nsleep 30\n")
    hanging.chmod(0o755)
    monkeypatch.setattr(machine, "PROBE_TIMEOUT_S", 0.2)
    monkeypatch.setenv("SOP_REVERB_PYTHON", str(hanging))
    assert check_reverb().found == "no answer within 0 s"


def test_a_machine_is_described_with_its_accelerators(monkeypatch):
    cores = describe(0.0)
    for found, hardware in (
        (('{"kind": "NVIDIA H100 80GB HBM3", "num_devices": 2, "bytes_each": 1}', True),
         f"{cores.hardware}, 2 x NVIDIA H100 80GB HBM3"),
        (('{"kind": "cpu", "num_devices": 8, "bytes_each": 0}', True), cores.hardware),
        (("no device", False), cores.hardware),
    ):  # fmt: skip
        monkeypatch.setattr(machine, "_probe", lambda command, environment, found=found: found)
        assert describe_machine(0.0) == dataclasses.replace(cores, hardware=hardware)


@pytest.mark.parametrize(
    ("checks", "code", "last_words"),
    [
        ([Check("A", True, "fine")], 0, "Everything that the demo needs is here."),
        ([Check("A", True, "fine"), Check("B", False, "gone", fix="get b")], 1, "Missing: B."),
        ([Check("C", False, "slow", needed=False, fix="wait")], 0, "Everything that the demo needs is here."),
    ],
)
def test_exit_code_says_whether_something_needed_is_missing(checks, code, last_words, monkeypatch, capsys):
    monkeypatch.setattr(doctor, "check_machine", lambda directory: checks)
    assert doctor.run(["--json"]) == code
    lines = capsys.readouterr().out.strip().splitlines()
    assert lines[-2] == last_words
    found = json.loads(lines[-1])
    assert found["ok"] is (code == 0)
    assert [check["name"] for check in found["checks"]] == [check.name for check in checks]
    for check in checks:
        assert any(check.fix in line for line in lines)


@pytest.mark.parametrize(
    ("words", "complaint"),
    [
        (["--stations", "localhost:1"], "--stations: only with --live"),
        (["--schedules", "3", "--seed", "1"], "--schedules, --seed: only with --drill"),
        (["--store", "x"], "--store: only with --drill"),
        (["--drill", "--ledgers", "x"], "--ledgers: only with --store"),
        (["--devices", "8"], "--devices: only with --config"),
    ],
)
def test_an_option_that_would_mean_nothing_is_refused(words, complaint, capsys):
    assert main(["doctor", *words]) == BAD_INPUT
    assert complaint in capsys.readouterr().err
