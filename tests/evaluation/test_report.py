import re
import shutil
import subprocess

import numpy as np
import pytest
from fake_run import improving_run

from sop_jax.actors.episode import TrialResult
from sop_jax.episodes.store import EpisodeStore
from sop_jax.episodes.synthetic import make_episode
from sop_jax.evaluation import provenance
from sop_jax.evaluation.filmstrips import NUM_FRAMES, choose_filmstrips
from sop_jax.evaluation.provenance import Provenance, describe, together, with_revision
from sop_jax.evaluation.report import ReportData, render_report, write_report
from sop_jax.evaluation.results import Subject, summarise
from sop_jax.evaluation.run_history import RunHistory, summary_of
from sop_jax.evaluation.run_metrics import totals_of
from sop_jax.evaluation.run_tracker import RunTracker
from sop_jax.specs.records import Outcome


def result(num_successes, num_trials, policy, version):
    trials = [
        TrialResult(
            i,
            Outcome.SUCCESS if i < num_successes else Outcome.TIMEOUT,
            "" if i < num_successes else "timeout",
            120,
            4.0,
        )
        for i in range(num_trials)
    ]
    return summarise(Subject("restock_shelf", policy, version, "0123456789abcdef"), trials, seed=0)


def store_with_episodes(store_url) -> tuple[EpisodeStore, RunHistory]:
    store, tracker = EpisodeStore(store_url), RunTracker()
    for count, (outcome, takeovers) in enumerate(
        [(Outcome.TIMEOUT, ()), (Outcome.SUCCESS, ((20, 30, 66),)), (Outcome.SUCCESS, ())]
    ):
        made = make_episode(count, 90, outcome=outcome, takeovers=takeovers, started_ns=10**9 * (1 + 10 * count))
        path = store.put(made).path
        tracker.add_episode(summary_of(made.manifest, made.arrays, path))
    return store, tracker.history()


def fake_report(store_url, history=None) -> ReportData:
    store, small = store_with_episodes(store_url)
    history = history or improving_run().history()
    return ReportData(
        title="Four robots learn to restock a shelf",
        command="sop demo --seed 0",
        task="restock_shelf",
        before=result(62, 120, "base", 0),
        after=result(111, 120, "version 33", 33),
        control=result(65, 120, "demonstrations only", 33),
        control_note="The control is stored with the repository: made by sop demo --control --seed 0.",
        totals=totals_of(history),
        history=history,
        filmstrips=choose_filmstrips(small, store),
        provenance=Provenance("2026-01-02T03:04:05+00:00", "2 CPU cores (test)", "Linux", {"jax": "0.10.2"}),
        config={"learner": {"batch_size": 64}, "quoted": "<b>"},
        elapsed_s=780.0,
    )


def test_the_page_holds_the_numbers_and_nothing_from_outside(tmp_path, store_url):
    data = fake_report(store_url)
    write_report(data, tmp_path / "report.html")
    page = (tmp_path / "report.html").read_text()
    assert list(tmp_path.glob("*.partial")) == []
    for expected in (
        "52%",
        "92%",
        "54%",
        "62 / 120",
        "111 / 120",
        "+41",
        "intervals lie apart",
        "timeout 58",
        "sop demo",
    ):
        assert expected in page, expected
    assert "&lt;b&gt;" in page
    assert page.count("<svg") == 9
    addresses = set(re.findall(r"""(?:src|href)\s*=\s*["'](?!data:|#)([^"']*)""", page))
    assert addresses == set()
    assert "@import" not in page


def test_equal_data_gives_an_equal_page(store_url):
    data = fake_report(store_url)
    assert render_report(data) == render_report(data)


def test_a_run_with_nothing_in_it_still_makes_a_page(store_url):
    data = fake_report(store_url, RunTracker().history())
    page = render_report(data)
    assert "no correction came back" in page
    assert data.rise.value == pytest.approx(49 / 120)


