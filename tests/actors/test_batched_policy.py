"""One policy for many robots: equal to serving each alone, and nobody in anybody's way."""

import asyncio
import concurrent.futures
import contextlib
import dataclasses
import gc
import threading

import jax
import numpy as np
import pytest
from actor_parts import TinyModel, make_runner, make_shared

from sop_jax.actors.actor import Actor, ActorConfig
from sop_jax.actors.batched_policy import BatchedPolicy, BatchingConfig, BatchingStats
from sop_jax.actors.policy_runner import PolicyRunner
from sop_jax.actors.request_queue import PolicyClosedError
from sop_jax.actors.rollout import RolloutConfig
from sop_jax.models.bundle import PolicyBundle
from sop_jax.models.compact import CompactConfig
from sop_jax.models.normalization import identity_norm_stats
from sop_jax.models.policy import abstract_params
from sop_jax.models.registry import create_model
from sop_jax.robots.fake import FakeRobot, FakeRobotConfig
from sop_jax.specs.clock import ManualClock, WallClock
from sop_jax.specs.errors import ConfigError, InferenceTimeoutError
from sop_jax.specs.interfaces import ActionSource


def observe(seed):
    robot = FakeRobot()
    robot.reset(seed)
    return robot.observe()


def trained(value):
    leaves = TinyModel().init_params(None)["head"]
    return {"head": {name: np.full(leaf.shape, value, np.float32) for name, leaf in leaves.items()}}


def infer_together(seats, requests):
    """Each seat's chunk, asked for on a thread of its own, inside an episode each: so they wait for each other."""
    with contextlib.ExitStack() as stack, concurrent.futures.ThreadPoolExecutor(len(seats)) as pool:
        for seat in seats:
            stack.enter_context(seat.episode())
        futures = [pool.submit(seat.infer, *request) for seat, request in zip(seats, requests, strict=True)]
        return [future.result(30) for future in futures]


@pytest.fixture(scope="module")
def patient():
    """Waits for all robots that can ask, for as long as that takes."""
    with make_shared(window_s=30.0, deadline_s=60.0) as shared:
        shared.take_seat().warm_up(FakeRobot().spec)
        yield shared


def test_each_robot_gets_what_it_would_get_alone(patient):
    runner = make_runner()
    requests = [(observe(seed), 100 + seed) for seed in range(3)]
    alone = [runner.infer(*request) for request in requests]
    before = patient.stats
    for order in ([0, 1, 2], [2, 0, 1], [1, 0]):
        seats = [patient.take_seat() for _ in order]
        assert all(isinstance(seat, ActionSource) for seat in seats)
        for number, chunk in zip(order, infer_together(seats, [requests[number] for number in order]), strict=True):
            np.testing.assert_allclose(chunk, alone[number], atol=1e-6)
        for seat in seats:
            seat.close()
    # Three batches; the last one had a row to spare.
    assert patient.stats == BatchingStats(before.num_requests + 8, before.num_batches + 3, before.num_padded_rows + 1)
    assert patient.num_compilations == 2


def test_the_compact_policy_in_a_batch():
    config = CompactConfig(
        ("head",), 16, patch_width=8, patch_features=4, camera_features=4, head_width=16, horizon=4, num_steps=2
    )
    rng = np.random.default_rng(0)
    shapes = abstract_params(create_model(config))
    params = jax.tree.map(lambda leaf: rng.normal(0, 0.1, leaf.shape).astype(leaf.dtype), shapes)
    bundle = PolicyBundle(config, params, identity_norm_stats(16, 16, 4))
    alone = PolicyRunner.from_bundle(bundle)
    requests = [(dataclasses.replace(observe(seed), instruction=f"go to {seed}"), seed) for seed in range(3)]
    with BatchedPolicy.from_bundle(bundle, WallClock(), config=BatchingConfig((4,), 30.0, 60.0)) as shared:
        chunks = infer_together([shared.take_seat() for _ in requests], requests)
        assert shared.stats == BatchingStats(3, 1, 1)
    for request, chunk in zip(requests, chunks, strict=True):
        np.testing.assert_allclose(chunk, alone.infer(*request), rtol=1e-4, atol=1e-5)
    assert np.abs(chunks[0] - chunks[1]).max() > 1e-3


def test_robots_may_act_with_different_versions(patient):
    old, new, other = (patient.take_seat() for _ in range(3))
    first = old.version
    new.swap(trained(2.0), first + 1)
    assert patient.loaded_versions == (first, first + 1)
    loaded = patient._versions[first + 1]
    assert loaded["frozen"]["offset"] is patient._versions[first]["frozen"]["offset"]
    other.swap(trained(2.0), first + 1)
    assert patient._versions[first + 1] is loaded  # Brought by the other robot already.
    batches = patient.stats.num_batches
    chunks = infer_together([old, new, other], [(observe(3), 7)] * 3)
    np.testing.assert_allclose(chunks[1], chunks[2], atol=1e-6)
    assert np.abs(chunks[0] - chunks[1]).max() > 0.5
    assert patient.stats.num_batches == batches + 2
    old.close()
    new.swap(trained(3.0), first + 2)
    other.swap(trained(3.0), first + 2)
    assert patient.loaded_versions == (first + 2,)
    new.close()
    other.close()
    assert patient.take_seat().version == first + 2  # The newest is kept for who comes next.
    assert patient.num_compilations == 2


def test_a_seat_that_was_forgotten_holds_no_version(patient):
    keeper, forgotten = patient.take_seat(), patient.take_seat()
    stale = forgotten.version
    keeper.swap(trained(1.0), stale + 1)
    assert stale in patient.loaded_versions
    del forgotten
    gc.collect()
    keeper.swap(trained(1.0), stale + 2)
    assert patient.loaded_versions == (stale + 2,)
    keeper.close()


