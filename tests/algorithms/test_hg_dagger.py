import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from sop_jax.algorithms.algorithm import Algorithm, Lesson, Phase
from sop_jax.algorithms.hg_dagger import HgDagger, HgDaggerConfig
from sop_jax.specs.conditioning import Conditioning
from sop_jax.specs.errors import ConfigError
from sop_jax.specs.records import Outcome, Source
from tests.algorithms.conftest import episode_of, rows

H = 3


def masks_of(who: str, outcome: Outcome = Outcome.SUCCESS, source: Source = Source.ONLINE, **config) -> list[str]:
    return rows(HgDagger(HgDaggerConfig(**config)).action_masks(*episode_of(who, outcome, source), H))


def labels_of(who: str, outcome: Outcome = Outcome.SUCCESS, source: Source = Source.ONLINE, **config) -> list[float]:
    labels = HgDagger(HgDaggerConfig(**config)).label_frames(*episode_of(who, outcome, source), H)
    assert (labels.label[~labels.trainable] == 0).all()
    return [float(label) if trains else -1.0 for label, trains in zip(labels.label, labels.trainable, strict=True)]


def test_a_chunk_across_a_takeover_or_a_handback_teaches_exactly_the_humans_actions():
    assert masks_of("ppphhpp") == ["...", "..1", ".11", "11.", "1..", "...", "..."]
    assert labels_of("ppphhpp") == [-1, 1, 1, 1, 1, -1, -1]


def test_a_correction_shorter_than_the_horizon_teaches():
    assert masks_of("pphpp") == ["..1", ".1.", "1..", "...", "..."]


def test_two_corrections_in_one_chunk_both_teach():
    assert masks_of("hphp") == ["1.1", ".1.", "1..", "..."]


@pytest.mark.parametrize(
    ("outcome", "last"),
    [(Outcome.SUCCESS, "111"), (Outcome.FAILURE, "1.."), (Outcome.TIMEOUT, "1.."), (Outcome.ABORTED, "1..")],
)
def test_corrections_are_kept_whatever_the_outcome_and_held_after_a_success_only(outcome, last):
    masks = masks_of("pphh", outcome)
    assert masks[0] == "..1"
    assert masks[3] == last


def test_the_policys_last_action_is_not_held():
    assert masks_of("hpp")[1:] == ["...", "..."]


def test_nothing_of_an_error_teaches():
    assert masks_of("phh", Outcome.ERROR) == ["..."] * 3
    assert masks_of("hhh", Outcome.ERROR, Source.OFFLINE) == ["..."] * 3
    assert labels_of("hhh", Outcome.ERROR, Source.OFFLINE) == [-1] * 3


def test_demonstrations_teach_whole_whatever_their_flags():
    assert masks_of("hhh", source=Source.OFFLINE) == ["111"] * 3
    assert masks_of("ppp", Outcome.FAILURE, Source.OFFLINE) == ["111", "11.", "1.."]
    assert labels_of("hhh", source=Source.OFFLINE, correction_weight=4.0) == [1, 1, 1]


def test_correction_weight_is_the_label_of_chunks_with_corrections():
    assert labels_of("pphp", correction_weight=2.5) == [2.5, 2.5, 2.5, -1]


def test_lookback_limits_how_early_an_observation_may_be():
    assert masks_of("ppphhpp", lookback_frames=0) == ["...", "...", "...", "11.", "1..", "...", "..."]
    assert masks_of("ppphhpp", lookback_frames=1) == ["...", "...", ".11", "11.", "1..", "...", "..."]
    assert masks_of("ppphhpp", lookback_frames=2) == masks_of("ppphhpp")
    assert masks_of("ppphhpp", lookback_frames=99) == masks_of("ppphhpp")


def test_the_policys_successes_teach_if_asked_except_before_takeovers():
    config = {"autonomous_success_weight": 0.5, "rewind_frames": 2}
    #                 frames 3 and 4 led to the takeover at 5; chunks with a correction teach the correction only
    assert masks_of("ppppphpp", **config) == ["111", "11.", "1..", "..1", ".1.", "1..", "111", "111"]
    assert labels_of("ppppphpp", **config) == [0.5, 0.5, 0.5, 1, 1, 1, 0.5, 0.5]
    assert masks_of("pppp", **config) == ["111"] * 4


def test_the_policys_failures_never_teach():
    assert masks_of("ppp", Outcome.FAILURE, autonomous_success_weight=1.0) == ["..."] * 3
    assert masks_of("pph", Outcome.FAILURE, autonomous_success_weight=1.0) == ["..1", ".1.", "1.."]


def test_chunks_beyond_the_lookback_do_not_fall_back_to_the_policys_actions():
    assert masks_of("pph", autonomous_success_weight=1.0, rewind_frames=0, lookback_frames=0)[:2] == ["..."] * 2


@given(st.text("ph", min_size=1, max_size=30), st.integers(1, 8), st.sampled_from(list(Outcome)))
def test_every_taught_action_is_the_humans_and_every_human_action_is_taught(who, horizon, outcome):
    masks = HgDagger().action_masks(*episode_of(who, outcome), horizon)
    padded = who + who[-1] * horizon
    taught = set()
    for frame, step in zip(*np.nonzero(masks), strict=True):
        assert padded[frame + step] == "h"
        assert frame + step < len(who) or outcome == Outcome.SUCCESS
        taught.add(frame + step)
    if outcome != Outcome.ERROR:
        assert {i for i, letter in enumerate(who) if letter == "h"} <= taught


@given(
    st.text("ph", min_size=1, max_size=30),
    st.integers(1, 8),
    st.sampled_from(list(Outcome)),
    st.sampled_from(list(Source)),
    st.floats(0, 2),
    st.one_of(st.none(), st.integers(0, 9)),
)
def test_frames_are_trainable_exactly_if_something_teaches(who, horizon, outcome, source, weight, lookback):
    algorithm = HgDagger(HgDaggerConfig(autonomous_success_weight=weight, lookback_frames=lookback))
    episode = episode_of(who, outcome, source)
    masks, labels = algorithm.action_masks(*episode, horizon), algorithm.label_frames(*episode, horizon)
    np.testing.assert_array_equal(labels.trainable, masks.any(axis=1))
    assert (labels.label[labels.trainable] > 0).all() or np.float32(weight) == 0


def test_it_is_an_algorithm_that_conditions_on_nothing():
    algorithm = HgDagger()
    assert isinstance(algorithm, Algorithm)
    assert hash(algorithm) == hash(HgDagger(HgDaggerConfig()))
    assert algorithm.conditioning(Phase.COLLECTING) == algorithm.conditioning(Phase.EVALUATING) == Conditioning("", 1.0)
    assert algorithm.make_lesson("fold", 2.0, np.random.default_rng(0)) == Lesson("fold", 2.0)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"correction_weight": 0.0}, "correction_weight must be positive, got 0.0"),
        ({"autonomous_success_weight": -1.0}, "autonomous_success_weight must be >= 0"),
        ({"rewind_frames": -1}, "rewind_frames and lookback_frames must be >= 0"),
        ({"lookback_frames": -1}, "rewind_frames and lookback_frames must be >= 0"),
    ],
)
def test_bad_configs_are_refused(changes, message):
    with pytest.raises(ConfigError, match=message):
        HgDaggerConfig(**changes)
