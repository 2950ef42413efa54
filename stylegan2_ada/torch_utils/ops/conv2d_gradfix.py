"""Convolutions whose second-order gradients are convolutions too.

PyTorch's double backward of a convolution is correct but slow (it slides one image over another, group by group). Here
the gradient with respect to the input is a transposed convolution and the one with respect to the weight an operation
of its own; differentiating either again gives nothing but those same three operations.
"""

import contextlib
from typing import NamedTuple

import torch

enabled = True  # False: PyTorch's own operators
weight_gradients_disabled = False  # True: no gradient is computed with respect to weights


@contextlib.contextmanager
def no_weight_gradients():
    """Inside, a backward pass through these convolutions leaves the weights' gradients at None.

    Saves work where only gradients with respect to images or latents are wanted (R1, path length).
    """
    global weight_gradients_disabled
    old = weight_gradients_disabled
    weight_gradients_disabled = True
    try:
        yield
    finally:
        weight_gradients_disabled = old


def conv2d(input, weight, bias=None, stride=1, padding=0, dilation=1, groups=1):
    """As `torch.nn.functional.conv2d`."""
    return _convolution(input, weight, bias, _Spec(_pair(stride), _pair(padding), _pair(dilation), groups))


def conv_transpose2d(input, weight, bias=None, stride=1, padding=0, output_padding=0, groups=1, dilation=1):
    """As `torch.nn.functional.conv_transpose2d`."""
    spec = _Spec(_pair(stride), _pair(padding), _pair(dilation), groups, True, _pair(output_padding))
    return _convolution(input, weight, bias, spec)


class _Spec(NamedTuple):
    stride: tuple
    padding: tuple
    dilation: tuple
    groups: int
    transposed: bool = False
    output_padding: tuple = (0, 0)

    def run(self, x, w):
        s = self
        return torch.convolution(x, w, None, s.stride, s.padding, s.dilation, s.transposed, s.output_padding, s.groups)

    def adjoint(self, in_size, out_size, kernel_size):
        """The convolution with the same weight that maps gradients of the output to gradients of the input."""
        if self.transposed:
            return self._replace(transposed=False, output_padding=(0, 0))
        reached = [
            (out - 1) * stride - 2 * pad + dilation * (kernel - 1) + 1
            for out, stride, pad, dilation, kernel in zip(
                out_size, self.stride, self.padding, self.dilation, kernel_size
            )
        ]
        return self._replace(transposed=True, output_padding=tuple(i - r for i, r in zip(in_size, reached)))


def _pair(value):
    return (value, value) if isinstance(value, int) else tuple(value)


def _convolution(x, weight, bias, spec):
    if enabled:
        y = _Convolution.apply(x, weight, spec)
    else:
        y = spec.run(x, weight)
    return y if bias is None else y + bias.reshape(1, -1, 1, 1)


class _Convolution(torch.autograd.Function):
    """y = weight ∗ x"""

    @staticmethod
    def forward(ctx, x, weight, spec):
        ctx.save_for_backward(x, weight)
        y = spec.run(x, weight)
        ctx.spec = spec
        ctx.adjoint = spec.adjoint(x.shape[2:], y.shape[2:], weight.shape[2:])
        return y

    @staticmethod
    def backward(ctx, dy):
        x, weight = ctx.saved_tensors
        dx = _Convolution.apply(dy, weight, ctx.adjoint) if ctx.needs_input_grad[0] else None
        wanted = ctx.needs_input_grad[1] and not weight_gradients_disabled
        dw = _WeightGradient.apply(dy, x, weight.shape, ctx.spec, ctx.adjoint) if wanted else None
        return dx, dw, None


class _WeightGradient(torch.autograd.Function):
    """dw of a convolution, bilinear in dy and x."""

    @staticmethod
    def forward(ctx, dy, x, weight_shape, spec, adjoint):
        ctx.save_for_backward(dy, x)
        ctx.spec, ctx.adjoint = spec, adjoint
        empty = torch.empty(weight_shape, dtype=x.dtype, device=x.device)  # only its shape and type are read
        options = (spec.stride, spec.padding, spec.dilation, spec.transposed, spec.output_padding, spec.groups)
        return torch.ops.aten.convolution_backward(dy, x, empty, None, *options, [False, True, False])[1]

    @staticmethod
    def backward(ctx, ddw):
        dy, x = ctx.saved_tensors
        d_dy = _Convolution.apply(x, ddw, ctx.spec) if ctx.needs_input_grad[0] else None
        d_x = _Convolution.apply(dy, ddw, ctx.adjoint) if ctx.needs_input_grad[1] else None
        return d_dy, d_x, None, None, None
