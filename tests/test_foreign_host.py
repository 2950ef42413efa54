"""A checkout of the reference as host: what is mended at run time, and that SEGAN trains and is used on it.

The reference itself is not here. Each patch is tried on a few lines that fail as the reference's do; the whole on a
copy of our host without what only it has. With SEGAN_REFERENCE=DIR in the environment the last tests run on a real
checkout.
"""

import os
import shutil
import subprocess
import sys
import types
import zipfile
from pathlib import Path

import numpy as np
import PIL.Image
import pytest
import torch

import legacy
from helpers import ROOT, TINY, make_dataset, newest, only_run, read_stats, run
from patches import (
    copy_without_gradients,
    cpu,
    distutils_util,
    failed_source,
    filter_is_copied,
    grid_sample_again,
    half_cdist,
    imageio_on_use,
    percentile_method,
    pinned_memory,
    sampler_base,
    sqrtm_value,
    zip_per_process,
)


def stand_in(source, **names):
    """A module made of a few lines"""
    module = types.ModuleType("stand_in")
    vars(module).update(names)
    exec(source, vars(module))
    return module


# Patches, one by one


def test_cpu_takes_the_place_of_cuda():
    module = stand_in("import torch\ndef make(): return torch.zeros(2, device=torch.device('cuda', 0))")
    cpu.apply(module)
    assert module.make().device.type == "cpu"
    assert module.torch.device("cpu") == torch.device("cpu") and module.torch.nn is torch.nn
    start, end = module.torch.cuda.Event(enable_timing=True), module.torch.cuda.Event(enable_timing=True)
    start.record(module.torch.cuda.current_stream(torch.device("cpu")))
    end.record()
    end.synchronize()
    assert start.elapsed_time(end) >= 0
    assert module.torch.cuda.max_memory_allocated(0) == 0 and module.torch.cuda.is_available() is False
    module.torch.cuda.reset_peak_memory_stats()


def test_sampler_base_ignores_the_data_set():
    source = "import torch\nclass InfiniteSampler(torch.utils.data.Sampler):\n"
    source += "    def __init__(self, dataset):\n        super().__init__(dataset)\n        self.dataset = dataset\n"
    module = stand_in(source)
    if sampler_base.needed(module):
        with pytest.raises(TypeError):
            module.InfiniteSampler([1, 2])
    sampler_base.apply(module)
    assert module.InfiniteSampler([1, 2]).dataset == [1, 2]
    assert issubclass(module.InfiniteSampler, torch.utils.data.Sampler)


def test_copy_without_gradients():
    module = stand_in("def copy_params_and_buffers(src, dst):\n    dst.weight.copy_(src.weight)")
    src, dst = torch.nn.Linear(2, 2), torch.nn.Linear(2, 2)
    with pytest.raises(RuntimeError):
        module.copy_params_and_buffers(src, dst)
    copy_without_gradients.apply(module)
    module.copy_params_and_buffers(src, dst)
    assert torch.equal(src.weight, dst.weight) and dst.weight.requires_grad


def test_failed_source_leaves_nothing():
    source = "import sys, types\n_src_to_module_dict, _module_to_src_dict = {}, {}\n"
    source += "def _src_to_module(src):\n    if src in _src_to_module_dict: return _src_to_module_dict[src]\n"
    source += "    module = sys.modules['made_of_source'] = types.ModuleType('made_of_source')\n"
    source += "    _src_to_module_dict[src] = module; _module_to_src_dict[module] = src\n"
    source += "    exec(src, vars(module)); return module\n"
    persistence = stand_in(source)
    assert failed_source.needed(persistence)
    failed_source.apply(persistence)
    for _ in range(2):
        with pytest.raises(ZeroDivisionError):
            persistence._src_to_module("1 / 0")
    assert "made_of_source" not in sys.modules and not persistence._module_to_src_dict
    assert persistence._src_to_module("a = 5").a == 5
    del sys.modules["made_of_source"]


