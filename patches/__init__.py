"""What an unmodified checkout of NVlabs/stylegan2-ada-pytorch needs on current PyTorch, mended at run time.

Each module here mends one thing: its docstring says what fails and since when, `TARGET` names the module of the
checkout that it mends (None: something that has to be there before any is imported), `needed(module)` says whether
it has the problem on this machine, `apply(module)` mends it. No file of the checkout is touched.
"""

import importlib
import importlib.util

from . import cpu

PATCHES = [
    "distutils_util",
    "plugin_found",
    "imageio_on_use",
    "sampler_base",
    "copy_without_gradients",
    "failed_source",
    "filter_is_copied",
    "grid_sample_again",
    "zip_per_process",
    "pinned_memory",
    "percentile_method",
    "half_cdist",
    "sqrtm_value",
    "loop_on_cpu",
    "metrics_on_cpu",
]


def apply_all():
    """Mends the host on the path, in the order of `PATCHES`; returns the names of what was needed."""
    applied = []
    for name in PATCHES:
        patch = importlib.import_module(f".{name}", __package__)
        if patch.TARGET is not None and importlib.util.find_spec(patch.TARGET) is None:
            continue  # a fork without that module
        module = importlib.import_module(patch.TARGET) if patch.TARGET else None
        if patch.needed(module):
            patch.apply(module)
            applied.append(name)
    return applied


def mend_script(module):
    """Lets a command-line script of the checkout run without CUDA."""
    if cpu.needed(module):
        cpu.apply(module)
