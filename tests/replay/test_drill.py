"""Real processes, killed on a schedule, against a real replay server; and a deployment that is looked at without harm."""

import json

import pytest
from reverb_environment import need_reverb

from sop_jax.cli.main import main
from sop_jax.drill.drill import run_drill, run_schedule, summarise
from sop_jax.drill.place import Place
from sop_jax.drill.schedule import Fault, Schedule, Step, make_schedule

FIXED = (
    Fault.KILL_ACTOR,
    Fault.TORN_UPLOAD,
    Fault.RESTORED_SPOOL,
    Fault.KILL_INTAKE,
    Fault.ITEM_TO_NOTHING,
    Fault.OLD_CHECKPOINT,
    Fault.FLIPPED_BYTES,
    Fault.CLOCK_BACK,
)


@pytest.mark.reverb
def test_a_fixed_schedule_of_eight_faults_loses_nothing(tmp_path, reverb_server):
    steps = tuple(Step(fault, 1 + number, 0.02, 12 + number) for number, fault in enumerate(FIXED))
    schedule = Schedule(1, 2, episodes_per_actor=5, num_intakes=2, spool_bytes=2**30, steps=steps)
    verdict = run_schedule(Place(tmp_path / "drill"), schedule, reverb_server.address, deadline_s=240)
    assert verdict.problems == ()
    assert verdict.num_announced == 10
    assert verdict.num_accepted >= 10 - 3  # three kills of robots
    assert verdict.num_given_up == 0
    assert verdict.num_samples > 0
    assert sum(verdict.faults.values()) >= 5  # the first ones may find nothing to strike yet


@pytest.mark.slow
@pytest.mark.reverb
@pytest.mark.timeout(4 * 3600)
def test_hundreds_of_schedules_lose_nothing(tmp_path):
    need_reverb()
    report = summarise(run_drill(tmp_path, range(200), deadline_s=600))
    assert report.problems == {}
    assert report.num_schedules == 200
    assert set(report.by_fault) == {fault.value for fault in Fault}


def test_the_schedules_of_the_long_run_kill_the_server_too():
    kinds = [step.fault for seed in range(200) for step in make_schedule(seed, with_reverb=True).steps]
    assert kinds.count(Fault.KILL_REVERB) > 20


@pytest.mark.reverb
@pytest.mark.slow
def test_the_command_writes_its_report(tmp_path, reverb_server, capsys):
    words = ["doctor", "--drill", "--schedules", "1", "--replay", reverb_server.address, "--json"]
    words += ["--report", str(tmp_path / "report.json"), "--deadline-s", "300"]
    assert main(words) == 0
    told = json.loads(capsys.readouterr().out.strip().splitlines()[-1])
    written = json.loads((tmp_path / "report.json").read_text())
    assert (told["ok"], told["num_schedules"], written["ok"]) == (True, 1, True)
    assert written["schedules"][0]["seed"] == 0