def test_filter_is_copied():
    module = stand_in("def setup_filter(f, gain=1):\n    f /= f.sum()\n    return f * gain")
    assert filter_is_copied.needed(module)
    filter_is_copied.apply(module)
    taps = torch.tensor([1.0, 3.0])
    assert module.setup_filter(taps, gain=2).tolist() == [0.5, 1.5] and taps.tolist() == [1, 3]
    assert not filter_is_copied.needed(module)


def test_grid_sample_has_second_derivatives():
    module = stand_in("grid_sample = None")
    grid_sample_again.apply(module)
    x = torch.randn(1, 1, 4, 4, dtype=torch.float64, requires_grad=True)
    grid = (torch.rand(1, 3, 3, 2, dtype=torch.float64) - 0.5).requires_grad_(True)
    assert torch.autograd.gradgradcheck(lambda x: module.grid_sample(x, grid.detach()).pow(2), x)
    assert torch.autograd.gradgradcheck(module.grid_sample, (x, grid))


def test_zip_per_process(tmp_path):
    source = "import zipfile\nclass ImageFolderDataset:\n"
    source += "    def __init__(self, path): self.path, self._zipfile = path, None\n"
    source += "    def _get_zipfile(self):\n"
    source += "        self._zipfile = self._zipfile or zipfile.ZipFile(self.path)\n        return self._zipfile\n"
    with zipfile.ZipFile(tmp_path / "a.zip", "w") as archive:
        archive.writestr("a", "b")
    module = stand_in(source)
    assert zip_per_process.needed(module)
    zip_per_process.apply(module)
    data = module.ImageFolderDataset(tmp_path / "a.zip")
    mine = data._get_zipfile()
    assert data._get_zipfile() is mine
    if (child := os.fork()) == 0:
        os._exit(int(data._get_zipfile() is mine))
    assert os.waitpid(child, 0)[1] == 0


def test_pinned_memory(monkeypatch):
    monkeypatch.setattr(torch.Tensor, "pin_memory", torch.Tensor.pin_memory)
    pinned_memory.apply(None)
    x = torch.zeros(2)
    assert x.pin_memory() is x


def test_percentile_method():
    module = stand_in("import numpy as np\ndef low(x): return np.percentile(x, 1, interpolation='lower')")
    if percentile_method.needed(module):
        with pytest.raises(TypeError):
            module.low([1.0, 2.0])
    percentile_method.apply(module)
    assert module.low(np.arange(50.0)) == 0 and module.np.zeros is np.zeros


def test_half_cdist():
    module = stand_in("import torch\ndef distances(a, b): return torch.cdist(a[None], b[None])[0]")
    half_cdist.apply(module)
    a, b = torch.randn(3, 5), torch.randn(4, 5)
    torch.testing.assert_close(module.distances(a, b), torch.cdist(a, b))
    half = module.distances(a.half(), b.half())
    assert half.dtype == torch.float16
    torch.testing.assert_close(half.float(), torch.cdist(a, b), rtol=1e-2, atol=1e-2)


def test_sqrtm_value():
    module = stand_in("import scipy.linalg\ndef root(a):\n    s, _ = scipy.linalg.sqrtm(a, disp=False)\n    return s")
    sqrtm_value.apply(module)
    np.testing.assert_allclose(module.root(np.diag([4.0, 9.0])), np.diag([2.0, 3.0]))
    assert module.scipy.linalg.sqrtm(np.eye(2)).shape == (2, 2)


def test_distutils_and_imageio_are_replaced_where_they_are_missing(monkeypatch):
    monkeypatch.setitem(sys.modules, "distutils", None)
    monkeypatch.setitem(sys.modules, "distutils.util", None)
    monkeypatch.setitem(sys.modules, "imageio", None)
    distutils_util.apply(None)
    imageio_on_use.apply(None)
    import distutils.util

    import imageio

    assert distutils.util.strtobool("Yes") == 1 and distutils.util.strtobool("off") == 0
    with pytest.raises(ValueError, match="neither yes nor no"):
        distutils.util.strtobool("perhaps")
    with pytest.raises(ImportError, match="pip install imageio"):
        imageio.get_writer("proj.mp4")


