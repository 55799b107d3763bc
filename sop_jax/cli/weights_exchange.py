"""`sop weights import|export`: policies from openpi's and PaliGemma's weights, and to openpi's layout."""

import dataclasses
import pathlib
from collections.abc import Sequence
from typing import Any, Literal

import jax

from sop_jax.cli.arguments import UsageError, parse
from sop_jax.cli.locations import find_policy
from sop_jax.cli.output import print_json, progress_console, say
from sop_jax.cli.progress import WorkProgress
from sop_jax.models.bundle import PolicyBundle, load_bundle
from sop_jax.models.normalization import NormStats, identity_norm_stats, load_norm_stats
from sop_jax.models.pi05.checkpoints.load import Storage
from sop_jax.models.pi05.checkpoints.openpi import (
    find_asset_ids,
    open_openpi,
    read_openpi_params,
    read_openpi_stats,
    write_openpi,
)
from sop_jax.models.pi05.checkpoints.openpi_stats import parse_openpi_stats
from sop_jax.models.pi05.checkpoints.paligemma import is_paligemma, read_paligemma
from sop_jax.models.pi05.config import LoraConfig, Pi05Config
from sop_jax.models.policy import PolicyModel
from sop_jax.models.pytrees import Params, count_params, flatten_params
from sop_jax.models.registry import PRESETS

_PRESETS = tuple(name for name, config in PRESETS.items() if isinstance(config, Pi05Config))


@dataclasses.dataclass(frozen=True)
class ImportArguments:
    """Makes a policy directory from an openpi checkpoint (pi0, pi0.5), or from PaliGemma's .npz with a fresh action expert.

    The tree is compared with the preset's before anything is read; leaves are then read and cast one at a time.
    """

    path: str
    """The checkpoint: its directory (that of `params` and `assets`) or a .npz file; local, gs:// or s3://."""

    output: str
    """The policy directory to make; must not exist or be empty."""

    preset: str = "pi05"
    """Which policy: pi05, pi0, pi05_tiny, pi0_tiny."""

    asset_id: str = ""
    """Whose statistics: <path>/assets/<asset_id>/norm_stats.json. Empty = the only ones there."""

    norm_stats: str = ""
    """A file of statistics to use instead: this project's norm_stats.json, or openpi's."""

    delta_dims: tuple[int, ...] | None = None
    """Action dimensions that are differences from the state (openpi's DeltaActions mask). Default: none."""

    cameras: tuple[str, ...] = ()
    """The robot's cameras in the model's order (openpi: base, left wrist, right wrist). Leave out those it lacks."""

    state_dim: int = 0
    """Dimensions of the robot's state; 0 = the preset's."""

    action_dim: int = 0
    """Dimensions of the robot's actions; 0 = the preset's."""

    horizon: int = 0
    """Actions in a chunk; 0 = the preset's."""

    state_input: Literal["", "tokens", "continuous", "suffix", "none"] = ""
    """How the state enters, if not as in the preset ("none": pi05_libero)."""

    language_lora: int = 0
    """Rank of low-rank additions to the language model (openpi: 16; alpha = rank); 0 = none. A checkpoint's own additions
    are merged into the weights unless they are asked for here."""

    expert_lora: int = 0
    """Rank of low-rank additions to the action expert (openpi: 32; alpha = rank); 0 = none."""

    lora_scaling: float = 1.0
    """alpha / rank of the additions that are merged; openpi's own variants have 1."""

    dtype: Storage = "mixed"
    """Parameters are kept as mixed (trained ones float32, frozen ones bfloat16), float32, bfloat16, or as stored."""

    ignore_extra: bool = False
    """Drop leaves of the checkpoint that the policy doesn't have, instead of refusing it."""

    seed: int = 0
    """For leaves that no checkpoint gives: PaliGemma's action expert, new low-rank additions."""

    json: bool = False
    """Print one JSON object as the last line."""


@dataclasses.dataclass(frozen=True)
class ExportArguments:
    """Writes a pi0 or pi0.5 policy as an openpi checkpoint: `params` (Orbax) and `assets/<asset_id>/norm_stats.json`."""

    policy: str
    """The policy directory (with policy.json)."""

    output: str
    """The checkpoint's directory to make; must not exist or be empty."""

    asset_id: str = "sop"
    """The name under which openpi finds the statistics."""

    json: bool = False
    """Print one JSON object as the last line."""


def run_import(argv: Sequence[str]) -> int:
    arguments = parse(ImportArguments, argv, "weights import")
    output = pathlib.Path(arguments.output)
    if output.exists() and any(output.iterdir()):
        raise UsageError(f"{output} is not empty: a policy needs a directory of its own")
    config = make_config(arguments)
    # Statistics first: they are small, and what is wrong with them is known before gigabytes have been read.
    norm, statistics = _find_stats(arguments, config)
    bundle = PolicyBundle(config, _read_params(arguments, config), norm)
    fingerprint = bundle.save(output)
    trained = _count_trained(bundle.model, bundle.params)
    say(
        f"{output}: {arguments.preset}, {count_params(bundle.params):,} parameters ({trained:,} trained), fingerprint "
        f"{fingerprint}, statistics: {statistics}"
    )
    if arguments.json:
        print_json(
            {
                "policy": output,
                "fingerprint": fingerprint,
                "norm_fingerprint": norm.fingerprint,
                "statistics": statistics,
                "num_params": count_params(bundle.params),
                "num_trained": trained,
                "num_bytes": sum(leaf.nbytes for leaf in flatten_params(bundle.params).values()),
            }
        )
    return 0


