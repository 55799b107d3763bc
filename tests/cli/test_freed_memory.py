import os
import subprocess
import sys

import pytest

from sop_jax.cli.freed_memory import keep_freed_memory

FAULTS = """
import resource, sys
from sop_jax.cli.freed_memory import keep_freed_memory
if sys.argv[1] == "kept":
    assert keep_freed_memory()
for turn in range(2):
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    for _ in range(100):
        parts = [b"x" * int(sys.argv[2]) for _ in range(4)]
        del parts
print(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)
"""


def faults(how, num_bytes):
    """Pages that 100 times four arrays of this size cost once the process has had as much memory before."""
    clean = {name: value for name, value in os.environ.items() if not name.startswith("MALLOC_")}
    command = [sys.executable, "-c", FAULTS, how, str(num_bytes)]
    done = subprocess.run(command, env=clean, capture_output=True, text=True, check=True)
    return int(done.stdout)


@pytest.mark.skipif(sys.platform != "linux", reason="glibc's")
@pytest.mark.parametrize("num_bytes", [3_000_000, 50_000_000])  # a batch, and the scratch memory of a step
def test_freed_memory_comes_back_without_new_pages(num_bytes):
    all_pages = 400 * num_bytes / os.sysconf("SC_PAGE_SIZE")
    given_back, kept = faults("given back", num_bytes), faults("kept", num_bytes)
    assert given_back > 0.5 * all_pages  # 99% when it was last looked at
    assert kept < 0.01 * all_pages


def test_the_environment_has_the_last_word(monkeypatch):
    monkeypatch.setenv("MALLOC_TRIM_THRESHOLD_", "1000")
    monkeypatch.delenv("MALLOC_MMAP_THRESHOLD_", raising=False)
    assert keep_freed_memory()
    assert "MALLOC_MMAP_THRESHOLD_" not in os.environ
