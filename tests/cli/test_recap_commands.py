"""RECAP on the command line: a value function is made, and labels follow an edited config."""

import contextlib
import dataclasses
import json
import os
import pathlib

import jax
import numpy as np
import pytest
import sentencepiece

from configs.files import to_json
from configs.registry import DEMOS, VALUE_TRAININGS, find_value_training
from sop_jax.algorithms.algorithm import Phase
from sop_jax.algorithms.hg_dagger import HgDaggerConfig
from sop_jax.algorithms.recap.recap import Recap, RecapConfig
from sop_jax.algorithms.recap.value_function import load_value_function
from sop_jax.algorithms.recap.value_regression import ReturnModel, ValueRegression
from sop_jax.cli import pretrain_value
from sop_jax.cli.arguments import UsageError
from sop_jax.cli.demo import DemoArguments
from sop_jax.cli.demo import run as run_demo
from sop_jax.cli.demo_phases import DemoPhases
from sop_jax.cli.main import main
from sop_jax.cli.pretrain_value import _read_manifests
from sop_jax.cli.replay import _AlgorithmWatch
from sop_jax.cli.run_directory import RunDirectory
from sop_jax.cli.training_episodes import TrainingEpisodes, settle_episodes
from sop_jax.cli.weights_location import find_candidate
from sop_jax.episodes.paths import episode_of_path
from sop_jax.episodes.retirement import RetirementRecord, retire
from sop_jax.episodes.store import EpisodeStore
from sop_jax.episodes.synthetic import make_episode, make_spec
from sop_jax.learner.learner import Learner
from sop_jax.models.bundle import PolicyBundle
from sop_jax.models.normalization import identity_norm_stats
from sop_jax.models.pi05.config import ExpertConfig, Pi05Config, VisionConfig
from sop_jax.models.pi05.policy import TOKENIZER_VARIABLE
from sop_jax.models.registry import create_model
from sop_jax.models.value.model import ValueConfig
from sop_jax.models.value.registry import create_value_model
from sop_jax.specs.clock import ManualClock
from sop_jax.specs.conditioning import Conditioning
from sop_jax.specs.errors import ConfigError
from sop_jax.specs.metrics import JsonlMetrics
from sop_jax.specs.records import NO_POLICY, Episode, Outcome, Source
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


def test_it_is_taught_with_the_prompts_that_it_is_asked_with(tmp_path, monkeypatch):
    """Full pi0.5 writes the state into its prompt, `Task: ..., State:`; its value function doesn't."""
    corpus = tmp_path / "corpus.txt"
    corpus.write_text("\n".join(f"Task: put the cup on the shelf, State: {i} {i * 7 % 256};" for i in range(256)))
    sentencepiece.SentencePieceTrainer.train(
        input=str(corpus), model_prefix=str(tmp_path / "tiny"), vocab_size=90, split_digits=True, minloglevel=2,
        hard_vocab_limit=False, user_defined_symbols=["\n"],
    )  # fmt: skip
    monkeypatch.setenv(TOKENIZER_VARIABLE, str(tmp_path / "tiny.model"))
    expert = ExpertConfig(width=8, depth=1, mlp_dim=8, num_heads=1, num_kv_heads=1, head_dim=4)
    vision = VisionConfig(width=8, depth=1, mlp_dim=8, num_heads=1, patch_size=8, image_size=16)
    config = Pi05Config(vision, expert, expert, 400, ("head",), model_action_dim=16, horizon=3, dtype="float32")
    assert (config.state_input, config.tokenizer) == ("tokens", "paligemma")
    params = create_model(config).init_params(jax.random.key(0))
    policy = PolicyBundle(config, params, identity_norm_stats(16, 16, 3))
    model = create_value_model(ValueConfig(config))

    store = EpisodeStore(f"file://{tmp_path}/store/")
    fill(store)
    training = dataclasses.replace(VALUE_TRAININGS["restock_value"], held_out_share=0.4)
    metrics = JsonlMetrics(tmp_path / "metrics.jsonl", "learner")
    manifests = pretrain_value._read_manifests(store, 30.0)
    loader = pretrain_value._make_loader(training, store, policy, ReturnModel(model), manifests, metrics, 0)
    taught = loader.next().batch.observation
    loader.stop()
    metrics.close()
    asked, mask = model.tokenize(["put the cup on the shelf"])
    np.testing.assert_array_equal(taught.tokens, np.repeat(asked, len(taught.tokens), axis=0))
    np.testing.assert_array_equal(taught.token_mask, np.repeat(mask, len(taught.tokens), axis=0))
    assert not np.array_equal(asked, policy.model.tokenize(["put the cup on the shelf"])[0])


