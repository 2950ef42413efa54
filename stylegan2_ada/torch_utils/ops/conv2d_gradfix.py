"""Convolutions whose second-order gradients are convolutions too.

PyTorch's double backward of a convolution is correct but slow (it slides one image over another, group by group). Here
the gradient with respect to the input is a transposed convolution and the one with respect to the weight an operation
of its own; differentiating either again gives nothing but those same three operations.
"""

import contextlib
import ctypes
from collections.abc import Iterator, Sequence
from typing import NamedTuple

import torch

from torch_utils import cached_weights, kernels

enabled = True  # False: PyTorch's own operators
weight_gradients_disabled = False  # True: no gradient is computed with respect to weights


@contextlib.contextmanager
def no_weight_gradients() -> Iterator[None]:
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


def conv2d(
    input: torch.Tensor,
    weight: torch.Tensor,
    bias: torch.Tensor | None = None,
    stride: int | Sequence[int] = 1,
    padding: int | Sequence[int] = 0,
    dilation: int | Sequence[int] = 1,
    groups: int = 1,
) -> torch.Tensor:
    """As `torch.nn.functional.conv2d`."""
    return _convolution(input, weight, bias, _Spec(_pair(stride), _pair(padding), _pair(dilation), groups))


def conv_transpose2d(
    input: torch.Tensor,
    weight: torch.Tensor,
    bias: torch.Tensor | None = None,
    stride: int | Sequence[int] = 1,
    padding: int | Sequence[int] = 0,
    output_padding: int | Sequence[int] = 0,
    groups: int = 1,
    dilation: int | Sequence[int] = 1,
) -> torch.Tensor:
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
        kernel = self.kernel("conv2d", x, w)
        return self.plain(x, w) if kernel is None else _native(kernel, self, x, w)

    def plain(self, x, w):
        s = self
        return torch.convolution(x, w, None, s.stride, s.padding, s.dilation, s.transposed, s.output_padding, s.groups)

    def kernel(self, op, *tensors):
        """The native kernel of an operation of this kind, or None where there is none (grouped, dilated, mixed)."""
        simple = self.groups == 1 and self.dilation == (1, 1) and self.stride[0] == self.stride[1]
        alike = len({t.dtype for t in tensors}) == 1 and all(t.ndim == 4 for t in tensors)
        return kernels.kernel(op, *tensors) if simple and alike and min(self.padding) >= 0 else None

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
    if not enabled:
        y = spec.plain(x, weight)
    else:
        y = _Convolution.apply(x, weight, spec) if torch.is_grad_enabled() else spec.run(x, weight)
    return y if bias is None else y + bias.reshape(1, -1, 1, 1)


class _Convolution(torch.autograd.Function):
    """y = weight ∗ x"""

    @staticmethod
    def forward(ctx, x, weight, spec):
        ctx.save_for_backward(x, weight)
        y = spec.run(x, weight)
        ctx.spec = spec
        ctx.out_size = y.shape[2:]
        return y

    @staticmethod
    def backward(ctx, dy):
        x, weight = ctx.saved_tensors
        adjoint = ctx.spec.adjoint(x.shape[2:], ctx.out_size, weight.shape[2:])
        dx = _Convolution.apply(dy, weight, adjoint) if ctx.needs_input_grad[0] else None
        wanted = ctx.needs_input_grad[1] and not weight_gradients_disabled
        dw = _WeightGradient.apply(dy, x, weight.shape, ctx.spec, adjoint) if wanted else None
        return dx, dw, None


class _WeightGradient(torch.autograd.Function):
    """dw of a convolution, bilinear in dy and x."""

    @staticmethod
    def forward(ctx, dy, x, weight_shape, spec, adjoint):
        ctx.save_for_backward(dy, x)
        ctx.spec, ctx.adjoint = spec, adjoint
        kernel = spec.kernel("conv2d_weight", dy, x)
        if kernel is not None:
            return _native_weight_gradient(kernel, spec, dy, x, weight_shape)
        empty = torch.empty(weight_shape, dtype=x.dtype, device=x.device)  # only its shape and type are read
        options = (spec.stride, spec.padding, spec.dilation, spec.transposed, spec.output_padding, spec.groups)
        return torch.ops.aten.convolution_backward(dy, x, empty, None, *options, [False, True, False])[1]

    @staticmethod
    def backward(ctx, ddw):
        dy, x = ctx.saved_tensors
        d_dy = _Convolution.apply(x, ddw, ctx.spec) if ctx.needs_input_grad[0] else None
        d_x = _Convolution.apply(dy, ddw, ctx.adjoint) if ctx.needs_input_grad[1] else None
        return d_dy, d_x, None, None, None


