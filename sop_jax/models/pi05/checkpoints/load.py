"""A model's parameters from a checkpoint's leaves: checked, cast and merged one at a time.

So a model of full size is never in memory more than once, plus a leaf.
"""

from collections.abc import Callable, Collection
from typing import Any, Literal, final

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Shaped

from sop_jax.models.bundle import check_params
from sop_jax.models.pi05.checkpoints.sources import LeafSource, Path, Shapes
from sop_jax.models.pi05.lora import add_low_rank, is_lora, lora_factors
from sop_jax.models.policy import PolicyModel, abstract_params
from sop_jax.models.pytrees import Params, flatten_params, unflatten_params

Storage = Literal["mixed", "float32", "bfloat16", "stored"]
"""How parameters are kept. mixed: trained ones in float32, frozen ones in the model's activation dtype. stored: as the
checkpoint has them (fresh leaves in float32)."""

Report = Callable[[int, int, str], None]
"""Called after each leaf: leaves done, leaves in all, the leaf's name."""


def load_params(
    model: PolicyModel,
    source: LeafSource,
    where: str,
    storage: Storage = "mixed",
    starts_fresh: Callable[[Path], bool] = lambda _: False,
    key: jax.Array | None = None,
    report: Report = lambda done, total, name: None,
) -> Params:
    """Every leaf that `model` needs, on the host.

    Args:
        model: says which leaves, of which shapes.
        source: where they come from.
        where: the checkpoint's name, for messages.
        storage: their dtypes.
        starts_fresh: which leaves may be missing from the source; they get the model's own initialisation.
        key: for fresh leaves; None = key 0.
        report: progress.

    Raises:
        InvalidBundleError: leaves are missing, extra or misshapen; it says which.
        InvalidCheckpointError: a leaf can't be read.
    """
    expected, found = flatten_params(abstract_params(model)), source.shapes()
    fresh = {path for path in expected.keys() - found.keys() if starts_fresh(path)}
    check_params(model, unflatten_params({**found, **{path: expected[path] for path in fresh}}), where)
    dtypes = {
        path: stored_dtype(model, path, found[path].dtype if path in found else leaf.dtype, storage)
        for path, leaf in expected.items()
    }
    flat = init_leaves(model, fresh, dtypes, jax.random.key(0) if key is None else key)
    for done, path in enumerate(sorted(found), start=1):
        flat[path] = source.read(path, dtypes[path])
        report(done, len(found), "/".join(path))
    return unflatten_params(flat)


def stored_dtype(model: PolicyModel, path: Path, present: Any, storage: Storage) -> np.dtype:
    """The dtype in which a leaf is kept."""
    if storage == "mixed":
        return np.dtype(jnp.float32 if model.is_trained(path) else jnp.dtype(model.config.dtype))
    return np.dtype(present if storage == "stored" else jnp.dtype(storage))


def init_leaves(
    model: PolicyModel, paths: Collection[Path], dtypes: dict[Path, np.dtype], key: jax.Array
) -> dict[Path, Shaped[np.ndarray, "..."]]:
    """The model's own initialisation of some leaves; the others are never computed."""
    if not paths:
        return {}

    def init(key: jax.Array) -> dict[str, jax.Array]:
        flat = flatten_params(model.init_params(key))
        return {"/".join(path): flat[path].astype(dtypes[path]) for path in paths}

    with jax.default_device(jax.local_devices(backend="cpu")[0]):
        made = jax.jit(init)(key)
    return {path: np.asarray(made["/".join(path)]) for path in paths}


@final
class MergedLora:
    """A source whose low-rank additions are part of the weights they belong to, except those that `keep` names.

    scaling: how often additions to attention weights count (alpha / rank); openpi's own variants have 1.
    """

    def __init__(self, source: LeafSource, keep: Collection[Path] = (), scaling: float = 1.0):
        self._source, self._scaling = source, scaling
        stored = source.shapes()
        pairs = {path: lora_factors(path, stored) for path in stored if not is_lora(path)}
        self._factors = {path: pair for path, pair in pairs.items() if pair is not None and pair[0] not in keep}

    def shapes(self) -> Shapes:
        merged = {factor for pair in self._factors.values() for factor in pair}
        return {path: leaf for path, leaf in self._source.shapes().items() if path not in merged}

    def read(self, path: Path, dtype: Any) -> Shaped[np.ndarray, "..."]:
        if path not in self._factors:
            return self._source.read(path, dtype)
        stored = self._source.shapes()
        weight, down, up = (self._source.read(leaf, stored[leaf].dtype) for leaf in (path, *self._factors[path]))
        return add_low_rank(path, weight, down, up, self._scaling, dtype)


@final
class OnlyLeaves:
    """A source without the leaves that nobody asked for."""

    def __init__(self, source: LeafSource, wanted: Collection[Path]):
        self._source, self._wanted = source, wanted
        self.dropped = sorted("/".join(path) for path in source.shapes() if path not in wanted)

    def shapes(self) -> Shapes:
        return {path: leaf for path, leaf in self._source.shapes().items() if path in self._wanted}

    def read(self, path: Path, dtype: Any) -> Shaped[np.ndarray, "..."]:
        return self._source.read(path, dtype)
