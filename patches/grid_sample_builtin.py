"""`grid_sample_gradfix` only knows PyTorch 1.7 to 1.9, warns at every other and falls back to the built-in function.

Since PyTorch 1.11 the built-in one has the second derivatives that it was made for, and takes its place silently.
"""

import torch

TARGET = "torch_utils.ops.grid_sample_gradfix"


def needed(_module):
    return True


def apply(grid_sample_gradfix):
    grid_sample_gradfix.grid_sample = grid_sample


def grid_sample(input, grid):
    """input [N, C, H, W], grid [N, H', W', 2] in [−1, 1] → [N, C, H', W'], bilinear, zero outside"""
    return torch.nn.functional.grid_sample(input, grid, mode="bilinear", padding_mode="zeros", align_corners=False)
