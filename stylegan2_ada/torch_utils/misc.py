"""Helpers around torch tensors, modules and data-parallel training."""

import contextlib
import functools
import itertools
import re
import warnings
from collections.abc import Callable, Iterable, Iterator, Sequence, Sized
from typing import Any

import numpy as np
import torch

_constants = {}  # the most recently used last
_MOST_CONSTANTS = 1000


def constant(
    value: Any,
    shape: Sequence[int] | None = None,
    dtype: torch.dtype | None = None,
    device: torch.device | str | None = None,
    memory_format: torch.memory_format | None = None,
) -> torch.Tensor:
    """A tensor of fixed `value`, made once per (value, shape, dtype, device, memory_format) and then shared.

    Saves a host-to-device copy at every use. The caller must not write to it. Only those of late are kept, but values
    that change all the time do not belong here.
    """
    value = np.asarray(value)
    shape = None if shape is None else tuple(shape)
    dtype = dtype or torch.get_default_dtype()
    device = torch.device(device or "cpu")
    memory_format = memory_format or torch.contiguous_format
    key = (value.shape, value.dtype, value.tobytes(), shape, dtype, device, memory_format)
    known = _constants.pop(key, None)
    if known is not None:
        _constants[key] = known  # the one used last stands last
        return known
    made = torch.as_tensor(value.copy(), dtype=dtype, device=device)
    made = (made if shape is None else made.expand(shape)).contiguous(memory_format=memory_format)
    _constants[key] = made
    if len(_constants) > _MOST_CONSTANTS:
        _constants.pop(next(iter(_constants)), None)
    return made


def known_constants() -> list[torch.Tensor]:
    """What `constant` keeps at present."""
    return [*_constants.values()]


@contextlib.contextmanager
def without_tf32() -> Iterator[None]:
    """Inside, float32 means float32 on CUDA: the ten bits of TF32 are too few to measure with."""
    switches = torch.backends.cuda.matmul, torch.backends.cudnn
    before = [switch.allow_tf32 for switch in switches]
    for switch in switches:
        switch.allow_tf32 = False
    try:
        yield
    finally:
        for switch, allowed in zip(switches, before):
            switch.allow_tf32 = allowed


class suppress_tracer_warnings(warnings.catch_warnings):
    """Hides the `TracerWarning`s that shape arithmetic causes under `torch.jit.trace`. A context manager."""

    def __enter__(self) -> list | None:
        result = super().__enter__()
        warnings.simplefilter("ignore", category=torch.jit.TracerWarning)
        return result


def assert_shape(tensor: torch.Tensor, ref_shape: Sequence[int | None]) -> None:
    """AssertionError unless `tensor` has the shape `ref_shape`, where None stands for any size."""
    fits = tensor.ndim == len(ref_shape) and all(
        want is None or bool(size == want) for size, want in zip(tensor.shape, ref_shape)
    )
    if not fits:
        raise AssertionError(f"shape is {list(tensor.shape)}, expected {list(ref_shape)}")


def profiled_function(fn: Callable[..., Any]) -> Callable[..., Any]:
    """Decorator: the function appears under its own name in the autograd profiler."""

    return functools.wraps(fn)(torch.autograd.profiler.record_function(fn.__name__)(fn))


