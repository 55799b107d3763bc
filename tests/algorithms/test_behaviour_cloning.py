import numpy as np
import pytest

from sop_jax.algorithms.algorithm import Algorithm, Lesson, Phase
from sop_jax.algorithms.behaviour_cloning import BehaviourCloning, BehaviourCloningConfig
from sop_jax.algorithms.masks import chunk_masks
from sop_jax.algorithms.registry import ALGORITHMS, create_algorithm
from sop_jax.specs.conditioning import Conditioning
from sop_jax.specs.errors import ConfigError
from sop_jax.specs.records import Outcome, Source
from tests.algorithms.conftest import episode_of, rows


def masks_of(who: str, outcome: Outcome, source: Source, online_successes: bool = False) -> list[str]:
    algorithm = BehaviourCloning(BehaviourCloningConfig(online_successes))
    return rows(algorithm.action_masks(*episode_of(who, outcome, source), 3))


def test_demonstrations_teach_and_online_frames_do_not():
    assert masks_of("hhh", Outcome.SUCCESS, Source.OFFLINE) == ["111"] * 3
    assert masks_of("hph", Outcome.SUCCESS, Source.ONLINE) == ["..."] * 3


@pytest.mark.parametrize("outcome", [Outcome.FAILURE, Outcome.TIMEOUT, Outcome.ABORTED, Outcome.ERROR])
@pytest.mark.parametrize("online_successes", [False, True])
def test_demonstrations_that_failed_are_not_imitated(outcome, online_successes):
    assert masks_of("hhh", outcome, Source.OFFLINE, online_successes) == ["..."] * 3
    labels = BehaviourCloning(BehaviourCloningConfig(online_successes)).label_frames(
        *episode_of("hhh", outcome, Source.OFFLINE), 3
    )
    assert not labels.trainable.any()


def test_online_successes_teach_if_asked():
    assert masks_of("hpp", Outcome.SUCCESS, Source.ONLINE, True) == ["111"] * 3
    assert masks_of("hpp", Outcome.FAILURE, Source.ONLINE, True) == ["..."] * 3


def test_labels_are_one_on_trainable_frames():
    labels = BehaviourCloning().label_frames(*episode_of("hh", source=Source.OFFLINE), 3)
    assert labels.label.tolist() == [1.0, 1.0]
    assert labels.trainable.tolist() == [True, True]


def test_it_is_an_algorithm_that_conditions_on_nothing():
    algorithm = BehaviourCloning()
    assert isinstance(algorithm, Algorithm)
    assert algorithm.conditioning(Phase.EVALUATING) == Conditioning()
    assert algorithm.make_lesson("fold", 1.0, np.random.default_rng(0)) == Lesson("fold", 1.0)


def test_chunk_masks_of_edge_cases():
    assert chunk_masks(np.zeros(0, bool), 3, Outcome.SUCCESS).shape == (0, 3)
    assert rows(chunk_masks(np.array([True]), 3, Outcome.SUCCESS)) == ["111"]
    assert rows(chunk_masks(np.array([True, False]), 1, Outcome.FAILURE)) == ["1", "."]
    with pytest.raises(ValueError, match="horizon must be >= 1, got 0"):
        chunk_masks(np.zeros(2, bool), 0, Outcome.SUCCESS)


@pytest.mark.parametrize("name", sorted(ALGORITHMS))
def test_algorithms_are_made_by_name_and_by_config(name):
    algorithm = create_algorithm(name)
    assert algorithm.name == name
    assert isinstance(algorithm, Algorithm)
    config = ALGORITHMS[name].config_type()
    assert create_algorithm(config) == algorithm
    assert hash(create_algorithm(config)) == hash(algorithm)


def test_a_config_keeps_its_values():
    assert create_algorithm(BehaviourCloningConfig(True)) == BehaviourCloning(BehaviourCloningConfig(True))


def test_unknown_names_get_near_matches():
    with pytest.raises(ConfigError, match="unknown algorithm 'hg_dager'; did you mean hg_dagger"):
        create_algorithm("hg_dager")
    with pytest.raises(ConfigError, match=r"these exist: .*behaviour_cloning, hg_dagger"):
        create_algorithm("zzz")