# A whole checkout


@pytest.fixture(scope="module")
def checkout(tmp_path_factory):
    """A host without what starts runs, which only ours has"""
    root = tmp_path_factory.mktemp("checkout") / "host"
    only_ours = shutil.ignore_patterns("__pycache__", "runs", "train.py")
    shutil.copytree(ROOT / "stylegan2_ada", root, ignore=only_ours)
    return root


@pytest.mark.slow
def test_training_and_scripts_on_a_foreign_host(checkout, tmp_path):
    data = make_dataset(tmp_path / "discs.zip")
    options = [option for option in TINY if not option.startswith("--grid")]
    out = tmp_path / "out"
    run("train_segan.py", f"--host={checkout}", *options, f"--data={data}", "--kimg=1", f"--outdir={out}")
    run_dir = only_run(out)
    assert "Loss/G/ortho" in read_stats(run_dir)[-1]
    with newest(run_dir).open("rb") as file:
        assert legacy.load_network_pkl(file)["G_ema"].mode == 2
    scripts = ["--trust-pickle", "generate.py", f"--network={newest(run_dir)}", "--seeds=1", f"--outdir={tmp_path}"]
    run("-m segan_ext", f"--host={checkout}", "run", *scripts)
    assert PIL.Image.open(tmp_path / "seed0001.png").size == (16, 16)
    env = {"SEGAN_HOST": str(checkout)}
    resumed = [f"--resume={newest(run_dir)}", "--trust-pickle", "--train=subspace", "--kimg=1"]
    run("train_segan.py", *options, f"--data={data}", *resumed, f"--outdir={tmp_path / 'again'}", env=env)
    before, after = (legacy.load_generator(str(newest(d))) for d in (run_dir, only_run(tmp_path / "again")))
    assert torch.equal(before.synthesis.b8.conv0.weight, after.synthesis.b8.conv0.weight)


def test_what_a_foreign_host_cannot_do_is_refused(checkout, tmp_path):
    data = make_dataset(tmp_path / "discs.zip", count=8)
    train = lambda *args: run("train_segan.py", *args, f"--data={data}", f"--outdir={tmp_path / 'out'}", check=False)
    tools = lambda *args: run("-m segan_ext", *args, check=False)
    for done, sentence in [
        (
            train("--host=/nowhere"),
            "--host: /nowhere is no StyleGAN2-ADA checkout: it has no training/training_loop.py",
        ),
        (train(f"--host={checkout}", "--resume=latest"), "--resume: only the bundled host continues runs"),
        (train(f"--host={checkout}", "--resume=x.pkl"), "add --trust-pickle"),
        (train(f"--host={checkout}", "--grid=2x2"), "--grid: is an option of the bundled host"),
        (tools(f"--host={checkout}", "explore", "--network=x.pkl"), "explore works on the bundled host"),
        (tools(f"--host={checkout}", "run", "generate.py", "--network=x.pkl"), "put --trust-pickle before generate.py"),
        (tools(f"--host={checkout}", "run", "nothing.py"), "has no script nothing.py; it has"),
    ]:
        assert done.returncode == 2 and sentence in done.stderr, done.stderr
        assert "Traceback" not in done.stderr
    assert not (tmp_path / "out").exists()


# The real one

REFERENCE = os.environ.get("SEGAN_REFERENCE")
on_reference = pytest.mark.skipif(not REFERENCE, reason="SEGAN_REFERENCE names no checkout")


