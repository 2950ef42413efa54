"""`misc.copy_params_and_buffers` writes in place, which PyTorch refuses for parameters that require gradients.

It runs under `no_grad`, and gives the parameters back as they were.
"""

import torch

TARGET = "torch_utils.misc"


def needed(_module):
    return True


def apply(misc):
    misc.copy_params_and_buffers = torch.no_grad()(misc.copy_params_and_buffers)
