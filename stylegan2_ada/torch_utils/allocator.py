"""One setting of the C library that CPU training depends on."""

import ctypes
import os
import sys

# Parameter numbers of glibc's mallopt, from malloc.h.
_M_TRIM_THRESHOLD, _M_MMAP_THRESHOLD, _M_MMAP_MAX = -1, -3, -4


def keep_large_blocks() -> bool:
    """Lets glibc keep freed blocks instead of handing them back to the kernel; True where that took effect.

    A training step frees and allocates the same tensors of some ten MB again and again. By default glibc gets each of
    them as fresh pages that must be zeroed and faulted in, which costs a third of the step. `MALLOC_*` variables that
    the user has set win. Other platforms are left alone.
    """
    if not sys.platform.startswith("linux") or any(name.startswith("MALLOC_") for name in os.environ):
        return False
    try:
        mallopt = ctypes.CDLL(None).mallopt
    except (OSError, AttributeError):  # musl has no mallopt
        return False
    # Older glibc refuses thresholds above 32 MB; there, no block is mapped on its own at all.
    large = mallopt(_M_MMAP_THRESHOLD, 2**30) or mallopt(_M_MMAP_MAX, 0)
    return bool(large and mallopt(_M_TRIM_THRESHOLD, 2**31 - 1))
