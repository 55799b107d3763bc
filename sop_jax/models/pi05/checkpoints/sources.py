"""Arrays of a checkpoint, read one at a time: of an Orbax PyTree, and of a .npz."""

import io
import json
import zipfile
from collections.abc import Mapping
from typing import Any, Protocol, final, runtime_checkable

import jax
import ml_dtypes
import numpy as np
import tensorstore as ts
from jaxtyping import Shaped

from sop_jax.models.pi05.checkpoints.stores import InvalidCheckpointError, StoreFile, describe, try_read

Path = tuple[str, ...]
Shapes = Mapping[Path, jax.ShapeDtypeStruct]

_CACHE_BYTES = 100_000_000
_READ_AHEAD_BYTES = 16_000_000


@runtime_checkable
class LeafSource(Protocol):
    """Where leaves come from.

    for path, leaf in source.shapes().items():
        array = source.read(path, leaf.dtype)
    """

    def shapes(self) -> Shapes:
        """Every leaf as it is stored. Reads no array."""
        ...

    def read(self, path: Path, dtype: Any) -> Shaped[np.ndarray, "..."]:
        """One leaf, in the dtype wanted; holds it at most twice. Raises InvalidCheckpointError if it can't be read."""
        ...


@final
class OrbaxSource:
    """What lies under `root` in a PyTree that Orbax wrote; read by TensorStore, so gs:// and s3:// need nothing else.

    If the path of every leaf ends in "value" (NNX's state, as openpi's training saves it), the ending is dropped.

    Raises:
        InvalidCheckpointError: there is no such checkpoint.
    """

    def __init__(self, store: ts.KvStore, root: Path = ()):
        self._store = store
        self._context = ts.Context({"cache_pool": {"total_bytes_limit": _CACHE_BYTES}})
        text = try_read(store, "_METADATA")
        if text is None:
            raise InvalidCheckpointError(
                f"{describe(store)} holds no Orbax checkpoint: there is no file _METADATA in it. Name the directory above "
                "`params`."
            )
        self._is_ocdbt = try_read(store, "manifest.ocdbt") is not None
        content = json.loads(text)
        self._driver = "zarr3" if content.get("use_zarr3") else "zarr"
        names = {}
        for entry in content["tree_metadata"].values():
            keys = tuple(key["key"] for key in entry["key_metadata"])
            if keys[: len(root)] == root and not entry["value_metadata"].get("skip_deserialize"):
                names[keys[len(root) :]] = ".".join(keys)
        if names and all(len(path) > 1 and path[-1] == "value" for path in names):
            names = {path[:-1]: name for path, name in names.items()}
        if not names:
            raise InvalidCheckpointError(f"{describe(store)} holds nothing under {'/'.join(root)!r}")
        self._names = names
        self._shapes: dict[Path, jax.ShapeDtypeStruct] | None = None

    def shapes(self) -> Shapes:
        if self._shapes is None:
            opening = {path: self._open(path) for path in self._names}
            self._shapes = {
                path: jax.ShapeDtypeStruct(array.shape, array.dtype.numpy_dtype)
                for path, array in ((path, self._finish(path, future)) for path, future in opening.items())
            }
        return self._shapes

    def read(self, path: Path, dtype: Any) -> Shaped[np.ndarray, "..."]:
        array = self._finish(path, self._open(path))
        return np.asarray(self._finish(path, ts.cast(array, ts.dtype(np.dtype(dtype))).read()))

    def _open(self, path: Path) -> ts.Future:
        base, name = self._store.spec().to_json(), f"{self._names[path]}/"
        if self._is_ocdbt:
            kvstore = {"driver": "ocdbt", "base": base, "path": name}
        else:
            kvstore = {**base, "path": base.get("path", "") + name}
        return ts.open({"driver": self._driver, "kvstore": kvstore}, open=True, read=True, context=self._context)

    def _finish(self, path: Path, future: ts.Future) -> Any:
        try:
            return future.result()
        except (ValueError, RuntimeError, OSError) as error:
            raise InvalidCheckpointError(
                f"{describe(self._store)}: {'/'.join(path)} can't be read, though _METADATA names it: copy the whole "
                f"directory again. {error}"
            ) from error


@final
class NpzSource:
    """Arrays of a .npz whose names are paths, "params/img/head/kernel"; only those under `root`.

    numpy stores bfloat16 as plain pairs of bytes; they are read as what they were.
    """

    def __init__(self, store: ts.KvStore, key: str, root: Path = ()):
        self._where = f"{describe(store)}{key}"
        try:
            self._archive = zipfile.ZipFile(io.BufferedReader(StoreFile(store, key), _READ_AHEAD_BYTES))
        except zipfile.BadZipFile as error:
            raise InvalidCheckpointError(f"{self._where} is no .npz: {error}. Download it again.") from error
        paths = {tuple(name.removesuffix(".npy").split("/")): name for name in self._archive.namelist()}
        self._names = {path[len(root) :]: name for path, name in paths.items() if path[: len(root)] == root}
        if not self._names:
            raise InvalidCheckpointError(f"{self._where} holds nothing under {'/'.join(root)!r}")

    def shapes(self) -> Shapes:
        return {path: self._shape(name) for path, name in self._names.items()}

    def read(self, path: Path, dtype: Any) -> Shaped[np.ndarray, "..."]:
        try:
            with self._archive.open(self._names[path]) as file:
                array = np.lib.format.read_array(file, allow_pickle=False)
        except (zipfile.BadZipFile, ValueError) as error:
            raise InvalidCheckpointError(f"{self._where}: {'/'.join(path)} can't be read: {error}") from error
        return array.view(_float_type(array.dtype)).astype(dtype, copy=False)

    def _shape(self, name: str) -> jax.ShapeDtypeStruct:
        with self._archive.open(name) as file:
            version = np.lib.format.read_magic(file)
            read_header = {1: np.lib.format.read_array_header_1_0, 2: np.lib.format.read_array_header_2_0}[version[0]]
            shape, _, dtype = read_header(file)
        return jax.ShapeDtypeStruct(shape, _float_type(dtype))


def _float_type(dtype: np.dtype) -> np.dtype:
    return np.dtype(ml_dtypes.bfloat16) if dtype.kind == "V" and dtype.itemsize == 2 else dtype
