import pytest
from tiny_weights import BASE, NORM

from sop_jax.specs.clock import ManualClock
from sop_jax.weights.publisher import Publisher, RetentionConfig


@pytest.fixture
def clock() -> ManualClock:
    return ManualClock(start_ns=1_000)


@pytest.fixture
def publisher(store_url, clock) -> Publisher:
    return Publisher(store_url, BASE, NORM, clock, RetentionConfig(keep_last=3, grace_s=10.0, clean_every=1))
