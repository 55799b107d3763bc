"""Training that stops and goes on is the training that never stopped."""

import dataclasses
import json
import os
import pathlib
import subprocess
import sys
import time

import jax
import numpy as np
import pytest
from linear_policy import CONFIG, LinearModel

from sop_jax.learner.checkpoints import OWNER_FILE, CheckpointError, claim_checkpoints, has_checkpoint
from sop_jax.learner.config import MeshConfig
from sop_jax.specs.clock import ManualClock
from sop_jax.specs.errors import ConfigError
from sop_jax.weights.publisher import Publisher


def arrays_of(bench):
    bench.learner.settle()
    return jax.tree.map(np.array, bench.learner._state)


def assert_equal(left, right):
    assert jax.tree.structure(left) == jax.tree.structure(right)
    jax.tree.map(np.testing.assert_array_equal, left, right)


def test_three_and_three_are_six_bit_for_bit(make_bench, tmp_path):
    whole = make_bench(checkpoint_dir=tmp_path / "whole")
    whole.learner.run()
    first = make_bench(checkpoint_dir=tmp_path / "parts")
    first.learner.run(num_steps=3)
    first.learner.close()
    second = make_bench(checkpoint_dir=tmp_path / "parts")
    assert second.learner.current_step == 3
    summary = second.learner.run()
    assert (summary.step, summary.num_steps) == (6, 3)
    assert_equal(arrays_of(second), arrays_of(whole))
    recorded = first.batches.recorded + second.batches.recorded
    for (draws, losses), (expected_draws, expected) in zip(recorded, whole.batches.recorded, strict=True):
        assert draws == expected_draws
        np.testing.assert_array_equal(losses, expected)


def test_a_checkpoint_in_the_middle_is_not_touched_by_the_steps_after_it(make_bench, tmp_path):
    """Saving goes on in the background while the saved buffers have been donated to the next steps."""
    three = make_bench(checkpoint_dir=tmp_path / "three")
    three.learner.run(num_steps=3)
    expected = arrays_of(three)
    six = make_bench(checkpoint_dir=tmp_path / "six")
    six.learner.run()
    six.learner.close()
    (tmp_path / "six" / "6").rename(tmp_path / "gone")
    resumed = make_bench(checkpoint_dir=tmp_path / "six")
    assert resumed.learner.current_step == 3
    assert_equal(arrays_of(resumed), expected)


def test_resume_on_another_mesh(make_bench, tmp_path):
    sharded = dataclasses.replace(CONFIG, mesh=MeshConfig(data=2, fsdp=2, tensor=2, min_sharded_bytes=0))
    first = make_bench(sharded, checkpoint_dir=tmp_path / "c")
    first.learner.run(num_steps=3)
    saved = arrays_of(first)
    first.learner.close()
    second = make_bench(CONFIG, checkpoint_dir=tmp_path / "c")
    assert_equal(arrays_of(second), saved)
    assert len(second.learner._state.params["mlp"]["linear"].sharding.device_set) == 1
    second.learner.run()


def test_folders_are_made_before_anything_is_written(make_bench, monkeypatch, tmp_path):
    """No host may wait for a folder by a number that publications count up on the first host alone."""
    contracts = []
    monkeypatch.setattr(
        "orbax.checkpoint._src.futures.future.AwaitableSignalsContract.add_to_awaitable_signals_contract",
        lambda signals: contracts.append(signals),
    )
    bench = make_bench(checkpoint_dir=tmp_path / "c")
    assert not bench.learner._checkpoints._manager._options.async_options.create_directories_asynchronously
    bench.learner.run()
    bench.learner.close()
    assert newest_checkpoint(tmp_path / "c") == 6
    assert contracts == []


def test_first_use_is_not_reported_again_after_a_resume(make_bench, tmp_path):
    first = make_bench(checkpoint_dir=tmp_path / "c")
    first.learner.run(num_steps=3)
    first.learner.close()
    assert len(first.events("first_use")) == 4
    second = make_bench(checkpoint_dir=tmp_path / "c")
    second.learner.run()
    assert second.events("first_use") == second.events("correction_use") == []
    assert [bench.events("learner_begins") for bench in (first, second)] == [
        [{"event": "learner_begins", "step": step}] for step in (0, first.learner.current_step)
    ]


