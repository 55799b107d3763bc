import errno
import json
import pathlib
import shlex
import shutil

import jax
import numpy as np

from configs.experiment import PretrainConfig
from configs.files import from_json, to_json
from configs.registry import PRETRAININGS
from sop_jax.actors.episode import TrialResult
from sop_jax.cli.finished_policy import hand_over
from sop_jax.cli.main import INTERRUPTED, main
from sop_jax.cli.pretrain import _read_demonstrations, take_evenly
from sop_jax.episodes.format import pack, parse
from sop_jax.episodes.paths import episode_of_path
from sop_jax.episodes.retirement import RetirementRecord, retire
from sop_jax.episodes.store import EpisodeStore
from sop_jax.episodes.synthetic import make_episode, make_spec
from sop_jax.evaluation.results import Subject, summarise
from sop_jax.evaluation.run_metrics import write_json
from sop_jax.evaluation.trial_pool import EvaluationFailedError
from sop_jax.learner.checkpoints import OWNER_FILE
from sop_jax.models.bundle import load_bundle
from sop_jax.models.pytrees import flatten_params
from sop_jax.specs.records import NO_POLICY, Outcome, Source

BASE = pathlib.Path(__file__).parents[2] / "assets" / "policies" / "restock_compact"


def _parsed(count, num_frames, task):
    return parse(pack(make_episode(count, num_frames, task=task)))


def test_every_task_has_an_even_say_in_the_statistics():
    short = [_parsed(count, 30, "restock_shelf") for count in range(3)]
    long = [_parsed(count, 60, "laundry_fold") for count in range(3, 8)]
    taken = take_evenly([*long, *short])
    assert [arrays.num_frames for arrays in taken] == [60, 60, 30, 30, 30]


def test_one_task_is_taken_whole():
    episodes = [_parsed(count, 30, "restock_shelf") for count in range(3)]
    assert take_evenly(episodes) == [episode.arrays for episode in episodes]


def test_a_work_folder_holds_a_policys_demonstrations_or_a_collection_and_never_both(tmp_path, capsys):
    work = tmp_path / "made"
    store = EpisodeStore(f"file://{work}/store/")
    for robot in ("demonstrator-restock_shelf-1", "demonstrator-restock_shelf-0", "demonstrator-0"):
        store.put(make_episode(0, 24, source=Source.OFFLINE, policy_version=NO_POLICY, robot_id=robot))
    words = ["pretrain", "--work", str(work)]
    assert main([*words, "--output", str(tmp_path / "policy")]) == 2
    expected = (
        "/store holds episodes of demonstrator-restock_shelf-0, demonstrator-restock_shelf-1, which are no demonstr"
    )
    assert expected in capsys.readouterr().err
    assert [path.name for path in work.iterdir()] == ["store"]  # and it is a collection's still
    write_json(work / "config.json", to_json(PRETRAININGS["restock_compact"]))
    assert main([*words, "--collect-hours", "0.01"]) == 2
    assert "holds a policy's demonstrations: choose another --work" in capsys.readouterr().err


def _words(tmp_path, *more):
    """A training of two steps from BASE, on two demonstrations that are there already."""
    store = EpisodeStore(f"file://{tmp_path}/made/store/")
    spec = make_spec(image_size=64, camera_names=("head", "hand_left", "hand_right"))
    for count in range(2):
        store.put(
            make_episode(
                count, 24, 3, spec=spec, source=Source.OFFLINE, policy_version=NO_POLICY, robot_id="demonstrator-0"
            )
        )
    return [
        "pretrain", "--start", str(BASE), "--work", str(tmp_path / "made"), "--output", str(tmp_path / "policy"),
        "--demonstrations.num-episodes", "2", "--learning.learner.num-steps", "2", "--learning.learner.warmup-steps",
        "0", "--learning.learner.learning-rate", "1e-7", *more,
    ]  # fmt: skip


def test_training_goes_on_from_a_policy_with_its_normalisation(tmp_path, capsys, monkeypatch):
    asked = []
    monkeypatch.setattr("sop_jax.cli.pretrain.draws_seed", lambda seed, checkpoints: asked.append(checkpoints) or seed)
    assert main(_words(tmp_path, "--skip-evaluation")) == 0, capsys.readouterr()
    assert asked == [tmp_path / "made" / "checkpoints"]
    base, made = load_bundle(BASE), load_bundle(tmp_path / "policy")
    assert made.norm.fingerprint == base.norm.fingerprint
    assert made.fingerprint != base.fingerprint
    before, after = flatten_params(base.params), flatten_params(made.params)
    # Adam moves a leaf by about the learning rate in each step; random weights would be far away.
    assert max(float(np.abs(after[path] - before[path]).max()) for path in before) < 1e-6
    assert jax.tree.structure(made.params) == jax.tree.structure(base.params)


class Work:
    """Stands in for the training, which leaves a checkpoint, and for the trials, which end with these errors first."""

    def __init__(self, monkeypatch, *errors):
        self._errors = list(errors)
        self.num_trainings = self.num_evaluations = 0
        monkeypatch.setattr("sop_jax.cli.pretrain._clone", self.train)
        monkeypatch.setattr("sop_jax.cli.pretrain.evaluate_with_progress", self.evaluate)

    def train(self, arguments, start, stop):
        self.num_trainings += 1
        (arguments.checkpoints / "2").mkdir(exist_ok=True)
        return load_bundle(BASE)

    def evaluate(self, what, candidate, world, num_trials, seed, *, folder, **options):
        self.num_evaluations += 1
        assert load_bundle(pathlib.Path(candidate.bundle)).fingerprint == load_bundle(BASE).fingerprint
        (folder / "trials").mkdir(parents=True, exist_ok=True)
        if self._errors:
            raise self._errors.pop(0)
        trials = [TrialResult(0, Outcome.SUCCESS, "", 120, 4.0)]
        return summarise(Subject(world.task, candidate.name), trials, seed)


