import json
import pathlib

import jax
import ml_dtypes
import numpy as np
import orbax.checkpoint as ocp
import pytest

from sop_jax.cli.main import main
from sop_jax.models.bundle import load_bundle
from sop_jax.models.normalization import identity_norm_stats, save_norm_stats
from sop_jax.models.policy import abstract_params
from sop_jax.models.pytrees import flatten_params, unflatten_params
from sop_jax.models.registry import PRESETS, create_model

STATS = {"mean": [0.5] * 16, "std": [2.0] * 16, "q01": [-1.0] * 16, "q99": [1.0] * 16}


def make_params(preset: str) -> dict:
    rng = np.random.default_rng(0)
    flat = flatten_params(abstract_params(create_model(PRESETS[preset])))
    return unflatten_params({path: rng.normal(0, 0.1, leaf.shape).astype(np.float32) for path, leaf in flat.items()})


def write_stats(checkpoint: pathlib.Path, asset_id: str) -> None:
    path = checkpoint / "assets" / asset_id / "norm_stats.json"
    path.parent.mkdir(parents=True)
    path.write_text(json.dumps({"norm_stats": {"state": STATS, "actions": STATS}}))


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory) -> tuple[dict, pathlib.Path]:
    """As openpi's training leaves it: bfloat16, every path with "value" at its end."""
    directory = tmp_path_factory.mktemp("openpi")
    params = jax.tree.map(lambda leaf: leaf.astype(ml_dtypes.bfloat16), make_params("pi0_tiny"))
    state = unflatten_params({(*path, "value"): leaf for path, leaf in flatten_params(params).items()})
    with ocp.PyTreeCheckpointer() as checkpointer:
        checkpointer.save(directory / "params", {"params": state})
    write_stats(directory, "arx")
    return params, directory


def run(capsys, *words) -> dict:
    assert main(["weights", *map(str, words), "--json"]) == 0
    return json.loads(capsys.readouterr().out.strip().splitlines()[-1])


def refused(capsys, *words) -> str:
    assert main(["weights", *map(str, words)]) == 2
    error = capsys.readouterr().err
    assert error.count("\n") == 1
    return error


def test_import_export_and_import_again(checkpoint, tmp_path, capsys):
    params, directory = checkpoint
    options = ("--preset", "pi0_tiny", "--delta-dims", 0, 1)
    first = run(capsys, "import", "--path", directory, "--output", tmp_path / "policy", *options)
    assert first["statistics"] == "asset arx"
    assert first["num_params"] == sum(leaf.size for leaf in flatten_params(params).values()) == first["num_trained"]
    bundle = load_bundle(tmp_path / "policy")
    assert bundle.config == PRESETS["pi0_tiny"]
    assert bundle.fingerprint == first["fingerprint"]
    assert bundle.norm.action_is_delta.tolist() == [True, True] + [False] * 14
    for path, leaf in flatten_params(bundle.params).items():
        assert leaf.dtype == np.float32  # every leaf of this preset is trained
        np.testing.assert_array_equal(leaf, flatten_params(params)[path].astype(np.float32))

    out = run(capsys, "export", "--policy", tmp_path / "policy", "--output", tmp_path / "out", "--asset-id", "mine")
    assert out["delta_dims"] == [0, 1]
    again = run(capsys, "import", "--path", tmp_path / "out/params", "--output", tmp_path / "again", *options[:2])
    assert (again["fingerprint"], again["norm_fingerprint"]) == (first["fingerprint"], first["norm_fingerprint"])


def test_import_for_another_robot(checkpoint, tmp_path, capsys):
    sizes = ("--state-dim", 9, "--action-dim", 7, "--horizon", 5, "--cameras", "front", "--dtype", "stored")
    run(capsys, "import", "--path", checkpoint[1], "--output", tmp_path / "p", "--preset", "pi0_tiny", *sizes)
    bundle = load_bundle(tmp_path / "p")
    assert (bundle.config.state_dim, bundle.config.action_dim, bundle.config.horizon) == (9, 7, 5)
    assert bundle.config.cameras == ("front",)
    assert bundle.norm.action_mean.shape == (5, 7)
    assert {leaf.dtype for leaf in flatten_params(bundle.params).values()} == {np.dtype(ml_dtypes.bfloat16)}


def test_import_of_paligemma(tmp_path, capsys):
    params = make_params("pi05_tiny")["PaliGemma"]
    stored = {
        "/".join(("params", *path)): leaf
        for path, leaf in flatten_params(params).items()
        if path[0] == "img" or not any(part.endswith("_1") for part in path)
    }
    np.savez(tmp_path / "pt.npz", **stored)
    save_norm_stats(identity_norm_stats(16, 16, 16), tmp_path / "stats.json")
    options = ("--preset", "pi05_tiny", "--norm-stats", tmp_path / "stats.json", "--expert-lora", 2)
    found = run(capsys, "import", "--path", tmp_path / "pt.npz", "--output", tmp_path / "p", *options)
    bundle = load_bundle(tmp_path / "p")
    assert bundle.config.expert.lora.rank == 2
    assert 0 < found["num_trained"] < found["num_params"]
    for name, leaf in stored.items():
        np.testing.assert_array_equal(flatten_params(bundle.params)["PaliGemma", *name.split("/")[1:]], leaf)
    assert bundle.norm.fingerprint == identity_norm_stats(16, 16, 16).fingerprint


def test_mistakes_are_one_line(checkpoint, tmp_path, capsys):
    directory = checkpoint[1]
    start = ("import", "--output", tmp_path / "p", "--path")
    assert "unknown preset 'pi06'" in refused(capsys, *start, directory, "--preset", "pi06")
    error = refused(capsys, *start, directory, "--preset", "pi05_tiny")
    assert "has pi0's head, the config pi05's" in error
    assert "missing: PaliGemma/llm/final_norm_1/Dense_0/bias" in error
    assert "no file _METADATA" in refused(capsys, *start, tmp_path, "--preset", "pi0_tiny")
    assert "assets/ur5e/norm_stats.json is missing; the checkpoint has statistics of ['arx']" in refused(
        capsys, *start, directory, "--preset", "pi0_tiny", "--asset-id", "ur5e"
    )
    assert "pads the state" in refused(capsys, *start, directory, "--preset", "pi0_tiny", "--state-dim", 40)
    assert "x.npz: there is no such file" in refused(capsys, *start, tmp_path / "x.npz", "--preset", "pi05_tiny")
    (tmp_path / "used").mkdir()
    (tmp_path / "used" / "file").touch()
    assert "directory of its own" in refused(capsys, "import", "--path", directory, "--output", tmp_path / "used")
    assert "is no policy" in refused(capsys, "export", "--policy", tmp_path, "--output", tmp_path / "out")
    assert not (tmp_path / "p").exists()
    save_norm_stats(identity_norm_stats(16, 16, 9), tmp_path / "stats.json")
    assert "is for (state_dim, horizon, action_dim) (16, 9, 16), the policy has (16, 16, 16)" in refused(
        capsys, *start, directory, "--preset", "pi0_tiny", "--norm-stats", tmp_path / "stats.json"
    )
    write_stats(directory, "trossen")
    assert "arx, trossen: choose with --asset-id" in refused(capsys, *start, directory, "--preset", "pi0_tiny")


def test_help_names_units_and_defaults(capsys):
    for action in ("import", "export"):
        assert main(["weights", action, "--help"]) == 0
        assert "asset-id" in capsys.readouterr().out
