"""`pi05_1gpu`, `pi05_8gpu`, `pi05_tpu`: the learner of the full pi0.5 (3.35 B), on a GPU, a machine of eight, a TPU slice.

The base policy is a directory that `sop weights import` makes of pi0.5's released weights; `--policy` names another. The
optimiser's numbers are those with which openpi fine-tunes pi0.5. `sop doctor --config NAME` says whether a machine is enough.
"""

import dataclasses

from configs.experiment import DemoConfig, FleetConfig, LearningConfig
from sop_jax.algorithms.hg_dagger import HgDaggerConfig
from sop_jax.evaluation.world import WorldConfig
from sop_jax.learner.config import LearnerConfig, MeshConfig
from sop_jax.sampling.loader import LoaderConfig

POLICY = "policies/pi05_base"

_LEARNER = LearnerConfig(
    batch_size=32,  # openpi's default
    num_steps=30_000,  # openpi's default; a run of post-training is usually stopped by hand long before
    learning_rate=2.5e-5,  # openpi's peak
    schedule="constant",  # why: robots send new data for as long as they work, so there is no end to decay towards
    warmup_steps=1000,  # openpi's; the moments start at zero
    adam_b1=0.9,
    adam_b2=0.95,
    weight_decay=1e-10,
    clip_norm=1.0,
    ema_decay=0.99,  # openpi's default: an average over about 100 steps, 4 publications
    publish_every=25,  # SOP's
    checkpoint_every=500,
    keep_checkpoints=2,  # why: a checkpoint of the trained leaves takes 13.5 GB
)

_LOADER = LoaderConfig(
    batch_size=32,
    num_threads=8,  # why: a batch has three JPEGs of 224 pixels for each example
    prefetch_batches=3,
    pixel_cache_bytes=8 << 30,  # why: a frame of three cameras takes 450 KB decoded; 18,000 of them fit
    arrays_cache_bytes=1 << 30,
)

ONE_GPU = DemoConfig(
    name="pi05_1gpu",
    title="pi0.5 learns on one GPU",
    policy=POLICY,
    world=WorldConfig(task="restock_shelf", image_size=224),  # why: what SigLIP reads, so nothing is resized twice
    fleet=FleetConfig(num_robots=4),
    learning=LearningConfig(
        algorithm=HgDaggerConfig(),
        # why: the state takes 18.5 GB and gradients 6.8; a batch of 32 at once would take about 69 GB more for activations
        learner=dataclasses.replace(_LEARNER, accumulate_steps=4, remat="dots"),
        loader=_LOADER,
        niceness=0,  # why: robots are elsewhere
    ),
)
"""One GPU of 80 GB."""

EIGHT_GPUS = dataclasses.replace(
    ONE_GPU,
    name="pi05_8gpu",
    title="pi0.5 learns on eight GPUs",
    learning=dataclasses.replace(
        ONE_GPU.learning,
        learner=dataclasses.replace(
            _LEARNER,
            batch_size=256,  # openpi's on eight H100
            accumulate_steps=4,  # why: 8 examples at a time on each device take about 17 GB of activations
            remat="dots",
            learning_rate=5e-5,  # openpi's at this batch size
            mesh=MeshConfig(data=-1, fsdp=8),  # why: the state takes 3 GB a device so; gathers stay within a machine
        ),
        loader=dataclasses.replace(_LOADER, batch_size=256, num_threads=32, pixel_cache_bytes=64 << 30),
    ),
)
"""One machine with eight GPUs of 80 GB, or several: each machine then holds a copy of the state."""

TPU_SLICE = dataclasses.replace(
    EIGHT_GPUS,
    name="pi05_tpu",
    title="pi0.5 learns on a TPU slice",
    learning=dataclasses.replace(
        EIGHT_GPUS.learning,
        learner=dataclasses.replace(
            EIGHT_GPUS.learning.learner,
            accumulate_steps=4,
            remat="full",  # why: chips have less memory for their speed than GPUs
            mesh=MeshConfig(data=-1, fsdp=16),  # why: gathers stay among 16 chips, however large the slice
        ),
        # why: these are a host's own, and it has few chips; batch_size stays that of all hosts
        loader=dataclasses.replace(_LOADER, batch_size=256, num_threads=16, pixel_cache_bytes=32 << 30),
    ),
)
"""A TPU slice of 16 to 64 chips, of 32 GB or more each (16 GB from 64 chips on); one process a host."""
