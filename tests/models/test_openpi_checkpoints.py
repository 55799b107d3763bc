"""Checkpoints in openpi's and PaliGemma's layouts, written here at small sizes, read back leaf by leaf."""

import dataclasses
import io
import json
import pathlib
import shutil

import jax
import ml_dtypes
import numpy as np
import orbax.checkpoint as ocp
import pytest
from model_cases import COMPACT, LORA, PI0, PI05, make_observation, norm_for, randomize
from object_server import serve

from sop_jax.models.bundle import InvalidBundleError, PolicyBundle
from sop_jax.models.pi05.checkpoints.load import load_params
from sop_jax.models.pi05.checkpoints.openpi import (
    find_asset_ids,
    open_openpi,
    read_openpi_params,
    read_openpi_stats,
    write_openpi,
)
from sop_jax.models.pi05.checkpoints.paligemma import is_paligemma, read_paligemma
from sop_jax.models.pi05.checkpoints.sources import NpzSource, OrbaxSource
from sop_jax.models.pi05.checkpoints.stores import (
    InvalidCheckpointError,
    StoreFile,
    describe,
    open_store,
    split_location,
)
from sop_jax.models.pi05.lora import is_lora
from sop_jax.models.pi05.policy import Pi05Policy
from sop_jax.models.policy import abstract_params
from sop_jax.models.pytrees import flatten_params, unflatten_params
from sop_jax.models.registry import create_model

BF16 = np.dtype(ml_dtypes.bfloat16)
HALF = dataclasses.replace(PI05, dtype="bfloat16")


def params_of(config, seed: int = 0) -> dict:
    return randomize(abstract_params(create_model(config)), seed)


def save(directory: pathlib.Path, params, with_value: bool = False, **options) -> pathlib.Path:
    """As openpi's `save_state` does, and (with_value) as it saves NNX's state."""
    if with_value:
        params = unflatten_params({(*path, "value"): leaf for path, leaf in flatten_params(params).items()})
    handler = ocp.PyTreeCheckpointHandler(**options)
    with ocp.Checkpointer(handler) as checkpointer:
        checkpointer.save(directory.absolute() / "params", {"params": params})
    return directory


def read(directory, config=PI05, storage="stored", **options):
    return read_openpi_params(open_openpi(str(directory)), config, storage, **options)


def assert_equal(got, expected) -> None:
    got, expected = flatten_params(got), flatten_params(expected)
    assert got.keys() == expected.keys()
    for path, leaf in expected.items():
        assert got[path].dtype == leaf.dtype, path
        np.testing.assert_array_equal(got[path], leaf, err_msg="/".join(path))


@pytest.fixture(scope="module")
def saved(tmp_path_factory) -> tuple[dict, pathlib.Path]:
    params = params_of(PI05)
    return params, save(tmp_path_factory.mktemp("openpi"), params)


@pytest.mark.parametrize(
    ("with_value", "options"),
    [(True, {}), (False, {"use_ocdbt": False}), (False, {"use_zarr3": True})],
    ids=["NNX state", "a directory per leaf", "zarr3"],
)
def test_every_layout_of_orbax_is_read(tmp_path, with_value, options):
    params = params_of(PI05)
    assert_equal(read(save(tmp_path, params, with_value, **options)), params)


@pytest.mark.parametrize("form", ["{}", "{}/", "{}/params", "file://{}", '{{"driver": "file", "path": "{}/"}}'])
def test_a_location_may_be_written_in_many_ways(saved, form):
    params, directory = saved
    assert_equal(read(form.format(directory)), params)


def test_pi0_too_and_what_the_forward_pass_makes_of_it(tmp_path):
    params = params_of(PI0)
    loaded = read(save(tmp_path, params), PI0)
    assert_equal(loaded, params)
    model = Pi05Policy(PI0)
    chunk = jax.jit(model.sample_actions)(loaded, norm_for(model), make_observation(model, ["go"]), jax.random.key(0))
    assert np.isfinite(chunk).all()


def test_leaves_are_cast_as_they_are_read(saved):
    params, directory = saved
    model = Pi05Policy(HALF)
    mixed = flatten_params(read(directory, HALF, "mixed"))
    low = flatten_params(read(directory, HALF, "bfloat16"))
    for path, leaf in flatten_params(params).items():
        np.testing.assert_array_equal(low[path], leaf.astype(BF16))
        wanted = leaf if model.is_trained(path) else leaf.astype(BF16)
        assert mixed[path].dtype == wanted.dtype
        np.testing.assert_array_equal(mixed[path], wanted)
    assert {leaf.dtype for leaf in mixed.values()} == {np.dtype("float32"), BF16}


