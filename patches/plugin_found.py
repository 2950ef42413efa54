"""`custom_ops.get_plugin` imports by name what it has just built, which PyTorch's loader no longer leaves to be found.

Without this every GPU runs on the slow path, after a warning. What is loaded becomes known under its name.
"""

import functools
import sys

import torch

TARGET = "torch_utils.custom_ops"


def needed(_module):
    return torch.cuda.is_available()


def apply(_custom_ops):
    from torch.utils import cpp_extension

    load = cpp_extension.load

    @functools.wraps(load)
    def load_and_keep(name, *args, **kwargs):
        sys.modules[name] = load(name, *args, **kwargs)
        return sys.modules[name]

    cpp_extension.load = load_and_keep
