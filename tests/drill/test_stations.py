import dataclasses
import json

import numpy as np
import pytest

from sop_jax.drill.place import TASK, Place
from sop_jax.drill.stations import StationSpec, look_at, main, newest_checkpoint
from sop_jax.episodes.store import EpisodeStore
from sop_jax.episodes.synthetic import make_episode, make_spec
from sop_jax.replay.items import encode_segment, label_all, segments_of
from sop_jax.specs.interfaces import SampledItem


@pytest.mark.parametrize("role", ["intake", "learner"])
def test_a_station_whose_parent_is_gone_ends(tmp_path, role):
    spec = StationSpec(role, role, str(tmp_path), parent=0, replay="localhost:1")
    main([json.dumps(dataclasses.asdict(spec))])  # returns


def test_the_newest_checkpoint(tmp_path):
    assert newest_checkpoint(tmp_path) == 0
    for step in (5, 15, 10):
        (tmp_path / f"{step:09d}.json").touch()
    assert newest_checkpoint(tmp_path) == 15


def test_what_the_learner_sees_of_an_item(tmp_path):
    place = Place(tmp_path)
    store, rng = EpisodeStore(place.store_url), np.random.default_rng(0)
    episode = make_episode(1, 6, spec=make_spec(16, ("head",)), task=TASK)
    index = store.put(episode)
    (segment,) = segments_of(episode.manifest, index, episode.arrays, label_all(episode.manifest, episode.arrays))
    item = encode_segment(segment)
    sampled = SampledItem(item.key, item.columns, 1.0, 1, 1)
    assert look_at(store, sampled, rng)["result"] == "good"
    data = bytearray(place.object(index.path).read_bytes())
    start, length = index.image_ranges[0, 0]
    data[start : start + length] = bytes(int(length))
    for offset, _ in index.image_ranges[:, 0]:
        data[offset : offset + 2] = b"no"
    place.object(index.path).write_bytes(data)
    assert str(look_at(store, sampled, rng)["result"]).startswith("torn: ")
    other = dataclasses.replace(segment, episode_id=segment.episode_id[:-1] + "9")
    foreign = SampledItem(item.key, encode_segment(other).columns, 1.0, 1, 1)
    store_again = EpisodeStore(Place(tmp_path / "b").store_url)
    store_again.put(episode)
    assert str(look_at(store_again, foreign, rng)["result"]).startswith("foreign: ")
    place.object(index.path).unlink()
    assert look_at(store, sampled, rng)["result"] == "gone"
