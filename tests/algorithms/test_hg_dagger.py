import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from jaxtyping import TypeCheckError

from sop_jax.algorithms.algorithm import Algorithm, Lesson, Phase
from sop_jax.algorithms.corrections import RecoveryConfig
from sop_jax.algorithms.hg_dagger import HgDagger, HgDaggerConfig
from sop_jax.specs.conditioning import Conditioning
from sop_jax.specs.errors import ConfigError
from sop_jax.specs.records import Outcome, Source
from tests.algorithms.conftest import episode_of, rows

H = 3


def masks_of(
    who: str, outcome: Outcome = Outcome.SUCCESS, source: Source = Source.ONLINE, pose=None, **config
) -> list[str]:
    return rows(HgDagger(HgDaggerConfig(**config)).action_masks(*episode_of(who, outcome, source, pose), H))


def labels_of(
    who: str, outcome: Outcome = Outcome.SUCCESS, source: Source = Source.ONLINE, pose=None, **config
) -> list[float]:
    labels = HgDagger(HgDaggerConfig(**config)).label_frames(*episode_of(who, outcome, source, pose), H)
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
    assert masks_of("ppp", source=Source.OFFLINE) == masks_of("php", source=Source.OFFLINE) == ["111"] * 3
    assert labels_of("hhh", source=Source.OFFLINE, correction_weight=4.0) == [1, 1, 1]


@pytest.mark.parametrize("outcome", [Outcome.FAILURE, Outcome.TIMEOUT, Outcome.ABORTED])
@pytest.mark.parametrize("balance", ["frames", "takeovers", "episodes"])
def test_demonstrations_that_failed_teach_nothing_but_corrections_within_them(outcome, balance):
    assert masks_of("hhh", outcome, Source.OFFLINE, balance=balance) == ["..."] * 3
    assert labels_of("hhh", outcome, Source.OFFLINE, balance=balance, autonomous_success_weight=1.0) == [-1] * 3
    assert masks_of("ppp", outcome, Source.OFFLINE, balance=balance) == ["..."] * 3
    # Where a policy acted too, the human corrected it, as online.
    config = {"balance": balance, "correction_weight": 2.5, "balanced_frames": 4}
    assert masks_of("pphp", outcome, Source.OFFLINE, **config) == ["..1", ".1.", "1..", "..."]
    assert labels_of("pphp", outcome, Source.OFFLINE, **config) == labels_of("pphp", outcome, **config)
    assert masks_of("pphp", outcome, Source.OFFLINE, failures_teach=False) == ["..."] * 4


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


# The policy goes astray at frame 2, the human takes the robot back (frames 4 and 5) and then on (6 and 7).
ASTRAY = {"who": "pppahhhhpp", "pose": [0.0, 0.1, 0.5, 0.9, 1.0, 0.5, 0.0, 0.2, 0.4, 0.6], "rewind_frames": 1}
BACK = RecoveryConfig(within_rad=0.15)


def test_the_way_back_teaches_as_the_correction_does_unless_asked_otherwise():
    assert masks_of(**ASTRAY)[2:8] == ["..1", ".11", "111", "111", "11.", "1.."]
    without = {**ASTRAY, "teaches": "corrections_without_recovery", "recovery": BACK}
    assert masks_of(**without) == ["...", "...", "...", "...", "..1", ".11", "11.", "1..", "...", "..."]
    assert labels_of(**without) == [-1, -1, -1, -1, 1, 1, 1, 1, -1, -1]


def test_a_way_back_that_does_not_teach_is_not_taken_for_the_policys_success():
    config = {**ASTRAY, "teaches": "corrections_without_recovery", "recovery": BACK}
    masks = masks_of(**config, autonomous_success_weight=0.5)
    #          frames 0 and 1 worked, 2 led to the request at 3; chunks 2 to 7 touch the human's turn
    assert masks == ["11.", "1..", "...", "...", "..1", ".11", "11.", "1..", "111", "111"]
    assert labels_of(**config, autonomous_success_weight=0.5) == [0.5, 0.5, -1, -1, 1, 1, 1, 1, 0.5, 0.5]


