import dataclasses
import json
import os
import pathlib
import sys
import time

import pytest
from hypothesis import given
from hypothesis import strategies as st
from trial_worker import IDENTITY, noisy_policy_trials

from sop_jax.actors.chunking import ChunkingConfig
from sop_jax.actors.episode import TrialResult
from sop_jax.actors.fake import FakePolicy, reads_goal
from sop_jax.actors.rollout import RolloutConfig
from sop_jax.actors.seeds import derive_seed, episode_seed
from sop_jax.evaluation import trial_pool
from sop_jax.evaluation.evaluate import Candidate, WorkerTask
from sop_jax.evaluation.results import EvaluationResult, Subject, summarise
from sop_jax.evaluation.seeds import (
    FIRST_EVALUATION_SEED,
    FIRST_SELECTION_SEED,
    MAX_EVALUATION_SEED,
    selection_seeds,
    trial_seeds,
)
from sop_jax.evaluation.trial_pool import ask_identity, run_trials
from sop_jax.evaluation.trials import EvaluationFailedError, SideBySide, TrialJob, Workplace
from sop_jax.evaluation.world import WorldConfig
from sop_jax.robots.fake import FakeExpert, FakeRobot, FakeRobotConfig
from sop_jax.specs.clock import ManualClock
from sop_jax.specs.conditioning import Conditioning
from sop_jax.specs.errors import ConfigError
from sop_jax.specs.records import Outcome

WORKER = [sys.executable, str(pathlib.Path(__file__).parent / "trial_worker.py")]


def _trials(policy, **config) -> SideBySide:
    workplace = Workplace(FakeRobot(FakeRobotConfig(**config)))
    return SideBySide(lambda _: workplace, policy, RolloutConfig(execute_steps=4), ManualClock())


def test_a_good_policy_succeeds_and_a_still_one_times_out():
    good = _trials(FakePolicy(act=reads_goal)).run(11)
    assert good.success
    assert good.failure_kind == ""
    # 0.5 rad at most, 0.02 rad a tick: between 10 and 30 ticks.
    assert 10 <= good.num_frames <= 30
    assert good.duration_s == pytest.approx(good.num_frames / 30)
    still = _trials(FakePolicy(), time_limit_frames=50).run(11)
    assert still == TrialResult(11, Outcome.TIMEOUT, "timeout", 50, pytest.approx(50 / 30))


def test_an_expert_needs_no_images():
    robot = FakeRobot()
    workplace = Workplace(robot, FakeExpert(robot))
    assert SideBySide(lambda _: workplace, None, RolloutConfig(), ManualClock()).run(3).success
    assert robot.num_renders == 0


def test_trials_depend_on_the_seed_alone():
    seeds = trial_seeds(0, 6)
    forwards = {seed: noisy_policy_trials().run(seed) for seed in seeds}
    runner = noisy_policy_trials()
    assert {seed: runner.run(seed) for seed in reversed(seeds)} == forwards


class CountingRows(FakePolicy):
    """Remembers how many requests each call answered, and of how many rows it was."""

    def __init__(self):
        super().__init__(act=reads_goal, noise=0.02)
        self.calls = []

    def infer_rows(self, requests, num_rows):
        self.calls.append((len(requests), num_rows))
        return super().infer_rows(requests, num_rows)


def test_trials_side_by_side_share_calls_of_one_size():
    jobs = [TrialJob(0, seed) for seed in trial_seeds(0, 7)]
    policy = CountingRows()
    runner = SideBySide(lambda _: Workplace(FakeRobot()), policy, RolloutConfig(execute_steps=4), ManualClock(), 3)
    todo, found = list(jobs), {}
    while todo or runner.num_running:
        while todo and runner.has_room:
            runner.begin(todo.pop())
        found.update(runner.advance())
    assert found == {job: noisy_policy_trials().run(job.seed) for job in jobs}
    assert {num_rows for _, num_rows in policy.calls} == {3}
    assert max(num_requests for num_requests, _ in policy.calls) == 3
    alone = sum(len(answers) for answers in (trial_chunks(job.seed) for job in jobs))
    assert sum(num_requests for num_requests, _ in policy.calls) == alone
    assert len(policy.calls) < alone / 2


def trial_chunks(seed):
    policy = CountingRows()
    _trials(policy).run(seed)
    return policy.calls


def test_a_seat_changes_its_robot_with_the_world_and_closes_it():
    made = []

    class Closing(FakeRobot):
        closed = False

        def close(self):
            self.closed = True

    def make_workplace(world):
        made.append((world, Closing(FakeRobotConfig(time_limit_frames=10 * (world + 1)))))
        return Workplace(made[-1][1])

    runner = SideBySide(make_workplace, FakePolicy(), RolloutConfig(execute_steps=4), ManualClock(), 1)
    assert [runner.run(seed, world).num_frames for world, seed in ((0, 1), (0, 2), (1, 1))] == [10, 10, 20]
    assert [(world, robot.closed) for world, robot in made] == [(0, True), (1, False)]
    runner.close()
    assert made[1][1].closed


def test_ctrl_c_at_the_terminal_reaches_no_worker():
    worker = trial_pool._Worker([sys.executable, "-c", "input()"])
    try:
        assert os.getpgid(worker._process.pid) == worker._process.pid
    finally:
        worker.close()


