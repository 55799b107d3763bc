import dataclasses
import io

import pytest
from rich.console import Console

from sop_jax.cli.live import LiveView, Screen, draw, plain_line
from sop_jax.cli.progress import WorkProgress
from sop_jax.evaluation.run_history import LearnerSample, RobotState, RunState, SamplerSample
from sop_jax.specs.clock import ManualClock

STATE = RunState(
    robots=(RobotState("robot-0", 11, 9, 8, 2, "success", 5.0), RobotState("robot-1", 12, 7, 5, 3, "timeout", 6.0)),
    success=0.625,
    num_recent=16,
    interventions_per_episode=0.3125,
    num_episodes=16,
    num_frames=1920,
    num_interventions=5,
    learner=LearnerSample(6.0, 300, 25.0, 0.1234, 0.04),
    policy_version=12,
    table_sizes={"shelf/online": 120, "shelf/offline": 4500},
    sampler={"shelf": SamplerSample(6.0, "shelf", 0.56, 0.41)},
    median_staleness_s=4.2,
    median_staleness_versions=1.0,
    median_correction_latency_s=17.5,
)
EMPTY = RunState((), None, 0, None, 0, 0, 0, None, 0, {}, {}, None, None, None)


def _screen(state=STATE, **changes) -> Screen:
    processes = {
        "replay": "running",
        "learner": "running",
        "robot-0": "running",
        "robot-1": "restarting",
        "robot-2": "dead",
    }
    screen = Screen("Robots at work", state, processes, 61.0, 420.0, 1000, ("robot-1 died",))
    return dataclasses.replace(screen, **changes)


def _text(renderable, width=140) -> str:
    console = Console(file=io.StringIO(), width=width, force_terminal=False)
    console.print(renderable)
    return console.file.getvalue()


def test_the_screen_shows_everything_that_is_asked_of_it():
    text = _text(draw(_screen()))
    for expected in (
        "Robots at work", "1:01 of at most 7:00, about 0:28 left", "62%", "0.31",
        "16 episodes, 1,920 frames, 5 interventions",
        "robot-0", "restarting", "dead", "step 300 of 1,000, 25.0 steps/s, waits for data 4%", "version 12", "11, 12",
        "shelf/offline 4,500, shelf/online 120", "56% asked, 41% given", "4.2 s", "17.5 s", "robot-1 died",
    ):  # fmt: skip
        assert expected in text, expected


def test_the_plain_line_too():
    line = plain_line(_screen())
    for expected in (
        "[1:01]",
        "62% of 16",
        "step 300/1000 at 25.0/s, waits 4%",
        "version 12 (robots 11, 12)",
        "17.5 s",
    ):
        assert expected in line, expected
    assert "\n" not in line


def test_before_anything_is_known():
    assert "getting ready (running)" in _text(draw(_screen(EMPTY)))
    assert "learner not started" in plain_line(_screen(EMPTY))
    assert _screen(EMPTY).eta_s == pytest.approx(359.0)
    assert _screen().eta_s == pytest.approx(28.0)


def test_without_a_terminal_lines_come_now_and_then():
    clock = ManualClock()
    console = Console(file=io.StringIO(), force_terminal=False, width=400)
    with LiveView(console, clock) as view:
        for _ in range(21):
            view.show(_screen())
            clock.advance_s(1.0)
        view.note("something happened")
    lines = console.file.getvalue().splitlines()
    assert [line.split()[0] for line in lines] == ["[1:01]", "[1:01]", "[1:01]", "something"]


def test_on_a_terminal_the_screen_is_redrawn_and_leaves():
    console = Console(file=io.StringIO(), force_terminal=True, width=120)
    with LiveView(console, ManualClock()) as view:
        view.show(_screen())
    assert "Robots at work" in console.file.getvalue()


def test_progress_without_a_terminal():
    clock = ManualClock()
    console = Console(file=io.StringIO(), force_terminal=False, width=100)
    with WorkProgress(console, "demonstrations", 10, clock) as progress:
        for done in range(1, 11):
            clock.advance_s(4.0)
            progress.update(done, "fine")
    assert console.file.getvalue().splitlines() == [
        "demonstrations: 3 of 10  fine",
        "demonstrations: 6 of 10  fine",
        "demonstrations: 9 of 10  fine",
    ]
