"""Bias, activation, gain and clamp in one call."""

import math
from collections.abc import Callable
from typing import NamedTuple

import torch
import torch.nn.functional as F

import dnnlib


class Activation(NamedTuple):
    """How `bias_act` applies an activation when it is given no alpha and no gain."""

    func: Callable  # func(x, alpha=…)
    def_alpha: float
    def_gain: float  # keeps the second moment of a unit normal input about the same
    cuda_idx: int  # number of the function in the native kernels
    has_2nd_grad: bool  # whether the second derivative is non-zero somewhere
    homogeneous: bool = False  # func(s·x) = s·func(x) for s > 0


activation_funcs = dnnlib.EasyDict(
    linear=Activation(lambda x, alpha: x, 0, 1, 1, False, homogeneous=True),
    relu=Activation(lambda x, alpha: F.relu(x), 0, math.sqrt(2), 2, False, homogeneous=True),
    lrelu=Activation(lambda x, alpha: F.leaky_relu(x, alpha), 0.2, math.sqrt(2), 3, False, homogeneous=True),
    tanh=Activation(lambda x, alpha: torch.tanh(x), 0, 1, 4, True),
    sigmoid=Activation(lambda x, alpha: torch.sigmoid(x), 0, 1, 5, True),
    elu=Activation(lambda x, alpha: F.elu(x), 0, 1, 6, True),
    selu=Activation(lambda x, alpha: F.selu(x), 0, 1, 7, True),
    softplus=Activation(lambda x, alpha: F.softplus(x), 0, 1, 8, True),
    swish=Activation(lambda x, alpha: torch.sigmoid(x) * x, 0, math.sqrt(2), 9, True),
)


def bias_act(x, b=None, dim=1, act="linear", alpha=None, gain=None, clamp=None, impl="cuda"):
    """`clamp(gain · act(x + b))`, differentiable any number of times.

    x: tensor of any shape and floating dtype. b: bias [x.shape[dim]] or None. act: a key of `activation_funcs`.
    alpha: slope of lrelu for negative values. gain: scale after the activation. clamp: the result is limited to
    [−clamp, clamp]; None or a negative number means no limit. None for alpha and gain: the activation's own values.
    impl: 'cuda' for the native kernel of the tensor's device where there is one, 'ref' for plain PyTorch.
    Returns a tensor like x.
    """
    if impl not in ("ref", "cuda"):
        raise ValueError(f"impl must be 'ref' or 'cuda', not {impl!r}")
    if act not in activation_funcs:
        raise ValueError(f"unknown activation {act!r}; known: {', '.join(activation_funcs)}")
    spec = activation_funcs[act]
    alpha = float(spec.def_alpha if alpha is None else alpha)
    gain = float(spec.def_gain if gain is None else gain)
    if b is not None:
        if b.ndim != 1 or not 0 <= dim < x.ndim or b.shape[0] != x.shape[dim]:
            raise ValueError(f"a bias of shape {list(b.shape)} does not fit dimension {dim} of {list(x.shape)}")
        b = b.reshape([-1 if i == dim else 1 for i in range(x.ndim)])

    if spec.homogeneous and gain > 0:  # scaling first costs nothing where it rides on the addition of the bias
        y = _scaled_sum(x, b, gain)
        fresh = y is not x
        y = F.leaky_relu(y, alpha, inplace=fresh) if act == "lrelu" else spec.func(y, alpha=alpha)
    else:
        y = spec.func(_scaled_sum(x, b, 1), alpha=alpha)
        y = y * gain if gain != 1 else y
    return y if clamp is None or clamp < 0 else y.clamp(-clamp, clamp)


def _scaled_sum(x, b, gain):
    """`gain · (x + b)` in one pass over x."""
    if b is None:
        return x if gain == 1 else x * gain
    b = b.to(x.dtype)
    return x + b if gain == 1 else torch.add(b * gain, x, alpha=gain)
