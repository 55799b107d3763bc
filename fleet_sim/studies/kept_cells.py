"""The finished cells of a study, in its folder. Each says which study it belongs to, and what it was made on.

study folder/
  study.json            what is studied
  cells/<name>.json     a finished cell: {study: SHA-256 of study.json, made_on, elapsed_s, left, leant_on, result}
"""

import dataclasses
import hashlib
import json
import os
import pathlib
from collections.abc import Mapping
from typing import Any

from sop_jax.evaluation.provenance import Provenance
from sop_jax.specs.errors import SopError

_IDENTITY = "study.json"


class StudyMismatchError(SopError):
    """The folder holds another study, or a cell of one."""


class DamagedCellError(SopError):
    """A finished cell's file can't be read."""


@dataclasses.dataclass(frozen=True)
class KeptCell:
    """A finished cell. `result`: JSON-able.

    left: fingerprint of the files that it left to others; "" = none. leant_on: the fingerprints of what it used, by the name
        of the cell that left it. Both are empty in cells of before they were noted.
    """

    result: Mapping[str, Any]
    elapsed_s: float
    made_on: Provenance
    left: str = ""
    leant_on: Mapping[str, str] = dataclasses.field(default_factory=dict)


def holds_study(folder: pathlib.Path) -> bool:
    """Whether a study was begun there."""
    return (folder / _IDENTITY).exists() or any((folder / "cells").glob("*.json"))


class KeptCells:
    """Reads and writes them.

    Args:
        folder: the study's.
        identity: JSON-able; what makes this study this study.

    Raises:
        StudyMismatchError: the folder holds another study, or a cell of another.
        DamagedCellError: a cell's file is torn.
    """

    def __init__(self, folder: pathlib.Path, identity: Mapping[str, Any]):
        self._folder = folder
        text = json.dumps(identity, indent=1, sort_keys=True)
        self._study = hashlib.sha256(text.encode()).hexdigest()
        kept = folder / _IDENTITY
        if kept.exists() and kept.read_text(encoding="utf-8") != text:
            raise StudyMismatchError(
                f"{folder} holds another study (its {_IDENTITY} differs from this preset, these options and this base "
                "policy): choose another folder, or run the study that was begun there"
            )
        for path in sorted((folder / "cells").glob("*.json")):
            self.read(path.stem)
        (folder / "cells").mkdir(parents=True, exist_ok=True)
        if not kept.exists():
            _write_whole(kept, text)

    def read(self, name: str) -> KeptCell | None:
        """A cell by name; None before it has ended. Raises as the class does."""
        path = self._path(name)
        try:
            content = json.loads(path.read_text(encoding="utf-8"))
            study = content.get("study")
            if study == self._study:
                return KeptCell(
                    content["result"], content["elapsed_s"], Provenance(**content["made_on"]),
                    content.get("left", ""), content.get("leant_on", {}),
                )  # fmt: skip
        except FileNotFoundError:
            return None
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            raise DamagedCellError(
                f"{path} holds no finished cell ({type(error).__name__}: {error}): delete it, and the cell is run again"
            ) from error
        raise self._foreign(path, study)

    def write(self, name: str, cell: KeptCell) -> None:
        _write_whole(self._path(name), json.dumps({"study": self._study, **dataclasses.asdict(cell)}, indent=1))

    def _foreign(self, path: pathlib.Path, study: str | None) -> StudyMismatchError:
        fix = "choose another folder, or delete the file, and the cell is run again"
        if study is None:
            return StudyMismatchError(
                f"{path} doesn't say which study it belongs to, for an earlier version wrote it: {fix}"
            )
        return StudyMismatchError(
            f"{path} belongs to another study: expected {self._study[:12]} (this preset, these options and this base "
            f"policy), got {str(study)[:12]}; {fix}"
        )

    def _path(self, name: str) -> pathlib.Path:
        return self._folder / "cells" / f"{name}.json"


def _write_whole(path: pathlib.Path, text: str) -> None:
    """All or nothing: neither a kill nor a full disk leaves half a file."""
    draft = path.with_suffix(".draft")
    with draft.open("w", encoding="utf-8") as file:
        file.write(text)
        file.flush()
        os.fsync(file.fileno())
    draft.replace(path)