class InfiniteSampler(torch.utils.data.Sampler):
    """Endless indices of a data set, reshuffled little by little, split between `num_replicas` processes.

    The order is shuffled once; from then on every index that was read is swapped with a random one among the
    `window_size · len(dataset)` read before it. `start` skips that many indices of the whole stream, which is how a
    resumed run takes up where it left off; `order`, from `order_at(start)`, saves the walk there.
    """

    def __init__(
        self,
        dataset: Sized,
        rank: int = 0,
        num_replicas: int = 1,
        shuffle: bool = True,
        seed: int = 0,
        window_size: float = 0.5,
        start: int = 0,
        order: np.ndarray | None = None,
    ) -> None:
        super().__init__()
        if len(dataset) == 0:
            raise ValueError("the data set is empty")
        if not 0 <= rank < num_replicas:
            raise ValueError(f"rank {rank} is not one of {num_replicas} replicas")
        if not 0 <= window_size <= 1:
            raise ValueError(f"window_size must lie in [0, 1], not {window_size}")
        self.dataset = dataset
        self.rank = rank
        self.num_replicas = num_replicas
        self.shuffle = shuffle
        self.seed = seed
        self.window_size = window_size
        self.start = start
        if order is not None and not np.array_equal(np.sort(order), np.arange(len(dataset))):
            raise ValueError("the order is none of the data set's images")
        self.order = order
        self._follower = None

    def __iter__(self) -> Iterator[int]:
        walk = self._walk(self.start, self.order_at(self.start))
        for position, index in enumerate(walk, self.start):
            if position % self.num_replicas == self.rank:
                yield index

    def order_at(self, position: int) -> np.ndarray:
        """The order [len(dataset)] of the images once `position` of the whole stream have been read: see `order`."""
        if self._follower is None or self._follower.position > position:
            known = self.order is not None and position >= self.start
            self._follower = self._walk(self.start, self.order) if known else self._walk(0)
        self._follower.go_to(position)
        return np.array(self._follower.order, dtype=np.int32)

    def _walk(self, position, order=None):
        rng, first = np.random.RandomState(self.seed), np.arange(len(self.dataset))
        if self.shuffle:
            rng.shuffle(first)
        window = int(np.rint(len(first) * self.window_size)) if self.shuffle else 0
        return _Walk(rng, window, position, first if order is None else order)


class _Walk:
    """The images' order, in which each one that is read is swapped with a random one of the `window` before it.

    rng: that has shuffled the images and swapped nothing yet. order: at `position` of the stream.
    """

    def __init__(self, rng: np.random.RandomState, window: int, position: int, order: np.ndarray) -> None:
        self.position, self.order = position, order.tolist()
        places = itertools.chain(range(position % len(order), len(order)), itertools.cycle(range(len(order))))
        self._swaps = zip(places, _endless_integers(rng, window, skip=position) if window > 1 else itertools.repeat(0))
        self._fixed = window < 2

    def __iter__(self) -> Iterator[int]:
        order = self.order
        for i, back in self._swaps:
            yield order[i]
            order[i], order[i - back] = order[i - back], order[i]

    def go_to(self, position: int) -> None:
        """Reads on to a later position: three million images a second."""
        order, steps = self.order, 0 if self._fixed else position - self.position
        for i, back in itertools.islice(self._swaps, steps):
            order[i], order[i - back] = order[i - back], order[i]
        self.position = position


def _endless_integers(rng, high, skip, block=4096):
    """`rng.randint(high)` again and again, after the first `skip`; drawn in blocks: the same numbers, sooner."""
    while skip >= block:
        skip -= len(rng.randint(high, size=block))
    rng.randint(high, size=skip)
    while True:
        yield from rng.randint(high, size=block).tolist()


def params_and_buffers(module: torch.nn.Module) -> list[torch.Tensor]:
    """All parameters, then all buffers."""
    return list(module.parameters()) + list(module.buffers())


def named_params_and_buffers(module: torch.nn.Module) -> list[tuple[str, torch.Tensor]]:
    """(name, tensor) of all parameters, then of all buffers."""
    return list(module.named_parameters()) + list(module.named_buffers())


def contiguous(module: torch.nn.Module) -> torch.nn.Module:
    """The module, all of whose parameters and buffers are contiguous now."""
    for tensor in params_and_buffers(module):
        tensor.data = tensor.data.contiguous()
    return module


@torch.no_grad()
def copy_params_and_buffers(
    src_module: torch.nn.Module, dst_module: torch.nn.Module, require_all: bool = False
) -> None:
    """Copies tensors of equal names from one module to another.

    Names that only the source has are ignored. RuntimeError for shapes that differ, and with `require_all` for names
    that only the destination has.
    """
    source = dict(named_params_and_buffers(src_module))
    for name, tensor in named_params_and_buffers(dst_module):
        if name in source:
            if source[name].shape != tensor.shape:
                shapes = f"{list(source[name].shape)} in the source, {list(tensor.shape)} in the destination"
                raise RuntimeError(f"{name} has shape {shapes}")
            tensor.copy_(source[name])
        elif require_all:
            raise RuntimeError(f"the source has no {name}")


