"""What the processes of one training tell each other. A process that trains alone may call all of this too.

Everything but gradients and averages goes over gloo, by the CPU, so that it neither waits for a GPU nor needs one.
"""

import contextlib
import datetime
import os
import time
import uuid
from collections.abc import Callable, Iterable, Iterator
from typing import Any

import torch
import torch.distributed as dist

_PATIENCE = datetime.timedelta(hours=2)  # a lost process is noticed at once; this is for slow work of the first one
_CPU = torch.device("cpu")
_store = None  # where processes met; torchrun's outlives its restarts


def count() -> int:
    """How many train together; 1 for a process that was not joined to others."""
    return dist.get_world_size() if _joined() else 1


def rank() -> int:
    """The number of this one; the first, 0, is the one that speaks, reads files and writes them."""
    return dist.get_rank() if _joined() else 0


def on_this_machine() -> int:
    """How many of them run on this machine; `torchrun` says it."""
    return int(os.environ.get("LOCAL_WORLD_SIZE", 1))


def _joined():
    return dist.is_available() and dist.is_initialized()


def open_store(init_method: str = "env://", rank: int = -1, world_size: int = -1) -> tuple[dist.Store, int, int]:
    """Connects to the store through which processes meet, for `remember`; returns it, the rank and the world size.

    Arguments: those of `torch.distributed.init_process_group`, by default torchrun's.
    """
    global _store
    _store, rank, world_size = next(dist.rendezvous(init_method, rank, world_size, timeout=_PATIENCE))
    while isinstance(_store, dist.PrefixStore):  # of torchrun's restarts, which two machines may count differently
        _store = _store.underlying_store
    return _store, rank, world_size


def join(init_method: str = "env://", rank: int = -1, world_size: int = -1) -> None:
    """Waits for all processes. Arguments as of `open_store`."""
    backend = "cpu:gloo,cuda:nccl" if torch.cuda.is_available() and dist.is_nccl_available() else "gloo"
    store, rank, world_size = open_store(init_method, rank, world_size)
    store = dist.PrefixStore(_attempt(store, rank, world_size), store)
    dist.init_process_group(backend, timeout=_PATIENCE, store=store, rank=rank, world_size=world_size)


def _attempt(store, rank, world_size):
    """A name that those agree on who try to join now.

    After a restart torchrun's store still holds the addresses of processes that have ended. Each of the others says who
    it is, and the first one answers, until it is heard.
    """
    mine = uuid.uuid4().hex
    if rank > 0:
        store.set(f"segan/{rank}", mine)
        name = store.get(f"segan/{mine}").decode()
        store.set(f"segan/{name}/{rank}", "here")
        return name
    waiting = list(range(1, world_size))
    while waiting:
        for other in waiting:
            if store.check([f"segan/{other}"]):
                store.set(f"segan/{store.get(f'segan/{other}').decode()}", mine)
        time.sleep(0.01)
        waiting = [other for other in waiting if not store.check([f"segan/{mine}/{other}"])]
    return mine


def remember(run_dir: str) -> None:
    """Tells torchrun, where that has started these processes, which run they train: its restarts go on with that."""
    if _store is not None:
        _store.set("segan/run", os.path.abspath(run_dir))


def remembered() -> str | None:
    """The run directory of an earlier attempt that torchrun has restarted; None if this is the first that has one."""
    return _store.get("segan/run").decode() if _store is not None and _store.check(["segan/run"]) else None


def leave() -> None:
    """Undoes `join`."""
    if _joined():
        dist.destroy_process_group()


def told(value: Any = None) -> Any:
    """The value that the first process calls this with, in every one; all of them must call it together."""
    if count() == 1:
        return value
    box = [value if rank() == 0 else None]
    dist.broadcast_object_list(box, src=0, device=_CPU)
    return box[0]


def gathered(value: Any) -> list[Any]:
    """The values of all processes, in their order, in every one."""
    if count() == 1:
        return [value]
    values = [None] * count()
    dist.all_gather_object(values, value)
    return values


def any_of_all(flag: bool) -> bool:
    """True where it is true in any process."""
    if count() == 1:
        return flag
    flags = torch.tensor(float(flag))
    dist.all_reduce(flags, dist.ReduceOp.MAX)
    return bool(flags)


class Interrupted(RuntimeError):
    """Work that processes share has ended early in all of them, since one has failed or is asked to stop."""


_asked_to_stop = None  # what `go_on` asks


@contextlib.contextmanager
def interruptible(asked_to_stop: Callable[[], bool]) -> Iterator[None]:
    """Inside, `go_on` raises Interrupted where asked_to_stop() is true in any process."""
    global _asked_to_stop
    before, _asked_to_stop = _asked_to_stop, asked_to_stop
    try:
        yield
    finally:
        _asked_to_stop = before


def go_on(failed: bool = False) -> None:
    """Interrupted, in all processes, where one has failed or is asked to stop; else nothing.

    All must call it together, before anything else in which they wait for each other. One whose part of the work has
    failed calls it once more, with `failed`.
    """
    if any_of_all(failed or (_asked_to_stop is not None and _asked_to_stop())):
        raise Interrupted("the work that processes share was given up")


def take_from_first(tensors: Iterable[torch.Tensor]) -> None:
    """Makes these tensors, in place, those of the first process."""
    if count() > 1:
        for tensor in tensors:
            dist.broadcast(tensor.detach(), src=0)


@torch.no_grad()
def average(tensors: list[torch.Tensor]) -> None:
    """Makes these tensors, in place, the means over all processes; one message for all of one type and device."""
    if count() == 1:
        return
    groups = {}
    for tensor in tensors:
        groups.setdefault((tensor.dtype, tensor.device), []).append(tensor)
    for group in groups.values():
        flat = torch.cat([tensor.flatten() for tensor in group])
        dist.all_reduce(flat)
        flat /= count()
        for tensor, part in zip(group, flat.split([tensor.numel() for tensor in group])):
            tensor.copy_(part.view_as(tensor))


class _Mean(torch.autograd.Function):
    """The mean over processes, whose gradient reaches what each of them put in."""

    @staticmethod
    def forward(ctx, x):
        x = x.clone()
        dist.all_reduce(x)
        return x / count()

    @staticmethod
    def backward(ctx, grad):
        return _Mean.apply(grad)


def mean(x: torch.Tensor) -> torch.Tensor:
    """The mean over all processes of a tensor that each of them holds, with gradients.

    A process's loss should be its part of the loss's mean over processes, as `average` of the gradients makes it.
    """
    return x if count() == 1 else _Mean.apply(x)
