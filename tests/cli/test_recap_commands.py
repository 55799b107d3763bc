"""RECAP on the command line: a value function is made, and labels follow an edited config."""

import dataclasses
import json
import os

import jax
import numpy as np
import pytest

from configs.files import to_json
from configs.registry import DEMOS, VALUE_TRAININGS, find_value_training
from sop_jax.algorithms.algorithm import Phase
from sop_jax.algorithms.hg_dagger import HgDaggerConfig
from sop_jax.algorithms.recap.recap import Recap, RecapConfig
from sop_jax.algorithms.recap.value_function import load_value_function
from sop_jax.cli.arguments import UsageError
from sop_jax.cli.demo import DemoArguments
from sop_jax.cli.demo import run as run_demo
from sop_jax.cli.demo_phases import DemoPhases
from sop_jax.cli.main import main
from sop_jax.cli.replay import _AlgorithmWatch
from sop_jax.cli.run_directory import RunDirectory
from sop_jax.cli.weights_location import find_candidate
from sop_jax.episodes.store import EpisodeStore
from sop_jax.episodes.synthetic import make_episode, make_spec
from sop_jax.models.bundle import PolicyBundle
from sop_jax.models.normalization import identity_norm_stats
from sop_jax.models.registry import create_model
from sop_jax.specs.clock import ManualClock
from sop_jax.specs.conditioning import Conditioning
from sop_jax.specs.errors import ConfigError
from sop_jax.specs.records import NO_POLICY, Outcome, Source
from tests.algorithms.value_cases import POLICY, value_function

SPEC = make_spec(image_size=16, camera_names=("head",))


@pytest.fixture(scope="module")
def policy(tmp_path_factory) -> str:
    directory = tmp_path_factory.mktemp("recap") / "policy"
    params = create_model(POLICY).init_params(jax.random.key(0))
    PolicyBundle(POLICY, params, identity_norm_stats(16, 16, 3)).save(directory)
    return str(directory)


def fill(store: EpisodeStore) -> None:
    """Ten demonstrations, and ten episodes of a policy, half of them failures, one of no use."""
    for seed in range(10):
        store.put(make_episode(seed, 9, 3, spec=SPEC, source=Source.OFFLINE, policy_version=NO_POLICY, robot_id="demo"))
        outcome = Outcome.SUCCESS if seed % 2 else Outcome.TIMEOUT
        store.put(make_episode(seed, 12, 3, spec=SPEC, outcome=outcome))
    store.put(make_episode(99, 50, 3, spec=SPEC, outcome=Outcome.ABORTED))


def test_a_value_function_is_made_from_a_store_with_its_calibration(tmp_path, policy, capsys, monkeypatch):
    asked = []
    monkeypatch.setattr(
        "sop_jax.cli.pretrain_value.draws_seed", lambda seed, checkpoints: asked.append(checkpoints) or seed
    )
    store = EpisodeStore(f"file://{tmp_path}/store/")
    fill(store)
    output = tmp_path / "value"
    words = [
        "pretrain", "--value-of", policy, "--store", str(tmp_path / "store"), "--output", str(output), "--work",
        str(tmp_path / "work"), "--learner.num-steps", "6", "--learner.warmup-steps", "0", "--learner.batch-size", "8",
        "--loader.batch-size", "8", "--learner.mesh.data", "1", "--num-bins", "21", "--held-out-share", "0.4", "--json",
    ]  # fmt: skip
    assert main(words) == 0
    told = json.loads(capsys.readouterr().out.strip().splitlines()[-1])
    (calibration,) = told["calibration"]
    assert calibration["task"] == "restock_shelf"
    assert 0 < calibration["num_episodes"] < 20
    made = load_value_function(output)
    assert made.bundle.fingerprint == told["fingerprint"]
    assert made.bundle.config.num_bins == 21
    task = made.task("restock_shelf")
    assert task.max_frames == 12  # the aborted episode doesn't count
    assert len(task.advantage_quantiles) == 101
    assert list(task.advantage_quantiles) == sorted(task.advantage_quantiles)
    saved = json.loads((output / "calibration.json").read_text())
    assert saved["thresholds"]["restock_shelf"] == pytest.approx(task.threshold(0.3))
    assert saved["tasks"][0]["mean_abs_error"] == pytest.approx(calibration["mean_abs_error"])
    assert "<svg" in (output / "calibration.html").read_text()
    assert len(list(output.glob("*.svg"))) == 4
    start = create_model(POLICY).init_params(jax.random.key(0))["text"]["high"]["embedding"]
    assert 0 < np.abs(made.bundle.params["text"]["high"]["embedding"] - start).max() < 0.1  # learnt, from the policy's
    assert asked == [tmp_path / "work" / "checkpoints"]
    assert main(words) == 2  # the directory is taken


