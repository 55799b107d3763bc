"""openpi's checkpoints: `<ckpt>/params` (Orbax, `{"params": {...}}`) and `<ckpt>/assets/<asset_id>/norm_stats.json`."""

import pathlib
from collections.abc import Collection

import jax
import tensorstore as ts

from sop_jax.models.bundle import InvalidBundleError, PolicyBundle, save_orbax
from sop_jax.models.normalization import NormStats
from sop_jax.models.pi05.checkpoints.load import MergedLora, OnlyLeaves, Report, Storage, load_params
from sop_jax.models.pi05.checkpoints.openpi_stats import format_openpi_stats, parse_openpi_stats
from sop_jax.models.pi05.checkpoints.sources import LeafSource, OrbaxSource
from sop_jax.models.pi05.checkpoints.stores import InvalidCheckpointError, describe, list_keys, open_store, try_read
from sop_jax.models.pi05.config import Pi05Config
from sop_jax.models.pi05.lora import is_lora
from sop_jax.models.pi05.policy import Pi05Policy
from sop_jax.models.policy import abstract_params
from sop_jax.models.pytrees import Params, flatten_params

_STATS = "norm_stats.json"


def read_openpi_params(
    store: ts.KvStore,
    config: Pi05Config,
    storage: Storage = "mixed",
    lora_scaling: float = 1.0,
    ignore_extra: bool = False,
    key: jax.Array | None = None,
    report: Report = lambda done, total, name: None,
) -> Params:
    """Parameters from a checkpoint's directory, on the host.

    Low-rank additions of the checkpoint that `config` has no place for are merged into their weights, attention's
    `lora_scaling` times; those of `config` that the checkpoint lacks start fresh.

    Raises:
        InvalidBundleError: the tree does not fit `config`; says which leaves are missing, extra or misshapen.
        InvalidCheckpointError: there is no such checkpoint, or a leaf can't be read.
    """
    model, where = Pi05Policy(config), describe(store)
    expected = flatten_params(abstract_params(model))
    source: LeafSource = MergedLora(OrbaxSource(store / "params/", ("params",)), expected.keys(), lora_scaling)
    if ignore_extra:
        source = OnlyLeaves(source, expected.keys())
    try:
        return load_params(model, source, where, storage, is_lora, key, report)
    except InvalidBundleError as error:
        raise InvalidBundleError(f"{error}{_hint(source, config)}") from error


def _hint(source: LeafSource, config: Pi05Config) -> str:
    names = {path[0] for path in source.shapes()}
    heads = {"pi0": "action_time_mlp_in", "pi05": "time_mlp_in"}
    found = next((head for head, name in heads.items() if name in names), config.head)
    return f" The checkpoint has {found}'s head, the config {config.head}'s." if found != config.head else ""


def find_asset_ids(store: ts.KvStore) -> list[str]:
    """The assets with statistics beside a checkpoint; a name may hold slashes."""
    keys = [key.split("/") for key in list_keys(store, "assets/")]
    return ["/".join(parts[1:-1]) for parts in keys if parts[-1] == _STATS and len(parts) > 2]


def read_openpi_stats(
    store: ts.KvStore, asset_id: str, config: Pi05Config, delta_dims: Collection[int] | None = None
) -> NormStats:
    """Statistics for the robot that `config` describes; see `parse_openpi_stats`.

    Raises:
        InvalidCheckpointError: there are none of that name, or they can't be read.
    """
    key = f"assets/{asset_id}/{_STATS}"
    text = try_read(store, key)
    if text is None:
        raise InvalidCheckpointError(
            f"{describe(store)}{key} is missing; the checkpoint has statistics of {find_asset_ids(store) or 'no asset'}"
        )
    sizes = (config.state_dim, config.action_dim, config.horizon)
    return parse_openpi_stats(text, f"{describe(store)}{key}", config.normalization, *sizes, delta_dims)


def write_openpi(bundle: PolicyBundle, directory: pathlib.Path, asset_id: str) -> None:
    """Writes a checkpoint that openpi restores and `read_openpi_params` reads back bit for bit.

    Raises:
        FileExistsError: the directory is in use.
        InvalidCheckpointError: openpi has no such policy.
    """
    if not isinstance(bundle.config, Pi05Config):
        raise InvalidCheckpointError(f"openpi has pi0 and pi0.5 policies; this one is of kind {bundle.config.kind!r}")
    if directory.exists() and any(directory.iterdir()):
        raise FileExistsError(f"{directory} is not empty: a checkpoint needs a directory of its own")
    stats = directory / "assets" / asset_id / _STATS
    stats.parent.mkdir(parents=True)
    stats.write_text(format_openpi_stats(bundle.norm))
    save_orbax(directory / "params", {"params": bundle.params})


def open_openpi(location: str) -> ts.KvStore:
    """The checkpoint's directory; `location` may also name the `params` in it, as openpi's configs do."""
    return open_store(location.rstrip("/").removesuffix("/params"))