def words_for(tmp_path, policy: str, *more: str) -> list[str]:
    """A short training of TMP_PATH/store with TMP_PATH/work into TMP_PATH/value."""
    return [
        "pretrain", "--value-of", policy, "--store", str(tmp_path / "store"), "--output", str(tmp_path / "value"), "--work",
        str(tmp_path / "work"), "--learner.num-steps", "2", "--learner.warmup-steps", "0", "--learner.batch-size", "8",
        "--loader.batch-size", "8", "--learner.mesh.data", "1", "--num-bins", "21", "--held-out-share", "0.4", "--json",
        *more,
    ]  # fmt: skip


def test_what_robots_upload_meanwhile_is_neither_learnt_from_nor_judged_nor_set_aside(
    tmp_path, policy, monkeypatch, capsys
):
    store = EpisodeStore(f"file://{tmp_path}/store/")
    fill(store)
    late = [make_episode(seed, 9, 3, spec=SPEC, outcome=Outcome.TIMEOUT) for seed in range(200, 230)]
    late.append(make_episode(300, 9, 3, spec=SPEC, task="laundry_fold"))
    read_manifests = pretrain_value._read_manifests

    def read_before_the_upload(store, control_hz):
        found = read_manifests(store, control_hz)
        for episode in late:
            store.put(episode)
        return found

    monkeypatch.setattr(pretrain_value, "_read_manifests", read_before_the_upload)
    assert main(words_for(tmp_path, policy)) == 0, capsys.readouterr().err
    assert "20 episodes" in (tmp_path / "value" / "calibration.html").read_text()
    assert not store.quarantined()


def held_out_episodes(task: str, share: float = 0.4) -> list[Episode]:
    """Three of this task whose names are drawn to be held out."""
    regression = ValueRegression(share)
    episodes = (make_episode(seed, 9, 3, spec=SPEC, task=task) for seed in range(400, 450))
    return [e for e in episodes if regression.is_held_out(e.manifest.episode_id)][:3]


@pytest.mark.timeout(120)
def test_a_task_that_is_held_out_whole_is_left_out(tmp_path, policy, capsys):
    store = EpisodeStore(f"file://{tmp_path}/store/")
    for episode in held_out_episodes("laundry_fold"):
        store.put(episode)
    assert main(words_for(tmp_path, policy)) == 2
    assert "all 3 episodes are held out. Record more, or lower --held-out-share (0.4)" in capsys.readouterr().err
    fill(store)
    assert main(words_for(tmp_path, policy)) == 0
    assert "laundry_fold is left out: all its episodes (3) are held out" in capsys.readouterr().err.replace("\n", " ")
    assert list(load_value_function(tmp_path / "value").tasks) == ["restock_shelf"]


def taught_episodes(seeds: range, **options) -> list[Episode]:
    """Those of these seeds that aren't held out."""
    episodes = (make_episode(seed, 12, **options) for seed in seeds)
    return [e for e in episodes if not ValueRegression(0.4).is_held_out(e.manifest.episode_id)]


def test_frames_with_images_are_equally_likely_however_many_lie_between_them(tmp_path, policy, monkeypatch):
    dense = taught_episodes(range(500, 506), image_stride=1, spec=SPEC, source=Source.OFFLINE, policy_version=NO_POLICY)
    sparse = taught_episodes(range(600, 612), image_stride=3, spec=SPEC)
    store = EpisodeStore(f"file://{tmp_path}/store/")
    for episode in (*dense, *sparse, *held_out_episodes("restock_shelf")):
        store.put(episode)
    shares, real = [], pretrain_value.AdaptiveSampler
    monkeypatch.setattr(
        pretrain_value, "AdaptiveSampler", lambda config, tasks: shares.append(config) or real(config, tasks)
    )
    assert main(words_for(tmp_path, policy)) == 0
    online, offline = 4 * len(sparse), 12 * len(dense)
    assert min(online, offline) > 0
    assert shares[0].fixed_online_shares == {"restock_shelf": pytest.approx(online / (online + offline))}


def test_episodes_with_other_cameras_than_most_teach_nothing_and_hold_nothing_up(tmp_path, policy, capsys):
    store = EpisodeStore(f"file://{tmp_path}/store/")
    fill(store)
    others = taught_episodes(range(700, 706), image_stride=3, spec=make_spec(image_size=32, camera_names=("head",)))
    for episode in others:
        store.put(episode)
    assert main(words_for(tmp_path, policy)) == 0
    assert f"{len(others)} of " in (told := capsys.readouterr().err.replace("\n", " "))
    assert "episodes teach nothing: their cameras aren't" in told


