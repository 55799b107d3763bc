import dataclasses

import jax
import numpy as np
import pytest
from model_cases import LORA, PI05, make_observation, norm_for, randomize

from sop_jax.models.pi05.config import EXPERT_LORA, FULL, LANGUAGE_LORA
from sop_jax.models.pi05.lora import add_low_rank, is_lora, lora_equations, lora_factors
from sop_jax.models.pi05.policy import Pi05Policy
from sop_jax.models.policy import abstract_params
from sop_jax.models.pytrees import flatten_params, unflatten_params

KEY = jax.random.key(3)


def test_low_rank_additions_have_openpis_names_and_are_what_is_trained():
    language = dataclasses.replace(FULL.language, lora=LANGUAGE_LORA)
    model = Pi05Policy(
        dataclasses.replace(FULL, language=language, expert=dataclasses.replace(FULL.expert, lora=EXPERT_LORA))
    )
    flat = flatten_params(abstract_params(model))
    added = {"/".join(path[2:]): list(leaf.shape) for path, leaf in flat.items() if "lora" in path[-1]}
    assert added == {
        "layers/attn/q_einsum/lora_a": [18, 8, 2048, 16],
        "layers/attn/q_einsum/lora_b": [18, 8, 16, 256],
        "layers/attn/kv_einsum/lora_a": [18, 2, 1, 2048, 16],
        "layers/attn/kv_einsum/lora_b": [18, 2, 1, 16, 256],
        "layers/attn/attn_vec_einsum/lora_a": [18, 8, 256, 16],
        "layers/attn/attn_vec_einsum/lora_b": [18, 8, 16, 2048],
        "layers/mlp/gating_einsum_lora_a": [18, 2, 2048, 16],
        "layers/mlp/gating_einsum_lora_b": [18, 2, 16, 16384],
        "layers/mlp/linear_lora_a": [18, 16384, 16],
        "layers/mlp/linear_lora_b": [18, 16, 2048],
        "layers/attn/q_einsum_1/lora_a": [18, 8, 1024, 32],
        "layers/attn/q_einsum_1/lora_b": [18, 8, 32, 256],
        "layers/attn/kv_einsum_1/lora_a": [18, 2, 1, 1024, 32],
        "layers/attn/kv_einsum_1/lora_b": [18, 2, 1, 32, 256],
        "layers/attn/attn_vec_einsum_1/lora_a": [18, 8, 256, 32],
        "layers/attn/attn_vec_einsum_1/lora_b": [18, 8, 32, 1024],
        "layers/mlp_1/gating_einsum_lora_a": [18, 2, 1024, 32],
        "layers/mlp_1/gating_einsum_lora_b": [18, 2, 32, 4096],
        "layers/mlp_1/linear_lora_a": [18, 4096, 32],
        "layers/mlp_1/linear_lora_b": [18, 32, 1024],
    }
    trained = {path for path in flat if model.is_trained(path)}
    assert {path for path in trained if path[:2] == ("PaliGemma", "llm")} == {p for p in flat if "lora" in p[-1]}
    assert {path[0] for path in trained - {p for p in flat if "lora" in p[-1]}} == {
        "PaliGemma",
        "action_in_proj",
        "action_out_proj",
        "time_mlp_in",
        "time_mlp_out",
    }
    only_language = Pi05Policy(dataclasses.replace(FULL, language=language))
    assert only_language.is_trained(("PaliGemma", "llm", "layers", "mlp_1", "linear"))
    assert not only_language.is_trained(("PaliGemma", "llm", "layers", "mlp", "linear"))


def test_weights_with_their_additions_merged_act_alike():
    model, plain = Pi05Policy(LORA), Pi05Policy(PI05)
    params = randomize(abstract_params(model))
    flat = flatten_params(params)
    merged = {}
    for path, leaf in flat.items():
        factors = lora_factors(path, flat)
        scaling = (LORA.expert if any(n.endswith("_1") for n in path) else LORA.language).lora.scaling
        if not is_lora(path):
            merged[path] = (
                leaf if factors is None else add_low_rank(path, leaf, *map(flat.get, factors), scaling, leaf.dtype)
            )
    assert len(flat) - len(merged) == 20
    observation, norm = make_observation(model, ["take the can", "go"]), norm_for(model)
    unmerged = jax.jit(model.sample_actions)(params, norm, observation, KEY)
    once = jax.jit(plain.sample_actions)(unflatten_params(merged), norm, observation, KEY)
    without = {path: leaf for path, leaf in flat.items() if not is_lora(path)}
    np.testing.assert_allclose(once, unmerged, rtol=1e-3, atol=1e-3)
    assert np.abs(jax.jit(plain.sample_actions)(unflatten_params(without), norm, observation, KEY) - once).max() > 0.1


def test_equations_of_a_low_rank_addition():
    assert lora_equations("BTD,NDh->BTNh") == ("BTD,NDr->BTNr", "BTNr,Nrh->BTNh")
    assert lora_equations("BTNh,NhD->BTD") == ("BTNh,Nhr->BTr", "BTr,NrD->BTD")
    with pytest.raises(ValueError, match="without axis 'r'"):
        lora_equations("BTr,rD->BTD")
