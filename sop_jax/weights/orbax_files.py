"""Trained parameters as an Orbax checkpoint on the local disk: the thin wrapper over Orbax's v0 API.

OCDBT without compression: about ten files whatever the number of leaves, which means few requests to an object store;
float weights hardly compress, and zstd doubled the time to write.
"""

import contextlib
import pathlib
import shutil
import tempfile
import time

import jax
import numpy as np
import orbax.checkpoint as ocp

from sop_jax.models.pytrees import Params
from sop_jax.specs.errors import InvalidPublicationError

_MEMORY_DISK = pathlib.Path("/dev/shm")
_STAGING_PREFIX = "sop-weights-"
_ABANDONED_AFTER_S = 3600.0


def staging_directory(num_bytes: int) -> tempfile.TemporaryDirectory[str]:
    """A temporary directory for a checkpoint of `num_bytes` on its way: in memory if there is plenty, else on the disk.

    Orbax forces its files to the disk, which a busy disk makes pay dearly, and nobody reads a staged file after a crash.
    What killed processes left is removed once it is old.
    """
    parent = pathlib.Path(tempfile.gettempdir())
    if _MEMORY_DISK.is_dir():
        _remove_abandoned(_MEMORY_DISK)
        if shutil.disk_usage(_MEMORY_DISK).free > 4 * num_bytes:
            parent = _MEMORY_DISK
    _remove_abandoned(parent)
    return tempfile.TemporaryDirectory(prefix=_STAGING_PREFIX, dir=parent)


def _remove_abandoned(parent: pathlib.Path) -> None:
    oldest_s = time.time() - _ABANDONED_AFTER_S  # file times are wall time
    for path in parent.glob(f"{_STAGING_PREFIX}*"):
        with contextlib.suppress(FileNotFoundError):  # its owner was quicker
            if path.stat().st_mtime < oldest_s:
                shutil.rmtree(path, ignore_errors=True)


def count_bytes(params: Params) -> int:
    """Bytes that all leaves hold together; works on shapes as on arrays."""
    return sum(int(np.prod(leaf.shape)) * np.dtype(leaf.dtype).itemsize for leaf in jax.tree.leaves(params))


def write_params(directory: pathlib.Path, params: Params) -> None:
    """Writes `params` (copied to the host) to `directory`, which must not exist yet. Only this process takes part."""
    with _checkpointer() as checkpointer:
        checkpointer.save(directory, args=ocp.args.PyTreeSave(jax.device_get(params)))


def read_params(directory: pathlib.Path) -> Params:
    """The checkpoint in `directory` as a nested dict of numpy arrays. Raises ValueError or FileNotFoundError if torn."""
    with _checkpointer() as checkpointer:
        return checkpointer.restore(directory)


def check_against(template: Params, params: Params, version: int) -> None:
    """Raises InvalidPublicationError unless `params` has the template's leaves, shapes and dtypes."""
    expected = {jax.tree_util.keystr(path): leaf for path, leaf in jax.tree_util.tree_leaves_with_path(template)}
    found = {jax.tree_util.keystr(path): leaf for path, leaf in jax.tree_util.tree_leaves_with_path(params)}
    if expected.keys() != found.keys():
        missing, extra = sorted(expected.keys() - found.keys()), sorted(found.keys() - expected.keys())
        raise InvalidPublicationError(
            f"publication {version} was made by another model: missing leaves {missing[:3]}, unexpected {extra[:3]} "
            f"(expected {len(expected)} trained leaves, got {len(found)}). Use the model config it was trained with."
        )
    for name, leaf in expected.items():
        have = found[name]
        if tuple(have.shape) != tuple(leaf.shape) or np.dtype(have.dtype) != np.dtype(leaf.dtype):
            raise InvalidPublicationError(
                f"publication {version}: leaf {name} is {have.dtype}{list(have.shape)}, expected "
                f"{np.dtype(leaf.dtype)}{list(leaf.shape)}. Use the model config it was trained with."
            )


def _checkpointer() -> ocp.Checkpointer:
    process = jax.process_index()
    alone = ocp.options.MultiprocessingOptions(
        primary_host=process, active_processes={process}, barrier_sync_key_prefix=f"sop_weights_{process}"
    )
    handler = ocp.PyTreeCheckpointHandler(use_ocdbt=True, use_compression=False, multiprocessing_options=alone)
    return ocp.Checkpointer(handler, multiprocessing_options=alone)
