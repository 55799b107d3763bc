"""Our pi0.5 and pi0 against numbers of LeRobot's PyTorch models (`python -m benchmarks.parity_lerobot`), without torch."""

import json
import pathlib

import jax
import numpy as np
import pytest

from benchmarks.parity_lerobot import __main__ as parity
from benchmarks.parity_lerobot.cases import CASES, GOLDEN, digest_params, make_inputs, make_norm, make_params
from benchmarks.parity_lerobot.torch_form import (
    EXPERT,
    LANGUAGE,
    VISION,
    pack_prompts,
    to_torch_inputs,
    to_torch_weights,
)
from sop_jax.models.pi05.policy import Pi05Policy
from sop_jax.models.pytrees import count_params

FILE = pathlib.Path(__file__).parent / "golden" / "pi05_lerobot.json"
"""Made by `python -m benchmarks.parity_lerobot --write-golden tests/models/golden/pi05_lerobot.json`."""


@pytest.fixture(scope="module", params=sorted(GOLDEN))
def golden(request):
    case, content = GOLDEN[request.param], json.loads(FILE.read_text())[request.param]
    params = make_params(case)
    # A change here means other parameters (numpy's generators, the case, the tree), not another model: remake the file.
    assert digest_params(params) == content["params_digest"]
    return case, params, np.asarray(content["loss"]), np.asarray(content["actions"])


def test_the_loss_is_lerobots(golden):
    case, params, expected, _ = golden
    inputs, model = make_inputs(case), Pi05Policy(case.config)
    error = jax.jit(model.squared_error)(params, make_norm(case), inputs.batch, inputs.noise, inputs.time)
    assert expected.shape == (2, 4, 6)
    assert 0.5 < expected.std() < 10
    np.testing.assert_allclose(error, expected, rtol=0, atol=parity.TOLERANCE)


def test_sampled_chunks_are_lerobots(golden):
    case, params, _, expected = golden
    inputs, model = make_inputs(case), Pi05Policy(case.config)
    sample = jax.jit(model.sample_actions, static_argnames="use_cache")
    args = (params, make_norm(case), inputs.batch.observation, jax.random.key(0))
    assert expected.shape == (2, 4, 4)
    assert 0.5 < expected.std() < 3
    for use_cache in (True, False):
        actions = sample(*args, use_cache=use_cache, noise=inputs.start)
        np.testing.assert_allclose(actions, expected, rtol=0, atol=parity.TOLERANCE)


def test_without_noise_a_chunk_is_drawn():
    model, inputs = Pi05Policy(GOLDEN["pi05"].config), make_inputs(GOLDEN["pi05"])
    sample, key = jax.jit(model.sample_actions), jax.random.key(5)
    args = (make_params(GOLDEN["pi05"]), make_norm(GOLDEN["pi05"]), inputs.batch.observation, key)
    given = sample(*args, noise=jax.random.normal(key, inputs.start.shape))
    np.testing.assert_allclose(sample(*args), given, atol=1e-6)
    assert np.abs(sample(*args, noise=inputs.start) - given).max() > 0.1


def test_the_loss_averages_the_squared_errors_of_its_draws():
    model, inputs = Pi05Policy(CASES[6].config), make_inputs(CASES[6])
    params, norm, key = make_params(CASES[6]), make_norm(CASES[6]), jax.random.key(5)
    noise_key, time_key = jax.random.split(key)
    noise = jax.random.normal(noise_key, (9, 4, 6))
    time = jax.random.uniform(time_key, (9,)) ** (1 / 1.5) * 0.999 + 0.001
    error = np.asarray(jax.jit(model.squared_error)(params, norm, inputs.batch, noise, time))
    loss = jax.jit(model.loss)(params, norm, inputs.batch, key)
    np.testing.assert_allclose(loss, error.reshape(3, 3, 4, 6).mean(axis=(1, 3)), rtol=1e-4)


