"""Which episodes intake takes when: late ones, those of odd clocks, and those that can't be read, beside all others."""

import pytest

from configs.experiment import ReplayConfig
from sop_jax.algorithms.hg_dagger import HgDaggerConfig
from sop_jax.algorithms.registry import create_algorithm
from sop_jax.cli.assembly import fill_local_tables
from sop_jax.evaluation.world import WorldConfig
from sop_jax.replay.intake import IntakeConfig
from sop_jax.replay.intake_log import IntakeReport
from sop_jax.replay.items import decode_segment
from sop_jax.replay.local_tables import LocalTables
from sop_jax.replay.tables import TableConfig
from sop_jax.specs.clock import ManualClock
from sop_jax.specs.metrics import MemoryMetrics
from sop_jax.specs.records import Source
from tests.replay.intake_parts import DUMP, OFFLINE, ONLINE, TASK, episode, make_intake

SMALL = (TableConfig(ONLINE, 4), TableConfig(OFFLINE, 4))
"""Room for two episodes of two items."""
S = 1_000_000_000


@pytest.mark.parametrize("started_ns", [10 * S, 0])
def test_a_late_episode_goes_into_a_full_table(store, started_ns):
    """Its robot was cut off, or its clock knows no date."""
    tables, metrics = LocalTables(SMALL), MemoryMetrics()
    intake = make_intake(store, tables, metrics=metrics)
    for seed in (1, 2):
        store.put(episode(seed, started_ns=(20 + seed) * S))
    assert intake.poll() == IntakeReport(inserted=2, num_items=4)
    store.put(episode(3, started_ns=started_ns, robot_id="robot-9", takeovers=((3, 3, 6),)))
    assert intake.poll() == IntakeReport(inserted=1, num_items=2)
    assert tables.info()[ONLINE].num_inserted == 6
    # A new intake beside the full table leaves out what the table let go, and says so.
    assert make_intake(store, tables).poll() == IntakeReport(inserted=2, num_items=4, pushed_out=1)


def test_an_episode_dated_in_the_future_keeps_nobody_out(store):
    """It counts as one that ended when it came."""
    clock, tables = ManualClock(start_ns=50 * S), LocalTables(SMALL)
    intake = make_intake(store, tables, clock=clock)
    for seed in (1, 2):
        store.put(episode(seed, started_ns=10_000 * S, robot_id="robot-9"))
    assert intake.poll().inserted == 2
    clock.sleep_s(10.0)
    for seed in (1, 2):
        store.put(episode(seed, started_ns=55 * S))
    tables.restart()
    clock.sleep_s(10.0)
    assert intake.poll() == IntakeReport(inserted=2, num_items=4, pushed_out=2, rebuilt=True)
    assert {decode_segment(item.columns).episode_id.split(".")[0] for item in tables.sample(ONLINE, 20)} == {"robot-0"}


def test_episodes_that_cannot_be_read_keep_no_others_waiting(store):
    stuck = [store.put(episode(seed)).path for seed in range(5)]
    store.failing = set(stuck)
    store.put(episode(7))
    intake = make_intake(store, LocalTables(DUMP), config=IntakeConfig(segment_length=2, episodes_per_look=2))
    looks = [intake.look() for _ in range(3)]
    assert [look.goes_on for look in looks] == [True, True, False]  # each was tried once
    assert (looks[-1].inserted, looks[-1].unreadable, looks[-1].backlog) == (1, 5, 0)
    tried = store.num_full_reads
    assert intake.look().unreadable == 5
    assert store.num_full_reads - tried == 2
    store.failing = {stuck[0]}
    for _ in range(3):  # those that failed least come first, so each has its turn
        intake.look()
    assert intake.total.inserted == 1 + 4


def test_a_learners_own_tables_do_not_set_aside_what_others_train_on(store):
    store.put(episode(1))
    store.put(episode(2, task="box_assembly", source=Source.OFFLINE))
    learner = fill_local_tables(
        ReplayConfig(),
        [WorldConfig(task=TASK)],
        create_algorithm(HgDaggerConfig()),
        10,
        store,
        0,
        ManualClock(),
        MemoryMetrics(),
    )
    assert set(learner.info()) == {ONLINE, OFFLINE}
    assert store.quarantined() == {}
