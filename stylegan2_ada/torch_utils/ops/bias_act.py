"""Bias, activation, gain and clamp in one call."""

import math
from collections.abc import Callable
from typing import NamedTuple

import torch
import torch.nn.functional as F

import dnnlib
from torch_utils import kernels


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


def bias_act(
    x: torch.Tensor,
    b: torch.Tensor | None = None,
    dim: int = 1,
    act: str = "linear",
    alpha: float | None = None,
    gain: float | None = None,
    clamp: float | None = None,
    impl: str = "cuda",
) -> torch.Tensor:
    """`clamp(gain · act(x + b))`, differentiable any number of times (by native kernels twice, but for lrelu and relu).

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
    if b is not None and (b.ndim != 1 or not 0 <= dim < x.ndim or b.shape[0] != x.shape[dim]):
        raise ValueError(f"a bias of shape {list(b.shape)} does not fit dimension {dim} of {list(x.shape)}")
    clamp = -1.0 if clamp is None or clamp < 0 else float(clamp)
    kernel = kernels.kernel("bias_act", x) if impl == "cuda" and x.ndim else None
    if kernel is not None:
        b = None if b is None else b.to(x.dtype).contiguous()
        job = _Job(kernel, spec, min(dim, x.ndim - 1), alpha, gain, clamp)
        return _BiasAct.apply(x, b, job) if torch.is_grad_enabled() else job.run(0, x, b)[0]
    return _plain(x, b, spec, dim, act, alpha, gain, clamp)


def _plain(x, b, spec, dim, act, alpha, gain, clamp):
    if b is not None:
        b = b.reshape([-1 if i == dim else 1 for i in range(x.ndim)])
    if spec.homogeneous and gain > 0:  # scaling first costs nothing where it rides on the addition of the bias
        y = _scaled_sum(x, b, gain)
        fresh = y is not x
        y = F.leaky_relu(y, alpha, inplace=fresh) if act == "lrelu" else spec.func(y, alpha=alpha)
    else:
        y = spec.func(_scaled_sum(x, b, 1), alpha=alpha)
        y = y * gain if gain != 1 else y
    return y if clamp < 0 else y.clamp(-clamp, clamp)


def _scaled_sum(x, b, gain):
    """`gain · (x + b)` in one pass over x."""
    if b is None:
        return x if gain == 1 else x * gain
    b = b.to(x.dtype)
    return x + b if gain == 1 else torch.add(b * gain, x, alpha=gain)


# ---------------------------------------------------------------------------------------------------------------------
# Native kernels (csrc/bias_act.h, triton_kernels.py)


class _Job(NamedTuple):
    """One call of `bias_act`, without its tensors."""

    kernel: object
    spec: Activation
    dim: int
    alpha: float
    gain: float
    clamp: float

    def keeps_sign(self):
        """True if y says which side of zero x + b was on, so that derivatives can be read off y."""
        return self.spec.homogeneous and self.gain > 0

    def run(self, order, x, b=None, h=None, saved=None, with_sums=False):
        """The kernel on tensors of one shape and layout; (result, sum over all but dim or None)."""
        x, memory_format = kernels.dense(x)
        h, saved = (None if t is None else t.contiguous(memory_format=memory_format) for t in (h, saved))
        channels = x.shape[self.dim]
        step = 1 if memory_format == torch.channels_last else math.prod(x.shape[self.dim + 1 :])
        if kernels.is_triton(self.kernel):
            tensors, numbers = (x, b, h, saved), (self.alpha, self.gain, self.clamp)
            out = self.kernel(self.spec.cuda_idx, order, *tensors, step, *numbers)
            return out, self._sum(out) if with_sums else None
        out = torch.empty_like(x)
        pointers = [kernels.pointer(t) for t in (x, b, h, saved, out)]
        in_row = step == 1
        width = channels if in_row else step
        rows = x.numel() // width
        sums = torch.empty([rows], dtype=torch.float64, device=x.device) if with_sums and not in_row else None
        sizes, numbers = (rows, width, channels), (self.alpha, self.gain, self.clamp)
        tail = (in_row, *numbers, kernels.threads_for(x.numel()))
        self.kernel(self.spec.cuda_idx, order, *pointers, kernels.pointer(sums), *sizes, *tail)
        if sums is not None:
            return out, sums.view(-1, channels).sum(dim=0).to(x.dtype)
        return out, self._sum(out) if with_sums else None

    def _sum(self, x):
        others = [i for i in range(x.ndim) if i != self.dim]
        return x.sum(dim=others) if others else x

    def spread(self, b, like):
        """A vector along `dim`, broadcast over the shape of `like`."""
        return b.reshape([-1 if i == self.dim else 1 for i in range(like.ndim)]).expand_as(like)


def times_derivative(
    t: torch.Tensor, y: torch.Tensor, spec: Activation, alpha: float, gain: float, clamp: float
) -> torch.Tensor:
    """t · φ' at y = φ(…), for activations that keep the sign; differentiable in t. Native kernels only."""
    job = _Job(kernels.kernel("bias_act", t), spec, 1, alpha, gain, clamp)
    return _BiasActGrad.apply(t, None, None, y, job, False)[0]


class _BiasAct(torch.autograd.Function):
    @staticmethod
    def forward(ctx, x, b, job):
        y, _ = job.run(0, x, b)
        ctx.job = job
        ctx.save_for_backward(*((y,) if job.keeps_sign() else (x, b)))
        return y

    @staticmethod
    def backward(ctx, dy):
        with_sums = ctx.needs_input_grad[1]
        if ctx.job.keeps_sign():
            dx, db = _BiasActGrad.apply(dy, None, None, ctx.saved_tensors[0], ctx.job, with_sums)
        else:
            dx, db = _BiasActGrad.apply(dy, *ctx.saved_tensors, None, ctx.job, with_sums)
        return dx, db, None


class _BiasActGrad(torch.autograd.Function):
    """dx = dy · φ'(x + b), and its sum db. y = φ(x + b) may be given instead of x and b; then φ'' is zero."""

    @staticmethod
    def forward(ctx, dy, x, b, y, job, with_sums):
        saved = y if y is not None else x if b is None else x + job.spread(b, x)
        dx, db = job.run(1, dy.to(saved.dtype), saved=saved, with_sums=with_sums)
        ctx.job, ctx.through_x = job, y is None and job.spec.has_2nd_grad
        ctx.save_for_backward(dy, saved)
        ctx.set_materialize_grads(False)
        return dx, db

    @staticmethod
    def backward(ctx, ddx, ddb):
        dy, saved = ctx.saved_tensors
        if ddb is not None:
            ddb = ctx.job.spread(ddb, dy)
            ddx = ddb if ddx is None else ddx + ddb
        if ddx is None:
            return (None,) * 6
        if not ctx.through_x:
            return _BiasActGrad.apply(ddx, None, None, saved, ctx.job, False)[0], *(None,) * 5
        if torch.is_grad_enabled():
            raise RuntimeError("third derivatives of this activation need bias_act(impl='ref')")
        ddy, _ = ctx.job.run(1, ddx, saved=saved)
        dx, db = ctx.job.run(2, ddx, h=dy, saved=saved, with_sums=ctx.needs_input_grad[2])
        return ddy, dx, db, None, None, None


def _self_test(device):
    """`kernels.register`"""
    bend = dict(act="lrelu", clamp=0.7)  # no number of the test is so near to that, or to 0, that rounding decides
    return lambda x, scale, noise, b, w: bias_act(x, b, **bend), lambda x, scale, noise, b, w: bias_act(
        x, b, **bend, impl="ref"
    )


kernels.register(["bias_act"], _self_test)