def test_a_value_function_needs_a_store_with_ends(tmp_path, policy, capsys):
    words = ["pretrain", "--value-of", policy, "--output", str(tmp_path / "value")]
    assert main(words) == 2
    assert "needs --store" in capsys.readouterr().err
    assert main([*words, "--store", str(tmp_path / "empty")]) == 2
    assert "no episode that ended in success, failure or timeout" in capsys.readouterr().err


def test_value_trainings_are_found_by_name_and_file(tmp_path):
    training = VALUE_TRAININGS["restock_value"]
    path = tmp_path / "config.json"
    path.write_text(json.dumps(to_json(training)))
    assert find_value_training("restock_value") == find_value_training(str(path)) == training


def recap_demo(value: str):
    demo = DEMOS["restock_tiny"]
    learning = dataclasses.replace(demo.learning, algorithm=RecapConfig(value, evaluating_guidance=2.0))
    return dataclasses.replace(demo, learning=learning)


def test_labels_follow_the_config_file_and_stay_where_it_is_wrong(tmp_path, capsys):
    value_function().save(tmp_path / "first")
    value_function().save(tmp_path / "second")
    path = tmp_path / "config.json"

    def write(demo, stamp: int) -> None:
        path.write_text(json.dumps(to_json(demo)))
        os.utime(path, ns=(stamp, stamp))

    first = recap_demo(str(tmp_path / "first"))
    write(first, 10**9)
    watch = _AlgorithmWatch(str(path), first.learning.algorithm, ["restock_shelf"])
    assert not watch.has_changed()
    write(dataclasses.replace(first, max_loop_s=5.0), 2 * 10**9)
    assert not watch.has_changed()  # another value of no concern
    write(recap_demo(str(tmp_path / "none")), 3 * 10**9)
    assert not watch.has_changed()
    assert "labels stay as they are" in capsys.readouterr().err
    write(recap_demo(str(tmp_path / "second")), 4 * 10**9)
    assert watch.has_changed()
    assert watch.algorithm == Recap(RecapConfig(str(tmp_path / "second"), evaluating_guidance=2.0))
    assert not watch.has_changed()
    path.unlink()
    assert not watch.has_changed()


def test_replay_without_the_value_function_says_so_at_once():
    with pytest.raises(ConfigError, match="names none"):
        _AlgorithmWatch("restock_tiny", RecapConfig(), ["restock_shelf"])
    assert not _AlgorithmWatch("restock_tiny", HgDaggerConfig(), ["restock_shelf"]).has_changed()


def test_the_demo_takes_another_algorithm_and_misses_its_value_function_before_any_work(tmp_path):
    with pytest.raises(ConfigError, match="names none"):
        run_demo(["--config", "restock_tiny", "--algorithm", "recap", "--run", str(tmp_path / "run")])
    with pytest.raises(ConfigError, match="did you mean recap"):
        run_demo(["--algorithm", "recapp"])
    directory = RunDirectory(tmp_path / "old")
    directory.create(DEMOS["restock_tiny"])
    with pytest.raises(UsageError, match="keeps its config"):
        run_demo(["--resume", str(directory.root), "--algorithm", "behaviour_cloning"])


def test_what_was_learnt_is_told_that_it_is_good_and_the_base_nothing(tmp_path):
    demo = recap_demo("values/none")
    directory = RunDirectory(tmp_path / "run")
    directory.create(demo)
    expected = Conditioning("Advantage: positive", 2.0)
    phases = DemoPhases(demo, directory, ManualClock(), lambda: False)
    assert phases._published("file:///store/", 3).conditioning == expected
    assert phases._published("file:///store/", 0).conditioning == Conditioning()
    assert find_candidate(str(directory.root), 3, "").conditioning == expected
    assert find_candidate(str(directory.root), 0, "").conditioning == Conditioning()
    assert Recap(demo.learning.algorithm).conditioning(Phase.COLLECTING) == Conditioning("Advantage: positive", 1.0)
    assert DemoArguments(demo).algorithm == ""
