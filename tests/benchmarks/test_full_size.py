"""The benchmarks of the full size: their machinery with small models, and the memory budget with the real one."""

import json
import os
import subprocess
import sys

import pytest

from benchmarks import full_size_memory, full_size_speed
from sop_jax.learner.config import LearnerConfig, MeshConfig

GIB = 2**30


def run_module(*words: str) -> subprocess.CompletedProcess:
    environment = {**os.environ, "JAX_PLATFORMS": "cpu", "XLA_FLAGS": "", "PYTHONPATH": os.pathsep.join(sys.path)}
    return subprocess.run([sys.executable, "-m", *words], capture_output=True, text=True, env=environment, timeout=250)


def test_without_an_accelerator_speed_is_refused_in_one_line():
    result = run_module("benchmarks.full_size_speed", "--json")
    assert result.returncode == 1
    assert result.stdout == ""
    (line,) = result.stderr.strip().splitlines()
    assert "JAX sees only CPUs here; nothing was measured" in line
    assert full_size_speed.refuse_without_accelerator(any_device=True) == ""


@pytest.mark.slow
def test_the_speed_benchmark_runs_on_a_small_policy():
    config = LearnerConfig(batch_size=4, accumulate_steps=2, remat="full", ema_decay=0.9, mesh=MeshConfig(data=1))
    found = full_size_speed.measure("pi05_tiny", config, repeats=1, matmul_size=256)
    assert found["ratio"] == pytest.approx(found["ours"] / found["peer"], rel=0.01)
    assert found["samples_per_s"] == pytest.approx(4 / (found["step_ms"] / 1e3), rel=0.01)
    assert found["chunk_ms"] > 0
    assert (found["batch_size"], found["remat"], found["preset"]) == (4, "full", "pi05_tiny")


def test_the_memory_table_has_rows_that_can_be_asked_for():
    rows = [full_size_memory.Row.parse(text) for text in full_size_memory.DEFAULT_ROWS]
    assert full_size_memory.Row(256, 8, "full") in rows
    config = full_size_memory.learner_config(full_size_memory.Row(64, 2, "dots"))
    assert (config.batch_size, config.accumulate_steps, config.remat, config.mesh.fsdp) == (64, 2, "dots", 8)


@pytest.mark.timeout(600)  # half a minute of compiling, on a machine of its own
def test_the_full_step_stays_within_its_budget():
    """Batch 32 on 8 devices, everything recomputed: 7.1 GB on each when it was last measured; the budget is 8 GiB."""
    row = full_size_memory.measure_row(full_size_memory.full_model(), full_size_memory.Row(32, 1, "full"))
    assert row["total_bytes"] < 8 * GIB
    state_bytes = 18.5e9 / 8
    assert row["argument_bytes"] == pytest.approx(state_bytes, rel=0.03)  # split over all devices
    assert row["alias_bytes"] == pytest.approx(13.5e9 / 8, rel=0.03)  # the state is donated: updated where it lies
    assert 0.7 < row["estimated_bytes"] / row["total_bytes"] < 1.3
    print(json.dumps(row))