def test_the_stored_dtype_is_read_not_assumed(tmp_path):
    params = jax.tree.map(lambda leaf: leaf.astype(BF16), params_of(PI05))
    directory = save(tmp_path, params)
    assert_equal(read(directory), params)
    assert_equal(read(directory, storage="float32"), jax.tree.map(lambda leaf: leaf.astype(np.float32), params))


def test_progress_names_every_leaf(saved):
    seen = []
    read(saved[1], report=lambda done, total, name: seen.append((done, total, name)))
    assert [done for done, _, _ in seen] == list(range(1, len(seen) + 1))
    assert {total for _, total, _ in seen} == {len(seen)}
    assert seen[0][2].startswith("PaliGemma/img/")


def test_misfits_are_listed(saved):
    directory = saved[1]
    with pytest.raises(InvalidBundleError, match=r"missing: .*final_norm_1/scale.*has pi05's head, the config pi0's"):
        read(directory, PI0)
    with pytest.raises(InvalidBundleError, match=r"3 misshapen: action_in_proj/kernel \(6, 16\) instead of \(7, 16\)"):
        read(directory, dataclasses.replace(PI05, model_action_dim=7))
    with pytest.raises(InvalidBundleError, match=r"2 missing: state_proj/bias, state_proj/kernel"):
        read(directory, dataclasses.replace(PI05, state_input="continuous"))


def test_extra_leaves_are_refused_or_ignored(tmp_path):
    params = params_of(PI05)
    directory = save(tmp_path, {**params, "value_head": {"kernel": np.zeros(2, np.float32)}})
    with pytest.raises(InvalidBundleError, match="1 extra: value_head/kernel"):
        read(directory)
    assert_equal(read(directory, ignore_extra=True), params)


def test_low_rank_additions_are_merged_kept_or_started(tmp_path, saved):
    params = params_of(LORA)
    directory = save(tmp_path, params)
    assert_equal(read(directory, LORA), params)

    merged = flatten_params(read(directory, PI05, lora_scaling=2.0))
    flat = flatten_params(params)
    assert merged.keys() == {path for path in flat if not is_lora(path)}
    attn, mlp = ("PaliGemma", "llm", "layers", "attn", "q_einsum"), ("PaliGemma", "llm", "layers", "mlp_1")
    by_hand = flat[*attn, "w"] + 2 * flat[*attn, "lora_a"] @ flat[*attn, "lora_b"]
    np.testing.assert_allclose(merged[*attn, "w"], by_hand, rtol=1e-5, atol=1e-6)
    by_hand = flat[*mlp, "linear"] + flat[*mlp, "linear_lora_a"] @ flat[*mlp, "linear_lora_b"]
    np.testing.assert_allclose(merged[*mlp, "linear"], by_hand, rtol=1e-5, atol=1e-6)

    expert_only = dataclasses.replace(LORA, language=PI05.language)
    kept = flatten_params(read(directory, expert_only, lora_scaling=3.0))
    assert {path for path in kept if is_lora(path)} == {
        p for p in flat if is_lora(p) and any("_1" in n for n in p[:-1])
    }
    np.testing.assert_array_equal(kept[*mlp, "linear"], flat[*mlp, "linear"])

    started = flatten_params(read(saved[1], LORA))
    fresh = [leaf for path, leaf in started.items() if is_lora(path)]
    assert len(fresh) == 20
    assert 0.005 < np.concatenate([leaf.ravel() for leaf in fresh]).std() < 0.02
    assert_equal(unflatten_params({p: leaf for p, leaf in started.items() if not is_lora(p)}), saved[0])


@pytest.mark.parametrize(
    ("location", "name"),
    [
        ("gs://bucket/checkpoints/pi05_base/params", "gs://bucket/checkpoints/pi05_base/"),
        ("s3://bucket/pi0", "s3://bucket/pi0/"),
        (
            '{"driver": "s3", "bucket": "bucket", "path": "c/", "aws_credentials": {"type": "anonymous"}, '
            '"endpoint": "http://localhost:1", "aws_region": "x"}',
            "s3://bucket/c/",
        ),
    ],
)
def test_object_stores_are_opened_without_asking_them(location, name):
    assert describe(open_openpi(location)) == name