def test_overlapping_intervals_are_called_so(store_url):
    data = fake_report(store_url)
    weak = ReportData(**{**{f: getattr(data, f) for f in data.__dataclass_fields__}, "after": result(70, 120, "x", 2)})
    assert not weak.intervals_apart
    assert "intervals overlap" in render_report(weak)


def test_filmstrips_show_failure_takeover_and_success(store_url):
    store, history = store_with_episodes(store_url)
    strips = choose_filmstrips(history, store)
    assert [strip.title for strip in strips] == [
        "An early episode that went wrong",
        "A takeover and its correction",
        "A late success, nobody helps",
    ]
    assert "timeout" in strips[0].caption
    assert "taken over because of synthetic" in strips[1].caption
    for strip in strips:
        assert len(strip.frames) == NUM_FRAMES
        assert all(len(frame.images) == 2 for frame in strip.frames)
    # Frames 30 and 66 are the edges of the takeover: images are kept every 3 frames, so both are shown.
    marks = [frame.intervention for frame in strips[1].frames]
    times = np.array([frame.time_s for frame in strips[1].frames])
    assert times[marks][0] == pytest.approx(1.0, abs=1e-6)
    assert times[np.flatnonzero(marks)[-1] + 1] == pytest.approx(2.2, abs=1e-6)
    assert not any(frame.intervention for frame in strips[2].frames)


def test_filmstrips_skip_what_is_gone(store_url, tmp_path):
    store, history = store_with_episodes(store_url)
    for path in (tmp_path / "store").rglob("*.zip"):
        path.unlink()
    assert choose_filmstrips(history, store) == ()


def test_provenance_names_this_machine():
    found = describe(0.0)
    assert found.created == "1970-01-01T00:00:00+00:00"
    assert "CPU cores" in found.hardware
    assert {"python", "jax", "sop-jax"} <= set(found.versions)


def test_parts_made_on_several_machines_are_all_told():
    late = Provenance("2026-01-03", "4 cores", "Linux 1", {"jax": "2"})
    early = Provenance("2026-01-02", "2 cores", "Linux 1", {"sop-jax": "0", "jax": "1", "revision": "abc"})
    assert together([late, early, late]) == Provenance(
        "2026-01-03", "2 cores / 4 cores", "Linux 1", {"sop-jax": "0", "jax": "1 / 2", "revision": "abc"}
    )
    assert together([early]) == early
    with pytest.raises(ValueError, match="at least one part"):
        together([])


def git(folder, *words):
    names = ["-c", "user.name=Somebody", "-c", "user.email=somebody@localhost", "-c", "commit.gpgsign=false"]
    subprocess.run(["git", "-C", str(folder), *names, *words], check=True, capture_output=True)


@pytest.mark.skipif(shutil.which("git") is None, reason="git is missing")
def test_the_revision_is_told_of_a_repository_of_its_own(tmp_path, monkeypatch):
    monkeypatch.setenv("GIT_CEILING_DIRECTORIES", str(tmp_path.parent))
    file = tmp_path / "provenance.py"
    file.write_text("one")
    monkeypatch.setattr(provenance, "__file__", str(file))
    machine = Provenance("2026-01-01", "2 cores", "Linux", {"sop-jax": "0"})
    assert with_revision(machine) == machine  # no repository
    git(tmp_path, "init")
    assert with_revision(machine) == machine  # somebody else's: it doesn't know the file
    git(tmp_path, "add", "provenance.py")
    git(tmp_path, "commit", "-m", "One")
    found = with_revision(machine).versions
    assert list(found) == ["sop-jax", "revision"]
    assert re.fullmatch("[0-9a-f]{12}", found["revision"])
    file.write_text("two")
    assert with_revision(machine).versions["revision"] == f"{found['revision']}-dirty"
    monkeypatch.setenv("PATH", "")
    assert with_revision(machine) == machine  # no git
