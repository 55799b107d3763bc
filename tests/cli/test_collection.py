import dataclasses
import json
import os
import re
import signal

import pytest

import envs
from configs.experiment import DemonstrationsConfig
from configs.files import to_json
from sop_jax.actors.demonstrate import DemonstrationConfig, StartNoise
from sop_jax.cli.arguments import UsageError
from sop_jax.cli.collection import Kept, collect, kept_so_far
from sop_jax.cli.main import INTERRUPTED, main
from sop_jax.episodes.store import EpisodeStore
from sop_jax.episodes.synthetic import make_episode
from sop_jax.evaluation.run_metrics import write_json
from sop_jax.evaluation.world import WorldConfig
from sop_jax.specs.errors import ConfigError


def _fill(store_url: str) -> EpisodeStore:
    """Two collectors' episodes of 3 s each: two of the first, one of the second; and somebody else's."""
    store = EpisodeStore(store_url)
    for robot, count in (("demonstrator-0", 0), ("demonstrator-0", 1), ("demonstrator-1", 0), ("robot-0", 0)):
        store.put(make_episode(count, 90, robot_id=robot))
    return store


def test_numbers_and_robot_time_are_counted_apart(store_url):
    store = _fill(store_url)
    assert kept_so_far(DemonstrationsConfig(num_episodes=3), store) == Kept(3, 0.0, True)
    assert kept_so_far(DemonstrationsConfig(num_episodes=4), store) == Kept(3, 0.0, False)
    by_time = DemonstrationsConfig(robot_hours=6 / 3600)
    assert kept_so_far(by_time, store) == Kept(3, pytest.approx(9.0), True)
    # 8 s in all are there, but the second collector's share of 4 s is not.
    assert not kept_so_far(DemonstrationsConfig(robot_hours=8 / 3600), store).complete
    assert kept_so_far(DemonstrationsConfig(num_episodes=1, name="nobody"), store) == Kept(0, 0.0, False)


def test_what_is_there_already_is_not_collected_again(store_url, tmp_path):
    _fill(store_url)
    logs = tmp_path / "logs"
    config = DemonstrationsConfig(robot_hours=6 / 3600)
    assert collect(config, WorldConfig(), tmp_path / "store", logs, lambda: True) == 3
    assert not logs.exists()


def test_what_was_collected_with_other_values_is_refused_and_what_goes_on_is_not(store_url, tmp_path):
    _fill(store_url)
    logs, world = tmp_path / "logs", WorldConfig()
    noise = StartNoise(dims=(0, 1))  # a tuple is a list in the file
    begun = DemonstrationsConfig(robot_hours=6 / 3600, collection=DemonstrationConfig(start_noise=noise))
    settings = {"demonstrations": to_json(begun), "world": to_json(world)}
    write_json(tmp_path / "collection-demonstrator.json", settings)

    def collect_again(changed_world=world, **changes):
        return collect(dataclasses.replace(begun, **changes), changed_world, tmp_path / "store", logs, lambda: True)

    assert collect_again() == 3
    with pytest.raises(KeyboardInterrupt):  # it is more of the same, and asked to stop at once
        collect_again(robot_hours=0.5)
    for changes, says in (
        ({"seed": 7}, "seed 0, now it is 7"),
        ({"robot_hours": 3 / 3600}, "robot_hours 0.5, now it is 0.0008"),
        ({"robot_hours": 0.0, "num_episodes": 3}, "num_episodes 100, now it is 3; robot_hours 0.5, now it is 0.0"),
        ({"collection": DemonstrationConfig()}, "collection DemonstrationConfig"),
        ({"changed_world": WorldConfig(image_size=32)}, "world.image_size 64, now it is 32"),
    ):
        with pytest.raises(UsageError, match=re.escape(f"{tmp_path} holds demonstrations of demonstrator")) as refused:
            collect_again(**changes)
        assert says in str(refused.value)


def test_settings_that_collected_nothing_bind_nobody(store_url, tmp_path):
    _fill(store_url)
    first = DemonstrationsConfig(name="other", seed=1)
    settings = tmp_path / "collection-other.json"
    write_json(settings, {"demonstrations": to_json(first), "world": to_json(WorldConfig())})
    with pytest.raises(KeyboardInterrupt):
        collect(dataclasses.replace(first, seed=2), WorldConfig(), tmp_path / "store", tmp_path / "logs", lambda: True)
    assert json.loads(settings.read_text())["demonstrations"]["seed"] == 2


def test_ctrl_c_inside_a_demonstration_interrupts_the_command(store_url, monkeypatch):
    class Pressing:
        """The expert; somebody presses Ctrl-C at the third tick of the second episode."""

        def __init__(self, expert):
            self._expert, self._num_episodes, self._num_ticks = expert, 0, 0

        def reset(self):
            self._num_episodes, self._num_ticks = self._num_episodes + 1, 0
            self._expert.reset()

        def act(self):
            self._num_ticks += 1
            if (self._num_episodes, self._num_ticks) == (2, 3):
                os.kill(os.getpid(), signal.SIGINT)
            return self._expert.act()

    make_expert = envs.make_expert
    monkeypatch.setattr(envs, "make_expert", lambda environment: Pressing(make_expert(environment)))
    assert main(["act", "--expert", "--robot-id", "demo-0", "--store", store_url, "--episodes", "3"]) == INTERRUPTED
    assert len(EpisodeStore(store_url).list_paths()) == 1  # what was whole stays


def test_collectors_have_names_and_shares():
    config = DemonstrationsConfig(num_episodes=5, num_collectors=2, name="demonstrator-fold")
    assert config.collectors == ("demonstrator-fold-0", "demonstrator-fold-1")
    assert [config.share_of(0), config.share_of(1)] == [3, 2]
    by_time = DemonstrationsConfig(robot_hours=2.0, num_collectors=4)
    assert (by_time.share_of(0), by_time.robot_s_each) == (None, 1800.0)
    with pytest.raises(ConfigError, match="robot_hours must be at least 0"):
        DemonstrationsConfig(robot_hours=-1.0)
