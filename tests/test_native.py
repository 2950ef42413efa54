"""The native kernels: same values as the plain path in any layout, and builds that never stop anybody."""

import os
import shutil
import subprocess
import sys

import pytest
import torch

import dnnlib
from helpers import ROOT
from torch_utils import native
from torch_utils.ops import bias_act, upfirdn2d

SIZES = [(1, 1, 1, 1), (1, 3, 5, 7), (2, 5, 16, 9), (1, 16, 33, 31), (3, 64, 2, 40)]
LAYOUTS = [torch.contiguous_format, torch.channels_last]


@pytest.fixture(autouse=True)
def on(monkeypatch):
    monkeypatch.setattr(native, "enabled", True)


def both(function, *tensors):
    """Results and first and second gradients with impl='ref' and 'cuda', as pairs"""
    found = []
    for impl in ("ref", "cuda"):
        inputs = [t.detach().clone(memory_format=torch.preserve_format).requires_grad_(True) for t in tensors]
        y = function(*inputs, impl=impl)
        dy = torch.sin(torch.arange(y.numel(), dtype=y.dtype)).reshape(y.shape).requires_grad_(True)
        first = torch.autograd.grad(y, inputs, dy, create_graph=True)
        second = torch.autograd.grad(sum(g.square().sum() for g in first), [dy, *inputs], allow_unused=True)
        found.append([y, *first, *(torch.zeros(()) if g is None else g for g in second)])
    return zip(*found)


@pytest.mark.parametrize("layout", LAYOUTS, ids=str)
@pytest.mark.parametrize("size", SIZES, ids=str)
@pytest.mark.parametrize("act, clamp", [("lrelu", 0.7), ("linear", None), ("swish", 0.5), ("softplus", None)])
def test_bias_act(size, layout, act, clamp):
    x = torch.randn(size, dtype=torch.float64).contiguous(memory_format=layout)
    call = lambda x, b, impl: bias_act.bias_act(x, b, act=act, clamp=clamp, impl=impl)
    for plain, kernel in both(call, x, torch.randn(size[1], dtype=torch.float64)):
        torch.testing.assert_close(kernel + torch.zeros_like(plain), plain + torch.zeros_like(kernel))


@pytest.mark.parametrize("layout", LAYOUTS, ids=str)
@pytest.mark.parametrize("size", SIZES, ids=str)
@pytest.mark.parametrize("up, down", [(1, 1), (2, 1), (1, 2), (2, 3), ([3, 1], [1, 2])], ids=str)
def test_upfirdn2d(size, layout, up, down):
    x = torch.randn(size, dtype=torch.float64).contiguous(memory_format=layout)
    f = upfirdn2d.setup_filter(torch.tensor([[1.0, 2, 0, 4], [0, 1, 3, 1], [2, 1, 1, 5]]))
    call = lambda x, impl: upfirdn2d.upfirdn2d(x, f, up=up, down=down, padding=[3, 2, 4, 1], impl=impl)
    for plain, kernel in both(call, x):
        torch.testing.assert_close(kernel, plain, rtol=1e-9, atol=1e-9)


def test_results_do_not_depend_on_threads():
    x, b, f = torch.randn(4, 32, 64, 64), torch.randn(32), upfirdn2d.setup_filter([1, 3, 3, 1])
    found = []
    for threads in (1, 2):
        torch.set_num_threads(threads)
        inputs = [t.clone().requires_grad_(True) for t in (x, b)]
        y = upfirdn2d.filter2d(bias_act.bias_act(*inputs, act="lrelu"), f)
        dy = torch.sin(torch.arange(y.numel())).reshape(y.shape)
        found.append([y, *torch.autograd.grad(y, inputs, dy)])
    torch.set_num_threads(1)
    assert all(torch.equal(one, two) for one, two in zip(*found))


SCRIPT = """
import sys; sys.path.insert(0, sys.argv[1])
import torch; torch.set_num_threads(1)
from torch_utils.ops import bias_act
for _ in range(2):
    y = bias_act.bias_act(torch.full([1, 2, 3, 3], -1.0), torch.zeros(2), act="relu")
from torch_utils import native
print(y.sum().item(), native.kernels("cpu") is not None)
"""


def start(cache, **env):
    command = [sys.executable, "-c", SCRIPT, str(ROOT / "stylegan2_ada")]
    env = os.environ | {"DNNLIB_CACHE_DIR": str(cache), "SEGAN_NATIVE": "1"} | env
    return subprocess.Popen(command, env=env, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def test_processes_build_at_once_and_the_next_finds_it(tmp_path):
    times = []
    for count in (3, 1):
        for process in [start(tmp_path) for _ in range(count)]:
            out, errors = process.communicate()
            assert out == "0.0 True\n" and not errors, errors
        (library,) = tmp_path.glob("kernels/*/*")  # nothing else is left behind
        assert library.name == "kernels.so"
        times.append(library.stat().st_mtime_ns)
    assert times[0] == times[1]


def test_no_compiler_and_a_failing_one_are_said_once_and_do_not_stop_anybody(tmp_path):
    out, errors = start(tmp_path, PATH="/nowhere", CXX="").communicate()
    assert out == "0.0 False\n" and errors.count("there is no C++ compiler") == 1, errors
    broken = tmp_path / "c++"
    broken.write_text(f"#!{shutil.which('sh')}\necho 'kernel.cpp:1: error: no luck today' >&2\nexit 1\n")
    broken.chmod(0o755)
    for reason in ("no luck today", "(remembered in"):  # the second process does not try again
        out, errors = start(tmp_path, CXX=str(broken)).communicate()
        assert out == "0.0 False\n" and errors.count("No native cpu kernels") == 1 and reason in errors, errors


def test_they_are_off_unless_asked_for(tmp_path):
    out, errors = start(tmp_path, SEGAN_NATIVE="0").communicate()
    assert out == "0.0 False\n" and not errors and not list(tmp_path.iterdir())


@pytest.mark.slow
@pytest.mark.skipif(shutil.which("nvcc") is None, reason="there is no nvcc")
def test_cuda_sources_compile(tmp_path, monkeypatch):
    monkeypatch.setattr(dnnlib.util, "_cache_dir", str(tmp_path))
    assert native._built("cuda").exists()
