"""Builds the native kernels on first use, as a library without Python or torch in it, and finds them again later.

A build takes a few seconds, needs a C++ compiler and ninja, and for CUDA nvcc. It is kept in the cache by a digest of
sources, compiler, processor and torch version; so is a failure, with its reason. Where there are no kernels, ops take
their plain PyTorch path after one warning. `SEGAN_NATIVE=0` in the environment turns them off.
"""

import ctypes
import functools
import hashlib
import os
import platform
import re
import shutil
import subprocess
import sys
import tempfile
import warnings
from pathlib import Path

import torch

import dnnlib

_SOURCES = Path(__file__).parent / "ops" / "csrc"
_FLAGS = "-O3 -march=native -std=c++17 -fopenmp -fPIC -fno-math-errno -fno-trapping-math -fno-signed-zeros"
_ARCHITECTURES = ("75", "80", "86", "89", "90", "100")  # of GPUs that nvcc is asked for, as far as it knows them

enabled = os.environ.get("SEGAN_NATIVE", "1") != "0"


def kernels(device_type):
    """The library with the kernels for 'cpu' or 'cuda' tensors, or None where there are none."""
    return _library(device_type) if enabled and device_type in ("cpu", "cuda") else None


# How the kernels of an op are called, after its name.
_TYPES = {
    "cpu": {torch.float32: "float", torch.float64: "double"},
    "cuda": {torch.float16: "cuda_half", torch.float32: "cuda_float", torch.float64: "cuda_double"},
}


def kernel(op, *tensors):
    """The kernel of `op` for these tensors of one dtype, or None.

    There is none if none was built, for other dtypes, in a traced program, and for tensors without memory to read.
    """
    first = tensors[0]
    if torch.jit.is_tracing() or torch.compiler.is_compiling():
        return None
    if any(type(t) not in (torch.Tensor, torch.nn.Parameter) or not t.numel() for t in tensors):
        return None
    name, library = _TYPES.get(first.device.type, {}).get(first.dtype), kernels(first.device.type)
    return None if name is None or library is None else getattr(library, f"{op}_{name}", None)


def threads_for(numel):
    """Threads to share an elementwise job of that size between; a thread is not worth its start below 16384 numbers."""
    return max(min(torch.get_num_threads(), numel // 16384), 1)


def dense(x):
    """x in a layout that kernels take, and that layout: channels-last where it is so already, else contiguous."""
    if x.ndim == 4 and not x.is_contiguous() and x.is_contiguous(memory_format=torch.channels_last):
        return x, torch.channels_last
    return x.contiguous(), torch.contiguous_format


def stream(device):
    """The current CUDA stream, for a kernel."""
    return ctypes.c_void_p(torch.cuda.current_stream(device).cuda_stream)


def check(error, name):
    """RuntimeError unless a CUDA kernel's return value says that it was launched."""
    if error:
        raise RuntimeError(f"{name} could not be launched on CUDA (error {error})")


def pointer(tensor):
    """Address of a tensor's first element, for a kernel; None stays None."""
    return None if tensor is None else ctypes.c_void_p(tensor.data_ptr())


@functools.cache
def _library(device_type):
    try:
        return ctypes.CDLL(str(_built(device_type)))
    except (OSError, subprocess.SubprocessError, RuntimeError) as error:
        warnings.warn(f"No native {device_type} kernels, plain PyTorch instead: {error}", stacklevel=4)
        return None


def _built(device_type):
    """Path of the library, built now if it is not in the cache. RuntimeError with the reason of a failure."""
    sources = sorted(_SOURCES.glob("*.cpp" if device_type == "cpu" else "*.cu"))
    compiler = _compiler(device_type)
    digest = hashlib.sha256(repr((compiler, _version(compiler), _FLAGS, _processor(), torch.__version__)).encode())
    for path in [*sources, *sorted(_SOURCES.glob("*.h"))]:
        digest.update(path.read_bytes())
    folder = Path(dnnlib.util.make_cache_dir_path("kernels", f"{device_type}-{digest.hexdigest()[:24]}"))
    library, failure = folder / "kernels.so", folder / "failure.txt"
    if library.exists():
        return library
    if failure.exists():
        raise RuntimeError(f"{failure.read_text()} (remembered in {folder}; delete that folder to try again)")
    folder.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=folder) as workplace:  # several processes may build at once
        try:
            _build(Path(workplace), sources, compiler, device_type)
        except RuntimeError as error:
            failure.write_text(str(error))
            raise
        os.replace(Path(workplace) / "kernels.so", library)
    return library


def _build(workplace, sources, compiler, device_type):
    compile_, link = (_cpu_commands if device_type == "cpu" else _cuda_commands)(compiler)
    lines = [f"rule compile\n  command = {compile_} -c $in -o $out", f"rule link\n  command = {link}"]
    lines += [f"build {path.stem}.o: compile {path}" for path in sources]
    lines += [f"build kernels.so: link {' '.join(f'{path.stem}.o' for path in sources)}", ""]
    (workplace / "build.ninja").write_text("\n".join(lines))
    done = subprocess.run([_ninja(), "-C", str(workplace)], capture_output=True, text=True)
    if done.returncode != 0:
        said = [line for line in (done.stdout + done.stderr).splitlines() if re.search(r"error|not found", line, re.I)]
        raise RuntimeError((said or ["the build failed"])[0].strip())


def _cpu_commands(compiler):
    # The kernels must use the threads that torch has. Two OpenMP runtimes in a process would wait for each other.
    openmp = _loaded_openmp()
    link = f"{compiler} -shared $in -o $out" + (f" {openmp}" if openmp else "")
    return f"{compiler} {_FLAGS if openmp else _FLAGS.replace('-fopenmp', '-fopenmp-simd')}", link


def _cuda_commands(compiler):
    known = subprocess.run([compiler, "--list-gpu-arch"], capture_output=True, text=True).stdout
    architectures = [name for name in _ARCHITECTURES if f"compute_{name}" in known.split()]
    targets = " ".join(f"-gencode=arch=compute_{name},code=sm_{name}" for name in architectures)
    return f"{compiler} -O3 -std=c++17 -Xcompiler -fPIC {targets}", f"{compiler} -shared $in -o $out"


def _compiler(device_type):
    names = [os.environ.get("CXX"), "g++", "clang++", "c++"] if device_type == "cpu" else ["nvcc"]
    found = next((path for path in map(shutil.which, filter(None, names)) if path), None)
    if found is None:
        raise RuntimeError("there is no C++ compiler" if device_type == "cpu" else "there is no nvcc")
    return found


def _ninja():
    beside_python = Path(sys.executable).parent / "ninja"  # found there without an activated environment
    found = str(beside_python) if beside_python.exists() else shutil.which("ninja")
    if found is None:
        raise RuntimeError("ninja is not installed (pip install ninja)")
    return found


@functools.cache
def _version(compiler):
    return subprocess.run([compiler, "--version"], capture_output=True, text=True).stdout


def _processor():
    """What -march=native depends on: a cache may be shared by several machines."""
    try:
        text = Path("/proc/cpuinfo").read_text()
        return sorted({line for line in text.splitlines() if line.startswith(("model name", "flags"))})
    except OSError:
        return platform.processor()


def _loaded_openmp():
    """The OpenMP runtime that torch has brought into this process, or None."""
    try:
        maps = Path("/proc/self/maps").read_text()
    except OSError:
        return None
    found = re.findall(r"(/\S*lib(?:gomp|omp|iomp5)\S*\.so\S*)", maps)
    return found[0] if found else None
