import dataclasses
import math

import numpy as np
import pytest

from configs.files import from_json, to_json
from sop_jax.algorithms.algorithm import Algorithm, Phase
from sop_jax.algorithms.recap.recap import NEGATIVE, POSITIVE, Recap, RecapConfig
from sop_jax.algorithms.recap.value_function import TaskReturns
from sop_jax.algorithms.registry import check_ready, create_algorithm
from sop_jax.specs.conditioning import Conditioning
from sop_jax.specs.errors import ConfigError
from sop_jax.specs.records import Outcome, Source
from tests.algorithms.conftest import episode_of, rows
from tests.algorithms.value_cases import scripted, value_function

H = 3


class NoLook:
    """Images that nobody may read."""

    def read(self, rows, cameras=None):
        raise AssertionError(f"rows {rows} were read")


def recap_with(*script: float, **config) -> Recap:
    recap = Recap(RecapConfig(**config))
    recap.__dict__["value_function"] = scripted(*script)
    return recap


def labels_of(recap: Recap, who: str, outcome=Outcome.SUCCESS, source=Source.ONLINE) -> list[float]:
    labels = recap.label_frames(*episode_of(who, outcome, source), H, NoLook())
    return [float(label) if trains else -1.0 for label, trains in zip(labels.label, labels.trainable, strict=True)]


def test_a_frame_is_positive_if_its_advantage_exceeds_the_threshold():
    # T_max 10, C_fail 10, N 2. Success of 5 frames: rewards -1/20 and 0 at last.
    # A = [-.1 + V2 - V0, -.1 + V3 - V1, -.1 + V4 - V2, -.05 - V3, 0 - V4] = [.1, -.4, .5, .45, .3]
    recap = recap_with(-0.9, -0.5, -0.7, -0.8, -0.1)
    advantages = recap.value_function.advantages(*episode_of("ppppp"), recap.value_function.values(None, None, None))
    np.testing.assert_allclose(advantages, [0.1, -0.4, 0.5, 0.75, 0.1], atol=1e-6)
    assert recap.threshold("restock_shelf") == pytest.approx(0.4)  # 30% of the training data lie above
    assert labels_of(recap, "ppppp") == [0, 0, 1, 1, 0]
    assert labels_of(recap_with(-0.9, -0.5, -0.7, -0.8, -0.1, positive_share=0.6), "ppppp") == [1, 0, 1, 1, 1]
    by_hand = recap_with(-0.9, -0.5, -0.7, -0.8, -0.1, thresholds=("box=0", "restock_shelf=0.7"))
    assert labels_of(by_hand, "ppppp") == [0, 0, 0, 1, 0]


def test_failures_are_kept_and_labelled_by_the_value_function():
    # Failure of 3 frames, rewards -1/20, -1/20, -1/2: A = [-.1 + V2 - V0, -.55 - V1, -.5 - V2]
    assert labels_of(recap_with(-0.9, -0.99, -0.1), "ppp", Outcome.FAILURE) == [1, 1, 0]
    assert labels_of(recap_with(-0.9, -0.99, -0.1), "ppp", Outcome.TIMEOUT) == [1, 1, 0]


def test_corrections_are_positive_whatever_the_value_function_says():
    assert labels_of(recap_with(0.0, 0.0, 0.0, 0.0), "phhp", Outcome.FAILURE) == [0, 1, 1, 0]


def test_a_label_speaks_of_who_acts_first_and_no_further_than_the_handover():
    masks = Recap().action_masks(*episode_of("pphhp"), H)
    assert rows(masks) == ["11.", "1..", "11.", "1..", "111"]  # after the success the policy's last action is held
    assert rows(Recap().action_masks(*episode_of("pph", Outcome.TIMEOUT), H)) == ["11.", "1..", "1.."]
    assert rows(Recap().action_masks(*episode_of("hhhh", source=Source.OFFLINE), H)) == ["111"] * 4


@pytest.mark.parametrize("outcome", [Outcome.ABORTED, Outcome.ERROR])
def test_ends_that_say_nothing_never_teach(outcome):
    assert labels_of(recap_with(), "ph", outcome) == [-1, -1]
    assert labels_of(recap_with(), "hh", outcome, Source.OFFLINE) == [-1, -1]
    assert rows(Recap().action_masks(*episode_of("ph", outcome), H)) == ["...", "..."]


def test_demonstrations_are_positive_without_a_look_or_judged_like_the_rest():
    assert labels_of(Recap(), "hhh", source=Source.OFFLINE) == [1, 1, 1]
    judged = recap_with(-0.9, -0.2, -0.1, demonstrations_positive=False)
    # A = [-.1 + V2 - V0, -.05 - V1, 0 - V2] = [.7, .15, .1]; a demonstration's flags are no corrections
    assert labels_of(judged, "hhh", source=Source.OFFLINE) == [1, 0, 0]


@pytest.mark.parametrize("outcome", [Outcome.FAILURE, Outcome.TIMEOUT])
def test_demonstrations_that_failed_are_judged_whatever_the_config_says(outcome):
    script = (-0.9, -0.99, -0.1)  # as in the failure above
    for positive in (True, False):
        recap = recap_with(*script, demonstrations_positive=positive)
        assert labels_of(recap, "hhh", outcome, Source.OFFLINE) == [1, 1, 0]


