"""From a foreign episode to this project's: by a mapping, or back from an export.

Legend: `T` frames, `A` action dimensions.
"""

import dataclasses
import hashlib
from collections.abc import Sequence

import numpy as np

from sop_jax.interchange import labels
from sop_jax.interchange.errors import refuse
from sop_jax.interchange.mapping import Dimensions, ImportMapping
from sop_jax.interchange.pictures import size_of, to_jpeg
from sop_jax.interchange.source import EpisodeSource, ForeignEpisode
from sop_jax.specs.clock import Clock
from sop_jax.specs.identifiers import check_name, make_episode_id
from sop_jax.specs.records import (
    NO_POLICY,
    CameraSpec,
    Episode,
    EpisodeArrays,
    EpisodeManifest,
    Outcome,
    Source,
)


@dataclasses.dataclass(frozen=True)
class MappedTranslator:
    """Demonstrations of another project, for the offline tables. Implements `Translator`.

    An episode's id is made of its numbers, its instruction, the mapping and its place in the dataset: the same dataset gives
    the same ids wherever it lies, and when episodes are added to it; a corrected mapping gives others.

    Args:
        mapping: Which of its features mean what.
        task: Whose tables they feed.
        robot_id: Under whose prefix they are stored.
        clock: Datasets seldom tell when they were recorded, so the frames are dated as if it had been just now.
        world: Where the data is from, for the manifest.
    """

    mapping: ImportMapping
    task: str
    robot_id: str
    clock: Clock
    world: str = ""

    def __post_init__(self) -> None:
        check_name("task", self.task)
        check_name("robot_id", self.robot_id)

    @property
    def columns(self) -> tuple[str, ...]:
        return self.mapping.columns

    def episode_id(self, raw: ForeignEpisode) -> str:
        raw = self._acted(raw)
        digest = hashlib.sha256(repr((self.mapping, self.task, self._instruction(raw))).encode())
        for name in self.mapping.columns:
            values = raw.columns[name]
            numbers = values if values.dtype != object else np.frombuffer(repr(values.tolist()).encode(), np.uint8)
            digest.update(np.ascontiguousarray(numbers).tobytes())
        return make_episode_id(self.robot_id, int.from_bytes(digest.digest()[:8]) % 10**19, raw.index)

    def translate(self, raw: ForeignEpisode, source: EpisodeSource) -> Episode:
        mapping, whole, raw = self.mapping, raw, self._acted(raw)
        self._check_human(raw)
        control_hz = mapping.control_hz or source.control_hz
        state = _assemble(mapping.state, raw)
        action = _assemble(mapping.action, raw)
        image_frames = np.arange(0, raw.num_frames, mapping.image_stride, dtype=np.int32)
        cameras, jpegs = self._pictures(whole, source, image_frames.tolist())
        span_ns = round(raw.num_frames * 1e9 / control_hz)
        started_ns = max(0, self.clock.now_ns() - span_ns)
        times = started_ns + np.round(np.arange(raw.num_frames) * 1e9 / control_hz).astype(np.int64)
        outcome = self._outcome(whole)
        manifest = EpisodeManifest(
            episode_id=self.episode_id(whole),
            robot_id=self.robot_id,
            task=self.task,
            instruction=self._instruction(raw),
            source=Source.OFFLINE,
            policy_version=NO_POLICY,
            outcome=outcome,
            failure_kind="" if outcome is Outcome.SUCCESS else "told by the dataset",
            control_hz=float(control_hz),
            num_frames=raw.num_frames,
            cameras=cameras,
            action_names=mapping.action_names,
            started_ns=started_ns,
            ended_ns=started_ns + span_ns,
            world=self.world,
        )
        arrays = EpisodeArrays(
            state=state,
            action=action,
            intervention=np.ones(raw.num_frames, bool),
            policy_version=np.full(raw.num_frames, NO_POLICY, np.int32),
            time_ns=times,
            image_frames=image_frames,
        )
        return Episode(manifest, arrays, jpegs)

    def _acted(self, raw: ForeignEpisode) -> ForeignEpisode:
        """The frames that have an action: without the last one where that holds an observation only."""
        if not raw.void_at_end or self.mapping.last_action:
            return raw
        num = raw.num_frames - 1
        if not num:
            fix = "Set `last_action` in the mapping if its one step has an action."
            raise refuse(raw.where, "steps", expected="two or more, the last without an action", got=1, fix=fix)
        columns = {name: values[:num] for name, values in raw.columns.items()}
        return dataclasses.replace(raw, num_frames=num, columns=columns, void_at_end=frozenset())

    def _instruction(self, raw: ForeignEpisode) -> str:
        if not self.mapping.instruction:
            return raw.instruction
        texts = sorted(set(raw.columns[self.mapping.instruction]))
        if len(texts) != 1:
            fix = "Split the episode by its instructions."
            raise refuse(raw.where, self.mapping.instruction, expected="one text in all frames", got=texts, fix=fix)
        return texts[0]

    def _check_human(self, raw: ForeignEpisode) -> None:
        if not self.mapping.human:
            return
        flags = raw.columns[self.mapping.human].reshape(raw.num_frames, -1).astype(bool).all(axis=1)
        if not flags.all():
            fix = "Demonstrations are taught whole. Clear `human` in the mapping if its actions shall be imitated too."
            got = f"a policy on {int((~flags).sum())} of {raw.num_frames}"
            raise refuse(raw.where, self.mapping.human, expected="a human on every frame", got=got, fix=fix)

    def _outcome(self, raw: ForeignEpisode) -> Outcome:
        name = self.mapping.success
        if not name:
            return Outcome.SUCCESS
        good = raw.columns[name].reshape(raw.num_frames, -1)[:, -1] > 0.5
        if name in raw.void_at_end and not self.mapping.last_action:
            if good[-1] and not good[-2]:  # left out, it would turn every success of such a dataset into a failure
                fix = (
                    "If its last steps have actions and rewards of their own, set `last_action` in the mapping; else leave "
                    "the episode out."
                )
                got = "one on the last step, which holds an observation only"
                raise refuse(raw.where, name, expected="a success on a step with an action", got=got, fix=fix)
            good = good[:-1]
        return Outcome.SUCCESS if good[-1] else Outcome.FAILURE

    def _pictures(
        self, raw: ForeignEpisode, source: EpisodeSource, frames: Sequence[int]
    ) -> tuple[tuple[CameraSpec, ...], tuple[tuple[bytes, ...], ...]]:
        specs, columns = [], []
        for camera in self.mapping.cameras:
            spec, jpegs, where = None, [], f"{raw.where}, {camera.feature}"
            for picture in source.pictures(raw, camera.feature, frames):
                if spec is None:
                    size = (camera.height, camera.width) if camera.height else size_of(picture, where)
                    spec = CameraSpec(camera.name, *size)
                jpegs.append(to_jpeg(picture, spec, where))
            if spec is None or len(jpegs) != len(frames):
                fix = "The dataset lacks pictures."
                raise refuse(where, "pictures", expected=len(frames), got=len(jpegs), fix=fix)
            specs.append(spec)
            columns.append(jpegs)
        return tuple(specs), tuple(zip(*columns, strict=True))


