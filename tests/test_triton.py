"""The kernels for GPUs, on the CPU: their values in Triton's interpreter, and their code as it is compiled for GPUs."""

import contextlib
import os
import subprocess
import sys

os.environ["TRITON_INTERPRET"] = "1"  # before anything else imports Triton

import pytest
import test_native
import torch

from helpers import ROOT
from torch_utils import kernels
from torch_utils.ops import bias_act, modulate, upfirdn2d

pytest.importorskip("triton")
from torch_utils.ops import triton_kernels

HALVES = dict(rtol=2e-2, atol=2e-2)  # three digits, after some sums


@pytest.fixture(autouse=True)
def interpreted(monkeypatch):
    """Triton's kernels in place of those for the CPU"""
    monkeypatch.setattr(kernels, "enabled", True)
    monkeypatch.setattr(kernels, "_library", lambda device_type: triton_kernels)


@pytest.mark.parametrize("layout", test_native.LAYOUTS, ids=str)
@pytest.mark.parametrize("act", bias_act.activation_funcs)
def test_bias_and_activation(act, layout):
    for size, clamp in (((2, 5, 16, 9), 0.7), ((1, 1, 1, 1), None)):
        test_native.test_bias_act(size, layout, act, clamp)


@pytest.mark.parametrize("layout", test_native.LAYOUTS, ids=str)
@pytest.mark.parametrize("up, down", [(1, 1), (2, 1), (1, 2), (2, 3), ([3, 1], [1, 2])], ids=str)
def test_resampling(up, down, layout):
    for f in ("separable", "not_separable"):
        test_native.test_upfirdn2d((2, 3, 12, 9), layout, f, up, down)


@pytest.mark.parametrize("given", ["", "s", "n", "b", "sn", "snb"])
def test_modulation(given, monkeypatch):
    for act, clamp in (("lrelu", 0.7), ("linear", None)):
        test_native.test_modulation(given, act, clamp, monkeypatch)


@pytest.mark.slow
def test_training(monkeypatch):
    test_native.compare_gradients(monkeypatch, steps=1, resolution=8, batch=2)


@pytest.mark.parametrize("layout", test_native.LAYOUTS, ids=str)
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_halves(dtype, layout):
    """Against the plain path in double precision; limits that are no number of the type are known again by gradients"""
    x, b = torch.randn(2, 5, 6, 7), torch.randn(5)
    f = upfirdn2d.setup_filter([1, 3, 3, 1])
    x = x.to(dtype).contiguous(memory_format=layout)
    precise = x.double()
    for act, spec in bias_act.activation_funcs.items():
        y = bias_act.bias_act(x, b, act=act)
        torch.testing.assert_close(y.double(), bias_act.bias_act(precise, b, act=act, impl="ref"), **HALVES)
        assert y.dtype == dtype and y.is_contiguous(memory_format=layout), spec
    y = upfirdn2d.upfirdn2d(x, f, up=2, padding=[2, 1, 2, 1], gain=4)
    plain = upfirdn2d.upfirdn2d(precise, f, up=2, padding=[2, 1, 2, 1], gain=4, impl="ref")
    torch.testing.assert_close(y.double(), plain, **HALVES)
    scale, noise = torch.randn(2, 5), torch.randn(6, 7)
    y = modulate.modulate(x, scale, noise, b, act="lrelu", clamp=2)
    plain = bias_act.bias_act(precise * scale[:, :, None, None] + noise, b, act="lrelu", clamp=2, impl="ref")
    torch.testing.assert_close(y.double(), plain, rtol=3e-2, atol=3e-2)
    large = torch.full_like(x, 1000).requires_grad_()
    for call in (lambda: bias_act.bias_act(large, clamp=181.02), lambda: modulate.modulate(large, clamp=181.02)):
        assert not torch.autograd.grad(call().sum(), large)[0].any()


@pytest.mark.parametrize("layout", test_native.LAYOUTS, ids=str)
def test_images_of_several_tiles(layout):
    """More channels and pixels than go into one; sums over all of them"""
    x, scale = torch.randn(2, 40, 16, 17).contiguous(memory_format=layout), torch.randn(2, 40).requires_grad_()
    y = modulate.modulate(x, scale)
    torch.testing.assert_close(y, x * scale[:, :, None, None])
    torch.testing.assert_close(torch.autograd.grad(y.sum(), scale)[0], x.sum(dim=[2, 3]), rtol=1e-4, atol=1e-4)


