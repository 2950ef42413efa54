"""Fused multiply and add."""

import torch


def fma(a, b, c):
    """`a · b + c` with broadcasting, in one pass over memory; differentiable any number of times."""
    return torch.addcmul(c, a, b)
