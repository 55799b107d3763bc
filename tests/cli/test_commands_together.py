"""The commands on a real world with a policy too small to be good: what one writes, the next can read."""

import dataclasses
import json

import jax
import pytest

from configs.files import to_json
from configs.registry import DEMOS
from sop_jax.cli.main import main
from sop_jax.drill.ledger import read_ledgers
from sop_jax.episodes.store import EpisodeStore
from sop_jax.evaluation.evaluate import Candidate
from sop_jax.evaluation.worker import find_publication
from sop_jax.learner.config import MeshConfig
from sop_jax.models.bundle import PolicyBundle
from sop_jax.models.compact import CompactConfig
from sop_jax.models.normalization import compute_norm_stats
from sop_jax.models.registry import create_model
from sop_jax.specs.errors import InvalidPublicationError
from sop_jax.specs.records import Outcome, Source

SMALL = CompactConfig(
    cameras=("head",), image_size=16, head_width=32, camera_features=8, patch_width=16, patch_features=4, text_width=8
)  # fmt: skip


def _json(capsys):
    return json.loads(capsys.readouterr().out.strip().splitlines()[-1])


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("commands")


@pytest.fixture(scope="module")
def store(folder) -> str:
    return f"file://{folder}/store/"


@pytest.fixture(scope="module")
def demonstrations(folder, store) -> EpisodeStore:
    words = ["act", "--robot-id", "demonstrator-0", "--store", store, "--expert", "--episodes", "2", "--seed", "5"]
    assert main(words) == 0
    return EpisodeStore(store)


@pytest.fixture(scope="module")
def config(folder, demonstrations) -> str:
    arrays = [demonstrations.read_without_images(path).arrays for path in demonstrations.list_paths()]
    params = create_model(SMALL).init_params(jax.random.key(0))
    PolicyBundle(SMALL, params, compute_norm_stats(arrays, SMALL.horizon)).save(folder / "policy")
    demo = DEMOS["restock_tiny"]
    learner = dataclasses.replace(
        demo.learning.learner, num_steps=6, batch_size=8, publish_every=4, log_every=2, mesh=MeshConfig(data=1)
    )
    learning = dataclasses.replace(
        demo.learning, learner=learner, loader=dataclasses.replace(demo.learning.loader, batch_size=8)
    )
    demo = dataclasses.replace(demo, policy=str(folder / "policy"), learning=learning)
    (folder / "config.json").write_text(json.dumps(to_json(demo)))
    return str(folder / "config.json")


def test_demonstrations_are_the_same_whenever_they_are_collected(demonstrations, folder, capsys):
    paths = demonstrations.list_paths()
    assert len(paths) == 2
    for path in paths:
        manifest = demonstrations.read_without_images(path).manifest
        assert (manifest.source, manifest.outcome) == (Source.OFFLINE, Outcome.SUCCESS)
    again = f"file://{folder}/again/"
    words = [
        "act",
        "--robot-id",
        "demonstrator-0",
        "--store",
        again,
        "--expert",
        "--episodes",
        "2",
        "--seed",
        "5",
        "--json",
    ]
    assert main(words) == 0
    assert _json(capsys)["num_tried"] >= 2
    copy = EpisodeStore(again)
    assert copy.list_paths() == paths
    assert all(copy.read_bytes(path) == demonstrations.read_bytes(path) for path in paths)