def run_export(argv: Sequence[str]) -> int:
    arguments = parse(ExportArguments, argv, "weights export")
    bundle, output = load_bundle(find_policy(arguments.policy)), pathlib.Path(arguments.output)
    try:
        write_openpi(bundle, output, arguments.asset_id)
    except FileExistsError as error:
        raise UsageError(str(error)) from None
    deltas = [dim for dim, is_delta in enumerate(bundle.norm.action_is_delta) if is_delta]
    say(f"{output}: {count_params(bundle.params):,} parameters, statistics as asset {arguments.asset_id!r}")
    if deltas:
        say(
            f"differences from the state in action dimensions {deltas}: give openpi's data config that DeltaActions mask"
        )
    if arguments.json:
        print_json({"checkpoint": output, "asset_id": arguments.asset_id, "delta_dims": deltas})
    return 0


def make_config(arguments: ImportArguments) -> Pi05Config:
    """The preset with what the command line changes. Raises UsageError if that is no policy."""
    config = PRESETS.get(arguments.preset)
    if not isinstance(config, Pi05Config):
        raise UsageError(f"unknown preset {arguments.preset!r}: expected one of {', '.join(_PRESETS)}")
    wanted = {
        name: getattr(arguments, name) for name in ("cameras", "state_dim", "action_dim", "horizon", "state_input")
    }
    changes: dict[str, Any] = {name: value for name, value in wanted.items() if value}
    for name, rank in (("language", arguments.language_lora), ("expert", arguments.expert_lora)):
        if rank:
            changes[name] = dataclasses.replace(getattr(config, name), lora=LoraConfig(rank, float(rank)))
    try:
        return dataclasses.replace(config, **changes)
    except ValueError as error:
        raise UsageError(str(error)) from None


def _read_params(arguments: ImportArguments, config: Pi05Config) -> Params:
    with WorkProgress(progress_console, "leaves read", 1) as progress:
        key, show = jax.random.key(arguments.seed), progress.update_total
        if is_paligemma(arguments.path):
            return read_paligemma(arguments.path, config, arguments.dtype, key, show)
        store = open_openpi(arguments.path)
        scaling, ignore = arguments.lora_scaling, arguments.ignore_extra
        return read_openpi_params(store, config, arguments.dtype, scaling, ignore, key, show)


def _find_stats(arguments: ImportArguments, config: Pi05Config) -> tuple[NormStats, str]:
    """The statistics, and where they come from in words."""
    sizes = (config.state_dim, config.action_dim, config.horizon)
    if arguments.norm_stats:
        return _read_stats_file(pathlib.Path(arguments.norm_stats), arguments, config)
    asset_id = arguments.asset_id
    if not is_paligemma(arguments.path):
        store = open_openpi(arguments.path)
        found = [asset_id] if asset_id else find_asset_ids(store)
        if len(found) > 1:
            raise UsageError(f"{arguments.path} has statistics of {', '.join(found)}: choose with --asset-id")
        if found:
            return read_openpi_stats(store, found[0], config, arguments.delta_dims), f"asset {found[0]}"
    elif asset_id:
        raise UsageError("PaliGemma has no statistics: give a file with --norm-stats, and no --asset-id")
    return identity_norm_stats(*sizes), "none found, so numbers pass unchanged (--norm-stats FILE gives some)"


def _read_stats_file(path: pathlib.Path, arguments: ImportArguments, config: Pi05Config) -> tuple[NormStats, str]:
    text = path.read_text()
    if '"fingerprint"' not in text:
        sizes = (config.state_dim, config.action_dim, config.horizon)
        return parse_openpi_stats(text, str(path), config.normalization, *sizes, arguments.delta_dims), str(path)
    try:
        norm = load_norm_stats(path)
    except ValueError as error:
        raise UsageError(str(error)) from None
    have = (norm.state_mean.shape[-1], *norm.action_mean.shape)
    want = (config.state_dim, config.horizon, config.action_dim)
    if have != want:
        raise UsageError(f"{path} is for (state_dim, horizon, action_dim) {have}, the policy has {want}")
    if arguments.delta_dims is not None:
        raise UsageError(f"{path} says itself which actions are differences from the state: leave out --delta-dims")
    return norm, str(path)


def _count_trained(model: PolicyModel, params: Params) -> int:
    return sum(leaf.size for path, leaf in flatten_params(params).items() if model.is_trained(path))
