"""What the networks gain from native kernels: layers whose many steps are one pass, and on the CPU a layout.

Everything here has a plain equivalent, which the networks take where there is no kernel.
"""

from typing import NamedTuple

import torch

from torch_utils import kernels

from . import bias_act


def memory_format(device: torch.device | str) -> torch.memory_format:
    """The layout in which float32 images are convolved fastest."""
    on_cpu = torch.device(device).type == "cpu"
    return torch.channels_last if on_cpu and kernels.serves_cpu("conv2d") else torch.contiguous_format


def prefers_shared_weights(x: torch.Tensor) -> bool:
    """True if a convolution with weights of each image's own is better had by scaling the images x."""
    return kernels.kernel("conv2d", x) is not None


def modulate(
    x: torch.Tensor,
    scale: torch.Tensor | None = None,
    noise: torch.Tensor | None = None,
    b: torch.Tensor | None = None,
    act: str = "linear",
    gain: float | None = None,
    clamp: float | None = None,
    owned: bool = False,
) -> torch.Tensor | None:
    """`clamp(gain · act(x · scale + noise + b))`, twice differentiable; None where there is no kernel for these.

    x: images [N, C, H, W], on the CPU channels-last. scale: of every channel [N, C], or None. noise: broadcasts to
    [N, 1, H, W], or None. b: bias [C] or None. act, gain, clamp: as in `bias_act`. owned: nobody else needs x, so that
    its memory may be the result's, where there is no autograd. Returns a tensor like x.
    """
    spec = bias_act.activation_funcs[act]
    gain = float(spec.def_gain if gain is None else gain)
    if not spec.homogeneous or gain <= 0 or x.ndim != 4:
        return None
    needed = [kernels.kernel(name, x) for name in ("modulate", "modulate_backward", "bias_act")]
    last = x.is_contiguous(memory_format=torch.channels_last)
    if None in needed or not (last or kernels.is_triton(needed[0]) and x.is_contiguous()):
        return None
    job = _Job(*needed[:2], spec, float(spec.def_alpha), gain, -1.0 if clamp is None or clamp < 0 else float(clamp))
    noise = None if noise is None else noise.expand(x.shape[0], 1, *x.shape[2:])
    tensors = [None if t is None else t.to(x.dtype) for t in (scale, noise, b)]
    if not torch.is_grad_enabled():
        return job.run(x, *tensors, out=x if owned else None)
    return _Modulate.apply(x, *tensors, job)


class _Job(NamedTuple):
    """One call of `modulate`, without its tensors."""

    kernel: object
    backward_kernel: object
    spec: bias_act.Activation
    alpha: float
    gain: float
    clamp: float

    def tail(self, x):
        batch, channels, height, width = x.shape
        numbers = (self.alpha, self.gain, self.clamp)
        return batch, height * width, channels, *numbers, kernels.threads_for(x.numel())

    def run(self, x, scale, noise, b, out=None):
        scale, noise, b = (None if t is None else t.contiguous() for t in (scale, noise, b))
        if kernels.is_triton(self.kernel):
            return self.kernel(self.spec.cuda_idx, x, scale, noise, b, self.alpha, self.gain, self.clamp)
        out = torch.empty_like(x) if out is None else out
        self.kernel(self.spec.cuda_idx, *map(kernels.pointer, (x, scale, noise, b, out)), *self.tail(x))
        return out

    def run_backward(self, dy, x, scale, y, wants_noise):
        """dx, dscale [N, C] or None, dnoise [N, 1, H, W] or None, db [C]"""
        scale = None if scale is None else scale.contiguous()
        if kernels.is_triton(self.kernel):
            _, layout = kernels.dense(next((t for t in (x, y) if t is not None), dy))
            dy = dy.contiguous(memory_format=layout)
            numbers = (self.alpha, self.gain, self.clamp)
            return self.backward_kernel(self.spec.cuda_idx, dy, x, scale, y, wants_noise, *numbers)
        dy = dy.contiguous(memory_format=torch.channels_last)
        dx = torch.empty_like(dy)
        dscale = None if scale is None else dy.new_empty(dy.shape[:2])
        dnoise = dy.new_empty([dy.shape[0], 1, *dy.shape[2:]]) if wants_noise else None
        db = dy.new_empty([dy.shape[1]])
        pointers = map(kernels.pointer, (dy, x, scale, dy if y is None else y, dx, dscale, dnoise, db))
        self.backward_kernel(self.spec.cuda_idx, *pointers, *self.tail(dy))
        return dx, dscale, dnoise, db

    def bends(self):
        """True if the derivative is not the same everywhere, so that y must be known."""
        return self.clamp >= 0 or self.spec.cuda_idx != bias_act.activation_funcs.linear.cuda_idx

    def derivative(self, t, y):
        """t · φ'; differentiable in t."""
        if y is None:
            return t * self.gain
        return bias_act.times_derivative(t, y, self.spec, self.alpha, self.gain, self.clamp)


class _Modulate(torch.autograd.Function):
    @staticmethod
    def forward(ctx, x, scale, noise, b, job):
        y = job.run(x, scale, noise, b)
        ctx.job, ctx.wants_noise = job, noise is not None and ctx.needs_input_grad[2]
        ctx.save_for_backward(x if scale is not None else None, scale, y if job.bends() else None)
        return y

    @staticmethod
    def backward(ctx, dy):
        dx, dscale, dnoise, db = _ModulateGrad.apply(dy, *ctx.saved_tensors, ctx.job, ctx.wants_noise)
        return dx, dscale, dnoise, db if ctx.needs_input_grad[3] else None, None


class _ModulateGrad(torch.autograd.Function):
    """With g = dy · φ': dx = g · scale, dscale = Σ g · x, dnoise and db = Σ g. φ' counts as a constant."""

    @staticmethod
    def forward(ctx, dy, x, scale, y, job, wants_noise):
        ctx.job = job
        ctx.save_for_backward(dy, x, scale, y)
        ctx.set_materialize_grads(False)
        return job.run_backward(dy, x, scale, y, wants_noise)

    @staticmethod
    def backward(ctx, ddx, ddscale, ddnoise, ddb):
        dy, x, scale, y = ctx.saved_tensors
        d_x = d_scale = None
        dg = ddx
        if scale is not None:
            wide = lambda t: t[:, :, None, None]
            dg = None if ddx is None else ddx * wide(scale)
            if ddscale is not None:
                dg = x * wide(ddscale) if dg is None else torch.addcmul(dg, x, wide(ddscale))
            if ddx is not None or ddscale is not None:
                g = ctx.job.derivative(dy, y)
                d_scale = None if ddx is None else (g * ddx).sum(dim=[2, 3])
                d_x = None if ddscale is None else g * wide(ddscale)
        for shared in (ddnoise, None if ddb is None else ddb.reshape(1, -1, 1, 1)):
            if shared is not None:
                dg = shared.expand_as(dy) if dg is None else dg + shared
        d_dy = None if dg is None else ctx.job.derivative(dg, y)
        return d_dy, d_x, d_scale, None, None, None


def _self_test(device):
    """`kernels.register`"""
    bend = dict(act="lrelu", clamp=0.7)  # no number of the test is so near to that, or to 0, that rounding decides

    def with_kernels(x, scale, noise, b, w):
        y = modulate(x, scale, noise, b, **bend)
        return without(x, scale, noise, b, w) if y is None else y  # in a layout that they do not take

    def without(x, scale, noise, b, w):
        return bias_act.bias_act(x * scale[:, :, None, None] + noise, b, **bend, impl="ref")

    return with_kernels, without


kernels.register(["modulate", "modulate_backward"], _self_test)
