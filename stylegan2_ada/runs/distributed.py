"""Several processes that train as one: torchrun starts them, on one machine or many, or --gpus does, on this one.

The first reads the command line, opens data and networks and makes the run's directory; then it tells the others their
job, the arguments of the training loop, or with which status all of them end.
"""

import contextlib
import importlib
import os
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import torch

from runs import processes
from runs.failures import LOST, MACHINE_ERRORS, Diverged, machine_failure

_MEETING = "SEGAN_MEETING"  # the file where processes that --gpus started find each other
_FIRST = "SEGAN_FIRST"  # the id of the process that started them
_GRACE = 30  # seconds in which the first process should have noticed by itself that another one has ended
_told = False  # whether the others have got a job


def run(command: Callable[[], Any]) -> None:
    """Calls a command; of several processes the first one does, and the others do the job that it tells, and end.

    SystemExit where the command raises it.
    """
    size = int(os.environ.get("WORLD_SIZE", 1))
    if size == 1:
        if torch.distributed.is_torchelastic_launched():
            processes.open_store()
        command()
        return
    meeting = os.environ.get(_MEETING)
    if int(os.environ["RANK"]) > 0:
        _end_with(int(os.environ.get(_FIRST, os.getppid())))
    processes.join(*((f"file://{meeting}", int(os.environ["RANK"]), size) if meeting else ()))
    if processes.rank() > 0:
        _end(_follow())
    status = 1
    try:
        command()
        status = 0
    except SystemExit as done:
        status = done.code if isinstance(done.code, int) else int(bool(done.code))
        raise
    finally:
        if not _told:
            processes.told(status)


def _follow():
    """Does what the first process tells; the status to end with."""
    job = processes.told()
    if not isinstance(job, dict):
        return job
    for module in job["modules"]:
        importlib.import_module(module)
    try:
        with stoppable() as asked:
            _train(job["args"], abort_fn=asked)
    except MACHINE_ERRORS as error:
        reason = machine_failure(error)
        if reason is None:
            raise
        if reason != LOST and not isinstance(error, Diverged):  # of these the first process says enough
            print(f"Error: process {processes.rank()}: {reason}", file=sys.stderr)
        return 1
    processes.leave()
    return 0


def _end(status):
    """Ends this process at once: taking Python apart would wait for the others, and gloo's threads may abort it."""
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(status)


def lead(args: dict[str, Any], modules: Sequence[str], **opened: Any) -> None:
    """Trains, with as many processes as args["num_gpus"] says; those that are not there yet are started.

    args: of `training_loop`. modules: what the others have to import first. opened: arguments that stay here.
    """
    global _told
    with contextlib.ExitStack() as stack:
        if args["num_gpus"] > processes.count():
            stack.enter_context(_others(args["num_gpus"]))
        processes.told(dict(args=args, modules=list(modules)))
        _told = True
        _train(args, **opened)
    processes.leave()


def _train(args, **own):
    from training.training_loop import training_loop  # of the host that is in use

    training_loop(**args, rank=processes.rank(), **own)


@contextlib.contextmanager
def _others(count):
    """Starts all processes but this one, which becomes the first. They end with it, and it with them."""
    with tempfile.TemporaryDirectory() as folder:
        meeting = os.path.join(folder, "meeting")
        threads = max(torch.get_num_threads() // count, 1)
        os.environ["LOCAL_WORLD_SIZE"] = str(count)
        path = os.pathsep.join(path or os.getcwd() for path in sys.path)
        env = os.environ | {"PYTHONPATH": path, "OMP_NUM_THREADS": str(threads), "WORLD_SIZE": str(count)}
        command = [sys.executable, "-c", "from runs import distributed; distributed.run(None)"]
        others = []
        try:
            for rank in range(1, count):
                which = {_MEETING: meeting, _FIRST: str(os.getpid()), "RANK": str(rank), "LOCAL_RANK": str(rank)}
                others.append(subprocess.Popen(command, env=env | which))
            threading.Thread(target=_end_after, args=(others,), daemon=True).start()
            torch.set_num_threads(threads)
            processes.join(f"file://{meeting}", 0, count)
            yield
        except BaseException:
            for other in others:
                other.kill()
            raise
        for other in others:
            other.wait()


def _end_after(others):
    """Ends this process some time after one of the others has failed: it may be waiting for that one for ever."""
    while not any(other.poll() for other in others):
        time.sleep(1)
    time.sleep(_GRACE)
    print(f"Error: {LOST}; --resume continues from the newest state.", file=sys.stderr, flush=True)
    os._exit(1)


def _end_with(parent):
    """Ends this process when the one with that id, which started it, has gone."""

    def watch():
        while os.getppid() == parent:
            time.sleep(1)
        os._exit(1)

    threading.Thread(target=watch, daemon=True).start()


@contextlib.contextmanager
def stoppable() -> Iterator[Callable[[], bool]]:
    """A function that says whether Ctrl-C or SIGTERM has come; a second one stops at once."""
    came = []

    def handler(number, _frame):
        if came:
            sys.exit(128 + number)
        came.append(number)
        if processes.rank() == 0:
            print("Stopping after this step; once more stops at once.")

    signals = (signal.SIGINT, signal.SIGTERM)
    before = {number: signal.signal(number, handler) for number in signals}
    try:
        yield lambda: bool(came)
    finally:
        for number, old in before.items():
            signal.signal(number, old)
