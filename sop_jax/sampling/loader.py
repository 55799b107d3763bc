"""The loader: from replay tables and the episode store to batches, ahead of the learner.

sampler plans draws -> replay tables give segments -> one frame of each -> numbers and JPEGs from the store -> pixels -> batch
|------------------------------------------- one thread -----------------------------------------|  |- pool -|  |another|

While the pool decodes a batch of large images, the one before it is put together and the next is drawn and read: the cores
that decode never wait for either. Small images are decoded so fast that the threads would mostly pass Python's lock around
(figures in docs/sampling.md), so there one thread does all but the decoding.
"""

import concurrent.futures
import dataclasses
import threading
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
from jaxtyping import Float32

from sop_jax.algorithms.algorithm import Algorithm
from sop_jax.sampling.adaptive import AdaptiveSampler
from sop_jax.sampling.batch_builder import BatchBuilder
from sop_jax.sampling.batch_images import BatchImages
from sop_jax.sampling.batch_source import BatchSourceStoppedError, BatchStarvedError, Draw, LoadedBatch, never
from sop_jax.sampling.batch_spec import BatchSpec, Tokenize
from sop_jax.sampling.episode_cache import EpisodeCache, EpisodeNumbers, FaultLog, FrameReader
from sop_jax.sampling.frame_picker import FramePick, FramePicker, PickerConfig
from sop_jax.sampling.image_cache import ImageCache, PendingImages
from sop_jax.sampling.prefetch import Prefetcher
from sop_jax.sampling.report import LoaderReport, ReportWriter
from sop_jax.specs.clock import Clock
from sop_jax.specs.errors import ConfigError
from sop_jax.specs.interfaces import Metrics, ReplayTables

STATE_VERSION = 1
LARGE_IMAGE_PIXELS = 192 * 192
"""From here on, batches overlap."""
_NAP_S = 0.02
_ONLINE_ATTEMPTS = 3
"""After so many unusable items of an online table in a row, its draws are served by the offline one."""

_Example = tuple[FramePick, EpisodeNumbers]


@dataclasses.dataclass(frozen=True)
class _Fetch:
    """Rows of a batch on their way: examples whose images are being decoded. Those that can't be trained on are left out."""

    examples: dict[int, _Example]
    pending: PendingImages


@dataclasses.dataclass
class _Begun:
    """A batch on its way: the drawing thread makes it, the building one has it until it is whole, however often that starves.

    requested: what the sampler planned. open_draws: what the rows that wait ask for now. fetch: those rows on their way, None
    if they have to be drawn again. examples: the other rows.
    """

    requested: list[Draw]
    rng: np.random.Generator
    images: BatchImages
    open_draws: dict[int, Draw]
    fetch: _Fetch | None = None
    examples: dict[int, _Example] = dataclasses.field(default_factory=dict)
    num_attempts: int = 0


@dataclasses.dataclass(frozen=True)
class LoaderConfig:
    """Size and speed of the loading.

    batch_size: examples in a batch of this process.
    seed: order of everything that is random here; give each process of a multi-host learner its own.
    prefetch_batches: batches under way ahead of `next`, the ones being decoded included. Each one ahead delays the sampler's
        losses and fresh data by a step. 0 makes batches inside `next`, without a thread: for simulated time, and for
        reproducing a run exactly.
    num_threads: threads that read and decode.
    pixel_cache_bytes: bound of the cache of decoded frames; one of three 64-pixel cameras takes 37 KB.
    jpeg_cache_bytes: bound of a second cache behind it, of JPEGs, for stores that are slow or billed by the read; the
        operating system keeps the files of a local one by itself.
    arrays_cache_bytes: bound of the cache of episodes' numbers.
    report_every: batches between two reports to the metrics.
    """

    batch_size: int = 64
    seed: int = 0
    prefetch_batches: int = 3
    num_threads: int = 2
    pixel_cache_bytes: int = 512 << 20
    jpeg_cache_bytes: int = 0
    arrays_cache_bytes: int = 256 << 20
    report_every: int = 50
    picker: PickerConfig = dataclasses.field(default_factory=PickerConfig)

    def __post_init__(self) -> None:
        for name, least in (
            ("batch_size", 1),
            ("seed", 0),
            ("prefetch_batches", 0),
            ("num_threads", 1),
            ("pixel_cache_bytes", 0),
            ("jpeg_cache_bytes", 0),
            ("arrays_cache_bytes", 0),
            ("report_every", 1),
        ):
            if getattr(self, name) < least:
                raise ConfigError(f"LoaderConfig.{name} must be >= {least}, got {getattr(self, name)}")


