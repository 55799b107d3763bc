import json
import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sop_jax.sampling.adaptive import AdaptiveSampler, SamplerConfig
from sop_jax.sampling.batch_source import Draw
from sop_jax.specs.errors import ConfigError
from sop_jax.specs.records import Source

ON, OFF = Source.ONLINE, Source.OFFLINE
LOSSES = st.floats(0, 1e6)


def feed(sampler: AdaptiveSampler, online: list[float], offline: list[float], task: str = "a") -> AdaptiveSampler:
    """One learner step for each pair of losses."""
    for on, off in zip(online, offline, strict=True):
        sampler.record([Draw(task, ON), Draw(task, OFF)], np.array([on, off], np.float32))
    return sampler


def make(tasks=("a",), **config) -> AdaptiveSampler:
    return AdaptiveSampler(SamplerConfig(**{"window": 4, "min_losses": 1, **config}), tasks)


def test_raw_share_is_the_papers_formula():
    sampler = feed(make(loss_scale="raw", alpha=1.5), [0.5, 1.0], [0.25, 0.75])
    # means 0.75 and 0.5: e^1.125 / (e^1.125 + e^0.5) = 3.08022 / (3.08022 + 1.64872)
    assert sampler.online_share("a") == pytest.approx(0.6513546, abs=1e-6)
    assert sampler.mean_loss("a", ON) == 0.75


def test_relative_share_divides_by_the_average_of_both_means():
    sampler = feed(make(alpha=1.25), [0.02], [0.01])
    # 4/3 and 2/3: sigmoid(1.25 * 4/3 - 2/3) = sigmoid(1) = 0.7310586
    assert sampler.online_share("a") == pytest.approx(0.7310586, abs=1e-6)
    scaled = feed(make(alpha=1.25), [20.0], [10.0])
    assert scaled.online_share("a") == pytest.approx(sampler.online_share("a"), abs=1e-6)


def test_window_forgets_old_steps_and_steps_without_a_buffer_do_not_count():
    sampler = feed(make(), [9, 1, 2, 3, 4], [1, 1, 1, 1, 1])
    assert sampler.mean_loss("a", ON) == 2.5
    sampler.record([Draw("a", OFF)], np.array([1.0], np.float32))
    assert sampler.mean_loss("a", ON) == 3.0  # 2, 3, 4; the step before left the window


def test_a_steps_loss_is_the_mean_of_its_examples():
    sampler = make()
    sampler.record([Draw("a", ON)] * 3 + [Draw("a", OFF)], np.array([1, 2, 6, 5], np.float32))
    assert (sampler.mean_loss("a", ON), sampler.mean_loss("a", OFF)) == (3.0, 5.0)


def test_cold_start_uses_the_initial_share():
    sampler = make(min_losses=2, initial_share=0.4)
    assert sampler.online_share("a") == 0.4
    assert feed(sampler, [9], [1]).online_share("a") == 0.4
    assert feed(sampler, [9], [1]).online_share("a") == 0.8


def test_an_empty_online_buffer_keeps_the_initial_share():
    sampler = make(initial_share=0.3)
    for _ in range(4):
        sampler.record([Draw("a", OFF)], np.array([1.0], np.float32))
    assert sampler.online_share("a") == 0.3


def test_fixed_mode_ignores_losses():
    assert feed(make(mode="fixed", fixed_online_share=1.0), [1], [9]).online_share("a") == 1.0


def test_losses_that_are_not_finite_are_left_out():
    sampler = feed(make(), [1, math.nan, math.inf], [1, 1, 1])
    assert sampler.mean_loss("a", ON) == 1.0


@settings(max_examples=60)
@given(st.floats(0, 1e300), st.floats(0, 1e300), st.sampled_from(["raw", "relative"]), st.floats(1.01, 50))
def test_share_is_stable_and_bounded(on, off, scale, alpha):
    sampler = feed(make(loss_scale=scale, alpha=alpha), [0.0], [0.0])
    sampler._losses[0, :, 0] = on, off
    sampler._shares.clear()
    assert 0.2 <= sampler.online_share("a") <= 0.8


@settings(max_examples=60)
@given(LOSSES, LOSSES, st.floats(0, 1e6), st.sampled_from(["raw", "relative"]))
def test_share_rises_with_the_online_loss_and_falls_with_the_offline_one(on, off, more, scale):
    def share(a: float, b: float) -> float:
        return feed(make(loss_scale=scale), [a], [b]).online_share("a")

    assert share(on + more, off) >= share(on, off) - 1e-9
    assert share(on, off + more) <= share(on, off) + 1e-9


@settings(max_examples=30)
@given(st.lists(st.tuples(LOSSES, LOSSES), min_size=1, max_size=4), st.randoms(use_true_random=False))
def test_order_within_the_window_and_order_of_tasks_do_not_matter(pairs, random):
    shuffled = random.sample(pairs, len(pairs))
    one = feed(make(("a", "b")), *(list(x) for x in zip(*pairs, strict=True)))
    other = feed(make(("b", "a")), *(list(x) for x in zip(*shuffled, strict=True)))
    assert one.online_share("a") == other.online_share("a")
    assert one.online_share("b") == other.online_share("b") == 0.5