def test_workers_give_what_one_process_gives_whatever_their_number():
    jobs = [TrialJob(world, seed) for world in (0, 1) for seed in trial_seeds(0, 4)]
    expected = [noisy_policy_trials().run(job.seed, job.world) for job in jobs]
    assert len({trial.num_frames for trial in expected}) > 2
    seen = []
    for num_workers, side_by_side in ((1, 1), (3, 1), (2, 3)):
        command = [*WORKER, "-1", str(side_by_side)]
        found = run_trials(
            command, jobs, num_workers, side_by_side=side_by_side, on_trial=lambda job, trial: seen.append((job, trial))
        )
        assert list(found.trials) == expected
        assert found.identity == IDENTITY
    assert sorted(seen, key=str) == sorted(list(zip(jobs, expected, strict=True)) * 3, key=str)


def test_an_identity_that_is_refused_ends_the_evaluation():
    def refuse(identity):
        assert identity == IDENTITY
        raise ConfigError("not these weights")

    with pytest.raises(ConfigError, match="not these weights"):
        run_trials(WORKER, [TrialJob(0, 1)], 1, on_identity=refuse)


def test_a_dead_worker_ends_the_evaluation_with_its_last_words():
    seeds = trial_seeds(0, 6)
    started = time.monotonic()
    with pytest.raises(EvaluationFailedError, match=f"seed {seeds[2]} with exit code 7: the gripper fell off"):
        run_trials([*WORKER, str(seeds[2])], [TrialJob(0, seed) for seed in seeds], 2)
    assert time.monotonic() - started < 20


def test_a_worker_tells_whom_it_evaluates_without_a_trial():
    assert ask_identity(WORKER) == IDENTITY
    with pytest.raises(EvaluationFailedError, match="died before its first trial with exit code 3: no such policy"):
        ask_identity([sys.executable, "-c", "import sys; sys.stderr.write('no such policy'); sys.exit(3)"])
    started = time.monotonic()
    with pytest.raises(KeyboardInterrupt):
        ask_identity([sys.executable, "-c", "import time; time.sleep(60)"], should_stop=lambda: True)
    assert time.monotonic() - started < 20


def test_what_a_worker_is_told_comes_back_from_json():
    rollout = RolloutConfig(execute_steps=4, inference_delay_frames=2, chunking=ChunkingConfig("guided", "linear", 1.5))
    for task in (
        WorkerTask(Candidate("policies/mine", "file:///store/", 3), (WorldConfig(time_limit_s=5.0),), rollout, 2),
        WorkerTask(
            Candidate(), (WorldConfig(), WorldConfig("laundry_fold")), RolloutConfig(inference_delay_frames=None)
        ),
        WorkerTask(
            Candidate("policies/mine", "file:///store/", 3, Conditioning("Advantage: positive", 2.0)),
            (WorldConfig(),),
            rollout,
        ),
    ):
        assert WorkerTask.from_json(task.to_json()) == task


def test_evaluation_seeds_are_reserved():
    assert trial_seeds(0, 2) == [FIRST_EVALUATION_SEED, FIRST_EVALUATION_SEED + 1]
    assert trial_seeds(3, 1) == [2**31 + 300_000]
    assert trial_seeds(MAX_EVALUATION_SEED, 100_000)[-1] < 2**32
    assert all(derive_seed("robot", count) < FIRST_EVALUATION_SEED for count in range(1000))
    with pytest.raises(ConfigError, match="evaluation seed"):
        trial_seeds(MAX_EVALUATION_SEED + 1, 1)
    with pytest.raises(ConfigError, match="number of trials"):
        trial_seeds(0, 0)
    with pytest.raises(ConfigError, match="selection seed"):
        selection_seeds(-1, 1)


@given(
    st.integers(0, MAX_EVALUATION_SEED),
    st.integers(0, MAX_EVALUATION_SEED),
    st.integers(1, 100_000),
    st.text(max_size=9),
    st.integers(0, 10**9),
)
def test_training_evaluation_and_selection_share_no_seed(evaluation, selection, num_trials, robot_id, count):
    evaluated, selected = trial_seeds(evaluation, num_trials), selection_seeds(selection, num_trials)
    assert 0 <= episode_seed(0, robot_id, count) < FIRST_EVALUATION_SEED <= evaluated[0]
    assert evaluated[-1] < FIRST_SELECTION_SEED <= selected[0]
    assert selected[-1] < 2**32
    assert len(evaluated) == len(selected) == num_trials


def test_summary_hand_computed():
    trials = [
        TrialResult(1, Outcome.SUCCESS, "", 60, 2.0),
        TrialResult(2, Outcome.SUCCESS, "", 120, 4.0),
        TrialResult(3, Outcome.TIMEOUT, "", 300, 10.0),
        TrialResult(4, Outcome.FAILURE, "dropped", 120, 4.0),
    ]
    result = summarise(Subject("restock_shelf", "w", 7, "abc"), trials, seed=5, reset_s=10.0)
    assert result.counts == (2, 4)
    assert result.success == 0.5
    # Wilson at 2 of 4: 0.5 -+ z sqrt(0.0625 + z^2/64) / (1 + z^2/4), z^2 = 3.841459.
    assert result.success_low == pytest.approx(0.150036, abs=1e-5)
    assert result.success_high == pytest.approx(0.849964, abs=1e-5)
    assert result.mean_duration_s == 5.0
    assert result.mean_success_duration_s == 3.0
    assert result.successes_per_hour == pytest.approx(2 * 3600 / 60)  # 20 s of acting and 4 resets of 10 s
    assert result.throughput_per_hour == pytest.approx(4 * 3600 / 20)
    assert result.failures == {"dropped": 1, "timeout": 1}
    stored = json.loads(json.dumps(dataclasses.asdict(result)))
    assert EvaluationResult.from_json({**stored, "from_the_future": 1}) == result
    with pytest.raises(ConfigError, match="incomplete"):
        EvaluationResult.from_json({"task": "x"})