def test_a_robot_that_never_asks_holds_nobody_up_for_longer_than_the_window():
    clock = ManualClock()
    with make_shared(clock=clock, window_s=1.0, deadline_s=60.0) as shared:
        dead, alive = shared.take_seat(), shared.take_seat()
        with dead.episode(), alive.episode():
            future = alive.submit(observe(1), 5)
            assert not concurrent.futures.wait([future], timeout=0.05).done
            clock.advance_s(1.0)
            assert future.result(30).shape == (8, 16)


class Blocked:
    """Puts a gate before a shared policy's device."""

    def __init__(self, shared):
        self.started, self.gate = threading.Event(), threading.Event()
        self._sampler = shared._sampler
        shared._sampler = self

    def __getattr__(self, name):
        return getattr(self._sampler, name)

    def sample(self, *arguments):
        self.started.set()
        assert self.gate.wait(30)
        return self._sampler.sample(*arguments)


def test_a_device_that_hangs_costs_a_request_its_deadline_and_no_more():
    clock = ManualClock()
    with make_shared(clock=clock, deadline_s=2.0) as shared:
        blocked = Blocked(shared)
        first, second = shared.take_seat(), shared.take_seat()
        with concurrent.futures.ThreadPoolExecutor(2) as pool:
            computing = pool.submit(first.infer, observe(1), 5)
            assert blocked.started.wait(10)
            waiting = second.submit(observe(2), 6)
            clock.advance_s(2.0)
            with pytest.raises(InferenceTimeoutError, match=r"no chunk after 2\.000 s"):
                computing.result(10)
            blocked.gate.set()
            with pytest.raises(InferenceTimeoutError):  # It had waited too long to be worth computing.
                waiting.result(10)
            assert second.infer(observe(2), 6).shape == (8, 16)
        assert shared.stats.num_requests == 2  # The first was computed too, for nobody.


def test_an_error_reaches_its_own_robot_only(patient):
    sample = patient._sampler.sample

    def picky(params, norm, observations, seeds, prefixes, bare_prompts):
        if 666 in seeds:
            raise RuntimeError("out of memory")
        return sample(params, norm, observations, seeds, prefixes, bare_prompts)

    patient._sampler.sample = picky
    try:
        seats = [patient.take_seat() for _ in range(3)]
        with contextlib.ExitStack() as stack:
            for seat in seats:
                stack.enter_context(seat.episode())
            futures = [seat.submit(observe(1), seed) for seat, seed in zip(seats, (1, 666, 3), strict=True)]
            for number in (0, 2):
                assert futures[number].result(30).shape == (8, 16)
            with pytest.raises(RuntimeError, match="out of memory"):
                futures[1].result(30)
            # A request that can't even be encoded never reaches the queue.
            with pytest.raises(ValueError, match="state of shape"):
                seats[0].submit(dataclasses.replace(observe(1), state=np.zeros(3, np.float32)), 1)
    finally:
        patient._sampler.sample = sample
    for seat in seats:
        seat.close()


def test_coroutines_share_it_too(patient):
    seats = [patient.take_seat() for _ in range(3)]
    alone = [patient.take_seat().infer(observe(seed), seed) for seed in range(3)]

    async def ask():
        with contextlib.ExitStack() as stack:
            for seat in seats:
                stack.enter_context(seat.episode())
            futures = [seat.submit(observe(seed), seed) for seed, seat in enumerate(seats)]
            return await asyncio.gather(*map(asyncio.wrap_future, futures))

    for chunk, expected in zip(asyncio.run(ask()), alone, strict=True):
        np.testing.assert_allclose(chunk, expected, atol=1e-6)
    for seat in seats:
        seat.close()


def test_after_closing_nothing_is_served():
    shared = make_shared()
    seat = shared.take_seat()
    shared.close()
    with pytest.raises(PolicyClosedError, match="make a new one"):
        seat.infer(observe(1), 1)
    assert not shared._thread.is_alive()


class Collected:
    num_given_up = 0

    def __init__(self):
        self.episodes = []

    def accept(self, episode):
        self.episodes.append(episode)


def run_actor(number, policy):
    clock = ManualClock(10**18)
    robot = FakeRobot(FakeRobotConfig(time_limit_frames=40), clock)
    collected = Collected()
    config = ActorConfig(
        f"fake-{number}", "fake_task", supervised=False, num_episodes=2, rollout=RolloutConfig(execute_steps=4)
    )
    Actor(config, robot, policy, collected, clock).run()
    return collected.episodes


def test_actors_on_threads_make_the_episodes_that_they_make_alone():
    with make_shared(deadline_s=60.0) as shared, concurrent.futures.ThreadPoolExecutor(3) as pool:
        seats = [shared.take_seat() for _ in range(3)]
        together = list(pool.map(run_actor, range(3), seats))
        assert shared.stats.num_requests == 60
        assert shared.num_compilations == 2
    for number, episodes in enumerate(together):
        for episode, alone in zip(episodes, run_actor(number, make_runner()), strict=True):
            assert episode.manifest == alone.manifest
            np.testing.assert_allclose(episode.arrays.action, alone.arrays.action, atol=1e-5)


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"batch_sizes": ()}, "batch_sizes"),
        ({"batch_sizes": (2, 1)}, "rising"),
        ({"window_s": -1.0}, "window_s >= 0"),
        ({"deadline_s": 0.0}, "deadline_s > 0"),
    ],
)
def test_wrong_settings_are_refused(wrong, message):
    with pytest.raises(ConfigError, match=message):
        BatchingConfig(**wrong)
