import dataclasses

import numpy as np
import pytest
from episode_strategies import packed

from sop_jax.episodes.synthetic import make_episode, make_spec
from sop_jax.episodes.verify import verify_bytes
from sop_jax.interchange.errors import InvalidDatasetError
from sop_jax.interchange.thinning import thin
from sop_jax.specs.records import Episode, EpisodeMark

SPEC = make_spec(image_size=8, camera_names=("head",))


def test_a_takeover_between_two_pictures_vanishes():
    episode = make_episode(1, 13, spec=SPEC, takeovers=((4, 4, 6), (7, 8, 10)))
    thinned = thin(episode)
    assert thinned.arrays.intervention.tolist() == [False, False, False, True, False]
    assert [(e.takeover_frame, e.handback_frame) for e in thinned.manifest.takeovers] == [(3, 4)]
    assert thinned.manifest.control_hz == 10.0
    verify_bytes(*packed(thinned))


def test_marks_go_to_the_picture_before():
    episode = make_episode(1, 13, spec=SPEC)
    marks = tuple(EpisodeMark(frame, "hold", "") for frame in (0, 2, 3, 12))
    marked = dataclasses.replace(episode, manifest=dataclasses.replace(episode.manifest, marks=marks))
    thinned = thin(marked)
    assert [mark.frame for mark in thinned.manifest.marks] == [0, 0, 1, 4]
    verify_bytes(*packed(thinned))


def test_takeovers_that_become_neighbours_stay_two():
    thinned = thin(make_episode(1, 13, spec=SPEC, takeovers=((2, 2, 4), (5, 5, 8))))
    assert [(e.takeover_frame, e.handback_frame) for e in thinned.manifest.takeovers] == [(1, 2), (2, 3)]
    verify_bytes(*packed(thinned))


def test_uneven_pictures_have_no_rate():
    episode = make_episode(1, 9, spec=SPEC)
    uneven = dataclasses.replace(episode.arrays, image_frames=np.array([0, 3, 5], np.int32))
    with pytest.raises(InvalidDatasetError, match=r"always as many, got \[2, 3\]"):
        thin(Episode(episode.manifest, uneven, episode.jpegs))
