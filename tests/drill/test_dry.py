"""A deployment is looked at, and nothing in it changes."""

import dataclasses
import json
import pathlib
import re

import pytest

from sop_jax.actors.spool import Spool
from sop_jax.cli.main import main
from sop_jax.drill.dry import check_deployment
from sop_jax.drill.ledger import Ledger
from sop_jax.episodes import kvstore, retirement
from sop_jax.episodes.paths import episode_of_path
from sop_jax.episodes.retention import RetentionConfig, apply_plan, plan_for
from sop_jax.episodes.store import EpisodeStore
from sop_jax.episodes.synthetic import make_episode, make_spec
from sop_jax.replay.intake import Intake
from sop_jax.replay.items import label_all
from sop_jax.replay.local_tables import LocalTables
from sop_jax.replay.tables import mix_tables
from sop_jax.specs.clock import ManualClock
from sop_jax.specs.identifiers import number_of_episode
from sop_jax.specs.interfaces import Item

TASK, TABLE = "restock_shelf", "restock_shelf/online"
SPEC = make_spec(image_size=16, camera_names=("head",))


@pytest.fixture
def site(tmp_path):
    made = Site(tmp_path)
    yield made
    made.ledger.close()
    made.spool.close()


class Site:
    """A robot with a ledger, one without, a store and tables."""

    def __init__(self, root: pathlib.Path):
        self.root = root
        self.store = EpisodeStore(f"file://{root}/store/")
        self.spool = Spool(root / "spool", self.store, ManualClock(), background=False)
        self.ledger = Ledger(root / "ledger.jsonl", self.spool)
        self.tables = LocalTables(mix_tables([TASK]))
        for count in (1, 2):
            self.ledger.accept(make_episode(count, spec=SPEC))
        self.spool.upload_due()
        self.store.put(make_episode(1, spec=SPEC, robot_id="other"))
        self.intake = Intake(self.store, self.tables, label_all, clock=ManualClock(10**12))
        self.intake.poll()

    def check(self):
        return check_deployment(self.store, [self.root / "ledger.jsonl"], [self.root / "spool"], self.tables)

    def file(self, count: int) -> pathlib.Path:
        return self.root / "store" / self.store.list_paths("robot-0")[count - 1]


def test_a_sound_deployment(site):
    report = site.check()
    assert report.problems == ()
    assert (report.num_stored, report.num_accepted, report.num_waiting) == (3, 2, 0)
    assert report.num_items == 64


def test_what_still_waits_is_no_loss(site):
    site.ledger.accept(make_episode(3, spec=SPEC))
    report = site.check()
    assert (report.problems, report.num_accepted, report.num_waiting) == ((), 3, 1)


def test_a_lost_episode_and_the_items_that_point_to_it(site):
    site.file(2).unlink()
    first, second = site.check().problems
    assert first == "episode robot-0.00000000001000000000.000002 is missing"
    assert second.startswith(f"{TABLE}: an item points to episodes/robot-0/")


DAY_NS = 86_400 * 10**9
NOW_NS = 20_000 * DAY_NS
OLD, YOUNG = NOW_NS - 33 * DAY_NS, NOW_NS - 29 * DAY_NS


