"""The native kernels (ops/csrc/): which of them serves a tensor, and what a call of one needs.

`custom_ops` builds them on first use. Where there are none, ops take their plain PyTorch path after one warning.
`SEGAN_NATIVE=0` in the environment turns them off.
"""

import ctypes
import functools
import os
import subprocess
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

from torch_utils import custom_ops

_SOURCES = Path(__file__).parent / "ops" / "csrc"

enabled = os.environ.get("SEGAN_NATIVE", "1") != "0"


def available(device_type: str) -> ctypes.CDLL | None:
    """The library with the kernels for 'cpu' or 'cuda' tensors, or None: there are none, or the program is traced."""
    traced = torch.jit.is_tracing() or torch.compiler.is_compiling()
    if not enabled or traced or device_type not in ("cpu", "cuda"):
        return None
    return _on_trial.get(device_type) or _library(device_type)


# How the kernels of an op are called, after its name.
_TYPES = {
    "cpu": {torch.float32: "float", torch.float64: "double"},
    "cuda": {torch.float16: "cuda_half", torch.float32: "cuda_float", torch.float64: "cuda_double"},
}


def kernel(op: str, *tensors: torch.Tensor) -> Callable[..., Any] | None:
    """The kernel of `op` for these tensors of one dtype, or None.

    There is none if none was built, for other dtypes, in a traced program, and for tensors without memory to read.
    """
    first = tensors[0]
    if any(type(t) not in (torch.Tensor, torch.nn.Parameter) or not t.numel() for t in tensors):
        return None
    name, library = _TYPES.get(first.device.type, {}).get(first.dtype), available(first.device.type)
    return None if name is None or library is None else getattr(library, f"{op}_{name}", None)


def threads_for(numel: int) -> int:
    """Threads to share an elementwise job of that size between; a thread is not worth its start below 16384 numbers."""
    return max(min(torch.get_num_threads(), numel // 16384), 1)


def dense(x: torch.Tensor) -> tuple[torch.Tensor, torch.memory_format]:
    """x in a layout that kernels take, and that layout: channels-last where it is so already, else contiguous."""
    if x.ndim == 4 and not x.is_contiguous() and x.is_contiguous(memory_format=torch.channels_last):
        return x, torch.channels_last
    return x.contiguous(), torch.contiguous_format


def launch(name: str, kernel: Callable[..., int], device: torch.device, *arguments: Any) -> None:
    """Calls a CUDA kernel on the current stream of `device`. RuntimeError unless it was launched.

    Kernels run on the current device, whichever their pointers belong to, hence the guard.
    """
    with torch.cuda.device(device):
        error = kernel(*arguments, ctypes.c_void_p(torch.cuda.current_stream(device).cuda_stream))
    if error:
        raise RuntimeError(f"{name} could not be launched on CUDA (error {error})")


def pointer(tensor: torch.Tensor | None) -> ctypes.c_void_p | None:
    """Address of a tensor's first element, for a kernel; None stays None."""
    return None if tensor is None else ctypes.c_void_p(tensor.data_ptr())


@functools.cache
def _library(device_type):
    sources = sorted(_SOURCES.glob("*.cpp" if device_type == "cpu" else "*.cu"))
    try:
        library = ctypes.CDLL(str(custom_ops.get_library(device_type, sources, sorted(_SOURCES.glob("*.h")))))
        _try_out(library, device_type)
        return library
    except (OSError, subprocess.SubprocessError, RuntimeError) as error:
        warnings.warn(f"No native {device_type} kernels, plain PyTorch instead: {error}", stacklevel=4)
        return None


_on_trial = {}  # device type → a library that is not trusted yet


@torch.no_grad()
def _try_out(library, device_type):
    """RuntimeError unless the kernels give what the plain path gives: compilers and processors differ."""
    from torch_utils.ops import bias_act, conv2d_gradfix, upfirdn2d

    x = torch.sin(torch.arange(2 * 4 * 9 * 7.0)).reshape(2, 4, 9, 7).to(device_type)
    b, w = x[0, :, 0, 0], x.flatten()[:144].view(4, 4, 3, 3)
    f = upfirdn2d.setup_filter([1, 3, 3, 1], device=device_type)
    trials = dict(
        bias_act=lambda impl: bias_act.bias_act(x, b, act="lrelu", clamp=1, impl=impl),
        upfirdn2d=lambda impl: upfirdn2d.upfirdn2d(x, f, up=2, padding=[2, 1, 2, 1], impl=impl),
    )
    if device_type == "cpu":
        plain = torch.nn.functional.conv2d(x, w, padding=1)
        trials["conv2d"] = lambda impl: plain if impl == "ref" else conv2d_gradfix.conv2d(x, w, padding=1)
    _on_trial[device_type] = library
    try:
        for name, trial in trials.items():
            if not torch.allclose(trial("cuda"), trial("ref"), rtol=1e-4, atol=1e-4):
                raise RuntimeError(f"{name} gives wrong results on this machine")
    finally:
        del _on_trial[device_type]
