"""The image operations against golden data, and their gradients against finite differences."""

import numpy as np
import pytest
import torch
from torch.autograd import gradcheck, gradgradcheck

from golden_data import DEVICE, GoldenFile, case_ids
from torch_utils import kernels
from torch_utils.ops import bias_act, conv2d_gradfix, conv2d_resample, fma, grid_sample_gradfix, upfirdn2d
from training.networks import modulated_conv2d

BIAS_ACT = GoldenFile("ops_bias_act.npz").cases
UPFIRDN = GoldenFile("ops_upfirdn2d.npz").cases
CONV = GoldenFile("ops_conv2d_resample.npz").cases
MODULATED = GoldenFile("modulated_conv2d.npz").cases


@pytest.fixture(autouse=True, params=["plain", "native"])
def with_and_without_kernels(request, monkeypatch):
    """Every test runs on the plain path and on native kernels."""
    monkeypatch.setattr(kernels, "enabled", request.param == "native")
    assert request.param == "plain" or kernels.available(DEVICE) is not None


def gradients(y, dy, inputs, names, create_graph=False):
    """Gradients of (y·dy).sum() with respect to the named inputs; zeros where there is none."""
    tensors = [inputs[name] for name in names]
    grads = torch.autograd.grad((y * dy).sum(), tensors, create_graph=create_graph, allow_unused=True)
    return {name: torch.zeros_like(t) if g is None else g for name, t, g in zip(names, tensors, grads)}


def run_case(case, differentiable):
    """The case's function on its inputs: (y, inputs, dy), with gradients enabled for `differentiable`."""
    inputs = case.inputs()
    dy = inputs.pop("dy", None)
    if case.info.get("channels_last"):
        inputs["x"] = inputs["x"].contiguous(memory_format=torch.channels_last)
    for name in differentiable & inputs.keys():
        inputs[name].requires_grad_(True)
    return case.function()(**inputs, **case.info["kwargs"]), inputs, dy


@pytest.mark.parametrize("case", BIAS_ACT, ids=case_ids(BIAS_ACT))
def test_bias_act_golden(case):
    y, inputs, dy = run_case(case, {"x", "b"})
    dy.requires_grad_(True)
    case.check("y", y)
    names = [n for n in ("x", "b") if n in inputs]
    first = gradients(y, dy, inputs, names, create_graph=True)
    for name in names:
        case.check(f"d{name}", first[name])
    if any(label.startswith("d2_") for label in case.info["outputs"]):
        second = gradients(first["x"].square(), torch.ones(()), dict(inputs, dy=dy), [*names, "dy"])
        for name, value in second.items():
            if f"d2_{name}" in case.info["outputs"]:
                case.check(f"d2_{name}", value)


@pytest.mark.parametrize("case", UPFIRDN, ids=case_ids(UPFIRDN))
def test_upfirdn2d_golden(case):
    if "f" in case.info["outputs"]:
        case.check("f", case.function()(**case.info["kwargs"]))
        return
    if "f" not in case.info["inputs"]:
        case.info["kwargs"]["f"] = None
    y, inputs, dy = run_case(case, {"x"})
    case.check("y", y)
    case.check("dx", gradients(y, dy, inputs, ["x"])["x"])


@pytest.mark.parametrize("case", CONV, ids=case_ids(CONV))
def test_conv2d_resample_golden(case):
    y, inputs, dy = run_case(case, {"x", "w"})
    case.check("y", y)
    first = gradients(y, dy, inputs, ["x", "w"], create_graph=True)
    case.check("dx", first["x"])
    case.check("dw", first["w"])
    case.check("d2_w", gradients(first["x"].square(), torch.ones(()), inputs, ["w"])["w"])


@pytest.mark.parametrize("case", MODULATED, ids=case_ids(MODULATED))
def test_modulated_conv2d_golden(case):
    y, inputs, dy = run_case(case, {"x", "weight", "styles", "noise"})
    case.check("y", y)
    names = [n for n in ("x", "weight", "styles", "noise") if n in inputs]
    for name, value in gradients(y, dy, inputs, names).items():
        case.check(f"d{name}", value)


def random(*shape, seed=0):
    values = np.random.RandomState(seed).randn(*shape)
    return torch.tensor(values, dtype=torch.float64, requires_grad=True)


def check_gradients(fn, *inputs):
    assert gradcheck(fn, inputs)
    assert gradgradcheck(fn, inputs)