def test_an_object_store_gives_what_the_disk_gives(saved, tmp_path):
    params, directory = saved
    (tmp_path / "models").mkdir()
    shutil.copytree(directory / "params", tmp_path / "models" / "mine" / "params")
    path = tmp_path / "models" / "mine" / "assets" / "arx" / "norm_stats.json"
    path.parent.mkdir(parents=True)
    entry = {"mean": [1.0] * 4, "std": [2.0] * 4, "q01": [-1.0] * 4, "q99": [1.0] * 4}
    path.write_text(json.dumps({"norm_stats": {"state": entry, "actions": entry}}))
    stored = save_npz(tmp_path / "models" / "pt.npz", params, BF16)
    with serve(tmp_path) as bucket:
        mine = json.dumps({**json.loads(bucket), "path": "models/mine/"})
        assert_equal(read(mine), params)
        assert find_asset_ids(open_openpi(mine)) == ["arx"]
        assert read_openpi_stats(open_openpi(mine), "arx", PI05).state_mean.tolist() == [1, 1, 1, 1, 0]
        npz = json.dumps({**json.loads(bucket), "path": "models/pt.npz"})
        assert is_paligemma(npz)
        assert not is_paligemma(mine)
        directory, name = split_location(npz)
        source = NpzSource(open_store(directory), name, ("params",))
        for path, leaf in stored.items():
            np.testing.assert_array_equal(source.read(path, BF16), leaf)
        with pytest.raises(InvalidCheckpointError, match="s3://bucket/nowhere/params/ holds no Orbax checkpoint"):
            read(json.dumps({**json.loads(bucket), "path": "nowhere/"}))


def test_leaves_are_read_once_each_in_the_dtype_wanted(saved):
    class Recorder:
        def __init__(self, source):
            self.source, self.read_as = source, []

        def shapes(self):
            return self.source.shapes()

        def read(self, path, dtype):
            self.read_as.append((path, np.dtype(dtype)))
            return self.source.read(path, dtype)

    source = Recorder(OrbaxSource(open_store(f"{saved[1]}/params"), ("params",)))
    model = Pi05Policy(HALF)
    load_params(model, source, "here")
    expected = {path: np.dtype(np.float32) if model.is_trained(path) else BF16 for path in source.shapes()}
    assert dict(source.read_as) == expected
    assert len(source.read_as) == len(expected)


def test_what_is_no_checkpoint_says_so(tmp_path, saved):
    with pytest.raises(InvalidCheckpointError, match=r"no file _METADATA in it. Name the directory above `params`"):
        read(tmp_path)
    with pytest.raises(InvalidCheckpointError, match="can't be opened: expected a local path, gs://"):
        open_openpi("ftp://somewhere/else")
    copy = pathlib.Path(shutil.copytree(saved[1], tmp_path / "copy"))
    for file in (copy / "params").rglob("*"):
        if file.is_file() and file.parent.name == "d":
            file.unlink()
    with pytest.raises(InvalidCheckpointError, match=r"can't be read, though _METADATA names it"):
        read(copy)
    empty = save(tmp_path / "empty", {})
    with pytest.raises(InvalidCheckpointError, match="holds nothing under 'params'"):
        read(empty)


def test_statistics_beside_the_checkpoint(saved, tmp_path):
    for asset_id in ("trossen", "physical-intelligence/libero"):
        path = tmp_path / "assets" / asset_id / "norm_stats.json"
        path.parent.mkdir(parents=True)
        entry = {"mean": [1.0] * 14, "std": [2.0] * 14, "q01": [-1.0] * 14, "q99": [1.0] * 14}
        path.write_text(json.dumps({"norm_stats": {"state": entry, "actions": entry}}))
    store = open_openpi(str(tmp_path))
    assert find_asset_ids(store) == ["physical-intelligence/libero", "trossen"]
    norm = read_openpi_stats(store, "trossen", PI05)
    assert norm.state_mean.tolist() == [1.0] * 5
    assert norm.action_std.shape == (3, 4)
    with pytest.raises(
        InvalidCheckpointError, match=r"assets/droid/norm_stats.json is missing.*\['physical.*'trossen'\]"
    ):
        read_openpi_stats(store, "droid", PI05)
    assert find_asset_ids(open_openpi(str(saved[1]))) == []


def test_export_and_import_are_inverse_to_the_bit(tmp_path):
    config = dataclasses.replace(HALF, state_input="tokens")
    model = Pi05Policy(config)
    flat = flatten_params(params_of(config))
    params = unflatten_params({p: leaf if model.is_trained(p) else leaf.astype(BF16) for p, leaf in flat.items()})
    bundle = PolicyBundle(config, params, norm_for(model))
    write_openpi(bundle, tmp_path / "out", "my/robot")
    back = PolicyBundle(
        config,
        read(tmp_path / "out", config, "mixed"),
        read_openpi_stats(open_openpi(str(tmp_path / "out")), "my/robot", config),
    )
    assert_equal(back.params, params)
    assert back.fingerprint == bundle.fingerprint
    assert back.norm.fingerprint == bundle.norm.fingerprint
    with pytest.raises(FileExistsError, match="directory of its own"):
        write_openpi(bundle, tmp_path / "out", "my/robot")

    # As openpi's `restore_params` reads it.
    with ocp.PyTreeCheckpointer() as checkpointer:
        restored = checkpointer.restore((tmp_path / "out" / "params").absolute())
    assert_equal(restored["params"], params)


