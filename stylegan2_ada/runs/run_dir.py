"""A run's directory: held by one process at a time, swept, and cut back to the state that a run goes on from."""

import contextlib
import errno
import json
import os
import re
import socket
import time
from typing import Any

from snapshots.atomic import write_atomically

try:
    import fcntl
except ImportError:  # Windows
    fcntl = None

_LONG = 3600  # seconds; calc_metrics may be writing a file of metrics, which takes it less
_held = []  # open files; closing one would let go of its directory


def hold(run_dir: str) -> None:
    """Takes a run's directory for this process, to its end, and removes what killed writes have left there.

    ValueError if another process has it. The lock goes with the process, however that ends, and is not inherited.
    """
    file = open(os.path.join(run_dir, "run.lock"), "a+", encoding="utf-8")
    try:
        if fcntl is not None:
            fcntl.lockf(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        if error.errno in (errno.EACCES, errno.EAGAIN):
            file.seek(0)
            raise ValueError(f"{run_dir} is being trained by {file.read().strip() or 'another process'}") from error
    _held.append(file)  # where a file system knows no locks, without one
    file.truncate(0)
    file.write(f"process {os.getpid()} on {socket.gethostname()}\n")
    file.flush()
    for name in os.listdir(run_dir):
        path = os.path.join(run_dir, name)
        with contextlib.suppress(FileNotFoundError):  # calc_metrics has renamed it
            if name.endswith(".tmp") and not (name.startswith("metric-") and _is_new(path)):
                os.remove(path)


def _is_new(path):
    return time.time() - os.path.getmtime(path) < _LONG


def cut_back(run_dir: str, saved: dict[str, Any]) -> None:
    """Takes from log and metrics what came after a saved state (`training.state.read`), and will come again."""
    log, counters = os.path.join(run_dir, "log.txt"), saved["counters"]
    if os.path.exists(log):
        os.truncate(log, min(counters["log_bytes"], os.path.getsize(log)))
    for name in metric_sizes(run_dir):
        _keep_lines(os.path.join(run_dir, name), counters["cur_nimg"] // 1000)


def metric_sizes(run_dir: str) -> dict[str, int]:
    """The files of metrics in a run's directory, and how long they are"""
    names = sorted(name for name in os.listdir(run_dir) if re.fullmatch(r"metric-.*\.jsonl", name))
    return {name: os.path.getsize(os.path.join(run_dir, name)) for name in names}


def _keep_lines(path, kimg):
    """Drops lines about snapshots after so many kimg, and a line that was never finished."""
    with open(path, "rb") as file:
        lines = file.read().splitlines(keepends=True)
    kept = [line for line in lines if line.endswith(b"\n") and _kimg_of(line) <= kimg]
    if len(kept) < len(lines):
        write_atomically(path, lambda file: file.writelines(kept))


def _kimg_of(line):
    """Of the snapshot that a line of a metric is about; 0 for another line"""
    try:
        return int(re.fullmatch(r"network-snapshot-(\d+)\.pkl", json.loads(line)["snapshot_pkl"])[1])
    except (ValueError, TypeError, KeyError):
        return 0
