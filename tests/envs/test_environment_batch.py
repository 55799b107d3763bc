import hashlib

import dm_env
import numpy as np
import pytest

import envs
from envs.batch import EnvironmentBatch


def _whole(timestep: dm_env.TimeStep | None) -> dm_env.TimeStep:
    """A time step of a world that has not diverged."""
    assert timestep is not None
    return timestep


def _life(num_threads: int, task: str = "restock_shelf") -> list[str]:
    """Digests of every environment's states and of its last pictures."""
    digests = [hashlib.sha256() for _ in range(3)]
    with EnvironmentBatch([envs.load(task, image_size=16) for _ in digests], num_threads) as batch:
        rng = np.random.default_rng(0)
        timesteps = batch.reset([4, 5, 6])
        actions = np.stack([timestep.observation["state"] for timestep in timesteps])
        for _ in range(15):
            for digest, timestep in zip(digests, batch.step(actions + rng.normal(0, 0.1, actions.shape)), strict=True):
                digest.update(_whole(timestep).observation["state"].tobytes())
        for digest, images in zip(digests, batch.render(), strict=True):
            digest.update(images["head"].tobytes())
    return [digest.hexdigest() for digest in digests]


@pytest.mark.parametrize("task", envs.TASKS)
def test_the_number_of_threads_changes_no_bit(task):
    alone = _life(1, task)
    assert len(set(alone)) == 3
    assert _life(2, task) == alone
    assert _life(3, task) == alone


def test_a_batch_does_what_its_environments_would_do_alone():
    env = envs.load("restock_shelf", time_limit_s=0.2)
    with EnvironmentBatch([envs.load("restock_shelf", time_limit_s=0.2) for _ in range(2)], 2) as batch:
        first = env.reset(9)
        both = batch.reset([8, 9])
        np.testing.assert_array_equal(both[1].observation["state"], first.observation["state"])
        for _ in range(8):  # over the end of an episode
            action = env.executed_action
            timestep = env.step(action)
            stepped = _whole(batch.step(np.stack([batch.environments[0].executed_action, action]))[1])
            assert stepped.step_type == timestep.step_type
            np.testing.assert_array_equal(stepped.observation["state"], timestep.observation["state"])
    env.close()


def test_images_in_every_observation_are_those_of_one_environment_alone():
    env = envs.load("restock_shelf", image_size=16, render_on_step=True)
    made = [envs.load("restock_shelf", image_size=16, render_on_step=True) for _ in range(2)]
    with EnvironmentBatch(made, 2) as batch:
        batch.reset([8, 9])
        env.reset(9)
        for _ in range(2):
            action = env.executed_action
            alone, second = env.step(action), _whole(batch.step(np.stack([action, action]))[1])
            np.testing.assert_array_equal(second.observation["hand_right"], alone.observation["hand_right"])
    env.close()


def test_only_the_pictures_asked_for_are_made_and_they_are_in_order():
    with EnvironmentBatch([envs.load("restock_shelf", image_size=16) for _ in range(3)], 2) as batch:
        batch.reset([1, 2, 3])
        third, first = batch.render([2, 0])
        np.testing.assert_array_equal(third["head"], batch.render()[2]["head"])
        np.testing.assert_array_equal(first["head"], batch.render([-3])[0]["head"])
        assert (third["head"] != first["head"]).any()


def test_one_diverged_world_does_not_stop_the_others():
    with EnvironmentBatch([envs.load("restock_shelf") for _ in range(2)]) as batch:
        timesteps = batch.reset([1, 2])
        actions = np.stack([timestep.observation["state"] for timestep in timesteps])
        batch.environments[0].data.qvel[0] = np.nan
        broken, whole = batch.step(actions)
        assert broken is None
        assert np.isfinite(_whole(whole).observation["state"]).all()
        again, _ = batch.step(actions)
        assert _whole(again).first()


def test_what_does_not_fit_is_refused():
    with pytest.raises(ValueError, match="at least one environment"):
        EnvironmentBatch([])
    batch = EnvironmentBatch([envs.load("restock_shelf")])
    with pytest.raises(ValueError, match="seeds: expected one per environment, 1, got 2"):
        batch.reset([1, 2])
    batch.reset([1])
    for nonsense in (np.full((1, 16), np.nan), np.zeros((2, 16)), np.zeros((1, 15))):
        with pytest.raises(envs.InvalidActionError, match=r"finite numbers of shape \(1, 16\)"):
            batch.step(nonsense)
    assert batch.environments[0].time_s == 0.0
    batch.close()
    batch.close()
    with pytest.raises(RuntimeError, match="the batch is closed"):
        batch.reset([1])
