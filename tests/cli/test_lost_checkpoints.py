"""A learner without its checkpoints doesn't take the robots back to the base policy, and what was published isn't lost."""

import json
import pathlib
import shutil
import time

import numpy as np
import pytest
from small_learner import command, make_folder, start_process

from sop_jax.cli.main import main
from sop_jax.models.bundle import load_bundle
from sop_jax.models.pytrees import flatten_params
from sop_jax.specs.errors import InvalidPublicationError
from sop_jax.weights.follower import Follower
from sop_jax.weights.management import list_publications
from sop_jax.weights.partition import split_params


@pytest.fixture(scope="module")
def learnt(tmp_path_factory) -> pathlib.Path:
    """A store into which a learner has published twice: after step 2, and after step 3, its last."""
    folder = make_folder(tmp_path_factory.mktemp("learnt"), publish_every=2)
    assert main([*command(folder), "--steps", "3"]) == 0
    return folder


@pytest.fixture
def folder(learnt, tmp_path) -> pathlib.Path:
    """A copy of it without its checkpoints; its config names the policy in the first one."""
    shutil.copytree(learnt, tmp_path, dirs_exist_ok=True, ignore=shutil.ignore_patterns("checkpoints", "metrics"))
    return tmp_path


def run(capsys, *words) -> dict:
    assert main([str(word) for word in words]) == 0, capsys.readouterr().err
    return json.loads(capsys.readouterr().out.strip().splitlines()[-1])


def refused(capsys, *words) -> str:
    capsys.readouterr()
    assert main([str(word) for word in words]) == 2
    error = capsys.readouterr().err
    assert error.count("\n") == 1
    return error


def steps_of(folder: pathlib.Path) -> list[int]:
    return [publication.learner_step for publication in list_publications(folder / "store")]


def test_a_learner_whose_checkpoints_are_lost_is_refused_in_words(folder, capsys):
    words = [*command(folder), "--steps", 3]
    error = refused(capsys, *words)
    assert f"there is no checkpoint in {folder}/checkpoints" in error
    assert "holds version 2 of this base policy, from learner step 3" in error
    for way_on in ("--checkpoints", "sop weights bundle", "--start-over"):
        assert way_on in error
    assert not (folder / "checkpoints").exists()  # nothing lies in a folder that was given by mistake
    without = words[: words.index("--checkpoints")] + words[words.index("--metrics") :]
    assert "no folder of checkpoints was given" in refused(capsys, *without)
    assert steps_of(folder) == [2, 3]


def test_another_store_for_publications_is_free(folder, capsys):
    assert run(capsys, *command(folder), "--steps", 2, "--publish-to", folder / "other")["last_version"] == 1


def test_starting_over_on_purpose_goes_on_where_it_was_when_it_is_started_again(folder, capsys):
    words = [*command(folder), "--start-over", "--steps"]
    begun = run(capsys, *words, 3)
    assert (begun["step"], begun["num_steps"], begun["last_version"]) == (3, 3, 4)
    went_on = run(capsys, *words, 5)
    assert (went_on["step"], went_on["num_steps"]) == (5, 2)
    assert steps_of(folder) == [2, 3, 2, 3, 4, 5]


def test_a_learner_killed_before_its_first_checkpoint_is_due_goes_on_by_itself(tmp_path, capsys):
    folder = make_folder(tmp_path, publish_every=1)
    process = start_process(folder)
    deadline = time.monotonic() + 120
    try:
        while not steps_of(folder):
            assert process.poll() is None, process.communicate()[0]
            assert time.monotonic() < deadline, "no publication within two minutes"
            time.sleep(0.05)
    finally:
        process.kill()
        process.communicate()
    assert [path.name for path in (folder / "checkpoints").iterdir() if path.name.isdigit()] == ["0"]
    published = list_publications(folder / "store")
    again = run(capsys, *command(folder), "--steps", 1)
    assert again["step"] == 1
    assert again["last_version"] > published[-1].version > 0


