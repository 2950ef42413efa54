"""The native kernels: which of them serves a tensor, and what a call of one needs.

Those for the CPU are C++ (ops/csrc/), which `custom_ops` builds on first use; those for GPUs are Triton's
(ops/triton_kernels.py), which PyTorch's CUDA builds bring. Where there are none, ops take their plain PyTorch path
after one warning. `SEGAN_NATIVE=0` in the environment turns them off.
"""

import concurrent.futures
import ctypes
import functools
import os
import threading
import types
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

from torch_utils import custom_ops

_SOURCES = Path(__file__).parent / "ops" / "csrc"

enabled = os.environ.get("SEGAN_NATIVE", "1") != "0"


def available(device_type: str) -> ctypes.CDLL | types.ModuleType | None:
    """What has the kernels for 'cpu' or 'cuda' tensors, or None: there are none, or the program is traced."""
    traced = torch.jit.is_tracing() or torch.compiler.is_compiling()
    if not enabled or traced or device_type not in ("cpu", "cuda"):
        return None
    return _on_trial.get(device_type) or _library(device_type)


_OF_CPU = {torch.float32: "float", torch.float64: "double"}  # how its kernels end
_OF_TRITON = {torch.float16, torch.bfloat16, torch.float32, torch.float64}


def kernel(op: str, *tensors: torch.Tensor) -> Callable[..., Any] | None:
    """The kernel of `op` for these tensors of one dtype, or None.

    There is none if none was built, for other dtypes, in a traced program, and for tensors without memory to read.
    """
    first = tensors[0]
    for t in tensors:
        if type(t) not in (torch.Tensor, torch.nn.Parameter) or not t.numel():
            return None
    library = available(first.device.type)
    if is_triton(library):
        return getattr(library, op, None) if first.dtype in _OF_TRITON else None
    return getattr(library, f"{op}_{_OF_CPU.get(first.dtype)}", None)


def is_triton(library_or_kernel: Any) -> bool:
    """True for the module of Triton's kernels, and for those, which take tensors; the CPU's take addresses."""
    return isinstance(library_or_kernel, (types.ModuleType, types.FunctionType))


