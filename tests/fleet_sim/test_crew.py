"""Episodes on workers that die: others play them again, and nobody waits for ever."""

import pathlib
import sys
import threading

import pytest

from fleet_sim import crew as crew_module
from fleet_sim.crew import Crew, CrewFailedError, Engine, EpisodeOrder, Helps, PlayedEpisode, WorkerLostError
from sop_jax.specs.errors import MissingDependencyError


class Actor:
    """A worker whose episodes last 90 ticks, told every 30; it is lost in those that `fate` names, and comes back or not."""

    def __init__(self, fate=(), returns=True):
        self.fate, self.returns, self.played = list(fate), returns, []
        self.killed = threading.Event()

    def play(self, playing):
        number = len(self.played)
        self.played.append(playing.order.seed)
        playing.note(30, Helps())
        if number in self.fate:
            raise WorkerLostError("the machine is gone")
        playing.note(60, Helps((31,), (40,)))
        playing.finish(PlayedEpisode(90, pathlib.Path("none"), True), helps=Helps((31,), (40,)))

    def wait_until_back(self):
        return self.returns and not self.killed.is_set()

    def kill(self):
        self.killed.set()


def order(seed):
    return EpisodeOrder(f"robot-1.{seed:020d}.000000", "robot-1", "restock_shelf", seed, 0, 0)


@pytest.fixture
def make(monkeypatch):
    def make(*workers):
        monkeypatch.setattr(crew_module, "_make_workers", lambda settings, num_workers, engine: workers)
        return Crew({}, len(workers))

    return make


def test_a_lost_workers_episode_is_played_by_another_one(make):
    lost, other = Actor(fate=[0], returns=False), Actor()
    with make(lost, other) as crew:
        playing = [crew.play(order(seed)) for seed in range(8)]
        assert [each.wait_for_end().num_frames for each in playing] == [90] * 8
        assert playing[3].helps_until(35) == Helps((31,), ())
    assert len(lost.played) <= 1
    assert sorted({*lost.played, *other.played}) == list(range(8))
    assert len(other.played) == 8


def test_a_worker_that_comes_back_goes_on(make):
    worker = Actor(fate=[1, 2])
    with make(worker) as crew:
        playing = [crew.play(order(seed)) for seed in range(3)]
        assert [each.wait_for_end().num_frames for each in playing] == [90] * 3
    assert worker.played == [0, 1, 1, 1, 2]


def test_without_any_worker_everybody_is_told(make):
    with make(Actor(fate=[0], returns=False), Actor(fate=[0], returns=False)) as crew:
        playing = [crew.play(order(seed)) for seed in range(3)]
        for each in playing:
            with pytest.raises(CrewFailedError, match="no worker is left; the last one was lost: the machine is gone"):
                each.wait_for_end()
        with pytest.raises(CrewFailedError, match="no worker is left"):
            crew.play(order(9)).wait(0)


class Broken(Actor):
    """Its process ends with an error in the first episode."""

    def play(self, playing):
        raise RuntimeError("ran out of memory")


def test_an_episode_that_fails_ends_all_also_if_nobody_asks_for_it(make):
    with make(Broken()) as crew:
        crew.play(order(0)).drop()
        unasked, waiting = crew.play(order(1)), crew.play(order(2))
        with pytest.raises(CrewFailedError, match="ran out of memory"):
            waiting.wait_for_end()
        with pytest.raises(CrewFailedError, match=r"episode robot-1\..*: ran out of memory"):
            crew.play(order(3)).wait(0)
        unasked.drop()


def test_what_was_told_once_stays_told():
    playing = crew_module.EpisodeInPlay(order(1))
    playing.note(60, Helps((31,), (40,)))
    playing.note(30, Helps())  # another worker, from the beginning
    assert playing.wait(59) is None
    assert playing.helps_until(59) == Helps((31,), (40,))


def test_an_engine_that_is_not_installed(monkeypatch):
    monkeypatch.delitem(sys.modules, "fleet_sim.ray_worker", raising=False)
    monkeypatch.setitem(sys.modules, "ray", None)
    with pytest.raises(MissingDependencyError, match=r"--engine ray needs Ray .*launch/setup.sh ray"):
        Crew({}, 1, Engine("ray"))
