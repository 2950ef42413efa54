"""Images from weights that do not change: `with cached_weights.enabled(): G(z, c)`.

A layer computes much from its weights alone, the same for every image: scaled and folded matrices, energies of kernels,
kernels laid out for the processor. Inside, each is computed once.
"""

import contextlib
import contextvars
from collections.abc import Callable, Hashable, Iterator
from typing import Any

import torch

_known = contextvars.ContextVar("cached_weights", default=None)  # (name, tensor) → what was computed from it


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


def active() -> bool:
    """True inside `enabled`."""
    return _known.get() is not None


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
