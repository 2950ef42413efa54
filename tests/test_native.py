"""The native kernels: same values as the plain path in any layout, and builds that never stop anybody."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import torch

import dnnlib
from golden_data import DEVICE
from helpers import ROOT
from torch_utils import custom_ops, kernels
from torch_utils.ops import bias_act, conv2d_gradfix, modulate, upfirdn2d
from training import loss, networks

SIZES = [(1, 1, 1, 1), (1, 3, 5, 7), (2, 5, 16, 9), (1, 16, 33, 31), (3, 64, 2, 40)]
LAYOUTS = [torch.contiguous_format, torch.channels_last]


@pytest.fixture(autouse=True)
def on(monkeypatch):
    monkeypatch.setattr(kernels, "enabled", True)


def both(function, *tensors):
    """Results and first and second gradients with impl='ref' and 'cuda', as pairs"""
    found = []
    for impl in ("ref", "cuda"):
        inputs = [t.detach().clone(memory_format=torch.preserve_format).requires_grad_(True) for t in tensors]
        y = function(*inputs, impl=impl)
        dy = torch.sin(torch.arange(y.numel(), dtype=y.dtype, device=DEVICE)).reshape(y.shape).requires_grad_(True)
        first = torch.autograd.grad(y, inputs, dy, create_graph=True)
        second = torch.autograd.grad(sum(g.square().sum() for g in first), [dy, *inputs], allow_unused=True)
        found.append([y, *first, *(torch.zeros((), device=DEVICE) if g is None else g for g in second)])
    return zip(*found)


@pytest.mark.parametrize("layout", LAYOUTS, ids=str)
@pytest.mark.parametrize("size", SIZES, ids=str)
@pytest.mark.parametrize("act, clamp", [("lrelu", 0.7), ("linear", None), ("swish", 0.5), ("softplus", None)])
def test_bias_act(size, layout, act, clamp):
    x = torch.randn(size, dtype=torch.float64, device=DEVICE).contiguous(memory_format=layout)
    call = lambda x, b, impl: bias_act.bias_act(x, b, act=act, clamp=clamp, impl=impl)
    for plain, kernel in both(call, x, torch.randn(size[1], dtype=torch.float64, device=DEVICE)):
        torch.testing.assert_close(kernel + torch.zeros_like(plain), plain + torch.zeros_like(kernel))


def test_bias_of_any_stride():
    x, b = torch.randn(2, 4, 5, 3), torch.randn(4, 6)[:, 2]
    for layout in LAYOUTS:
        x = x.contiguous(memory_format=layout)
        torch.testing.assert_close(bias_act.bias_act(x, b), bias_act.bias_act(x, b, impl="ref"))


FILTERS = dict(
    separable=torch.outer(torch.tensor([1.0, 3, 0, 1, 2, -1]), torch.tensor([2.0, 1, 5])),
    not_separable=torch.tensor([[1.0, 2, 0, 4], [0, 1, 3, 1], [2, 1, 1, 5]]),
    nothing=torch.zeros(2, 2),
)


@pytest.mark.parametrize("layout", LAYOUTS, ids=str)
@pytest.mark.parametrize("size", SIZES, ids=str)
@pytest.mark.parametrize("f", FILTERS)
@pytest.mark.parametrize("up, down", [(1, 1), (2, 1), (1, 2), (2, 3), ([3, 1], [1, 2])], ids=str)
def test_upfirdn2d(size, layout, f, up, down):
    x = torch.randn(size, dtype=torch.float64, device=DEVICE).contiguous(memory_format=layout)
    f = upfirdn2d.setup_filter(FILTERS[f], DEVICE, normalize=False)
    call = lambda x, impl: upfirdn2d.upfirdn2d(x, f, up=up, down=down, padding=[3, 2, 4, 3], impl=impl)
    for plain, kernel in both(call, x):
        torch.testing.assert_close(kernel, plain, rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("f", FILTERS)
@pytest.mark.parametrize("up, down", [(1, 1), (2, 1), (1, 2)])
@pytest.mark.parametrize("padding", [[-9, 20, 3, 3], [3, 3, 24, -8], [-9, 20, 24, -8], [-7, 9, -8, 9]], ids=str)
def test_crops_larger_than_the_image(padding, up, down, f):
    x = torch.randn(2, 3, 8, 7, dtype=torch.float64, device=DEVICE)
    f = upfirdn2d.setup_filter(FILTERS[f], DEVICE, normalize=False)
    call = lambda x, impl: upfirdn2d.upfirdn2d(x, f, up=up, down=down, padding=padding, impl=impl)
    for plain, kernel in both(call, x):
        torch.testing.assert_close(kernel, plain, rtol=1e-9, atol=1e-9)


CONVOLUTIONS = [  # batch, channels in and out, height, width, kernel, stride, padding
    (1, 1, 1, 1, 1, 1, 1, 0),
    (1, 16, 16, 5, 7, 3, 1, 1),
    (2, 17, 35, 8, 8, 3, 1, 0),
    (3, 33, 40, 9, 4, 3, 1, 2),
    (5, 16, 48, 8, 8, 3, 2, 1),
    (2, 20, 32, 9, 11, 3, 2, 0),
    (2, 40, 3, 9, 11, 1, 1, 0),
    (1, 3, 70, 6, 5, 1, 2, 0),
    (1, 16, 16, 4, 4, 5, 1, 2),
    (1, 8, 8, 13, 13, 4, 3, 1),
    (130, 4, 4, 7, 7, 3, 1, 1),
    (2, 40, 17, 5, 3, 3, 1, 1),
    (140, 20, 3, 4, 4, 3, 1, 1),
]


@pytest.mark.parametrize("layout", LAYOUTS, ids=str)
@pytest.mark.parametrize("transposed", [False, True])
@pytest.mark.parametrize("case", CONVOLUTIONS, ids=str)
def test_convolutions(case, transposed, layout, monkeypatch):
    batch, c_in, c_out, height, width, kernel, stride, padding = case
    x = torch.randn(batch, c_in, height, width, dtype=torch.float64, device=DEVICE).contiguous(memory_format=layout)
    w = torch.randn(
        *((c_in, c_out) if transposed else (c_out, c_in)), kernel, kernel, dtype=torch.float64, device=DEVICE
    )
    extra = dict(output_padding=stride - 1) if transposed else {}
    function = conv2d_gradfix.conv_transpose2d if transposed else conv2d_gradfix.conv2d

    def call(x, w, impl):
        monkeypatch.setattr(kernels, "enabled", impl == "cuda")
        return function(x, w, stride=stride, padding=padding, **extra)

    for plain, own in both(call, x, w):
        torch.testing.assert_close(own, plain, rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("act, clamp", [("lrelu", 0.7), ("linear", None), ("relu", None)])
@pytest.mark.parametrize("given", ["", "s", "n", "b", "sn", "snb"])
def test_modulation(given, act, clamp, monkeypatch):
    x = torch.randn(2, 5, 13, 11, dtype=torch.float64, device=DEVICE).contiguous(memory_format=torch.channels_last)
    parts = dict(s=torch.randn(2, 5), n=torch.randn(2, 1, 13, 11), b=torch.randn(5))
    names = dict(s="scale", n="noise", b="b")

    def call(x, *tensors, impl):
        monkeypatch.setattr(kernels, "enabled", impl == "cuda")
        kwargs = {names[key]: tensor for key, tensor in zip(given, tensors)}
        assert (modulate.modulate(x, **kwargs, act=act, clamp=clamp) is not None) == kernels.enabled
        return networks._modulate(x, **kwargs, act=act, clamp=clamp)

    for plain, own in both(call, x, *(parts[key].double().to(DEVICE) for key in given)):
        torch.testing.assert_close(own + torch.zeros_like(plain), plain + torch.zeros_like(own))


def test_results_do_not_depend_on_threads():
    x, b, f = torch.randn(4, 32, 64, 64), torch.randn(32), upfirdn2d.setup_filter([1, 3, 3, 1])
    w, s, wide = torch.randn(2, 32, 32, 3, 3), torch.randn(4, 32), torch.randn(70, 32, 3, 3)
    found = []
    for threads in (1, 2, 3):
        torch.set_num_threads(threads)
        inputs = [t.clone().requires_grad_(True) for t in (x, b, w, s, wide)]
        y = upfirdn2d.filter2d(bias_act.bias_act(*inputs[:2], act="lrelu"), f)
        y = conv2d_gradfix.conv2d(conv2d_gradfix.conv2d(y, inputs[2][0], padding=1), inputs[2][1], stride=2)
        y = modulate.modulate(y, inputs[3], act="lrelu")
        y = conv2d_gradfix.conv2d(y[:, :, :8, :8], inputs[4])  # few tiles, of which threads take channels
        dy = torch.sin(torch.arange(y.numel())).reshape(y.shape)
        found.append([y, *torch.autograd.grad(y, inputs, dy)])
    torch.set_num_threads(1)
    for one, two, three in zip(*found):
        assert torch.equal(one, two) and torch.equal(one, three)


def tiny_training(resolution=16):
    """Networks, loss and optimizers whose state is the same at every call"""
    torch.manual_seed(1)
    shape, width = dict(c_dim=0, img_resolution=resolution, img_channels=3), dict(channel_base=512, channel_max=32)
    G = networks.Generator(8, w_dim=8, synthesis_kwargs=width, **shape).to(DEVICE).train()
    D = networks.Discriminator(**width, **shape).to(DEVICE).train()
    adam = lambda net: torch.optim.Adam(net.parameters(), lr=0.002, betas=(0.0, 0.99), eps=1e-8)
    return G, D, loss.StyleGAN2Loss(DEVICE, G.mapping, G.synthesis, D), dict(G=adam(G), D=adam(D))


def accumulate(phase, G, D, training_loss, step, batch=8):
    """All gradients of a phase, as one vector"""
    net = dict(G=G, D=D)[phase[0]]
    torch.manual_seed(step)
    for other in (G, D):
        other.requires_grad_(other is net).zero_grad(set_to_none=True)
    real = torch.rand(batch, 3, *[G.img_resolution] * 2, device=DEVICE) * 2 - 1
    labels, z = torch.zeros(batch, 0, device=DEVICE), torch.randn(batch, 8, device=DEVICE)
    training_loss.accumulate_gradients(phase, real, labels, z, labels, sync=True, gain=1)
    return torch.cat([p.grad.flatten() for p in net.parameters() if p.grad is not None])


def compare_gradients(monkeypatch, steps=5, resolution=16, batch=8):
    """AssertionError unless those of every phase are those of the plain path"""
    G, D, training_loss, opts = tiny_training(resolution)
    for step in range(steps):
        for phase in ("Gmain", "Greg", "Dmain", "Dreg"):
            pl_mean = training_loss.pl_mean.clone()
            monkeypatch.setattr(kernels, "enabled", False)
            plain = accumulate(phase, G, D, training_loss, step, batch)
            training_loss.pl_mean.copy_(pl_mean)
            monkeypatch.setattr(kernels, "enabled", True)
            own = accumulate(phase, G, D, training_loss, step, batch)
            assert (own - plain).norm() <= 1e-5 * plain.norm(), (step, phase)
            opts[phase[0]].step()


def test_gradients_of_a_training_run_are_those_of_the_plain_path(monkeypatch):
    compare_gradients(monkeypatch)


def test_short_runs_have_the_same_curves(monkeypatch):
    """With plain gradient descent: Adam divides by gradients that are near zero, and so makes rounding large"""
    curves = []
    for enabled in (False, True):
        monkeypatch.setattr(kernels, "enabled", enabled)
        G, D, training_loss, _ = tiny_training()
        opts = {name: torch.optim.SGD(net.parameters(), lr=0.01, momentum=0.9) for name, net in dict(G=G, D=D).items()}
        curves.append([])
        for step in range(12):
            for phase in ("Gmain", "Dmain"):
                curves[-1].append(accumulate(phase, G, D, training_loss, step).norm())
                opts[phase[0]].step()
    plain, own = torch.tensor(curves)
    torch.testing.assert_close(own, plain, rtol=2e-5, atol=0)
    assert plain[::2].std() > 0.2 * plain[::2].mean()  # the curve is not flat


SCRIPT = """
import sys; sys.path.insert(0, sys.argv[1])
import torch; torch.set_num_threads(1)
from torch_utils.ops import bias_act
for _ in range(2):
    y = bias_act.bias_act(torch.full([1, 2, 3, 3], -1.0), torch.zeros(2), act="relu")
