"""A robot killed at any moment: finished episodes survive, half-written ones never show."""

import pathlib
import random
import signal
import subprocess
import sys
import time

from sop_jax.actors.spool import Spool
from sop_jax.episodes.store import EpisodeStore
from sop_jax.episodes.verify import verify_bytes
from sop_jax.specs.clock import WallClock

VICTIM = pathlib.Path(__file__).with_name("kill_victim.py")
ROOT = pathlib.Path(__file__).parents[2]


def test_kill_9(tmp_path, store_url):
    directory = tmp_path / "spool"
    rng = random.Random(0)
    process = subprocess.Popen(
        [sys.executable, str(VICTIM), str(directory)],
        stdout=subprocess.PIPE,
        text=True,
        cwd=ROOT,
        env={"PYTHONPATH": str(ROOT), "PATH": "/usr/bin:/bin"},
    )
    assert process.stdout is not None
    told = [process.stdout.readline().strip() for _ in range(5)]
    time.sleep(rng.uniform(0.05, 0.2))
    process.send_signal(signal.SIGKILL)
    told += [line.strip() for line in process.stdout.read().splitlines() if line.endswith(("0", *"123456789"))]
    process.stdout.close()
    assert process.wait(10) == -signal.SIGKILL
    told = [line for line in told if len(line) == len(told[0])]

    spool = Spool(directory, store := EpisodeStore(store_url), WallClock())
    assert spool.num_pending >= len(told)
    assert spool.drain(60.0)
    spool.close()
    stored = [path.rpartition("/")[2].removesuffix(".zip") for path in store.list_paths()]
    assert set(told) <= set(stored)
    assert len(stored) <= len(told) + 1  # At most one was durable, but not told yet.
    for path in store.list_paths():
        verify_bytes(store.read_bytes(path), path, decode_all_images=True)
    left = sorted(path.name for path in directory.iterdir())
    assert left in (["lock"], ["lock", "set_aside"])
