"""A robot that is started again meets no scene twice, whatever became of its episodes."""

import os

import pytest
from actor_parts import make_runner
from hypothesis import given
from hypothesis import strategies as st

from sop_jax.actors.actor import ActorConfig
from sop_jax.actors.episode_counter import EpisodeCounter
from sop_jax.actors.rollout import RolloutConfig
from sop_jax.cli import acting
from sop_jax.cli.acting import Upkeep, run_actor
from sop_jax.cli.stopping import StopRequests
from sop_jax.episodes import kvstore
from sop_jax.episodes.format import pack
from sop_jax.episodes.store import EpisodeStore
from sop_jax.episodes.synthetic import make_episode
from sop_jax.robots.fake import FakeRobot, FakeRobotConfig
from sop_jax.specs.clock import WallClock
from sop_jax.specs.errors import ConfigError
from sop_jax.specs.identifiers import number_of_episode
from sop_jax.specs.metrics import NoMetrics

URL = "s3://bucket/run/"


def test_it_counts_on_over_restarts_for_one_store(tmp_path):
    assert EpisodeCounter(tmp_path, URL).next_number() == 0
    for number in (0, 1, 7):
        EpisodeCounter(tmp_path, URL).note(number)
        assert EpisodeCounter(tmp_path, URL.rstrip("/")).next_number() == number + 1
    assert EpisodeCounter(tmp_path, "s3://bucket/another/").next_number() == 0
    EpisodeCounter(tmp_path, "s3://bucket/another/").note(2)
    assert EpisodeCounter(tmp_path, URL).next_number() == 0


@given(
    text=st.binary(max_size=40) | st.sampled_from([b"[" * 9999, b"7", b'{"next": 3}']),
    number=st.none() | st.sampled_from([b"-1", b"1e9", b"true", b"null", b"1" * 999, b"1" * 9999]),
)
def test_a_damaged_file_counts_for_nothing(text, number, tmp_path_factory):
    folder = tmp_path_factory.mktemp("counter")
    counter = EpisodeCounter(folder, URL)
    counter.note(76)
    file = folder / "next_episode.json"
    file.write_bytes(text if number is None else file.read_bytes().replace(b"77", number, 1))
    assert counter.next_number() == 0
    counter.note(4)
    assert counter.next_number() == 5


def test_a_count_that_cant_be_written_leaves_the_old_one(tmp_path, monkeypatch):
    counter = EpisodeCounter(tmp_path, URL)
    counter.note(4)

    def broken(descriptor):
        raise OSError("the disk is read-only")

    with monkeypatch.context() as patch:
        patch.setattr(os, "fsync", broken)
        with pytest.raises(OSError, match="read-only"):
            counter.note(5)
    assert counter.next_number() == 5


@pytest.fixture(scope="module")
def runner():
    return make_runner()


def act(runner, store_url, spool, num_episodes):
    clock = WallClock(rate=100.0)
    config = ActorConfig(
        "fake-1", "fake_task", supervised=False, num_episodes=num_episodes, rollout=RolloutConfig(execute_steps=8)
    )
    robot = FakeRobot(FakeRobotConfig(time_limit_frames=4), clock)
    upkeep = Upkeep(store_url, spool, 1.0, 1.0, 60.0)
    with StopRequests() as stop:
        _, uploaded = run_actor(config, upkeep, robot, runner, None, clock, NoMetrics(), stop)
    assert uploaded
    return [
        (number_of_episode(summary.manifest.episode_id), summary.manifest.seed)
        for summary in EpisodeStore(store_url).summaries()
        if summary.manifest is not None
    ]


def remove(store_url, numbers):
    store = EpisodeStore(store_url)
    for path in store.list_paths():
        if number_of_episode(path.removesuffix(".zip").rpartition("/")[2]) in numbers:
            kvstore.remove(store.root, path)


@pytest.mark.parametrize("removed", [(0,), (2,), (0, 1, 2)], ids=["oldest", "newest", "all"])
def test_retention_brings_no_scene_back(runner, store_url, tmp_path, removed):
    first = act(runner, store_url, tmp_path / "spool", 3)
    assert [number for number, _ in first] == [0, 1, 2]
    remove(store_url, removed)
    seeds = {seed for number, seed in act(runner, store_url, tmp_path / "spool", 2) if number > 2}
    assert len(seeds) == 2
    assert not seeds & {seed for _, seed in first}


def test_a_robot_whose_spool_was_lost_goes_on_after_what_the_store_has(runner, store_url, tmp_path):
    act(runner, store_url, tmp_path / "spool", 3)
    remove(store_url, (0, 1))
    listed = act(runner, store_url, tmp_path / "new", 1)
    assert sorted(number for number, _ in listed) == [2, 3]  # listed by time, and the clock may have been put back


def test_a_robot_that_lost_its_count_goes_on_after_what_still_waits(runner, store_url, tmp_path, monkeypatch):
    """What a full spool gives up goes by the numbers: new episodes mustn't look older than those that wait."""
    place = tmp_path / "spool"
    place.mkdir()
    for count in (40, 41):
        episode = make_episode(seed=0, num_frames=3, image_size=16, count=count, robot_id="fake-1")
        (place / f"{episode.manifest.episode_id}.zip").write_bytes(pack(episode))
    (place / "notes.zip").write_bytes(b"a stranger")
    listed = act(runner, store_url, place, 1)
    assert sorted(number for number, _ in listed) == [40, 41, 42]


def test_a_disk_that_refuses_the_count_stops_no_robot(runner, store_url, tmp_path, monkeypatch, capsys):
    def broken(self, number):
        raise OSError("no space left")

    with monkeypatch.context() as patch:
        patch.setattr(acting.EpisodeCounter, "note", broken)
        assert len(act(runner, store_url, tmp_path / "spool", 2)) == 2
    assert "the number of the next episode wasn't written down: no space left" in capsys.readouterr().err


def test_episodes_on_their_way_to_one_store_go_to_no_other(runner, store_url, tmp_path):
    act(runner, store_url, tmp_path / "spool", 1)
    other = f"file://{tmp_path}/another/"
    act(runner, other, tmp_path / "spool", 1)  # an empty spool may serve another store
    (tmp_path / "spool" / "left.zip").write_bytes(b"")
    with pytest.raises(ConfigError, match="1 episodes on their way to another store"):
        act(runner, store_url, tmp_path / "spool", 1)
    assert len(act(runner, other, tmp_path / "spool", 1)) == 2
