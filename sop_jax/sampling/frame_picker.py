"""From planned draws to frames: asks the replay tables, and picks one frame inside each sampled segment."""

import collections
import dataclasses
import math
import threading
from collections.abc import Callable, Sequence
from typing import NamedTuple

import numpy as np

from sop_jax.replay.items import DEFAULT_SEGMENT_LENGTH, PackedSegment, SegmentFrame, draw_frame
from sop_jax.sampling.batch_source import BatchSourceStoppedError, BatchStarvedError, Draw
from sop_jax.specs.clock import Clock
from sop_jax.specs.errors import ConfigError, RateLimitedError, ReplayUnavailableError
from sop_jax.specs.identifiers import offline_table, online_table
from sop_jax.specs.interfaces import ReplayTables, SampledItem
from sop_jax.specs.records import Source

_POLL_S = 0.02
_MAX_ITEMS_PER_CALL = 1024


@dataclasses.dataclass(frozen=True)
class PickerConfig:
    """How frames are asked of the tables.

    segment_length: the most frames that an item holds; must be intake's value, for frames to be equally likely.
    ahead: picks fetched beyond the batch's need, as a multiple of it, so that not every batch needs a round trip.
    max_age_batches: picks fetched longer ago than this are thrown away, so that data don't get old on the way.
    table_timeout_s: how long one call may be held back by a table's rate limiter. 0 never waits (simulated time).
    online_retry_s: how long an online table that refused isn't asked again.
    starved_after_s: BatchStarvedError after waiting this long for a table that must answer.
    """

    segment_length: int = DEFAULT_SEGMENT_LENGTH
    ahead: float = 1.0
    max_age_batches: int = 2
    table_timeout_s: float = 0.02
    online_retry_s: float = 0.5
    starved_after_s: float = 120.0

    def __post_init__(self) -> None:
        if self.segment_length < 1 or self.max_age_batches < 1:
            raise ConfigError(
                "PickerConfig: segment_length and max_age_batches must be >= 1, got "
                f"{self.segment_length} and {self.max_age_batches}"
            )
        for name in ("ahead", "table_timeout_s", "online_retry_s", "starved_after_s"):
            if not (math.isfinite(getattr(self, name)) and getattr(self, name) >= 0):
                raise ConfigError(f"PickerConfig.{name} must be finite and >= 0, got {getattr(self, name)}")


class FramePick(NamedTuple):
    """One frame to train on. `requested` is what the sampler planned, `draw` what it got."""

    draw: Draw
    requested: Draw
    item: SegmentFrame


class _Reservoir:
    """Frames picked from one table, a little ahead of need. Every sampled item gives at most one frame, so picks are
    independent and throwing some away changes no probability."""

    def __init__(self, tables: ReplayTables, table: str, retry_s: float, config: PickerConfig, clock: Clock):
        self._tables = tables
        self._config = config
        self._clock = clock
        self._picked: collections.deque[tuple[int, PackedSegment, int]] = collections.deque()
        self._acceptance = 1.0  # share of sampled items that gave a frame
        self._asleep_until_ns = -1
        self._retry_s = retry_s
        self.table = table
        self.num_blocks = 0

    def take(self, num: int, batch: int, rng: np.random.Generator) -> list[SegmentFrame]:
        """Up to `num` frames: fewer if the table's limiter refuses or the server is away."""
        while self._picked and batch - self._picked[0][0] >= self._config.max_age_batches:
            self._picked.popleft()
        while len(self._picked) < num and self._clock.now_ns() >= self._asleep_until_ns:
            if not self._fetch(num - len(self._picked), batch, rng):
                self._asleep_until_ns = self._clock.now_ns() + round(self._retry_s * 1e9)
                break
        taken = [self._picked.popleft() for _ in range(min(num, len(self._picked)))]
        return [segment.frame(slot) for _, segment, slot in taken]

    def _fetch(self, num: int, batch: int, rng: np.random.Generator) -> bool:
        """One round trip; False if the table gave nothing."""
        num_items = min(math.ceil(num * (1 + self._config.ahead) / self._acceptance), _MAX_ITEMS_PER_CALL)
        try:
            items = self._tables.sample(self.table, num_items, self._config.table_timeout_s)
        except RateLimitedError:
            self.num_blocks += 1
            return False
        except ReplayUnavailableError:
            return False
        picked = [(batch, *pick) for item in items if (pick := self._pick_frame(item, rng)) is not None]
        self._picked.extend(picked)
        share = len(picked) / len(items)
        self._acceptance = max(0.9 * self._acceptance + 0.1 * share, 1 / self._config.segment_length)
        return True

    def _pick_frame(self, item: SampledItem, rng: np.random.Generator) -> tuple[PackedSegment, int] | None:
        segment = PackedSegment(item.columns)
        num_frames = segment.num_frames
        if num_frames > self._config.segment_length:
            raise ConfigError(
                f"table {self.table!r}: item {item.key} holds {num_frames} frames but PickerConfig.segment_length is "
                f"{self._config.segment_length}; set it to intake's segment_length, or frames aren't equally likely"
            )
        slot = draw_frame(num_frames, self._config.segment_length, rng.random())
        return None if slot is None else (segment, slot)


