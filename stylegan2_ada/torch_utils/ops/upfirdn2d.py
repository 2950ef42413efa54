"""Upsampling, FIR filtering and downsampling of images, in one differentiable operation.

The three steps, per channel and without aliasing control of their own: insert `up − 1` zeros after every pixel, pad (or
crop, where padding is negative), convolve with the filter keeping only positions it covers fully, keep every `down`-th
pixel. The adjoint of such an operation is another one with `up` and `down` exchanged and the filter flipped, so that
gradients of any order cost no more than the operation itself.
"""

import ctypes
from collections.abc import Sequence
from typing import NamedTuple

import torch
import torch.nn.functional as F

from torch_utils import kernels


def setup_filter(
    f: torch.Tensor | Sequence | float | None,
    device: torch.device | str = torch.device("cpu"),
    normalize: bool = True,
    flip_filter: bool = False,
    gain: float = 1,
    separable: bool | None = None,
) -> torch.Tensor:
    """Makes a float32 filter for the functions below.

    f: [height, width], a one-dimensional filter [taps] that stands for its outer product, a number, or None (identity).
    normalize: the sum becomes 1. gain: total gain of the filtering. separable: keep a one-dimensional filter so
    (None: from 8 taps on). Returns [height, width], or [taps] if separable.
    """
    f = torch.as_tensor(1 if f is None else f, dtype=torch.float32, device="cpu").clone()
    if f.ndim not in (0, 1, 2) or f.numel() == 0:
        raise ValueError(f"a filter has one or two dimensions, not the shape {list(f.shape)}")
    f = f[None] if f.ndim == 0 else f
    if separable is None:
        separable = f.ndim == 1 and f.numel() >= 8
    if separable and f.ndim != 1:
        raise ValueError("a two-dimensional filter cannot be kept separable")
    if f.ndim == 1 and not separable:
        f = torch.outer(f, f)
    if normalize:
        f = f / f.sum()
    if flip_filter:
        f = f.flip(list(range(f.ndim)))
    return (f * gain ** (f.ndim / 2)).to(device)


def upfirdn2d(
    x: torch.Tensor,
    f: torch.Tensor | None,
    up: int | Sequence[int] = 1,
    down: int | Sequence[int] = 1,
    padding: int | Sequence[int] = 0,
    flip_filter: bool = False,
    gain: float = 1,
    impl: str = "cuda",
) -> torch.Tensor:
    """Pads, upsamples, filters and downsamples a batch of images.

    x: [N, C, H, W]. f: from `setup_filter`, or None for the identity. up, down: int or [x, y]. padding, in pixels of
    the upsampled image: int, [x, y] or [left, right, top, bottom]; negative values crop. flip_filter: False convolves,
    True correlates. gain: scale of the result. impl: 'cuda' for the native kernel of the tensor's device where there is
    one, 'ref' for plain PyTorch. Returns [N, C, outH, outW]; no gradient reaches f.
    """
    if impl not in ("ref", "cuda"):
        raise ValueError(f"impl must be 'ref' or 'cuda', not {impl!r}")
    if x.ndim != 4:
        raise ValueError(f"images must be [N, C, H, W], not {list(x.shape)}")
    f = torch.ones([1, 1], device=x.device) if f is None else f
    up, down, (left, right, top, bottom) = _pair(up), _pair(down), parse_padding(padding)
    f = f.detach().to(torch.float32) * gain ** (f.ndim / 2)
    kernel = kernels.kernel("upfirdn2d", x) if impl == "cuda" else None
    if f.ndim == 2:
        return _apply(x, f, _Geometry(up, down, (left, right, top, bottom), bool(flip_filter)), kernel)
    row = _Geometry((up[0], 1), (down[0], 1), (left, right, 0, 0), bool(flip_filter))
    column = _Geometry((1, up[1]), (1, down[1]), (0, 0, top, bottom), bool(flip_filter))
    return _apply(_apply(x, f[None, :], row, kernel), f[:, None], column, kernel)


