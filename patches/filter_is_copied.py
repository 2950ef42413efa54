"""`upfirdn2d.setup_filter` normalises an array or tensor of the caller's in place. It gets a copy."""

import copy

import torch

TARGET = "torch_utils.ops.upfirdn2d"


def needed(upfirdn2d):
    taps = torch.tensor([1.0, 3.0])
    upfirdn2d.setup_filter(taps)
    return taps.sum() != 4


def apply(upfirdn2d):
    setup_filter = upfirdn2d.setup_filter
    upfirdn2d.setup_filter = lambda f, *args, **kwargs: setup_filter(copy.deepcopy(f), *args, **kwargs)