def test_a_publication_becomes_the_base_of_the_next_learner(folder, learnt, capsys):
    """The way on that the refusal names, on the same store: robots of the new base take what is published from it."""
    bundle = ["weights", "bundle", "--store", folder / "store", "--base", learnt / "policy", "--output"]
    made = run(capsys, *bundle, folder / "next", "--json")
    old, new = load_bundle(learnt / "policy"), load_bundle(folder / "next")
    assert (made["version"], made["learner_step"]) == (2, 3)
    assert (made["base_fingerprint"], made["fingerprint"]) == (old.fingerprint, new.fingerprint)
    assert old.fingerprint != new.fingerprint
    assert made["norm_fingerprint"] == old.norm.fingerprint == new.norm.fingerprint
    provenance = json.loads((folder / "next" / "provenance.json").read_text())
    assert provenance["start"] == {"base policy": old.fingerprint, "normalisation": old.norm.fingerprint}
    told = provenance["publication"]
    assert (told["store"], told["version"], told["learner_step"]) == (f"file://{folder}/store/", 2, 3)
    assert provenance["command"].startswith("sop weights bundle --store")
    assert sorted(path.name for path in folder.iterdir()) == ["config.json", "next", "policy", "store"]

    template = split_params(new.params, new.model.is_trained)[0]
    robots = {
        name: Follower(folder / "store", bundle.fingerprint, bundle.norm.fingerprint)
        for name, bundle in (("old", old), ("new", new))
    }
    second = robots["old"].load_latest(template, 0)
    assert second is not None
    for path, leaf in flatten_params(second.params).items():
        np.testing.assert_array_equal(leaf, flatten_params(new.params)[path])
    with pytest.raises(InvalidPublicationError, match="another base model"):
        robots["new"].load_latest(template, 0)

    learnt_on = run(capsys, *command(folder), "--policy", folder / "next", "--steps", 2)
    assert (learnt_on["num_steps"], learnt_on["last_version"]) == (2, 3)
    third = robots["new"].load_latest(template, 0)
    assert third is not None
    assert third.publication.version == 3
    moved = [
        np.abs(np.float32(leaf) - np.float32(flatten_params(new.params)[path])).max()
        for path, leaf in flatten_params(third.params).items()
    ]
    assert 0 < max(moved) < 0.1  # it goes on from there
    with pytest.raises(InvalidPublicationError, match="another base model"):
        robots["old"].load_latest(template, 2)


def test_a_policy_is_made_of_one_version_and_of_its_own_base_alone(folder, learnt, capsys):
    bundle = ["weights", "bundle", "--store", folder / "store", "--base", learnt / "policy", "--output"]
    first = run(capsys, *bundle, folder / "first", "--version", 1, "--json")
    assert (first["version"], first["learner_step"]) == (1, 2)
    assert first["fingerprint"] != run(capsys, *bundle, folder / "second", "--json")["fingerprint"]

    assert "is not empty" in refused(capsys, *bundle, folder / "first")
    assert "there is no publication 9" in refused(capsys, *bundle, folder / "x", "--version", 9)
    assert "--version must be at least 1" in refused(capsys, *bundle, folder / "x", "--version", 0)
    other = ["weights", "bundle", "--store", folder / "store", "--base", folder / "first", "--output", folder / "x"]
    assert f"expected '{first['fingerprint']}', got '{first['base_fingerprint']}'" in refused(capsys, *other)
    empty = [*bundle, folder / "x"]
    empty[empty.index("--store") + 1] = folder / "nothing"
    assert "nothing was published" in refused(capsys, *empty)
    data = max((folder / "store" / "weights" / "00000002").rglob("*"), key=lambda path: path.stat().st_size)
    data.write_bytes(data.read_bytes()[:-1] + b"x")
    assert "is damaged" in refused(capsys, *bundle, folder / "x")
    assert not [path for path in folder.iterdir() if "x" in path.name and path.name != "next"]