@pytest.mark.parametrize("act", list(bias_act.activation_funcs))
@pytest.mark.parametrize("clamp", [None, 0.9])
def test_bias_act_gradients(act, clamp):
    check_gradients(lambda x, b: bias_act.bias_act(x, b, act=act, clamp=clamp), random(2, 3, 4), random(3, seed=1))


@pytest.mark.parametrize("options", [dict(up=2, padding=[2, 1]), dict(down=2, padding=1), dict(padding=[-1, 2, 0, 1])])
@pytest.mark.parametrize("flip", [False, True])
@pytest.mark.parametrize("taps", [[1, 2, 3], [[1, 2, 0], [3, 4, 5]]])
def test_upfirdn2d_gradients(options, flip, taps):
    f = upfirdn2d.setup_filter(taps, separable=np.ndim(taps) == 1)
    check_gradients(lambda x: upfirdn2d.upfirdn2d(x, f, flip_filter=flip, gain=1.5, **options), random(1, 2, 5, 6))


@pytest.mark.parametrize("kernel", [1, 3])
@pytest.mark.parametrize("up, down", [(1, 1), (2, 1), (1, 2), (2, 2)])
def test_conv2d_resample_gradients(kernel, up, down):
    f = upfirdn2d.setup_filter([1, 3, 3, 1])
    fn = lambda x, w: conv2d_resample.conv2d_resample(x, w, f, up=up, down=down, padding=kernel // 2)
    check_gradients(fn, random(1, 2, 4, 6), random(3, 2, kernel, kernel, seed=1))


@pytest.mark.parametrize("transposed", [False, True])
@pytest.mark.parametrize("groups", [1, 2])
@pytest.mark.parametrize(
    "options", [dict(), dict(stride=2, padding=1), dict(stride=(2, 1), padding=(0, 1), dilation=2)]
)
def test_conv2d_gradfix_gradients(transposed, groups, options):
    name = "conv_transpose2d" if transposed else "conv2d"
    x, w = random(2, 4, 7, 6), random(4, 4 // groups, 3, 3, seed=1)
    b = random(4 if not transposed else 4 // groups * groups, seed=2)
    fn = lambda x, w, b: getattr(conv2d_gradfix, name)(x, w, b, groups=groups, **options)
    check_gradients(fn, x, w, b)
    torch.testing.assert_close(fn(x, w, b), getattr(torch.nn.functional, name)(x, w, b, groups=groups, **options))


def test_no_weight_gradients():
    x, w = random(1, 2, 5, 5), random(3, 2, 3, 3, seed=1)
    y = conv2d_gradfix.conv2d(x, w)
    with conv2d_gradfix.no_weight_gradients():
        assert torch.autograd.grad(y.sum(), [x, w], allow_unused=True, retain_graph=True)[1] is None
    assert torch.autograd.grad(y.sum(), w)[0].abs().max() > 0


def test_modulated_conv2d_gradients():
    for fused in (False, True):
        fn = lambda x, w, s, n, fused=fused: modulated_conv2d(x, w, s, noise=n, padding=1, fused_modconv=fused)
        check_gradients(fn, random(2, 2, 4, 4), random(3, 2, 3, 3, seed=1), random(2, 2, seed=2), random(2, 1, 4, 4))


def test_fma_and_grid_sample_gradients():
    check_gradients(fma.fma, random(2, 3, 4), random(2, 1, 1, seed=1), random(1, 3, 4, seed=2))
    grid = (random(1, 3, 3, 2, seed=1) / 2).detach().requires_grad_(True)
    assert gradcheck(grid_sample_gradfix.grid_sample, (random(1, 2, 5, 5), grid))
    assert gradgradcheck(grid_sample_gradfix.grid_sample, (random(1, 2, 5, 5), grid))


def test_bad_arguments_are_explained():
    x = torch.zeros(1, 2, 4, 4)
    with pytest.raises(ValueError, match="unknown activation"):
        bias_act.bias_act(x, act="lrelo")
    with pytest.raises(ValueError, match="does not fit"):
        bias_act.bias_act(x, torch.zeros(3))
    with pytest.raises(ValueError, match="too small"):
        upfirdn2d.upfirdn2d(x, upfirdn2d.setup_filter([1] * 6, separable=False))
    with pytest.raises(ValueError, match="one or two dimensions"):
        upfirdn2d.setup_filter(np.ones([2, 2, 2]))
