"""Robots with bodies on wall time, with everything real: worlds, store, Reverb, learner, signals."""

import json
import os
import pathlib
import signal
import subprocess
import sys
import time

import pytest

from fleet_sim.config import TimingConfig
from fleet_sim.live_crowd_process import LiveReport
from fleet_sim.wall_fleet import LiveBodies, run_wall
from fleet_sim.wall_learner import LearnerSettings, fleet_config
from sop_jax.episodes.store import EpisodeStore
from sop_jax.episodes.synthetic import make_episode
from sop_jax.specs.records import NO_POLICY, Source
from tests.fleet_sim.test_wall_fleet import POLICY, demonstrations

SETTINGS = LearnerSettings(
    str(POLICY), "", "", {"restock_shelf": 4}, steps_per_s=1.0, batch_size=8, publish_every=5, warm_steps=2
)
DURATION_S = 30.0


def crowd_pids(parent):
    """Processes of crowds that this process started."""
    found = []
    for path in pathlib.Path("/proc").glob("[0-9]*"):
        try:
            command = (path / "cmdline").read_bytes().split(b"\0")
            started_by = int((path / "stat").read_text().rsplit(")", 1)[1].split()[1])
        except OSError:
            continue
        if started_by == parent and b"fleet_sim.live_crowd_process" in command:
            found.append(int(path.name))
    return found


def online(url):
    return [path for path in EpisodeStore(url).list_paths() if "demonstrator" not in path]


@pytest.mark.slow
@pytest.mark.reverb
def test_worlds_live_beside_a_learner(tmp_path):
    store = demonstrations(tmp_path)
    config = fleet_config(SETTINGS, TimingConfig(reset_s=2.0))
    settings = LearnerSettings(**{**vars(SETTINGS), "store": store})
    result = run_wall(config, settings, "", tmp_path, DURATION_S, LiveBodies(num_threads=1))
    print(result.crowds, result.learner, result.num_lost)
    assert (result.num_restarts, result.num_lost) == (0, 0)
    assert not list((tmp_path / "spool").glob("*/*.zip"))
    (crowd,) = result.crowds
    assert isinstance(crowd, LiveReport)
    assert crowd.num_waiting == crowd.num_given_up == crowd.num_refused == 0
    episodes = result.journal.episodes
    assert len(episodes) == len(online(store)) == crowd.num_episodes >= 4
    assert {episode.robot_id for episode in episodes} == set(config.robot_ids)
    for robot_id in config.robot_ids:
        lived = sorted((e.started_s, e.version) for e in episodes if e.robot_id == robot_id)
        assert [version for _, version in lived] == sorted(version for _, version in lived)
    assert min(episode.version for episode in episodes) >= 1
    assert result.learner.num_settled == len(episodes) + 2  # and the demonstrations
    assert crowd.policy.num_requests > 0
    assert crowd.ticks.robot_s <= 4 * DURATION_S


@pytest.mark.slow
@pytest.mark.reverb
def test_a_killed_crowd_comes_back_and_ctrl_c_ends_the_fleet_whole(tmp_path):
    recorded = f"file://{tmp_path}/recorded/"
    for seed in range(2):
        EpisodeStore(recorded).put(
            make_episode(seed, 60, source=Source.OFFLINE, policy_version=NO_POLICY, robot_id="demonstrator-0")
        )
    command = [
        sys.executable, "-m", "sop_jax.cli.main", "fleet", "--clock", "wall", "--bodies", "worlds", "--robots", "2",
        "--recordings", recorded, "--folder", str(tmp_path / "run"), "--duration-s", "600", "--reset-s", "1",
        "--policy", str(POLICY), "--batch", "8", "--publish-every", "5", "--threads", "1", "--json",
    ]  # fmt: skip
    store = f"file://{tmp_path}/run/store/"
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, process_group=0) as fleet:

        def wait_for(num_episodes):
            deadline_s = time.monotonic() + 180
            while len(online(store)) < num_episodes:
                assert fleet.poll() is None
                assert time.monotonic() < deadline_s
                time.sleep(0.2)

        wait_for(2)
        (crowd,) = crowd_pids(fleet.pid)
        os.kill(crowd, signal.SIGKILL)
        wait_for(len(online(store)) + 2)
        os.killpg(fleet.pid, signal.SIGINT)  # as the terminal does
        out, _ = fleet.communicate(timeout=120)
    assert fleet.returncode == 0
    summary = json.loads(out.splitlines()[-1])
    assert (summary["lost"], summary["restarts"]) == (0, 1)
    assert summary["episodes"] == len(online(store)) > summary["crowds"][0]["num_episodes"]
    assert not list((tmp_path / "run" / "spool").glob("*/*.zip"))
    seeds = [EpisodeStore(store).read(path).manifest.seed for path in online(store)]
    assert len(set(seeds)) == len(seeds)  # the second crowd went on where the first was, or beyond
