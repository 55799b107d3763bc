"""The loop: it learns, compiles once, says what it did, and stops when asked."""

import dataclasses
import threading

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from linear_policy import CONFIG, DIM, MODEL, TRACES, LinearModel, make_batches, make_batches_that_end

from sop_jax.learner.learner import TrainingDivergedError
from sop_jax.learner.sharding import make_mesh, replicated
from sop_jax.learner.stats import SettledStep, StepStats
from sop_jax.sampling.batch_source import BatchStarvedError
from sop_jax.specs.errors import ConfigError
from sop_jax.specs.records import Publication, Source


class FakePublisher:
    def __init__(self, clock_ns: int = 7):
        self.published: list[tuple[int, dict]] = []
        self.last_version = 10
        self.fail = False

    def publish(self, trained_params, learner_step):
        if self.fail:
            raise OSError("store away")
        self.published.append((learner_step, jax.device_get(trained_params)))
        self.last_version += 1
        return Publication(self.last_version, learner_step, "", "", 7, {"p/x": (0, "")})


def test_loss_falls_and_the_answer_is_found(make_bench):
    config = dataclasses.replace(CONFIG, num_steps=200, learning_rate=0.02, schedule="cosine", ema_decay=0.9)
    bench = make_bench(config)
    summary = bench.learner.run()
    losses = [event["loss"] for event in bench.events("learner_step")]
    assert losses[0] > 0.25  # uniform(-1, 1) has variance 1/3, and the map starts at 0
    assert losses[-1] < 0.01
    assert (summary.step, summary.num_steps) == (200, 200)
    params = bench.learner.policy_params()
    kernel = 2.0 * params["encoder"]["kernel"] @ params["mlp"]["linear"]
    np.testing.assert_allclose(kernel, np.eye(DIM), atol=0.1)


def test_one_compilation_whatever_happens(make_bench, tmp_path):
    TRACES.clear()
    model = LinearModel(noise=0.0123)  # traced by no other test
    bench = make_bench(publisher=FakePublisher(), checkpoint_dir=tmp_path / "c", model=model)
    bench.learner.run()
    assert len(TRACES) == 1


def test_losses_come_back_once_per_step_in_order_for_the_same_draws(make_bench):
    bench = make_bench()
    bench.learner.run()
    expected = make_batches()
    assert len(bench.batches.recorded) == 6
    for draws, per_example in bench.batches.recorded:
        assert draws == expected.next().draws
        assert per_example.shape == (8,)
        assert per_example.dtype == np.float32


def test_losses_of_a_step_are_fetched_one_step_late(make_bench):
    bench = make_bench()
    bench.learner.step()
    assert len(bench.batches.recorded) == 0
    bench.learner.step()
    assert len(bench.batches.recorded) == 1
    bench.learner.settle()
    assert len(bench.batches.recorded) == 2


def test_first_step_by_hand(make_bench):
    """At the zero map the gradient of the bias is known, and Adam's first step has the size of the learning rate."""
    model = LinearModel(noise=0.0)
    config = dataclasses.replace(CONFIG, ema_decay=0.75)
    bench = make_bench(config, model=model)
    bench.learner.run(num_steps=1)
    batch = make_batches().next().batch
    recorded = bench.batches.recorded[0][1]
    np.testing.assert_allclose(recorded, np.mean(batch.actions**2, axis=(1, 2)), rtol=1e-5)
    bias_gradient = -2 * batch.actions.mean(axis=(0, 1)) / DIM
    raw = np.asarray(bench.learner._state.params["mlp"]["bias"])
    np.testing.assert_allclose(raw, -0.05 * np.sign(bias_gradient), rtol=1e-4)
    np.testing.assert_allclose(bench.learner._state.ema["mlp"]["bias"], 0.25 * raw, rtol=1e-5)


def test_base_parameters_survive_and_frozen_ones_never_move(make_bench):
    everywhere = replicated(make_mesh(CONFIG.mesh))
    params = jax.device_put(MODEL.init_params(jax.random.key(1)), everywhere)  # where the learner wants them already
    before = jax.tree.map(np.array, params)
    bench = make_bench(params=params)
    bench.learner.run()
    jax.tree.map(np.testing.assert_array_equal, jax.tree.map(np.asarray, params), before)  # not donated away
    after = bench.learner.policy_params()
    np.testing.assert_array_equal(after["frozen"]["scale"], before["frozen"]["scale"])
    assert not np.array_equal(after["encoder"]["kernel"], before["encoder"]["kernel"])
    assert jax.tree.map(lambda leaf: leaf.dtype, after) == jax.tree.map(lambda leaf: leaf.dtype, before)


