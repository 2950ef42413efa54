"""Builds native code on first use and finds it again later: extensions of PyTorch, and the CPU's kernels without it.

The kernels take seconds to build where an extension, with the headers of PyTorch, takes a minute. They need a C++
compiler and ninja. The library is kept in the cache by a digest of sources, compiler, processor and torch
version; so is what the compiler finds wrong with the sources, for a day.
"""

import functools
import hashlib
import os
import platform
import re
import shutil
import subprocess
import sys
import tempfile
import time
import types
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch

import dnnlib

verbosity = "brief"  # "none": silent, "brief": one line a build, "full": the compiler's output too

_plugins = {}

_FLAGS = "-O3 -march=native -std=c++17 -fopenmp -fPIC -fno-math-errno -fno-trapping-math -fno-signed-zeros"
_REMEMBERED = 24 * 3600  # seconds for which a failure counts as one
# What a compiler says when the machine is at fault, not the sources: trying again may help.
_PASSING = re.compile(
    "killed|signal|memory|no space left|too large|quota|temporarily|interrupted|said nothing", re.IGNORECASE
)


def get_plugin(module_name: str, sources: Sequence[str | os.PathLike], **build_kwargs: Any) -> types.ModuleType:
    """The extension module `module_name` built from `sources` (paths of .cpp and .cu files).

    A build is kept in the cache by a digest of its sources, options, and the versions of torch and Python, and reused
    by later processes. RuntimeError with the compiler's reason when it fails. `build_kwargs` go to
    `torch.utils.cpp_extension.load`.
    """
    if verbosity not in ("none", "brief", "full"):
        raise ValueError(f"custom_ops.verbosity must be none, brief or full, not {verbosity!r}")
    if module_name in _plugins:
        return _plugins[module_name]
    from torch.utils import cpp_extension  # slow to import

    digest = hashlib.sha256(repr((torch.__version__, sys.version, sorted(build_kwargs.items()))).encode())
    for source in sources:
        digest.update(Path(source).read_bytes())
    folder = dnnlib.make_cache_dir_path("plugins", module_name, digest.hexdigest()[:32])
    os.makedirs(folder, exist_ok=True)
    # ninja, installed beside this interpreter, is found only through PATH.
    os.environ["PATH"] = os.pathsep.join([os.path.dirname(sys.executable), os.environ.get("PATH", "")])
    if verbosity != "none":
        print(f'Setting up PyTorch plugin "{module_name}"... ', end="", flush=True)
    try:
        plugin = cpp_extension.load(
            module_name, [str(s) for s in sources], build_directory=folder, verbose=verbosity == "full", **build_kwargs
        )
    except Exception as error:
        if verbosity != "none":
            print("Failed!")
        lines = [line for line in str(error).splitlines() if re.search(r"error|not found", line, re.I)]
        raise RuntimeError(f"{module_name} could not be built: {(lines or [str(error)])[0].strip()}") from error
    if verbosity != "none":
        print("Done.")
    _plugins[module_name] = plugin
    return plugin


def get_library(sources: Sequence[Path], headers: Sequence[Path]) -> Path:
    """Path of a library of C functions, built from `sources` if it is not in the cache.

    RuntimeError with the compiler's reason when that fails, or failed in the last day for a reason that will not pass.
    """
    compiler = _compiler()
    digest = hashlib.sha256(repr((compiler, _version(compiler), _FLAGS, _processor(), torch.__version__)).encode())
    for path in [*sources, *headers]:
        digest.update(path.read_bytes())
    folder = Path(dnnlib.util.make_cache_dir_path("kernels", f"cpu-{digest.hexdigest()[:24]}"))
    library, failure = folder / "kernels.so", folder / "failure.txt"
    if library.exists():
        return library
    if failure.exists() and time.time() - failure.stat().st_mtime < _REMEMBERED:
        raise RuntimeError(f"{failure.read_text()} (remembered in {folder}; delete that folder to try again)")
    ninja = _ninja()
    folder.mkdir(parents=True, exist_ok=True)
    if verbosity != "none":
        print("Building kernels for cpu, once... ", end="", file=sys.stderr, flush=True)
    with tempfile.TemporaryDirectory(dir=folder) as workplace:  # several processes may build at once
        try:
            _build(Path(workplace), sources, compiler, ninja)
        except RuntimeError as error:
            if verbosity != "none":
                print("Failed!", file=sys.stderr)
            if not _PASSING.search(str(error)):
                failure.write_text(str(error))
            raise
        os.replace(Path(workplace) / "kernels.so", library)
    failure.unlink(missing_ok=True)
    if verbosity != "none":
        print("Done.", file=sys.stderr)
    return library


def _build(workplace, sources, compiler, ninja):
    compile_, link = _commands(compiler)
    lines = [f"rule compile\n  command = {compile_} -c $in -o $out", f"rule link\n  command = {link}"]
    lines += [f"build {path.stem}.o: compile {path}" for path in sources]
    lines += [f"build kernels.so: link {' '.join(f'{path.stem}.o' for path in sources)}", ""]
    (workplace / "build.ninja").write_text("\n".join(lines))
    done = subprocess.run([ninja, "-C", str(workplace)], capture_output=True, text=True)
    if done.returncode != 0:
        said = [line for line in (done.stdout + done.stderr).splitlines() if re.search(r"error|not found", line, re.I)]
        raise RuntimeError((said or ["the build failed and said nothing"])[0].strip())


def _commands(compiler):
    # The kernels must use the threads that torch has. Two OpenMP runtimes in a process would wait for each other.
    openmp = _loaded_openmp()
    link = f"{compiler} -shared $in -o $out" + (f" {openmp}" if openmp else "")
    return f"{compiler} {_FLAGS if openmp else _FLAGS.replace('-fopenmp', '-fopenmp-simd')}", link


def _compiler():
    names = filter(None, [os.environ.get("CXX"), "g++", "clang++", "c++"])
    found = next((path for path in map(shutil.which, names) if path), None)
    if found is None:
        raise RuntimeError("there is no C++ compiler")
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