def test_kernels_run_on_the_device_of_their_tensors(monkeypatch):
    """On a machine with two GPUs Triton would take the current one; every launch is inside this guard."""
    inside, launched = [], []

    @contextlib.contextmanager
    def device_of(tensor):
        inside.append(tensor)
        yield
        inside.pop()

    class Watched:
        def __init__(self, kernel):
            self.kernel = kernel

        def __getitem__(self, grid):
            launched.append(len(inside))
            return self.kernel[grid]

    monkeypatch.setattr(triton_kernels, "_device_of", device_of)
    for name in ("_bias_act", "_modulate", "_modulate_backward", "_upfirdn2d"):
        monkeypatch.setattr(triton_kernels, name, Watched(getattr(triton_kernels, name)))
    x = torch.randn(2, 3, 4, 4).requires_grad_()
    y = modulate.modulate(upfirdn2d.upsample2d(bias_act.bias_act(x), upfirdn2d.setup_filter([1, 3, 3, 1])))
    torch.autograd.grad(y.sum(), x)
    assert len(launched) >= 6 and set(launched) == {1}


@pytest.mark.parametrize("name", ["bias_act", "upfirdn2d", "modulate", "modulate_backward"])
def test_kernels_that_compute_something_else_are_not_used(name, monkeypatch):
    """Also where only half precision or channels-last images come out wrong, as a GPU may have it"""
    right, op = getattr(triton_kernels, name), name.removesuffix("_backward")
    x = torch.randn(2, 4, 9, 7)
    assert kernels.kernel(name, x) is right

    def wrong(*args):
        result = right(*args)
        halves = next(each for each in args if isinstance(each, torch.Tensor)).dtype == torch.float16
        first = result[0] if isinstance(result, tuple) else result
        first.mul_(1.1 if halves else 1)
        return result

    monkeypatch.setattr(triton_kernels, name, wrong)
    monkeypatch.setattr(kernels._ops[name], "passed", {})
    with pytest.warns(UserWarning, match=f"{op} gives wrong results"):
        assert kernels.kernel(name, x) is None
    assert kernels.kernel("bias_act" if op == "upfirdn2d" else "upfirdn2d", x) is not None  # one op, not all


def test_without_triton_one_warning_says_why():
    """On a machine with a GPU whose PyTorch has no Triton"""
    program = (
        "import sys; sys.modules['triton'] = None\nfrom torch_utils import kernels\nprint(kernels.available('cuda'))"
    )
    done = subprocess.run([sys.executable, "-c", program], cwd=ROOT / "stylegan2_ada", capture_output=True, text=True)
    assert done.stdout == "None\n" and "No native cuda kernels, plain PyTorch instead" in done.stderr, done.stderr


COMPILE = """
import itertools, sys
import triton, triton.language as tl
from triton.backends.compiler import GPUTarget
from triton.compiler import ASTSource
from torch_utils.ops import triton_kernels as k

NUMBERS = dict(alpha=0.2, gain=1.4, clamp=256.0, LIMITED=True, ACT=3)
TENSORS = "x b h saved out scale noise dy y dx".split()

def compile_for(arch, kernel, element, **constants):
    compute = tl.float64 if element == "fp64" else tl.float32
    constants = {n: v for n, v in {**NUMBERS, **constants, "COMPUTE": compute}.items() if n in kernel.arg_names}
    pointers = {n: f"*{element}" for n in TENSORS} | {n: "*fp64" if element == "fp64" else "*fp32" for n in
        ("by_channel", "by_channel_x", "by_pixel")} | {"f": "*fp32"}
    signature = {n: "constexpr" if n in constants else pointers.get(n, "i32") for n in kernel.arg_names}
    source = ASTSource(kernel, signature, {(kernel.arg_names.index(n),): v for n, v in constants.items()})
    return triton.compile(source, target=GPUTarget("cuda", arch, 32)).asm["cubin"]

arch = int(sys.argv[1])
for element in ("fp16", "bf16", "fp32", "fp64"):
    for act, order in itertools.product(range(1, 10), range(3)):
        given = dict(HAS_B=True, HAS_H=True, LARGE=order == 2, BLOCK=1024)
        compile_for(arch, k._bias_act, element, ACT=act, ORDER=order, **given)
    given = dict(HAS_SCALE=True, HAS_NOISE=True, HAS_B=True, BENT=True, TILE_C=16, TILE_P=128)
    for kernel in (k._modulate, k._modulate_backward):
        compile_for(arch, kernel, element, **given)
    for up, down, tile in ((1, 1, 64), (2, 1, 1), (2, 1, 64), (1, 2, 1)):
        compile_for(arch, k._upfirdn2d, element, F_H=4, F_W=4, UP_X=up, UP_Y=up, DOWN_X=down, DOWN_Y=down, PHASES_X=up,
            PHASES_Y=up, TILE_P=1024 // tile, TILE_C=tile)
print("compiled")
"""


@pytest.mark.slow
@pytest.mark.parametrize("arch", [75, 80, 90, 100])
def test_they_compile_for_gpus(arch, tmp_path):
    env = os.environ | {"TRITON_INTERPRET": "0", "TRITON_CACHE_DIR": str(tmp_path)}
    command = [sys.executable, "-W", "ignore", "-c", COMPILE, str(arch)]
    done = subprocess.run(command, cwd=ROOT / "stylegan2_ada", env=env, capture_output=True, text=True)
    assert done.stdout == "compiled\n", done.stderr
