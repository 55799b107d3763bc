"""What a replay table is: its size, its sampler and its rate limiter; and the tables that make the online/offline mix.

The limiter follows Reverb's. With `inserts`, `samples` and `deletes` counted since the table was made or reset:

    may sample `n`:  inserts - deletes >= min_size   and   inserts * samples_per_insert - samples - n >= min_diff
    may insert `n`:  inserts + n - deletes <= min_size   or   (inserts + n) * samples_per_insert - samples <= max_diff

Deletions (by the remover, by `max_times_sampled`, by hand) count for the size only, never for the ratio.
"""

import dataclasses
import enum
import json
import math
import sys
from collections.abc import Mapping, Sequence

from sop_jax.specs.errors import ConfigError
from sop_jax.specs.identifiers import check_name, offline_table, online_table

UNBOUNDED = sys.float_info.max
"""A `max_diff` that never holds back an insert; its negative is a `min_diff` that never holds back a sample."""


class Sampler(enum.StrEnum):
    """How a table picks the next item: UNIFORM; FIFO (the oldest); PRIORITIZED (probability ~ priority ** exponent)."""

    UNIFORM = "uniform"
    FIFO = "fifo"
    PRIORITIZED = "prioritized"


@dataclasses.dataclass(frozen=True)
class RateLimiterConfig:
    """When a table holds back samples or inserts (formulas at the top of this module).

    min_size: items a table must hold before it gives any; at least 1.
    samples_per_insert: how often an item is sampled, on average, over the table's life.
    min_diff, max_diff: bounds of `inserts * samples_per_insert - samples`; unbounded by default.
    """

    min_size: int = 1
    samples_per_insert: float = 1.0
    min_diff: float = -UNBOUNDED
    max_diff: float = UNBOUNDED

    def __post_init__(self) -> None:
        if self.min_size < 1:
            raise ConfigError(f"RateLimiterConfig.min_size must be at least 1, got {self.min_size}")
        if not (math.isfinite(self.samples_per_insert) and self.samples_per_insert > 0):
            raise ConfigError(
                f"RateLimiterConfig.samples_per_insert must be finite and positive, got {self.samples_per_insert}"
            )
        if not (math.isfinite(self.min_diff) and math.isfinite(self.max_diff)):
            raise ConfigError(
                f"RateLimiterConfig bounds must be finite (use tables.UNBOUNDED), got {self.min_diff}, {self.max_diff}"
            )
        if self.max_diff - self.min_diff < 2 * max(1.0, self.samples_per_insert):
            raise ConfigError(
                f"RateLimiterConfig [{self.min_diff}, {self.max_diff}] is narrower than 2 * max(1, samples_per_insert): "
                "it could hold back samples and inserts for ever. Widen it."
            )
        if self.min_diff > self.samples_per_insert * self.min_size:
            raise ConfigError(
                f"RateLimiterConfig.min_diff {self.min_diff} lies above samples_per_insert * min_size = "
                f"{self.samples_per_insert * self.min_size}: no sample would ever be allowed. Lower min_diff."
            )

    def may_sample(self, inserts: int, samples: int, deletes: int, num: int = 1) -> bool:
        """Whether `num` more samples are allowed after these counts."""
        if inserts - deletes < self.min_size:
            return False
        return inserts * self.samples_per_insert - samples - num >= self.min_diff

    def may_insert(self, inserts: int, samples: int, deletes: int, num: int = 1) -> bool:
        """Whether `num` more inserts are allowed after these counts."""
        if inserts + num - deletes <= self.min_size:
            return True
        return (inserts + num) * self.samples_per_insert - samples <= self.max_diff


@dataclasses.dataclass(frozen=True)
class TableConfig:
    """One replay table. The remover is always first in, first out.

    max_size: items held; one more pushes the oldest out.
    max_times_sampled: an item leaves after this many samples; 0 = never.
    priority_exponent: for the prioritized sampler only.
    """

    name: str
    max_size: int
    sampler: Sampler = Sampler.UNIFORM
    rate_limiter: RateLimiterConfig = RateLimiterConfig()
    max_times_sampled: int = 0
    priority_exponent: float = 1.0

    def __post_init__(self) -> None:
        if not self.name:
            raise ConfigError("TableConfig.name must not be empty")
        if not isinstance(self.sampler, Sampler):
            raise ConfigError(f"table {self.name!r}: sampler must be one of {list(Sampler)}, got {self.sampler!r}")
        if self.max_size < 1:
            raise ConfigError(f"table {self.name!r}: max_size must be at least 1, got {self.max_size}")
        if self.rate_limiter.min_size > self.max_size:
            raise ConfigError(
                f"table {self.name!r}: min_size {self.rate_limiter.min_size} exceeds max_size {self.max_size}: it could "
                "never be sampled"
            )
        if self.max_times_sampled < 0:
            raise ConfigError(f"table {self.name!r}: max_times_sampled must be >= 0, got {self.max_times_sampled}")
        if not (math.isfinite(self.priority_exponent) and self.priority_exponent >= 0):
            raise ConfigError(
                f"table {self.name!r}: priority_exponent must be finite and >= 0, got {self.priority_exponent}"
            )


@dataclasses.dataclass(frozen=True)
class MixConfig:
    """Sizes and limits of each task's online and offline table; counts are items (segments of frames).

    online_samples_per_insert: how often an online item may be sampled for each one that arrived. The limiter holds back
        sampling once the learner outruns fresh data, and never an insert.
    online_burst: samples allowed beyond that ratio, so that a learner may start before the ratio is reached.
    """

    online_max_size: int = 50_000
    online_min_size: int = 1
    online_samples_per_insert: float = 512.0
    online_burst: float = 0.0
    offline_max_size: int = 500_000
    offline_min_size: int = 1

    def __post_init__(self) -> None:
        if not (math.isfinite(self.online_burst) and self.online_burst >= 0):
            raise ConfigError(f"MixConfig.online_burst must be finite and >= 0, got {self.online_burst}")


def mix_tables(tasks: Sequence[str], config: MixConfig | None = None) -> tuple[TableConfig, ...]:
    """`<task>/online` and `<task>/offline` for every task, in order.

    Online: uniform sampler, oldest out, a limiter on sampling only. Offline: uniform, oldest out, a minimum size.
    """
    config = config or MixConfig()
    if not tasks:
        raise ConfigError("mix_tables needs at least one task, got none")
    if len(set(tasks)) != len(tasks):
        raise ConfigError(f"mix_tables: tasks repeat: {list(tasks)}")
    online = RateLimiterConfig(
        min_size=config.online_min_size,
        samples_per_insert=config.online_samples_per_insert,
        min_diff=-config.online_burst,
        max_diff=UNBOUNDED,
    )
    offline = RateLimiterConfig(min_size=config.offline_min_size)
    tables = []
    for task in tasks:
        check_name("task", task)
        tables.append(TableConfig(online_table(task), config.online_max_size, rate_limiter=online))
        tables.append(TableConfig(offline_table(task), config.offline_max_size, rate_limiter=offline))
    return tuple(tables)


def tables_to_json(configs: Sequence[TableConfig]) -> str:
    """The form in which the server script reads its tables."""
    return json.dumps([dataclasses.asdict(config) for config in configs])


def index_by_name(configs: Sequence[TableConfig]) -> Mapping[str, TableConfig]:
    """Configs by table name. Raises ConfigError if two share a name or there are none."""
    if not configs:
        raise ConfigError("replay needs at least one table, got none")
    by_name = {config.name: config for config in configs}
    if len(by_name) != len(configs):
        raise ConfigError(f"replay tables share a name: {[config.name for config in configs]}")
    return by_name
