"""A policy as a directory: what it is, what it was normalised with, and its parameters.

    policy.json       format version, model kind and config, fingerprints
    norm_stats.json   normalisation statistics
    params/           parameters (Orbax)

The base fingerprint names exactly these parameters of exactly this model; publications refer to it.
"""

import asyncio
import dataclasses
import hashlib
import json
import pathlib
from collections.abc import Mapping, Sequence
from typing import Any, Protocol, runtime_checkable

import jax
import numpy as np
import orbax.checkpoint as ocp
from jaxtyping import PRNGKeyArray

from sop_jax.models.normalization import NormStats, load_norm_stats, save_norm_stats
from sop_jax.models.policy import PolicyModel
from sop_jax.models.pytrees import Params, flatten_params
from sop_jax.models.registry import PolicyConfig, config_from_json, config_to_json, create_model
from sop_jax.specs.errors import SopError

FORMAT_VERSION = 1

_GROUP_BYTES = 1 << 28


class InvalidBundleError(SopError):
    """A policy directory is incomplete, damaged, or does not hold the parameters that its model needs."""


@runtime_checkable
class HasParams(Protocol):
    """A model of which only the parameters' names and shapes matter."""

    @property
    def config(self) -> Any: ...

    def init_params(self, key: PRNGKeyArray) -> Params: ...


@dataclasses.dataclass(frozen=True)
class PolicyBundle:
    """A policy that can act and be trained further. `params` is a nested dict of arrays."""

    config: PolicyConfig
    params: Params
    norm: NormStats

    def __post_init__(self) -> None:
        check_params(self.model, self.params, "PolicyBundle")

    @property
    def model(self) -> PolicyModel:
        return create_model(self.config)

    @property
    def fingerprint(self) -> str:
        """16 hex digits that change with the config and with any parameter. Reads every parameter: keep the result."""
        return fingerprint_params(self.config, self.params)

    def save(self, directory: pathlib.Path) -> str:
        """Writes the directory, which must not exist or be empty; returns the fingerprint. Blocks until it is on disk.

        `policy.json` is written last: a directory without it is no policy.
        """
        if directory.exists() and any(directory.iterdir()):
            raise FileExistsError(f"{directory} is not empty: a policy needs a directory of its own")
        directory.mkdir(parents=True, exist_ok=True)
        fingerprint = self.fingerprint
        save_norm_stats(self.norm, directory / "norm_stats.json")
        save_orbax(directory / "params", self.params)
        content = {
            "format_version": FORMAT_VERSION,
            "model": config_to_json(self.config),
            "fingerprint": fingerprint,
            "norm_fingerprint": self.norm.fingerprint,
        }
        (directory / "policy.json").write_text(json.dumps(content, indent=2) + "\n")
        return fingerprint


def told_fingerprint(directory: pathlib.Path) -> str:
    """The fingerprint that a policy directory says it has; `load_bundle` checks it. Raises InvalidBundleError."""
    return str(_told(directory, "fingerprint"))


def told_model(directory: pathlib.Path) -> PolicyModel:
    """The model of a policy directory, for those who need no parameters (gigabytes, of a full pi0.5). Raises
    InvalidBundleError."""
    try:
        return create_model(config_from_json(_told(directory, "model")))
    except (ValueError, KeyError, TypeError) as error:
        raise InvalidBundleError(f"{directory} can't be read as a policy: {error}") from error


def _told(directory: pathlib.Path, name: str) -> Any:
    try:
        return json.loads((directory / "policy.json").read_text())[name]
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise InvalidBundleError(f"{directory} can't be read as a policy: {error}") from error


def load_bundle(directory: pathlib.Path) -> PolicyBundle:
    """Reads a policy directory and checks it against its fingerprints.

    Raises:
        InvalidBundleError: naming what is missing, extra, misshapen or changed.
    """
    try:
        content = json.loads((directory / "policy.json").read_text())
        norm = load_norm_stats(directory / "norm_stats.json")
        version = content["format_version"]
        if version != FORMAT_VERSION:
            raise ValueError(
                f"format version {version}, expected {FORMAT_VERSION}: written by another version of sop-jax"
            )
        config = config_from_json(content["model"])
    except FileNotFoundError as error:
        raise InvalidBundleError(f"{directory} is no policy directory: {error.filename} is missing") from error
    except (ValueError, KeyError, TypeError) as error:
        raise InvalidBundleError(f"{directory} can't be read as a policy: {error}") from error
    if not (directory / "params").is_dir():
        raise InvalidBundleError(f"{directory} is no policy directory: {directory / 'params'} is missing")
    params = restore_orbax(directory / "params")
    check_params(create_model(config), params, str(directory))
    bundle = PolicyBundle(config, params, norm)
    for name, expected, got in (
        ("parameters", content["fingerprint"], bundle.fingerprint),
        ("normalisation statistics", content["norm_fingerprint"], norm.fingerprint),
    ):
        if expected != got:
            raise InvalidBundleError(
                f"{directory}: the {name} have fingerprint {got}, policy.json says {expected}. Files of different policies "
                "were mixed, or one is damaged: copy the whole directory again."
            )
    return bundle


