"""Our pi0.5 and pi0 beside LeRobot's, number by number: the loss of every action dimension, and whole sampled chunks.

    launch/setup.sh parity                        # once: LeRobot's own environment, about 7 GB
    python -m benchmarks.parity_lerobot --json

Both sides get the same random parameters, observations, noise and times (cases.py); ours runs here, LeRobot's in its own
process and environment. What is compared in float32 must agree within the tolerance, or the exit code is 1; bfloat16 is for
information. ours = the largest absolute error of all cases, peer = the tolerance, ratio = peer / ours (above 1 = passed).
"""

import argparse
import dataclasses
import functools
import json
import os
import pathlib
import subprocess
import sys
import tempfile
from collections.abc import Callable, Sequence
from typing import Any

os.environ.setdefault("JAX_PLATFORMS", "cpu")

import jax
import numpy as np

from benchmarks.parity_lerobot.cases import (
    CASES,
    CONFIG,
    GOLDEN,
    Case,
    digest_params,
    make_inputs,
    make_norm,
    make_params,
)
from benchmarks.parity_lerobot.torch_form import to_torch_inputs, to_torch_weights
from sop_jax.models.pi05.config import Pi05Config
from sop_jax.models.pi05.policy import Pi05Policy

TOLERANCE = 2e-5
FOLDER = pathlib.Path(__file__).parent

Outputs = dict[str, np.ndarray]
"""loss [B N, H, M] and actions [B, H, A], by name and dtype: `loss_float32`, ..."""


def find_lerobot_python(given: pathlib.Path | None) -> pathlib.Path:
    """The Python of LeRobot's environment. Raises FileNotFoundError if there is none."""
    python = given or FOLDER / ".venv" / "bin" / "python"
    if not python.is_file():
        raise FileNotFoundError(
            f"LeRobot's environment is missing: no {python}. Make it with `launch/setup.sh parity`."
        )
    return python


@functools.cache
def compile_ours(config: Pi05Config) -> tuple[Callable[..., jax.Array], Callable[..., jax.Array]]:
    """(squared error, sampled chunk) of our model; cases of one config share the compilation."""
    model = Pi05Policy(config)
    return jax.jit(model.squared_error), jax.jit(model.sample_actions)


def run_ours(case: Case, dtype: str) -> Outputs:
    error, sample = compile_ours(dataclasses.replace(case.config, dtype=dtype))  # pyright: ignore[reportArgumentType]
    params, norm, inputs = make_params(case), make_norm(case), make_inputs(case)
    loss = error(params, norm, inputs.batch, inputs.noise, inputs.time)
    actions = sample(params, norm, inputs.batch.observation, jax.random.key(0), noise=inputs.start)
    return {f"loss_{dtype}": np.asarray(loss), f"actions_{dtype}": np.asarray(actions)}


def run_lerobot(cases: Sequence[Case], python: pathlib.Path) -> tuple[list[Outputs], dict[str, str]]:
    """LeRobot's outputs of each case, and the versions that gave them.

    Raises:
        RuntimeError: if its process fails, with the end of what it said.
    """
    with tempfile.TemporaryDirectory() as name:
        folder = pathlib.Path(name)
        (folder / "sizes.json").write_text(json.dumps(dataclasses.asdict(CONFIG)))
        for i, case in enumerate(cases):
            (folder / f"case-{i}").mkdir()
            np.savez(folder / f"case-{i}" / "weights.npz", allow_pickle=False, **to_torch_weights(make_params(case)))
            np.savez(
                folder / f"case-{i}" / "inputs.npz", allow_pickle=False, **to_torch_inputs(case, make_inputs(case))
            )
        command = [str(python), str(FOLDER / "lerobot_side.py"), name]
        result = subprocess.run(command, capture_output=True, text=True, check=False)
        if result.returncode:
            raise RuntimeError(f"LeRobot's side failed (exit {result.returncode}):\n{result.stderr[-3000:]}")
        outputs = [_load(folder / f"case-{i}" / "outputs.npz") for i in range(len(cases))]
        return [_drop_padding(case, found) for case, found in zip(cases, outputs, strict=True)], json.loads(
            (folder / "versions.json").read_text()
        )


