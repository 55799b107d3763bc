"""Other labels for the items in the tables: each item's new, none lost, none doubled, in the old order."""

import dataclasses
import pathlib
import threading
from collections import Counter

import numpy as np
import pytest
from contract_tables import CONTRACT_TABLES

from sop_jax.episodes.store import EpisodeStore
from sop_jax.episodes.synthetic import make_episode, make_spec
from sop_jax.replay.intake import Intake, IntakeConfig
from sop_jax.replay.intake_log import IntakeReport
from sop_jax.replay.items import FrameLabels, decode_segment
from sop_jax.replay.labels_record import MIXED, RECORD, read_labels
from sop_jax.replay.local_tables import LocalTables
from sop_jax.specs.clock import ManualClock
from sop_jax.specs.errors import InvalidEpisodeError, RateLimitedError, ReplayUnavailableError
from sop_jax.specs.records import Outcome, Segment

# Tasks so named that their online tables are two of the contract's: `relabel/online` uniform, `dump/online` oldest first.
UNIFORM, OLDEST = "relabel", "dump"
SPEC = make_spec(image_size=16, camera_names=("head",))
CONFIG = IntakeConfig(segment_length=2, num_readers=2)


def labeler_of(label: float, trainable=lambda frame: True):
    def labeler(manifest, arrays, images):
        del images
        frames = range(arrays.num_frames)
        return FrameLabels(
            np.array([trainable(frame) for frame in frames]), np.full(arrays.num_frames, label, np.float32)
        )

    return labeler


def put(store: EpisodeStore, seed: int, task: str = UNIFORM, **options) -> str:
    """9 frames, images on 0, 3, 6: two items. Started a second after the one before."""
    episode = make_episode(seed, num_frames=9, image_stride=3, spec=SPEC, task=task, started_ns=seed * 10**9, **options)
    return store.put(episode).path


def make_intake(store: EpisodeStore, tables, labeler) -> Intake:
    return Intake(store, tables, labeler, CONFIG, ManualClock(start_ns=50_000_000_000))


@pytest.fixture
def store(store_url: str) -> EpisodeStore:
    return EpisodeStore(store_url)


def everything(tables, task: str = UNIFORM) -> list[Segment]:
    """All distinct items of a uniform table, by sampling until the table's size has been seen."""
    size = tables.info()[f"{task}/online"].size
    found: dict[int, Segment] = {}
    while len(found) < size:
        for sampled in tables.sample(f"{task}/online", 4 * size):
            found[sampled.key] = decode_segment(sampled.columns)
    return list(found.values())


def frames_of(segments: list[Segment]) -> list[tuple[str, int]]:
    return sorted((s.episode_id, frame) for s in segments for frame in s.frames.tolist())


def test_every_item_has_the_new_label_none_lost_none_doubled(store, tables):
    for seed in range(1, 8):
        put(store, seed)
    put(store, 9, outcome=Outcome.ERROR)
    intake = make_intake(store, tables, labeler_of(1.0))
    assert intake.poll() == IntakeReport(inserted=7, num_items=14, untrainable=1)
    before = everything(tables)
    assert {label for s in before for label in s.label.tolist()} == {1.0}
    intake.relabel(labeler_of(-1.0))
    put(store, 10)
    assert intake.poll() == IntakeReport(relabelled=7, inserted=1, num_items=2)
    after = everything(tables)
    assert {label for s in after for label in s.label.tolist()} == {-1.0}
    assert frames_of([s for s in after if not s.episode_id.endswith("000010")]) == frames_of(before)
    assert len(after) == tables.info()[f"{UNIFORM}/online"].size == 16
    assert intake.poll() == IntakeReport()


def test_frames_that_no_longer_teach_leave_and_others_come(store, tables):
    put(store, 1)
    intake = make_intake(store, tables, labeler_of(1.0, trainable=lambda frame: frame < 4))
    intake.poll()
    assert [frame for _, frame in frames_of(everything(tables))] == [0, 3]
    intake.relabel(labeler_of(2.0, trainable=lambda frame: frame > 2))
    intake.poll()
    assert [frame for _, frame in frames_of(everything(tables))] == [3, 6]
    intake.relabel(labeler_of(3.0, trainable=lambda frame: False))
    assert intake.poll() == IntakeReport(relabelled=1)
    assert tables.info()[f"{UNIFORM}/online"].size == 0
    intake.relabel(labeler_of(4.0))
    intake.poll()
    assert [frame for _, frame in frames_of(everything(tables))] == [0, 3, 6]