def check_params(model: HasParams, params: Mapping[str, Any], where: str) -> None:
    """Raises InvalidBundleError unless `params` has exactly the leaves and shapes that `model` needs."""
    expected = flatten_params(jax.eval_shape(model.init_params, jax.random.key(0)))
    got = flatten_params(params)
    missing = ["/".join(path) for path in expected.keys() - got.keys()]
    extra = ["/".join(path) for path in got.keys() - expected.keys()]
    misshapen = [
        f"{'/'.join(path)} {tuple(got[path].shape)} instead of {tuple(expected[path].shape)}"
        for path in expected.keys() & got.keys()
        if tuple(got[path].shape) != tuple(expected[path].shape)
    ]
    problems = [("missing", missing), ("extra", extra), ("misshapen", misshapen)]
    if any(names for _, names in problems):
        text = "; ".join(f"{len(names)} {what}: {', '.join(sorted(names)[:8])}" for what, names in problems if names)
        raise InvalidBundleError(
            f"{where}: the parameters do not fit a {model.config.kind!r} model of this config ({text}). Load them with the "
            "config they were trained with."
        )


def fingerprint_params(config: PolicyConfig, params: Mapping[str, Any]) -> str:
    """16 hex digits of the config and of every leaf's path, type, shape and bytes."""
    return fingerprint_of(config_to_json(config), params)


def fingerprint_of(content: Mapping[str, Any], params: Mapping[str, Any]) -> str:
    """16 hex digits of plain JSON values and of every leaf's path, type, shape and bytes."""
    digest = hashlib.sha256(json.dumps(content, sort_keys=True).encode())
    for path, leaf in flatten_params(params).items():
        value = np.asarray(leaf)
        digest.update(f"{'/'.join(path)} {value.dtype} {value.shape}".encode())
        digest.update(np.ascontiguousarray(value).view(np.uint8).data)
    return digest.hexdigest()[:16]


class _GroupByGroup(ocp.type_handlers.NumpyHandler):
    """Writes a few arrays after the others, without copying them first.

    Orbax's own copies every array, because it may go on writing after `save` returned, and encodes them all at once: twice
    the weights in memory. Groups, because each becomes files of its own.
    """

    def __init__(self):
        super().__init__(deepcopy_host_arrays=False)

    async def serialize(self, values: Sequence[Any], infos: Sequence[Any], args: Any = None) -> Sequence[Any]:
        args = [ocp.SaveArgs()] * len(values) if args is None else args
        groups: dict[int, list[int]] = {}
        written_before = 0
        for row, value in enumerate(values):
            groups.setdefault(written_before // _GROUP_BYTES, []).append(row)
            written_before += value.nbytes
        for rows in groups.values():
            parts = ([items[row] for row in rows] for items in (values, infos, args))
            for written in await super().serialize(*parts):
                await asyncio.to_thread(written.result)
        return []


def save_orbax(directory: pathlib.Path, params: Params) -> None:
    """Writes a nested dict of arrays as an Orbax checkpoint; `directory` must not exist.

    Holds little beside the arrays themselves, however large they are.
    """
    registry = ocp.type_handlers.create_type_handler_registry(
        (np.ndarray, _GroupByGroup()), (jax.Array, ocp.type_handlers.ArrayHandler())
    )
    with ocp.Checkpointer(
        ocp.PyTreeCheckpointHandler(type_handler_registry=registry, use_compression=False)
    ) as checkpointer:
        checkpointer.save(directory.absolute(), jax.tree.map(np.asarray, params))
    # It holds this machine's path and is needed on object stores alone; here the rename of the directory is the commit.
    (directory / "commit_success.txt").unlink(missing_ok=True)


def restore_orbax(directory: pathlib.Path) -> Params:
    """To the host, whatever devices the parameters were saved from."""
    with ocp.PyTreeCheckpointer() as checkpointer:
        return checkpointer.restore(directory.absolute())