@on_reference
@pytest.mark.parametrize(
    "method",
    [
        *(f"--cfg=segan-mode{mode}" for mode in range(4)),
        *("--cfg=segan-eigen", "--cfg=segan-named --labels=factors"),
        *("--cfg=eigengan", "--cfg=stylegan1 --grow-kimg=0.3", "--cfg=traditional"),
    ],
)
def test_snapshots_open_in_a_plain_checkout(method, tmp_path):
    data = make_dataset(tmp_path / "discs.zip", size=32, labels="classes")
    options = [*method.split(), *TINY, "--kimg=1", f"--outdir={tmp_path / 'out'}"]
    run("train_segan.py", *options, f"--data={data}")
    snapshot = newest(only_run(tmp_path / "out"))
    script = (
        "import sys, numpy, torch; sys.path.insert(0, sys.argv[1]); sys.modules['segan_ext'] = None; import legacy\n"
        "G = legacy.load_network_pkl(open(sys.argv[2], 'rb'))['G_ema']\n"
        "z = torch.from_numpy(numpy.random.RandomState(0).randn(4, G.z_dim))\n"
        "numpy.save(sys.argv[3], G(z, None, noise_mode='const', force_fp32=True).numpy())\n"
        "assert [m for m in sys.modules if m.split('.')[0] == 'segan_ext'] == ['segan_ext']\n"  # and that is None
    )
    image = tmp_path / "images.npy"
    args = [sys.executable, "-I", "-c", script, REFERENCE, str(snapshot), str(image)]
    subprocess.run(args, check=True, cwd=tmp_path, capture_output=True)
    G = legacy.load_generator(str(snapshot))
    z = torch.from_numpy(np.random.RandomState(0).randn(4, G.z_dim))
    ours = G(z, None, noise_mode="const", force_fp32=True).numpy()
    tolerance = 1e-4 if "traditional" in method else 1e-5  # pixels of few channels at unit length enlarge rounding
    assert np.abs(np.load(image) - ours).max() <= tolerance * np.abs(ours).max()


@on_reference
def test_training_on_the_reference_and_its_snapshot_in_ours(tmp_path):
    data = make_dataset(tmp_path / "discs.zip", size=32)
    options = [option for option in TINY if not option.startswith("--grid")]
    run("train_segan.py", f"--host={REFERENCE}", *options, f"--data={data}", "--kimg=1", f"--outdir={tmp_path / 'out'}")
    snapshot = newest(only_run(tmp_path / "out"))
    resumed = [*options, f"--data={data}", f"--resume={snapshot}", "--trust-pickle", "--train=subspace", "--kimg=1"]
    run("train_segan.py", f"--host={REFERENCE}", *resumed, f"--outdir={tmp_path / 'again'}")
    assert (only_run(tmp_path / "again") / "source.pkl").exists()  # its loop takes networks from a file alone
    args = [f"--network={snapshot}", "--seeds=0-5"]
    run(
        "-m segan_ext",
        f"--host={REFERENCE}",
        "run",
        "--trust-pickle",
        "generate.py",
        *args,
        f"--outdir={tmp_path / 'a'}",
    )
    run("stylegan2_ada/generate.py", *args, f"--outdir={tmp_path / 'b'}")
    for i in range(6):
        theirs, ours = (np.asarray(PIL.Image.open(tmp_path / d / f"seed000{i}.png"), int) for d in "ab")
        assert np.abs(theirs - ours).max() <= 1  # a rounding


@on_reference
def test_their_scripts_on_our_modules(tmp_path):
    data = make_dataset(tmp_path / "discs.zip", size=32)
    run("train_segan.py", *TINY, f"--data={data}", "--kimg=1", f"--outdir={tmp_path / 'out'}")
    network = f"--network={newest(only_run(tmp_path / 'out'))}"
    arguments = {
        "generate.py": ["--seeds=0-2"],
        "style_mixing.py": ["--rows=0,1", "--cols=2", "--styles=0-2"],
    }
    for name, args in arguments.items():
        text = (Path(REFERENCE) / name).read_text().replace("torch.device('cuda')", "torch.device('cpu')")
        (tmp_path / name).write_text(text)
        env = os.environ | {"PYTHONPATH": str(ROOT / "stylegan2_ada")}
        call = [sys.executable, str(tmp_path / name), network, *args, f"--outdir={tmp_path / name[:-3]}"]
        done = subprocess.run(call, capture_output=True, text=True, env=env)
        assert done.returncode == 0, done.stderr
    assert (tmp_path / "generate" / "seed0002.png").exists() and (tmp_path / "style_mixing" / "grid.png").exists()
