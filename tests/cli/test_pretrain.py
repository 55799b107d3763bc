import pathlib

import jax
import numpy as np

from configs.files import to_json
from configs.registry import PRETRAININGS
from sop_jax.cli.main import main
from sop_jax.cli.pretrain import take_evenly
from sop_jax.episodes.format import pack, parse
from sop_jax.episodes.store import EpisodeStore
from sop_jax.episodes.synthetic import make_episode, make_spec
from sop_jax.evaluation.run_metrics import write_json
from sop_jax.learner.checkpoints import OWNER_FILE
from sop_jax.models.bundle import load_bundle
from sop_jax.models.pytrees import flatten_params
from sop_jax.specs.records import NO_POLICY, Source

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


def test_training_goes_on_from_a_policy_with_its_normalisation(tmp_path, capsys, monkeypatch):
    asked = []
    monkeypatch.setattr("sop_jax.cli.pretrain.draws_seed", lambda seed, checkpoints: asked.append(checkpoints) or seed)
    store = EpisodeStore(f"file://{tmp_path}/made/store/")
    spec = make_spec(image_size=64, camera_names=("head", "hand_left", "hand_right"))
    for count in range(2):
        store.put(
            make_episode(
                count, 24, 3, spec=spec, source=Source.OFFLINE, policy_version=NO_POLICY, robot_id="demonstrator-0"
            )
        )
    words = [
        "pretrain", "--start", str(BASE), "--work", str(tmp_path / "made"), "--output", str(tmp_path / "policy"),
        "--skip-evaluation", "--demonstrations.num-episodes", "2", "--learning.learner.num-steps", "2",
        "--learning.learner.warmup-steps", "0", "--learning.learner.learning-rate", "1e-7",
    ]  # fmt: skip
    assert main(words) == 0, capsys.readouterr()
    assert asked == [tmp_path / "made" / "checkpoints"]
    base, made = load_bundle(BASE), load_bundle(tmp_path / "policy")
    assert made.norm.fingerprint == base.norm.fingerprint
    assert made.fingerprint != base.fingerprint
    before, after = flatten_params(base.params), flatten_params(made.params)
    # Adam moves a leaf by about the learning rate in each step; random weights would be far away.
    assert max(float(np.abs(after[path] - before[path]).max()) for path in before) < 1e-6
    assert jax.tree.structure(made.params) == jax.tree.structure(base.params)


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
