"""Our parameters and inputs in the form of LeRobot's pi0.5 (PyTorch): names, transposed weights, packed prompts.

Weights follow the general rule, not openpi's converter, which relies on heads x head dimension = width.

Legend: `B` batch, `C` cameras, `H` horizon, `M` action dimensions inside the model, `L` text tokens, `h w` pixels,
`D` width, `K` heads, `k` head dimension.
"""

from collections.abc import Mapping

import numpy as np

from benchmarks.parity_lerobot.cases import Case, Inputs
from sop_jax.models.pytrees import Params, flatten_params

_MODEL = "paligemma_with_expert"
VISION = f"{_MODEL}.paligemma.model.vision_tower.vision_model"
PROJECTOR = f"{_MODEL}.paligemma.model.multi_modal_projector.linear"
LANGUAGE = f"{_MODEL}.paligemma.model.language_model"
EXPERT = f"{_MODEL}.gemma_expert.model"


def to_torch_weights(params: Params) -> dict[str, np.ndarray]:
    """Every parameter under its name in `PI05Pytorch.state_dict()`, except the unused output heads of the language models."""
    flat = {"/".join(path): np.asarray(leaf) for path, leaf in flatten_params(params).items()}
    weights = {**_vision_weights(flat), **_expert_weights(flat, LANGUAGE, ""), **_expert_weights(flat, EXPERT, "_1")}
    weights[f"{LANGUAGE}.embed_tokens.weight"] = flat["PaliGemma/llm/embedder/input_embedding"]
    for name in (path.removesuffix("/kernel") for path in flat if path.count("/") == 1 and path.endswith("/kernel")):
        weights |= _linear(name, flat[f"{name}/kernel"], flat[f"{name}/bias"])
    return {name: np.ascontiguousarray(value) for name, value in weights.items()}


def to_torch_inputs(case: Case, inputs: Inputs) -> dict[str, np.ndarray]:
    """Arguments of `forward` and `sample_actions`.

    images: [C, B, 3, h, w] in -1 .. 1. pi0.5's state is written into the prompt here as LeRobot's processor does it, and
    without gaps: the prompt is padded at its end alone. pi0's is an argument of its own.
    """
    observation, config = inputs.batch.observation, case.config
    images = np.stack([observation.images[name] for name in config.cameras]).transpose(0, 1, 4, 2, 3)
    tokens, token_mask = pack_prompts(case, inputs)
    state = np.asarray(observation.state)
    return {
        "images": images.astype(np.float32) / np.float32(255) * 2 - 1,
        "image_mask": np.stack([observation.image_mask[name] for name in config.cameras]),
        "tokens": tokens,
        "token_mask": token_mask,
        "actions": _pad(np.asarray(inputs.batch.actions), config.model_action_dim),
        "noise": inputs.noise,
        "time": inputs.time,
        "start": inputs.start,
        **({"state": _pad(state, config.model_action_dim)} if case.head == "pi0" else {}),
    }


def pack_prompts(case: Case, inputs: Inputs) -> tuple[np.ndarray, np.ndarray]:
    """Each example's instruction, then pi0.5's state in 256 bins, then padding: (tokens [B, L], mask [B, L])."""
    observation, config = inputs.batch.observation, case.config
    bins = np.digitize(np.asarray(observation.state), np.linspace(-1, 1, 256 + 1)[:-1]) - 1
    if case.head == "pi0":
        bins = bins[:, :0]
    shape = (bins.shape[0], config.max_tokens + bins.shape[1])
    tokens, mask = np.zeros(shape, np.int64), np.zeros(shape, bool)
    for row, length in enumerate(case.prompt_lengths):
        ids = [*observation.tokens[row, :length], *(config.vocab_size - 256 + bins[row])]
        tokens[row, : len(ids)] = ids
        mask[row, : len(ids)] = True
    return tokens, mask