def test_publication_versions_go_on_after_a_resume(make_bench, tmp_path):
    root = tmp_path / "store"
    first = make_bench(publisher=Publisher(root, "b", "n", ManualClock()), checkpoint_dir=tmp_path / "c")
    first.learner.run(num_steps=3)
    first.learner.close()
    second = make_bench(publisher=Publisher(root, "b", "n", ManualClock()), checkpoint_dir=tmp_path / "c")
    second.learner.run()
    published = [*first.events("publication"), *second.events("publication")]
    assert [(event["version"], event["learner_step"]) for event in published] == [(1, 2), (2, 4), (3, 6)]


def test_old_checkpoints_are_removed(make_bench, tmp_path):
    config = dataclasses.replace(CONFIG, checkpoint_every=1, keep_checkpoints=2)
    bench = make_bench(config, checkpoint_dir=tmp_path / "c")
    bench.learner.run()
    bench.learner.close()
    assert sorted(path.name for path in (tmp_path / "c").iterdir()) == ["5", "6"]


def test_a_checkpoint_of_another_model_is_refused(make_bench, tmp_path):
    class Wider(LinearModel):
        def init_params(self, key):
            params = super().init_params(key)
            params["encoder"]["extra"] = np.zeros((3, 3), np.float32)
            return params

    first = make_bench(checkpoint_dir=tmp_path / "c")
    first.learner.run(num_steps=3)
    first.learner.close()
    with pytest.raises(ConfigError, match=r"checkpoint .*/c/3 does not fit this model"):
        make_bench(checkpoint_dir=tmp_path / "c", model=Wider())


def test_checkpoints_belong_to_the_training_that_made_them(make_bench, tmp_path):
    folder, mine, other = tmp_path / "c", {"base": "aaaa", "norm": "1111"}, {"base": "bbbb", "norm": "1111"}
    claim_checkpoints(folder, other)
    claim_checkpoints(folder, mine)  # nothing is there yet that could be mistaken
    first = make_bench(checkpoint_dir=folder)
    first.learner.run(num_steps=3)
    first.learner.close()
    for writes in (True, False):
        claim_checkpoints(folder, mine, writes)
        with pytest.raises(ConfigError, match=r"/c belong to another training: base aaaa, now it is bbbb\. Go on"):
            claim_checkpoints(folder, other, writes)
    with pytest.raises(ConfigError, match=r"norm 1111, now it is none"):
        claim_checkpoints(folder, {"base": "aaaa"})
    assert make_bench(checkpoint_dir=folder).learner.current_step == 3
    (folder / OWNER_FILE).write_text("[]")
    with pytest.raises(ConfigError, match=r"belongs_to.json can't be read"):
        claim_checkpoints(folder, mine)


def test_checkpoints_of_an_earlier_version_are_taken_up_and_get_their_owner(make_bench, tmp_path):
    first = make_bench(checkpoint_dir=tmp_path / "c")
    first.learner.run(num_steps=3)
    first.learner.close()
    claim_checkpoints(tmp_path / "c", {"base": "aaaa"}, writes=False)
    claim_checkpoints(tmp_path / "c", {"base": "bbbb"})
    with pytest.raises(ConfigError, match="belong to another training"):
        claim_checkpoints(tmp_path / "c", {"base": "aaaa"})


KILLED_LEARNER = """
import dataclasses, pathlib, sys
import jax
from sop_jax.algorithms.registry import create_algorithm
from sop_jax.learner.learner import Learner
from sop_jax.specs.clock import WallClock
from sop_jax.specs.metrics import JsonlMetrics
from sop_jax.weights.publisher import Publisher
from linear_policy import CONFIG, MODEL, NORM, make_batches
directory = pathlib.Path(sys.argv[1])
learner = Learner(
    dataclasses.replace(CONFIG, publish_in_background=True, checkpoint_every=20, num_steps=10**6),
    MODEL, create_algorithm("behaviour_cloning"), MODEL.init_params(jax.random.key(1)), NORM, make_batches(),
    Publisher(directory / "store", "b", "n", WallClock()), JsonlMetrics(directory / "m.jsonl", "learner"), WallClock(),
    directory / "checkpoints",
)
print(f"started at {learner.current_step}", flush=True)
learner.run()
"""


