"""Episodes on workers that die: others play them again, and nobody waits for ever."""

import pathlib
import sys
import threading

import pytest

from fleet_sim import crew as crew_module
from fleet_sim.crew import Crew, CrewFailedError, Engine, EpisodeOrder, Helps, PlayedEpisode, WorkerLostError
from sop_jax.specs.errors import ConfigError, MissingDependencyError

LONG_S = 60.0
"""Longer than anything here takes: who waits so long waits for ever."""


class Actor:
    """A worker whose episodes last 90 ticks, told every 30; it is lost in those that `fate` names, and comes back or not.

    began: set once it has an episode. may_play: it goes on with its first one once this is set.
    """

    def __init__(self, fate=(), returns=True, may_play=None):
        self.fate, self.returns, self.played = list(fate), returns, []
        self.began, self.killed = threading.Event(), threading.Event()
        self.may_play = may_play or self.began

    def play(self, playing):
        number = len(self.played)
        self.played.append(playing.order.seed)
        self.began.set()
        assert self.may_play.wait(LONG_S)
        playing.note(30, Helps())
        if number in self.fate:
            raise WorkerLostError("the machine is gone")
        playing.note(60, Helps((31,), (40,)))
        playing.finish(PlayedEpisode(90, pathlib.Path("none"), True), helps=Helps((31,), (40,)))

    def wait_until_there(self):
        return not self.killed.is_set() and (self.returns or not self.played)

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
    lost = Actor(fate=[0], returns=False)
    other = Actor(may_play=lost.began)
    with make(lost, other) as crew:
        playing = [crew.play(order(seed)) for seed in range(8)]
        assert [each.wait_for_end().num_frames for each in playing] == [90] * 8
        assert playing[3].helps_until(35) == Helps((31,), ())
    assert len(lost.played) == 1
    assert lost.killed.is_set()
    assert sorted(other.played) == list(range(8))


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
        self.played.append(playing.order.seed)
        self.began.set()
        assert self.may_play.wait(LONG_S)
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


class LostAfterwards(Actor):
    """Tells its last word and is lost."""

    def play(self, playing):
        super().play(playing)
        raise WorkerLostError("the machine is gone")


def test_an_episode_that_is_over_is_not_played_again(make):
    worker = LostAfterwards()
    with make(worker) as crew:
        playing = [crew.play(order(seed)) for seed in range(3)]
        assert [each.wait_for_end().num_frames for each in playing] == [90] * 3
    assert worker.played == [0, 1, 2]
    playing[0].finish(PlayedEpisode(30, pathlib.Path("other"), False))
    playing[0].finish(None, "the machine is gone")
    assert playing[0].wait_for_end() == PlayedEpisode(90, pathlib.Path("none"), True)


def test_who_is_lost_beside_a_failure_leaves_nobody_waiting(make):
    failed = threading.Event()
    lost = Actor(fate=[0], returns=False, may_play=failed)
    with make(lost, Broken(may_play=lost.began)) as crew:
        playing = [crew.play(order(seed)) for seed in range(2)]
        ends = []

        def wait_for(each):
            with pytest.raises(CrewFailedError) as error:
                each.wait_for_end()
            ends.append(str(error.value))
            failed.set()  # whichever the broken one has is told first

        threads = [threading.Thread(target=wait_for, args=(each,), daemon=True) for each in playing]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(LONG_S)
    assert len(ends) == 2
    assert len(set(ends)) == 1
    assert "ran out of memory" in ends[0]


class NeverThere(Actor):
    """A cluster without a CPU for it."""

    def wait_until_there(self):
        return False


def test_a_worker_that_never_comes_takes_no_episode(make):
    absent, present = NeverThere(), Actor(may_play=(gone := NeverThere()).killed)
    with make(absent, gone, present) as crew:
        playing = [crew.play(order(seed)) for seed in range(4)]
        assert [each.wait_for_end().num_frames for each in playing] == [90] * 4
    assert (absent.played, gone.played, present.played) == ([], [], [0, 1, 2, 3])


def test_where_none_comes_everybody_is_told(make):
    with make(NeverThere(), NeverThere()) as crew, pytest.raises(CrewFailedError, match="is left; none came in time"):
        crew.play(order(0)).wait(0)


class Unmakeable(Actor):
    def wait_until_there(self):
        raise RuntimeError("no environment for it")


def test_a_worker_that_can_not_be_made_ends_all(make):
    with make(Unmakeable()) as crew, pytest.raises(CrewFailedError, match="no environment for it"):
        crew.play(order(0)).wait(0)


def test_a_crew_of_nobody_is_refused(make):
    with pytest.raises(ConfigError, match="nobody would play"):
        make()
    with pytest.raises(ConfigError, match=r"num_workers must be >= 0 .*, got -1"):
        Crew({}, -1)


def test_a_file_is_there_whole_or_not_at_all(tmp_path):
    episode_id = order(1).episode_id
    path = crew_module.keep_file(tmp_path, episode_id, b"first")
    with path.open("rb") as reader:  # who reads it meanwhile reads it to its end
        assert crew_module.keep_file(tmp_path, episode_id, b"second one") == path
        assert reader.read() == b"first"
    assert {found.name: found.read_bytes() for found in tmp_path.iterdir()} == {f"{episode_id}.zip": b"second one"}


def test_what_was_told_once_stays_told():
    playing = crew_module.EpisodeInPlay(order(1))
    playing.note(60, Helps((31,), (40,)))
    playing.note(30, Helps())  # another worker, from the beginning
    assert playing.wait(59) is None
    assert playing.helps_until(59) == Helps((31,), (40,))


def test_people_have_acted_as_far_as_the_simulation_has_come():
    playing = crew_module.EpisodeInPlay(order(1))
    playing.note(90, Helps((31, 50), (40,)))  # the worker is far ahead
    helped = []
    for tick in (30, 35, 45, 55):
        playing.reach(tick)
        helped.append(playing.num_helped)
    assert helped == [0, 4, 9, 9 + 5]


def test_an_engine_that_is_not_installed(monkeypatch):
    monkeypatch.delitem(sys.modules, "fleet_sim.ray_worker", raising=False)
    monkeypatch.setitem(sys.modules, "ray", None)
    with pytest.raises(MissingDependencyError, match=r"--engine ray needs Ray .*launch/setup.sh ray"):
        Crew({}, 1, Engine("ray"))
