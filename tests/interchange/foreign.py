"""Small datasets of other projects, made with this project's writers but without its labels.

Legend: `T` frames of an episode.
"""

import json
import pathlib
import shutil
from collections.abc import Mapping

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from sop_jax.episodes.images import encode_image
from sop_jax.interchange.lerobot.statistics import PictureStats
from sop_jax.interchange.lerobot.writer import ColumnSpec, EpisodeData, LeRobotWriter
from sop_jax.interchange.rlds.example import example_class
from sop_jax.interchange.rlds.tfrecord import frame_record
from sop_jax.specs.clock import ManualClock

NOW = ManualClock(10**18)
SIZE = (16, 24)
JOINTS = ("shoulder", "elbow", "gripper")
PLAIN = {
    "observation.state": ColumnSpec("float32", (3,), JOINTS),
    "action": ColumnSpec("float32", (3,), JOINTS),
    "observation.images.front": ColumnSpec("video", (*SIZE, 3)),
    "observation.images.wrist": ColumnSpec("image", (*SIZE, 3)),
}
AGIBOT = {
    "observation.states.joint.position": ColumnSpec("float32", (14,)),
    "observation.states.effector.position": ColumnSpec("float32", (2,)),
    "observation.states.head.position": ColumnSpec("float32", (2,)),
    "actions.joint.position": ColumnSpec("float32", (14,)),
    "actions.effector.position": ColumnSpec("float32", (2,)),
    **{f"observation.images.{name}": ColumnSpec("video", (*SIZE, 3)) for name in ("head", "hand_left", "hand_right")},
}


def numbers(features: Mapping[str, ColumnSpec], seed: int, num_frames: int) -> dict[str, np.ndarray]:
    """Values in [0, 1] for every feature that is no picture."""
    rng = np.random.default_rng(seed)
    return {
        name: rng.uniform(0, 1, (num_frames, *spec.shape)).astype(np.float32)
        for name, spec in features.items()
        if not spec.is_picture
    }


def picture(seed: int, frame: int) -> np.ndarray:
    """uint8 [16, 24, 3], grey, a level of its own for every frame: codecs keep it within a level or two."""
    return np.full((*SIZE, 3), 20 + 7 * frame + 50 * seed, np.uint8)


def write_lerobot(
    root: pathlib.Path,
    episodes: Mapping[str, dict[str, np.ndarray]] | list[tuple[str, dict[str, np.ndarray]]],
    features: Mapping[str, ColumnSpec] = PLAIN,
) -> pathlib.Path:
    """A v3.0 dataset of (instruction, columns) pairs, as another project might have made it."""
    writer = LeRobotWriter(root, fps=30, robot_type="other", features=features, marks={})
    for seed, (instruction, columns) in enumerate(episodes):
        num, pictures, stats = len(next(iter(columns.values()))), {}, {}
        for name, spec in features.items():
            if spec.is_picture:
                images = [picture(seed, frame) for frame in range(num)]
                pictures[name] = images if spec.dtype == "video" else [encode_image(image) for image in images]
                stats[name] = PictureStats()
                for image in images:
                    stats[name].add(image)
        writer.add(EpisodeData(instruction, columns, pictures, stats))
    writer.close()
    edit_info(root, lambda info: info.pop("sop"))
    return root


def edit_info(root: pathlib.Path, edit) -> None:
    path = root / "meta" / "info.json"
    info = json.loads(path.read_text())
    edit(info)
    path.write_text(json.dumps(info))


def edit_column(path: pathlib.Path, name: str, edit) -> None:
    """Rewrites one column of a Parquet file; `edit` changes its list of values in place, or returns another list."""
    table = pq.read_table(path)
    values = table.column(name).to_pylist()
    values = edit(values) or values
    field = table.schema.field(name)
    pq.write_table(table.set_column(table.schema.get_field_index(name), field, pa.array(values, field.type)), path)