def _vision_weights(flat: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    ours = "PaliGemma/img"
    weights = {
        f"{VISION}.embeddings.patch_embedding.weight": flat[f"{ours}/embedding/kernel"].transpose(3, 2, 0, 1),
        f"{VISION}.embeddings.patch_embedding.bias": flat[f"{ours}/embedding/bias"],
        f"{VISION}.embeddings.position_embedding.weight": flat[f"{ours}/pos_embedding"][0],
        f"{VISION}.post_layernorm.weight": flat[f"{ours}/Transformer/encoder_norm/scale"],
        f"{VISION}.post_layernorm.bias": flat[f"{ours}/Transformer/encoder_norm/bias"],
        **_linear(PROJECTOR, flat[f"{ours}/head/kernel"], flat[f"{ours}/head/bias"]),
    }
    block = f"{ours}/Transformer/encoderblock"
    for i in range(flat[f"{block}/LayerNorm_0/scale"].shape[0]):
        theirs = f"{VISION}.encoder.layers.{i}"
        for norm in (0, 1):
            weights[f"{theirs}.layer_norm{norm + 1}.weight"] = flat[f"{block}/LayerNorm_{norm}/scale"][i]
            weights[f"{theirs}.layer_norm{norm + 1}.bias"] = flat[f"{block}/LayerNorm_{norm}/bias"][i]
            kernel, bias = (flat[f"{block}/MlpBlock_0/Dense_{norm}/{leaf}"][i] for leaf in ("kernel", "bias"))
            weights |= _linear(f"{theirs}.mlp.fc{norm + 1}", kernel, bias)
        for name, ours_name in (("q_proj", "query"), ("k_proj", "key"), ("v_proj", "value"), ("out_proj", "out")):
            attention = f"{block}/MultiHeadDotProductAttention_0/{ours_name}"
            kernel, bias = flat[f"{attention}/kernel"][i], flat[f"{attention}/bias"][i]
            rows = kernel.shape[0] * kernel.shape[1] if name == "out_proj" else kernel.shape[0]
            weights |= _linear(f"{theirs}.self_attn.{name}", kernel.reshape(rows, -1), bias.reshape(-1))
    return weights


def _expert_weights(flat: Mapping[str, np.ndarray], theirs: str, suffix: str) -> dict[str, np.ndarray]:
    ours = "PaliGemma/llm/layers"
    weights = _norm_weights(flat, f"{theirs}.norm", f"PaliGemma/llm/final_norm{suffix}", None)
    query = flat[f"{ours}/attn/q_einsum{suffix}/w"]
    key_value = flat[f"{ours}/attn/kv_einsum{suffix}/w"]
    out = flat[f"{ours}/attn/attn_vec_einsum{suffix}/w"]
    gating, linear = flat[f"{ours}/mlp{suffix}/gating_einsum"], flat[f"{ours}/mlp{suffix}/linear"]
    for i in range(query.shape[0]):
        layer = f"{theirs}.layers.{i}"
        for name, weight in (("q_proj", query[i]), ("k_proj", key_value[i, 0]), ("v_proj", key_value[i, 1])):
            # [K, D, k] -> [K k, D]
            weights[f"{layer}.self_attn.{name}.weight"] = weight.transpose(0, 2, 1).reshape(-1, weight.shape[1])
        weights[f"{layer}.self_attn.o_proj.weight"] = out[i].reshape(-1, out.shape[-1]).T
        weights[f"{layer}.mlp.gate_proj.weight"] = gating[i, 0].T
        weights[f"{layer}.mlp.up_proj.weight"] = gating[i, 1].T
        weights[f"{layer}.mlp.down_proj.weight"] = linear[i].T
        weights |= _norm_weights(flat, f"{layer}.input_layernorm", f"{ours}/pre_attention_norm{suffix}", i)
        weights |= _norm_weights(flat, f"{layer}.post_attention_layernorm", f"{ours}/pre_ffw_norm{suffix}", i)
    return weights


def _norm_weights(flat: Mapping[str, np.ndarray], theirs: str, ours: str, layer: int | None) -> dict[str, np.ndarray]:
    """A plain RMSNorm has a scale, a modulated one a dense layer."""
    index = ... if layer is None else layer
    if f"{ours}/scale" in flat:
        return {f"{theirs}.weight": flat[f"{ours}/scale"][index]}
    return _linear(f"{theirs}.dense", flat[f"{ours}/Dense_0/kernel"][index], flat[f"{ours}/Dense_0/bias"][index])


def _pad(values: np.ndarray, dims: int) -> np.ndarray:
    """Zeros behind the last axis, up to `dims`."""
    return np.pad(values, [(0, 0)] * (values.ndim - 1) + [(0, dims - values.shape[-1])])


def _linear(name: str, kernel: np.ndarray, bias: np.ndarray) -> dict[str, np.ndarray]:
    return {f"{name}.weight": kernel.T, f"{name}.bias": bias}
