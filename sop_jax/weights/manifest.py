"""A publication's manifest as JSON: the one file that makes a numbered directory of weights trustworthy."""

import dataclasses
import json
import pathlib
import re
from typing import Any

from sop_jax.specs.conditioning import Conditioning
from sop_jax.specs.errors import ConfigError, InvalidPublicationError
from sop_jax.specs.records import Publication

_SHA256 = re.compile(r"[0-9a-f]{64}")


def encode_manifest(publication: Publication) -> bytes:
    document: dict[str, Any] = {
        "version": publication.version,
        "learner_step": publication.learner_step,
        "base_fingerprint": publication.base_fingerprint,
        "norm_fingerprint": publication.norm_fingerprint,
        "created_ns": publication.created_ns,
        "restores": publication.restores,
        "files": {name: {"size": size, "sha256": digest} for name, (size, digest) in sorted(publication.files.items())},
    }
    if publication.conditioning is not None:
        document["conditioning"] = dataclasses.asdict(publication.conditioning)
    return json.dumps(document, indent=1).encode()


def decode_manifest(data: bytes, version: int) -> Publication:
    """Parses the manifest found in the directory of `version`. Raises InvalidPublicationError if it can't be trusted."""
    try:
        document = json.loads(data)
        files = {str(name): (int(entry["size"]), str(entry["sha256"])) for name, entry in document["files"].items()}
        restores = document["restores"]
        publication = Publication(
            version=int(document["version"]),
            learner_step=int(document["learner_step"]),
            base_fingerprint=str(document["base_fingerprint"]),
            norm_fingerprint=str(document["norm_fingerprint"]),
            created_ns=int(document["created_ns"]),
            files=files,
            restores=None if restores is None else int(restores),
            conditioning=_conditioning(document.get("conditioning")),
        )
    except (ValueError, KeyError, TypeError, AttributeError, OverflowError, RecursionError, ConfigError) as error:
        raise InvalidPublicationError(
            f"publication {version}: its manifest is damaged ({type(error).__name__}: {error}). "
            "Keep the current policy; publish again or roll back to an intact version."
        ) from error
    if publication.version != version:
        raise InvalidPublicationError(
            f"publication {version}: its manifest says version {publication.version}, so the directory was copied or "
            "renamed by hand. Publications are immutable: restore the original or roll back."
        )
    if not files:
        raise InvalidPublicationError(f"publication {version}: its manifest lists no files, so it holds no weights.")
    for name, (size, digest) in files.items():
        _check_file(version, name, size, digest)
    return publication


def _conditioning(told: Any) -> Conditioning | None:
    """Raises KeyError, TypeError, ValueError, ConfigError."""
    return None if told is None else Conditioning(str(told["suffix"]), float(told["guidance"]))


def _check_file(version: int, name: str, size: int, digest: str) -> None:
    """File names come from the network and become paths on a robot's disk: only plain relative ones pass."""
    path = pathlib.PurePosixPath(name)
    plain = len(path.parts) >= 2 and not path.is_absolute() and str(path) == name and ".." not in path.parts
    if not plain or "\\" in name or "\0" in name:
        raise InvalidPublicationError(
            f"publication {version}: file name {name!r} is not a plain relative path like 'params-1a2b3c4d/manifest.ocdbt'."
        )
    if size < 0 or not _SHA256.fullmatch(digest):
        raise InvalidPublicationError(
            f"publication {version}: {name} needs a size >= 0 and a sha256 of 64 hex digits, got {size}, {digest!r}."
        )