def test_the_oldest_still_make_room_first(store, tables):
    for seed in range(1, 6):
        put(store, seed, OLDEST)  # the table holds 6 items: episodes 3, 4, 5
    intake = make_intake(store, tables, labeler_of(1.0))
    intake.poll()
    intake.relabel(labeler_of(2.0))
    assert intake.poll() == IntakeReport(relabelled=5)
    assert tables.info()[f"{OLDEST}/online"].num_inserted == 6 + 6  # what finds no room is never inserted
    put(store, 6, OLDEST)
    intake.poll()
    found = [decode_segment(item.columns) for item in tables.sample(f"{OLDEST}/online", 6)]
    assert [(s.episode_id[-1], s.frames.tolist(), s.label[0]) for s in found] == [
        ("4", [0, 3], 2.0), ("4", [6], 2.0), ("5", [0, 3], 2.0), ("5", [6], 2.0), ("6", [0, 3], 2.0), ("6", [6], 2.0),
    ]  # fmt: skip


def test_a_learner_samples_on_meanwhile(store, tables):
    for seed in range(1, 31):
        put(store, seed)
    intake = make_intake(store, tables, labeler_of(1.0))
    intake.poll()
    wanted = frames_of(everything(tables))
    stop, seen, problems = threading.Event(), Counter[float](), []

    def sample() -> None:
        while not stop.is_set():
            try:
                for item in tables.sample(f"{UNIFORM}/online", 8, timeout_s=1.0):
                    seen[float(decode_segment(item.columns).label[0])] += 1
            except RateLimitedError as error:
                problems.append(error)

    learner = threading.Thread(target=sample)
    learner.start()
    while not seen:
        stop.wait(0.01)
    intake.relabel(labeler_of(2.0))
    intake.poll()
    old = seen[1.0]
    while not seen[2.0]:
        stop.wait(0.01)
    stop.set()
    learner.join()
    assert not problems
    assert old > 0
    assert frames_of(everything(tables)) == wanted
    assert {label for s in everything(tables) for label in s.label.tolist()} == {2.0}


class Breaking(LocalTables):
    """Refuses inserts while `broken`, and deletions while `keeps`."""

    broken = False
    keeps = False

    def update_priorities(self, table, priorities, delete=(), timeout_s=30.0):
        if self.keeps:
            raise ReplayUnavailableError("away")
        super().update_priorities(table, priorities, delete, timeout_s)

    def insert(self, table, items, timeout_s=30.0):
        if self.broken:
            raise ReplayUnavailableError("away")
        super().insert(table, items, timeout_s)


def test_a_look_that_breaks_off_after_deleting_loses_nothing(store):
    tables = Breaking(CONTRACT_TABLES)
    for seed in (1, 2):
        put(store, seed)
    intake = make_intake(store, tables, labeler_of(1.0))
    intake.poll()
    intake.relabel(labeler_of(2.0))
    tables.broken = True
    assert intake.poll().pending == 2
    assert tables.info()[f"{UNIFORM}/online"].size == 2  # the first episode's items are away
    tables.broken = False
    assert intake.poll() == IntakeReport(relabelled=2)
    assert {label for s in everything(tables) for label in s.label.tolist()} == {2.0}
    assert len(everything(tables)) == 4


def test_tables_that_lost_everything_are_filled_with_the_new_labels(store):
    tables = LocalTables(CONTRACT_TABLES)
    put(store, 1)
    intake = make_intake(store, tables, labeler_of(1.0))
    intake.poll()
    intake.relabel(labeler_of(2.0))
    tables.restart()
    assert intake.poll() == IntakeReport(inserted=1, num_items=2, rebuilt=True)
    assert {s.label[0] for s in everything(tables)} == {2.0}


def test_an_episode_that_the_new_labeler_refuses_leaves_the_table(store, tables):
    path = put(store, 1)
    put(store, 2)
    intake = make_intake(store, tables, labeler_of(1.0))
    intake.poll()

    def refusing(manifest, arrays, images):
        if manifest.episode_id.endswith("1"):
            raise InvalidEpisodeError("no sense in it")
        return labeler_of(2.0)(manifest, arrays, images)

    intake.relabel(refusing)
    assert intake.poll().quarantined == 1
    assert store.quarantined() == {path: "no sense in it"}
    assert [s.episode_id[-1] for s in everything(tables)] == ["2", "2"]


