"""`sop doctor --config`: does a learner fit its devices, and if not, what to change."""

import dataclasses
import json

import jax
import jax.numpy as jnp
import pytest

from configs.files import to_json
from configs.registry import DEMOS, FINETUNINGS
from sop_jax.cli import fit
from sop_jax.cli.machine import DeviceMemory, probe_device_memory
from sop_jax.cli.main import main
from sop_jax.learner.memory import estimate_memory
from sop_jax.learner.shapes import stored_params
from sop_jax.models.bundle import PolicyBundle
from sop_jax.models.compact import CompactConfig
from sop_jax.models.normalization import identity_norm_stats
from sop_jax.models.registry import PRESETS, create_model

GB = 10**9


@pytest.mark.parametrize(
    ("name", "devices", "gb", "fits"),
    [
        ("pi05_1gpu", 1, 72, True),  # 90% of 80 GB
        ("pi05_1gpu", 1, 36, False),
        ("pi05_8gpu", 8, 72, True),
        ("pi05_tpu", 16, 29, True),  # 90% of 32 GB
        ("pi05_tpu", 64, 14, True),  # 90% of 16 GB, with more chips
    ],
)
def test_the_named_configs_on_the_devices_they_are_for(name, devices, gb, fits):
    found = fit.examine(FINETUNINGS[name], "pi05", DeviceMemory("test", devices, gb * GB))
    assert found.fits is fits, found
    assert (found.advice == "") is fits


def test_advice_fits():
    """What it says to set is tried here: the changed config fits."""
    config = FINETUNINGS["pi05_1gpu"]
    found = fit.examine(config, "pi05", DeviceMemory("test", 1, 40 * GB))
    assert found.advice == "set accumulate_steps=8"
    learning = dataclasses.replace(
        config.learning, learner=dataclasses.replace(config.learning.learner, accumulate_steps=8)
    )
    assert fit.examine(dataclasses.replace(config, learning=learning), "pi05", found.devices).fits

    smaller = fit.examine(config, "pi05", DeviceMemory("test", 1, 31 * GB))
    assert smaller.advice == "set remat=full accumulate_steps=16"
    many = fit.examine(config, "pi05", DeviceMemory("test", 8, 12 * GB))
    assert many.advice.startswith("set mesh.data=-1 mesh.fsdp=")
    hopeless = fit.examine(config, "pi05", DeviceMemory("test", 1, 10 * GB))
    assert "use more devices" in hopeless.advice


def test_the_command_says_it_in_a_table_and_in_json(capsys):
    words = ["doctor", "--config", "pi05_1gpu", "--model", "pi05", "--devices", "1", "--device-memory-gb"]
    assert main([*words, "72", "--json"]) == 0
    lines = capsys.readouterr().out.strip().splitlines()
    found = json.loads(lines[-1])
    assert found["ok"] is True
    assert found["bytes"]["frozen"] == 2 * 2_508_531_712
    assert found["bytes"]["total"] == sum(value for name, value in found["bytes"].items() if name != "total")
    assert lines[-2] == "It fits."
    assert any(line.split()[:2] == ["frozen", "5.02"] for line in lines)
    assert main([*words, "20"]) == 1
    assert "It does not fit: " in capsys.readouterr().out


def test_a_policy_on_disk_is_measured_without_being_read(tmp_path, capsys):
    """Types come from its files: a base that stores bfloat16 has half the frozen bytes."""
    config = CompactConfig(cameras=("head",), image_size=16, head_width=32, camera_features=8, patch_width=16)
    model = create_model(config)
    params = jax.tree.map(lambda leaf: leaf.astype(jnp.bfloat16), model.init_params(jax.random.key(0)))
    norm = identity_norm_stats(config.state_dim, model.action_dim, model.horizon)
    PolicyBundle(config, params, norm).save(tmp_path / "policy")
    demo = dataclasses.replace(DEMOS["restock_tiny"], policy=str(tmp_path / "policy"))
    (tmp_path / "config.json").write_text(json.dumps(to_json(demo)))
    found_model, found = fit.read_shapes(demo, "")
    assert found_model == model
    assert jax.tree.map(lambda leaf: (leaf.shape, leaf.dtype), found) == jax.tree.map(
        lambda leaf: (leaf.shape, leaf.dtype), params
    )
    words = ["doctor", "--config", str(tmp_path / "config.json"), "--devices", "1", "--device-memory-gb", "1", "--json"]
    assert main(words) == 0
    printed = json.loads(capsys.readouterr().out.strip().splitlines()[-1])
    expected = estimate_memory(model, found, demo.learning.learner, demo.world.image_size, 1)
    assert printed["bytes"]["total"] == expected.total
    assert printed["bytes"]["publication"] * 2 == printed["bytes"]["params"]


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--config", "pi05_1gpu"], "--model pi05"),
        (["--config", "pi05_1gpu", "--model", "pi7"], "unknown model 'pi7'"),
        (["--config", "pi05_2gpu"], "did you mean"),
        (["--config", "pi05_8gpu", "--model", "pi05", "--devices", "3"], "does not fit 3 devices"),
        (["--config", "pi05_1gpu", "--devices", "-1"], "must be positive"),
    ],
)
def test_bad_input_is_one_line(words, message, capsys):
    assert (
        main(["doctor", *words, "--device-memory-gb", "80", *(["--devices", "1"] if "--devices" not in words else [])])
        == 2
    )
    assert message in capsys.readouterr().err


def test_the_devices_of_this_machine():
    """CPUs share the host's memory."""
    found = probe_device_memory()
    assert found.num_devices >= 1
    assert found.bytes_each > 2**28
    host = fit._find_devices(0, 5.0)
    assert (host.num_devices, host.bytes_each) == (found.num_devices, 5 * GB)


def test_full_size_presets_store_what_is_frozen_in_bfloat16():
    params = stored_params(create_model(PRESETS["pi05"]))
    assert params["PaliGemma"]["llm"]["embedder"]["input_embedding"].dtype == jnp.bfloat16
    assert params["PaliGemma"]["img"]["head"]["kernel"].dtype == jnp.float32