def test_what_retention_let_go_and_forgot_is_no_contradiction(tmp_path, capsys):
    """Only what is younger than the records' life must be there, or its record."""
    store, path = EpisodeStore(f"file://{tmp_path}/store/"), tmp_path / "ledger.jsonl"
    spool = Spool(tmp_path / "spool", store, ManualClock(OLD), background=False)
    ledger = Ledger(path, spool)
    for count, started_ns in ((1, OLD), (2, OLD), (3, YOUNG), (4, YOUNG)):
        ledger.accept(make_episode(count, spec=SPEC, started_ns=started_ns))
    ledger.close()
    assert spool.drain(1.0)
    spool.close()
    clock = ManualClock(OLD + 2 * 3600 * 10**9)
    retire, remove_and_forget = RetentionConfig(max_age_s=3600, grace_s=60), RetentionConfig(grace_s=60)
    for config, wait_s in ((retire, 60), (remove_and_forget, 31 * 86_400), (remove_and_forget, 0)):
        apply_plan(store, plan_for(store, clock, config))
        clock.advance_s(wait_s)
    assert [number_of_episode(episode_of_path(path)) for path in store.list_paths()] == [3, 4]
    assert retirement.retired_paths(store) == []
    clock = ManualClock(NOW_NS)
    report = check_deployment(store, [path], clock=clock)
    assert (report.problems, report.num_accepted, report.num_forgotten) == ((), 4, 2)
    lost = store.list_paths()[0]
    kvstore.remove(store.root, lost)
    report = check_deployment(store, [path], clock=clock)
    assert report.problems == (f"episode {episode_of_path(lost)} is missing",)
    assert report.num_forgotten == 2
    report = check_deployment(store, [path], clock=ManualClock(NOW_NS + 2 * DAY_NS))
    assert (report.problems, report.num_forgotten) == ((), 3)
    before = path.read_text()
    path.write_text(re.sub(r', "ended_ns": \d+', "", before))  # as ledgers were: the id tells when the actor began
    assert path.read_text() != before
    assert check_deployment(store, [path], clock=clock) == dataclasses.replace(
        report, problems=(f"episode {episode_of_path(lost)} is missing",), num_forgotten=2
    )
    assert main(["doctor", "--drill", "--store", f"{tmp_path}/store", "--ledgers", str(path)]) == 0
    assert ", 3 gone without a record, as old ones may be; 0 items" in " ".join(capsys.readouterr().out.split())


def test_an_episode_that_was_set_aside_is_accounted_for_but_its_items_must_go(site):
    site.store.quarantine(site.store.list_paths("robot-0")[0], "by hand")
    (problem,) = site.check().problems
    assert problem.endswith("000001, which is set aside")


def test_altered_bytes(site):
    data = bytearray(site.file(1).read_bytes())
    data[60] ^= 1
    site.file(1).write_bytes(data)
    assert "episode robot-0.00000000001000000000.000001 is altered" in site.check().problems


def test_items_where_they_do_not_belong(site):
    item = site.tables.sample(TABLE, 1)[0]
    site.tables.insert(f"{TASK}/offline", [Item(item.key + 1, item.columns)])
    problems = site.check().problems
    assert any("offline holds an item of restock_shelf/online" in problem for problem in problems)
    assert any("has a key that isn't its own" in problem for problem in problems)


def test_tables_that_nobody_fills(site):
    empty = LocalTables(mix_tables([TASK]))
    report = check_deployment(site.store, tables=empty)
    assert report.problems == (f"{TABLE} is empty, though the store holds 36 frames for it: is intake running?",)
    other = LocalTables(mix_tables(["laundry_fold"]))
    (problem,) = check_deployment(site.store, tables=other).problems
    assert "the replay server has no such table" in problem


def test_the_command_changes_nothing(site, capsys):
    before = snapshot(site.root)
    words = ["doctor", "--drill", "--store", f"{site.root}/store", "--ledgers", f"{site.root}/ledger.jsonl",
             "--spools", f"{site.root}/spool", "--json"]  # fmt: skip
    assert main(words) == 0
    found = json.loads(capsys.readouterr().out.strip().splitlines()[-1])
    assert (found["num_accepted"], found["problems"]) == (2, [])
    assert snapshot(site.root) == before
    site.file(1).unlink()
    assert main(words) == 1
    assert "WRONG  episode robot-0.00000000001000000000.000001 is missing" in capsys.readouterr().out
    assert main([*words, "--ledgers", f"{site.root}/nothing"]) == 2


def snapshot(root: pathlib.Path) -> dict[str, bytes]:
    return {str(path): path.read_bytes() for path in sorted(root.rglob("*")) if path.is_file()}