def to_v21(root: pathlib.Path) -> pathlib.Path:
    """The same dataset laid out as v2.1: one file an episode. Only for datasets of one episode a video file."""
    info = json.loads((root / "meta/info.json").read_text())
    rows = pq.read_table(root / "meta/episodes/chunk-000/file-000.parquet").to_pylist()
    tasks = pq.read_table(root / "meta/tasks.parquet").to_pylist()
    old = root.with_name(root.name + "-v21")
    for folder in ("meta", "data/chunk-000"):
        (old / folder).mkdir(parents=True)
    for row in rows:
        index = row["episode_index"]
        table = pq.read_table(root / f"data/chunk-000/file-{row['data/file_index']:03d}.parquet")
        part = table.filter(pa.compute.equal(table["episode_index"], index))
        pq.write_table(part, old / f"data/chunk-000/episode_{index:06d}.parquet")
        for name, feature in info["features"].items():
            if feature["dtype"] == "video":
                assert row[f"videos/{name}/from_timestamp"] == 0.0
                target = old / f"videos/chunk-000/{name}/episode_{index:06d}.mp4"
                target.parent.mkdir(parents=True, exist_ok=True)
                shutil.copy(root / f"videos/{name}/chunk-000/file-{row[f'videos/{name}/file_index']:03d}.mp4", target)
    info |= {
        "codebase_version": "v2.1",
        "data_path": "data/chunk-{episode_chunk:03d}/episode_{episode_index:06d}.parquet",
        "video_path": "videos/chunk-{episode_chunk:03d}/{video_key}/episode_{episode_index:06d}.mp4",
    }
    (old / "meta/info.json").write_text(json.dumps(info))
    keys = ("episode_index", "tasks", "length")
    _write_lines(old / "meta/episodes.jsonl", [{key: row[key] for key in keys} for row in rows])
    _write_lines(old / "meta/tasks.jsonl", tasks)
    return old


def _write_lines(path: pathlib.Path, lines: list[dict]) -> None:
    path.write_text("".join(json.dumps(line) + "\n" for line in lines))


def tensor(dtype: str, *shape: int) -> dict:
    return {
        "pythonClassName": "tensorflow_datasets.core.features.tensor_feature.Tensor",
        "tensor": {"shape": {"dimensions": [str(size) for size in shape]}, "dtype": dtype, "encoding": "none"},
    }


RLDS_STEP = {
    "observation": {
        "featuresDict": {
            "features": {
                "state": tensor("float32", 3),
                "image": {"image": {"shape": {"dimensions": ["16", "24", "3"]}, "encodingFormat": "jpeg"}},
            }
        }
    },
    "action": tensor("float64", 3),
    "reward": tensor("float32"),
    "is_last": tensor("bool"),
    "language_instruction": {"text": {}},
}


def rlds_example(seed: int, num_steps: int, last_action: bool = False) -> bytes:
    """An episode as TFDS flattens it. As the format has it, the last step holds an observation, and zeros for the rest; or
    it has an action and a reward of its own, as in many datasets. Episode 1 fails."""
    rng = np.random.default_rng(seed)
    example = example_class()()
    features = example.features.feature
    for name in ("steps/observation/state", "steps/action"):
        features[name].float_list.value.extend(rng.uniform(0, 1, num_steps * 3).astype(np.float32).tolist())
    if not last_action:
        del features["steps/action"].float_list.value[-3:]
        features["steps/action"].float_list.value.extend([0.0] * 3)
    rewards = np.arange(num_steps) == num_steps - (1 if last_action else 2)
    features["steps/reward"].float_list.value.extend((rewards * float(seed != 1)).tolist())
    features["steps/is_last"].int64_list.value.extend([0] * (num_steps - 1) + [1])
    jpegs = [encode_image(picture(seed, step)) for step in range(num_steps)]
    features["steps/observation/image"].bytes_list.value.extend(jpegs)
    features["steps/language_instruction"].bytes_list.value.extend([b"lift the lid"] * num_steps)
    features["episode_metadata/file_path"].bytes_list.value.append(b"raw/0.hdf5")
    return example.SerializeToString()


def write_rlds(
    folder: pathlib.Path, num_episodes: int = 3, num_steps: int = 5, last_action: bool = False
) -> pathlib.Path:
    """A dataset of two files, as TFDS lays it out."""
    folder.mkdir()
    steps = {"sequence": {"feature": {"featuresDict": {"features": RLDS_STEP}}}}
    (folder / "features.json").write_text(json.dumps({"featuresDict": {"features": {"steps": steps}}}))
    records = [frame_record(rlds_example(seed, num_steps, last_action)) for seed in range(num_episodes)]
    (folder / "toy-train.tfrecord-00000-of-00002").write_bytes(b"".join(records[:2]))
    (folder / "toy-train.tfrecord-00001-of-00002").write_bytes(b"".join(records[2:]))
    splits = [{"name": "train", "shardLengths": ["2", str(num_episodes - 2)]}]
    (folder / "dataset_info.json").write_text(json.dumps({"fileFormat": "tfrecord", "splits": splits}))
    return folder