def newest_checkpoint(directory: pathlib.Path) -> int:
    return max((int(path.name) for path in directory.glob("*") if path.name.isdigit()), default=0)


def test_kill_and_resume(make_bench, tmp_path):
    """kill -9 in the middle of training; the checkpoint left is the one of an uninterrupted run at that step."""
    process = subprocess.Popen(
        [sys.executable, "-c", KILLED_LEARNER, str(tmp_path)],
        stdout=subprocess.PIPE,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)},
    )
    try:
        assert process.stdout.readline() == b"started at 0\n"
        deadline = time.monotonic() + 60
        while newest_checkpoint(tmp_path / "checkpoints") < 40 and time.monotonic() < deadline:
            time.sleep(0.01)
    finally:
        process.kill()
        process.wait()
        process.stdout.close()
    step = newest_checkpoint(tmp_path / "checkpoints")
    assert step >= 40
    assert step % 20 == 0
    publisher = Publisher(tmp_path / "store", "b", "n", ManualClock())
    version = publisher.last_version
    assert version > 0
    survivor = make_bench(publisher=publisher, checkpoint_dir=tmp_path / "checkpoints")
    assert survivor.learner.current_step == step
    whole = make_bench()
    whole.learner.run(num_steps=step)
    assert_equal(arrays_of(survivor), arrays_of(whole))
    survivor.learner.run(num_steps=step + 2)
    assert survivor.events("publication")[0]["version"] == version + 1


def test_publications_and_checkpoints_are_written_at_once(tmp_path):
    """Neither waits for the other, also not for ever: Orbax numbers the operations of a whole process."""
    script = KILLED_LEARNER.replace(
        "checkpoint_every=20, num_steps=10**6", "checkpoint_every=1, publish_every=1, num_steps=40"
    )
    assert script != KILLED_LEARNER
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    subprocess.run([sys.executable, "-c", script, str(tmp_path)], env=environment, timeout=120, check=True)
    assert newest_checkpoint(tmp_path / "checkpoints") == 40
    events = [json.loads(line) for line in (tmp_path / "m.jsonl").read_text().splitlines()]
    published = [event["learner_step"] for event in events if event["event"] == "publication"]
    assert published[-1] == 40
    assert not [event for event in events if event["event"] in ("publication_failed", "checkpoint_failed")]


def test_nothing_is_published_before_there_is_a_checkpoint_to_go_on_from(make_bench, tmp_path):
    """Killed at whatever moment, also long before its first checkpoint is due, a learner goes on by itself."""
    folder, publisher = tmp_path / "c", Publisher(tmp_path / "store", "b", "n", ManualClock())
    config = dataclasses.replace(CONFIG, checkpoint_every=100)
    killed = make_bench(config, publisher=publisher, checkpoint_dir=folder)
    assert (has_checkpoint(folder), newest_checkpoint(folder), publisher.last_version) == (True, 0, 0)
    assert [event["step"] for event in killed.events("checkpoint")] == [0]
    for _ in range(3):
        killed.learner.step()
    killed.learner.settle()
    assert publisher.last_version == 1
    assert newest_checkpoint(folder) == 0

    resumed, whole = make_bench(config, publisher=publisher, checkpoint_dir=folder), make_bench(config)
    assert resumed.learner.current_step == 0
    assert resumed.events("checkpoint") == []  # it is there already
    for bench in (resumed, whole):
        bench.learner.run()
    assert_equal(arrays_of(resumed), arrays_of(whole))
    quiet = make_bench(config, checkpoint_dir=tmp_path / "quiet")
    assert not has_checkpoint(tmp_path / "quiet")  # what publishes nothing needs none
    quiet.learner.run(num_steps=1)


