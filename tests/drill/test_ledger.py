import contextlib
import dataclasses
import errno
import os
import resource
import signal

import pytest

from sop_jax.drill import ledger as ledger_module
from sop_jax.drill.ledger import Ledger, read_ledgers
from sop_jax.episodes.format import pack
from sop_jax.episodes.synthetic import make_episode
from sop_jax.specs.records import Outcome


@dataclasses.dataclass
class Answers:
    """A spool that gives these answers."""

    answers: list[bool]
    num_given_up: int = 0

    def accept(self, episode):
        return self.answers.pop(0)


def keep(path, spool, *episodes):
    ledger = Ledger(path, spool)
    told = [ledger.accept(episode) for episode in episodes]
    ledger.close()
    return told


def test_what_was_announced_and_what_became_of_it(tmp_path):
    path = tmp_path / "ledger" / "robot-0.jsonl"
    good, lost = make_episode(1, takeovers=((2, 3, 5),)), make_episode(2, outcome=Outcome.ERROR)
    assert keep(path, Answers([True, False]), good, lost) == [True, False]
    entries = read_ledgers([path])
    first, second = entries[good.manifest.episode_id], entries[lost.manifest.episode_id]
    assert (first.accepted, first.trains, first.image_frames) == (True, True, (0, 3, 6, 9))
    assert (first.num_bytes, len(first.sha256)) == (len(pack(good)), 64)
    assert first.ended_ns == good.manifest.ended_ns
    assert (second.accepted, second.trains) == (False, False)


def test_a_kill_leaves_one_open_question_and_the_next_start_goes_on(tmp_path):
    path = tmp_path / "robot-0.jsonl"
    keep(path, Answers([True, True]), make_episode(1), make_episode(2))
    lines = path.read_bytes().splitlines(keepends=True)
    path.write_bytes(b"".join(lines[:3]) + lines[3][:9])  # killed while it wrote the second answer
    keep(path, Answers([True]), make_episode(3))
    answers = {episode_id[-1]: entry.accepted for episode_id, entry in read_ledgers([path]).items()}
    assert answers == {"1": True, "2": None, "3": True}


@contextlib.contextmanager
def full_disk(num_bytes):
    """Files grow to so many bytes only: the line on the border is written in part, the others not at all."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    handler = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (num_bytes, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
        signal.signal(signal.SIGXFSZ, handler)


def test_lines_that_a_full_disk_refuses_come_late_and_cost_no_episode(tmp_path):
    path, told = tmp_path / "robot-0.jsonl", []
    spool = Answers([True, True, False, True])
    ledger = Ledger(path, spool, told.append)
    assert ledger.accept(make_episode(1))
    with full_disk(path.stat().st_size + 50):
        assert [ledger.accept(make_episode(count)) for count in (2, 3)] == [True, False]
        assert ledger.num_unwritten == 4
    assert ledger.accept(make_episode(4))
    ledger.close()
    assert (spool.answers, ledger.num_unwritten) == ([], 0)
    assert [text.startswith(f"the ledger {path} can't be written: ") for text in told] == [True]
    entries = {episode_id[-1]: entry.accepted for episode_id, entry in read_ledgers([path]).items()}
    assert entries == {"1": True, "2": True, "3": False, "4": True}


def test_what_a_full_disk_never_takes_is_told_at_the_end(tmp_path, monkeypatch):
    monkeypatch.setattr(ledger_module, "_MAX_LATE_LINES", 3)
    path, told = tmp_path / "robot-0.jsonl", []
    ledger = Ledger(path, Answers([True, True]), told.append)
    with full_disk(0):
        for count in (1, 2):
            assert ledger.accept(make_episode(count))
        ledger.close()
    assert told[1:] == [
        f"4 lines of the ledger {path} were not written: `sop doctor --drill` won't know these episodes"
    ]
    assert read_ledgers([path]) == {}


@pytest.mark.parametrize("code", [errno.ENOSPC, errno.EACCES])
def test_a_ledger_that_cant_be_begun(tmp_path, monkeypatch, code):
    path, told = tmp_path / "robot-0.jsonl", []

    def refuse(self, *_, **__):
        raise OSError(code, os.strerror(code))

    with monkeypatch.context() as patch:
        patch.setattr(type(path), "open", refuse)
        if code == errno.EACCES:  # no time makes it better
            with pytest.raises(PermissionError):
                Ledger(path, Answers([]), told.append)
            return
        ledger = Ledger(path, Answers([True]), told.append)
        assert ledger.accept(make_episode(1))
    ledger.close()
    assert (len(told), [entry.accepted for entry in read_ledgers([path]).values()]) == (1, [True])


def test_one_id_with_two_contents_is_refused(tmp_path):
    for robot, seed in (("a", 1), ("b", 2)):
        keep(tmp_path / f"{robot}.jsonl", Answers([True]), make_episode(seed, count=7))
    with pytest.raises(ValueError, match="announced twice, with different bytes"):
        read_ledgers(sorted(tmp_path.glob("*.jsonl")))