from torch_utils import custom_ops, kernels
print(y.sum().item(), kernels.available("cpu") is not None)
"""


def start(cache, **env):
    command = [sys.executable, "-c", SCRIPT, str(ROOT / "stylegan2_ada")]
    env = os.environ | {"DNNLIB_CACHE_DIR": str(cache), "SEGAN_NATIVE": "1"} | env
    return subprocess.Popen(command, env=env, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


@pytest.mark.slow
def test_processes_build_at_once_and_the_next_finds_it(tmp_path):
    times = []
    for count in (3, 1):
        for process in [start(tmp_path) for _ in range(count)]:
            out, errors = process.communicate()
            said = "Building kernels for cpu, once... Done.\n" if count == 3 else ""
            assert out == "0.0 True\n" and errors == said, errors
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


@pytest.mark.parametrize(
    "file, right, wrong",
    [
        ("bias_act.h", "T y = gain * act", "T y = alpha * act"),
        pytest.param("upfirdn2d.cpp", "a[i] * wa", "a[i] * wb", marks=pytest.mark.slow),
        pytest.param("conv2d.cpp", "v[1] = d[1] + d[2]", "v[1] = d[1] - d[2]", marks=pytest.mark.slow),
        pytest.param("conv2d.cpp", "v[1] = even_a + a", "v[1] = even_b + a", marks=pytest.mark.slow),
        pytest.param("conv2d.cpp", "panel, p.in_c, sum)", "panel, p.in_c - 1, sum)", marks=pytest.mark.slow),
    ],
)
def test_kernels_that_compute_something_else_are_not_used(file, right, wrong, tmp_path, monkeypatch):
    sources = Path(shutil.copytree(kernels._SOURCES, tmp_path / "csrc"))
    text = (sources / file).read_text()
    assert right in text
    (sources / file).write_text(text.replace(right, wrong))
    monkeypatch.setattr(kernels, "_SOURCES", sources)
    monkeypatch.setattr(dnnlib.util, "_cache_dir", str(tmp_path / "cache"))
    broken = kernels._loaded_library.__wrapped__("cpu")
    monkeypatch.setattr(kernels, "_library", lambda device_type: broken)
    x, op = torch.randn(2, 4, 9, 7), Path(file).stem
    with pytest.warns(UserWarning, match=f"No native cpu kernel for {op}.*{op} gives wrong results") as warned:
        used = {name for name in kernels._ops if kernels.kernel(name, x) is not None}
    others = {name for name in kernels._ops if not name.startswith(op)}
    assert used == others and len(warned) == 1  # what depends on the op does without it
    images = modulate.modulate(x.contiguous(memory_format=torch.channels_last), b=torch.randn(4))
    assert (images is None) == (op == "bias_act")


def test_a_build_without_ninja_or_killed_for_memory_is_tried_again(tmp_path):
    beside = str(Path(sys.executable).parent / "ninja")
    hidden = f"from pathlib import Path; real = Path.exists; Path.exists = lambda p: str(p) != {beside!r} and real(p)\n"
    compiler = dict(PATH="/nowhere", CXX=shutil.which("g++"))
    env = os.environ | dict(DNNLIB_CACHE_DIR=str(tmp_path), SEGAN_NATIVE="1") | compiler
    command = [sys.executable, "-c", hidden + SCRIPT, str(ROOT / "stylegan2_ada")]
    done = subprocess.run(command, env=env, capture_output=True, text=True)
    assert done.stdout == "0.0 False\n" and "ninja is not installed" in done.stderr, done.stderr
    killed = tmp_path / "c++"
    killed.write_text(
        f"#!{shutil.which('sh')}\n[ $1 = --version ] && exec g++ --version\n"
        f"if [ -e {tmp_path}/recovered ]; then exec g++ $*; fi\n"
        "echo 'g++: fatal error: Killed signal terminated program cc1plus' >&2; exit 1\n"
    )
    killed.chmod(0o755)
    out, errors = start(tmp_path, CXX=str(killed)).communicate()
    assert out == "0.0 False\n" and "Killed signal" in errors, errors
    (tmp_path / "recovered").touch()
    out, errors = start(tmp_path, CXX=str(killed)).communicate()
    assert out == "0.0 True\n", errors


def test_a_failure_is_forgotten_after_a_day(tmp_path, monkeypatch):
    monkeypatch.setattr(dnnlib.util, "_cache_dir", str(tmp_path))
    (tmp_path / "bad.cpp").write_text("this is no C++")
    with pytest.raises(RuntimeError, match="error"):
        custom_ops.get_library([tmp_path / "bad.cpp"], [])
    with pytest.raises(RuntimeError, match="remembered in"):
        custom_ops.get_library([tmp_path / "bad.cpp"], [])
    (failure,) = tmp_path.glob("kernels/*/failure.txt")
    os.utime(failure, (0, 0))
    with pytest.raises(RuntimeError, match="error") as raised:
        custom_ops.get_library([tmp_path / "bad.cpp"], [])
    assert "remembered" not in str(raised.value)


def test_they_can_be_turned_off(tmp_path):
    out, errors = start(tmp_path, SEGAN_NATIVE="0").communicate()
    assert out == "0.0 False\n" and not errors and not list(tmp_path.iterdir())