def test_a_task_whose_episodes_are_all_damaged_ends_in_a_clear_error(tmp_path, policy, capsys):
    store = EpisodeStore(f"file://{tmp_path}/store/")
    fill(store)
    for path in store.list_paths():
        damage(tmp_path / "store" / path)
    assert main(words_for(tmp_path, policy)) == 2
    assert "no episode of restock_shelf can be learnt from" in capsys.readouterr().err


def test_an_episode_that_cant_be_judged_is_counted_and_costs_no_more(tmp_path, policy, capsys):
    store = EpisodeStore(f"file://{tmp_path}/store/")
    fill(store)
    damaged, intact, long = held_out_episodes("restock_shelf")
    words = " ".join(["cup"] * (POLICY.max_tokens + 1))
    long = dataclasses.replace(long, manifest=dataclasses.replace(long.manifest, instruction=words))
    paths = [store.put(episode).path for episode in (damaged, long, intact)]
    damage(tmp_path / "store" / paths[0])
    assert main(words_for(tmp_path, policy)) == 0
    shown = capsys.readouterr()
    assert json.loads(shown.out.strip().splitlines()[-1])["num_left_out"] == 2
    saved = json.loads((tmp_path / "value" / "calibration.json").read_text())
    assert list(saved["left_out"]) == paths[:2]
    assert "13 tokens, the model takes at most 12" in saved["left_out"][paths[1]]
    assert "21 episodes (2 more could not be judged)" in (tmp_path / "value" / "calibration.html").read_text()


def test_a_judging_that_fails_leaves_the_training_to_go_on_from(tmp_path, policy, monkeypatch, capsys):
    fill(EpisodeStore(f"file://{tmp_path}/store/"))

    def fail(*args):
        raise ConfigError("no disk")

    with monkeypatch.context() as patch:
        patch.setattr(pretrain_value, "_judge_all", fail)
        assert main(words_for(tmp_path, policy)) == 2
    assert (tmp_path / "work" / "checkpoints" / "2").is_dir()
    with monkeypatch.context() as patch:
        patch.setattr(Learner, "step", fail)  # nothing is left to learn
        assert main(words_for(tmp_path, policy)) == 0, capsys.readouterr().err
    assert not (tmp_path / "work" / "checkpoints").exists()
    assert load_value_function(tmp_path / "value").task("restock_shelf").advantage_quantiles


def test_a_stopped_training_is_not_taken_for_another_ones(tmp_path, policy, monkeypatch, capsys):
    fill(EpisodeStore(f"file://{tmp_path}/store/"))
    params = create_model(POLICY).init_params(jax.random.key(1))
    PolicyBundle(POLICY, params, identity_norm_stats(16, 16, 3)).save(tmp_path / "other")
    with monkeypatch.context() as patch:
        patch.setattr(pretrain_value, "StopRequests", lambda: contextlib.nullcontext(_Soon()))
        assert main(words_for(tmp_path, policy)) == 130
    capsys.readouterr()
    for words, message in (
        (words_for(tmp_path, str(tmp_path / "other")), "belong to another training: --value-of "),
        (words_for(tmp_path, policy, "--returns.failure-cost", "2"), "belong to another training: config.returns "),
    ):
        assert main(words) == 2
        assert message in capsys.readouterr().err
    assert main(words_for(tmp_path, policy)) == 0
    assert main(words_for(tmp_path, str(tmp_path / "other"), "--output", str(tmp_path / "second"))) == 0  # it is done


