"""What an operator does with publications: list, verify, roll back, pin, make a policy of one."""

import os

from sop_jax.models.bundle import PolicyBundle
from sop_jax.specs.clock import Clock
from sop_jax.specs.errors import InvalidPublicationError
from sop_jax.specs.records import Publication
from sop_jax.weights.follower import Follower, LoadedWeights, verify_files
from sop_jax.weights.partition import merge_params, split_params
from sop_jax.weights.publisher import last_version, publish_draft
from sop_jax.weights.weight_store import WeightStore

Root = str | os.PathLike[str]


def list_publications(root: Root) -> list[Publication]:
    """Every publication with a readable manifest, oldest first. Damaged ones are left out; `verify` says what is wrong."""
    store = WeightStore(root)
    found = []
    for version in store.committed_versions():
        try:
            publication = store.read_manifest(version)
        except InvalidPublicationError:
            continue
        if publication is not None:
            found.append(publication)
    return found


def current_version(root: Root) -> int | None:
    """The version that robots are told to act with, or None if nothing was published."""
    pointer = WeightStore(root).read_pointer()
    return None if pointer is None else pointer.version


def verify(root: Root, version: int) -> Publication:
    """Reads every byte of a version and compares it to its manifest. Raises InvalidPublicationError."""
    store = WeightStore(root)
    publication = _existing(store, version)
    verify_files(store, publication)
    return publication


def rollback(root: Root, version: int, clock: Clock) -> Publication:
    """Makes the weights of `version` the latest again, as a new publication with `restores=version`; pins `version`.

    The files are copied, so that the new version stands on its own. A learner that still runs will publish over it at
    its next interval: stop it first, or restart it from the checkpoint that you trust.
    Raises InvalidPublicationError if `version` is missing or damaged.
    """
    store = WeightStore(root)
    source = _existing(store, version)
    verify_files(store, source)
    store.set_pin(version, True)

    def copy(target: int, name: str) -> dict[str, tuple[int, str]]:
        names = {old: f"{name}/{old.split('/', 1)[1]}" for old in source.files}
        store.copy_files(version, target, names)
        return {names[old]: entry for old, entry in source.files.items()}

    draft = Publication(
        version=0,
        learner_step=source.learner_step,
        base_fingerprint=source.base_fingerprint,
        norm_fingerprint=source.norm_fingerprint,
        created_ns=clock.now_ns(),
        files={},
        restores=version,
        conditioning=source.conditioning,
    )
    return publish_draft(store, draft, copy, last_version(store))


def make_bundle(root: Root, base: PolicyBundle, version: int | None = None) -> tuple[PolicyBundle, Publication]:
    """The policy that a robot acts with after swapping to a publication, as a bundle; and that publication.

    The trained leaves are the publication's, the frozen ones, config and normalisation the base's. So low-rank additions stay
    additions to the base's weights, and what was trained is trained further. The bundle is a base of its own: its fingerprint
    differs, and it fits none of the publications made so far.

    Args:
        root: the store.
        base: the bundle that the publication was trained from.
        version: which; None = the newest.

    Raises:
        InvalidPublicationError: there is no such publication, or a robot with this base would refuse it.
    """
    follower = Follower(root, base.fingerprint, base.norm.fingerprint)
    trained, frozen = split_params(base.params, base.model.is_trained)
    if version is None:
        loaded = follower.load_latest(trained, newer_than=0)
        if loaded is None:
            raise InvalidPublicationError(f"nothing was published in {WeightStore(root).url} yet.")
    else:
        publication = _existing(WeightStore(root), version)
        loaded = LoadedWeights(publication, follower.load(publication, trained))
    return PolicyBundle(base.config, merge_params(loaded.params, frozen), base.norm), loaded.publication


def pin(root: Root, version: int) -> None:
    """Keeps `version` from retention until it is unpinned. Raises InvalidPublicationError if there is no such version."""
    store = WeightStore(root)
    _existing(store, version)
    store.set_pin(version, True)


def unpin(root: Root, version: int) -> None:
    """Lets retention treat `version` like any other again."""
    WeightStore(root).set_pin(version, False)


def pinned_versions(root: Root) -> frozenset[int]:
    """The versions that retention keeps because somebody said so."""
    return frozenset(WeightStore(root).pinned_versions())


def _existing(store: WeightStore, version: int) -> Publication:
    publication = store.read_manifest(version)
    if publication is None:
        have = store.committed_versions()
        raise InvalidPublicationError(
            f"there is no publication {version} in {store.url}: it has {have[-5:] if have else 'none'} (the last five)."
        )
    return publication
