"""What `sop learn` needs, small enough for a step to take milliseconds."""

import dataclasses
import json
import os
import pathlib
import subprocess
import sys

import jax

from configs.experiment import LearningConfig
from configs.files import to_json
from configs.registry import DEMOS
from sop_jax.algorithms.behaviour_cloning import BehaviourCloningConfig
from sop_jax.episodes.store import EpisodeStore
from sop_jax.episodes.synthetic import make_episode
from sop_jax.learner.config import LearnerConfig, MeshConfig
from sop_jax.models.bundle import PolicyBundle
from sop_jax.models.compact import CompactConfig
from sop_jax.models.normalization import compute_norm_stats
from sop_jax.models.registry import create_model
from sop_jax.sampling.loader import LoaderConfig
from sop_jax.specs.records import NO_POLICY, Source

SMALL = CompactConfig(
    cameras=("head",), image_size=16, head_width=32, camera_features=8, patch_width=16, patch_features=4, text_width=8
)  # fmt: skip


def make_folder(folder: pathlib.Path, publish_every: int = 10**6) -> pathlib.Path:
    """Puts a store with two fake demonstrations, a small policy, and a config for both into `folder`."""
    store = EpisodeStore(f"file://{folder}/store/")
    episodes = [
        make_episode(seed, 40, robot_id="demonstrator-0", source=Source.OFFLINE, policy_version=NO_POLICY)
        for seed in (0, 1)
    ]
    for episode in episodes:
        store.put(episode)
    params = create_model(SMALL).init_params(jax.random.key(0))
    norm = compute_norm_stats([episode.arrays for episode in episodes], SMALL.horizon)
    PolicyBundle(SMALL, params, norm).save(folder / "policy")
    learner = LearnerConfig(
        num_steps=10**6,
        batch_size=8,
        publish_every=publish_every,
        checkpoint_every=10**6,
        log_every=2,
        mesh=MeshConfig(data=1),
    )
    learning = LearningConfig(
        BehaviourCloningConfig(), learner, LoaderConfig(batch_size=8), min_online_items=0, niceness=0
    )
    demo = dataclasses.replace(DEMOS["restock_tiny"], policy=str(folder / "policy"), learning=learning)
    (folder / "config.json").write_text(json.dumps(to_json(demo)))
    return folder


def command(folder: pathlib.Path) -> list[str]:
    """`sop learn` on what `make_folder` made."""
    return ["learn", "--store", f"file://{folder}/store/", "--replay", "local", "--config", str(folder / "config.json"),
            "--checkpoints", str(folder / "checkpoints"), "--metrics", str(folder / "metrics"),
            "--demonstrations-only", "--json"]  # fmt: skip


def start_process(folder: pathlib.Path) -> subprocess.Popen[str]:
    """`sop learn` as a process of its own, whose output is a pipe."""
    return subprocess.Popen(
        [sys.executable, "-m", "sop_jax.cli.main", *command(folder)],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path), "XLA_FLAGS": ""},
    )
