"""Files that are whole or not there."""

import os


def write_atomically(path, write):
    """Calls `write(file)` on a temporary file beside `path` and renames it, so that `path` is never half-written."""
    temp = f"{path}.tmp"
    try:
        with open(temp, "wb") as file:
            write(file)
            file.flush()
            os.fsync(file.fileno())
        os.replace(temp, path)
    except BaseException:
        if os.path.exists(temp):
            os.remove(temp)
        raise
