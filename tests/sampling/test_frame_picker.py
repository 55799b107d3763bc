import collections

import numpy as np
import pytest

from sop_jax.replay.items import encode_segment, label_all, segments_of
from sop_jax.replay.tables import MixConfig
from sop_jax.sampling.batch_source import BatchSourceStoppedError, BatchStarvedError, Draw
from sop_jax.sampling.frame_picker import FramePicker, PickerConfig
from sop_jax.specs.errors import ConfigError, RateLimitedError, ReplayUnavailableError
from sop_jax.specs.records import Source
from tests.sampling.conftest import PICKER, SEGMENT_LENGTH, TASKS, World, corrected, demonstration

ON, OFF = Draw(TASKS[0], Source.ONLINE), Draw(TASKS[0], Source.OFFLINE)
RNG = np.random.default_rng(0)


def make(world: World, **changes) -> FramePicker:
    return FramePicker(world.tables, TASKS, PickerConfig(**{**vars(PICKER), **changes}), world.clock)


class CountingTables:
    """Passes calls on and counts them; `refuse` maps a table to the error it raises."""

    def __init__(self, tables):
        self._tables = tables
        self.calls: collections.Counter[str] = collections.Counter()
        self.refuse: dict[str, Exception] = {}

    def sample(self, table, num, timeout_s=1.0):
        self.calls[table] += 1
        if table in self.refuse:
            raise self.refuse[table]
        return self._tables.sample(table, num, timeout_s)

    def __getattr__(self, name):
        return getattr(self._tables, name)


def test_all_frames_are_equally_likely_however_full_their_segments(world):
    lengths = (3, 15, 1, 12, 27)  # image frames 1, 5, 1, 4, 9: segments of 1, 2+3, 1, 4 and 3+3+3
    for seed, length in enumerate(lengths):
        world.add(demonstration(seed, num_frames=length))
    picker, num = make(world), 12_000
    counts: collections.Counter[tuple[str, int]] = collections.Counter()
    rng = np.random.default_rng(1)
    for batch in range(num // 100):
        counts.update((pick.item.episode_id, pick.item.frame) for pick in picker.pick([OFF] * 100, batch, rng))
    cells = sum(-(-length // 3) for length in lengths)
    assert len(counts) == cells == 20
    expected = num / cells
    chi_square = sum((count - expected) ** 2 / expected for count in counts.values())
    assert chi_square < 43.8  # 19 degrees of freedom, p = 0.001; picking segments evenly gives about 6000


def test_picks_keep_the_order_of_the_draws(world):
    world.fill()
    requested = [ON, OFF, Draw(TASKS[1], Source.ONLINE), OFF, ON]
    picks = make(world).pick(requested, 0, RNG)
    assert [pick.draw for pick in picks] == requested == [pick.requested for pick in picks]
    assert [(pick.item.task, pick.item.source) for pick in picks] == [(d.task, d.source) for d in requested]


def test_what_the_limiter_refuses_comes_from_the_offline_table_and_is_counted(store_url):
    world = World(store_url, MixConfig(online_samples_per_insert=2.0))
    world.add(demonstration(0), corrected(1))  # one online item: two samples
    picker = make(world, ahead=0.0, segment_length=16)
    world.tables.sample(f"{TASKS[0]}/online", 1)
    picks = []
    for batch in range(3):
        picks += picker.pick([ON] * 4, batch, RNG)
    assert 0 <= sum(pick.draw == ON for pick in picks) <= 1
    assert picker.num_fallbacks[TASKS[0]] == sum(pick.draw == OFF for pick in picks) >= 11
    assert all(pick.requested == ON for pick in picks)


def test_an_empty_online_table_is_not_asked_at_every_batch(world):
    world.add(demonstration(0))
    tables = CountingTables(world.tables)
    picker = FramePicker(tables, TASKS, PickerConfig(**{**vars(PICKER), "online_retry_s": 0.5}), world.clock)
    for batch in range(10):
        picker.pick([ON, OFF], batch, RNG)
    assert tables.calls[f"{TASKS[0]}/online"] == 1
    world.clock.advance_s(0.6)
    picker.pick([ON, OFF], 10, RNG)
    assert tables.calls[f"{TASKS[0]}/online"] == 2


def test_few_round_trips_and_no_old_picks(world):
    world.add(*(demonstration(seed) for seed in range(4)))
    tables = CountingTables(world.tables)
    picker = FramePicker(tables, TASKS, PickerConfig(**{**vars(PICKER), "ahead": 1.0}), world.clock)
    for batch in range(10):
        picker.pick([OFF] * 16, batch, RNG)
    assert tables.calls[f"{TASKS[0]}/offline"] <= 7
    (old,) = picker.pick([OFF], 10, RNG)  # leaves picks behind
    world.tables.reset(f"{TASKS[0]}/offline")
    with pytest.raises(BatchStarvedError):
        picker.pick([OFF], 12, RNG)
    assert old.draw == OFF


def test_an_offline_draw_waits_and_then_says_what_is_missing(world):
    world.add(corrected(0))
    with pytest.raises(
        BatchStarvedError, match=r"no data for \['restock_shelf'\] within 1.0 s \(restock_shelf/online: 1"
    ):
        make(world).pick([OFF], 0, RNG)
    assert world.clock.now_ns() >= 1e9


def test_online_draws_alone_need_no_demonstrations(world):
    world.add(corrected(0))
    assert len(make(world).pick([ON] * 5, 0, RNG)) == 5


def test_a_waiting_pick_can_be_stopped(world):
    with pytest.raises(BatchSourceStoppedError):
        make(world).pick([OFF], 0, RNG, should_stop=lambda: True)


def test_a_server_that_is_away_is_waited_for(world):
    world.add(demonstration(0))
    tables = CountingTables(world.tables)
    tables.refuse = {f"{TASKS[0]}/offline": ReplayUnavailableError("gone")}
    picker = FramePicker(tables, TASKS, PICKER, world.clock)

    def come_back() -> bool:
        if tables.calls[f"{TASKS[0]}/offline"] == 3:
            tables.refuse.clear()
        return False

    assert picker.pick([OFF], 0, RNG, come_back)[0].draw == OFF
    assert tables.calls[f"{TASKS[0]}/offline"] >= 4


def test_a_refusing_offline_table_ends_in_a_clear_error(world):
    tables = CountingTables(world.tables)
    tables.refuse = {f"{TASKS[0]}/offline": RateLimitedError("held back")}
    with pytest.raises(BatchStarvedError, match="offline: 0 items"):
        FramePicker(tables, TASKS, PICKER, world.clock).pick([OFF], 0, RNG)


def test_items_longer_than_segment_length_are_refused(world):
    episode = demonstration(0, num_frames=30)
    index = world.store.put(episode)
    labels = label_all(episode.manifest, episode.arrays)
    segments = segments_of(episode.manifest, index, episode.arrays, labels, SEGMENT_LENGTH + 1)
    world.tables.insert(f"{TASKS[0]}/offline", [encode_segment(segment) for segment in segments])
    with pytest.raises(ConfigError, match=r"holds 5 frames but PickerConfig\.segment_length is 4"):
        make(world).pick([OFF], 0, RNG)


def test_bad_configs_are_refused():
    with pytest.raises(ConfigError, match="segment_length and max_age_batches must be >= 1"):
        PickerConfig(segment_length=0)
    with pytest.raises(ConfigError, match="ahead must be finite and >= 0, got -1"):
        PickerConfig(ahead=-1.0)