def test_torch_weights_hold_every_parameter_under_its_name():
    params = make_params(GOLDEN["pi05"])
    weights = to_torch_weights(params)
    assert sum(value.size for value in weights.values()) == count_params(params)
    attention = params["PaliGemma"]["llm"]["layers"]["attn"]
    layer, head, row, column = 3, 5, 7, 11  # heads x head dimension (8 x 16) is no width here (64, 32)
    assert weights[f"{LANGUAGE}.layers.{layer}.self_attn.q_proj.weight"].shape == (128, 64)
    for theirs, suffix in ((LANGUAGE, ""), (EXPERT, "_1")):
        name = f"{theirs}.layers.{layer}.self_attn"
        query, out = attention[f"q_einsum{suffix}"]["w"], attention[f"attn_vec_einsum{suffix}"]["w"]
        assert weights[f"{name}.q_proj.weight"][head * 16 + row, column] == query[layer, head, column, row]
        assert weights[f"{name}.o_proj.weight"][column, head * 16 + row] == out[layer, head, row, column]
        value = attention[f"kv_einsum{suffix}"]["w"]
        assert weights[f"{name}.v_proj.weight"][row, column] == value[layer, 1, 0, column, row]
    block = params["PaliGemma"]["img"]["Transformer"]["encoderblock"]["MultiHeadDotProductAttention_0"]
    name = f"{VISION}.encoder.layers.2.self_attn"
    assert weights[f"{name}.out_proj.weight"][column, 12 + 4] == block["out"]["kernel"][2, 1, 4, column]
    assert weights[f"{name}.k_proj.weight"][12 + 4, column] == block["key"]["kernel"][2, column, 1, 4]
    assert weights[f"{name}.k_proj.bias"][12 + 4] == block["key"]["bias"][2, 1, 4]
    patch = params["PaliGemma"]["img"]["embedding"]["kernel"]
    assert weights[f"{VISION}.embeddings.patch_embedding.weight"][9, 2, 13, 0] == patch[13, 0, 2, 9]


def test_torch_inputs_are_packed_and_in_torchs_layout():
    case = CASES[1]  # prompts of 1, 8 and 0 tokens
    inputs = make_inputs(case)
    tokens, mask = pack_prompts(case, inputs)
    assert mask.sum(1).tolist() == [6, 13, 5]
    assert tokens[0, 0] == inputs.batch.observation.tokens[0, 0]
    bins = np.floor((np.asarray(inputs.batch.observation.state) + 1) * 128)
    np.testing.assert_array_equal(tokens[2, :5], 64 + bins[2])
    arrays = to_torch_inputs(case, inputs)
    assert arrays["images"].shape == (3, 3, 3, 28, 28)
    pixel = inputs.batch.observation.images["left_wrist"][2, 4, 9, 1]
    assert arrays["images"][1, 2, 1, 4, 9] == pytest.approx(pixel / 127.5 - 1, abs=1e-6)
    np.testing.assert_array_equal(arrays["actions"][..., 4:], 0)


@pytest.mark.parametrize(("off_by", "code"), [(0.0, 0), (1e-3, 1), (np.nan, 1)])
def test_the_benchmark_fails_on_a_difference(off_by, code, monkeypatch, capsys):
    def outputs(off_by: float) -> dict[str, np.ndarray]:
        return {
            f"{name}_{dtype}": np.ones(3) + off_by for name in ("loss", "actions") for dtype in ("float32", "bfloat16")
        }

    monkeypatch.setattr(parity, "find_lerobot_python", lambda given: pathlib.Path("python"))
    monkeypatch.setattr(parity, "run_lerobot", lambda cases, python: ([outputs(0.0)] * len(cases), {"torch": "none"}))
    monkeypatch.setattr(parity, "run_ours", lambda case, dtype: outputs(off_by if case is CASES[3] else 0.0))
    monkeypatch.setattr("sys.argv", ["parity_lerobot", "--json"])
    assert parity.main() == code
    result = json.loads(capsys.readouterr().out.splitlines()[-1])
    assert result["passed"] == (code == 0)
    assert result["peer"] == parity.TOLERANCE


def test_a_missing_environment_is_named_with_its_remedy(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"launch/setup\.sh parity"):
        parity.find_lerobot_python(tmp_path / "python")