def test_the_state_is_donated(make_bench):
    bench = make_bench()
    old = bench.learner._state.params["encoder"]["kernel"]
    bench.learner.step()
    assert old.is_deleted()


def test_trained_leaves_are_float32_masters(make_bench):
    bench = make_bench()
    assert bench.learner._state.params["mlp"]["bias"].dtype == jnp.float32


@pytest.mark.parametrize("in_background", [False, True])
def test_publications_hold_the_average_as_of_their_step(make_bench, in_background):
    publisher = FakePublisher()
    config = dataclasses.replace(CONFIG, publish_in_background=in_background)
    bench = make_bench(config, publisher=publisher)
    while bench.learner.current_step < 6:
        bench.learner.step()
        if bench.learner.current_step % 2 == 0:
            expected = jax.tree.map(np.array, bench.learner._state.ema)
            bench.learner._publications.wait()
            step, published = publisher.published[-1]
            assert step == bench.learner.current_step
            np.testing.assert_array_equal(published["encoder"]["kernel"], expected["encoder"]["kernel"])
            assert published["mlp"]["bias"].dtype == jnp.bfloat16  # as the base stores it
            assert "frozen" not in published
    events = bench.events("publication")
    assert [(event["version"], event["learner_step"]) for event in events] == [(11, 2), (12, 4), (13, 6)]
    assert events[0]["created_ns"] == 7
    assert bench.learner.last_version == 13


def test_a_slow_store_gets_the_newest_parameters_and_never_stops_training(make_bench):
    publisher = FakePublisher()
    gate = threading.Event()
    publish = publisher.publish
    publisher.publish = lambda *arguments: gate.wait(10) and publish(*arguments)
    config = dataclasses.replace(CONFIG, publish_in_background=True, publish_every=1)
    bench = make_bench(config, publisher=publisher)
    for _ in range(6):
        bench.learner.step()
    gate.set()
    bench.learner._publications.wait()
    steps = [step for step, _ in publisher.published]
    assert steps[-1] == 6
    assert len(steps) <= 3
    assert steps == sorted(steps)


def test_a_slow_store_is_told_beside_what_is_due(make_bench):
    """Its publications come four times as seldom as they are due: they would look usual, but for the config."""
    publisher, gate = FakePublisher(), threading.Event()
    publish = publisher.publish
    publisher.publish = lambda *arguments: gate.wait(10) and publish(*arguments)
    config = dataclasses.replace(CONFIG, publish_in_background=True, num_steps=8)
    bench = make_bench(config, publisher=publisher)
    for _ in range(8):
        bench.learner.step()
    bench.learner.settle()
    late = [(event["publish_every"], event["unpublished_steps"]) for event in bench.events("learner_step")]
    assert late == [(2, 2), (2, 4), (2, 6), (2, 8)]
    gate.set()
    bench.learner._publications.wait()
    for _ in range(2):
        bench.learner.step()
    bench.learner.settle()
    bench.learner._publications.wait()
    assert bench.events("learner_step")[-1]["unpublished_steps"] <= 2


def test_what_a_learner_took_up_is_not_late(make_bench, tmp_path):
    make_bench(checkpoint_dir=tmp_path / "c").learner.run()
    resumed = make_bench(publisher=FakePublisher(), checkpoint_dir=tmp_path / "c")
    resumed.learner.run(num_steps=8)
    assert [event["unpublished_steps"] for event in resumed.events("learner_step")] == [0]
    silent = make_bench()
    silent.learner.run(num_steps=2)
    assert "publish_every" not in silent.events("learner_step")[0]  # nobody gets its publications


def test_a_store_that_is_away_is_reported_and_tried_again(make_bench):
    publisher = FakePublisher()
    publisher.fail = True
    bench = make_bench(publisher=publisher)
    bench.learner.run(num_steps=3)
    assert bench.events("publication_failed")[0]["reason"] == "OSError: store away"
    publisher.fail = False
    bench.learner.run(num_steps=4)
    assert [step for step, _ in publisher.published] == [4]


def test_first_use_is_reported_once_per_online_episode(make_bench):
    bench = make_bench()
    bench.learner.run()
    used = bench.events("first_use")
    loaded = make_batches().next()
    online = {e for e, d in zip(loaded.episode_ids, loaded.draws, strict=True) if d.source == "online"}
    assert {event["episode_id"] for event in used} == online
    assert len(used) == len(online) == 4
    assert {event["learner_step"] for event in used} == {1}
    assert {event["task"] for event in used} == {"fold", "stock"}
    corrected = bench.events("correction_use")  # a person acts in every online frame of these batches
    assert [(e["episode_id"], e["learner_step"], e["ended_ns"]) for e in corrected] == [
        (e["episode_id"], 1, 0) for e in used
    ]


