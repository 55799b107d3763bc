import pathlib

import pytest

from sop_jax.actors.episode import TrialResult
from sop_jax.cli import gallery
from sop_jax.cli.main import main
from sop_jax.evaluation.results import Subject, summarise
from sop_jax.specs.records import Outcome


@pytest.fixture
def expert(monkeypatch):
    """Stands for the evaluation: 3 of 4 trials succeed, one drops its item."""
    trials = [TrialResult(i, Outcome.SUCCESS, "", 90, 3.0) for i in range(3)]
    trials.append(TrialResult(3, Outcome.FAILURE, "dropped", 60, 2.0))
    result = summarise(Subject("restock_shelf", "expert"), trials, seed=0)
    monkeypatch.setattr(gallery, "evaluate_with_progress", lambda *words, **options: result)


def test_the_page_shows_each_task_with_its_numbers_and_pictures(expert, tmp_path):
    output = tmp_path / "worlds.md"
    words = ["gallery", "--output", str(output), "--tasks", "restock_shelf", "--trials", "4", "--filmed", "1"]
    assert main(words) == 0
    text = output.read_text()
    assert "| [`restock_shelf`](#restock_shelf) | 3 of 4 [30, 95] |" in text
    assert "dropped 1" in text
    picture = pathlib.Path(text.split("](")[-1].split(")")[0])
    assert picture == pathlib.PurePath("worlds/restock_shelf.jpg")
    assert (tmp_path / picture).stat().st_size > 20_000
    assert not list(tmp_path.glob("**/*.mp4"))


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--tasks", "restock_shelv"], "unknown tasks restock_shelv"),
        (["--trials", "2", "--filmed", "3"], "--filmed must be 1 .. 2"),
        (["--output", "page.html"], "must be a page ending in .md"),
    ],
)
def test_bad_words_are_told(words, message, capsys):
    assert main(["gallery", *words]) == 2
    assert message in " ".join(capsys.readouterr().err.split())
