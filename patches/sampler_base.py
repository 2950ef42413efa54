"""`misc.InfiniteSampler` hands its data set to torch's Sampler, whose constructor takes nothing since PyTorch 2.10.

Its base becomes one that ignores what it is given.
"""

import torch

TARGET = "torch_utils.misc"


class Sampler(torch.utils.data.Sampler):
    def __init__(self, *_data_source):
        pass


def needed(_module):
    try:
        torch.utils.data.Sampler([])
    except TypeError:
        return True
    return False


def apply(misc):
    misc.InfiniteSampler.__bases__ = (Sampler,)