def keep_label_examples(generators: Iterable[torch.nn.Module], labels: Any, name: str) -> None:
    """Gives generators the label vectors of their snapshot, as `label_examples` [N, c_dim].

    ValueError for anything but such labels, in the file `name`.
    """
    for G in generators:
        fits = isinstance(labels, torch.Tensor) and labels.ndim == 2 and labels.shape[1] == getattr(G, "c_dim", 0) > 0
        if not fits or not len(labels) or labels.dtype != torch.float32 or not labels.isfinite().all():
            raise ValueError(f"{name} holds labels that do not fit its generator")
        G.label_examples = labels


@contextlib.contextmanager
def ddp_sync(module: torch.nn.Module, sync: bool) -> Iterator[None]:
    """Gradients of a DistributedDataParallel module are exchanged inside only where `sync` is true."""
    wrapped = isinstance(module, torch.nn.parallel.DistributedDataParallel)
    with module.no_sync() if wrapped and not sync else contextlib.nullcontext():
        yield


def check_ddp_consistency(module: torch.nn.Module, ignore_regex: str | None = None) -> None:
    """AssertionError unless every process holds the same tensors (NaNs count as equal)."""
    for name, tensor in named_params_and_buffers(module):
        full_name = f"{type(module).__name__}.{name}"
        if ignore_regex is not None and re.fullmatch(ignore_regex, full_name):
            continue
        mine = tensor.detach()
        mine = torch.nan_to_num(mine) if mine.is_floating_point() else mine
        other = mine.clone()
        torch.distributed.broadcast(tensor=other, src=0)
        differs = torch.tensor(float(not torch.equal(mine, other)), device=tensor.device)
        torch.distributed.all_reduce(differs)  # so that none of them goes on alone
        if differs:
            raise AssertionError(f"{full_name} differs between processes")


def print_module_summary(
    module: torch.nn.Module, inputs: Sequence[Any], max_nesting: int = 3, skip_redundant: bool = True
) -> Any:
    """Runs `module(*inputs)`, prints a table of its parts, and returns the outputs.

    One row per submodule down to `max_nesting` levels: parameters and buffers of its own, output shape, dtype. With
    `skip_redundant`, parts that add no tensor of their own and repeat a parent's output are left out.
    """
    calls = []  # (module, outputs) in the order in which the calls ended
    depth = 0

    def before(_mod, _inputs):
        nonlocal depth
        depth += 1

    def after(mod, _inputs, outputs):
        nonlocal depth
        depth -= 1
        if depth <= max_nesting:
            items = outputs if isinstance(outputs, (tuple, list)) else [outputs]
            calls.append((mod, [t for t in items if isinstance(t, torch.Tensor)]))

    hooks = [h for m in module.modules() for h in (m.register_forward_pre_hook(before), m.register_forward_hook(after))]
    outputs = module(*inputs)
    for hook in hooks:
        hook.remove()
    print()
    _print_table(_summary_rows(module, calls, skip_redundant))
    print()
    return outputs


def _summary_rows(module, calls, skip_redundant):
    names = {mod: name for name, mod in module.named_modules()}
    seen, rows, totals = set(), [], [0, 0]
    for mod, outputs in calls:
        own = [[t for t in tensors if id(t) not in seen] for tensors in (list(mod.parameters()), list(mod.buffers()))]
        seen |= {id(t) for tensors in own for t in tensors}
        if skip_redundant and mod is not module and not any(own):
            continue
        counts = [sum(t.numel() for t in tensors) for tensors in own]
        totals = [a + b for a, b in zip(totals, counts)]
        label = names[mod] or "<top-level>"
        shapes = [str(list(t.shape)) for t in outputs] or ["-"]
        dtypes = [str(t.dtype).removeprefix("torch.") for t in outputs] or ["-"]
        rows.append([label, *(str(c) if c else "-" for c in counts), shapes[0], dtypes[0]])
        rows += [[f"{label}:{i}", "-", "-", shapes[i], dtypes[i]] for i in range(1, len(shapes))]
    header = [[type(module).__name__, "Parameters", "Buffers", "Output shape", "Datatype"]]
    return header + [["---"] * 5] + rows + [["---"] * 5] + [["Total", str(totals[0]), str(totals[1]), "-", "-"]]


def _print_table(rows):
    widths = [max(map(len, column)) for column in zip(*rows)]
    for row in rows:
        print("  ".join(cell.ljust(width) for cell, width in zip(row, widths)).rstrip())