class Loader:
    """Loads batches; the `BatchSource` of a real learner.

        loader = Loader(config, spec, model.tokenize, tables, store, sampler, algorithm, clock, metrics)
        loaded = loader.next()
        loader.record_losses(loaded.draws, per_example)
        loader.stop()

    An online table that its limiter holds back is served by the offline one, and counted. Items whose episode is gone, torn
    or doesn't fit the policy are passed over, counted and never trained on. Threads start with the first `next`.
    """

    def __init__(
        self,
        config: LoaderConfig,
        spec: BatchSpec,
        tokenize: Tokenize,
        tables: ReplayTables,
        store: FrameReader,
        sampler: AdaptiveSampler,
        algorithm: Algorithm,
        clock: Clock,
        metrics: Metrics,
    ):
        self.config = config
        self.sampler = sampler
        self._clock = clock
        self._pool = concurrent.futures.ThreadPoolExecutor(config.num_threads, thread_name_prefix="sampling")
        self._faults = FaultLog(clock)
        self._reading = threading.Lock()
        """Guards the episodes: a batch with broken images draws again, maybe from another thread."""
        self._picker = FramePicker(tables, sampler.tasks, config.picker, clock)
        self._episodes = EpisodeCache(
            store, algorithm, spec, tokenize, self._faults, self._pool, config.arrays_cache_bytes
        )
        self._images = ImageCache(
            store,
            self._faults,
            self._pool,
            config.num_threads,
            config.pixel_cache_bytes,
            config.jpeg_cache_bytes,
        )
        self._spec = spec
        self._builder = BatchBuilder(spec, tokenize, algorithm)
        self._reports = ReportWriter(sampler, metrics)
        self._begun: Prefetcher[_Begun] | None = None
        self._unfinished: _Begun | None = None
        self._loaded: Prefetcher[LoadedBatch] | None = None
        self._stopped = False
        self._num_consumed = 0
        self._first_next_ns: int | None = None
        self._last_return_ns = 0
        self._waited_ns = 0

    def start(self) -> None:
        """Starts loading ahead; `next` does it by itself."""
        if self._stopped:
            raise BatchSourceStoppedError("no further batch: the loader was stopped; make a new one")
        if self._loaded is None:
            ahead, first = self.config.prefetch_batches, self._num_consumed
            overlaps = ahead > 1 and any(c.height * c.width >= LARGE_IMAGE_PIXELS for c in self._spec.cameras)
            self._begun = Prefetcher(self._begin, int(overlaps), first, "loader-draws", BatchStarvedError)
            self._loaded = Prefetcher(self._finish, ahead - int(overlaps), first, "loader-builds", BatchStarvedError)

    def next(self, should_stop: Callable[[], bool] = never) -> LoadedBatch:
        """The next batch; blocks until it is there or `should_stop`. After BatchStarvedError it may be called again."""
        self.start()
        assert self._loaded is not None
        asked_ns = self._clock.now_ns()
        if self._first_next_ns is None:
            self._first_next_ns = asked_ns
        loaded = self._loaded.next(should_stop)
        self._last_return_ns = self._clock.now_ns()
        waited_ns = self._last_return_ns - asked_ns
        self._waited_ns += waited_ns
        self._num_consumed += 1
        self._reports.add(loaded)
        if self._num_consumed % self.config.report_every == 0:
            self._reports.write(self.report())
        return dataclasses.replace(loaded, wait_s=waited_ns / 1e9)

    def record_losses(self, draws: Sequence[Draw], per_example: Float32[np.ndarray, "B"]) -> None:
        """Tells the sampler the losses of one learner step."""
        self.sampler.record(draws, per_example)

    def wait_share(self) -> float:
        """Share of the time since the first `next` that was spent waiting in `next`, 0 to 1."""
        if self._first_next_ns is None or self._last_return_ns <= self._first_next_ns:
            return 0.0
        return self._waited_ns / (self._last_return_ns - self._first_next_ns)

    def online_share(self) -> float:
        """Share of the examples of all batches handed out that came from online tables. (Of the items that tables gave it is
        another one: short segments are passed over more often.)"""
        return self._reports.online_share()

    def report(self) -> LoaderReport:
        """What has happened so far."""
        return LoaderReport(
            num_batches=self._num_consumed,
            wait_share=self.wait_share(),
            num_fallbacks=dict(self._picker.num_fallbacks),
            num_blocks=self._picker.num_blocks(),
            num_ready=0 if self._loaded is None else self._loaded.num_ready,
            num_skipped=self._faults.num_skipped,
            last_fault=self._faults.last_reason,
            image_hit_share=self._images.hit_share,
        )

    def state_dict(self) -> dict[str, Any]:
        """The sampler's losses and the number of batches handed out; the batches made ahead will be made anew."""
        return {"version": STATE_VERSION, "num_consumed": self._num_consumed, "sampler": self.sampler.state_dict()}

    def load_state(self, state: Mapping[str, Any]) -> None:
        """Continues after the saved batch. Raises RuntimeError once loading has begun, and ConfigError if the state was saved
        with other tasks or another window, or by another version."""
        if self._loaded is not None:
            raise RuntimeError("load_state must be called before the first next(): batches were made already")
        if state.get("version") != STATE_VERSION:
            raise ConfigError(f"loader state: expected version {STATE_VERSION}, got {state.get('version')}")
        self.sampler.load_state(state["sampler"])
        self._num_consumed = int(state["num_consumed"])

    def stop(self) -> None:
        """Ends all threads. May be called twice, and from another thread than `next`."""
        self._stopped = True
        for stage in (self._begun, self._loaded):
            if stage is not None:
                stage.stop()
        self._pool.shutdown(wait=True, cancel_futures=True)

    def _begin(self, index: int, should_stop: Callable[[], bool]) -> _Begun:
        """Draws and reads batch `index`. What is random depends on (seed, index) alone, beside what the tables give."""
        rng = np.random.default_rng([self.config.seed, index])
        requested = self.sampler.plan(self.config.batch_size, rng)
        images = BatchImages.empty(self._spec, len(requested))
        begun = _Begun(requested, rng, images, dict(enumerate(requested)))
        begun.fetch = self._draw(begun, index, should_stop)
        return begun

    def _finish(self, index: int, should_stop: Callable[[], bool]) -> LoadedBatch:
        """Puts batch `index` together once its images are decoded, and draws again what turned out to be unusable."""
        assert self._begun is not None
        # What starved in here is kept: the one begun after it is batch `index` + 1, and a resume counts on the numbers.
        self._unfinished = begun = self._unfinished or self._begun.next(should_stop)
        deadline_ns = self._clock.now_ns() + round(self.config.picker.starved_after_s * 1e9)
        while True:
            fetch, begun.fetch = begun.fetch or self._draw(begun, index, should_stop), None
            num_asked = len(begun.open_draws)
            for row in self._images.finish(fetch.pending):
                begun.examples[row] = fetch.examples[row]
                del begun.open_draws[row]
            if not begun.open_draws:
                break
            begun.num_attempts += 1
            self._faults.skip(len(begun.open_draws))
            if self._clock.now_ns() >= deadline_ns:
                raise BatchStarvedError(
                    f"batch {index}: {len(begun.open_draws)} of {len(begun.requested)} examples couldn't be read for "
                    f"{self.config.picker.starved_after_s} s; the last reason: {self._faults.last_reason}"
                )
            if should_stop():
                raise BatchSourceStoppedError("stopped while reading episodes")
            if len(begun.open_draws) == num_asked:
                self._clock.sleep_s(_NAP_S)
            if begun.num_attempts >= _ONLINE_ATTEMPTS:
                begun.open_draws = {row: self._picker.fall_back(draw) for row, draw in begun.open_draws.items()}
        self._unfinished = None
        picks, numbers = zip(*(begun.examples[row] for row in range(len(begun.requested))), strict=True)
        return self._builder.build(picks, numbers, begun.images, begun.rng)

    def _draw(self, begun: _Begun, index: int, should_stop: Callable[[], bool]) -> _Fetch:
        """One frame for each row that is open."""
        picks = self._picker.pick(list(begun.open_draws.values()), index, begun.rng, should_stop)
        with self._reading:
            episodes = self._episodes.read({pick.item.path: pick.item.arrays_range for pick in picks})
            examples: dict[int, _Example] = {}
            for row, pick in zip(begun.open_draws, picks, strict=True):
                numbers = episodes.get(pick.item.path)
                if numbers is None:
                    continue
                if problem := _mismatch(pick, numbers):
                    self._faults.note(problem)
                else:
                    examples[row] = (pick._replace(requested=begun.requested[row]), numbers)
            return _Fetch(
                examples, self._images.start([(row, *example) for row, example in examples.items()], begun.images)
            )


def _mismatch(pick: FramePick, numbers: EpisodeNumbers) -> str:
    """Why an item and the episode behind it don't belong together, "" if they do."""
    manifest, item = numbers.manifest, pick.item
    if (manifest.episode_id, manifest.task, manifest.source) != (item.episode_id, item.task, item.source):
        return (
            f"{item.path} holds episode {manifest.episode_id} ({manifest.task}, {manifest.source}), its item says "
            f"{item.episode_id} ({item.task}, {item.source})"
        )
    if (item.task, item.source) != (pick.draw.task, pick.draw.source):
        return f"an item of {item.task}/{item.source} lies in the table of {pick.draw.task}/{pick.draw.source}"
    if not 0 <= item.frame < manifest.num_frames:
        return f"{item.path}: its item names frame {item.frame} of {manifest.num_frames}"
    if not numbers.teaches[item.frame]:
        return (
            f"{item.path}: nothing teaches at frame {item.frame}; intake labelled it with another algorithm or config"
        )
    return ""
