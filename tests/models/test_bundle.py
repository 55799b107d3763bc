import dataclasses
import json
import pathlib
import shutil

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from model_cases import COMPACT, LORA, MODELS, norm_for, randomize

from sop_jax.models.bundle import InvalidBundleError, PolicyBundle, load_bundle, told_fingerprint, told_model
from sop_jax.models.policy import abstract_params
from sop_jax.models.pytrees import flatten_params
from sop_jax.models.registry import PRESETS, config_from_json, config_to_json, create_model


def make_bundle(config=COMPACT, seed: int = 0) -> PolicyBundle:
    model = create_model(config)
    return PolicyBundle(config, randomize(abstract_params(model), seed), norm_for(model))


@pytest.fixture(scope="module")
def saved(tmp_path_factory) -> tuple[PolicyBundle, pathlib.Path]:
    directory = tmp_path_factory.mktemp("bundle") / "policy"
    bundle = make_bundle()
    assert bundle.save(directory) == bundle.fingerprint
    return bundle, directory


@pytest.fixture
def copy(saved, tmp_path) -> pathlib.Path:
    return pathlib.Path(shutil.copytree(saved[1], tmp_path / "copy"))


def edit(directory: pathlib.Path, change) -> None:
    content = json.loads((directory / "policy.json").read_text())
    change(content)
    (directory / "policy.json").write_text(json.dumps(content))


def test_what_is_saved_comes_back(saved):
    bundle, directory = saved
    loaded = load_bundle(directory)
    assert loaded.config == bundle.config
    assert loaded.fingerprint == bundle.fingerprint
    assert loaded.norm.fingerprint == bundle.norm.fingerprint
    for path, leaf in flatten_params(bundle.params).items():
        np.testing.assert_array_equal(flatten_params(loaded.params)[path], leaf)
    size = sum(file.stat().st_size for file in directory.rglob("*") if file.is_file())
    assert size < 4 * sum(leaf.size for leaf in flatten_params(bundle.params).values()) + 60_000


def test_bfloat16_parameters_come_back(tmp_path):
    bundle = make_bundle()
    half = dataclasses.replace(bundle, params=jax.tree.map(lambda x: jnp.asarray(x, jnp.bfloat16), bundle.params))
    half.save(tmp_path / "half")
    loaded = load_bundle(tmp_path / "half")
    assert loaded.fingerprint == half.fingerprint != bundle.fingerprint
    assert loaded.params["head"]["out"]["kernel"].dtype == jnp.bfloat16


def test_the_fingerprint_sees_config_and_every_parameter(saved):
    bundle, _ = saved
    assert make_bundle().fingerprint == bundle.fingerprint
    assert make_bundle(seed=1).fingerprint != bundle.fingerprint
    assert (
        dataclasses.replace(bundle, config=dataclasses.replace(COMPACT, num_steps=9)).fingerprint != bundle.fingerprint
    )


def test_misfits_are_listed():
    bundle = make_bundle()
    params = {**bundle.params, "surplus": np.zeros(1), "head": {**bundle.params["head"]}}
    params["head"]["time"] = {"kernel": np.zeros((2, 2))}
    del params["state"]
    with pytest.raises(
        InvalidBundleError,
        match=r"2 missing: state/bias, state/kernel; 1 extra: surplus; 1 misshapen: head/time/kernel \(2, 2\) instead of",
    ):
        dataclasses.replace(bundle, params=params)


def test_a_used_directory_is_left_alone(saved):
    bundle, directory = saved
    with pytest.raises(FileExistsError, match="directory of its own"):
        bundle.save(directory)


def test_a_directory_without_policy_is_refused(copy):
    (copy / "policy.json").unlink()
    with pytest.raises(InvalidBundleError, match=r"is no policy directory: .*policy.json is missing"):
        load_bundle(copy)


def test_mixed_directories_are_refused(copy):
    edit(copy, lambda content: content.update(fingerprint="0" * 16))
    with pytest.raises(InvalidBundleError, match=r"parameters have fingerprint .* 0000000000000000"):
        load_bundle(copy)


def test_parameters_of_another_config_are_refused(copy):
    edit(copy, lambda content: content["model"].update(head_width=48))
    with pytest.raises(InvalidBundleError, match="misshapen"):
        load_bundle(copy)


def test_newer_formats_and_unknown_fields_are_refused(copy):
    edit(copy, lambda content: content.update(format_version=99))
    with pytest.raises(InvalidBundleError, match="format version 99, expected 1"):
        load_bundle(copy)
    edit(copy, lambda content: content.update(format_version=1))
    edit(copy, lambda content: content["model"].update(colour="red"))
    with pytest.raises(InvalidBundleError, match=r"unknown fields \['colour'\]"):
        load_bundle(copy)


def test_lost_parameters_are_refused(copy):
    shutil.rmtree(copy / "params")
    with pytest.raises(InvalidBundleError, match="params"):
        load_bundle(copy)


@pytest.mark.parametrize("config", [*PRESETS.values(), *MODELS.values(), LORA])
def test_configs_survive_json(config):
    assert config_from_json(json.loads(json.dumps(config_to_json(config)))) == config


def test_policies_from_before_a_field_existed_load_with_its_default():
    content = config_to_json(PRESETS["pi05"])
    assert "head" not in content
    assert "lora" not in content["expert"]
    assert config_to_json(PRESETS["pi0"])["head"] == "pi0"
    del content["horizon"]
    with pytest.raises(ValueError, match=r"missing fields \['horizon'\]"):
        config_from_json(content)
    shipped = pathlib.Path(__file__).parents[2] / "assets" / "policies" / "restock_pi05_tiny"
    assert load_bundle(shipped).config.head == "pi05"


def test_unknown_kinds_are_refused():
    with pytest.raises(ValueError, match=r"unknown model kind 'gpt': expected one of \['compact', 'pi05'\]"):
        config_from_json({"kind": "gpt"})


def test_what_a_directory_tells_of_itself_needs_no_parameters(saved, copy):
    bundle, _ = saved
    shutil.rmtree(copy / "params")
    assert told_fingerprint(copy) == bundle.fingerprint
    assert told_model(copy).horizon == bundle.model.horizon
    edit(copy, lambda content: content["model"].update(kind="NoSuchModel"))
    with pytest.raises(InvalidBundleError, match="can't be read as a policy"):
        told_model(copy)
    (copy / "policy.json").write_text("{")
    with pytest.raises(InvalidBundleError, match="can't be read as a policy"):
        told_fingerprint(copy)