def test_step_events_say_what_was_sampled(make_bench):
    class Late(type(make_batches())):
        """Half of the online draws were held back; acting versions lag by 3 and 5; the episodes ended 4 s ago."""

        def next(self, should_stop):
            loaded = super().next()
            everything_online = tuple(dataclasses.replace(d, source=type(d.source).ONLINE) for d in loaded.draws)
            versions = np.where(loaded.policy_versions >= 0, [10, 10, 7, 5] * 2, -1).astype(np.int32)
            return dataclasses.replace(
                loaded, requested=everything_online, policy_versions=versions, ended_ns=np.full(8, -4_000_000_000),
                wait_s=0.05,
            )  # fmt: skip

    batches = Late(make_batches()._spec, MODEL.tokenize, ("fold", "stock"), 8)
    bench = make_bench(publisher=FakePublisher(), batches=batches)
    bench.learner.step()
    bench.clock.advance_s(0.5)
    bench.learner.step()
    bench.learner.settle()
    (event,) = bench.events("learner_step")
    assert event["step"] == 2
    assert event["steps_per_s"] == pytest.approx(2 / 0.5)
    assert event["elapsed_s"] == 0.5
    assert event["wait_share"] == pytest.approx(2 * 0.05 / 0.5)
    assert event["online_share/fold"] == event["online_share/stock"] == 0.5
    assert event["requested_online_share/fold"] == 1.0
    assert event["intervention_share"] == 0.5
    assert event["staleness_versions"] == pytest.approx((3 + 5) / 2)
    assert event["staleness_versions_max"] == 5
    assert event["staleness_s"] == pytest.approx(4.5)
    everything = np.concatenate([losses for _, losses in bench.batches.recorded])
    by_buffer = [event[f"loss/{task}/{source}"] for task in ("fold", "stock") for source in ("online", "offline")]
    assert np.mean(by_buffer) == pytest.approx(everything.mean(), rel=1e-5)
    assert event["loss"] == pytest.approx(everything.mean(), rel=1e-5)


def test_the_age_of_frames_counts_only_where_the_robots_clock_knew_the_date():
    today_ns = 1_790_000_000 * 10**9
    loaded, per_example = make_batches().next(), np.zeros(8, np.float32)
    assert np.flatnonzero([draw.source is Source.ONLINE for draw in loaded.draws]).tolist() == [2, 3, 6, 7]
    for ages_s, expected in (([3, 5, None, None], {"staleness_s": 4.0}), ([None] * 4, {})):
        ended_ns = np.full(8, 10**9)
        ended_ns[[2, 3, 6, 7]] = [10**9 if age is None else today_ns - age * 10**9 for age in ages_s]
        stats = StepStats(today_ns)
        stats.add(
            SettledStep(1, dataclasses.replace(loaded, ended_ns=ended_ns), 1, 0.5, 1.0, 0.1, per_example), today_ns
        )
        found = stats.flush(0.1, today_ns)
        assert {name: value for name, value in found.items() if name == "staleness_s"} == expected


def test_waits_for_data_with_progress_then_trains(make_bench):
    batches = make_batches()
    produce, refusals = batches.next, iter([True] * 3)

    def starving_next(should_stop):
        if next(refusals, False):
            raise BatchStarvedError("fold/offline holds 0 of 1 items")
        return produce()

    batches.next = starving_next
    bench = make_bench(batches=batches)
    assert bench.learner.run(num_steps=2).step == 2
    starved = bench.events("starved")
    assert [event["waited_s"] for event in starved] == [0.0, 1.0, 2.0]
    assert starved[0]["reason"] == "fold/offline holds 0 of 1 items"
    assert [event["waited_s"] for event in bench.events("data_came")] == [3.0]


def test_a_batch_that_does_not_come_ahead_is_told_at_once_and_so_is_its_coming(make_bench):
    """Nobody else would tell for a whole deadline more."""
    batches = make_batches()
    produce, calls = batches.next, iter(range(99))

    def starving_next(should_stop):
        if next(calls) in (1, 2):  # the second batch, asked for ahead and again when it's needed
            bench.clock.advance_s(120)
            raise BatchStarvedError("fold/offline holds 0 of 1 items")
        return produce()

    batches.next = starving_next
    bench = make_bench(batches=batches)
    bench.learner.step(fetch_ahead=True)
    assert [(event["step"], event["waited_s"]) for event in bench.events("starved")] == [(1, 0.0)]
    with pytest.raises(BatchStarvedError):
        bench.learner.step()
    told = [event["waited_s"] for event in bench.events("starved")]
    assert told == [0.0]  # whoever steps tells of this one: `run` does
    bench.clock.advance_s(5)
    bench.learner.step()
    assert [(event["step"], event["waited_s"]) for event in bench.events("data_came")] == [(1, 125.0)]
    bench.learner.step()
    assert len(bench.events("data_came")) == 1


