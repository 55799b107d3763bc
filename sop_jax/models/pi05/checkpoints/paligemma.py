"""PaliGemma's .npz (pt_224.npz and its bf16 and f16 forms): image tower and language model, without an action expert.

Its names are those of openpi's tree: `params/img/...`, `params/llm/...`.
"""

import jax

from sop_jax.models.pi05.checkpoints.load import Report, Storage, load_params
from sop_jax.models.pi05.checkpoints.sources import LeafSource, NpzSource, Path, Shapes
from sop_jax.models.pi05.checkpoints.stores import describe, open_store, split_location
from sop_jax.models.pi05.config import Pi05Config
from sop_jax.models.pi05.lora import is_lora
from sop_jax.models.pi05.policy import Pi05Policy
from sop_jax.models.pytrees import Params


def is_paligemma(location: str) -> bool:
    """Whether a checkpoint's name is that of a .npz."""
    return split_location(location)[1].endswith(".npz")


def read_paligemma(
    location: str,
    config: Pi05Config,
    storage: Storage = "mixed",
    key: jax.Array | None = None,
    report: Report = lambda done, total, name: None,
) -> Params:
    """PaliGemma's leaves from the file, all others freshly initialised.

    Args:
        location: of the file; what `open_store` takes.
        config: the policy; its image tower and language model must have the file's sizes.
        storage: see `Storage`.
        key: for the fresh leaves.
        report: progress.

    Raises:
        InvalidBundleError: leaves are missing, extra or misshapen.
        InvalidCheckpointError: the file can't be read.
    """
    directory, name = split_location(location)
    store = open_store(directory)
    source: LeafSource = _Within("PaliGemma", NpzSource(store, name, ("params",)))
    return load_params(Pi05Policy(config), source, f"{describe(store)}{name}", storage, _is_new, key, report)


def _is_new(path: Path) -> bool:
    """What no PaliGemma has: the action expert, the projections, low-rank additions."""
    return path[0] != "PaliGemma" or is_lora(path) or (path[1] == "llm" and any(n.endswith("_1") for n in path[2:]))


class _Within:
    """A source one level further down."""

    def __init__(self, name: str, source: LeafSource):
        self._name, self._source = name, source

    def shapes(self) -> Shapes:
        return {(self._name, *path): leaf for path, leaf in self._source.shapes().items()}

    def read(self, path: Path, dtype):
        return self._source.read(path[1:], dtype)
