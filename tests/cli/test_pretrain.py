from sop_jax.cli.pretrain import take_evenly
from sop_jax.episodes.format import pack, parse
from sop_jax.episodes.synthetic import make_episode


def _parsed(count, num_frames, task):
    return parse(pack(make_episode(count, num_frames, task=task)))


def test_every_task_has_an_even_say_in_the_statistics():
    short = [_parsed(count, 30, "restock_shelf") for count in range(3)]
    long = [_parsed(count, 60, "laundry_fold") for count in range(3, 8)]
    taken = take_evenly([*long, *short])
    assert [arrays.num_frames for arrays in taken] == [60, 60, 30, 30, 30]


def test_one_task_is_taken_whole():
    episodes = [_parsed(count, 30, "restock_shelf") for count in range(3)]
    assert take_evenly(episodes) == [episode.arrays for episode in episodes]