def test_robot_learner_and_evaluation_work_on_one_store(config, store, folder, capsys):
    metrics = str(folder / "metrics")
    act = ["act", "--robot-id", "robot-0", "--store", store, "--config", config, "--episodes", "1", "--fast", "--json",
           "--metrics", metrics, "--metrics-port", "0", "--spool", str(folder / "spool"),
           "--ledger", str(folder / "ledger")]  # fmt: skip
    assert main(act) == 0
    assert {**_json(capsys), "num_successes": 0} == {
        "num_episodes": 1, "num_successes": 0, "num_swaps": 0, "num_refused": 0, "num_given_up": 0,
        "all_uploaded": True,
    }  # fmt: skip

    learn = ["learn", "--store", store, "--replay", "local", "--config", config, "--checkpoints", str(folder / "ckpt"),
             "--metrics", metrics, "--metrics-port", "0", "--json"]  # fmt: skip
    assert main(learn) == 0
    learnt = _json(capsys)
    assert learnt["step"] == 6
    assert learnt["last_version"] == 2  # after step 4, and the last steps at the end
    assert main(learn) == 0
    again = _json(capsys)
    assert (again["step"], again["num_steps"], again["last_version"]) == (6, 0, 2)

    assert main(act) == 0
    acted = _json(capsys)
    assert (acted["num_episodes"], acted["num_swaps"]) == (1, 1)
    robots = [
        EpisodeStore(store).read_without_images(path).manifest for path in EpisodeStore(store).list_paths("robot-0")
    ]
    assert [manifest.policy_version for manifest in robots] == [0, 2]
    assert robots[0].seed != robots[1].seed  # a robot that is started again meets new scenes

    entries = read_ledgers([folder / "ledger"])
    assert [entry.accepted for entry in entries.values()] == [True, True]
    assert main(["doctor", "--drill", "--store", store, "--ledgers", str(folder / "ledger")]) == 0
    assert "2 accepted by the ledgers, 0 wait in spools, 0 given up" in capsys.readouterr().out
    assert main(["episodes", "trace", "--metrics", metrics, "--episode", robots[0].episode_id, "--json"]) == 0
    assert [event["event"] for event in _json(capsys)["events"]][:2] == ["rollout", "accepted"]
    assert not list((folder / "metrics").glob("*.address"))

    base = str(folder / "policy")
    assert main(["eval", "--weights", store, "--base", base, "--trials", "1", "--json"]) == 0
    found = _json(capsys)
    assert found["policy_version"] == 2
    assert found["policy"] == "policy, version 2"
    assert (found["task"], found["num_trials"]) == ("restock_shelf", 1)
    assert {"success", "success_low", "success_high", "successes_per_hour", "failures"} <= set(found)
    assert found["num_successes"] + sum(found["failures"].values()) == 1
    assert main(["eval", "--weights", base, "--version", "3"]) == 2
    assert main(["eval", "--weights", store]) == 2
    assert "--base DIRECTORY" in capsys.readouterr().err
    with pytest.raises(InvalidPublicationError, match="holds no version 9"):
        find_publication(Candidate(base, store, 9))

    bundle = str(folder / "next")
    assert main(["weights", "bundle", "--store", store, "--base", base, "--output", bundle, "--json"]) == 0
    made = _json(capsys)
    assert (made["version"], made["learner_step"]) == (2, 6)
    assert main(["eval", "--weights", bundle, "--trials", "1", "--json"]) == 0
    same = _json(capsys)
    assert (same["policy"], same["policy_version"], same["base"]) == ("next", 0, made["fingerprint"])
    judged = ("num_successes", "failures", "mean_duration_s", "throughput_per_hour")
    assert [same[name] for name in judged] == [found[name] for name in judged]  # the same weights, the same trial
    assert main([*act, "--policy", bundle]) == 0
    acted = _json(capsys)
    assert (acted["num_swaps"], acted["num_refused"]) == (0, 1)  # what another base's learner published isn't for it


@pytest.mark.slow
def test_a_control_learns_without_online_data(config, store, folder, capsys):
    words = ["learn", "--store", store, "--replay", "local", "--config", config, "--demonstrations-only", "--steps", "3",
             "--publish-to", f"file://{folder}/control/", "--metrics", str(folder / "control_metrics"), "--json"]  # fmt: skip
    assert main(words) == 0
    assert _json(capsys)["last_version"] == 1
    events = [json.loads(line) for line in (folder / "control_metrics" / "learner.jsonl").read_text().splitlines()]
    assert not any(event["event"] == "first_use" for event in events)
    assert any(event["event"] == "publication" for event in events)
