"""Memory of the full-size pi0.5 train step on each of 8 devices, as the compiler says; nothing is allocated.

    python -m benchmarks.full_size_memory --json
    python -m benchmarks.full_size_memory --rows 256:4:dots 512:8:full

The step is compiled ahead of time from abstract shapes for a mesh of 8 devices (fsdp=8): 3.35 B parameters, language model
frozen in bfloat16, 844.9 M trained in float32 with Adam's moments and average, three cameras of 224 pixels, prompts of 200
tokens. Per row (batch size over all devices : accumulate_steps : remat): arguments, temporaries, output, what of the output
takes the place of arguments (donated), and their total, which is the peak; beside it what `sop doctor` estimates.
ours = that total in the first row, peer = the limit (80 GiB of device memory), ratio = ours / peer.

The CPU's compiler answers unless JAX_PLATFORMS names an accelerator of which 8 are at hand. Its temporaries are an indication
for GPUs and TPUs, mostly an upper one: it computes bfloat16 in float32, and fuses less.
"""

import argparse
import dataclasses
import json
import os
import time
from typing import Any

os.environ.setdefault("JAX_PLATFORMS", "cpu")
os.environ.setdefault("XLA_FLAGS", "--xla_force_host_platform_device_count=8")

import jax

from sop_jax.algorithms.registry import create_algorithm
from sop_jax.learner.config import LearnerConfig, MeshConfig
from sop_jax.learner.memory import estimate_memory
from sop_jax.learner.optimizer import make_optimizer
from sop_jax.learner.remat import with_remat
from sop_jax.learner.shapes import abstract_batch, example_norm, stored_params
from sop_jax.learner.sharding import make_mesh
from sop_jax.learner.state import init_state
from sop_jax.learner.train_step import compile_step
from sop_jax.models.pi05.config import FULL
from sop_jax.models.policy import PolicyModel
from sop_jax.models.registry import create_model
from sop_jax.weights.partition import split_params

NUM_DEVICES = 8
LIMIT_BYTES = 80 * 2**30
PROMPT_TOKENS = 200
DEFAULT_ROWS = ("32:1:full", "64:1:full", "256:8:full", "256:1:full", "32:1:dots", "256:8:dots")


@dataclasses.dataclass(frozen=True)
class Row:
    """One configuration of the table."""

    batch_size: int
    accumulate_steps: int
    remat: str

    @classmethod
    def parse(cls, text: str) -> "Row":
        batch_size, accumulate_steps, remat = text.split(":")
        return cls(int(batch_size), int(accumulate_steps), remat)


def full_model() -> PolicyModel:
    """The full preset; prompts have openpi's 200 tokens, and need no vocabulary file."""
    config = dataclasses.replace(FULL, tokenizer="hash", max_tokens=PROMPT_TOKENS - FULL.state_dim)
    return create_model(config)


def learner_config(row: Row, fsdp: int = NUM_DEVICES) -> LearnerConfig:
    return LearnerConfig(
        batch_size=row.batch_size,
        accumulate_steps=row.accumulate_steps,
        remat=row.remat,  # pyright: ignore[reportArgumentType]
        ema_decay=0.99,
        mesh=MeshConfig(fsdp=fsdp),
    )


def compile_row(model: PolicyModel, row: Row, num_devices: int = NUM_DEVICES) -> Any:
    """The compiled step of this row for a mesh of `num_devices` with fsdp over all of them."""
    config = learner_config(row, num_devices)
    mesh = make_mesh(config.mesh, jax.devices()[:num_devices])
    trained, frozen = split_params(stored_params(model), model.is_trained)
    state = jax.eval_shape(lambda: init_state(zeros_like(trained), make_optimizer(config), config.ema_decay))
    batch = abstract_batch(model, model.config.vision.image_size, row.batch_size)
    algorithm = create_algorithm("hg_dagger")
    step = compile_step(with_remat(model, config.remat), algorithm, config, mesh, state, frozen)
    return step.lower(state, frozen, example_norm(model), batch).compile()  # pyright: ignore[reportFunctionMemberAccess]


def zeros_like(tree: Any) -> Any:
    """Called under `jax.eval_shape` only."""
    return jax.tree.map(lambda leaf: jax.numpy.zeros(leaf.shape, leaf.dtype), tree)


def measure_row(model: PolicyModel, row: Row) -> dict[str, Any]:
    """Bytes on each device, from the compiler and from the estimate."""
    started_s = time.perf_counter()
    stats = compile_row(model, row).memory_analysis()
    total = (
        stats.argument_size_in_bytes + stats.temp_size_in_bytes + stats.output_size_in_bytes - stats.alias_size_in_bytes
    )
    estimate = estimate_memory(
        model, stored_params(model), learner_config(row), model.config.vision.image_size, NUM_DEVICES
    )
    return {
        **dataclasses.asdict(row),
        "argument_bytes": stats.argument_size_in_bytes,
        "temp_bytes": stats.temp_size_in_bytes,
        "output_bytes": stats.output_size_in_bytes,
        "alias_bytes": stats.alias_size_in_bytes,
        "total_bytes": total,
        "share_of_limit": round(total / LIMIT_BYTES, 3),
        "estimated_bytes": estimate.total,
        "compile_s": round(time.perf_counter() - started_s, 1),
    }


def measure(rows: list[Row]) -> dict[str, Any]:
    model = full_model()
    table = []
    for row in rows:
        table.append(measure_row(model, row))
        print(json.dumps(table[-1]), flush=True)
    return {
        "name": "full_size_memory",
        "ours": table[0]["total_bytes"],
        "peer": LIMIT_BYTES,
        "ratio": table[0]["share_of_limit"],
        "units": "bytes on each of 8 devices, first row (peer: the limit, 80 GiB)",
        "rows": table,
        "compiler": f"jax {jax.__version__} for {jax.devices()[0].platform}",
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--json", action="store_true", help="print one JSON object as the last line (always done)")
    parser.add_argument(
        "--rows", nargs="+", default=list(DEFAULT_ROWS), help="BATCH:ACCUMULATE:REMAT (default: %(default)s)"
    )
    arguments = parser.parse_args()
    print(json.dumps(measure([Row.parse(text) for text in arguments.rows])))


if __name__ == "__main__":
    main()
