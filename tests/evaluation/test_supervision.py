import pytest
from fake_run import FakeStore, episode

from sop_jax.evaluation.supervision import read_work, sum_up_work
from sop_jax.specs.records import Outcome, Source, TakeoverEvent


def test_work_and_its_cost_hand_computed():
    # 60 s and 30 fps: `episode` counts 10 frames of intervention per takeover, a third of a second.
    episodes = [
        episode(0, duration_s=60.0),
        episode(1, duration_s=60.0, failed_s=(5.0, 9.0, 12.0)),
        episode(2, duration_s=60.0, success=False),
        episode(3, duration_s=99.0, outcome=Outcome.ABORTED),
        episode(4, duration_s=99.0, source=Source.OFFLINE),
    ]
    work = sum_up_work(episodes, reset_s=20.0)
    assert (work.num_episodes, work.num_successes, work.num_autonomous, work.num_interventions) == (3, 2, 1, 3)
    assert work.autonomous == pytest.approx(1 / 3)
    assert (work.autonomous_low, work.autonomous_high) == (
        pytest.approx(0.0615, abs=1e-4),
        pytest.approx(0.7923, abs=1e-4),
    )
    assert work.robot_h == pytest.approx(180 / 3600)
    assert work.intervention_min == pytest.approx(1 / 60)
    assert work.human_min == pytest.approx((1 + 60) / 60)
    assert work.intervention_min_per_success == pytest.approx(1 / 120)
    assert work.human_min_per_success == pytest.approx(61 / 120)
    assert work.successes_per_hour == pytest.approx(2 * 3600 / 240)
    assert work.throughput_per_hour == pytest.approx(3 * 3600 / 179)


def test_without_a_success_nothing_is_per_success():
    work = sum_up_work([episode(0, success=False)])
    assert work.intervention_min_per_success is None
    assert work.human_min_per_success is None
    assert sum_up_work([]).successes_per_hour == 0.0


def test_a_store_is_read_in_order_of_time_without_what_is_torn():
    store = FakeStore()
    later = store.add(2, takeovers=(TakeoverEvent(10, 20, 50, "dropped"),))
    store.broken.add(store.add(1))
    earlier = store.add(0)
    found = read_work(store)
    assert [summary.path for summary in found] == [earlier, later]
    assert found[1].num_intervention_frames == 30
    assert read_work(store, task="laundry") == []
