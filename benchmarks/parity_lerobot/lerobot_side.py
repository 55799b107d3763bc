"""LeRobot's side of the comparison; runs in its own environment and imports nothing of ours.

    python lerobot_side.py FOLDER

FOLDER/sizes.json holds the sizes of the model. Every sub-folder is a case: weights.npz (by name in the state dict) and
inputs.npz go in; outputs.npz comes out, with the squared error [B N, H, M] and the sampled chunk [B, H, M] in float32 and
in bfloat16. FOLDER/versions.json says what ran.
"""

import importlib.metadata
import json
import pathlib
import platform
import sys

import numpy as np
import torch  # pyright: ignore[reportMissingImports]
from lerobot.policies.pi0 import modeling_pi0  # pyright: ignore[reportMissingImports]
from lerobot.policies.pi0.configuration_pi0 import PI0Config  # pyright: ignore[reportMissingImports]
from lerobot.policies.pi05 import modeling_pi05  # pyright: ignore[reportMissingImports]
from lerobot.policies.pi05.configuration_pi05 import PI05Config  # pyright: ignore[reportMissingImports]

DTYPES = ("float32", "bfloat16")
EXPERT_SIZES = ("width", "depth", "mlp_dim", "num_heads", "num_kv_heads", "head_dim")


def make_model(sizes: dict, head: str, dtype: str) -> torch.nn.Module:
    """LeRobot's model at our sizes. Its config knows two sizes only, so two of its names are replaced while it is built."""
    module, config_class, model_class = {
        "pi05": (modeling_pi05, PI05Config, "PI05Pytorch"),
        "pi0": (modeling_pi0, PI0Config, "PI0Pytorch"),
    }[head]
    experts = {"gemma_2b": sizes["language"], "gemma_300m": sizes["expert"]}
    module.get_gemma_config = lambda variant: module.GemmaConfig(
        **{name: experts[variant][name] for name in EXPERT_SIZES}
    )
    original = module.PaliGemmaForConditionalGenerationWithPiGemma

    def make_small(config):
        vision, width = sizes["vision"], sizes["language"]["width"]
        config.text_config.vocab_size = sizes["vocab_size"]
        config.vision_config.hidden_size = vision["width"]
        config.vision_config.intermediate_size = vision["mlp_dim"]
        config.vision_config.num_hidden_layers = vision["depth"]
        config.vision_config.num_attention_heads = vision["num_heads"]
        config.vision_config.patch_size = vision["patch_size"]
        config.vision_config.projection_dim = config.projection_dim = width
        return original(config=config)

    module.PaliGemmaForConditionalGenerationWithPiGemma = make_small
    try:
        size = sizes["vision"]["image_size"]
        config = config_class(
            max_action_dim=sizes["model_action_dim"],
            max_state_dim=sizes["model_action_dim"],
            chunk_size=sizes["horizon"],
            n_action_steps=sizes["horizon"],
            image_resolution=(size, size),
            device="cpu",
            dtype=dtype,
        )
        return getattr(module, model_class)(config).eval()
    finally:
        module.PaliGemmaForConditionalGenerationWithPiGemma = original


def load_weights(model: torch.nn.Module, path: pathlib.Path) -> None:
    """Raises ValueError if a weight has no place, or a place that counts gets no weight."""
    with np.load(path, allow_pickle=False) as file:
        weights = {name: torch.from_numpy(file[name]) for name in file.files}
    missing, unexpected = model.load_state_dict(weights, strict=False)
    missing = [name for name in missing if not name.endswith("lm_head.weight")]  # predicts words; never used here
    if missing or unexpected:
        raise ValueError(f"{path}: the model lacks weights for {missing} and has no place for {unexpected}")


@torch.no_grad()
def run_case(model: torch.nn.Module, inputs: dict[str, torch.Tensor], num_steps: int) -> tuple[np.ndarray, np.ndarray]:
    """(squared error of the loss, sampled chunk); the examples are repeated for as many draws as there are noises."""
    draws = inputs["noise"].shape[0] // inputs["tokens"].shape[0]

    def observe(repeats: int) -> list:
        cameras = [list(inputs[name].repeat_interleave(repeats, dim=1)) for name in ("images", "image_mask")]
        names = [name for name in ("tokens", "token_mask", "state") if name in inputs]  # only pi0 takes a state
        return cameras + [inputs[name].repeat_interleave(repeats, dim=0) for name in names]

    actions = inputs["actions"].repeat_interleave(draws, dim=0)
    loss = model.forward(*observe(draws), actions, noise=inputs["noise"], time=inputs["time"])
    chunk = model.sample_actions(*observe(1), noise=inputs["start"], num_steps=num_steps)
    return loss.float().numpy(), chunk.float().numpy()


def main() -> None:
    folder = pathlib.Path(sys.argv[1])
    sizes = json.loads((folder / "sizes.json").read_text())
    versions = {name: importlib.metadata.version(name) for name in ("lerobot", "transformers", "torch")}
    (folder / "versions.json").write_text(json.dumps({**versions, "python": platform.python_version()}))
    models = {head: {dtype: make_model(sizes, head, dtype) for dtype in DTYPES} for head in ("pi05", "pi0")}
    for case in sorted(path for path in folder.iterdir() if path.is_dir()):
        with np.load(case / "inputs.npz", allow_pickle=False) as file:
            inputs = {name: torch.from_numpy(file[name]) for name in file.files}
        outputs = {}
        for dtype, model in models["pi0" if "state" in inputs else "pi05"].items():
            load_weights(model, case / "weights.npz")
            outputs[f"loss_{dtype}"], outputs[f"actions_{dtype}"] = run_case(model, inputs, sizes["num_steps"])
        np.savez(case / "outputs.npz", allow_pickle=False, **outputs)
        print(f"{case.name}: done", flush=True)


if __name__ == "__main__":
    main()
