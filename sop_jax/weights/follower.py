"""A robot's end: learns of a new publication, downloads it, and hands it over only if every check passes."""

import dataclasses
import hashlib
import os
import pathlib
from typing import final

from sop_jax.models.pytrees import Params
from sop_jax.specs.errors import InvalidPublicationError
from sop_jax.specs.records import Publication
from sop_jax.weights.orbax_files import check_against, read_params, staging_directory
from sop_jax.weights.weight_store import Pointer, WeightStore

_ATTEMPTS = 5


class PublicationRemovedError(InvalidPublicationError):
    """The publication was removed by retention while it was being read; ask for the latest again."""


@dataclasses.dataclass(frozen=True)
class LoadedWeights:
    """A verified publication and its trained parameters: a nested dict of numpy arrays."""

    publication: Publication
    params: Params


@final
class Follower:
    """Follows the publications of one base model and one set of normalisation statistics.

        follower = Follower("file:///x/store/", base_fingerprint, norm_fingerprint)
        publication = follower.latest()                          # a poll: one conditional read when nothing is new
        if publication is not None and publication.version != policy.version:
            params = follower.load(publication, template)        # blocks for the download; raises if anything is wrong
            ...                                                  # swap at the next episode boundary

    Every failure to trust a publication raises InvalidPublicationError: keep acting with the old policy. Reads only.
    Thread-safe.
    """

    def __init__(self, root: str | os.PathLike[str], base_fingerprint: str, norm_fingerprint: str):
        self._store = WeightStore(root)
        self._base_fingerprint = base_fingerprint
        self._norm_fingerprint = norm_fingerprint
        self._known: tuple[Pointer, Publication] | None = None

    def latest(self) -> Publication | None:
        """The publication that robots should act with, or None if there is none yet.

        It is not checked against this robot's base model yet; `load` does. Raises InvalidPublicationError if the pointer
        or the manifest is damaged.
        """
        known = self._known
        for _ in range(_ATTEMPTS):
            pointer = self._store.read_pointer(known[0] if known else None)
            if pointer is None:
                return None
            if known is not None and pointer is known[0]:
                return known[1]
            publication = self._store.read_manifest(pointer.version)
            if publication is not None:
                self._known = (pointer, publication)
                return publication
            known = None  # removed between the two reads: the pointer must have moved on
        raise InvalidPublicationError(
            f"{self._store.url}latest.json points to a version that has no manifest. "
            "Keep the current policy; publish again or roll back to an intact version."
        )

    def load(self, publication: Publication, template: Params) -> Params:
        """Downloads, verifies and returns the trained parameters as a nested dict of numpy arrays.

        Args:
            publication: from `latest` or `list_publications`.
            template: the trained parameters' nested dict; its leaves need only `shape` and `dtype`.

        Raises:
            InvalidPublicationError: another base model, other normalisation statistics, a torn or altered file, or
                leaves that differ from the template's.
            PublicationRemovedError: retention removed the version meanwhile (a kind of InvalidPublicationError).
        """
        check_fingerprints(publication, self._base_fingerprint, self._norm_fingerprint)
        with staging_directory(sum(size for size, _ in publication.files.values())) as staging:
            directory = _download(self._store, publication, pathlib.Path(staging))
            try:
                params = read_params(directory)
            except (ValueError, FileNotFoundError, KeyError, OSError) as error:
                raise InvalidPublicationError(
                    f"publication {publication.version}: Orbax can't read it ({error}). Keep the current policy."
                ) from error
        check_against(template, params, publication.version)
        return params

    def load_latest(self, template: Params, newer_than: int) -> LoadedWeights | None:
        """Loads the latest publication if its version exceeds `newer_than`, trying again if it is removed under our feet."""
        for attempt in range(_ATTEMPTS):
            publication = self.latest()
            if publication is None or publication.version <= newer_than:
                return None
            try:
                return LoadedWeights(publication, self.load(publication, template))
            except PublicationRemovedError:
                if attempt == _ATTEMPTS - 1:
                    raise
        raise AssertionError("unreachable")


def check_fingerprints(publication: Publication, base_fingerprint: str, norm_fingerprint: str) -> None:
    """Raises InvalidPublicationError if the publication was trained on another base or other statistics."""
    pairs = (
        ("base model", publication.base_fingerprint, base_fingerprint),
        ("normalisation statistics", publication.norm_fingerprint, norm_fingerprint),
    )
    for kind, got, expected in pairs:
        if got != expected:
            raise InvalidPublicationError(
                f"publication {publication.version} was trained with another {kind}: expected {expected!r}, got {got!r}. "
                "Keep the current policy, and start with the bundle that the learner started from (`sop weights ls`: base)."
            )


def verify_files(store: WeightStore, publication: Publication) -> None:
    """Reads every file and compares size and sha256. Raises InvalidPublicationError."""
    for name in publication.files:
        _read_verified(store, publication, name)


def _download(store: WeightStore, publication: Publication, staging: pathlib.Path) -> pathlib.Path:
    """Writes the verified files below `staging`; returns the Orbax checkpoint's directory."""
    tops = {name.split("/", 1)[0] for name in publication.files}
    if len(tops) != 1:
        raise InvalidPublicationError(
            f"publication {publication.version}: expected one checkpoint directory, got {sorted(tops)}."
        )
    for name in publication.files:
        target = staging / name
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_bytes(_read_verified(store, publication, name))
    return staging / tops.pop()


def _read_verified(store: WeightStore, publication: Publication, name: str) -> bytes:
    size, digest = publication.files[name]
    data = store.read_file(publication.version, name)
    if data is None:
        if store.read_manifest(publication.version) is None:
            raise PublicationRemovedError(
                f"publication {publication.version} was removed while it was being read; load the latest instead."
            )
        raise InvalidPublicationError(f"publication {publication.version} is torn: {name} is missing.")
    if len(data) != size:
        raise InvalidPublicationError(
            f"publication {publication.version} is torn: {name} has {len(data)} bytes, expected {size}."
        )
    if hashlib.sha256(data).hexdigest() != digest:
        raise InvalidPublicationError(
            f"publication {publication.version} is damaged: {name} does not have the sha256 in its manifest."
        )
    return data
