"""What every `BatchSource` must do: the fake one and the real one, with and without a thread."""

import dataclasses
import json

import numpy as np
import pytest

from sop_jax.sampling.batch_source import BatchSource
from sop_jax.sampling.fake import SyntheticBatches
from tests.sampling.conftest import INLINE, SPEC, TASKS, tokenize


@pytest.fixture(params=["fake", "inline", "threaded"])
def make_source(request, world):
    world.fill()
    made: list[BatchSource] = []

    def make() -> BatchSource:
        if request.param == "fake":
            source = SyntheticBatches(SPEC, tokenize, TASKS, INLINE.batch_size)
        else:
            source = world.loader(
                dataclasses.replace(INLINE, prefetch_batches=0 if request.param == "inline" else 2, num_threads=1)
            )
        made.append(source)
        return source

    yield make
    for source in made:
        source.stop()


def test_every_field_has_one_entry_per_example(make_source):
    source = make_source()
    assert isinstance(source, BatchSource)
    loaded = source.next()
    num = INLINE.batch_size
    assert len(loaded.draws) == len(loaded.requested) == len(loaded.episode_ids) == num
    assert loaded.frames.shape == loaded.policy_versions.shape == loaded.ended_ns.shape == (num,)
    batch = loaded.batch
    assert batch.actions.shape == (num, SPEC.horizon, SPEC.action_dim)
    assert batch.observation.state.shape == (num, SPEC.state_dim)
    assert set(batch.observation.images) == set(batch.observation.image_mask) == {c.name for c in SPEC.cameras}
    assert batch.action_mask.any(axis=1).all()
    assert (batch.weight > 0).all()
    assert np.isfinite(batch.actions).all()


def test_losses_are_taken_and_the_state_is_json(make_source):
    source = make_source()
    for _ in range(3):
        loaded = source.next()
        source.record_losses(loaded.draws, np.ones(len(loaded.draws), np.float32))
    assert 0 <= source.wait_share() <= 1
    state = json.loads(json.dumps(source.state_dict(), allow_nan=False))
    resumed = make_source()
    resumed.load_state(state)
    assert resumed.next().requested == source.next().requested


def test_stop_may_be_called_twice_and_before_the_first_batch(make_source):
    source = make_source()
    source.stop()
    source.stop()


def test_the_fake_depends_on_seed_and_step_only():
    first, second = (SyntheticBatches(SPEC, tokenize, TASKS, 4, seed=5) for _ in range(2))
    first.next()
    second.load_state(first.state_dict())
    one, other = first.next().batch, second.next().batch
    np.testing.assert_array_equal(one.observation.images["head"], other.observation.images["head"])
    np.testing.assert_array_equal(one.actions, other.actions)
    different = SyntheticBatches(SPEC, tokenize, TASKS, 4, seed=6).next().batch
    assert not np.array_equal(one.actions, different.actions)
