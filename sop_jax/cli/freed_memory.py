"""Keeps the memory that was freed for the next request.

By default glibc gives freed memory of more than a few hundred KB back to the system, which hands it out again page by page
and zeroed. Batches, images and messages are made and freed all the time: on two virtual cores a learner step of the compact
policy took a tenth longer for it, and reading items of 45 KB from a replay server half as long again. It costs up to
`KEPT_BYTES` more than a process needs.
"""

import ctypes
import os

KEPT_BYTES = 256 << 20
_LARGEST_ON_HEAP_BYTES = 32 << 20  # larger requests have pages of their own, as by default; glibc allows no more
_TRIM_THRESHOLD, _MMAP_THRESHOLD = -1, -3  # glibc's numbers for mallopt
_VARIABLES = {"MALLOC_TRIM_THRESHOLD_": KEPT_BYTES, "MALLOC_MMAP_THRESHOLD_": _LARGEST_ON_HEAP_BYTES}


def keep_freed_memory() -> bool:
    """For this process and those that it starts, unless the environment says otherwise; False where there is no glibc."""
    if any(name in os.environ for name in _VARIABLES):
        return True
    try:
        mallopt = ctypes.CDLL(None).mallopt
    except (AttributeError, OSError, TypeError):  # musl, macOS, Windows
        return False
    os.environ.update({name: str(value) for name, value in _VARIABLES.items()})
    return bool(mallopt(_TRIM_THRESHOLD, KEPT_BYTES) and mallopt(_MMAP_THRESHOLD, _LARGEST_ON_HEAP_BYTES))
