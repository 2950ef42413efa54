"""Convolution of images that are enlarged before it or shrunk after it, in the cheapest order."""

from collections.abc import Sequence

import torch

from . import conv2d_gradfix
from .upfirdn2d import downsampling_padding, parse_padding, upfirdn2d, upsampling_padding


def conv2d_resample(
    x: torch.Tensor,
    w: torch.Tensor,
    f: torch.Tensor | None = None,
    up: int = 1,
    down: int = 1,
    padding: int | Sequence[int] = 0,
    groups: int = 1,
    flip_weight: bool = True,
    flip_filter: bool = False,
) -> torch.Tensor:
    """Upsamples by `up`, convolves with `w`, downsamples by `down`, all with the low-pass filter `f`.

    x: [N, C_in, H, W]. w: [C_out, C_in / groups, kh, kw]. f: from `upfirdn2d.setup_filter`, or None (no filtering).
    padding: with respect to the upsampled image, as in `upfirdn2d`. flip_weight: True correlates, as torch's conv2d
    does; False convolves. flip_filter: the same for f, with True for correlation. Returns [N, C_out, H', W'].
    """
    if not (isinstance(up, int) and up >= 1 and isinstance(down, int) and down >= 1):
        raise ValueError(f"up and down must be positive integers, not {up} and {down}")
    kernel = tuple(w.shape[2:])
    padding = parse_padding(padding)
    if up > 1:
        padding = [p + e for p, e in zip(padding, upsampling_padding(f, up))]
    if down > 1:
        padding = [p + e for p, e in zip(padding, downsampling_padding(f, down))]

    # A 1×1 kernel commutes with filtering, so it runs where there are fewer pixels.
    if kernel == (1, 1) and up == 1 and down > 1:
        x = upfirdn2d(x, f, down=down, padding=padding, flip_filter=flip_filter)
        return _conv2d(x, w, groups=groups, flip_weight=flip_weight)
    if kernel == (1, 1) and down == 1 and up > 1:
        x = _conv2d(x, w, groups=groups, flip_weight=flip_weight)
        return upfirdn2d(x, f, up=up, padding=padding, gain=up**2, flip_filter=flip_filter)

    # A strided convolution computes only the pixels that downsampling keeps.
    if up == 1 and down > 1:
        x = upfirdn2d(x, f, padding=padding, flip_filter=flip_filter)
        return _conv2d(x, w, stride=down, groups=groups, flip_weight=flip_weight)

    # A transposed convolution skips the zeros between the pixels; the filter comes after it.
    if up > 1:
        x = _upsampling_conv(x, w, f, up, padding, groups, flip_weight, flip_filter)
        return upfirdn2d(x, f, down=down, flip_filter=flip_filter) if down > 1 else x

    left, right, top, bottom = padding
    if left == right >= 0 and top == bottom >= 0:
        return _conv2d(x, w, padding=(top, left), groups=groups, flip_weight=flip_weight)
    return _conv2d(upfirdn2d(x, None, padding=padding), w, groups=groups, flip_weight=flip_weight)


def _conv2d(x, w, stride=1, padding=0, groups=1, flip_weight=True):
    w = w if flip_weight or tuple(w.shape[2:]) == (1, 1) else w.flip([2, 3])
    return conv2d_gradfix.conv2d(x, w, stride=stride, padding=padding, groups=groups)


def _upsampling_conv(x, w, f, up, padding, groups, flip_weight, flip_filter):
    out_channels, in_per_group, kh, kw = w.shape
    w = w.reshape(groups, out_channels // groups, in_per_group, kh, kw).transpose(1, 2)
    w = w.reshape(groups * in_per_group, out_channels // groups, kh, kw)
    w = w.flip([2, 3]) if flip_weight else w
    # Both steps are convolutions over an infinite plane of zeros: what remains is which window to keep.
    left, right, top, bottom = padding
    left, right, top, bottom = left - (kw - 1), right - (kw - up), top - (kh - 1), bottom - (kh - up)
    crop_x, crop_y = max(min(-left, -right), 0), max(min(-top, -bottom), 0)
    x = conv2d_gradfix.conv_transpose2d(x, w, stride=up, padding=(crop_y, crop_x), groups=groups)
    padding = [left + crop_x, right + crop_x, top + crop_y, bottom + crop_y]
    return upfirdn2d(x, f, padding=padding, gain=up**2, flip_filter=flip_filter)
