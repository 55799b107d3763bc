import dataclasses
import json
import pathlib
import sys
import time

import pytest
from trial_worker import noisy_policy_trials

from sop_jax.actors.chunking import ChunkingConfig
from sop_jax.actors.episode import TrialResult
from sop_jax.actors.fake import FakePolicy, reads_goal
from sop_jax.actors.rollout import RolloutConfig
from sop_jax.actors.seeds import derive_seed
from sop_jax.evaluation.evaluate import Candidate, WorkerTask
from sop_jax.evaluation.results import EvaluationResult, Subject, summarise
from sop_jax.evaluation.seeds import FIRST_EVALUATION_SEED, MAX_EVALUATION_SEED, trial_seeds
from sop_jax.evaluation.trial_pool import Identity, run_trials
from sop_jax.evaluation.trials import EvaluationFailedError, RobotTrials
from sop_jax.evaluation.world import WorldConfig
from sop_jax.robots.fake import FakeExpert, FakeRobot, FakeRobotConfig
from sop_jax.specs.clock import ManualClock
from sop_jax.specs.conditioning import Conditioning
from sop_jax.specs.errors import ConfigError
from sop_jax.specs.records import Outcome

WORKER = [sys.executable, str(pathlib.Path(__file__).parent / "trial_worker.py")]


def _trials(policy, **config) -> RobotTrials:
    return RobotTrials(FakeRobot(FakeRobotConfig(**config)), policy, RolloutConfig(execute_steps=4), ManualClock())


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
    assert RobotTrials(robot, None, RolloutConfig(), ManualClock(), FakeExpert(robot)).run(3).success
    assert robot.num_renders == 0


def test_trials_depend_on_the_seed_alone():
    seeds = trial_seeds(0, 6)
    forwards = {seed: noisy_policy_trials().run(seed) for seed in seeds}
    runner = noisy_policy_trials()
    assert {seed: runner.run(seed) for seed in reversed(seeds)} == forwards


def test_workers_give_what_one_process_gives_whatever_their_number():
    seeds = trial_seeds(0, 6)
    expected = [noisy_policy_trials().run(seed) for seed in seeds]
    seen = []
    for num_workers in (1, 3):
        found = run_trials(WORKER, seeds, num_workers, on_trial=seen.append)
        assert list(found.trials) == expected
        assert found.identity == Identity(3, "fingerprint", "fake/1")
    assert len(seen) == 12


def test_a_dead_worker_ends_the_evaluation_with_its_last_words():
    seeds = trial_seeds(0, 6)
    started = time.monotonic()
    with pytest.raises(EvaluationFailedError, match=f"seed {seeds[2]} with exit code 7: the gripper fell off"):
        run_trials([*WORKER, str(seeds[2])], seeds, 2)
    assert time.monotonic() - started < 20


def test_what_a_worker_is_told_comes_back_from_json():
    rollout = RolloutConfig(execute_steps=4, inference_delay_frames=2, chunking=ChunkingConfig("guided", "linear", 1.5))
    for task in (
        WorkerTask(Candidate("policies/mine", "file:///store/", 3), WorldConfig(time_limit_s=5.0), rollout),
        WorkerTask(
            Candidate("policies/mine", "file:///store/", 3, Conditioning("Advantage: positive", 2.0)),
            WorldConfig(),
            rollout,
        ),
        WorkerTask(Candidate(), WorldConfig(), RolloutConfig(inference_delay_frames=None)),
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
