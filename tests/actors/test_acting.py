"""A robot's process as a whole: it starts, works and ends, whatever is away or full around it."""

import pathlib
import threading

import pytest
from actor_parts import make_runner, store_out_of_reach

from sop_jax.actors import spool as spool_module
from sop_jax.actors import weights_feed
from sop_jax.actors.actor import ActorConfig
from sop_jax.actors.rollout import RolloutConfig
from sop_jax.cli import acting
from sop_jax.cli.acting import Upkeep, run_actor
from sop_jax.cli.stopping import StopRequests
from sop_jax.episodes.store import EpisodeStore
from sop_jax.robots.fake import FakeRobot, FakeRobotConfig
from sop_jax.specs.clock import WallClock
from sop_jax.specs.metrics import NoMetrics
from sop_jax.weights.follower import Follower


@pytest.fixture(scope="module")
def runner():
    return make_runner()


def act(runner, upkeep, num_episodes=2):
    clock = WallClock(rate=100.0)
    config = ActorConfig(
        "fake-1", "fake_task", supervised=False, num_episodes=num_episodes, rollout=RolloutConfig(execute_steps=8)
    )
    robot = FakeRobot(FakeRobotConfig(time_limit_frames=4), clock)
    with StopRequests() as stop:
        return run_actor(config, upkeep, robot, runner, None, clock, NoMetrics(), stop)


@pytest.mark.timeout(120, method="thread")  # what hangs in `finally` hears no signal twice
@pytest.mark.parametrize("is_silent", [False, True], ids=["refuses", "hangs"])
def test_a_robot_starts_works_and_ends_without_its_store(runner, tmp_path, monkeypatch, capsys, is_silent):
    go_on = threading.Event()
    if is_silent:
        for module, name in ((acting, "_LISTING_S"), (spool_module, "_CLOSE_S"), (weights_feed, "_CLOSE_S")):
            monkeypatch.setattr(module, name, 0.2)
        for kind, call in ((EpisodeStore, "list_paths"), (EpisodeStore, "put_bytes"), (Follower, "latest")):
            monkeypatch.setattr(kind, call, lambda *_: go_on.wait())
    upkeep = Upkeep(store_out_of_reach(), tmp_path / "spool", 1.0, weights_poll_s=1.0, drain_s=20.0)
    report, uploaded = act(runner, upkeep)
    assert (report.num_episodes, uploaded) == (2, False)
    assert len(list((tmp_path / "spool").glob("*.zip"))) == 2
    go_on.set()
    told = capsys.readouterr().err
    assert "the store doesn't answer, episodes wait in the spool: " in told
    assert ("no list of its episodes within" if is_silent else "Could not connect to server") in told
    assert "2 episodes still wait in the spool; the next start uploads them" in told


def test_a_ledger_on_a_full_disk_stops_no_robot_and_costs_no_episode(runner, store_url, tmp_path, capsys):
    upkeep = Upkeep(store_url, tmp_path / "spool", 1.0, 1.0, 60.0, ledger=pathlib.Path("/dev/full"))
    report, uploaded = act(runner, upkeep)
    assert (report.num_episodes, uploaded) == (2, True)
    assert len(EpisodeStore(store_url).list_paths()) == 2
    told = " ".join(capsys.readouterr().err.split())
    assert told.count("the ledger /dev/full can't be written: [Errno 28] No space left on device") == 1
    assert "4 lines of the ledger /dev/full were not written" in told
    spool_module.Spool(tmp_path / "spool", EpisodeStore(store_url), WallClock(), background=False).close()  # it is free