def test_an_episode_without_images_teaches_nothing():
    manifest, arrays = episode_of("pph")
    blind = dataclasses.replace(arrays, image_frames=np.zeros(0, np.int32))
    labels = recap_with().label_frames(manifest, blind, H, NoLook())
    assert (labels.trainable.tolist(), labels.label.tolist()) == ([False] * 3, [0.0] * 3)


def test_the_indicator_stands_behind_the_instruction_as_when_acting():
    recap, rng = Recap(RecapConfig(indicator_dropout=0.0)), np.random.default_rng(0)
    assert recap.make_lesson("fold", 1.0, rng).instruction == "fold\nAdvantage: positive"
    assert recap.make_lesson("fold", 0.0, rng).instruction == "fold\nAdvantage: negative"
    assert recap.make_lesson("fold", 0.0, rng).weight == 1.0
    acting = recap.conditioning(Phase.COLLECTING)
    assert acting.apply("fold") == recap.make_lesson("fold", 1.0, rng).instruction
    assert acting == Conditioning(POSITIVE, 1.0)
    assert not acting.is_guided
    assert recap.conditioning(Phase.EVALUATING) == Conditioning(POSITIVE, 1.5)
    assert recap.conditioning(Phase.EVALUATING).is_guided
    assert Recap(RecapConfig(evaluating_guidance=2.5)).conditioning(Phase.EVALUATING).guidance == 2.5


@pytest.mark.parametrize("label", [0.0, 1.0])
def test_the_indicator_is_dropped_three_times_in_ten(label):
    recap, rng, num = Recap(), np.random.default_rng(1), 10_000
    texts = [recap.make_lesson("fold", label, rng).instruction for _ in range(num)]
    dropped = texts.count("fold")
    assert abs(dropped - 0.3 * num) < 5 * math.sqrt(0.3 * 0.7 * num)
    assert texts.count(f"fold\n{POSITIVE if label else NEGATIVE}") == num - dropped


def test_it_is_an_algorithm_that_learner_and_robots_hash_without_a_value_function():
    recap = Recap(RecapConfig(value_function="values/none"))
    assert isinstance(recap, Algorithm)
    assert create_algorithm(recap.config) == recap
    assert hash(create_algorithm(recap.config)) == hash(recap)
    assert recap_with(0.0) == Recap()


def test_a_missing_value_function_is_named_with_the_command_that_makes_one(tmp_path):
    with pytest.raises(ConfigError, match=r"names none. Make one with `sop pretrain --value-of"):
        check_ready(Recap(), ["restock_shelf"])
    with pytest.raises(ConfigError, match=r"has no value\.json"):
        check_ready(Recap(RecapConfig(value_function=str(tmp_path))), [])
    with pytest.raises(ValueError, match="RECAP judges images, and was given none"):
        Recap().label_frames(*episode_of("pp"), H)


def test_a_task_that_the_value_function_never_saw_is_refused():
    recap = recap_with(0.0, 0.0)
    manifest, arrays = episode_of("pp")
    with pytest.raises(ConfigError, match=r"knows the tasks \['restock_shelf'\], not 'box_assembly'"):
        recap.label_frames(dataclasses.replace(manifest, task="box_assembly"), arrays, H, NoLook())


def test_a_saved_value_function_is_read_when_the_first_label_is_wanted(tmp_path):
    value_function().save(tmp_path / "values")
    recap = Recap(RecapConfig(value_function=str(tmp_path / "values")))
    check_ready(recap, ["restock_shelf"])
    with pytest.raises(ConfigError, match="not 'box_assembly'"):
        check_ready(recap, ["restock_shelf", "box_assembly"])
    assert recap.threshold("restock_shelf") == pytest.approx(0.4)


def test_a_threshold_is_the_quantile_of_the_advantages():
    task = TaskReturns(10, tuple(np.arange(101.0)))
    assert task.threshold(0.3) == pytest.approx(70.0)
    assert task.threshold(0.125) == pytest.approx(87.5)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"positive_share": 1.1}, r"positive_share must lie in \[0, 1\], got 1.1"),
        ({"indicator_dropout": -0.1}, "indicator_dropout must lie in"),
        ({"evaluating_guidance": -1.0}, "guidance must be finite and >= 0"),
        ({"thresholds": ("restock_shelf",)}, 'must be "task=number" each'),
        ({"thresholds": ("a=1", "b=x")}, "got 'b=x'"),
    ],
)
def test_bad_configs_are_refused(changes, message):
    with pytest.raises(ConfigError, match=message):
        RecapConfig(**changes)


def test_the_config_survives_json():
    config = RecapConfig("values/mine", thresholds=("box_assembly=-0.25",), evaluating_guidance=2.0)
    assert from_json(RecapConfig, to_json(config)) == config
    assert config.threshold_of("box_assembly") == -0.25
    assert config.threshold_of("restock_shelf") is None
