"""How a foreign dataset's features become this project's: which dimensions, in which order, in which units.

A mapping is a config: `sop episodes import --print-mapping` writes one as JSON, `--mapping FILE` reads it.
"""

import dataclasses
import re
from collections.abc import Mapping
from typing import Literal

import numpy as np

from sop_jax.interchange.errors import refuse
from sop_jax.interchange.source import EpisodeSource, Feature, Kind
from sop_jax.specs.errors import ConfigError

Unit = Literal["rad", "deg", "gripper", "as_is"]


@dataclasses.dataclass(frozen=True)
class Dimensions:
    """Dimensions of the state or the action that come from one feature.

    feature: its name in the dataset.
    names: what the dimensions are called here. Those of grippers hold the word "gripper", others don't.
    indices: which of the feature's (flattened) dimensions, in the order of `names`; () = all of them.
    unit: "rad"; "deg", converted; "gripper": `open_at` .. `closed_at` in the dataset become 0 open .. 1 closed; "as_is".
    """

    feature: str
    names: tuple[str, ...]
    indices: tuple[int, ...] = ()
    unit: Unit = "rad"
    open_at: float = 0.0
    closed_at: float = 1.0

    def __post_init__(self) -> None:
        if not self.names:
            raise ConfigError(f"mapping of {self.feature}: names must not be empty")
        if self.indices and (len(self.indices) != len(self.names) or min(self.indices) < 0):
            raise ConfigError(
                f"mapping of {self.feature}: indices must be {len(self.names)} numbers >= 0, one for each of the names, got "
                f"{list(self.indices)}"
            )
        wrong = [name for name in self.names if ("gripper" in name) != (self.unit == "gripper")]
        if wrong:
            raise ConfigError(
                f"mapping of {self.feature}: {wrong} with unit {self.unit!r}: a dimension with unit 'gripper', and no "
                "other, has 'gripper' in its name; ranges are checked by that"
            )
        if self.open_at == self.closed_at:
            raise ConfigError(f"mapping of {self.feature}: open_at and closed_at must differ, both are {self.open_at}")

    def convert(self, values: np.ndarray, where: str) -> np.ndarray:
        """float64 [T, len(names)] in this project's units, of the feature's [T, ...]. Raises InvalidDatasetError."""
        flat = values.reshape(len(values), -1)
        highest = max(self.indices, default=len(self.names) - 1)
        if highest >= flat.shape[1] or (not self.indices and flat.shape[1] != len(self.names)):
            expected = f"more than {highest}" if self.indices else len(self.names)
            raise refuse(
                where,
                f"dimensions of {self.feature}",
                expected=expected,
                got=flat.shape[1],
                fix="Name the wanted ones by `indices` in the mapping.",
            )
        if flat.dtype.kind not in "fiu":
            raise refuse(
                where, f"type of {self.feature}", expected="numbers", got=str(flat.dtype), fix="Map another feature."
            )
        chosen = flat[:, list(self.indices)] if self.indices else flat
        chosen = chosen.astype(np.float64)
        broken = np.argwhere(~np.isfinite(chosen))
        if len(broken):
            frame, dim = (int(i) for i in broken[0])
            raise refuse(
                where,
                f"{self.feature}, {self.names[dim]!r} at frame {frame}",
                expected="a finite number",
                got=float(chosen[frame, dim]),
                fix="The recording is broken there; leave the episode out.",
            )
        if self.unit == "deg":
            return np.deg2rad(chosen)
        if self.unit == "gripper":
            return (chosen - self.open_at) / (self.closed_at - self.open_at)
        return chosen


@dataclasses.dataclass(frozen=True)
class Camera:
    """One camera: its feature, its name here, and the size to which its pictures are brought (0 = as they are). Of pictures
    with other proportions the margins are cut off; none is stretched."""

    feature: str
    name: str
    height: int = 0
    width: int = 0

    def __post_init__(self) -> None:
        if self.height < 0 or self.width < 0 or (self.height == 0) != (self.width == 0):
            raise ConfigError(f"camera {self.name}: give height and width, or neither, got {self.height}x{self.width}")


