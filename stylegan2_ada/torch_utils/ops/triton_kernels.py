"""The kernels for GPUs, in Triton, which PyTorch's CUDA builds bring: nothing is compiled beforehand.

Images may be contiguous or channels-last, of half, bfloat16, single or double precision; halves are computed in single.
With TRITON_INTERPRET=1 in the environment everything runs on CPU tensors too, slowly.
"""

import functools
import math

import torch
import triton
import triton.language as tl

_BLOCK = 1024  # numbers a program, where they are just a row of numbers
_TILE = 2048  # numbers a program, in tiles of channels by pixels
_LONG_SIDE = 64  # of such a tile, along which numbers are neighbours in memory
_device_of = torch.cuda.device_of  # Triton takes the current device, whichever the tensors belong to

LINEAR, RELU, LRELU = (tl.constexpr(i) for i in (1, 2, 3))  # as in bias_act.activation_funcs
TANH, SIGMOID, ELU, SELU, SOFTPLUS = (tl.constexpr(i) for i in (4, 5, 6, 7, 8))
SELU_RIGHT = tl.constexpr(1.0507009873554804934193349852946)
SELU_LEFT = tl.constexpr(1.0507009873554804934193349852946 * 1.6732632423543772848170429916717)


# ---------------------------------------------------------------------------------------------------------------------
# phi(u) = clamp(gain · act(u)) and its first two derivatives


@triton.jit
def _activation(u, alpha: tl.constexpr, ACT: tl.constexpr, ORDER: tl.constexpr):
    """act (ORDER 0), act' or act'' at u. (A number that is given a name here would lose double precision.)"""
    zero, one = u * 0, u * 0 + 1
    if ACT == LINEAR:
        y = u if ORDER == 0 else one if ORDER == 1 else zero
    elif ACT == RELU:
        y = tl.where(u > 0, u, zero) if ORDER == 0 else tl.where(u > 0, one, zero) if ORDER == 1 else zero
    elif ACT == LRELU:
        y = tl.where(u > 0, u, u * alpha) if ORDER == 0 else tl.where(u > 0, one, one * alpha) if ORDER == 1 else zero
    elif ACT == TANH:
        e = tl.exp(-2 * tl.abs(u))
        t = tl.where(u < 0, (e - 1) / (1 + e), (1 - e) / (1 + e))
        y = t if ORDER == 0 else 1 - t * t if ORDER == 1 else -2 * t * (1 - t * t)
    elif ACT == ELU:
        e = tl.exp(tl.minimum(u, zero))
        y = tl.where(u >= 0, u, e - 1) if ORDER == 0 else tl.where(u >= 0, one if ORDER == 1 else zero, e)
    elif ACT == SELU:
        e = tl.exp(tl.minimum(u, zero)) * SELU_LEFT
        right = (u if ORDER == 0 else one if ORDER == 1 else zero) * SELU_RIGHT
        y = tl.where(u >= 0, right, e - SELU_LEFT if ORDER == 0 else e)
    else:
        e = tl.exp(-tl.abs(u))
        s = tl.where(u >= 0, 1 / (1 + e), e / (1 + e))  # sigmoid
        if ACT == SIGMOID:
            y = s if ORDER == 0 else s * (1 - s) if ORDER == 1 else s * (1 - s) * (1 - 2 * s)
        elif ACT == SOFTPLUS:
            y = tl.maximum(u, zero) + tl.log(1 + e) if ORDER == 0 else s if ORDER == 1 else s * (1 - s)
        else:  # swish
            y = u * s if ORDER == 0 else s * (1 + u * (1 - s)) if ORDER == 1 else s * (1 - s) * (2 + u * (1 - 2 * s))
    return y


@triton.jit
def _forward(
    u, alpha: tl.constexpr, gain: tl.constexpr, clamp: tl.constexpr, ACT: tl.constexpr, LIMITED: tl.constexpr
):  # fmt: skip
    y = gain * _activation(u, alpha, ACT, 0)
    return tl.minimum(tl.maximum(y, -clamp), clamp) if LIMITED else y


