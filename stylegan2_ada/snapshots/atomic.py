"""Files, and lines of them, that are whole or not there."""

import contextlib
import os
import uuid
from collections.abc import Callable
from typing import Any, BinaryIO

_LONGEST = 1 << 20  # bytes of a line


def write_atomically(path: str | os.PathLike, write: Callable[[BinaryIO], Any]) -> None:
    """Calls `write(file)` on a temporary file beside `path` and renames it, so that `path` is never half-written.

    Several processes may write the same path: the last one wins. OSError, which names the path, for a full disk.
    """
    temp = f"{os.fspath(path)}.{uuid.uuid4().hex[:8]}.tmp"
    try:
        with open(temp, "xb") as file:
            write(file)
            file.flush()
            os.fsync(file.fileno())
        os.replace(temp, path)
        _sync_folder(path)
    except BaseException as error:
        with contextlib.suppress(OSError):
            os.remove(temp)
        # PyTorch's zip writer turns the disk's error into a RuntimeError about positions.
        cause = error.__context__ if isinstance(error, RuntimeError) else error
        if isinstance(cause, OSError) and cause.errno is not None and cause.filename in (None, temp):
            raise OSError(cause.errno, cause.strerror, os.fspath(path)) from error
        raise


def append_line(path: str | os.PathLike, line: str) -> None:
    """Adds a line to a file, after its last whole one: half a line, which a killed process has left, is dropped."""
    with open(path, "a+b") as file:
        size = file.tell()
        start = max(size - _LONGEST, 0)
        file.seek(start)
        end = file.read().rfind(b"\n") + 1
        if size and (end or not start):  # a longer line is none of ours
            file.truncate(start + end)
        file.write(line.encode() + b"\n")
        file.flush()
        os.fsync(file.fileno())


def _sync_folder(path):
    """Until its folder is written, a new name may be lost with the power."""
    if os.name == "posix":
        folder = os.open(os.path.dirname(os.path.abspath(path)), os.O_RDONLY)
        try:
            os.fsync(folder)
        finally:
            os.close(folder)
