"""Builds and loads native extensions on first use."""

import hashlib
import os
import re
import sys
from pathlib import Path

import torch

import dnnlib

verbosity = "brief"  # "none": silent, "brief": one line a build, "full": the compiler's output too

_plugins = {}


def get_plugin(module_name, sources, **build_kwargs):
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