@triton.jit
def _derivative(
    saved, alpha: tl.constexpr, gain: tl.constexpr, clamp: tl.constexpr,
    ACT: tl.constexpr, ORDER: tl.constexpr, LIMITED: tl.constexpr,
):  # fmt: skip
    """phi' or phi''. saved: u, or phi(u) for activations that keep the sign, where gain > 0"""
    d = gain * _activation(saved, alpha, ACT, ORDER)
    if LIMITED:
        y = saved if ACT <= LRELU else gain * _activation(saved, alpha, ACT, 0)
        d = tl.where((y > -clamp) & (y < clamp), d, d * 0)
    return d


# ---------------------------------------------------------------------------------------------------------------------
# bias_act


@triton.jit
def _bias_act(
    x, b, h, saved, out, size, step, channels,
    alpha: tl.constexpr, gain: tl.constexpr, clamp: tl.constexpr, ACT: tl.constexpr, ORDER: tl.constexpr,
    HAS_B: tl.constexpr, HAS_H: tl.constexpr, LIMITED: tl.constexpr, LARGE: tl.constexpr, COMPUTE: tl.constexpr,
    BLOCK: tl.constexpr,
):  # fmt: skip
    i = tl.program_id(0).to(tl.int64 if LARGE else tl.int32) * BLOCK + tl.arange(0, BLOCK)
    inside = i < size
    u = tl.load(x + i, inside, 0).to(COMPUTE)
    if ORDER == 0:
        if HAS_B:
            u += tl.load(b + i // step % channels, inside, 0).to(COMPUTE)
        y = _forward(u, alpha, gain, clamp, ACT, LIMITED)
    else:
        if HAS_H:
            u *= tl.load(h + i, inside, 0).to(COMPUTE)
        known = tl.load(saved + i, inside, 0).to(COMPUTE)
        y = u * _derivative(known, alpha, gain, clamp, ACT, ORDER, LIMITED)
    tl.store(out + i, y.to(out.dtype.element_ty), inside)


def bias_act(
    act: int,
    order: int,
    x: torch.Tensor,
    b: torch.Tensor | None,
    h: torch.Tensor | None,
    saved: torch.Tensor | None,
    step: int,
    alpha: float,
    gain: float,
    clamp: float,
) -> torch.Tensor:
    """phi(x + b) (order 0), or x · h · phi' or phi'' at `saved` (order 1, 2; h None: 1); dense tensors of one layout.

    act: cuda_idx of the activation. b: bias, that of number i is b[i // step % len(b)]. clamp: below 0 for no limit.
    """
    out = torch.empty_like(x)
    size = x.numel()
    with _device_of(x):
        _bias_act[(triton.cdiv(size, _BLOCK),)](
            x, *(x if t is None else t for t in (b, h, saved)), out,
            size, step, 1 if b is None else b.numel(), alpha, gain, _representable(clamp, x.dtype),
            ACT=act, ORDER=order, HAS_B=b is not None, HAS_H=h is not None, LIMITED=clamp >= 0,
            LARGE=size > 2**31 - _BLOCK, COMPUTE=_compute_type(x), BLOCK=_BLOCK,
        )  # fmt: skip
    return out


def _compute_type(x):
    return tl.float64 if x.dtype == torch.float64 else tl.float32


@functools.cache
def _representable(clamp, dtype):
    """The number of that type next to it: what was limited to it must be known again when it is read."""
    return torch.tensor(clamp, dtype=dtype).item()


# ---------------------------------------------------------------------------------------------------------------------
# modulate: clamp(gain · act(x · scale + noise + b)), in tiles of channels by pixels of one image


@triton.jit
def _tile(channels, pixels, step_c, step_p, TILE_C: tl.constexpr, TILE_P: tl.constexpr):
    """Numbers of the channels [C, 1] and pixels [1, P] of this program, where they lie in its image, which are there"""
    p = tl.program_id(0) * TILE_P + tl.arange(0, TILE_P)[None, :]
    c = tl.program_id(1) * TILE_C + tl.arange(0, TILE_C)[:, None]
    return tl.program_id(2).to(tl.int64), c, p, c * step_c + p * step_p, (c < channels) & (p < pixels)


@triton.jit
def _modulate(
    x, scale, noise, b, out, channels, pixels, step_c, step_p,
    alpha: tl.constexpr, gain: tl.constexpr, clamp: tl.constexpr, ACT: tl.constexpr, HAS_SCALE: tl.constexpr,
    HAS_NOISE: tl.constexpr, HAS_B: tl.constexpr, LIMITED: tl.constexpr, COMPUTE: tl.constexpr,
    TILE_C: tl.constexpr, TILE_P: tl.constexpr,
):  # fmt: skip
    image, c, p, places, inside = _tile(channels, pixels, step_c, step_p, TILE_C, TILE_P)
    first = image * channels * pixels
    u = tl.load(x + first + places, inside, 0).to(COMPUTE)
    if HAS_SCALE:
        u *= tl.load(scale + image * channels + c, c < channels, 0).to(COMPUTE)
    if HAS_NOISE:
        u += tl.load(noise + image * pixels + p, p < pixels, 0).to(COMPUTE)
    if HAS_B:
        u += tl.load(b + c, c < channels, 0).to(COMPUTE)
    tl.store(out + first + places, _forward(u, alpha, gain, clamp, ACT, LIMITED).to(out.dtype.element_ty), inside)


@triton.jit
def _modulate_backward(
    dy, x, scale, y, dx, by_channel, by_channel_x, by_pixel, channels, pixels, step_c, step_p,
    alpha: tl.constexpr, gain: tl.constexpr, clamp: tl.constexpr, ACT: tl.constexpr, BENT: tl.constexpr,
    HAS_SCALE: tl.constexpr, HAS_NOISE: tl.constexpr, LIMITED: tl.constexpr, COMPUTE: tl.constexpr,
    TILE_C: tl.constexpr, TILE_P: tl.constexpr,
):  # fmt: skip
    """dx, and of each tile the sums of g = dy · phi' and of g · x over pixels, and that of g over channels"""
    image, c, p, places, inside = _tile(channels, pixels, step_c, step_p, TILE_C, TILE_P)
    first = image * channels * pixels
    g = tl.load(dy + first + places, inside, 0).to(COMPUTE)
    if BENT:
        g *= _derivative(tl.load(y + first + places, inside, 0).to(COMPUTE), alpha, gain, clamp, ACT, 1, LIMITED)
    else:
        g *= gain
    of_channel = (image * tl.num_programs(0) + tl.program_id(0)) * channels + c
    tl.store(by_channel + of_channel, tl.sum(g, axis=1, keep_dims=True), c < channels)
    if HAS_NOISE:
        of_pixel = (image * tl.num_programs(1) + tl.program_id(1)) * pixels + p
        tl.store(by_pixel + of_pixel, tl.sum(g, axis=0, keep_dims=True), p < pixels)
    if HAS_SCALE:
        gx = g * tl.load(x + first + places, inside, 0).to(COMPUTE)
        tl.store(by_channel_x + of_channel, tl.sum(gx, axis=1, keep_dims=True), c < channels)
        g *= tl.load(scale + image * channels + c, c < channels, 0).to(COMPUTE)
    tl.store(dx + first + places, g.to(dx.dtype.element_ty), inside)


def _tiles(x):
    """The grid and sizes of `_modulate` and `_modulate_backward` for dense images x"""
    batch, channels, height, width = x.shape
    pixels = height * width
    if x.is_contiguous():
        steps = (pixels, 1)
        tile_p = min(triton.next_power_of_2(pixels), _LONG_SIDE)
        tile_c = min(triton.next_power_of_2(channels), _TILE // tile_p)
    else:
        steps = (1, channels)
        tile_c = min(triton.next_power_of_2(channels), _LONG_SIDE)
        tile_p = min(triton.next_power_of_2(pixels), _TILE // tile_c)
    grid = (triton.cdiv(pixels, tile_p), triton.cdiv(channels, tile_c), batch)  # only the first may pass 65535
    return grid, (channels, pixels, *steps), dict(COMPUTE=_compute_type(x), TILE_C=tile_c, TILE_P=tile_p)


def modulate(
    act: int,
    x: torch.Tensor,
    scale: torch.Tensor | None,
    noise: torch.Tensor | None,
    b: torch.Tensor | None,
    alpha: float,
    gain: float,
    clamp: float,
) -> torch.Tensor:
    """phi(x · scale + noise + b) of dense images [N, C, H, W]; scale [N, C], noise [N, 1, H, W], b [C], or None."""
    out = torch.empty_like(x)
    grid, sizes, constants = _tiles(x)
    with _device_of(x):
        _modulate[grid](
            x, *(x if t is None else t for t in (scale, noise, b)), out,
            *sizes, alpha, gain, _representable(clamp, x.dtype),
            ACT=act, HAS_SCALE=scale is not None, HAS_NOISE=noise is not None, HAS_B=b is not None, LIMITED=clamp >= 0,
            **constants,
        )  # fmt: skip
    return out


def modulate_backward(
    act: int,
    dy: torch.Tensor,
    x: torch.Tensor | None,
    scale: torch.Tensor | None,
    y: torch.Tensor | None,
    wants_noise: bool,
    alpha: float,
    gain: float,
    clamp: float,
) -> tuple[torch.Tensor, torch.Tensor | None, torch.Tensor | None, torch.Tensor]:
    """dx, dscale [N, C] or None, dnoise [N, 1, H, W] or None, db [C]; dy, x and y of one dense layout.

    y: the result, or None where phi' is `gain` everywhere. Sums are those of tiles, in a fixed order.
    """
    dx = torch.empty_like(dy)
    grid, sizes, constants = _tiles(dy)
    precise = torch.float64 if dy.dtype == torch.float64 else torch.float32
    batch, channels, height, width = dy.shape
    by_channel = torch.empty([2, batch, grid[0], channels], dtype=precise, device=dy.device)
    by_pixel = torch.empty([batch, grid[1], height * width] if wants_noise else [1], dtype=precise, device=dy.device)
    with _device_of(dy):
        _modulate_backward[grid](
            dy, *(dy if t is None else t for t in (x, scale, y)), dx, by_channel[0], by_channel[1], by_pixel,
            *sizes, alpha, gain, _representable(clamp, dy.dtype),
            ACT=act, BENT=y is not None, HAS_SCALE=scale is not None, HAS_NOISE=wants_noise, LIMITED=clamp >= 0,
            **constants,
        )  # fmt: skip
    db = by_channel[0].sum(dim=[0, 1]).to(dy.dtype)
    dscale = None if scale is None else by_channel[1].sum(dim=1).to(dy.dtype)
    dnoise = by_pixel.sum(dim=1).view(batch, 1, height, width).to(dy.dtype) if wants_noise else None
    return dx, dscale, dnoise, db


# ---------------------------------------------------------------------------------------------------------------------
# upfirdn2d: out[oy][ox] = Σ filter[fy][fx] · U[oy · down_y + fy − top][ox · down_x + fx − left], where U has up − 1
# zeros after every pixel. Only taps that meet pixels are visited: the same ones for all pixels of the result that are
# up / gcd(up, down) apart, a "phase". A program computes pixels of one phase, so that a tap is one number for all.


@triton.jit
def _first_tap(o, before, UP: tl.constexpr, DOWN: tl.constexpr):
    """The first tap that meets a pixel, and that pixel, which may lie outside, for output pixel o"""
    place = o * DOWN - before + (1 << 20) * UP  # not below zero, where % and // would differ from mathematics
    tap = (UP - place % UP) % UP
    return tap, (place + tap) // UP - (1 << 20)


@triton.jit
def _upfirdn2d(
    x, f, out, tiles, in_h, in_w, out_h, out_w, left, top, channels,
    F_H: tl.constexpr, F_W: tl.constexpr, UP_X: tl.constexpr, UP_Y: tl.constexpr, DOWN_X: tl.constexpr,
    DOWN_Y: tl.constexpr, PHASES_X: tl.constexpr, PHASES_Y: tl.constexpr, COMPUTE: tl.constexpr,
    TILE_P: tl.constexpr, TILE_C: tl.constexpr,
):  # fmt: skip
    part = tl.program_id(0) // tiles
    phase_x, phase_y = part % PHASES_X, part // PHASES_X % PHASES_Y
    plane = (part // (PHASES_X * PHASES_Y)).to(tl.int64)
    width = tl.maximum((out_w - phase_x + PHASES_X - 1) // PHASES_X, 1)  # of the phase's pixels
    p = tl.program_id(0) % tiles * TILE_P + tl.arange(0, TILE_P)[:, None]
    c = tl.program_id(1) * TILE_C + tl.arange(0, TILE_C)[None, :]
    oy, ox = p // width * PHASES_Y + phase_y, p % width * PHASES_X + phase_x
    inside = (oy < out_h) & (ox < out_w) & (c < channels)
    tap_y, first_y = _first_tap(phase_y, top, UP_Y, DOWN_Y)
    tap_x, first_x = _first_tap(phase_x, left, UP_X, DOWN_X)
    first_y += p // width * (PHASES_Y * DOWN_Y // UP_Y)
    first_x += p % width * (PHASES_X * DOWN_X // UP_X)
    image = x + plane * in_h * in_w * channels
    total = tl.zeros([TILE_P, TILE_C], COMPUTE)
    for ky in tl.static_range((F_H + UP_Y - 1) // UP_Y):
        y, fy = first_y + ky, tap_y + ky * UP_Y
        rows = tl.where(fy < F_H, in_h, 0)  # that this tap may meet: none if there is no such tap
        for kx in tl.static_range((F_W + UP_X - 1) // UP_X):
            column, fx = first_x + kx, tap_x + kx * UP_X
            columns = tl.where(fx < F_W, in_w, 0)
            meets = inside & (y >= 0) & (y < rows) & (column >= 0) & (column < columns)
            weight = tl.load(f + tl.minimum(fy, F_H - 1) * F_W + tl.minimum(fx, F_W - 1)).to(COMPUTE)
            total += weight * tl.load(image + ((y * in_w + column) * channels + c), meets, 0).to(COMPUTE)
    place = (oy * out_w + ox) * channels + c
    tl.store(out + plane * out_h * out_w * channels + place, total.to(out.dtype.element_ty), inside)


def upfirdn2d(
    x: torch.Tensor,
    f: torch.Tensor,
    out_size: tuple[int, int],
    up: tuple[int, int],
    down: tuple[int, int],
    left_top: tuple[int, int],
) -> torch.Tensor:
    """Dense images [N, C, H, W], up- and downsampled by (x, y) and filtered; f: float32, as a correlation reads it."""
    batch, channels, in_h, in_w = x.shape
    layout = torch.contiguous_format if x.is_contiguous() else torch.channels_last
    planes, channels = (batch * channels, 1) if x.is_contiguous() else (batch, channels)
    out = torch.empty([batch, x.shape[1], *out_size], dtype=x.dtype, device=x.device, memory_format=layout)
    phases = [u // math.gcd(u, d) for u, d in zip(up, down)]
    tile_c = min(triton.next_power_of_2(channels), _LONG_SIDE)
    pixels = triton.cdiv(out_size[0], phases[1]) * triton.cdiv(out_size[1], phases[0])
    tile_p = min(_BLOCK // tile_c, triton.next_power_of_2(pixels))
    tiles = triton.cdiv(pixels, tile_p)
    with _device_of(x):
        _upfirdn2d[(tiles * phases[0] * phases[1] * planes, triton.cdiv(channels, tile_c))](
            x, f, out, tiles, in_h, in_w, *out_size, *left_top, channels,
            F_H=f.shape[0], F_W=f.shape[1], UP_X=up[0], UP_Y=up[1], DOWN_X=down[0], DOWN_Y=down[1],
            PHASES_X=phases[0], PHASES_Y=phases[1], COMPUTE=_compute_type(x), TILE_P=tile_p, TILE_C=tile_c,
        )  # fmt: skip
    return out
