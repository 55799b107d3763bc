"""One host of a learner, as a process: `python host_process.py DIRECTORY COORDINATOR NUM_PROCESSES PROCESS_ID`.

Trains NUM_STEPS steps, writes what it knows to DIRECTORY, then goes on until it is told to stop.
"""

import dataclasses
import json
import pathlib
import sys

import jax
import numpy as np
from linear_policy import CONFIG, MODEL, NORM, make_batches

from sop_jax.algorithms.registry import create_algorithm
from sop_jax.cli.stopping import StopRequests
from sop_jax.learner.config import LearnerConfig, MeshConfig
from sop_jax.learner.hosts import join_hosts, told_by_first
from sop_jax.learner.learner import Learner
from sop_jax.sampling.adaptive import AdaptiveSampler, SamplerConfig
from sop_jax.sampling.batch_source import LoadedBatch, never
from sop_jax.specs.clock import WallClock
from sop_jax.specs.metrics import MemoryMetrics
from sop_jax.weights.publisher import Publisher

NUM_STEPS = 4
TASKS = ("fold", "stock")
LEARNER = dataclasses.replace(
    CONFIG,
    batch_size=16,
    accumulate_steps=2,
    num_steps=10**6,
    checkpoint_every=10**6,
    mesh=MeshConfig(data=2, fsdp=2, min_sharded_bytes=0),
)


class HostBatches:
    """This host's rows of the batches that one host would have; a real sampler hears the losses."""

    def __init__(self, config: LearnerConfig, process_id: int, num_processes: int):
        self._whole = make_batches(config.batch_size, TASKS)
        num = config.batch_size // num_processes
        self._rows = slice(process_id * num, (process_id + 1) * num)
        self.sampler = AdaptiveSampler(SamplerConfig(min_losses=1), TASKS)
        self.recorded: list[np.ndarray] = []

    def next(self, should_stop=never) -> LoadedBatch:
        del should_stop  # it never waits
        whole, rows = self._whole.next(), self._rows
        fields = {field.name: getattr(whole, field.name) for field in dataclasses.fields(whole)}
        own = {name: value[rows] for name, value in fields.items() if name not in ("batch", "wait_s")}
        own["episode_ids"] = tuple(f"robot.{0:020d}.{i:06d}" for i in range(rows.start, rows.stop))
        return LoadedBatch(batch=jax.tree.map(lambda leaf: leaf[rows], whole.batch), **own)

    def record_losses(self, draws, per_example) -> None:
        self.recorded.append(np.array(per_example))
        self.sampler.record(draws, per_example)

    def wait_share(self) -> float:
        return 0.0

    def state_dict(self):
        return {"sampler": self.sampler.state_dict(), "whole": self._whole.state_dict()}

    def load_state(self, state) -> None:
        self._whole.load_state(state["whole"])
        self.sampler.load_state(state["sampler"])

    def stop(self) -> None: ...


def make_learner(directory: pathlib.Path, process_id: int, num_processes: int):
    """(learner, its batches, its metrics)."""
    batches, metrics, clock = HostBatches(LEARNER, process_id, num_processes), MemoryMetrics(), WallClock()
    learner = Learner(
        LEARNER, MODEL, create_algorithm("behaviour_cloning"), jax.device_get(MODEL.init_params(jax.random.key(1))), NORM,
        batches, Publisher(directory / "store", "b", "n", clock), metrics, clock, directory / "checkpoints",
    )  # fmt: skip
    return learner, batches, metrics


def report(directory: pathlib.Path, name: str, learner: Learner, batches: HostBatches, metrics: MemoryMetrics) -> None:
    """Everything that must agree between hosts, and with a learner on one host."""
    kernels = {"encoder": learner.policy_params()["encoder"]["kernel"], "mlp": learner.policy_params()["mlp"]["linear"]}
    np.savez(directory / f"{name}.npz", losses=np.stack(batches.recorded), **kernels)
    content = {
        "sampler": batches.sampler.state_dict(),
        "told": told_by_first((7 + jax.process_index(), 2)),
        "published": sum(event["event"] == "publication" for event in metrics.events),
        "first_use": sorted(event["episode_id"] for event in metrics.events if event["event"] == "first_use"),
        "shards": sorted({shard.data.shape for shard in learner._state.params["encoder"]["kernel"].addressable_shards}),
    }
    (directory / f"{name}.json").write_text(json.dumps(content))


def main() -> None:
    directory, process_id, num_processes = pathlib.Path(sys.argv[1]), int(sys.argv[4]), int(sys.argv[3])
    join_hosts(sys.argv[2], num_processes, process_id)
    with StopRequests() as stop:
        learner, batches, metrics = make_learner(directory, process_id, num_processes)
        learner.run(NUM_STEPS)
        report(directory, f"host{process_id}", learner, batches, metrics)
        print("trained", flush=True)
        summary = learner.run(should_stop=stop)
        learner.close()
    print(f"stopped after step {summary.step}, asked by {stop.signal}", flush=True)


if __name__ == "__main__":
    main()