# ---------------------------------------------------------------------------------------------------------------------
# Native kernels (csrc/conv2d.cpp): channels-last images in and out


def _native(kernel, spec, x, w):
    """`spec` of x [N, C, H, W] and w."""
    x = x.contiguous(memory_format=torch.channels_last)
    in_dim, out_dim = (0, 1) if spec.transposed else (1, 0)
    if x.shape[1] != w.shape[in_dim]:
        raise RuntimeError(f"weights {list(w.shape)} do not fit images {list(x.shape)}")
    spatial = zip(x.shape[2:], w.shape[2:], spec.padding, spec.output_padding)
    if spec.transposed:
        size = [(i - 1) * spec.stride[0] + k - 2 * pad + more for i, k, pad, more in spatial]
    else:
        size = [(i + 2 * pad - k) // spec.stride[0] + 1 for i, k, pad, _ in spatial]
    y = torch.empty(
        [x.shape[0], w.shape[out_dim], *size], dtype=x.dtype, device=x.device, memory_format=torch.channels_last
    )
    if y.numel():
        parameters = _parameters(spec, x, y, w.shape, *_dense_steps(w.shape, out_dim))
        prepare = lambda w: _prepare(w.contiguous(), x, parameters)
        prepared = cached_weights.once((spec, x.dtype, *size), w, prepare)  # the layout depends on the size
        kernel(*map(kernels.pointer, (x, prepared, y)), parameters)
    return y


def _dense_steps(shape, out_dim):
    """How far apart neighbouring output and input channels lie in contiguous weights."""
    inner, outer = shape[2:].numel(), shape[1:].numel()
    return (outer, inner) if out_dim == 0 else (inner, outer)


def _prepare(w, x, parameters):
    """The weights as the kernel reads them."""
    prepared = torch.empty(kernels.kernel("conv2d_prepared_size", x)(parameters), dtype=w.dtype, device=w.device)
    kernels.kernel("conv2d_prepare", x)(kernels.pointer(w), kernels.pointer(prepared), parameters)
    return prepared


def _native_weight_gradient(kernel, spec, dy, x, weight_shape):
    """The gradient of w, like w. A transposed convolution is the adjoint of one that maps dy to x."""
    x, dy = (t.contiguous(memory_format=torch.channels_last) for t in ((dy, x) if spec.transposed else (x, dy)))
    dw = torch.empty(weight_shape, dtype=x.dtype, device=x.device)
    ordinary = spec._replace(transposed=False)
    kernel(*map(kernels.pointer, (x, dy, dw)), _parameters(ordinary, x, dy, dw.shape, *dw.stride()[:2]))
    return dw


def _parameters(spec, x, y, weight_shape, step_out, step_in):
    """struct Conv of csrc/conv2d.cpp."""
    kernel_size, (stride, _) = weight_shape[2:], spec.stride
    sizes = (x.shape[0], *x.shape[2:], x.shape[1], *y.shape[2:], y.shape[1], *kernel_size, stride, *spec.padding)
    work = max(x.numel() * y.shape[1], y.numel() * x.shape[1]) * kernel_size.numel()
    threads = kernels.threads_for(work // 16)
    return (ctypes.c_int64 * 16)(*sizes, spec.transposed, step_out, step_in, threads)


def _self_test(device):
    """`kernels.register`"""

    def convolutions(conv2d, x, w):
        """One of each way to compute them: of large images, of small ones with many channels, and strided"""
        small, many = x.reshape(2, 28, 3, 3), w.repeat(1, 7, 1, 1)
        results = conv2d(x, w, padding=1), conv2d(small, many, padding=1), conv2d(x, w, stride=2)
        return torch.cat([result.flatten() for result in results])

    return (
        lambda x, scale, noise, b, w: convolutions(conv2d, x, w),
        lambda x, scale, noise, b, w: convolutions(torch.nn.functional.conv2d, x, w),
    )


kernels.register(["conv2d", "conv2d_prepare", "conv2d_prepared_size", "conv2d_weight"], _self_test)
