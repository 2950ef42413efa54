"""Images from weights that do not change: `with cached_weights.enabled(): G(z, c)`.

A layer computes much from its weights alone, the same for every image: scaled and folded matrices, energies of kernels,
kernels laid out for the processor. Inside, each is computed once. Synthesis in evaluation without autograd does so by
itself on a CPU, where a look at all weights costs little beside an image.
"""

import contextlib
import contextvars
import ctypes
import weakref
from collections.abc import Callable, Hashable, Iterator
from typing import Any

import torch

from torch_utils import kernels

_DIGEST = ctypes.c_uint64 * 32  # what csrc/digest.cpp fills
_kept = weakref.WeakKeyDictionary()  # module → (the digest of its weights, what was computed from them)
_known = contextvars.ContextVar("cached_weights", default=None)  # (name, tensor) → what was computed from it
_to_the_bit = contextvars.ContextVar("to_the_bit", default=False)  # whether images must equal those without


@contextlib.contextmanager
def enabled(known: dict | None = None) -> Iterator[None]:
    """Inside, in this thread or task only: no autograd, and what depends on weights alone is computed once.

    The weights must stay as they are. known: a dict that keeps what was computed for the next time; None: only nested
    contexts share it. Also a decorator: `@cached_weights.enabled()`.
    """
    inherited = _known.get()
    token = _known.set(known if known is not None else {} if inherited is None else inherited)
    try:
        with torch.no_grad():
            yield
    finally:
        _known.reset(token)


@contextlib.contextmanager
def while_unchanged(module: torch.nn.Module) -> Iterator[None]:
    """`enabled` for a module's forward in plain use, until its weights change, by whatever means; changes no bit.

    Does nothing in training, with autograd, inside `enabled`, in a traced program, and where no kernel serves.
    """
    elsewhere = _known.get() is not None or module.training or torch.is_grad_enabled()
    digest = None if elsewhere else _digest([*module.parameters(), *module.buffers()])
    if digest is None:
        yield
        return
    before, known = _kept.get(module, (None, None))
    if before != digest:
        known = {}
        _kept[module] = digest, known
    tokens = _known.set(known), _to_the_bit.set(True)
    try:
        yield
    finally:
        for variable, token in zip((_known, _to_the_bit), tokens):
            variable.reset(token)


def _digest(tensors):
    """Bytes that change with any number in these tensors; None where they cannot be had fast."""
    digest = getattr(kernels.available("cpu"), "digest", None)
    if digest is None or not all(_readable(tensor) for tensor in tensors):
        return None
    lanes, count = _DIGEST(), len(tensors)
    addresses = (ctypes.c_void_p * count)(*[tensor.data_ptr() for tensor in tensors])
    sizes = (ctypes.c_int64 * count)(*[tensor.numel() * tensor.element_size() for tensor in tensors])
    digest(addresses, sizes, count, lanes)
    return bytes(lanes)


def _readable(tensor):
    """Whether its numbers lie in one stretch of memory that a kernel can read"""
    if type(tensor) not in (torch.Tensor, torch.nn.Parameter) or tensor.device.type != "cpu":
        return False
    return tensor.is_contiguous() or (tensor.ndim == 4 and tensor.is_contiguous(memory_format=torch.channels_last))


def active() -> bool:
    """True inside `enabled`, where matrices may be multiplied in another order."""
    return _known.get() is not None and not _to_the_bit.get()


def once(name: Hashable, tensor: torch.Tensor, compute: Callable[[torch.Tensor], Any]) -> Any:
    """compute(tensor); inside `enabled` once for a name, if tensor is a parameter or a view of one."""
    known = _known.get()
    base = tensor if tensor._base is None else tensor._base
    if known is None or not isinstance(base, torch.nn.Parameter):
        return compute(tensor)
    key = (name, id(base), tensor.storage_offset(), tensor.shape, tensor.stride())
    if key not in known:
        known[key] = base, compute(tensor)  # with its owner, whose id is not given to another meanwhile
    return known[key][1]
