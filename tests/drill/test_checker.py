"""The oracle finds what it must: each kind of loss, doubling and torn sample, made by hand."""

import json

import pytest

from sop_jax.actors.spool import Spool
from sop_jax.drill.checker import expected_keys, judge_samples, judge_table, locate
from sop_jax.drill.drill import TABLE, Audit, Verdict, summarise
from sop_jax.drill.ledger import Ledger, read_ledgers
from sop_jax.drill.place import TASK, Place
from sop_jax.drill.stations import SEGMENT_LENGTH
from sop_jax.drill.yard import Injected
from sop_jax.episodes.store import EpisodeStore
from sop_jax.episodes.synthetic import make_episode, make_spec
from sop_jax.replay.intake import Intake, IntakeConfig
from sop_jax.replay.items import label_all
from sop_jax.replay.local_tables import LocalTables
from sop_jax.specs.clock import ManualClock
from sop_jax.specs.interfaces import Item

SPEC = make_spec(image_size=16, camera_names=("head",))
NAMES = {count: f"robot-0.00000000001000000000.{count:06d}" for count in range(10)}


def episode(count: int):
    return make_episode(count, num_frames=15, spec=SPEC, task=TASK)  # 5 frames with images: 2 items


@pytest.fixture
def loop(tmp_path):
    """Three episodes all the way round: accepted, stored, in the table."""
    made = Loop(tmp_path)
    yield made
    made.ledger.close()
    made.spool.close()


class Loop:
    def __init__(self, root):
        self.place = Place(root)
        self.store = EpisodeStore(self.place.store_url)
        self.spool = Spool(self.place.spool("robot-0"), self.store, ManualClock(), background=False)
        self.ledger = Ledger(self.place.ledger("robot-0"), self.spool)
        self.tables = LocalTables([TABLE])
        self.intake = Intake(self.store, self.tables, label_all, IntakeConfig(SEGMENT_LENGTH), ManualClock(10**12))
        self.injected = Injected()
        for count in (1, 2, 3):
            self.ledger.accept(episode(count))
        self.spool.upload_due()
        self.intake.poll()
        self.place.idle("robot-0").touch()

    def file(self, count: int):
        return self.place.object(f"episodes/robot-0/{NAMES[count]}.zip")

    def audit(self, spool_bytes: int = 2**30) -> Audit:
        return Audit(self.place, ["robot-0"], self.injected, self.tables, spool_bytes)

    def problems(self) -> tuple[str, ...]:
        return self.audit().judge().problems


def test_a_loop_without_loss(loop):
    assert loop.audit().unsettled() == []
    found = loop.audit().judge()
    assert found.problems == ()
    assert (found.num_announced, found.num_accepted, found.num_stored, found.num_items) == (3, 3, 3, 6)


def test_an_accepted_episode_that_is_nowhere(loop):
    loop.file(2).unlink()
    assert f"episode {NAMES[2]} is missing" in loop.problems()


def test_an_episode_that_waits_is_not_lost_but_not_settled(loop):
    loop.ledger.accept(episode(4))
    assert loop.audit().unsettled() == ["1 episodes wait in spools"]
    assert loop.problems() == ()


def test_an_episode_that_was_given_up_is_accounted_for(loop):
    loop.ledger.accept(episode(4))
    waiting = loop.place.spool("robot-0") / f"{NAMES[4]}.zip"
    waiting.rename(waiting.with_name(waiting.name + ".given_up"))
    num_bytes = [entry.num_bytes for entry in read_ledgers(loop.place.ledgers()).values()]
    found = loop.audit(spool_bytes=sum(num_bytes) - 1).judge()
    assert (found.problems, found.num_given_up) == ((), 1)
    (needless,) = loop.audit(spool_bytes=sum(num_bytes)).judge().problems
    assert needless == f"episode {NAMES[4]} was given up, though its spool had room and its disk wasn't full"
    loop.injected.full_disks.add("robot-1")
    assert loop.problems() == (needless,)
    loop.injected.full_disks.add("robot-0")
    assert loop.problems() == ()


def test_other_bytes_and_unknown_episodes(loop):
    data = bytearray(loop.file(1).read_bytes())
    data[99] ^= 1
    loop.file(1).write_bytes(data)
    loop.store.put(episode(9))
    problems = loop.problems()
    assert f"episode {NAMES[1]} is altered" in problems
    assert f"episode {NAMES[9]} is unknown to every ledger" in problems


