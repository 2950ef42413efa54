"""Starting from somebody's networks: their images at first, whatever the mode; training the subspaces alone."""

import hashlib
import shutil

import pytest
import torch

import dnnlib
import legacy
from golden_data import FOLDER
from helpers import make_dataset, newest, only_run, run
from runs import launch, recipe
from runs.options import OPTIONS
from segan_ext.training import add_mode
from test_segan_networks import FORMS
from torch_utils import misc

SOURCES = ["nvidia_pickle_uncond.pkl", "nvidia_pickle_cond.pkl", "nvidia_pickle_fp16.pkl", "tf_legacy_cond.pkl"]


def options(**given):
    """The values of a command line that gives only these"""
    names = [option for declare in OPTIONS for option in _names(declare)]
    others = ["cfg", "mode", "subspace_dim", "subspace_form", "ortho", "train", "own_dim", "prior", "bottleneck"]
    others += ["info", "labels", "num_labels"]
    return dict.fromkeys([*names, *others]) | given


def _names(declare):
    function = declare(lambda: None)
    return [option.name for option in function.__click_params__]


class Data:
    """The shape of a data set that fits a generator"""

    def __init__(self, G):
        self.resolution, self.num_channels, self.label_dim = G.img_resolution, G.img_channels, G.c_dim
        self.name = "fitting"

    def __len__(self):
        return 8


@pytest.mark.parametrize("form", FORMS.values(), ids=FORMS)
@pytest.mark.parametrize("name", SOURCES)
def test_any_generator_becomes_a_segan_with_the_same_images(name, form):
    source = legacy.load_generator(str(FOLDER / name))
    given = options(data="fitting.zip", resume=str(FOLDER / name), **form)
    config = recipe.auto_config(1, source.img_resolution)
    _, args = recipe.build(given, "auto", config, Data(source), "cpu", gpus=1, cores=1)
    networks = launch.adopt_networks(args, Data(source))
    add_mode(args, given, 0, networks, Data(source))
    shape = dict(c_dim=source.c_dim, img_resolution=source.img_resolution, img_channels=source.img_channels)
    G = dnnlib.util.construct_class_by_name(**args["G_kwargs"], **shape).eval()
    D = dnnlib.util.construct_class_by_name(**args["D_kwargs"], **shape).eval()
    misc.copy_params_and_buffers(networks["G_ema"], G)
    misc.copy_params_and_buffers(networks["D"], D, require_all=True)
    for count in (1, 3):
        z, c = torch.randn(count, source.z_dim), torch.eye(max(source.c_dim, count))[:count, : source.c_dim]
        for call in (dict(), dict(truncation_psi=0.5), dict(fused_modconv=False)):
            expected = source(z, c, noise_mode="const", force_fp32=True, **call)
            assert torch.equal(G(z, c, noise_mode="const", force_fp32=True, **call), expected)
        assert torch.equal(*[net(expected, c, force_fp32=True) for net in (networks["D"].eval(), D)])


@pytest.mark.slow
@pytest.mark.parametrize("mode", [["--mode=1", "--subspace-dim=4"], ["--mode=2"]], ids=" ".join)
def test_training_the_subspaces_alone(mode, tmp_path):
    data, source = make_dataset(tmp_path / "discs.zip", size=32), FOLDER / "nvidia_pickle_uncond.pkl"
    cached = tmp_path / "cache" / "downloads" / hashlib.md5(recipe.PRETRAINED["ffhq256"].encode()).hexdigest()
    cached.parent.mkdir(parents=True)
    shutil.copy(source, f"{cached}_ffhq256.pkl")  # as if it had been downloaded
    args = ["--cfg=auto", *mode, "--resume=ffhq256", "--train=subspace", "--freezed=1", f"--data={data}", "--batch=8"]
    args += ["--grid=2x2", "--workers=0", "--kimg=1", f"--outdir={tmp_path / 'out'}"]
    done = run("train_segan.py", *args, env={"DNNLIB_CACHE_DIR": str(tmp_path / "cache")})
    assert "G z_dim 512 to 16" in done.stdout
    run_dir = only_run(tmp_path / "out")
    assert run_dir.name.endswith("resumeffhq256")
    with source.open("rb") as before, newest(run_dir).open("rb") as after:
        before, after = legacy.load_network_pkl(before), legacy.load_network_pkl(after)
    states = [dict(misc.named_params_and_buffers(nets["G_ema"])) for nets in (before, after)]
    moved = {name for name, tensor in states[0].items() if not torch.equal(tensor, states[1][name])}
    assert moved == {"mapping.w_avg"}  # the mean of w is a statistic
    fresh = type(after["G_ema"])(**after["G_ema"].init_kwargs)
    learned = [name for name, p in fresh.named_parameters() if not torch.equal(p, states[1][name])]
    assert learned and all(".subspace." in name for name, _ in fresh.named_parameters())
    assert len(learned) == len(list(fresh.parameters()))
    weights = [nets["D"].b32 for nets in (before, after)]
    assert torch.equal(weights[0].fromrgb.weight, weights[1].fromrgb.weight)
    assert not torch.equal(weights[0].conv0.weight, weights[1].conv0.weight)
    again = run("train_segan.py", *args[:-1], f"--resume={run_dir}", "--kimg=2", check=False)
    assert again.returncode == 0, again.stderr
