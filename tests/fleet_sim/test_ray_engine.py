"""A fleet on a simulated Ray cluster of several machines, which die in the middle."""

import json
import pathlib
import subprocess
import sys

import pytest
import test_fleet
from test_fleet import bundle, demonstrations  # noqa: F401 (fixtures)

from fleet_sim.config import Stage
from sop_jax.episodes.store import EpisodeStore


@pytest.mark.slow
def test_machines_that_die_change_nothing(tmp_path, bundle, demonstrations):  # noqa: F811
    pytest.importorskip("ray")
    stages = [Stage(20.0, learner_steps=100)]
    expected, expected_bytes = test_fleet.run(tmp_path / "local", bundle, demonstrations, stages)
    store = EpisodeStore(f"file://{tmp_path}/ray/store/")
    for episode in demonstrations:
        store.put(episode)
    script = pathlib.Path(__file__).with_name("on_ray_cluster.py")
    done = subprocess.run(
        [sys.executable, str(script), str(tmp_path / "ray")], capture_output=True, text=True, timeout=280, check=False
    )
    assert done.returncode == 0, done.stderr[-2000:]
    told = json.loads(done.stdout.splitlines()[-1])
    assert told["losses"] >= 1
    assert told["deaths"]
    assert told["journal"] == repr(expected)
    assert {path: store.read_bytes(path) for path in store.list_paths()} == expected_bytes
