"""Statistics gathered from anywhere in the code with `report`, and averaged over time and processes by a `Collector`.

A statistic is a vector of sums over the reported scalars: their count, their sum, the sum of their squares, and the
number of those that were not finite. They count in nothing else, since a single NaN would stay in a sum for ever.
"""

import contextlib
import re
from collections.abc import Iterator
from typing import Any

import numpy as np
import torch

import dnnlib

_NUM_MOMENTS = 4
_rank = 0
_sync_device = None  # where the sums of all processes are added up; None: a single process
_pending = {}  # name → {device → sums not yet added to the totals}
_held_back = None  # sums that are not to be added yet
_totals = {}  # name → sums since the start, over all processes, on the CPU in float64


def init_multiprocessing(rank: int, sync_device: torch.device | None) -> None:
    """Tells this process its rank and the device for collective operations (None for a single process).

    A training begins: what an earlier one in this process has reported is forgotten, and its collectors are of no use.
    """
    global _rank, _sync_device
    _rank = rank
    _sync_device = sync_device
    _pending.clear()
    _totals.clear()


def report(name: str, value: Any) -> Any:
    """Adds all scalars in `value` (number, array or tensor) to the statistic `name`; returns `value`.

    Cheap: nothing leaves the tensor's device. Every process must report the same names.
    """
    _pending.setdefault(name, {})
    elems = torch.as_tensor(value).detach().flatten().to(torch.float32)
    device = elems.device
    if elems.numel() == 0:
        return value
    finite = elems.isfinite()
    elems = torch.where(finite, elems, 0)
    squares = elems.square().clamp(max=torch.finfo(elems.dtype).max)
    moments = torch.stack([x.sum(dtype=elems.dtype) for x in (finite, elems, squares, ~finite)])
    moments = moments.to(_counter_dtype(device))
    if _held_back is None:
        add(name, moments)
    else:
        _held_back.append((name, moments))
    return value


def add(name: str, sums: torch.Tensor) -> None:
    """Adds to a statistic the sums that one `report` made of its scalars (see `held_back`)."""
    tensors = _pending.setdefault(name, {})
    tensors[sums.device] = tensors[sums.device] + sums if sums.device in tensors else sums.clone()


@contextlib.contextmanager
def held_back() -> Iterator[list[tuple[str, torch.Tensor]]]:
    """Inside, what is reported is not added up but listed, as (name, sums): for CUDA graphs, which make it again."""
    global _held_back
    before, _held_back = _held_back, []
    try:
        yield _held_back
    finally:
        _held_back = before


def report0(name: str, value: Any) -> Any:
    """Like `report`, but only what the first process reports counts."""
    report(name, value if _rank == 0 else [])
    return value


class Collector:
    """Mean and standard deviation of the statistics whose names match `regex`, over the scalars reported between the
    last two calls of `update()`.

    With `keep_previous`, a statistic for which nothing was reported keeps the value it had; otherwise it is NaN.
    """

    def __init__(self, regex: str = ".*", keep_previous: bool = True) -> None:
        self._regex = re.compile(regex)
        self._keep_previous = keep_previous
        self._seen = {}  # name → totals at the last update
        self._moments = {}  # name → sums between the last two updates
        self._nonfinite = {}  # name → how many were left out of them
        self.update()
        self._moments.clear()

    def names(self) -> list[str]:
        """Names reported so far that match."""
        return [name for name in _pending if self._regex.fullmatch(name)]

    def update(self) -> None:
        """Takes in what was reported since the last call, from all processes. All of them must call it together."""
        if not self._keep_previous:
            self._moments.clear()
        for name, total in _synced_totals(self.names()):
            delta = total - self._seen.get(name, torch.zeros_like(total))
            self._seen[name] = total.clone()
            self._nonfinite[name] = int(delta[3])
            if float(delta[0]) != 0:
                self._moments[name] = delta

    def state_dict(self) -> dict[str, dict[str, torch.Tensor]]:
        """What this collector knows, and what has been reported that it has not taken in yet (float64 tensors)."""
        totals = dict(_synced_totals(self.names()))
        copies = lambda sums: {name: value.clone() for name, value in sums.items()}
        return dict(totals=copies(totals), seen=copies(self._seen), moments=copies(self._moments))

    def load_state_dict(self, state: dict[str, dict[str, torch.Tensor]]) -> None:
        """Goes on where the collector that made `state` was, in a process that starts from there too.

        Restores the process's totals of these statistics, so that even their rounding is the same.
        """
        _synced_totals(self.names())  # drops what was reported before
        totals = _finite(state["totals"])
        for name in state["totals"]:
            _totals[name] = totals.get(name, torch.zeros(_NUM_MOMENTS, dtype=torch.float64))
            _pending.setdefault(name, {})
        self._seen = {name: value for name, value in _finite(state["seen"]).items() if name in totals}
        self._moments = _finite(state["moments"])

    def num(self, name: str) -> int:
        """Number of scalars; 0 if nothing was collected."""
        return int(self._moments[name][0]) if name in self._moments else 0

    def nonfinite(self, name: str) -> int:
        """Number of NaNs and infinities between the last two updates, which count in nothing else."""
        return self._nonfinite.get(name, 0)

    def mean(self, name: str) -> float:
        """NaN if nothing was collected."""
        if not self.num(name):
            return float("nan")
        return float(self._moments[name][1] / self._moments[name][0])

    def std(self, name: str) -> float:
        """Population standard deviation; 0 for a single scalar, NaN if nothing was collected."""
        if not self.num(name):
            return float("nan")
        mean = self.mean(name)
        if self.num(name) == 1:
            return 0.0
        return float(np.sqrt(max(float(self._moments[name][2] / self._moments[name][0]) - mean**2, 0)))

    def as_dict(self) -> dnnlib.EasyDict:
        """{name: {num, mean, std}} for everything collected."""
        return dnnlib.EasyDict(
            {n: dnnlib.EasyDict(num=self.num(n), mean=self.mean(n), std=self.std(n)) for n in self.names()}
        )

    def __getitem__(self, name: str) -> float:
        """The mean."""
        return self.mean(name)


def _finite(sums):
    """Copies of the saved sums that no NaN has spoilt, as in older states, which did not tell them from the rest."""
    padded = {name: torch.nn.functional.pad(value, [0, _NUM_MOMENTS - len(value)]) for name, value in sums.items()}
    return {name: value.clone() for name, value in padded.items() if value.isfinite().all()}


def _counter_dtype(device):
    return torch.float32 if device.type == "mps" else torch.float64


def _synced_totals(names):
    """[(name, totals)] after adding all pending sums, of all processes."""
    if not names:
        return []
    deltas = []
    for name in names:
        delta = torch.zeros(_NUM_MOMENTS, dtype=torch.float64)
        for device in list(_pending[name]):
            delta += _pending[name].pop(device).to(torch.float64).cpu()
        deltas.append(delta)
    deltas = torch.stack(deltas)  # [names, moments]
    if _sync_device is not None:
        deltas = deltas.to(_sync_device, _counter_dtype(_sync_device))
        torch.distributed.all_reduce(deltas)
        deltas = deltas.cpu().to(torch.float64)
    for name, delta in zip(names, deltas):
        _totals[name] = _totals.get(name, torch.zeros_like(delta)) + delta
    return [(name, _totals[name]) for name in names]
