import dataclasses
import json

import av
import matplotlib.image
import numpy as np
import pytest

from sop_jax.actors.rollout import RolloutConfig
from sop_jax.cli import eval as eval_command
from sop_jax.evaluation.evaluate import Candidate, Evaluated
from sop_jax.evaluation.results import Subject, summarise
from sop_jax.evaluation.video import describe_end, film_trials, spread, write_contact_sheet, write_video
from sop_jax.evaluation.world import WorldConfig
from sop_jax.specs.clock import ManualClock
from sop_jax.specs.records import Outcome

SEED = 2**31


@pytest.fixture(scope="module")
def take():
    return next(film_trials(Candidate(), WorldConfig(time_limit_s=5.0), RolloutConfig(), ManualClock(), [SEED]))


def test_a_filmed_trial_is_the_trial(take):
    assert take.result.outcome is Outcome.SUCCESS
    assert take.result.seed == SEED
    assert len(take.pictures) == len(take.stages) == take.result.num_frames + 1
    assert take.instruction.startswith("put the ")
    assert (take.stages[0], take.stages[-1]) == ("approach", "done")
    assert take.pictures[0].shape == (540, 720, 3)
    moved = np.abs(take.pictures[0].astype(int) - take.pictures[-1]).max(axis=-1) > 30
    assert moved[:, :540].mean() > 0.01  # seen from outside
    for row in range(3):
        assert moved[180 * row : 180 * (row + 1), 540:].mean() > 0.002 or row == 1  # the left hand rests


def test_the_video_holds_every_picture_at_the_robots_speed(take, tmp_path):
    write_video(take, tmp_path / "trial.mp4")
    with av.open(str(tmp_path / "trial.mp4")) as container:
        stream = container.streams.video[0]
        assert stream.average_rate == 30
        frames = [frame.to_ndarray(format="rgb24") for frame in container.decode(stream)]
    assert len(frames) == len(take.pictures)
    for index in (0, len(frames) - 1):
        error = np.abs(frames[index].astype(int) - take.pictures[index]).mean()
        assert error < 6  # lossy, but the same picture


def test_the_contact_sheet_has_a_row_per_trial(take, tmp_path):
    heights = []
    for num in (1, 2):
        write_contact_sheet([take] * num, tmp_path / "sheet.png")
        sheet = matplotlib.image.imread(tmp_path / "sheet.png")
        heights.append(sheet.shape[0])
        assert sheet.shape[1] == 1920
        assert sheet[..., :3].std() > 0.1
    assert heights[1] == 2 * heights[0]


def test_a_thinned_take_makes_the_same_sheet(take, tmp_path):
    for name, one in (("whole", take), ("thin", take.thinned(5))):
        write_contact_sheet([one], tmp_path / f"{name}.png", columns=5)
    assert len(take.thinned(5).pictures) == 5
    assert (tmp_path / "whole.png").read_bytes() == (tmp_path / "thin.png").read_bytes()


def test_ends_and_indices_are_told_plainly(take):
    assert describe_end(take.result) == f"success after {take.result.duration_s:.1f} s"
    failed = dataclasses.replace(take.result, outcome=Outcome.FAILURE, failure_kind="dropped", duration_s=2.0)
    assert describe_end(failed) == "failure (dropped) after 2.0 s, furthest stage: done"
    assert describe_end(dataclasses.replace(failed, furthest_stage="")) == "failure (dropped) after 2.0 s"
    assert spread(11, 3) == [0, 5, 10]
    assert spread(2, 3) == [0, 0, 1]


def fake_evaluation(trials):
    world = WorldConfig(time_limit_s=5.0)
    result = summarise(Subject("restock_shelf", "expert"), trials, seed=0)
    return {"restock_shelf": Evaluated("restock_shelf", world, result, tuple(trials))}


def test_eval_films_the_first_trials(monkeypatch, tmp_path, take, capsys):
    found = fake_evaluation([take.result] * 4)
    monkeypatch.setattr(eval_command, "evaluate_worlds_with_progress", lambda *words, **options: found)
    folder = tmp_path / "films"
    assert eval_command.run(["--expert", "--trials", "4", "--video", str(folder), "--video-trials", "1"]) == 0
    assert sorted(path.name for path in folder.iterdir()) == [f"restock_shelf-{SEED}.mp4", "restock_shelf.jpg"]
    assert str(folder) in capsys.readouterr().out


def test_eval_films_the_first_failures_into_its_report(monkeypatch, tmp_path, take):
    failed = [
        dataclasses.replace(take.result, seed=SEED + i, outcome=Outcome.FAILURE, failure_kind="dropped") for i in (1, 2)
    ]
    found = fake_evaluation([take.result, *failed])
    monkeypatch.setattr(eval_command, "evaluate_worlds_with_progress", lambda *words, **options: found)
    output = tmp_path / "out"
    assert eval_command.run(["--expert", "--output", str(output), "--video-failures", "1"]) == 0
    folder = output / "failures"
    assert sorted(path.name for path in folder.iterdir()) == [f"restock_shelf-{SEED + 1}.mp4", "restock_shelf.jpg"]
    page = (output / "report.html").read_text()
    assert page.count("data:image/jpeg;base64,") == 1
    assert json.loads((output / "results.json").read_text())["results"]["restock_shelf"]["failures"] == {"dropped": 2}