class FramePicker:
    """Picks a frame for every planned draw. Threads may share it: one that waits for a table holds up none that asks others.

    A draw that the online table can't serve is served by the offline one. A draw of the offline table waits for it: a
    learner that quietly trained on online data alone would forget. `num_fallbacks` counts per task.
    """

    def __init__(self, tables: ReplayTables, tasks: Sequence[str], config: PickerConfig, clock: Clock):
        self._tables = tables
        self._config = config
        self._clock = clock
        self._reservoirs = {
            Draw(task, source): _Reservoir(tables, name(task), retry_s, config, clock)
            for task in tasks
            for source, name, retry_s in (
                (Source.ONLINE, online_table, config.online_retry_s),
                (Source.OFFLINE, offline_table, 0.0),
            )
        }
        self.num_fallbacks = dict.fromkeys(tasks, 0)
        self._asking = threading.Lock()
        """Guards the reservoirs and the counts; free while a draw waits between two askings."""

    def pick(
        self,
        requested: Sequence[Draw],
        batch: int,
        rng: np.random.Generator,
        should_stop: Callable[[], bool] = lambda: False,
    ) -> list[FramePick]:
        """One frame per draw, in order. Blocks while a table that must answer is empty or away.

        Raises BatchStarvedError after `starved_after_s`, and BatchSourceStoppedError once `should_stop` says so.
        """
        picks: list[FramePick | None] = [None] * len(requested)  # of this call alone, so that several may wait at once
        self._fill(picks, requested, Source.ONLINE, batch, rng)
        deadline_ns = self._clock.now_ns() + round(self._config.starved_after_s * 1e9)
        while not self._fill(picks, requested, Source.OFFLINE, batch, rng):
            if should_stop():
                raise BatchSourceStoppedError("stopped while waiting for replay")
            if self._clock.now_ns() >= deadline_ns:
                raise BatchStarvedError(self._describe_starvation(picks, requested))
            self._clock.sleep_s(_POLL_S)
            self._fill(picks, requested, Source.ONLINE, batch, rng)
        filled = [pick for pick in picks if pick is not None]
        with self._asking:
            for pick in filled:
                self.num_fallbacks[pick.draw.task] += pick.draw != pick.requested
        return filled

    def num_blocks(self) -> dict[str, int]:
        """Table -> how often its limiter held a call back for the whole timeout (an empty table's does so too)."""
        return {reservoir.table: reservoir.num_blocks for reservoir in self._reservoirs.values()}

    def fall_back(self, draw: Draw) -> Draw:
        """The offline draw that stands in for an online one whose items turn out to be unusable; counted."""
        with self._asking:
            self.num_fallbacks[draw.task] += draw.source == Source.ONLINE
        return Draw(draw.task, Source.OFFLINE)

    def _fill(
        self,
        picks: list[FramePick | None],
        requested: Sequence[Draw],
        source: Source,
        batch: int,
        rng: np.random.Generator,
    ) -> bool:
        """Serves open places from the tables of `source`; the online ones serve only draws that asked for them. True if no
        place is open any more."""
        open_places: dict[str, list[int]] = {}
        for place, draw in enumerate(requested):
            if picks[place] is None and (source == Source.OFFLINE or draw.source == Source.ONLINE):
                open_places.setdefault(draw.task, []).append(place)
        for task, places in open_places.items():
            draw = Draw(task, source)
            with self._asking:
                taken = self._reservoirs[draw].take(len(places), batch, rng)
            for place, item in zip(places, taken, strict=False):
                picks[place] = FramePick(draw, requested[place], item)
        return all(pick is not None for pick in picks)

    def _describe_starvation(self, picks: Sequence[FramePick | None], requested: Sequence[Draw]) -> str:
        wanting = sorted({draw.task for pick, draw in zip(picks, requested, strict=True) if pick is None})
        try:
            info = self._tables.info(timeout_s=5.0)
            held = ", ".join(f"{name}: {info[name].size} items" for task in wanting
                             for name in (online_table(task), offline_table(task)) if name in info)  # fmt: skip
        except ReplayUnavailableError as error:
            held = f"replay doesn't answer: {error}"
        return (
            f"no data for {wanting} within {self._config.starved_after_s} s ({held}). Is intake running, and are there "
            "demonstrations of every task? To train on online data alone, use SamplerConfig(mode='fixed', "
            "fixed_online_share=1)."
        )
