import dataclasses
import json

import pytest

from configs.experiment import DemoConfig, DemonstrationsConfig, LearningConfig
from configs.files import from_json, to_json
from configs.registry import DEMOS, FINETUNINGS, PRETRAININGS, find_demo, find_learning, find_pretraining
from sop_jax.actors.demonstrate import DemonstrationConfig, StartNoise
from sop_jax.actors.handover import HandoverConfig
from sop_jax.actors.rollout import RolloutConfig
from sop_jax.algorithms.behaviour_cloning import BehaviourCloningConfig
from sop_jax.algorithms.corrections import RecoveryConfig
from sop_jax.algorithms.hg_dagger import HgDaggerConfig
from sop_jax.cli.locations import find_policy
from sop_jax.learner.config import LearnerConfig
from sop_jax.models.bundle import load_bundle
from sop_jax.specs.errors import ConfigError


@pytest.mark.parametrize("name", sorted(DEMOS))
def test_every_demo_survives_its_file(name, tmp_path):
    config = DEMOS[name]
    path = tmp_path / "config.json"
    path.write_text(json.dumps(to_json(config)))
    assert find_demo(str(path)) == config
    assert find_demo(name) is config


@pytest.mark.parametrize("name", sorted(PRETRAININGS))
def test_every_pretraining_survives_its_file(name, tmp_path):
    config = PRETRAININGS[name]
    path = tmp_path / "config.json"
    path.write_text(json.dumps(to_json(config)))
    assert find_pretraining(str(path)) == config


@pytest.mark.parametrize("name", sorted(FINETUNINGS))
def test_every_finetuning_survives_its_file(name, tmp_path):
    config = FINETUNINGS[name]
    path = tmp_path / "config.json"
    path.write_text(json.dumps(to_json(config)))
    assert find_learning(str(path)) == config
    assert find_learning(name) is config
    assert find_learning("restock_demo") is DEMOS["restock_demo"]
    with pytest.raises(ConfigError, match="unknown config"):
        find_demo(name)  # no demo runs on a policy that isn't here


def test_choices_of_corrections_and_handovers_survive_a_file():
    choices = HgDaggerConfig(
        teaches="corrections_without_recovery",
        failures_teach=False,
        balance="takeovers",
        recovery=RecoveryConfig(within_rad=0.2),
    )
    rollout = RolloutConfig(handover=HandoverConfig(blend_s=0.5, max_step_rad=0.02))
    for config in (choices, rollout):
        assert from_json(type(config), json.loads(json.dumps(to_json(config)))) == config
    # A file from before there was a choice keeps what it did.
    assert from_json(HgDaggerConfig, {"correction_weight": 1.0}) == HgDaggerConfig()
    with pytest.raises(ConfigError, match=r"one of.*'frames', 'takeovers', 'episodes'.*got 'frame'"):
        from_json(HgDaggerConfig, {"balance": "frame"})


def test_finetunings_train_as_openpi_does():
    for config in FINETUNINGS.values():
        learner = config.learning.learner
        assert (learner.adam_b1, learner.adam_b2, learner.weight_decay, learner.clip_norm) == (0.9, 0.95, 1e-10, 1.0)
        assert learner.learning_rate == {32: 2.5e-5, 256: 5e-5}[learner.batch_size]


def test_unions_and_optionals_survive():
    learning = LearningConfig(BehaviourCloningConfig(online_successes=True))
    assert from_json(LearningConfig, to_json(learning)) == learning
    for noise in (None, StartNoise(dims=(7, 8))):
        config = DemonstrationConfig(start_noise=noise)
        assert from_json(DemonstrationConfig, json.loads(json.dumps(to_json(config)))) == config


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"learning": {"lerner": {}}}, "LearningConfig has no field 'lerner'; did you mean 'learner'"),
        ({"seed": "3"}, "c.seed: expected int, got '3'"),
        ({"fleet": {"num_robots": 0}}, "num_robots must be at least 1"),
        (
            {"learning": {"algorithm": {"kind": "Nothing"}}},
            r"one of \['BehaviourCloningConfig', 'HgDaggerConfig', 'RecapConfig'\]",
        ),
        ({"learning": {"learner": {"schedule": "linear"}}}, r"expected one of \['constant', 'cosine'\], got 'linear'"),
        ({"world": 3}, "expected the fields of WorldConfig, got 3"),
        ({"max_loop_s": True}, "expected float, got True"),
    ],
)
def test_bad_files_say_what_is_wrong(change, message):
    values = to_json(DEMOS["restock_tiny"])
    for key, value in change.items():
        values[key] = {**values[key], **value} if isinstance(value, dict) and key != "world" else value
    with pytest.raises(ConfigError, match=message):
        from_json(DemoConfig, values, "c")


def test_unknown_names_get_a_hint(tmp_path):
    with pytest.raises(ConfigError, match="did you mean 'restock_demo'"):
        find_demo("restock_dmo")
    with pytest.raises(ConfigError, match="there is no config file"):
        find_demo(str(tmp_path / "absent.json"))
    (tmp_path / "torn.json").write_text("{")
    with pytest.raises(ConfigError, match="is not JSON"):
        find_demo(str(tmp_path / "torn.json"))


def test_configs_contradicting_themselves_are_refused():
    with pytest.raises(ConfigError, match=r"batch_size and loader\.batch_size must be equal, got 32 and 64"):
        LearningConfig(HgDaggerConfig(), learner=LearnerConfig(batch_size=32))
    demo = DEMOS["restock_demo"]
    intake = dataclasses.replace(demo.replay.intake, segment_length=4)
    with pytest.raises(ConfigError, match="segment_length"):
        dataclasses.replace(demo, replay=dataclasses.replace(demo.replay, intake=intake))


def test_collectors_share_the_demonstrations():
    config = DemonstrationsConfig(num_episodes=7, num_collectors=3)
    assert [config.share_of(i) for i in range(3)] == [3, 2, 2]


@pytest.mark.parametrize("name", sorted(DEMOS))
def test_every_demo_has_its_base_policy(name):
    bundle = load_bundle(find_policy(DEMOS[name].policy))
    assert bundle.model.horizon >= 1
    assert bundle.norm.action_is_active.sum() == 8  # the right arm and its gripper
