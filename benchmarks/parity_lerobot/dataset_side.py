"""LeRobot's side of the dataset comparison; runs in LeRobot's own environment and imports nothing of this project.

    python dataset_side.py pyav NEW DATASET...

LeRobot writes a dataset of its own at NEW (NEW/truth.npz holds what it was given), and reads each DATASET, every frame as
LeRobotDataset gives it, with windows of time (DATASET/read.npz). Then its tool makes a copy without the first episode
(DATASET-edited).
"""

import logging
import pathlib
import sys

import numpy as np
from lerobot.datasets.compute_stats import (  # pyright: ignore[reportMissingImports]
    aggregate_stats,
    get_feature_stats,
)
from lerobot.datasets.dataset_tools import delete_episodes  # pyright: ignore[reportMissingImports]
from lerobot.datasets.lerobot_dataset import LeRobotDataset  # pyright: ignore[reportMissingImports]

ACTION_WINDOW = (0, 1, 4)
STATE_WINDOW = (-2, 0)
NUM_EPISODES, NUM_FRAMES, SIZE = 3, 14, 64
INSTRUCTIONS = ("fold the box", "put the cup away")


def read(root: pathlib.Path, output: pathlib.Path, backend: str) -> None:
    fps = LeRobotDataset("exported/dataset", root=root, video_backend=backend).meta.fps
    windows = {
        "action": [delta / fps for delta in ACTION_WINDOW],
        "observation.state": [delta / fps for delta in STATE_WINDOW],
    }
    dataset = LeRobotDataset("exported/dataset", root=root, delta_timestamps=windows, video_backend=backend)
    cameras = dataset.meta.camera_keys
    found: dict[str, list] = {}
    for index in range(len(dataset)):
        item = dataset[index]
        for name, value in item.items():
            if name in cameras:
                value = (value.numpy() * 255).round().astype(np.uint8).transpose(1, 2, 0)
            elif not isinstance(value, str):
                value = value.numpy()
            found.setdefault(name, []).append(value)
    columns = {name: np.array(values) for name, values in found.items()}
    told = {f"stats/action/{what}": value for what, value in dataset.meta.stats["action"].items()}
    computed = {f"lerobot_stats/action/{what}": value for what, value in compute_stats(columns).items()}
    np.savez(output, allow_pickle=False, **columns, **told, **computed)


def compute_stats(columns: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    """LeRobot's own statistics of the actions: of each episode, then of all."""
    actions, episodes = columns["action"][:, 0], columns["episode_index"]
    each = [
        {"action": get_feature_stats(actions[episodes == index], axis=0, keepdims=False)}
        for index in np.unique(episodes)
    ]
    return aggregate_stats(each)["action"]


def write(root: pathlib.Path, output: pathlib.Path) -> None:
    names = [f"joint{i}" for i in range(5)] + ["gripper"]
    size = (SIZE, SIZE, 3)
    features = {
        "observation.state": {"dtype": "float32", "shape": (6,), "names": names},
        "action": {"dtype": "float32", "shape": (6,), "names": names},
        "observation.images.front": {"dtype": "video", "shape": size, "names": ["height", "width", "channels"]},
        "observation.images.wrist": {"dtype": "image", "shape": size, "names": ["height", "width", "channels"]},
        "next.success": {"dtype": "bool", "shape": (1,), "names": None},
    }
    dataset = LeRobotDataset.create("written/dataset", 30, features, root=root, robot_type="so100")
    rng = np.random.default_rng(0)
    y, x = np.mgrid[0:SIZE, 0:SIZE]
    truth: dict[str, list] = {"state": [], "action": [], "front": [], "wrist": []}
    for episode in range(NUM_EPISODES):
        for frame in range(NUM_FRAMES):
            state, action = rng.uniform(0, 1, (2, 6)).astype(np.float32)
            picture = np.stack([x * 3, y * 3, np.full_like(x, 12 * frame + 20 * episode)], axis=-1).astype(np.uint8)
            dataset.add_frame(
                {
                    "observation.state": state,
                    "action": action,
                    "observation.images.front": picture,
                    "observation.images.wrist": picture[::-1].copy(),
                    "next.success": np.array([frame == NUM_FRAMES - 1 and episode != 1]),
                    "task": INSTRUCTIONS[episode % 2],
                }
            )
            for name, value in zip(truth, (state, action, picture, picture[::-1]), strict=True):
                truth[name].append(value)
        dataset.save_episode(parallel_encoding=False)
    dataset.finalize()
    np.savez(output, allow_pickle=False, **{name: np.array(values) for name, values in truth.items()})


def edit(root: pathlib.Path, output: pathlib.Path) -> None:
    whole = LeRobotDataset("exported/dataset", root=root, video_backend="pyav")
    delete_episodes(whole, [0], output_dir=output, repo_id="exported/edited")


if __name__ == "__main__":
    logging.disable(logging.INFO)
    new, *given = (pathlib.Path(word) for word in sys.argv[2:])
    write(new, new / "truth.npz")
    for dataset in given:
        read(dataset, dataset / "read.npz", sys.argv[1])
        edit(dataset, dataset.with_name(dataset.name + "-edited"))
