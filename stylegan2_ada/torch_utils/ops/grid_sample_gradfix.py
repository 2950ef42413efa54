"""Bilinear sampling of images, differentiable with respect to them any number of times."""

from collections.abc import Callable

import torch
import torch.nn.functional as F

enabled = True  # kept for callers that set it: there is only one way here


def grid_sample(input: torch.Tensor, grid: torch.Tensor) -> torch.Tensor:
    """Values of `input` [N, C, H, W] at `grid` [N, H', W', 2] (x, y in [−1, 1] from edge to edge, zeros outside)."""
    sample = lambda x: F.grid_sample(x, grid, mode="bilinear", padding_mode="zeros", align_corners=False)
    if grid.requires_grad:
        return sample(input)

    def spread(y):  # what `sample` is the transpose of
        x = input.new_empty(1).expand(input.shape)  # only its shape counts
        return torch.ops.aten.grid_sampler_2d_backward(y, x, grid, 0, 0, False, [True, False])[0]

    return _Linear.apply(input, sample, spread)


class _Linear(torch.autograd.Function):
    """y = f(x) for a linear f. Its gradient is its transpose, whose gradient is f; PyTorch 2.4's own stops there."""

    @staticmethod
    def forward(ctx, x: torch.Tensor, f: Callable, transpose: Callable) -> torch.Tensor:
        """f(x)"""
        ctx.pair = transpose, f
        return f(x)

    @staticmethod
    def backward(ctx, dy: torch.Tensor) -> tuple[torch.Tensor, None, None]:
        """Transpose of f at dy"""
        return _Linear.apply(dy, *ctx.pair), None, None