@dataclasses.dataclass(frozen=True)
class ImportMapping:
    """Everything that the importer must be told about a dataset.

    state, action: the same dimensions in the same order, each from where the dataset has it. An action is an absolute target.
    image_stride: pictures are kept of every so many frames; only those can begin a training example.
    control_hz: frames per second; 0 = as the dataset says.
    success: feature whose last value above 0.5 means success (others: failure, which isn't imitated); "" = every episode is
        a success.
    human: feature that flags frames on which a human acted. Episodes in which a policy acted, if only once, are refused:
        of a demonstration every frame is taught. "" = all frames are demonstrations.
    instruction: feature that holds the instruction's text; "" = as the dataset says.
    last_action: RLDS says that an episode's last step (`is_last`, `is_terminal`) holds an observation and nothing else that
        counts, so it is left out; True = this dataset has an action and a reward there too, as many have.
    """

    state: tuple[Dimensions, ...]
    action: tuple[Dimensions, ...]
    cameras: tuple[Camera, ...]
    image_stride: int = 3
    control_hz: float = 0.0
    success: str = ""
    human: str = ""
    instruction: str = ""
    last_action: bool = dataclasses.field(default=False, repr=False)
    """Not in the text that ids are made of: it changes which frames there are, and those are."""

    def __post_init__(self) -> None:
        state, action = _names(self.state), _names(self.action)
        if state != action:
            raise ConfigError(
                "mapping: state and action must have the same dimensions in the same order, got "
                f"{list(state)} and {list(action)}"
            )
        for what, names in (("dimensions", action), ("cameras", tuple(camera.name for camera in self.cameras))):
            if not names or len(set(names)) != len(names):
                raise ConfigError(f"mapping: {what} must be one or more, with different names, got {list(names)}")
        if self.image_stride < 1 or self.control_hz < 0:
            raise ConfigError(
                f"mapping: image_stride must be >= 1 and control_hz >= 0, got {self.image_stride}, {self.control_hz}"
            )

    @property
    def action_names(self) -> tuple[str, ...]:
        return _names(self.action)

    @property
    def columns(self) -> tuple[str, ...]:
        """Every feature to read, pictures apart."""
        parts = (part.feature for part in (*self.state, *self.action))
        extras = (name for name in (self.success, self.human, self.instruction) if name)
        return tuple(dict.fromkeys((*parts, *extras)))


def check_mapping(mapping: ImportMapping, source: EpisodeSource) -> None:
    """Raises InvalidDatasetError, before anything is read, if the dataset lacks what the mapping names."""
    wanted: dict[str, Kind] = {part.feature: Kind.NUMBER for part in (*mapping.state, *mapping.action)}
    wanted |= {name: Kind.NUMBER for name in (mapping.success, mapping.human) if name}
    wanted |= {camera.feature: Kind.PICTURE for camera in mapping.cameras}
    wanted |= {mapping.instruction: Kind.TEXT} if mapping.instruction else {}
    for name, kind in wanted.items():
        found = source.features.get(name)
        if found is None or found.kind is not kind:
            raise refuse(
                source.where,
                f"feature {name!r}",
                expected=f"a {kind.value}",
                got="none" if found is None else found.kind.value,
                fix=f"The dataset has {describe(source.features)}. Change the mapping.",
            )
    if not (mapping.control_hz or source.control_hz):
        raise refuse(
            source.where,
            "rate",
            expected="control_hz",
            got=0,
            fix="The dataset doesn't tell its frames per second: give --control-hz, or set it in the mapping.",
        )


def describe(features: Mapping[str, Feature]) -> str:
    """For example "action (number [16]), observation.images.head (picture [480, 640, 3])"."""
    return ", ".join(f"{name} ({feature.kind.value} {list(feature.shape)})" for name, feature in features.items())


def derive_mapping(source: EpisodeSource, image_stride: int = 3) -> ImportMapping:
    """The mapping of a dataset with one state and one action feature of equal dimensions, in rad, and cameras.

    Raises InvalidDatasetError if it is of another kind; the message lists the features it has.
    """
    found = source.features
    state = next((name for name in ("observation.state", "observation/state") if name in found), "")
    if not state or "action" not in found or found[state].shape != found["action"].shape:
        raise refuse(
            source.where,
            "features",
            expected="`action` and `observation.state`, equally many dimensions",
            got={name: found[name].shape for name in (state, "action") if name in found},
            fix=f"Write a mapping for {describe(found)}.",
        )
    names = _dimension_names(found[state], found["action"])
    cameras = [
        name for name, feature in found.items() if feature.kind is Kind.PICTURE and name.startswith("observation")
    ]
    human = next((name for name in ("intervention", "is_intervention") if name in found), "")
    success = "next.success" if "next.success" in found else ""
    texts = ("language_instruction", "observation/natural_language_instruction")
    return ImportMapping(
        state=_split(state, names),
        action=_split("action", names),
        cameras=tuple(Camera(name, _camera_name(name)) for name in cameras),
        image_stride=image_stride,
        success=success,
        human=human,
        instruction=next((name for name in texts if name in found), ""),
    )


def _dimension_names(state: Feature, action: Feature) -> tuple[str, ...]:
    for feature in (action, state):
        if len(set(feature.names)) == len(feature.names) == int(np.prod(feature.shape)):
            return tuple(name.removesuffix(".pos") for name in feature.names)
    return tuple(f"joint{index}" for index in range(int(np.prod(action.shape))))


def _split(feature: str, names: tuple[str, ...]) -> tuple[Dimensions, ...]:
    """Runs of joints and of grippers, in the feature's order."""
    runs: list[list[int]] = []
    for index, name in enumerate(names):
        if not runs or ("gripper" in name) != ("gripper" in names[runs[-1][-1]]):
            runs.append([])
        runs[-1].append(index)
    return tuple(
        Dimensions(
            feature,
            tuple(names[index] for index in run),
            () if len(runs) == 1 else tuple(run),
            "gripper" if "gripper" in names[run[0]] else "rad",
        )
        for run in runs
    )


def _camera_name(feature: str) -> str:
    last = feature.removeprefix("observation").removeprefix(".images").lower()
    return re.sub(r"[^a-z0-9]+", "_", last).strip("_") or "camera"


def _names(parts: tuple[Dimensions, ...]) -> tuple[str, ...]:
    return tuple(name for part in parts for name in part.names)