@settings(max_examples=60)
@given(st.integers(1, 5), st.integers(1, 70), st.floats(0, 1), st.integers(0, 2**32))
def test_plan_is_stratified(num_tasks, batch_size, share, seed):
    tasks = tuple(f"t{i}" for i in range(num_tasks))
    sampler = make(tasks, mode="fixed", fixed_online_share=share)
    draws = sampler.plan(batch_size, np.random.default_rng(seed))
    assert len(draws) == batch_size
    for task in tasks:
        mine = [draw for draw in draws if draw.task == task]
        assert abs(len(mine) - batch_size / num_tasks) < 1
        assert abs(sum(draw.source == ON for draw in mine) - share * len(mine)) < 1


def test_plan_is_balanced_in_expectation():
    sampler = feed(make(("a", "b", "c"), alpha=1.25), [2.0], [1.0])
    counts = dict.fromkeys([(t, s) for t in "abc" for s in (ON, OFF)], 0)
    rng = np.random.default_rng(0)
    num = 4000
    for _ in range(num):
        for draw in sampler.plan(8, rng):
            counts[draw.task, draw.source] += 1
    for task, share in (("a", 0.7310586), ("b", 0.5), ("c", 0.5)):
        total = counts[task, ON] + counts[task, OFF]
        assert total / (8 * num) == pytest.approx(1 / 3, abs=0.004)
        assert counts[task, ON] / total == pytest.approx(share, abs=0.01)


def test_task_weights_set_the_shares():
    sampler = make(("a", "b"), task_weights={"a": 3.0, "b": 1.0})
    draws = sampler.plan(16, np.random.default_rng(0))
    assert sum(draw.task == "a" for draw in draws) == 12


@settings(max_examples=30)
@given(st.lists(st.tuples(LOSSES, LOSSES), max_size=9), st.lists(st.tuples(LOSSES, LOSSES), max_size=9))
def test_saved_state_continues_identically(before, after):
    original = make(("a", "b"))
    for on, off in before:
        feed(original, [on], [off])
    restored = make(("a", "b"))
    restored.load_state(json.loads(json.dumps(original.state_dict(), allow_nan=False)))
    rngs = [np.random.default_rng(3), np.random.default_rng(3)]
    for on, off in after:
        assert feed(original, [on], [off]).online_share("a") == feed(restored, [on], [off]).online_share("a")
        assert original.plan(7, rngs[0]) == restored.plan(7, rngs[1])
    assert original.state_dict() == restored.state_dict()


def test_state_of_other_tasks_or_another_window_is_refused():
    state = make(("a", "b")).state_dict()
    with pytest.raises(ConfigError, match=r"expected version 1 and tasks \['a'\]"):
        make(("a",)).load_state(state)
    with pytest.raises(ConfigError, match="resume with the window"):
        make(("a", "b"), window=5).load_state(state)


def test_bad_calls_are_refused():
    with pytest.raises(ValueError, match="unknown task 'z'"):
        make().record([Draw("z", ON)], np.zeros(1, np.float32))
    with pytest.raises(ValueError, match="one loss per draw, got 2 for 1"):
        make().record([Draw("a", ON)], np.zeros(2, np.float32))
    with pytest.raises(ValueError, match="negative loss"):
        make().record([Draw("a", ON)], np.array([-1.0], np.float32))
    with pytest.raises(ValueError, match="batch_size"):
        make().plan(0, np.random.default_rng(0))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"alpha": 1.0}, "alpha must be > 1"),
        ({"min_share": 0.9}, "min_share <= initial_share"),
        ({"fixed_online_share": 1.5}, r"fixed_online_share must lie in \[0, 1\]"),
        ({"min_losses": 5}, "min_losses <= window"),
        ({"task_weights": {"a": 0.0}}, "task_weights must be positive"),
    ],
)
def test_bad_configs_are_refused(changes, message):
    with pytest.raises(ConfigError, match=message):
        make(**changes)


def test_tasks_must_differ_and_match_their_weights():
    with pytest.raises(ConfigError, match="one or more different tasks"):
        make(("a", "a"))
    with pytest.raises(ConfigError, match="task_weights must name every task"):
        make(("a", "b"), task_weights={"a": 1.0})


def test_a_fixed_share_may_differ_by_task():
    config = SamplerConfig(mode="fixed", fixed_online_share=0.25, fixed_online_shares={"stock": 1.0})
    sampler = AdaptiveSampler(config, ("fold", "stock"))
    assert [sampler.online_share(task) for task in ("fold", "stock")] == [0.25, 1.0]
    draws = sampler.plan(16, np.random.default_rng(0))
    assert sum(draw == Draw("fold", Source.ONLINE) for draw in draws) == 2
    assert sum(draw == Draw("stock", Source.ONLINE) for draw in draws) == 8
    with pytest.raises(ConfigError, match=r"fixed_online_share must lie in \[0, 1\], got 1.5"):
        SamplerConfig(mode="fixed", fixed_online_shares={"fold": 1.5})