def test_a_training_that_goes_on_keeps_the_episodes_that_it_began_with(tmp_path, policy, monkeypatch, capsys):
    """A longer episode would rescale every return of its task in mid-training."""
    store = EpisodeStore(f"file://{tmp_path}/store/")
    fill(store)
    targets, returns_of = [], pretrain_value._returns_of

    def spy(*arguments):
        targets.append(returns_of(*arguments))
        return targets[-1]

    monkeypatch.setattr(pretrain_value, "_returns_of", spy)
    with monkeypatch.context() as patch:
        patch.setattr(pretrain_value, "StopRequests", lambda: contextlib.nullcontext(_Soon()))
        assert main(words_for(tmp_path, policy)) == 130
    store.put(make_episode(500, 100, 3, spec=SPEC))
    store.put(make_episode(501, 9, 3, spec=SPEC, task="laundry_fold"))
    gone = next(path for path in store.list_paths() if "demo" in path)
    store.quarantine(gone, "broken gripper")
    capsys.readouterr()
    assert main(words_for(tmp_path, policy)) == 0
    told = " ".join(capsys.readouterr().err.split())
    assert "1 of the 20 episodes that this training began with are gone since" in told
    assert "2 episodes came since this training began; it goes on without them" in told
    before, after = targets
    assert set(before) - set(after) == {episode_of_path(gone)}
    assert set(after) < set(before)
    for name in after:
        np.testing.assert_array_equal(after[name], before[name])
    assert {name: task.max_frames for name, task in load_value_function(tmp_path / "value").tasks.items()} == {
        "restock_shelf": 12
    }
    # It is done: another one begins with what is there.
    assert main(words_for(tmp_path, policy, "--output", str(tmp_path / "second"))) == 0
    assert load_value_function(tmp_path / "second").task("restock_shelf").max_frames == 100


def test_the_episodes_of_a_training_are_settled_with_its_first_checkpoint(tmp_path):
    short, long = (make_episode(seed, 9 + 40 * seed, 3, spec=SPEC).manifest for seed in range(2))
    first = settle_episodes(tmp_path, {"short": short})
    assert first == TrainingEpisodes({"short": short}, {"restock_shelf": 9})
    both = {"short": short, "long": long}
    assert settle_episodes(tmp_path, both) == TrainingEpisodes(both, {"restock_shelf": 49})  # nothing was learnt yet
    (tmp_path / "0").mkdir()  # stopped before the first step: the sampler's state is kept, and is of these tasks
    assert settle_episodes(tmp_path, {"short": short}) == TrainingEpisodes({"short": short}, {"restock_shelf": 49})
    with pytest.raises(UsageError, match="none of the 2 episodes that this training began with is left"):
        settle_episodes(tmp_path, {"other": long})
    for content in ("{", "[]", '{"episodes": ["long"], "longest": {"restock_shelf": 9}}'):
        (tmp_path / "episodes.json").write_text(content)
        with pytest.raises(ConfigError, match=r"episodes.json can't be read .* to begin this training anew"):
            settle_episodes(tmp_path, both)
    (tmp_path / "episodes.json").unlink()  # an earlier version's checkpoints
    assert settle_episodes(tmp_path, both).longest == {"restock_shelf": 49}


class _Soon:
    """Asks to stop soon after the training began."""

    def __init__(self):
        self._num_asked = 0

    def __call__(self) -> bool:
        self._num_asked += 1
        return self._num_asked > 2


def damage(path: pathlib.Path) -> None:
    """Alters the first image; the manifest stays readable."""
    data = bytearray(path.read_bytes())
    start = data.index(b"\xff\xd8\xff")
    data[start + 40 : start + 140] = bytes(100)
    path.write_bytes(data)


def test_a_value_function_needs_a_store_with_ends(tmp_path, policy, capsys):
    words = ["pretrain", "--value-of", policy, "--output", str(tmp_path / "value")]
    assert main(words) == 2
    assert "needs --store" in capsys.readouterr().err
    assert main([*words, "--store", str(tmp_path / "empty")]) == 2
    assert "no episode that ended in success, failure or timeout" in capsys.readouterr().err


def test_a_value_function_learns_from_one_rate(tmp_path, capsys):
    store = EpisodeStore(f"file://{tmp_path}/store/")
    episode = make_episode(0)
    slow = make_episode(1)
    store.put(episode)
    store.put(dataclasses.replace(slow, manifest=dataclasses.replace(slow.manifest, control_hz=10.0)))
    assert [m.episode_id for m in _read_manifests(store, 30.0).values()] == [episode.manifest.episode_id]
    assert "1 of 2 episodes are passed over" in capsys.readouterr().err
    with pytest.raises(UsageError, match=r"expected episodes at 50 Hz .*, got only such at \[10.0, 30.0\] Hz"):
        _read_manifests(store, 50.0)


def test_a_value_function_learns_from_nothing_that_is_set_aside_or_retired(tmp_path):
    store = EpisodeStore(f"file://{tmp_path}/store/")
    kept, set_aside, retired = (make_episode(seed, 9, 3, spec=SPEC) for seed in range(3))
    paths = [store.put(episode).path for episode in (kept, set_aside, retired)]
    store.quarantine(paths[1], "broken gripper")
    retire(store, RetirementRecord(paths[2], "restock_shelf", Source.ONLINE, 9, 1, "old", 0))
    assert list(_read_manifests(store, 30.0)) == paths[:1]


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
