"""`Tensor.pin_memory()` raises where there is no accelerator (current PyTorch); it then returns the tensor as it is.

Called in `training_loop`, `metric_utils` and `perceptual_path_length`.
"""

import torch

TARGET = None


def needed(_module):
    return not torch.cuda.is_available()


def apply(_module):
    torch.Tensor.pin_memory = lambda self, *_device: self
