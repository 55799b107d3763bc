"""The learner's end: writes trained parameters as the next publication and removes the ones no robot can be reading."""

import dataclasses
import os
import pathlib
import secrets
from collections.abc import Callable
from typing import final

from sop_jax.models.pytrees import Params
from sop_jax.specs.clock import Clock
from sop_jax.specs.conditioning import Conditioning
from sop_jax.specs.errors import ConfigError, InvalidPublicationError, SopError
from sop_jax.specs.interfaces import Metrics
from sop_jax.specs.metrics import NoMetrics
from sop_jax.specs.records import Publication
from sop_jax.weights.orbax_files import count_bytes, staging_directory, write_params
from sop_jax.weights.weight_store import WeightStore

WriteFiles = Callable[[int, str], dict[str, tuple[int, str]]]


@dataclasses.dataclass(frozen=True)
class RetentionConfig:
    """Which old versions stay: the last `keep_last`, those superseded less than `grace_s` ago, and the pinned ones.

    A robot asks for the latest version and then reads it, so a version may go once it has been superseded for longer
    than the slowest download takes. `grace_s` is in seconds of the publisher's clock. Every `clean_every` publications
    the outdated ones are looked for.
    """

    keep_last: int = 5
    grace_s: float = 120.0
    clean_every: int = 10

    def __post_init__(self) -> None:
        if self.keep_last < 3:
            raise ConfigError(f"RetentionConfig.keep_last must be at least 3 (readers lag), got {self.keep_last}")
        if self.grace_s < 0:
            raise ConfigError(f"RetentionConfig.grace_s must be >= 0 seconds, got {self.grace_s}")
        if self.clean_every < 1:
            raise ConfigError(f"RetentionConfig.clean_every must be at least 1, got {self.clean_every}")


@final
class Publisher:
    """Publishes; versions rise by 1, also across restarts (the first is 1; version 0 stands for the unpublished base).

        publisher = Publisher("file:///x/store/", base_fingerprint, norm_fingerprint, clock)
        publication = publisher.publish(trained_params, learner_step)

    A kill at any point leaves either the whole new publication or nothing visible. One learner publishes at a time; a
    rollback from another process may come between and gets a number of its own. Not thread-safe.

    Event written: "clean_up_failed" (version, reason): old publications could not be removed. The new one is out all the
    same, and the next clean-up is the next try.
    """

    def __init__(
        self,
        root: str | os.PathLike[str],
        base_fingerprint: str,
        norm_fingerprint: str,
        clock: Clock,
        retention: RetentionConfig | None = None,
        metrics: Metrics | None = None,
        conditioning: Conditioning | None = None,
    ):
        """`conditioning`: what the policy is told when it is evaluated; every publication says it."""
        self._store = WeightStore(root)
        self._base_fingerprint = base_fingerprint
        self._norm_fingerprint = norm_fingerprint
        self._clock = clock
        self._retention = retention or RetentionConfig()
        self._metrics = metrics or NoMetrics()
        self._conditioning = conditioning
        self._last_version = last_version(self._store)

    @property
    def last_version(self) -> int:
        """The last version published here as far as this publisher knows, 0 if none."""
        return self._last_version

    def publish(self, trained_params: Params, learner_step: int) -> Publication:
        """Writes `trained_params` (only the trained leaves; nested dict) as the next version. Blocks until robots see it."""

        def write(version: int, name: str) -> dict[str, tuple[int, str]]:
            return self._store.write_directory(version, name, staged)

        with staging_directory(count_bytes(trained_params)) as staging:
            staged = pathlib.Path(staging) / "params"
            write_params(staged, trained_params)
            draft = Publication(
                version=0,
                learner_step=learner_step,
                base_fingerprint=self._base_fingerprint,
                norm_fingerprint=self._norm_fingerprint,
                created_ns=self._clock.now_ns(),
                files={},
                conditioning=self._conditioning,
            )
            publication = publish_draft(self._store, draft, write, self._last_version)
        self._last_version = publication.version
        if publication.version % self._retention.clean_every == 0:
            self._clean_up(publication.version)
        return publication

    def _clean_up(self, version: int) -> None:
        """Robots act on `version` already, so nothing that fails here may look as if it weren't published."""
        try:
            remove_outdated(self._store, self._retention, self._clock.now_ns())
        except (OSError, ValueError, SopError) as error:  # TensorStore reports missing rights as ValueError
            self._metrics.write("clean_up_failed", version=version, reason=f"{type(error).__name__}: {error}"[:300])


def last_version(store: WeightStore) -> int:
    """The highest committed version, 0 if none. A committed version that the pointer never reached counts too."""
    return max(store.committed_versions(), default=0)


def publish_draft(store: WeightStore, draft: Publication, write: WriteFiles, last: int) -> Publication:
    """Publishes `draft` under the next free version: files, then the manifest, then the pointer.

    Args:
        store: where to.
        draft: everything but `version` and `files`.
        write: `write(version, name)` writes the version's files into its sub-directory `name`, which no other attempt
            uses, and returns their sizes and sha256.
        last: the last version known to be taken. If somebody took later ones meanwhile, the next free one is found.
    """
    name = f"params-{secrets.token_hex(4)}"
    version = last + 1
    while True:
        publication = dataclasses.replace(draft, version=version, files=write(version, name))
        if store.commit(publication):
            store.advance_pointer(version)
            return publication
        store.remove_files(version, f"{name}/")
        version = max(version, last_version(store)) + 1


def remove_outdated(store: WeightStore, retention: RetentionConfig, now_ns: int) -> list[int]:
    """Removes the versions that retention lets go, and the rests of killed publications among them; returns which."""
    committed = store.committed_versions()
    if len(committed) <= retention.keep_last:
        return []
    oldest_kept = committed[-retention.keep_last]
    pinned = store.pinned_versions()
    removed = []
    for version in store.numbered_directories():
        if version >= oldest_kept or _superseded_ns(store, committed, version) > now_ns - retention.grace_s * 1e9:
            break  # versions are superseded in order, so all later ones must stay too
        if version not in pinned:
            store.remove(version)
            removed.append(version)
    return removed


def _superseded_ns(store: WeightStore, committed: list[int], version: int) -> int:
    """When the first readable version after `version` was made; before that, robots may have started on `version`."""
    for newer in committed:
        if newer > version:
            try:
                publication = store.read_manifest(newer)
            except InvalidPublicationError:
                continue
            if publication is not None:
                return publication.created_ns
    raise AssertionError("callers pass versions older than a committed one")
