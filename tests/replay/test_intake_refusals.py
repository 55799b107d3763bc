"""What intake doesn't take: set aside with its reason, or left to others, while the rest goes on."""

import dataclasses
import random
import struct

import numpy as np
import pytest

from sop_jax.algorithms.algorithm import make_labeler
from sop_jax.algorithms.recap.recap import Recap
from sop_jax.episodes.format import pack
from sop_jax.episodes.paths import quarantine_path
from sop_jax.episodes.repair import Kind, Repair, find_problems, take_back
from sop_jax.episodes.synthetic import make_spec
from sop_jax.episodes.verify import verify_bytes
from sop_jax.replay import episode_reader
from sop_jax.replay.intake_log import IntakeReport
from sop_jax.replay.items import label_all
from sop_jax.replay.local_tables import LocalTables
from sop_jax.replay.tables import TableConfig
from sop_jax.specs.errors import ConfigError, InvalidEpisodeError, UnlabelledEpisodeError
from sop_jax.specs.metrics import MemoryMetrics
from sop_jax.specs.records import Outcome
from tests.algorithms.value_cases import value_function
from tests.replay.intake_parts import (
    DUMP,
    ONLINE,
    TASK,
    drain,
    episode,
    make_intake,
)


def test_an_episode_that_the_labeler_cant_judge_is_set_aside_and_the_rest_goes_on(store):
    strange, good = store.put(episode(1)).path, store.put(episode(2)).path

    def labeler(manifest, arrays, images):
        if manifest.episode_id.endswith("1"):
            raise ValueError("the batch's state has 7 dimensions, the normalisation statistics 16")
        return label_all(manifest, arrays, images)

    tables = LocalTables(DUMP)
    intake = make_intake(store, tables, labeler)
    assert intake.poll() == IntakeReport(inserted=1, num_items=2, quarantined=1)
    assert {segment.path for segment in drain(tables, ONLINE)} == {good}
    assert "can't be labelled: the batch's state has 7 dimensions" in store.quarantined()[strange]


def test_a_verification_that_fails_itself_sets_aside_and_goes_on(store, monkeypatch):
    strange, good = store.put(episode(1)).path, store.put(episode(2)).path

    def verify(data, path, **options):
        if path == strange:
            raise struct.error("ushort format requires 0 <= number <= 65535")
        return verify_bytes(data, path, **options)

    monkeypatch.setattr(episode_reader, "verify_bytes", verify)
    assert make_intake(store, LocalTables(DUMP)).poll() == IntakeReport(inserted=1, num_items=2, quarantined=1)
    assert "its verification failed (error: ushort" in store.quarantined()[strange]
    assert good not in store.quarantined()


def test_an_object_that_breaks_after_it_was_verified_is_set_aside(store):
    index = store.put(episode(1))
    tables = LocalTables(DUMP)
    intake = make_intake(store, tables)
    assert intake.poll() == IntakeReport(inserted=1, num_items=2)
    store.root.write(index.path, store.read_bytes(index.path)[:-50]).result()
    tables.restart()
    assert intake.poll().quarantined == 1
    assert index.path in store.quarantined()
    assert intake.poll() == IntakeReport()


@pytest.mark.parametrize("outcome", [Outcome.ERROR, Outcome.ABORTED])
def test_broken_runs_are_kept_but_never_trained_on(store, outcome):
    path = store.put(episode(1, outcome=outcome)).path
    tables, metrics = LocalTables(DUMP), MemoryMetrics()
    intake = make_intake(store, tables, metrics=metrics)
    assert intake.poll() == IntakeReport(untrainable=1)
    assert tables.info()[ONLINE].size == 0
    assert store.list_paths() == [path]
    assert store.quarantined() == {}
    assert [e["intake"] for e in metrics.events if e["event"] == "episode"] == ["untrainable"]
    assert intake.poll() == IntakeReport()


