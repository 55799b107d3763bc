"""The tables that the contract tests use, small enough to reason about."""

from sop_jax.replay.tables import UNBOUNDED, RateLimiterConfig, Sampler, TableConfig

CONTRACT_TABLES = (
    TableConfig("uniform", 1000),
    TableConfig("small", 3),
    TableConfig("oldest", 10, sampler=Sampler.FIFO),
    TableConfig("once", 10, sampler=Sampler.FIFO, max_times_sampled=1),
    TableConfig("prioritized", 10, sampler=Sampler.PRIORITIZED, priority_exponent=2.0),
    TableConfig(
        "ratio", 10, rate_limiter=RateLimiterConfig(2, samples_per_insert=2.0, min_diff=0.0, max_diff=UNBOUNDED)
    ),
    TableConfig("two", 2, rate_limiter=RateLimiterConfig(2, samples_per_insert=2.0, min_diff=-1.0, max_diff=UNBOUNDED)),
    TableConfig("queue", 10, sampler=Sampler.FIFO, rate_limiter=RateLimiterConfig(1, 1.0, min_diff=0.0, max_diff=4.0)),
    TableConfig(
        "drill", 4, Sampler.FIFO, RateLimiterConfig(2, 1.5, min_diff=-1.0, max_diff=UNBOUNDED), max_times_sampled=3
    ),
    TableConfig("ours", 100),
    TableConfig("theirs", 100, sampler=Sampler.FIFO, max_times_sampled=1),
    TableConfig("relabel/online", 100),
    TableConfig("fake_task/online", 100_000),
    TableConfig("dump/online", 6, sampler=Sampler.FIFO, max_times_sampled=1),
)