class ExportTranslator:
    """Episodes that `export_lerobot` wrote, as they were. Implements `Translator`.

    Ids, labels and numbers come back bit for bit; pictures too if they were exported as JPEGs, else as the video has them.
    """

    @property
    def columns(self) -> tuple[str, ...]:
        return (labels.STATE, labels.ACTION, *labels.DTYPES)

    def episode_id(self, raw: ForeignEpisode) -> str:
        return labels.read_manifest(raw.columns, raw.where).episode_id

    def translate(self, raw: ForeignEpisode, source: EpisodeSource) -> Episode:
        manifest = labels.read_manifest(raw.columns, raw.where)
        labels.check_columns(raw.columns, manifest, raw.where)
        arrays = labels.from_columns(raw.columns)
        frames = arrays.image_frames.tolist()
        columns = []
        for camera in manifest.cameras:
            name = labels.PICTURES + camera.name
            where = f"{raw.where}, {name}"
            columns.append([to_jpeg(picture, camera, where) for picture in source.pictures(raw, name, frames)])
        return Episode(manifest, arrays, tuple(zip(*columns, strict=True)))


def _assemble(parts: Sequence[Dimensions], raw: ForeignEpisode) -> np.ndarray:
    """float32 [T, A]."""
    found = [part.convert(raw.columns[part.feature], raw.where) for part in parts]
    return np.concatenate(found, axis=1).astype(np.float32)