def test_labelers_see_the_images_and_a_store_that_fails_is_asked_again(store, tables, store_url):
    path = put(store, 1)
    folder = pathlib.Path(store_url.removeprefix("file://")) / path
    seen = []

    def looking(manifest, arrays, images):
        try:
            if not seen:
                folder.rename(folder.with_suffix(".away"))
            seen.append(images.read([0, 2])["head"])
        finally:
            if not seen:
                folder.with_suffix(".away").rename(folder)
                seen.append(None)
        return labeler_of(1.0)(manifest, arrays, images)

    intake = make_intake(store, tables, looking)
    assert intake.poll() == IntakeReport(unreadable=1)
    assert intake.poll() == IntakeReport(inserted=1, num_items=2)
    assert seen[1].shape == (2, 16, 16, 3)
    assert seen[1].std() > 1
    assert store.quarantined() == {}


def test_an_episode_that_is_refused_while_the_tables_are_away_leaves_later(store):
    tables = Breaking(CONTRACT_TABLES)
    put(store, 1)
    intake = make_intake(store, tables, labeler_of(1.0))
    intake.poll()

    def refusing(manifest, arrays, images):
        raise InvalidEpisodeError("no sense in it")

    intake.relabel(refusing)
    tables.keeps = True
    assert intake.poll() == IntakeReport(quarantined=1)
    assert tables.info()[f"{UNIFORM}/online"].size == 2
    tables.keeps = False
    assert intake.poll() == IntakeReport(removed=1)
    assert tables.info()[f"{UNIFORM}/online"].size == 0


def test_an_intake_replaces_what_another_labeler_left_in_the_tables(store, tables):
    for seed in (1, 2, 3):
        put(store, seed)

    def intake_of(labeler, labels_of):
        config = dataclasses.replace(CONFIG, episodes_per_look=2)
        return Intake(store, tables, labeler, config, ManualClock(start_ns=50_000_000_000), labels_of=labels_of)

    first = intake_of(labeler_of(1.0), "first")
    first.poll()
    put(store, 4)
    # Other frames train, so segments begin elsewhere: without a look at what is there, frames 3 and 6 would be in it twice.
    second = intake_of(labeler_of(2.0, trainable=lambda frame: frame > 2), "second")
    report = second.poll()
    assert (report.relabelled, report.backlog) == (4, 0)
    found = everything(tables)
    assert {label for s in found for label in s.label.tolist()} == {2.0}
    assert [frame for _, frame in frames_of(found)] == [3, 6] * 4
    assert len({episode_id for episode_id, _ in frames_of(found)}) == 4
    # The same labels are left alone.
    num_inserted = tables.info()[f"{UNIFORM}/online"].num_inserted
    assert intake_of(labeler_of(2.0, trainable=lambda frame: frame > 2), "second").poll().relabelled == 0
    assert tables.info()[f"{UNIFORM}/online"].num_inserted == num_inserted


def test_labels_that_an_intake_was_killed_in_the_middle_of_are_replaced_by_the_next(store):
    tables = Breaking(CONTRACT_TABLES)
    for seed in (1, 2, 3):
        put(store, seed)

    def intake_of(label, labels_of):
        return Intake(store, tables, labeler_of(label), CONFIG, ManualClock(10**12), labels_of=labels_of)

    first = intake_of(1.0, "first")
    first.poll()
    assert read_labels(store).labels_of == "first"
    first.relabel(labeler_of(2.0), "second")
    tables.broken = True
    assert first.poll().pending == 3
    assert read_labels(store).labels_of == MIXED
    tables.broken = False
    again = intake_of(1.0, "first")  # the config was put back meanwhile: nobody knows which items have which labels
    assert again.poll().relabelled == 3
    assert {s.label[0] for s in everything(tables)} == {1.0}
    assert read_labels(store).labels_of == "first"
    store.root.write(RECORD, b"{").result()
    assert intake_of(1.0, "first").poll().relabelled == 0  # a record that says nothing is no reason
    assert read_labels(store).labels_of == "first"
    tables.restart()
    assert intake_of(2.0, "second").poll().inserted == 3  # another server: the record says nothing about it
