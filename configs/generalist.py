"""`generalist_compact` and `generalist_few`: one small policy for all three kinds of work.

Demonstrations are given by number and not by time: a T-shirt takes fifteen times as long to fold as an item to shelve, and
as many examples of each start are wanted.
"""

import dataclasses

from configs import restock_pretrain
from configs.experiment import DemonstrationsConfig
from sop_jax.evaluation.world import WorldConfig

TASKS = ("restock_shelf", "laundry_fold", "box_assembly")

PRETRAIN = dataclasses.replace(
    restock_pretrain.CONFIG,
    name="generalist_compact",
    model="compact_central",  # why: a flap wants a steady press (docs/models.md, noise of sampling)
    world=WorldConfig(image_size=64),
    tasks=TASKS,
    demonstrations=DemonstrationsConfig(
        num_by_task={"restock_shelf": 1000, "laundry_fold": 144, "box_assembly": 1000}, num_collectors=16, seed=0
    ),
    learning=dataclasses.replace(
        restock_pretrain.CONFIG.learning,
        learner=dataclasses.replace(restock_pretrain.CONFIG.learning.learner, num_steps=24_000, batch_size=128),
        loader=dataclasses.replace(
            restock_pretrain.CONFIG.learning.loader,
            batch_size=128,
            num_threads=6,
            prefetch_batches=6,
            pixel_cache_bytes=40 << 30,  # why: every frame of all demonstrations, decoded once
            arrays_cache_bytes=4 << 30,
        ),
    ),
    evaluation=dataclasses.replace(restock_pretrain.CONFIG.evaluation, num_trials=100),
)
"""For a machine with a GPU, 16 cores and 64 GB: five minutes of demonstrations, five of training (on one H200)."""

FEW = dataclasses.replace(
    PRETRAIN,
    name="generalist_few",
    demonstrations=DemonstrationsConfig(
        num_by_task={"restock_shelf": 450, "laundry_fold": 144, "box_assembly": 1500}, num_collectors=2, seed=0
    ),
    learning=dataclasses.replace(
        PRETRAIN.learning,
        loader=dataclasses.replace(
            PRETRAIN.learning.loader, num_threads=2, prefetch_batches=3, pixel_cache_bytes=12 << 30
        ),
    ),
)
"""Fewer goods shelved, so that the fleet has something to learn there too: the main-results study starts from it. For two
cores and 24 GB: a good hour."""
