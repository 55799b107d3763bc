from collections import Counter

from sop_jax.drill.schedule import Fault, make_schedule


def test_a_seed_is_a_schedule_and_every_fault_comes_up():
    assert make_schedule(3, True) == make_schedule(3, True)
    assert make_schedule(3, True) != make_schedule(4, True)
    schedules = [make_schedule(seed, with_reverb=True) for seed in range(100)]
    struck = Counter(step.fault for schedule in schedules for step in schedule.steps)
    assert set(struck) == set(Fault)
    assert 10 <= struck[Fault.KILL_REVERB] <= 40
    assert {schedule.num_intakes for schedule in schedules} == {1, 2}
    for schedule in schedules:
        times = [step.after_episodes for step in schedule.steps]
        assert times == sorted(times)
        assert 1 <= times[0] <= times[-1] <= schedule.num_episodes


def test_without_a_server_of_its_own_none_is_killed():
    steps = [step for seed in range(100) for step in make_schedule(seed, with_reverb=False).steps]
    assert Fault.KILL_REVERB not in {step.fault for step in steps}