def test_a_recovery_that_brings_the_task_to_its_end_is_not_held():
    config = {"who": "pphh", "pose": [0.0, 1.0, 1.0, 0.0], "rewind_frames": 1, "recovery": BACK}
    assert masks_of(**config)[3] == "111"
    assert masks_of(**config, teaches="corrections_without_recovery") == ["...", "..1", ".11", "111"]


@pytest.mark.parametrize("outcome", [Outcome.FAILURE, Outcome.TIMEOUT, Outcome.ABORTED])
def test_failed_episodes_can_be_left_out_whole(outcome):
    assert masks_of("pphp", outcome) == ["..1", ".1.", "1..", "..."]
    assert masks_of("pphp", outcome, failures_teach=False, autonomous_success_weight=1.0) == ["..."] * 4
    assert labels_of("pphp", outcome, failures_teach=False, autonomous_success_weight=1.0) == [-1] * 4
    assert masks_of("pphp", failures_teach=False) == masks_of("pphp")


def test_balance_by_takeover_or_by_episode():
    who = "ppphhhhhhppppph"  # Six frames and one.
    assert labels_of(who, Outcome.FAILURE, balance="frames", correction_weight=2.0)[1:9] == [2.0] * 8
    takeovers = labels_of(who, Outcome.FAILURE, balance="takeovers", balanced_frames=3, correction_weight=2.0)
    assert takeovers == [-1] + [1.0] * 8 + [-1] * 3 + [6.0] * 3
    episodes = labels_of(who, Outcome.FAILURE, balance="episodes", balanced_frames=14, correction_weight=2.0)
    assert episodes == [-1] + [4.0] * 8 + [-1] * 3 + [4.0] * 3
    assert masks_of(who, balance="takeovers") == masks_of(who)


def test_a_chunk_over_two_takeovers_weighs_their_actions_on_average():
    # Takeovers of two frames and of one count 1/2 and 1 per action; the chunk at 1 holds one action of each.
    assert labels_of("hhphpp", Outcome.FAILURE, balance="takeovers", balanced_frames=1)[:4] == [0.5, 0.75, 1.0, 1.0]


def test_balance_leaves_demonstrations_and_the_policys_successes_alone():
    assert labels_of("hhh", source=Source.OFFLINE, balance="takeovers") == [1, 1, 1]
    config = {"balance": "takeovers", "balanced_frames": 4, "autonomous_success_weight": 0.5, "rewind_frames": 0}
    assert labels_of("pphpp", **config) == [4, 4, 4, 0.5, 0.5]


@given(st.text("ph", min_size=1, max_size=40), st.integers(1, 8), st.sampled_from(list(Outcome)), st.integers(1, 99))
def test_balanced_takeovers_pull_alike_whatever_their_length(who, horizon, outcome, balanced_frames):
    """Far from the episode's edges and from each other, every takeover's weights times taught actions add up to the same."""
    who = "p" * horizon + who + "p" * horizon
    algorithm = HgDagger(HgDaggerConfig(balance="takeovers", balanced_frames=balanced_frames))
    episode = episode_of(who, outcome)
    masks, labels = algorithm.action_masks(*episode, horizon), algorithm.label_frames(*episode, horizon)
    num_takeovers = len(episode[0].takeovers) if outcome != Outcome.ERROR else 0
    pull = float((labels.label * masks.sum(axis=1)).sum())
    assert pull == pytest.approx(num_takeovers * balanced_frames * horizon, rel=1e-4)


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
        ({"balanced_frames": 0}, "balanced_frames must be >= 1, got 0"),
    ],
)
def test_bad_configs_are_refused(changes, message):
    with pytest.raises(ConfigError, match=message):
        HgDaggerConfig(**changes)


@pytest.mark.parametrize("changes", [{"teaches": "rewinds"}, {"balance": "robots"}])
def test_unknown_choices_are_refused(changes):
    with pytest.raises((ConfigError, TypeCheckError), match=f"'{next(iter(changes.values()))}'"):
        HgDaggerConfig(**changes)
