import dataclasses

import pytest

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
    assert (second.accepted, second.trains) == (False, False)


def test_a_kill_leaves_one_open_question_and_the_next_start_goes_on(tmp_path):
    path = tmp_path / "robot-0.jsonl"
    keep(path, Answers([True, True]), make_episode(1), make_episode(2))
    lines = path.read_bytes().splitlines(keepends=True)
    path.write_bytes(b"".join(lines[:3]) + lines[3][:9])  # killed while it wrote the second answer
    keep(path, Answers([True]), make_episode(3))
    answers = {episode_id[-1]: entry.accepted for episode_id, entry in read_ledgers([path]).items()}
    assert answers == {"1": True, "2": None, "3": True}


def test_one_id_with_two_contents_is_refused(tmp_path):
    for robot, seed in (("a", 1), ("b", 2)):
        keep(tmp_path / f"{robot}.jsonl", Answers([True]), make_episode(seed, count=7))
    with pytest.raises(ValueError, match="announced twice, with different bytes"):
        read_ledgers(sorted(tmp_path.glob("*.jsonl")))