def test_a_batch_that_was_taken_is_trained_on_before_it_stops(make_bench):
    """After a resume the next batch follows, and none was skipped."""
    batches, taken = make_batches(), []
    produce = batches.next
    batches.next = lambda should_stop: taken.append(1) or produce()
    bench = make_bench(batches=batches)
    assert bench.learner.run(num_steps=50, should_stop=lambda: len(taken) >= 3).step == len(taken)


def test_nothing_is_fetched_ahead_once_it_was_asked_to_stop(make_bench):
    """No batch may come for minutes, and a preempted machine is gone by then."""
    asked_for, stopping = [], []
    batches = make_batches()
    produce, record = batches.next, batches.record_losses

    def recorded(draws, per_example):
        record(draws, per_example)
        stopping.append(1)  # within the second step, before the third batch is fetched

    batches.next, batches.record_losses = lambda should_stop: asked_for.append(1) or produce(), recorded
    bench = make_bench(batches=batches)
    assert bench.learner.run(num_steps=50, should_stop=lambda: bool(stopping)).step == 2
    assert len(asked_for) == 2


def test_a_signal_is_heard_while_it_waits_for_data(make_bench, tmp_path):
    """Nothing comes for minutes, whatever is asked for; a preempted machine has one to write its checkpoint."""
    batches, waiting = make_batches_that_end(after=2)
    bench = make_bench(batches=batches, checkpoint_dir=tmp_path / "c")
    assert bench.learner.run(num_steps=50, should_stop=lambda: bool(waiting)).step == 2
    assert bench.learner._checkpoints.latest_step() == 2
    assert bench.events("starved") == []  # it was not for want of data that it ended
    assert bench.clock.now_ns() == 0


def test_stops_when_asked_even_without_data(make_bench):
    batches = make_batches()

    def starved(should_stop):
        raise BatchStarvedError("empty")

    batches.next = starved
    bench = make_bench(batches=batches)
    summary = bench.learner.run(should_stop=lambda: bench.clock.now_ns() > 2e9)
    assert (summary.step, summary.num_steps) == (0, 0)


def test_a_step_without_finite_gradient_changes_nothing(make_bench):
    batches = make_batches()
    produce = batches.next

    def poisoned(should_stop):
        loaded = produce()
        loaded.batch.actions[0, 0, 0] = np.nan
        return loaded

    config = dataclasses.replace(CONFIG, max_bad_steps=3)
    bench = make_bench(config, batches=batches)
    bench.learner.run(num_steps=2)
    before = jax.tree.map(np.array, (bench.learner._state.params, bench.learner._state.ema))
    batches.next = poisoned
    bench.learner.run(num_steps=3)
    jax.tree.map(
        np.testing.assert_array_equal, before, jax.device_get((bench.learner._state.params, bench.learner._state.ema))
    )
    assert len(batches.recorded) == 2  # the sampler never hears of it
    assert bench.events("step_skipped") == [{"event": "step_skipped", "step": 3, "loss": "nan"}]
    with pytest.raises(TrainingDivergedError, match="steps 3 to 5 had no finite gradient"):
        bench.learner.run(num_steps=9)


def test_wrong_batch_size_is_refused(make_bench):
    bench = make_bench(batches=make_batches(16))
    with pytest.raises(ConfigError, match=r"gave 16 examples, .* asks for 8"):
        bench.learner.step()


def test_a_model_without_trained_leaves_is_refused(make_bench):
    class Frozen(LinearModel):
        def is_trained(self, path):
            return False

    with pytest.raises(ConfigError, match="no trained parameters"):
        make_bench(model=Frozen())


def test_random_numbers_come_from_seed_and_step(make_bench):
    """The same batch again and again, with a learning rate too small to matter: only the noise on the loss differs."""
    still = dataclasses.replace(CONFIG, learning_rate=1e-12)
    losses = []
    for config in (still, still, dataclasses.replace(still, seed=1)):
        batches = make_batches()
        first = batches.next()
        batches.next = lambda should_stop: first  # noqa: B023
        bench = make_bench(config, batches=batches)
        bench.learner.run(num_steps=2)
        losses.append([recorded for _, recorded in batches.recorded])
    (one, two), again, (other_seed, _) = losses
    np.testing.assert_array_equal([one, two], again)
    assert not np.allclose(one, two, rtol=1e-4)
    assert not np.allclose(one, other_seed, rtol=1e-4)