def filter2d(
    x: torch.Tensor,
    f: torch.Tensor | None,
    padding: int | Sequence[int] = 0,
    flip_filter: bool = False,
    gain: float = 1,
    impl: str = "cuda",
) -> torch.Tensor:
    """Filters images [N, C, H, W] without changing their size; `padding` is in addition to what that needs."""
    width, height = filter_size(f)
    extra = (width // 2, (width - 1) // 2, height // 2, (height - 1) // 2)
    padding = [p + e for p, e in zip(parse_padding(padding), extra)]
    return upfirdn2d(x, f, padding=padding, flip_filter=flip_filter, gain=gain, impl=impl)


def upsample2d(
    x: torch.Tensor,
    f: torch.Tensor | None,
    up: int | Sequence[int] = 2,
    padding: int | Sequence[int] = 0,
    flip_filter: bool = False,
    gain: float = 1,
    impl: str = "cuda",
) -> torch.Tensor:
    """Enlarges images [N, C, H, W] to [N, C, H·up, W·up]; `padding` is in pixels of the result."""
    up = _pair(up)
    padding = [p + e for p, e in zip(parse_padding(padding), upsampling_padding(f, up))]
    return upfirdn2d(x, f, up=up, padding=padding, flip_filter=flip_filter, gain=gain * up[0] * up[1], impl=impl)


def downsample2d(
    x: torch.Tensor,
    f: torch.Tensor | None,
    down: int | Sequence[int] = 2,
    padding: int | Sequence[int] = 0,
    flip_filter: bool = False,
    gain: float = 1,
    impl: str = "cuda",
) -> torch.Tensor:
    """Shrinks images [N, C, H, W] to [N, C, H/down, W/down]; `padding` is in pixels of the input."""
    down = _pair(down)
    padding = [p + e for p, e in zip(parse_padding(padding), downsampling_padding(f, down))]
    return upfirdn2d(x, f, down=down, padding=padding, flip_filter=flip_filter, gain=gain, impl=impl)


# ---------------------------------------------------------------------------------------------------------------------
# Sizes, also for conv2d_resample


def filter_size(f: torch.Tensor | None) -> tuple[int, int]:
    """(width, height) in pixels."""
    return (1, 1) if f is None else (f.shape[-1], f.shape[0])


def upsampling_padding(f: torch.Tensor | None, up: int | Sequence[int]) -> list[int]:
    """[left, right, top, bottom] that makes an upsampled image exactly `up` times as large."""
    (width, height), (up_x, up_y) = filter_size(f), _pair(up)
    return [(width + up_x - 1) // 2, (width - up_x) // 2, (height + up_y - 1) // 2, (height - up_y) // 2]


def downsampling_padding(f: torch.Tensor | None, down: int | Sequence[int]) -> list[int]:
    """[left, right, top, bottom] that makes a downsampled image exactly `down` times smaller."""
    (width, height), (down_x, down_y) = filter_size(f), _pair(down)
    return [(width - down_x + 1) // 2, (width - down_x) // 2, (height - down_y + 1) // 2, (height - down_y) // 2]


def _pair(value):
    x, y = (value, value) if isinstance(value, int) else value
    if x < 1 or y < 1:
        raise ValueError(f"a factor must be at least 1, not {value}")
    return int(x), int(y)


def parse_padding(padding: int | Sequence[int]) -> tuple[int, int, int, int]:
    """left, right, top, bottom"""
    if isinstance(padding, int):
        return (padding,) * 4
    values = tuple(int(p) for p in padding)
    return (values[0], values[0], values[1], values[1]) if len(values) == 2 else values


# ---------------------------------------------------------------------------------------------------------------------
# The operation


class _Geometry(NamedTuple):
    up: tuple  # x, y
    down: tuple  # x, y
    padding: tuple  # left, right, top, bottom
    flip: bool

    def adjoint(self, in_size, out_size, f):
        """The geometry that takes a gradient of the output's size to one of the input's; sizes are (height, width)."""
        left, _, top, _ = self.padding
        (width, height), (in_h, in_w), (out_h, out_w) = filter_size(f), in_size, out_size
        padding = (
            width - left - 1,
            in_w * self.up[0] - out_w * self.down[0] + left - self.up[0] + 1,
            height - top - 1,
            in_h * self.up[1] - out_h * self.down[1] + top - self.up[1] + 1,
        )
        return _Geometry(self.down, self.up, padding, not self.flip)

    def out_size(self, in_size, f):
        """(height, width); ValueError if the filter does not fit into the padded image."""
        (width, height), (in_h, in_w), (left, right, top, bottom) = filter_size(f), in_size, self.padding
        free_w, free_h = in_w * self.up[0] + left + right - width, in_h * self.up[1] + top + bottom - height
        if free_w < 0 or free_h < 0:
            raise ValueError(f"images of {in_h}×{in_w} are too small for a {height}×{width} filter with this padding")
        return free_h // self.down[1] + 1, free_w // self.down[0] + 1


def _apply(x, f, geometry, kernel):
    return (_Upfirdn.apply if torch.is_grad_enabled() else _run)(x, f, geometry, kernel)


def _run(x, f, geometry, kernel):
    out_size = geometry.out_size(x.shape[2:], f)
    return _plain(x, f, geometry) if kernel is None else _native(x, f, geometry, out_size, kernel)


class _Upfirdn(torch.autograd.Function):
    @staticmethod
    def forward(ctx, x, f, geometry, kernel):
        ctx.save_for_backward(f)
        y = _run(x, f, geometry, kernel)
        ctx.adjoint, ctx.kernel = geometry.adjoint(x.shape[2:], y.shape[2:], f), kernel
        return y

    @staticmethod
    def backward(ctx, dy):
        (f,) = ctx.saved_tensors
        return _Upfirdn.apply(dy, f, ctx.adjoint, ctx.kernel), None, None, None


def _native(x, f, geometry, out_size, kernel):
    """`geometry` with a kernel of csrc/upfirdn2d.cpp or triton_kernels.py"""
    x, memory_format = kernels.dense(x)
    f = (f if geometry.flip else f.flip([0, 1])).contiguous()
    if kernels.is_triton(kernel):
        return kernel(x, f, out_size, geometry.up, geometry.down, geometry.padding[::2])
    batch, channels, in_h, in_w = x.shape
    y = torch.empty([batch, channels, *out_size], dtype=x.dtype, device=x.device, memory_format=memory_format)
    vector = channels if memory_format == torch.channels_last else 1
    planes = batch * channels // vector
    sizes = (planes, in_h, in_w, *out_size, *f.shape, *geometry.up, *geometry.down, *geometry.padding[::2], vector)
    pointers = [kernels.pointer(t) for t in (x, f, y)]
    parameters = (ctypes.c_int64 * len(sizes))(*sizes)
    kernel(*pointers, parameters, kernels.threads_for(max(x.numel(), y.numel())))
    return y


def _plain(x, f, geometry):
    """`geometry` with PyTorch's depthwise convolutions."""
    (up_x, up_y), (down_x, down_y) = geometry.up, geometry.down
    left, right, top, bottom = geometry.padding
    height, width = f.shape
    channels = x.shape[1]
    enlarges = up_x > 1 or up_y > 1
    # A transposed convolution spreads the kernel as it is, a plain one (a correlation in torch) reads it mirrored.
    kernel = f.flip([0, 1]) if geometry.flip == enlarges else f
    kernel = kernel.to(x.dtype).expand(channels, 1, height, width).contiguous()
    if not enlarges:
        options = dict(stride=(down_y, down_x), groups=channels)
        if left == right >= 0 and top == bottom >= 0:  # the convolution pads so by itself
            return F.conv2d(x, kernel, padding=(top, left), **options)
        return F.conv2d(_pad(x, left, right, top, bottom), kernel, **options)
    # Stretching each pixel into a kernel is what inserting zeros and filtering amounts to, minus the zeros' work.
    crops = (width - 1 - left, width - up_x - right, height - 1 - top, height - up_y - bottom)
    inside = max(min(crops[2:]), 0), max(min(crops[:2]), 0)  # what the convolution itself need not compute
    x = F.conv_transpose2d(x, kernel, stride=(up_y, up_x), padding=inside, groups=channels)
    rest = [inside[1] - crops[0], inside[1] - crops[1], inside[0] - crops[2], inside[0] - crops[3]]
    x = _pad(x, *rest) if any(rest) else x
    return x[:, :, ::down_y, ::down_x].contiguous() if down_x > 1 or down_y > 1 else x


def _pad(x, left, right, top, bottom):
    """Zeros around x; negative numbers take off as many rows or columns, zeros of the other side among them."""
    height, width = x.shape[2:]
    if min(left, right) <= -width or min(top, bottom) <= -height:  # nothing of x is left, which F.pad refuses
        return x.new_zeros([*x.shape[:2], height + top + bottom, width + left + right])
    return F.pad(x, [left, right, top, bottom])


def _self_test(device):
    """`kernels.register`"""
    resample = dict(f=setup_filter([1, 3, 3, 1], device=device), up=2, padding=[2, 1, 2, 1])
    return lambda x, *_: upfirdn2d(x, **resample), lambda x, *_: upfirdn2d(x, **resample, impl="ref")


kernels.register(["upfirdn2d"], _self_test)