def threads_for(numel: int) -> int:
    """Threads to share an elementwise job of that size between; a thread is not worth its start below 16384 numbers."""
    return max(min(torch.get_num_threads(), numel // 16384), 1)


def dense(x: torch.Tensor) -> tuple[torch.Tensor, torch.memory_format]:
    """x in a layout that kernels take, and that layout: channels-last where it is so already, else contiguous."""
    if x.ndim == 4 and not x.is_contiguous() and x.is_contiguous(memory_format=torch.channels_last):
        return x, torch.channels_last
    return x.contiguous(), torch.contiguous_format


def pointer(tensor: torch.Tensor | None) -> int | None:
    """Address of a tensor's first element, for a kernel; None stays None."""
    return None if tensor is None else tensor.data_ptr()


_trying_out = threading.RLock()  # one thread tries a library out, the others wait


def _library(device_type):
    with _trying_out:
        return _tried_library(device_type)


@functools.cache
def _tried_library(device_type):
    try:
        library = _of_cpu() if device_type == "cpu" else _of_triton()
        _try_out(library, device_type)
        return library
    except Exception as error:  # compilers fail in ways of their own, and none may stop anybody
        warnings.warn(f"No native {device_type} kernels, plain PyTorch instead: {error}", stacklevel=4)
        return None


_TYPES = dict(p=ctypes.c_void_p, l=ctypes.c_int64, d=ctypes.c_double, i=ctypes.c_int)
_ARGUMENTS = dict(  # of the CPU's kernels, as in ops/csrc
    bias_act="iipppppplllidddi",
    conv2d="pppp",
    conv2d_prepare="ppp",
    conv2d_prepared_size="p",
    conv2d_weight="pppp",
    modulate="ipppppllldddi",
    modulate_backward="ippppppppllldddi",
    upfirdn2d="ppppi",
)


def _of_cpu():
    sources, headers = sorted(_SOURCES.glob("*.cpp")), sorted(_SOURCES.glob("*.h"))
    library = ctypes.CDLL(str(custom_ops.get_library(sources, headers)))
    for op, letters in _ARGUMENTS.items():
        for ending in _OF_CPU.values():
            function = library[f"{op}_{ending}"]
            function.argtypes = [_TYPES[letter] for letter in letters]
            function.restype = ctypes.c_int64 if op == "conv2d_prepared_size" else None
            setattr(library, f"{op}_{ending}", function)
    library.digest.argtypes = [_TYPES[letter] for letter in "pplp"]
    return library


def _of_triton():
    from torch_utils.ops import triton_kernels  # where there is no GPU, there need be no Triton

    return triton_kernels


_on_trial = {}  # device type → a library that is not trusted yet


def _try_out(library, device_type):
    """RuntimeError unless the kernels give what the plain path gives: compilers and processors differ."""
    _on_trial[device_type] = library
    device = torch.device(device_type, torch.cuda.current_device() if device_type == "cuda" else None)
    try:  # in a thread of its own, which knows nothing of the caller's modes: autocast, inference, default devices, …
        with concurrent.futures.ThreadPoolExecutor(1) as thread:
            thread.submit(_compare_all, library, device).result()
    finally:
        del _on_trial[device_type]


def _compare_all(library, device):
    images = torch.sin(torch.arange(2 * 4 * 9 * 7, dtype=torch.float32)).reshape(2, 4, 9, 7).to(device)
    _compare(images, tolerance=1e-4)
    dtype, tolerance = (torch.float16, 0.03) if is_triton(library) else (torch.float32, 1e-4)
    _compare(images.to(dtype, memory_format=torch.channels_last), tolerance)  # as in training


def _compare(images, tolerance):
    """RuntimeError unless results and gradients are, but for this share, those of the plain path in float64"""
    for name, (fast, plain) in _trials(images.device).items():
        if kernel(name, images) is None:
            continue
        results = _with_gradients(fast, images), _with_gradients(plain, images.double())
        for got, wanted in zip(*results, strict=True):
            if not (got - wanted).norm() <= tolerance * wanted.norm():
                raise RuntimeError(f"{name} gives wrong results on this machine")


def _trials(device):
    """{kernel: two functions of images, scale, noise, bias and weight, with it and without}"""
    from torch_utils.ops import bias_act, conv2d_gradfix, modulate, upfirdn2d

    bend = dict(act="lrelu", clamp=0.7)  # no number here is so near to that, or to 0, that rounding decides
    resample = dict(f=upfirdn2d.setup_filter([1, 3, 3, 1], device=device), up=2, padding=[2, 1, 2, 1])

    def modulated(x, scale, noise, b, w):
        y = modulate.modulate(x, scale, noise, b, **bend)
        return modulated_plainly(x, scale, noise, b, w) if y is None else y  # in a layout that it does not take

    def modulated_plainly(x, scale, noise, b, w):
        return bias_act.bias_act(x * scale[:, :, None, None] + noise, b, **bend, impl="ref")

    return dict(
        bias_act=(
            lambda x, scale, noise, b, w: bias_act.bias_act(x, b, **bend),
            lambda x, scale, noise, b, w: bias_act.bias_act(x, b, **bend, impl="ref"),
        ),
        upfirdn2d=(
            lambda x, *_: upfirdn2d.upfirdn2d(x, **resample),
            lambda x, *_: upfirdn2d.upfirdn2d(x, **resample, impl="ref"),
        ),
        modulate=(modulated, modulated_plainly),
        conv2d=(
            lambda x, scale, noise, b, w: _convolutions(conv2d_gradfix.conv2d, x, w),
            lambda x, scale, noise, b, w: _convolutions(torch.nn.functional.conv2d, x, w),
        ),
    )


def _convolutions(conv2d, x, w):
    """One of each way to compute them: of large images, of small ones with many channels, and strided"""
    small, many = x.reshape(2, 28, 3, 3), w.repeat(1, 7, 1, 1)
    results = conv2d(x, w, padding=1), conv2d(small, many, padding=1), conv2d(x, w, stride=2)
    return torch.cat([result.flatten() for result in results])


def _with_gradients(function, images):
    """Its result and the gradients of all that there is, zero for what it does not use"""
    weight = images.flatten()[:144].view(4, 4, 3, 3)
    given = images, images[:, :, 0, 0], images[:, :1], images[0, :, 0, 0], weight
    given = [tensor.detach().requires_grad_() for tensor in given]
    result = function(*given)
    gradients = torch.autograd.grad(result.double().square().sum(), given, materialize_grads=True)
    return result.detach(), *gradients
