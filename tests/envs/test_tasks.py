"""Every registered task against its specs, bounds, determinism and its own ends of episodes."""

import hashlib
import os
import subprocess
import sys

import dm_env
import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import envs


@pytest.fixture(scope="module", params=envs.TASKS)
def env(request):
    made = envs.load(request.param, seed=3)
    yield made
    made.close()


def test_observations_match_specs_with_and_without_images(env):
    for render_on_step in (False, True):
        env.render_on_step = render_on_step
        timestep = env.reset(1)
        assert timestep.first()
        for _ in range(3):
            spec = env.observation_spec()
            assert timestep.observation.keys() == spec.keys()
            for name, array in timestep.observation.items():
                spec[name].validate(array)
            timestep = env.step(env.executed_action)
        assert ("head" in timestep.observation) == render_on_step
    env.render_on_step = False


def test_images_show_something_and_differ_between_cameras(env):
    env.reset(1)
    images = env.render()
    assert tuple(images) == envs.CAMERAS
    for image in images.values():
        assert image.shape == (64, 64, 3)
        assert image.dtype == np.uint8
        assert image.std() > 10
    assert (images["head"] != images["hand_right"]).mean() > 0.5


def test_metadata_is_there(env):
    env.reset(1)
    assert env.task_name in envs.TASKS
    assert env.world.startswith(env.task_name + "/")
    assert env.instruction
    assert env.control_hz == 30
    assert env.time_s == 0.0
    assert env.failure_kind() == ""
    assert not env.success()
    assert envs.stages_of(env.task_name) == env.stage_names


@settings(max_examples=15, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(seed=st.integers(0, 2**32 - 1), scale=st.sampled_from([0.1, 1.0, 100.0]))
def test_any_finite_action_stays_inside_the_bounds_and_keeps_the_physics_finite(env, seed, scale):
    rng = np.random.default_rng(seed)
    spec = env.action_spec()
    env.reset(seed % 1000)
    for _ in range(8):
        measured = env.task.drive.state(env.data)
        timestep = env.step(rng.normal(0.0, scale, size=16))
        spec.validate(env.executed_action)
        assert np.abs(env.executed_action[:14] - measured[:14]).max() <= 0.2618 + 1e-5
        assert np.isfinite(timestep.observation["state"]).all()
        if timestep.last():
            break


def test_time_limit_truncates_and_the_next_step_starts_the_next_episode():
    env = envs.load("restock_shelf", time_limit_s=0.2, seed=5)
    timestep = env.reset()
    assert env.episode_seed == 5
    while not timestep.last():
        timestep = env.step(env.executed_action)
    assert env.time_s == pytest.approx(0.2)
    assert (timestep.reward, timestep.discount) == (0.0, 1.0)
    assert env.failure_kind() == "timeout"
    assert env.step(env.executed_action).first()
    assert env.episode_seed == 6


def test_diverged_physics_raises_instead_of_giving_data(env):
    env.reset(1)
    env.data.qvel[0] = np.nan
    with pytest.raises(envs.DivergedError, match=r"seed 1: diverged at 0\.03 s"):
        env.step(env.executed_action)
    assert env.reset(1).first()
    assert np.isfinite(env.step(env.executed_action).observation["state"]).all()


def test_images_that_cannot_be_made_say_what_to_install(monkeypatch):
    monkeypatch.setenv("MUJOCO_GL", "nonsense")
    env = envs.load("restock_shelf")
    env.reset(0)
    with pytest.raises(envs.RenderingError, match=r"MUJOCO_GL='nonsense'.*libegl1"):
        env.render()


def test_unknown_task_suggests_the_near_one():
    with pytest.raises(envs.UnknownTaskError, match="did you mean 'restock_shelf'"):
        envs.load("restock_shelv")


def test_a_change_that_the_task_does_not_know_is_refused():
    with pytest.raises(ValueError, match=r"has no nonsense to change; it has .*time_limit_s"):
        envs.load("restock_shelf", nonsense=1)
    assert envs.load("restock_shelf", time_limit_s=None).task.time_limit_s == 8.0


def fingerprint(task: str, seed: int, num_ticks: int = 25) -> str:
    """Hash of everything an episode gave: states, text and images."""
    env = envs.load(task)
    env.reset(seed + 1)  # what came before must not matter
    digest = hashlib.sha256()
    timestep = env.reset(seed)
    expert = envs.make_expert(env, style_seed=2)
    expert.reset()
    digest.update(env.instruction.encode())
    for tick in range(num_ticks):
        digest.update(timestep.observation["state"].tobytes())
        if tick % 10 == 0:
            for image in env.render().values():
                digest.update(image.tobytes())
        timestep = env.step(expert.act())
    env.close()
    return digest.hexdigest()


@pytest.mark.parametrize("task", envs.TASKS)
def test_same_seed_gives_same_bits_in_processes_that_have_nothing_in_common_and_other_seeds_differ(task):
    here = fingerprint(task, 11)
    code = f"from tests.envs.test_tasks import fingerprint; print(fingerprint({task!r}, 11))"
    # As on two machines at once: other hash seeds, other numbers of threads for arithmetic and for the rasteriser.
    settings = (
        {"PYTHONHASHSEED": "1", "OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1", "LP_NUM_THREADS": "0"},
        {"PYTHONHASHSEED": "2", "OMP_NUM_THREADS": "5", "OPENBLAS_NUM_THREADS": "3", "LP_NUM_THREADS": "3"},
    )
    children = [
        subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True, env={**os.environ, **setting})
        for setting in settings
    ]
    there = [child.communicate(timeout=200)[0].split()[-1] for child in children]
    assert [child.returncode for child in children] == [0, 0]
    assert there == [here, here]
    assert fingerprint(task, 12) != here


def test_environment_is_a_dm_env(env):
    assert isinstance(env, dm_env.Environment)
    assert env.reward_spec().dtype == float
