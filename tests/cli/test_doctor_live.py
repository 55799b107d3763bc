"""`sop doctor --live` over real HTTP, and `sop episodes trace` over the files of several stations."""

import contextlib
import json

import pytest

from sop_jax.cli.main import main
from sop_jax.cli.station_metrics import find_addresses, open_metrics
from sop_jax.monitoring.scrape import Window, read_stations
from sop_jax.specs.clock import WallClock


@pytest.fixture
def stations(tmp_path):
    """Two stations of a run that serve their metrics."""
    with contextlib.ExitStack() as stack:
        yield [
            open_metrics(stack, name, tmp_path / "run" / "metrics", 0, "127.0.0.1") for name in ("robot-0", "learner")
        ]


def last_json(capsys):
    return json.loads(capsys.readouterr().out.strip().splitlines()[-1])


def test_the_stations_of_a_run_are_found_and_their_bottleneck_is_named(stations, tmp_path, capsys):
    robot, learner = stations
    robot.write("acting", robot_id="robot-0", version=0)
    learner.write("learner_step", step=10, version=1, steps_per_s=5.0, wait_share=0.0, loss=1.0)
    words = ["doctor", "--live", "--run", str(tmp_path / "run"), "--watch-s", "0", "--json"]
    assert main(words) == 0
    assert last_json(capsys)["bottleneck"] is None
    robot.write("upload_failed", episode_id="e", num_pending=3, pending_bytes=30, max_bytes=100, reason="no route")
    assert main(words) == 1
    out = capsys.readouterr().out
    assert "Bottleneck: robot-0 can't upload: its last attempt failed, 3 episodes wait in its spool." in out
    found = json.loads(out.strip().splitlines()[-1])
    assert found["bottleneck"] == "upload_fails"
    assert found["vitals"]["spool_bytes"] == 30
    assert found["vitals"]["learner_steps_per_s"] == 5.0


def test_a_loop_that_is_stuck_at_its_start_is_not_called_healthy(stations, tmp_path, capsys):
    robot, learner = stations
    words = ["doctor", "--live", "--run", str(tmp_path / "run"), "--watch-s", "0", "--json"]
    assert main(words) == 1
    found = last_json(capsys)
    assert [verdict["code"] for verdict in found["verdicts"]] == ["station_mute"] * 2
    robot.write("acting", robot_id="robot-0", version=0)
    learner.write("awaits_items", missing=8)
    assert main(words) == 1
    assert last_json(capsys)["bottleneck"] == "learner_awaits_items"
    learner.write("awaits_items", missing=0)
    assert main(words) == 0


def test_a_station_given_by_address_that_is_gone(stations, tmp_path, capsys):
    (gone, _) = find_addresses(tmp_path / "run")
    host, port = gone.split(":")
    assert main(["doctor", "--live", "--stations", f"{host}:1", "--watch-s", "0", "--json"]) == 1
    assert last_json(capsys)["bottleneck"] == "station_silent"
    assert port.isdigit()


def test_addresses_go_with_their_stations(tmp_path, capsys):
    with contextlib.ExitStack() as stack:
        open_metrics(stack, "replay", tmp_path, 0, "127.0.0.1")
        assert len(find_addresses(tmp_path)) == 1
    assert find_addresses(tmp_path) == []
    assert main(["doctor", "--live", "--run", str(tmp_path)]) == 2
    assert "no station is known" in capsys.readouterr().err


def test_one_episode_is_followed_through_all_stations(tmp_path, capsys):
    clock_s = iter(range(100, 200))
    for process, event, values in (
        ("robot-0", "accepted", {"episode_id": "robot-0.1.2", "num_bytes": 9, "num_pending": 1}),
        ("robot-0", "accepted", {"episode_id": "robot-0.1.3", "num_bytes": 9, "num_pending": 2}),
        ("robot-0", "upload", {"episode_id": "robot-0.1.2", "upload_s": 1.5, "num_failures": 0}),
        ("replay", "episode", {"episode_id": "robot-0.1.2", "intake": "inserted", "num_items": 4, "intake_s": 0.25}),
        ("learner", "first_use", {"episode_id": "robot-0.1.2", "learner_step": 12}),
    ):
        line = {"time_s": next(clock_s), "process": process, "event": event, **values}
        with (tmp_path / f"{process}.jsonl").open("a") as file:
            file.write(json.dumps(line) + "\n")
    words = ["episodes", "trace", "--metrics", str(tmp_path), "--episode", "robot-0.1.2", "--json"]
    assert main(words) == 0
    out = capsys.readouterr().out.strip().splitlines()
    assert [event["event"] for event in json.loads(out[-1])["events"]] == ["accepted", "upload", "episode", "first_use"]
    assert (
        "1970-01-01 00:01:43.000  replay       episode            intake=inserted num_items=4 intake_s=0.25" in out[2]
    )
    assert "intake_delay_s" not in out[2]  # nobody knew it
    assert main(["episodes", "trace", "--metrics", str(tmp_path), "--episode", "other"]) == 1
    out, err = capsys.readouterr()
    assert "no station wrote of other" in out
    assert "torn" not in err


def test_torn_lines_of_a_trace_are_told(tmp_path, capsys):
    whole = json.dumps({"time_s": 1, "process": "robot-0", "event": "upload", "episode_id": "robot-0.1.2"})
    (tmp_path / "robot-0.jsonl").write_text(f'{{"time_s": 0, "proc\n{whole}\n')
    assert main(["episodes", "trace", "--metrics", str(tmp_path), "--episode", "robot-0.1.2"]) == 0
    out, err = capsys.readouterr()
    assert "upload" in out
    assert "1 lines in" in err


def test_two_intakes_of_one_name_are_two_stations(tmp_path, capsys):
    with contextlib.ExitStack() as stack:
        intakes = [open_metrics(stack, "replay", tmp_path / str(i) / "metrics", 0, "127.0.0.1") for i in range(2)]
        for intake, times in zip(intakes, (7, 1), strict=True):
            for number in range(times):
                intake.write("quarantine", episode_id=str(number), path="p", reason="torn")
        addresses = [address for i in range(2) for address in find_addresses(tmp_path / str(i))]
        words = ["doctor", "--live", "--stations", *addresses, *addresses, "--watch-s", "0", "--json"]
        assert main(words) == 0  # nothing new was set aside, at either
        assert last_json(capsys)["verdicts"] == []
        clock = WallClock()
        before = read_stations(addresses, clock.now_ns() / 1e9)
        intakes[1].write("quarantine", episode_id="new", path="p", reason="torn")
        window = Window.between(before, read_stations(addresses, clock.now_ns() / 1e9))
    rises = {sample.station: sample.value for sample in window.growth("intake_quarantined_total")}
    assert rises == {f"replay at {addresses[0]}": 0.0, f"replay at {addresses[1]}": 1.0}
