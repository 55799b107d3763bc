import os
import pathlib
import time

import numpy as np
import pytest
from tiny_weights import make_params

from sop_jax.weights import orbax_files
from sop_jax.weights.orbax_files import count_bytes, staging_directory


def test_bytes_are_counted():
    assert count_bytes(make_params(0)) == 12 * 4 + 4 * 2 + 4


@pytest.mark.parametrize("num_bytes", [0, 2**60])
def test_staging_uses_memory_only_where_there_is_plenty(tmp_path, monkeypatch, num_bytes):
    memory, disk = tmp_path / "memory", tmp_path / "disk"
    memory.mkdir(), disk.mkdir()
    monkeypatch.setattr(orbax_files, "_MEMORY_DISK", memory)
    monkeypatch.setattr(orbax_files.tempfile, "tempdir", str(disk))
    with staging_directory(num_bytes) as staging:
        assert pathlib.Path(staging).parent == (memory if num_bytes == 0 else disk)
    assert not pathlib.Path(staging).exists()


def test_what_killed_processes_left_is_removed_once_old(tmp_path, monkeypatch):
    monkeypatch.setattr(orbax_files, "_MEMORY_DISK", tmp_path)
    old, young, foreign = tmp_path / "sop-weights-old", tmp_path / "sop-weights-young", tmp_path / "other"
    for directory in (old, young, foreign):
        directory.mkdir()
        np.save(directory / "x.npy", np.zeros(3))
    for directory in (old, foreign):
        os.utime(directory, (time.time() - 7200, time.time() - 7200))
    with staging_directory(0):
        assert not old.exists()
        assert young.exists()
        assert foreign.exists()
