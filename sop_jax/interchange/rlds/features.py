"""features.json of TFDS: which features the steps of an episode have, and how each is stored.

TFDS writes one example an episode; a feature of the steps stands in it as `steps/<path>`, all steps' values in a row.
"""

import dataclasses
import json
import pathlib
from collections.abc import Mapping
from typing import Any, Literal

from sop_jax.interchange.errors import refuse
from sop_jax.interchange.source import Feature, Kind

Storage = Literal["float", "int", "bytes"]
_FIX = "Is this the folder of one version of a TFDS dataset in RLDS form, with features.json and .tfrecord files?"
_FLOATS = ("float16", "bfloat16", "float32", "float64")


@dataclasses.dataclass(frozen=True)
class StepFeature:
    """A feature of the steps. storage: the list that holds it; None = in a way that isn't read here."""

    feature: Feature
    storage: Storage | None


def read_features(folder: pathlib.Path) -> dict[str, StepFeature]:
    """Path within a step ("observation/image") -> feature. Raises InvalidDatasetError."""
    path = folder / "features.json"
    found: dict[str, StepFeature] = {}
    try:
        raw = json.loads(path.read_text(encoding="utf-8"))
        steps = raw["featuresDict"]["features"]["steps"]["sequence"]["feature"]
        _walk("", steps, found)
    except (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        reason = f"no {error}" if isinstance(error, KeyError) else str(error)
        raise refuse(str(path), "features.json", expected="an RLDS dataset's", got=reason, fix=_FIX) from error
    return found


def read_shard_lengths(folder: pathlib.Path) -> int | None:
    """How many examples dataset_info.json promises; None if there is no such file. Raises InvalidDatasetError."""
    path = folder / "dataset_info.json"
    if not path.is_file():
        return None
    try:
        raw = json.loads(path.read_text(encoding="utf-8"))
        form = raw.get("fileFormat", "tfrecord")
        total = sum(int(length) for split in raw["splits"] for length in split["shardLengths"])
    except (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        got = f"no {error}" if isinstance(error, KeyError) else str(error)
        raise refuse(str(path), "dataset_info.json", expected="splits and shards", got=got, fix=_FIX) from error
    if form != "tfrecord":
        raise refuse(str(path), "fileFormat", expected="tfrecord", got=form, fix="Convert the dataset to TFRecord.")
    return total


def _walk(path: str, node: Mapping[str, Any], found: dict[str, StepFeature]) -> None:
    if "featuresDict" in node:
        for name, child in node["featuresDict"]["features"].items():
            _walk(f"{path}/{name}" if path else name, child, found)
    elif "image" in node:
        found[path] = StepFeature(Feature(Kind.PICTURE, _shape(node["image"])), "bytes")
    elif "text" in node:
        found[path] = StepFeature(Feature(Kind.TEXT), "bytes")
    elif "tensor" in node:
        found[path] = _tensor(node["tensor"])
    else:
        found[path] = StepFeature(Feature(Kind.OTHER), None)


def _tensor(tensor: Mapping[str, Any]) -> StepFeature:
    dtype, shape = str(tensor["dtype"]), _shape(tensor)
    if dtype == "string":
        return StepFeature(Feature(Kind.TEXT, shape), "bytes" if not shape else None)
    if str(tensor.get("encoding", "none")).lower() != "none" or -1 in shape:
        return StepFeature(Feature(Kind.OTHER, shape), None)
    return StepFeature(Feature(Kind.NUMBER, shape), "float" if dtype in _FLOATS else "int")


def _shape(node: Mapping[str, Any]) -> tuple[int, ...]:
    return tuple(int(size) for size in node.get("shape", {}).get("dimensions", ()))