def test_a_learner_that_cannot_write_its_first_checkpoint_does_not_begin(make_bench, monkeypatch, tmp_path):
    def refuse(*arguments, **options):
        raise OSError("read-only file system")

    monkeypatch.setattr("orbax.checkpoint.CheckpointManager.save", refuse)
    publisher = Publisher(tmp_path / "store", "b", "n", ManualClock())
    with pytest.raises(CheckpointError, match=r"c/0 could not be written \(OSError: read-only file system\)"):
        make_bench(publisher=publisher, checkpoint_dir=tmp_path / "c")
    assert not has_checkpoint(tmp_path / "c")


def fail_writing(bench, monkeypatch, num_times):
    """The next saves of this learner fail while they are written in the background."""
    checkpointer, left = bench.learner._checkpoints._manager._checkpointer, iter(range(num_times))
    write = checkpointer._save_step_metadata

    def failing(*arguments, **options):
        if next(left, None) is not None:
            raise OSError("no space left on device")
        return write(*arguments, **options)

    monkeypatch.setattr(checkpointer, "_save_step_metadata", failing)


@pytest.mark.parametrize("in_background", [False, True])
def test_a_checkpoint_that_fails_is_reported_and_stops_neither_publications_nor_training(
    make_bench, monkeypatch, tmp_path, in_background
):
    config = dataclasses.replace(
        CONFIG, checkpoint_every=2, publish_every=1, publish_in_background=in_background, keep_checkpoints=9
    )
    publisher = Publisher(tmp_path / "store", "b", "n", ManualClock())
    bench = make_bench(config, publisher=publisher, checkpoint_dir=tmp_path / "c")
    fail_writing(bench, monkeypatch, 1)
    assert bench.learner.run().step == 6
    bench.learner.close()
    (failed,) = bench.events("checkpoint_failed")
    assert failed["step"] == 2
    assert "c/2 could not be written (OSError: no space left on device)" in failed["reason"]
    assert bench.events("publication_failed") == []
    assert bench.events("publication")[-1]["learner_step"] == 6
    assert bench.learner._checkpoints.all_steps() == [0, 4, 6]
    assert make_bench(checkpoint_dir=tmp_path / "c").learner.current_step == 6


def test_a_learner_whose_last_checkpoint_fails_says_so(make_bench, monkeypatch, tmp_path):
    bench = make_bench(checkpoint_dir=tmp_path / "c")
    fail_writing(bench, monkeypatch, 1)
    with pytest.raises(CheckpointError, match=r"c/2 could not be written \(OSError: no space") as raised:
        bench.learner.run(num_steps=2)
    assert isinstance(raised.value.__cause__, OSError)
    assert bench.learner.run(num_steps=2).num_steps == 0  # asked again, it saves again
    bench.learner.close()
    assert newest_checkpoint(tmp_path / "c") == 2


def test_closing_tells_of_a_failure_that_nobody_has_heard_of(make_bench, monkeypatch, tmp_path):
    bench = make_bench(dataclasses.replace(CONFIG, checkpoint_every=1), checkpoint_dir=tmp_path / "c")
    fail_writing(bench, monkeypatch, 1)
    bench.learner.step()
    with pytest.raises(CheckpointError, match="c/1 could not be written"):
        bench.learner.close()


@pytest.mark.parametrize("is_in_background", [False, True])
def test_several_checkpoints_that_fail_in_a_row_stop_the_training(make_bench, monkeypatch, tmp_path, is_in_background):
    config = dataclasses.replace(CONFIG, checkpoint_every=1, num_steps=20)
    bench = make_bench(config, checkpoint_dir=tmp_path / "c")
    bench.learner.run(num_steps=1)
    if is_in_background:
        fail_writing(bench, monkeypatch, 99)
    else:

        def refuse(*arguments, **options):
            raise OSError("read-only file system")

        monkeypatch.setattr(bench.learner._checkpoints._manager._checkpointer, "save", refuse)
    with pytest.raises(CheckpointError, match=r"c/4 could not be written"):
        bench.learner.run()
    assert [event["step"] for event in bench.events("checkpoint_failed")] == [2, 3, 4]
    bench.learner.close()
    assert newest_checkpoint(tmp_path / "c") == 1
