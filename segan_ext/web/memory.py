"""Memory that images do not need any more goes back to the system.

glibc keeps what is freed, in an arena for each of a few threads, in case they ask for it again. The page computes in
many threads, one at a time: each would keep what the largest image took.
"""

import ctypes
import sys
import threading
import time
from collections.abc import Callable

_ARENA_MAX, _ARENAS = -8, 2  # glibc's M_ARENA_MAX


def give_back(seconds: float = 5.0) -> None:
    """From now on this process has two arenas at most, and trims them when it has been idle for so many seconds.

    Does nothing on systems without glibc. Call it before other threads are started.
    """
    libc = ctypes.CDLL(None) if sys.platform == "linux" else None
    if hasattr(libc, "mallopt") and hasattr(libc, "malloc_trim"):
        libc.mallopt(_ARENA_MAX, _ARENAS)
        threading.Thread(target=_trim_when_idle, args=(libc.malloc_trim, seconds), daemon=True).start()


def _trim_when_idle(trim: Callable[[int], int], seconds: float) -> None:
    used, trimmed = 0.0, 0.0  # seconds of processor time
    while True:
        time.sleep(seconds)
        before, used = used, time.process_time()
        if used - before < 0.1 * seconds and used - trimmed > 0.2:
            trim(0)
            trimmed = time.process_time()