def test_invalid_episodes_are_set_aside_and_the_rest_goes_on(store, tmp_path):
    paths = [store.put(episode(seed)).path for seed in (1, 2, 3)]
    torn = tmp_path / "store" / paths[1]
    torn.write_bytes(torn.read_bytes()[:-40])
    tables, metrics = LocalTables(DUMP), MemoryMetrics()
    intake = make_intake(store, tables, metrics=metrics)
    assert intake.poll() == IntakeReport(inserted=2, num_items=4, quarantined=1)
    assert list(store.quarantined()) == [paths[1]]
    assert paths[1] in store.quarantined()[paths[1]]
    assert [e["path"] for e in metrics.events if e["event"] == "quarantine"] == [paths[1]]
    assert intake.poll() == IntakeReport()
    assert make_intake(store, LocalTables(DUMP)).poll() == IntakeReport(inserted=2, num_items=4)  # another process


def test_a_task_without_a_table_is_told_once_and_left_to_others(store):
    store.put(episode(1, task="restock_shelve"))
    metrics = MemoryMetrics()
    intake = make_intake(store, LocalTables(DUMP), metrics=metrics)
    assert intake.poll() == IntakeReport(foreign=1)
    assert intake.poll() == IntakeReport()
    (event,) = [e for e in metrics.events if e["event"] == "foreign_episode"]
    assert "unknown task" in event["reason"]
    assert f"Did you mean '{ONLINE}'" in event["reason"]
    assert [e["intake"] for e in metrics.events if e["event"] == "episode"] == ["foreign"]
    assert store.quarantined() == {}
    wider = tuple(TableConfig(f"restock_shelve/{source}", 10) for source in ("online", "offline"))
    assert make_intake(store, LocalTables((*DUMP, *wider))).poll() == IntakeReport(inserted=1, num_items=2)


def test_where_the_store_is_its_own_a_task_without_a_table_is_set_aside(store):
    right, wrong = store.put(episode(1)).path, store.put(episode(2, task="restock_shelve")).path
    metrics = MemoryMetrics()
    intake = make_intake(store, LocalTables(DUMP), metrics=metrics, owns_store=True)
    assert intake.poll() == IntakeReport(inserted=1, num_items=2, quarantined=1)
    assert intake.poll() == IntakeReport()
    reason = f"wrong task: 'restock_shelve' is none of this store's ({TASK}). Did the robot mean '{TASK}'?"
    assert store.quarantined() == {wrong: reason}
    assert [(e["path"], e["reason"]) for e in metrics.events if e["event"] == "quarantine"] == [(wrong, reason)]
    assert store.list_paths() == [right, wrong]  # nothing is removed
    wider = tuple(TableConfig(f"restock_shelve/{source}", 10) for source in ("online", "offline"))
    two_tasks = make_intake(store, LocalTables((*DUMP, *wider)), owns_store=True)
    assert two_tasks.poll().inserted == 1
    findings = list(find_problems(store, tasks=(TASK, "restock_shelve")))
    assert [(finding.path, finding.kind, finding.set_aside) for finding in findings] == [(wrong, Kind.RIGHT_TASK, True)]
    assert take_back(store, findings) == [Repair(wrong, "restored")]
    assert two_tasks.poll() == IntakeReport(inserted=1, num_items=2)


def test_a_labeler_may_refuse_an_episode(store):
    path = store.put(episode(1)).path

    def labeler(manifest, arrays, images):
        raise InvalidEpisodeError("too odd to learn from")

    assert make_intake(store, LocalTables(DUMP), labeler).poll().quarantined == 1
    assert store.quarantined() == {path: "too odd to learn from"}


def test_another_robot_type_is_set_aside(store):
    path = store.put(episode(1)).path
    intake = make_intake(store, LocalTables(DUMP), spec=make_spec(image_size=32, camera_names=("head",)))
    assert intake.poll().quarantined == 1
    assert "is not a synthetic" in store.quarantined()[path]


def test_a_quarantine_that_cannot_be_written_is_tried_again(store, tmp_path):
    path = store.put(episode(1)).path
    (tmp_path / "store" / path).write_bytes(b"nothing of the kind")
    store.failing = {"quarantine"}
    intake = make_intake(store, LocalTables(DUMP))
    assert intake.poll() == IntakeReport(unreadable=1)
    store.failing = set()
    assert intake.poll() == IntakeReport(quarantined=1)


