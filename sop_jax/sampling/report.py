"""What the loader tells the metrics: how the mix came out, and what was waited for, refused and passed over."""

import collections
import dataclasses
import math
from collections.abc import Mapping

from sop_jax.sampling.adaptive import AdaptiveSampler
from sop_jax.sampling.batch_source import LoadedBatch
from sop_jax.specs.interfaces import Metrics
from sop_jax.specs.records import Source


@dataclasses.dataclass(frozen=True)
class LoaderReport:
    """Counts since the loader was made.

    num_fallbacks: task -> examples asked from the online table and served by the offline one.
    num_blocks: table -> calls that its limiter held back until they gave up.
    num_ready: batches that wait for the learner now.
    num_skipped: picks whose episode or frame couldn't be used; `last_fault` says why the last one couldn't.
    image_hit_share: share of frames that a cache held.
    """

    num_batches: int
    wait_share: float
    num_fallbacks: Mapping[str, int]
    num_blocks: Mapping[str, int]
    num_ready: int
    num_skipped: int
    last_fault: str
    image_hit_share: float


class ReportWriter:
    """Writes one "loader" event, one "limiter" event per table and one "sampler" event per task.

    Belongs to the consumer's thread.
    """

    def __init__(self, sampler: AdaptiveSampler, metrics: Metrics):
        self._sampler = sampler
        self._metrics = metrics
        self._num_given: collections.Counter[tuple[str, Source]] = collections.Counter()
        self._num_examples: collections.Counter[Source] = collections.Counter()

    def add(self, loaded: LoadedBatch) -> None:
        """Counts a batch that was handed out."""
        self._num_given.update((draw.task, draw.source) for draw in loaded.draws)
        self._num_examples.update(draw.source for draw in loaded.draws)

    def online_share(self) -> float:
        """Of all examples that were handed out; 0 before the first."""
        return self._num_examples[Source.ONLINE] / max(1, self._num_examples.total())

    def write(self, report: LoaderReport) -> None:
        """Shares are of the examples since the last report; counts are totals."""
        self._metrics.write(
            "loader",
            batches=report.num_batches,
            wait_share=report.wait_share,
            fallbacks=sum(report.num_fallbacks.values()),
            num_ready=report.num_ready,
            skipped=report.num_skipped,
            last_fault=report.last_fault,
            image_hit_share=report.image_hit_share,
        )
        for table, num_blocks in report.num_blocks.items():
            self._metrics.write("limiter", table=table, num_blocks=num_blocks)
        for task in self._sampler.tasks:
            num_online = self._num_given[task, Source.ONLINE]
            num = num_online + self._num_given[task, Source.OFFLINE]
            losses = {
                f"mean_loss_{source}": loss
                for source in (Source.ONLINE, Source.OFFLINE)
                if not math.isnan(loss := self._sampler.mean_loss(task, source))
            }
            self._metrics.write(
                "sampler",
                task=task,
                examples=num,
                online_share_asked=self._sampler.online_share(task),
                online_share_given=num_online / num if num else 0.0,
                fallbacks=report.num_fallbacks[task],
                **losses,
            )
        self._num_given.clear()