def test_only_their_policies_are_exported(tmp_path):
    model = create_model(COMPACT)
    bundle = PolicyBundle(COMPACT, params_of(COMPACT), norm_for(model))
    with pytest.raises(InvalidCheckpointError, match="this one is of kind 'compact'"):
        write_openpi(bundle, tmp_path / "out", "x")


def save_npz(path: pathlib.Path, params, dtype) -> dict:
    """PaliGemma's leaves of `params` as big_vision writes them; returns all that isn't the action expert's."""
    flat = {
        p: leaf.astype(dtype)
        for p, leaf in flatten_params(params["PaliGemma"]).items()
        if not any(n.endswith("_1") and p[0] == "llm" for n in p)
    }
    np.savez(path, **{"/".join(("params", *p)): leaf for p, leaf in flat.items()})
    return flat


@pytest.mark.parametrize("dtype", [np.float32, np.float16, BF16], ids=["f32", "f16", "bf16"])
def test_an_npz_is_read_leaf_by_leaf_in_its_own_dtype(tmp_path, dtype):
    stored = save_npz(tmp_path / "pt_224.npz", params_of(PI05), dtype)
    source = NpzSource(open_store(str(tmp_path)), "pt_224.npz", ("params",))
    shapes = source.shapes()
    assert {path: (leaf.shape, leaf.dtype) for path, leaf in shapes.items()} == {
        path: (leaf.shape, leaf.dtype) for path, leaf in stored.items()
    }
    for path, leaf in stored.items():
        np.testing.assert_array_equal(source.read(path, dtype), leaf)
        assert source.read(path, np.float32).dtype == np.float32


def test_paligemma_gives_tower_and_language_model_and_nothing_else(tmp_path):
    path = tmp_path / "pt_224.npz"
    stored = save_npz(path, params_of(PI05), BF16)
    assert is_paligemma(str(path))
    assert not is_paligemma("gs://bucket/pi05_base")
    loaded = flatten_params(read_paligemma(str(path), PI05, "stored", jax.random.key(7)))
    init = flatten_params(jax.jit(Pi05Policy(PI05).init_params)(jax.random.key(7)))
    assert loaded.keys() == init.keys()
    for name, leaf in loaded.items():
        if name[0] == "PaliGemma" and name[1:] in stored:
            assert leaf.dtype == BF16
            np.testing.assert_array_equal(leaf, stored[name[1:]])
        else:
            np.testing.assert_allclose(leaf, init[name], rtol=1e-6)
    assert len(stored) == 32
    assert ("PaliGemma", "llm", "layers", "mlp_1", "linear") in loaded


def test_an_npz_that_does_not_fit_is_listed(tmp_path):
    params = params_of(PI05)
    del params["PaliGemma"]["img"]["head"]
    params["PaliGemma"]["llm"]["embedder"]["input_embedding"] = np.zeros((3, 20), np.float32)
    params["PaliGemma"]["llm"]["surplus"] = np.zeros(2, np.float32)
    save_npz(tmp_path / "x.npz", params, np.float32)
    with pytest.raises(
        InvalidBundleError,
        match=r"x.npz.*2 missing: PaliGemma/img/head/bias, .*1 extra: PaliGemma/llm/surplus; 1 misshapen: .*\(3, 20\)",
    ):
        read_paligemma(str(tmp_path / "x.npz"), PI05)
    (tmp_path / "broken.npz").write_bytes(b"not a zip file")
    with pytest.raises(InvalidCheckpointError, match=r"broken.npz is no .npz"):
        read_paligemma(str(tmp_path / "broken.npz"), PI05)
    with pytest.raises(InvalidCheckpointError, match=r"absent.npz: there is no such file"):
        read_paligemma(str(tmp_path / "absent.npz"), PI05)
    np.savez(tmp_path / "other.npz", weights=np.zeros(3))
    with pytest.raises(InvalidCheckpointError, match="holds nothing under 'params'"):
        read_paligemma(str(tmp_path / "other.npz"), PI05)


@pytest.mark.parametrize("size", [0, 1, 2, 3, 4, 1000])
def test_a_file_of_a_store_reads_like_a_file(tmp_path, size):
    data = np.random.default_rng(0).bytes(size)
    (tmp_path / "file").write_bytes(data)
    store, plain = open_store(str(tmp_path)), io.BytesIO(data)
    file = StoreFile(store, "file")
    assert file.seek(0, io.SEEK_END) == size
    for offset, num in ((0, 3), (size // 2, 1), (max(size - 2, 0), 9), (size + 5, 1)):
        file.seek(offset)
        plain.seek(offset)
        assert file.read(num) == plain.read(num)
        assert file.seek(-1, io.SEEK_CUR) == max(plain.tell() - 1, 0)