def test_garbage_never_stops_intake(store, tmp_path):
    good = store.put(episode(0)).path
    data = (tmp_path / "store" / good).read_bytes()
    rng = random.Random(0)
    for seed in range(1, 12):
        garbled = bytearray(data)
        for _ in range(seed):
            garbled[rng.randrange(len(garbled))] = rng.randrange(256)
        path = tmp_path / "store" / good.replace(".000000.zip", f".{seed:06d}.zip")
        path.write_bytes(bytes(garbled[: rng.randrange(len(garbled))] if seed % 3 == 0 else garbled))
    report = make_intake(store, LocalTables(DUMP)).poll()
    assert (report.inserted, report.quarantined) == (1, 11)
    assert pack(store.read(good)) == data


def test_an_episode_that_was_restored_is_tried_again_by_the_same_intake(store, tmp_path):
    path = store.put(episode(1)).path
    file = tmp_path / "store" / path
    whole = file.read_bytes()
    file.write_bytes(whole[:-1])
    intake = make_intake(store, LocalTables(DUMP))
    assert intake.poll() == IntakeReport(quarantined=1)
    assert intake.poll() == IntakeReport()
    file.write_bytes(whole)
    (tmp_path / "store" / quarantine_path(path)).unlink()
    assert intake.poll() == IntakeReport(inserted=1, num_items=2)


def test_an_episode_that_only_this_labeler_cant_read_waits_for_another(store):
    """It isn't set aside, for others may read it, and isn't read again and again either."""
    paths = [store.put(episode(seed)).path for seed in (1, 2)]
    asked = []

    def labeler(manifest, arrays, images):
        asked.append(manifest.episode_id)
        if manifest.episode_id.endswith("1"):
            raise UnlabelledEpisodeError("13 tokens, the model takes at most 12")
        return label_all(manifest, arrays, images)

    tables, metrics = LocalTables(DUMP), MemoryMetrics()
    intake = make_intake(store, tables, labeler, metrics=metrics)
    assert intake.poll() == IntakeReport(inserted=1, num_items=2, empty=1)
    assert intake.poll() == IntakeReport()
    assert (len(asked), store.quarantined()) == (2, {})
    (event,) = [e for e in metrics.events if e["event"] == "unlabelled_episode"]
    assert (event["path"], event["reason"]) == (paths[0], "13 tokens, the model takes at most 12")
    intake.relabel(label_all)
    assert intake.poll().relabelled == 2
    assert tables.info()[ONLINE].size == 4
    intake.relabel(labeler)  # items that it can't label leave: they would carry another labeler's labels
    assert intake.poll().relabelled == 2
    assert {s.path for s in drain(tables, ONLINE)} == {paths[1]}


def test_an_episode_that_recap_cant_read_is_sound_for_others(store):
    """No frame with images; an instruction that is too long for the value function."""
    blind = episode(1)
    blind = dataclasses.replace(
        blind, arrays=dataclasses.replace(blind.arrays, image_frames=np.zeros(0, np.int32)), jpegs=()
    )
    long = episode(2)
    long = dataclasses.replace(long, manifest=dataclasses.replace(long.manifest, instruction=" ".join(["cup"] * 13)))
    for each in (blind, long):
        store.put(each)
    recap = Recap()
    recap.__dict__["value_function"] = value_function()
    intake = make_intake(store, LocalTables(DUMP), make_labeler(recap, 3))
    assert intake.poll() == IntakeReport(empty=2)
    assert store.quarantined() == {}


def test_a_task_that_the_labeler_does_not_know_stops_no_other(store):
    paths = [store.put(episode(seed)).path for seed in (1, 2)]

    def labeler(manifest, arrays, images):
        if manifest.episode_id.endswith("1"):
            raise ConfigError("the value function knows no such task")
        return label_all(manifest, arrays, images)

    tables, metrics = LocalTables(DUMP), MemoryMetrics()
    assert make_intake(store, tables, labeler, metrics=metrics).poll() == IntakeReport(
        inserted=1, num_items=2, unreadable=1
    )
    assert {s.path for s in drain(tables, ONLINE)} == {paths[1]}
    assert store.quarantined() == {}
    (event,) = [e for e in metrics.events if e["event"] == "unreadable_episode"]
    assert (event["path"], event["reason"]) == (
        paths[0], "can't be labelled here: the value function knows no such task",
    )  # fmt: skip
