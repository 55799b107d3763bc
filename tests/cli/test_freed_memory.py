import os
import subprocess
import sys

import pytest

from sop_jax.cli.freed_memory import keep_freed_memory

FAULTS = """
import resource, sys
import numpy as np
from sop_jax.cli.freed_memory import keep_freed_memory
if sys.argv[1] == "kept":
    assert keep_freed_memory()
for turn in range(2):
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    for _ in range(100):
        parts = [np.ones(3_000_000, np.uint8) for _ in range(4)]
        del parts
print(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)
"""


def faults(how):
    """Pages that 100 times four arrays of 3 MB cost once the process has had as much memory before."""
    clean = {name: value for name, value in os.environ.items() if not name.startswith("MALLOC_")}
    done = subprocess.run([sys.executable, "-c", FAULTS, how], env=clean, capture_output=True, text=True, check=True)
    return int(done.stdout)


@pytest.mark.skipif(sys.platform != "linux", reason="glibc's")
def test_freed_memory_comes_back_without_new_pages():
    given_back, kept = faults("given back"), faults("kept")
    assert given_back > 50_000  # of about 290,000
    assert kept < 3_000


def test_the_environment_has_the_last_word(monkeypatch):
    monkeypatch.setenv("MALLOC_TRIM_THRESHOLD_", "1000")
    monkeypatch.delenv("MALLOC_MMAP_THRESHOLD_", raising=False)
    assert keep_freed_memory()
    assert "MALLOC_MMAP_THRESHOLD_" not in os.environ