def compare(ours: Outputs, theirs: Outputs) -> dict[str, float]:
    """Largest absolute error of each output, and the root mean square of LeRobot's beside it.

    Raises:
        ValueError: if the shapes differ.
    """
    found = {}
    for name in ("loss", "actions"):
        exact = theirs[f"{name}_float32"]
        for dtype in ("float32", "bfloat16"):
            mine, peer = ours[f"{name}_{dtype}"], theirs[f"{name}_{dtype}"]
            if mine.shape != peer.shape:
                raise ValueError(f"{name} in {dtype}: ours has shape {mine.shape}, LeRobot's {peer.shape}")
            found[f"{name}_{dtype}"] = float(np.abs(mine - peer).max())
        found[f"{name}_rms"] = float(np.sqrt(np.square(exact).mean()))
        # What bfloat16 costs each side: the scale on which to read the error between the two.
        found[f"{name}_bfloat16_own_ours"] = float(np.abs(ours[f"{name}_bfloat16"] - ours[f"{name}_float32"]).max())
        found[f"{name}_bfloat16_own_lerobot"] = float(np.abs(theirs[f"{name}_bfloat16"] - exact).max())
    return found


def summarize(cases: dict[str, dict[str, float]], tolerance: float) -> dict[str, Any]:
    """The JSON object; `passed` is False if any float32 error exceeds the tolerance or is no number."""
    errors = [found[name] for found in cases.values() for name in ("loss_float32", "actions_float32")]
    largest = float(np.max(errors))  # NaN if any is
    return {
        "name": "parity_lerobot",
        "ours": largest,
        "peer": tolerance,
        "ratio": round(tolerance / largest, 3) if largest > 0 else None,
        "units": "largest absolute error against LeRobot's PyTorch pi0.5 and pi0 in float32 (peer: the tolerance)",
        "passed": bool(largest <= tolerance),
        "cases": cases,
    }


def write_golden(path: pathlib.Path, python: pathlib.Path) -> None:
    """Keeps LeRobot's float32 outputs of the golden cases for the test suite."""
    outputs, versions = run_lerobot(list(GOLDEN.values()), python)
    content: dict[str, Any] = {
        "made_by": "python -m benchmarks.parity_lerobot --write-golden FILE",
        "versions": versions,
    }
    for (name, case), found in zip(GOLDEN.items(), outputs, strict=True):
        content[name] = {
            "params_digest": digest_params(make_params(case)),
            "loss": found["loss_float32"].tolist(),
            "actions": found["actions_float32"].tolist(),
        }
    path.write_text(json.dumps(content, indent=1) + "\n")


def print_table(cases: dict[str, dict[str, float]]) -> None:
    print(f"{'case':34}{'loss':>10}{'actions':>10}   rms {'loss':>6}{'actions':>9}   bf16 {'loss':>8}{'actions':>9}")
    for name, found in cases.items():
        print(
            f"{name:34}{found['loss_float32']:10.1e}{found['actions_float32']:10.1e}"
            f"       {found['loss_rms']:6.2f}{found['actions_rms']:9.2f}"
            f"        {found['loss_bfloat16']:8.3f}{found['actions_bfloat16']:9.3f}"
        )


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--json", action="store_true", help="print one JSON object as the last line (always done)")
    parser.add_argument("--tolerance", type=float, default=TOLERANCE, help="largest absolute error allowed in float32")
    parser.add_argument("--python", type=pathlib.Path, help="Python of another environment that has lerobot[pi]==0.5.1")
    parser.add_argument("--write-golden", type=pathlib.Path, metavar="FILE", help="remake the test suite's golden file")
    arguments = parser.parse_args()
    python = find_lerobot_python(arguments.python)
    if arguments.write_golden:
        write_golden(arguments.write_golden, python)
        return 0
    theirs, versions = run_lerobot(CASES, python)
    found = {}
    for case, peer in zip(CASES, theirs, strict=True):
        ours = {**run_ours(case, "float32"), **run_ours(case, "bfloat16")}
        found[case.name] = compare(ours, peer)
    print_table(found)
    result = {**summarize(found, arguments.tolerance), "versions": {"jax": jax.__version__, **versions}}
    print(json.dumps(result))
    return 0 if result["passed"] else 1


def _load(path: pathlib.Path) -> Outputs:
    with np.load(path, allow_pickle=False) as file:
        return {name: file[name] for name in file.files}


def _drop_padding(case: Case, outputs: Outputs) -> Outputs:
    """The robot's own action dimensions of LeRobot's chunk; the loss keeps the padded ones."""
    return {
        name: value[..., : case.action_dim] if name.startswith("actions") else value for name, value in outputs.items()
    }


if __name__ == "__main__":
    sys.exit(main())