def test_a_run_that_was_stopped_in_its_evaluation_goes_on_with_it(tmp_path, capsys, monkeypatch):
    work = Work(monkeypatch, KeyboardInterrupt(), EvaluationFailedError("no worker came up"))
    words, output = _words(tmp_path), tmp_path / "policy"
    assert main(words) == INTERRUPTED
    assert not output.exists()
    assert main(words) == 2
    assert "no worker came up" in capsys.readouterr().err
    assert not output.exists()
    assert main(words) == 0
    assert (work.num_trainings, work.num_evaluations) == (1, 3)
    assert load_bundle(output).fingerprint == load_bundle(BASE).fingerprint
    provenance = json.loads((output / "provenance.json").read_text())
    assert [(result["policy"], result["num_successes"]) for result in provenance["evaluation"]] == [("policy", 1)]
    assert provenance["command"] == shlex.join(["sop", *words])
    assert provenance["start"]["--start"] == load_bundle(BASE).fingerprint
    assert from_json(PretrainConfig, provenance["config"]).learning.learner.num_steps == 2
    assert sorted(path.name for path in (tmp_path / "made").iterdir()) == ["config.json", "store"]
    assert main(words) == 2  # done is done
    assert "is not empty: choose another --output" in capsys.readouterr().err


def test_an_evaluation_that_was_stopped_can_be_left_out(tmp_path, monkeypatch):
    work = Work(monkeypatch, KeyboardInterrupt())
    words = _words(tmp_path)
    assert main(words) == INTERRUPTED
    assert main([*words, "--skip-evaluation"]) == 0
    assert work.num_trainings == 1
    assert json.loads((tmp_path / "policy" / "provenance.json").read_text())["evaluation"] == []


def test_a_policy_that_waits_for_its_evaluation_is_not_taken_for_one_from_another_start(tmp_path, capsys, monkeypatch):
    work = Work(monkeypatch, KeyboardInterrupt())
    words = _words(tmp_path)
    assert main(words) == INTERRUPTED
    own = words.index("--start")
    assert main([*words[:own], *words[own + 2 :]]) == 2
    assert "now it is random weights" in capsys.readouterr().err
    shutil.rmtree(tmp_path / "made" / "checkpoints")  # as if the last one could not have been written
    waiting = tmp_path / "made" / "policy" / "provenance.json"
    waiting.write_text(waiting.read_text().replace(load_bundle(BASE).fingerprint, "0123456789abcdef"))
    assert main(words) == 0
    provenance = json.loads((tmp_path / "policy" / "provenance.json").read_text())
    assert provenance["start"]["--start"] == load_bundle(BASE).fingerprint
    assert work.num_trainings == 2


def test_a_policy_gets_to_another_file_system_whole(tmp_path, monkeypatch):
    def other_file_system(self, target):
        raise OSError(errno.EXDEV, "Invalid cross-device link")

    made, output = tmp_path / "made", tmp_path / "deep" / "policy"
    shutil.copytree(BASE, made)
    output.mkdir(parents=True)
    monkeypatch.setattr(pathlib.Path, "rename", other_file_system)
    hand_over(made, output)
    assert load_bundle(output).fingerprint == load_bundle(BASE).fingerprint
    assert not made.exists()


def test_a_stopped_training_is_not_taken_for_one_from_another_start(tmp_path, capsys):
    """What a training from BASE left behind, by hand: one step's folder and whose it is."""
    (tmp_path / "made" / "checkpoints" / "1").mkdir(parents=True)
    (tmp_path / "made" / "checkpoints" / OWNER_FILE).write_text('{"--start": "0123456789abcdef"}')
    store = EpisodeStore(f"file://{tmp_path}/made/store/")
    spec = make_spec(image_size=64, camera_names=("head", "hand_left", "hand_right"))
    store.put(
        make_episode(0, 24, 3, spec=spec, source=Source.OFFLINE, policy_version=NO_POLICY, robot_id="demonstrator-0")
    )
    words = [
        "pretrain", "--work", str(tmp_path / "made"), "--output", str(tmp_path / "policy"), "--skip-evaluation",
        "--demonstrations.num-episodes", "1",
    ]  # fmt: skip
    assert main([*words, "--start", str(BASE)]) == 2
    expected = f"--start 0123456789abcdef, now it is {load_bundle(BASE).fingerprint}; normalisation none, now it is "
    assert expected in capsys.readouterr().err
    assert main(words) == 2
    assert "--start 0123456789abcdef, now it is random weights" in capsys.readouterr().err


def test_what_was_set_aside_or_retired_has_no_say_in_the_normalisation(store_url):
    store = EpisodeStore(store_url)
    for count in range(3):
        store.put(make_episode(count, 24, 3, source=Source.OFFLINE, policy_version=NO_POLICY))
    kept, torn, old = store.list_paths()
    store.quarantine(torn, "torn")
    retire(store, RetirementRecord(old, "restock_shelf", Source.OFFLINE, 9, 1, "old", 0))
    assert [episode.manifest.episode_id for episode in _read_demonstrations(store)] == [episode_of_path(kept)]
