"""The objects below `<store root>/weights/`, through TensorStore (file://, gs://, s3://, memory://).

    weights/latest.json                        the pointer, {"version": 12}; replaced atomically, never goes back
    weights/00000012/manifest.json             written once, after the files: commits the version
    weights/00000012/params-1a2b3c4d/...       an Orbax checkpoint; every attempt to publish has a name of its own
    weights/pins/00000012.json                 retention must keep this version

A numbered directory without a manifest is the rest of a publication that was killed; nobody reads it.

On a local disk nothing is forced to the platter: publications come every second, robots flush nothing either, and what a
power cut tears is refused by its checksum and superseded by the next publication. A killed process tears nothing.
"""

import dataclasses
import hashlib
import json
import os
import pathlib
import re
import shutil
import urllib.parse

import tensorstore as ts

from sop_jax.episodes.kvstore import open_kvstore
from sop_jax.specs.errors import InvalidPublicationError
from sop_jax.specs.records import Publication
from sop_jax.weights.manifest import decode_manifest, encode_manifest

_MISSING = b"\x02"  # TensorStore's generation of a key that isn't there
_MANIFEST = re.compile(r"([0-9]{8})/manifest\.json")
_NUMBERED = re.compile(r"([0-9]{8})/.+")
_PIN = re.compile(r"pins/([0-9]{8})\.json")


@dataclasses.dataclass(frozen=True)
class Pointer:
    """What `latest.json` said: the version, and the object's generation for cheap conditional reads."""

    version: int
    generation: bytes


class WeightStore:
    """Reads and writes the objects of all publications. Calls block on the store; instances are thread-safe."""

    def __init__(self, root: str | os.PathLike[str]):
        url = os.fspath(root)
        if url.startswith("{"):  # a TensorStore spec: an S3 endpoint of one's own, for instance
            spec = json.loads(url)
            spec["path"] = f"{spec.get('path', '').rstrip('/')}/weights/".removeprefix("/")
            self.url = json.dumps(spec)
        else:
            if "://" not in url:
                url = f"file://{pathlib.Path(url).absolute()}"
            self.url = f"{url.rstrip('/')}/weights/"
        self._kv = open_kvstore(self.url, syncs_files=False)

    def read_pointer(self, known: Pointer | None = None) -> Pointer | None:
        """The pointer, or None if nothing was published. Returns `known` itself if the pointer hasn't changed."""
        if known is None:
            result = self._kv.read("latest.json").result()
        else:
            result = self._kv.read("latest.json", if_not_equal=known.generation).result()
            if result.state == "unspecified":
                return known
        if result.state != "value":
            return None
        try:
            version = int(json.loads(result.value)["version"])
        except (ValueError, KeyError, TypeError, OverflowError, RecursionError) as error:
            raise InvalidPublicationError(
                f"{self.url}: latest.json is damaged: expected {{'version': number}}, got {result.value[:80]!r}. "
                "Publish again, or roll back to a version listed there."
            ) from error
        return Pointer(version, result.stamp.generation)

    def advance_pointer(self, version: int) -> None:
        """Points to `version`, unless the pointer is at a later one already."""
        while True:
            try:
                pointer = self.read_pointer()
            except InvalidPublicationError:  # a damaged pointer is mended by writing the new one
                self._write_json("latest.json", {"version": version})
                return
            if pointer is not None and pointer.version >= version:
                return
            if self._write_json("latest.json", {"version": version}, pointer.generation if pointer else _MISSING):
                return

    def write_directory(self, version: int, name: str, directory: pathlib.Path) -> dict[str, tuple[int, str]]:
        """Uploads the files below `directory` as `<version>/<name>/...`; returns their sizes and sha256."""
        files: dict[str, tuple[int, str]] = {}
        writes = []
        for path in sorted(path for path in directory.rglob("*") if path.is_file()):
            data = path.read_bytes()
            key = f"{name}/{path.relative_to(directory).as_posix()}"
            files[key] = (len(data), hashlib.sha256(data).hexdigest())
            writes.append(self._kv.write(f"{version:08d}/{key}", data))
        for write in writes:
            write.result()
        return files

    def copy_files(self, source: int, target: int, names: dict[str, str]) -> None:
        """Copies files of version `source` to `target`; `names` maps old to new name."""
        for old, new in names.items():
            data = self.read_file(source, old)
            if data is None:
                raise InvalidPublicationError(f"publication {source}: {old} is missing, so it can't be restored.")
            self._kv.write(f"{target:08d}/{new}", data).result()

    def read_file(self, version: int, name: str) -> bytes | None:
        result = self._kv.read(f"{version:08d}/{name}").result()
        return result.value if result.state == "value" else None

    def commit(self, publication: Publication) -> bool:
        """Writes the manifest if the version has none yet. False means that another writer took the number."""
        data = encode_manifest(publication)
        stamp = self._kv.write(f"{publication.version:08d}/manifest.json", data, if_equal=_MISSING).result()
        if stamp.generation != b"":
            return True
        # The driver repeats a write whose answer was lost, and is then refused because of its own manifest. No other attempt
        # writes the same bytes: they name files in this one's directory.
        return self.read_file(publication.version, "manifest.json") == data

    def read_manifest(self, version: int) -> Publication | None:
        """The publication of `version`, or None if it was never committed or has been removed."""
        data = self.read_file(version, "manifest.json")
        return None if data is None else decode_manifest(data, version)

    def committed_versions(self) -> list[int]:
        return self._versions(_MANIFEST)

    def numbered_directories(self) -> list[int]:
        """Every version of which anything is left, committed or not."""
        return self._versions(_NUMBERED)

    def pinned_versions(self) -> set[int]:
        keys = self._kv.list(ts.KvStore.KeyRange("pins/", "pins0")).result()
        return {int(match[1]) for key in keys if (match := _PIN.fullmatch(key.decode()))}

    def set_pin(self, version: int, pinned: bool) -> None:
        if pinned:
            self._write_json(f"pins/{version:08d}.json", {"version": version})
        else:
            self._kv.write(f"pins/{version:08d}.json", None).result()

    def remove(self, version: int) -> None:
        """Removes a version: its manifest first, so that no new reader starts on what is about to vanish."""
        self._kv.write(f"{version:08d}/manifest.json", None).result()
        self.remove_files(version, "")

    def remove_files(self, version: int, prefix: str) -> None:
        """Removes the objects `<version>/<prefix>...`; on a local disk also empty folders and dead writers' lock files."""
        start = f"{version:08d}/{prefix}"
        self._kv.delete_range(ts.KvStore.KeyRange(start, start[:-1] + chr(ord(start[-1]) + 1))).result()
        if self.url.startswith("file://"):
            local = pathlib.Path(urllib.parse.unquote(urllib.parse.urlparse(self.url).path)) / start
            shutil.rmtree(local, ignore_errors=True)

    def _versions(self, pattern: re.Pattern[str]) -> list[int]:
        keys = self._kv.list(ts.KvStore.KeyRange("0", ":")).result()
        return sorted({int(match[1]) for key in keys if (match := pattern.fullmatch(key.decode()))})

    def _write_json(self, key: str, document: dict[str, int], if_equal: bytes | None = None) -> bool:
        return self._kv.write(key, json.dumps(document).encode(), if_equal=if_equal).result().generation != b""
