"""Keeps the memory that was freed for the next request.

By default glibc gives freed memory of more than a few hundred KB back to the system, which hands it out again page by page
and zeroed. Batches, images, messages and the scratch memory of a compiled step are made and freed all the time: on two
virtual cores a learner step of the compact policy, with 64 MB of scratch, took half as long again for it, and so did reading
items of 45 KB from a replay server. It costs up to `KEPT_BYTES` more than a process needs.
"""

import ctypes
import os

KEPT_BYTES = 256 << 20
"""Kept at the end of the heap, and the largest request that comes from the heap. Larger ones, the weights of a large policy,
have pages of their own, which go back when they are freed."""
_OLD_LARGEST_BYTES = 32 << 20  # all that glibc allows before 2.35
_TRIM_THRESHOLD, _MMAP_THRESHOLD = -1, -3  # glibc's numbers for mallopt
_TRIM_VARIABLE, _MMAP_VARIABLE = "MALLOC_TRIM_THRESHOLD_", "MALLOC_MMAP_THRESHOLD_"


def keep_freed_memory() -> bool:
    """For this process and those that it starts, unless the environment says otherwise; False where there is no glibc."""
    if _TRIM_VARIABLE in os.environ or _MMAP_VARIABLE in os.environ:
        return True
    try:
        mallopt = ctypes.CDLL(None).mallopt
    except (AttributeError, OSError, TypeError):  # musl, macOS, Windows
        return False
    if not mallopt(_TRIM_THRESHOLD, KEPT_BYTES):
        return False
    for largest in (KEPT_BYTES, _OLD_LARGEST_BYTES):
        if mallopt(_MMAP_THRESHOLD, largest):
            os.environ.update({_TRIM_VARIABLE: str(KEPT_BYTES), _MMAP_VARIABLE: str(largest)})
            return True
    return False