def test_what_the_drill_removed_itself_is_not_held_against_the_loop(loop):
    loop.file(2).unlink()
    loop.injected.vanished.add(f"episodes/robot-0/{NAMES[2]}.zip")
    assert loop.problems() == ()
    assert loop.audit().unsettled() == []


def test_a_robot_that_may_still_hand_something_over_is_waited_for(loop):
    loop.place.idle("robot-0").unlink()
    assert loop.audit().unsettled() == ["robot-0 is still at work"]


def test_damaged_objects_must_be_set_aside(loop):
    path = f"episodes/robot-0/{NAMES[8]}.zip"
    loop.place.object(path).write_bytes(b"torn")
    loop.injected.damaged.add(path)
    assert loop.audit().unsettled() == ["1 damaged objects are not set aside"]
    loop.intake.poll()
    assert loop.audit().unsettled() == []
    assert loop.problems() == ()


def test_missing_and_surplus_items(loop):
    keys = sorted(expected_keys(read_ledgers(loop.place.ledgers()).values(), SEGMENT_LENGTH))
    (item,) = [item for item in loop.tables.sample(TABLE.name, 50) if item.key == keys[0]][:1]
    loop.tables.update_priorities(TABLE.name, {}, delete=[keys[0]])
    assert loop.audit().unsettled() == ["1 items are not in the table"]
    (short, missing) = loop.problems()
    assert short == "the table holds 5 items, 6 must be there"
    assert missing.startswith("an item of episode robot-0.")
    for key in (keys[0], 77):  # the second is the same frames once more, under another key
        loop.tables.insert(TABLE.name, [Item(key, item.columns)])
    assert "the table holds 7 items, 6 at most have a place in it" in loop.problems()


def test_an_item_in_no_place_is_told():
    must = {1: "a", 2: "b"}
    assert judge_table({1: "a", 2: "b"}, 2, must, must, complete=True) == []
    assert judge_table({1: "a", 2: "a"}, 2, must, must, complete=False) == [
        "item 2 of episode a has no place in the table"
    ]
    assert judge_table({1: "a", 3: "c"}, 3, must, {**must, 3: "c"}, complete=False) == []


def test_samples():
    may = {1: "a", 2: "b"}

    def line(key, episode_id, result="good"):
        return {"key": key, "episode_id": episode_id, "result": result}

    assert judge_samples([line(1, "a"), line(2, "b", "gone")], may, gone=["b"]) == []
    (torn,) = judge_samples([line(1, "a", "torn: half a JPEG")] * 2, may, gone=[])
    assert torn == "the learner sampled a: torn: half a JPEG (2 times)"
    (gone,) = judge_samples([line(2, "b", "gone")], may, gone=["a"])
    assert "its object was not there" in gone
    (unknown,) = judge_samples([line(3, "c")], may, gone=[])
    assert "which no robot announced" in unknown


def test_what_the_learner_and_the_clocks_say_counts(loop):
    loop.place.samples.write_text(json.dumps({"key": 1, "episode_id": "x", "result": "good"}) + "\n{cut off")
    loop.place.overdue.write_text(
        json.dumps({"station": "learner", "call": "sample", "took_s": 99.0, "allowed_s": 5.2})
    )
    sampled, overdue = loop.problems()
    assert "which no robot announced" in sampled
    assert overdue == "learner: sample took 99.0 s, 5.2 s were allowed"


def test_quarantined_episodes_of_a_deployment_are_accounted_for(loop):
    entries = read_ledgers(loop.place.ledgers())
    path = f"episodes/robot-0/{NAMES[1]}.zip"
    loop.file(1).write_bytes(b"broken on the store's disk")
    where = locate(entries, loop.store, [loop.place.spool("robot-0")], damaged=[path], set_aside=[path])
    assert where.violations() == []


def test_schedules_add_up():
    def verdict(seed, faults, problems=()):
        return Verdict(seed, faults, 4, 3, 3, 0, 6, 10, 2.0, tuple(problems))

    report = summarise([verdict(1, {"kill_actor": 2}), verdict(2, {"kill_actor": 1, "link_cut": 1}, ["lost"])])
    assert (report.num_schedules, report.num_faults, report.num_accepted, report.num_samples) == (2, 4, 6, 20)
    assert report.by_fault == {"kill_actor": (3, 2, 1), "link_cut": (1, 1, 1)}
    assert report.problems == {"seed 2": ("lost",)}
    assert not report.ok
