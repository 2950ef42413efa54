"""Fused multiply and add."""

import torch


def fma(a: torch.Tensor, b: torch.Tensor, c: torch.Tensor) -> torch.Tensor:
    """`a · b + c` with broadcasting, in one pass over memory; differentiable any number of times."""
    return torch.addcmul(c, a, b)
