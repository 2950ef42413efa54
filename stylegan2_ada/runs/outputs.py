"""Where results go, checked before the work that makes them."""

import os
import tempfile
from collections.abc import Iterable


def check_directory(path: str) -> str:
    """The path itself, if files can be written there; folders that are missing are made later. OSError if not."""
    existing = os.path.abspath(path)
    while not os.path.lexists(existing):
        existing = os.path.dirname(existing)
    if not os.path.isdir(existing):
        raise NotADirectoryError(f"{existing} is a file; name a folder")
    try:
        with tempfile.TemporaryDirectory(dir=existing):
            pass
    except OSError as error:
        raise OSError(f"{existing} cannot be written to ({error.strerror}); name another folder") from error
    return path


def check_file(path: str, endings: Iterable[str] = ()) -> str:
    """The path itself, if a file can be written there that ends in one of `endings`. OSError or ValueError if not."""
    endings = list(endings)
    if endings and os.path.splitext(path)[1].lower() not in endings:
        raise ValueError(f"{path} must end in {' or '.join(filter(None, [', '.join(endings[:-1]), endings[-1]]))}")
    if os.path.isdir(path) or path.endswith(os.sep):
        raise IsADirectoryError(f"{path} is a folder; name a file in it")
    check_directory(os.path.dirname(os.path.abspath(path)))
    return path


def check_inputs_stay(inputs: Iterable[str], outputs: Iterable[str]) -> None:
    """ValueError if a result would be written over one of the files that it is made from."""
    inputs = {os.path.realpath(path): path for path in inputs}
    for path in map(os.path.realpath, outputs):
        if path in inputs:
            raise ValueError(f"{inputs[path]} would be overwritten; name another place")
