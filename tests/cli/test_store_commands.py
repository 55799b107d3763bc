import dataclasses
import json
import pathlib

import jax
import numpy as np
import pytest
from small_learner import SMALL

from sop_jax.cli.main import main
from sop_jax.episodes import kvstore
from sop_jax.episodes.paths import repair_path
from sop_jax.episodes.store import EpisodeStore
from sop_jax.episodes.synthetic import make_episode
from sop_jax.models.bundle import PolicyBundle
from sop_jax.models.normalization import identity_norm_stats
from sop_jax.models.registry import create_model
from sop_jax.specs.clock import ManualClock
from sop_jax.specs.conditioning import Conditioning
from sop_jax.specs.records import NO_POLICY, Outcome, Source
from sop_jax.weights.partition import split_params
from sop_jax.weights.publisher import Publisher


@pytest.fixture
def store_with_episodes(store_url) -> EpisodeStore:
    store = EpisodeStore(store_url)
    store.put(make_episode(1, 30, takeovers=((6, 9, 15),)))
    store.put(make_episode(2, 30))
    return store


def _last_json(capsys):
    return json.loads(capsys.readouterr().out.strip().splitlines()[-1])


def _tear(store_url: str, path: str) -> None:
    file = pathlib.Path(store_url.removeprefix("file://")) / path
    data = bytearray(file.read_bytes())
    data[len(data) // 2] ^= 0xFF
    file.write_bytes(data)


def test_ls_and_show(store_with_episodes, store_url, capsys):
    assert main(["episodes", "ls", "--store", store_url, "--json"]) == 0
    found = _last_json(capsys)
    assert found["num_episodes"] == 2
    episode_id = found["episodes"][0]["manifest"]["episode_id"]
    assert main(["episodes", "ls", "--store", store_url, "--last", "1"]) == 0
    assert "1 episodes, 0 set aside" in capsys.readouterr().out
    # A plain folder serves as a store too.
    folder = store_url.removeprefix("file://")
    assert main(["episodes", "show", "--store", folder, "--episode", episode_id]) == 0
    text = capsys.readouterr().out
    assert "asked at frame 6 (synthetic), acted 9 to 15" in text
    assert "intervened   6 frames in 1 takeovers" in text
    assert "started      unknown: its clock knew no date, and said 1.000 s" in text


def test_ls_sums_up_what_online_episodes_came_to_and_what_people_did_for_it(store_url, capsys):
    store = EpisodeStore(store_url)
    assert main(["episodes", "ls", "--store", store_url, "--work", "--json"]) == 0
    said = capsys.readouterr().out
    assert "no work to sum up" in said
    assert json.loads(said.splitlines()[-1])["work"] == {}
    for number, (task, takeovers, outcome) in enumerate(
        [("shelf", ((6, 9, 99),), Outcome.SUCCESS), ("shelf", (), Outcome.SUCCESS), ("box", (), Outcome.FAILURE)]
    ):
        episode = make_episode(number, 300, takeovers=takeovers, task=task)
        store.put(dataclasses.replace(episode, manifest=dataclasses.replace(episode.manifest, outcome=outcome)))
    offline = make_episode(7, 300, task="shelf", source=Source.OFFLINE, policy_version=NO_POLICY)
    gone = store.put(make_episode(8, 300, task="shelf")).path
    store.put(offline)
    store.quarantine(gone, "a flipped bit")
    capsys.readouterr()
    assert main(["episodes", "ls", "--store", store_url, "--work", "--reset-s", "20", "--json"]) == 0
    said = capsys.readouterr().out
    work = json.loads(said.splitlines()[-1])["work"]
    assert list(work) == ["box", "shelf", "all"]
    shelf, both = work["shelf"], work["all"]
    robot_s = shelf["robot_h"] * 3600
    assert robot_s == pytest.approx(2 * 10.0, abs=0.2)  # 300 frames at 30 Hz each
    assert (shelf["num_episodes"], shelf["num_successes"], shelf["num_autonomous"]) == (2, 2, 1)
    assert shelf["intervention_min"] == pytest.approx(robot_s / 2 * 90 / 300 / 60)
    assert shelf["human_min_per_success"] == pytest.approx((shelf["intervention_min"] + 40 / 60) / 2)
    assert shelf["successes_per_hour"] == pytest.approx(2 * 3600 / (robot_s + 40))
    assert (both["num_episodes"], both["num_successes"]) == (3, 2)
    assert "box: 0 successes in 1 online episodes" in said
    assert (
        "people acted 0.1 min in 1 takeovers (0.03 per success), with 20 s per reset 0.7 min (0.36 per success)" in said
    )
    assert main(["episodes", "ls", "--store", store_url, "--reset-s", "20"]) == 2
    assert "--reset-s would do nothing without --work" in capsys.readouterr().err
    assert main(["episodes", "ls", "--store", store_url, "--work", "--reset-s", "-1"]) == 2
    assert "--reset-s must be at least 0, got -1" in capsys.readouterr().err


def test_ls_shows_what_a_robot_wrote_as_it_is(store_url, capsys):
    for number, kind in enumerate(("[/x]", "dropped [left]", ":100:")):
        episode = make_episode(number, 30)
        manifest = dataclasses.replace(episode.manifest, outcome=Outcome.FAILURE, failure_kind=kind)
        EpisodeStore(store_url).put(dataclasses.replace(episode, manifest=manifest))
    assert main(["episodes", "ls", "--store", store_url]) == 0
    text = capsys.readouterr().out
    assert all(kind in text for kind in ("[/x]", "dropped [left]", ":100:"))


def test_show_tells_the_date_of_what_a_dated_clock_recorded(store_url, capsys):
    EpisodeStore(store_url).put(make_episode(1, 30, started_ns=1_790_000_000 * 10**9))
    (summary,) = EpisodeStore(store_url).summaries()
    assert summary.manifest is not None
    assert main(["episodes", "show", "--store", store_url, "--episode", summary.manifest.episode_id]) == 0
    assert "started      2026-09-21T14:13:20.000+00:00" in capsys.readouterr().out


def test_verify_finds_the_bad_one_and_forgives_what_is_set_aside(store_with_episodes, store_url, capsys):
    assert main(["episodes", "verify", "--store", store_url, "--json"]) == 0
    empty = {"num_bad": 0, "not_set_aside": [], "problems": {}, "others": [], "repairs": []}
    assert _last_json(capsys) == {"num_episodes": 2, **empty}
    path = store_with_episodes.list_paths()[0]
    _tear(store_url, path)
    assert main(["episodes", "verify", "--store", store_url, "--json"]) == 1
    assert _last_json(capsys)["not_set_aside"] == [path]
    store_with_episodes.quarantine(path, "a flipped bit")
    assert main(["episodes", "verify", "--store", store_url, "--json"]) == 0
    found = _last_json(capsys)
    assert (found["num_bad"], found["not_set_aside"]) == (1, [])
    assert main(["episodes", "ls", "--store", store_url, "--json"]) == 0
    assert _last_json(capsys)["set_aside"] == {path: "a flipped bit"}


def test_showing_what_is_not_there(store_url, capsys):
    episode_id = make_episode(5, 30).manifest.episode_id
    assert main(["episodes", "show", "--store", store_url, "--episode", episode_id]) == 2
    assert episode_id in capsys.readouterr().err


def test_weights_are_listed_verified_and_rolled_back(store_url, capsys):
    publisher = Publisher(store_url, "base", "norm", ManualClock(10**9))
    for step in (25, 50):
        publisher.publish({"head": {"kernel": np.full((3, 2), step, np.float32)}}, step)
    assert main(["weights", "ls", "--store", store_url, "--json"]) == 0
    found = _last_json(capsys)
    assert found["current"] == 2
    assert [(p["version"], p["learner_step"]) for p in found["publications"]] == [(1, 25), (2, 50)]
    assert main(["weights", "rollback", "--store", store_url, "--version", "1", "--json"]) == 0
    back = _last_json(capsys)
    assert (back["version"], back["restores"], back["learner_step"]) == (3, 1, 25)
    assert main(["weights", "verify", "--store", store_url]) == 0
    assert "3 publications read, 0 bad" in capsys.readouterr().out
    (damaged,) = [
        path
        for path in pathlib.Path(store_url.removeprefix("file://")).rglob("*")
        if path.is_file() and "00002" in str(path) and path.name == "_METADATA"
    ]
    damaged.write_bytes(b"x" * damaged.stat().st_size)
    assert main(["weights", "verify", "--store", store_url, "--json"]) == 1
    assert list(_last_json(capsys)["problems"]) == ["2"]


def test_a_policy_of_a_publication_says_with_what_it_is_evaluated(store_url, tmp_path, capsys):
    params = create_model(SMALL).init_params(jax.random.key(0))
    base = PolicyBundle(SMALL, params, identity_norm_stats(SMALL.state_dim, SMALL.action_dim, SMALL.horizon))
    base.save(tmp_path / "base")
    clock, recap = ManualClock(10**9), Conditioning("Advantage: positive", 1.5)
    trained = split_params(params, base.model.is_trained)[0]
    for conditioning in (recap, Conditioning(), None):
        Publisher(store_url, base.fingerprint, base.norm.fingerprint, clock, conditioning=conditioning).publish(
            trained, 1
        )
    assert main(["weights", "ls", "--store", store_url]) == 0
    assert capsys.readouterr().out.count("told ") == 1
    words = ["weights", "bundle", "--store", store_url, "--base", str(tmp_path / "base")]
    for version, is_told in ((1, True), (2, False), (3, False)):
        output = tmp_path / f"made-{version}"
        assert main([*words, "--version", str(version), "--output", str(output)]) == 0
        hint = f"sop eval --weights {output} --condition 'Advantage: positive' --beta 1.5"
        assert (hint in capsys.readouterr().out) is is_told
    kept = json.loads((tmp_path / "made-1" / "provenance.json").read_text())["publication"]["conditioning"]
    assert kept == {"suffix": "Advantage: positive", "guidance": 1.5}


def test_weights_are_pinned_and_let_go(store_url, capsys):
    publisher = Publisher(store_url, "base", "norm", ManualClock(10**9))
    for step in (25, 50):
        publisher.publish({"head": {"kernel": np.full((3, 2), step, np.float32)}}, step)
    assert main(["weights", "pin", "--store", store_url, "--version", "9"]) == 2
    assert "there is no publication 9" in capsys.readouterr().err
    assert main(["weights", "pin", "--store", store_url, "--version", "1", "--json"]) == 0
    assert _last_json(capsys) == {"pinned": [1]}
    assert main(["weights", "ls", "--store", store_url]) == 0
    assert capsys.readouterr().out.count("pinned") == 1
    for told in ("may go like any other now", "wasn't pinned"):
        assert main(["weights", "unpin", "--store", store_url, "--version", "1"]) == 0
        assert told in capsys.readouterr().out
    assert main(["weights", "ls", "--store", store_url, "--json"]) == 0
    assert _last_json(capsys)["pinned"] == []


def test_verify_repairs_from_a_spool_and_sets_the_rest_aside(store_with_episodes, store_url, tmp_path, capsys):
    first, second = store_with_episodes.list_paths()
    spool = tmp_path / "spool"
    spool.mkdir()
    whole = store_with_episodes.read_bytes(first)
    (spool / pathlib.Path(first).name).write_bytes(whole)
    for path in (first, second):
        _tear(store_url, path)
    stranger = pathlib.Path(store_url.removeprefix("file://")) / "episodes/notes.txt"
    stranger.write_text("not ours")
    assert main(["episodes", "verify", "--store", store_url, "--from-spool", str(spool)]) == 2
    assert "add --repair" in capsys.readouterr().err
    assert main(["episodes", "verify", "--store", store_url, "--repair", "--from-spool", str(tmp_path / "no")]) == 2
    command = ["episodes", "verify", "--store", store_url, "--repair", "--from-spool", str(spool), "--json"]
    assert main(command) == 0
    assert _last_json(capsys)["repairs"] == [
        {"path": first, "action": "restored", "problem": ""},
        {"path": second, "action": "quarantined", "problem": ""},
    ]
    assert store_with_episodes.read_bytes(first) == whole
    assert list(store_with_episodes.quarantined()) == [second]
    assert stranger.exists()
    assert main([*command[:-1], "--remove-strangers"]) == 0
    assert not stranger.exists()
    assert store_with_episodes.list_paths() == [first, second]


def test_verify_sets_wrong_tasks_aside_and_hears_a_misspelt_one(store_with_episodes, store_url, capsys):
    wrong = store_with_episodes.put(make_episode(3, 30, task="restock_shlef")).path
    command = ["episodes", "verify", "--store", store_url, "--json"]
    assert main(command) == 0
    capsys.readouterr()
    assert main([*command, "--repair", "--tasks", "restock_self"]) == 2
    assert "no episode of restock_self; it holds restock_shelf, restock_shlef" in capsys.readouterr().err
    assert store_with_episodes.quarantined() == {}
    assert main([*command, "--tasks", "restock_shelf"]) == 1
    assert _last_json(capsys)["not_set_aside"] == [wrong]
    assert main([*command, "--repair", "--tasks", "restock_shelf"]) == 0
    assert _last_json(capsys)["repairs"] == [{"path": wrong, "action": "quarantined", "problem": ""}]
    assert list(store_with_episodes.quarantined()) == [wrong]
    both = ["--tasks", "restock_shelf", "restock_shlef"]
    assert main([*command, *both]) == 0
    assert list(store_with_episodes.quarantined()) == [wrong]
    assert main([*command, "--repair", *both]) == 0
    assert _last_json(capsys)["repairs"] == [{"path": wrong, "action": "restored", "problem": ""}]
    assert store_with_episodes.quarantined() == {}


def test_a_repair_that_fails_is_told_and_stops_no_other(store_with_episodes, store_url, tmp_path, capsys, monkeypatch):
    first, second = store_with_episodes.list_paths()
    spool = tmp_path / "spool"
    spool.mkdir()
    for path in (first, second):
        (spool / pathlib.Path(path).name).write_bytes(store_with_episodes.read_bytes(path))
        _tear(store_url, path)
    real = EpisodeStore.put_bytes

    def put_bytes(self, episode_id, data):
        if episode_id in first:
            raise PermissionError("403: no such luck")
        return real(self, episode_id, data)

    command = ["episodes", "verify", "--store", store_url, "--repair", "--from-spool", str(spool), "--json"]
    with monkeypatch.context() as patch:
        patch.setattr(EpisodeStore, "put_bytes", put_bytes)
        assert main(command) == 1
    out = capsys.readouterr().out.strip().splitlines()
    assert f"failed         {first}: PermissionError: 403: no such luck" in out
    assert out[-2].endswith("; 1 repairs failed")
    found = json.loads(out[-1])
    assert [(repair["path"], repair["action"]) for repair in found["repairs"]] == [
        (first, "failed"),
        (second, "restored"),
    ]
    assert found["not_set_aside"] == [first]
    assert store_with_episodes.list_paths() == [second]
    assert main(command) == 0
    assert [repair["action"] for repair in _last_json(capsys)["repairs"]] == ["restored"]
    assert store_with_episodes.list_paths() == [first, second]
    assert main(["episodes", "verify", "--store", store_url, "--json"]) == 0
    assert _last_json(capsys)["others"] == []


def test_a_repair_that_was_cut_short_at_its_end_needs_no_spool_to_be_finished(store_with_episodes, store_url, capsys):
    path = store_with_episodes.list_paths()[0]
    store_with_episodes.quarantine(path, "torn, before the whole copy came")
    kvstore.create(store_with_episodes.root, repair_path(path), b"")
    command = ["episodes", "verify", "--store", store_url, "--json"]
    assert main(command) == 0
    assert [(other["kind"], other["path"]) for other in _last_json(capsys)["others"]] == [("unfinished", path)]
    assert main([*command, "--repair"]) == 0
    assert _last_json(capsys)["repairs"] == [{"path": path, "action": "restored", "problem": ""}]
    assert store_with_episodes.quarantined() == {}
    assert main(command) == 0
    assert _last_json(capsys)["others"] == []


def test_retain_shows_first_and_does_it_with_apply(store_with_episodes, store_url, capsys):
    command = ["episodes", "retain", "--store", store_url]
    assert main(command) == 2
    assert "--max-gb" in capsys.readouterr().err
    assert main([*command, "--max-gb", "0", "--grace-h", "-1"]) == 2
    assert "grace_s" in capsys.readouterr().err
    command += ["--max-gb", "0", "--grace-h", "0", "--json"]
    corrected, autonomous = store_with_episodes.list_paths()
    expected = [autonomous, corrected]
    assert main(command) == 0
    found = _last_json(capsys)
    assert (found["applied"], found["retire"], found["remove"]) == (False, expected, [])
    assert main(command) == 0
    assert _last_json(capsys)["retire"] == expected  # nothing was changed
    assert main([*command, "--apply"]) == 0
    assert main([*command, "--apply"]) == 0
    found = _last_json(capsys)
    assert (found["retire"], sorted(found["remove"])) == ([], [corrected, autonomous])
    assert store_with_episodes.list_paths() == []
