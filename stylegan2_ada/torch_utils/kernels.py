"""The native kernels: which of them serves a tensor, and what a call of one needs.

Those for the CPU are C++ (ops/csrc/), which `custom_ops` builds on first use; those for GPUs are Triton's
(ops/triton_kernels.py), which PyTorch's CUDA builds bring. Each op registers its kernels here with a self-test, which
runs before their first use. An op without kernels that pass takes its plain PyTorch path, after one warning.
`SEGAN_NATIVE=0` in the environment turns them all off.
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
    return _library(device_type)


_OF_CPU = {torch.float32: "float", torch.float64: "double"}  # how its kernels end
_OF_TRITON = {torch.float16, torch.bfloat16, torch.float32, torch.float64}


def kernel(name: str, *tensors: torch.Tensor) -> Callable[..., Any] | None:
    """The kernel of that name for these tensors of one dtype, or None.

    There is none if none was built or its op failed the self-test, for other dtypes, in a traced program, and for
    tensors without memory to read.
    """
    first = tensors[0]
    for t in tensors:
        if type(t) not in (torch.Tensor, torch.nn.Parameter) or not t.numel():
            return None
    library = available(first.device.type)
    if is_triton(library):
        function = getattr(library, name, None) if first.dtype in _OF_TRITON else None
    else:
        function = getattr(library, f"{name}_{_OF_CPU.get(first.dtype)}", None)
    return function if function is not None and _passes(_ops[name], library, first.device.type) else None


def serves_cpu(name: str) -> bool:
    """True if the kernel of that name is used for tensors on the CPU."""
    library = available("cpu")
    return library is not None and _passes(_ops[name], library, "cpu")


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


# ---------------------------------------------------------------------------------------------------------------------
# Loading

_loading = threading.Lock()  # one thread builds, the others wait


def _library(device_type):
    with _loading:
        return _loaded_library(device_type)


@functools.cache
def _loaded_library(device_type):
    try:
        return _of_cpu() if device_type == "cpu" else _of_triton()
    except Exception as error:  # compilers fail in ways of their own, and none may stop anybody
        warnings.warn(f"No native {device_type} kernels, plain PyTorch instead: {error}", stacklevel=5)
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


# ---------------------------------------------------------------------------------------------------------------------
# Self-tests: compilers and processors differ


class _Op:
    """The kernels of an op, and the two functions that have to agree before one of them is used."""

    def __init__(self, names, self_test):
        self.names, self.self_test = names, self_test
        self.passed = {}  # library → whether its kernels are right here
        self.tester = None  # the thread that tests them
        self.lock = threading.Lock()  # the others wait


_ops = {}  # name of a kernel → its op


def register(names: list[str], self_test: Callable[[torch.device], tuple[Callable, Callable]]) -> None:
    """Enters the kernels of an op, the one with the op's own name first.

    self_test: gives for a device two functions of images [2, 4, 9, 7], scale [2, 4], noise [2, 1, 9, 7], bias [4] and
    weights [4, 4, 3, 3]: one that uses the kernels and one that does not. Values and gradients have to agree.
    """
    op = _Op(names, self_test)
    _ops.update(dict.fromkeys(names, op))


def _passes(op, library, device_type):
    if op.passed.get(library) or op.tester == threading.get_ident():
        return True
    with op.lock:
        if library not in op.passed:
            op.passed[library] = _tested(op, device_type)
    return op.passed[library]


def _tested(op, device_type):
    device = torch.device(device_type, torch.cuda.current_device() if device_type == "cuda" else None)
    try:  # in a thread of its own, which knows nothing of the caller's modes: autocast, inference, default devices, …
        with concurrent.futures.ThreadPoolExecutor(1) as thread:
            thread.submit(_compare_all, op, device).result()
        return True
    except Exception as error:  # whatever a compiler or a driver raises: it may not stop anybody
        warnings.warn(f"No native {device_type} kernel for {op.names[0]}, plain PyTorch instead: {error}", stacklevel=6)
        return False
    finally:
        op.tester = None


def _compare_all(op, device):
    op.tester = threading.get_ident()
    images = torch.sin(torch.arange(2 * 4 * 9 * 7, dtype=torch.float32)).reshape(2, 4, 9, 7).to(device)
    _compare(op, images, tolerance=1e-4)
    dtype, tolerance = (torch.float16, 0.03) if is_triton(available(device.type)) else (torch.float32, 1e-4)
    _compare(op, images.to(dtype, memory_format=torch.channels_last), tolerance)  # as in training


def _compare(op, images, tolerance):
    """RuntimeError unless results and gradients are, but for this share, those of the plain path in float64"""
    if kernel(op.names[0], images) is None:
        return
    with_kernels, without = op.self_test(images.device)
    results = _with_gradients(with_kernels, images), _with_gradients(without, images.double())
    for got, wanted in zip(*results, strict=True):
        if not (got - wanted).norm() <= tolerance * wanted.norm():
            raise RuntimeError(f"{op.names[0]} gives wrong results on this machine")


def _with_gradients(function, images):
    """Its result and the gradients of all that there is, zero for what it does not use"""
    weight = images.flatten()[:144].view(4, 4, 3, 3)
    given = images, images[:, :, 0, 0], images[:, :1], images[0, :, 0, 0], weight
    given = [tensor.detach().requires_grad_() for tensor in given]
    result = function(*given)
    gradients = torch.autograd.grad(result.double().square().sum(), given, materialize_grads=True)
    return result.detach(), *gradients
