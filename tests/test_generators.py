"""Generators of other papers: EigenGAN, StyleGAN, the traditional one; their losses, growing, and the tools on them."""

import math

import pytest
import torch
from torch.nn.functional import avg_pool2d, interpolate, relu, softplus

from helpers import TINY, make_dataset, newest, only_run, read_stats, run
from metrics.perceptual_path_length import PPLSampler
from segan_ext.adversarial import PublishedLoss, faded, grown_after
from segan_ext.control.noise import parse_blocks, stochastic_variation
from segan_ext.control.traversal import interpolation
from segan_ext.directions.named import as_editable
from segan_ext.generators import eigengan, stylegan1
from segan_ext.latents import draw_ws, ws_of_seeds
from segan_ext.layers import FeatureHooks
from segan_ext.onnx_export import export_onnx
from segan_ext.semantics import closed_form
from segan_ext.semantics.segmenters import Segmenter
from segan_ext.web.engine import Opened
from snapshots.load import load_generator
from training import state
from training.networks import Discriminator

WIDTH = dict(channel_base=128, channel_max=8)


def eigen(resolution=16, **kwargs):
    sizes = dict(c_dim=0, img_resolution=resolution, img_channels=3, noise_dim=8, own_dim=3)
    return eigengan.EigenGANGenerator(**sizes, synthesis_kwargs=WIDTH, **kwargs).eval().requires_grad_(False)


def styled(kind=stylegan1.StyleGAN1Generator, resolution=16, layers=2, c_dim=0, **synthesis):
    sizes = dict(z_dim=8, c_dim=c_dim, w_dim=8, img_resolution=resolution, img_channels=3)
    parts = dict(mapping_kwargs=dict(num_layers=layers), synthesis_kwargs=WIDTH | synthesis)
    return kind(**sizes, **parts).eval().requires_grad_(False)


# ---------------------------------------------------------------------------------------------------------------------
# EigenGAN


def test_an_eigen_subspace_is_its_formula():
    subspace = eigengan.EigenSubspace((1, 0), 3, first=2, channels=4, resolution=4).double()
    assert torch.equal(subspace.L, torch.tensor([9.0, 6, 3], dtype=torch.float64))
    U = subspace.basis()
    assert torch.allclose(U.t() @ U, torch.eye(3, dtype=torch.float64), atol=1e-6) and subspace.penalty() < 1e-10
    torch.nn.init.normal_(subspace.mu)
    w = torch.randn(5, 7, dtype=torch.float64, requires_grad=True)
    expected = torch.einsum("rk,nk->nr", U, w[:, 2:5] * subspace.L).reshape(5, 4, 4, 4) + subspace.mu
    assert torch.allclose(subspace(w), expected)
    assert torch.autograd.gradcheck(subspace, (w,))
    subspace.U.data *= 1.1
    gram = U.t() @ U * 1.21
    assert subspace.penalty().item() == pytest.approx(0.5 * (gram - torch.eye(3)).square().sum().item())


def test_an_edit_of_eigengan_is_a_change_of_its_coordinate():
    G = eigen()
    assert list(G.subspaces()) == [(0, 0), (1, 0)] and G.z_dim == 8 + 2 * 3 and G.num_ws == 2
    ws = G.mapping(torch.randn(4, G.z_dim))
    moved = ws.clone()
    moved[:, 1, 8 + 3 + 2] += 1.5
    with G.edited(offsets={(1, 0): torch.tensor([0, 0, 1.5])}):
        edited = G.synthesis(ws)
    assert torch.allclose(edited, G.synthesis(moved)) and not torch.allclose(edited, G.synthesis(ws))
    assert edited.abs().max() <= 1  # tanh


def test_latents_of_eigengan_are_cut_as_published():
    G = eigen()
    z = torch.randn(20_000, G.z_dim)
    assert torch.equal(G.mapping(z)[:, 0], z)
    cut = G.mapping(z, truncation_psi=0.5, truncation_cutoff=1)
    assert torch.equal(cut[:, 1], z) and cut[:, 0].abs().max() <= 1.5
    assert (cut[:, 0].gather(0, z.argsort(dim=0)).diff(dim=0) >= -1e-6).all()  # the same order
    density = math.exp(-(1.5**2) / 2) / math.sqrt(2 * math.pi)
    variance = 1 - 2 * 1.5 * density / math.erf(1.5 / math.sqrt(2))  # of a normal number cut at ±1.5
    assert cut[:, 0].var().item() == pytest.approx(variance, rel=0.02)
    assert not G.mapping(z, truncation_psi=0).any()


@pytest.mark.parametrize("call", [lambda: eigen(12), lambda: eigen(4)])
def test_eigengan_refuses_sizes_that_it_does_not_have(call):
    with pytest.raises(ValueError, match="power of two from 8 on"):
        call()


# ---------------------------------------------------------------------------------------------------------------------
# StyleGAN and the traditional generator


def test_adain_gives_channels_the_mean_and_deviation_of_the_style():
    x = torch.randn(3, 4, 9, 9) * 5 + 2
    plain = stylegan1.adaptive_instance_norm(x, torch.tensor([1.0] * 4 + [0.0] * 4).expand(3, 8))
    assert torch.allclose(plain.mean(dim=[2, 3]), torch.zeros(3, 4), atol=1e-6)
    assert torch.allclose(plain.var(dim=[2, 3], correction=0), torch.ones(3, 4), atol=1e-5)
    assert torch.allclose(plain, torch.nn.functional.instance_norm(x, eps=1e-8), atol=1e-5)
    style = torch.randn(3, 8)
    y = stylegan1.adaptive_instance_norm(x, style)
    assert torch.allclose(y.mean(dim=[2, 3]), style[:, 4:], atol=1e-5)
    assert torch.allclose(y.std(dim=[2, 3], correction=0), style[:, :4].abs(), atol=1e-5)


def test_each_layer_of_stylegan_reads_a_w_of_its_own_and_the_traditional_one_reads_one():
    G = styled()
    assert G.num_ws == 6 and list(as_editable(G).subspaces()) == [(L, N) for L in range(3) for N in range(2)]
    ws = G.mapping(torch.randn(1, 8), None).requires_grad_()
    (grad,) = torch.autograd.grad(G.synthesis(ws).square().sum(), ws)
    assert (grad[0].abs().sum(dim=1) > 0).all()
    plain = styled(stylegan1.TraditionalGenerator, layers=0)
    assert plain.num_ws == 1 and list(as_editable(plain).subspaces()) == [(0, 0)]
    z = torch.randn(5, 8)
    ws = plain.mapping(z, None)
    assert torch.allclose(ws[:, 0], z / z.square().mean(dim=1, keepdim=True).sqrt(), atol=1e-6)
    assert plain.synthesis(ws).shape == (5, 3, 16, 16)


@pytest.mark.parametrize("kind", [stylegan1.StyleGAN1Generator, stylegan1.TraditionalGenerator])
def test_a_generator_with_subspaces_makes_the_same_images(kind):
    G = styled(kind)
    torch.nn.init.normal_(G.synthesis.b8.conv1.noise_strength)
    z = torch.randn(2, 8)
    assert torch.equal(as_editable(G)(z, None, noise_mode="const"), G(z, None, noise_mode="const"))
    with pytest.raises(ValueError, match="mode 1"):
        kind(8, 0, 8, 16, 3, mode=1)


def test_growing_networks_pass_smoothly_from_stage_to_stage():
    G, near = styled(resolution=32, grows=True), 1e-6
    D = stylegan1.GrowingDiscriminator(0, 32, 3, architecture="orig", **WIDTH).eval().requires_grad_(False)
    ws, img = G.mapping(torch.randn(4, 8), None), torch.randn(4, 3, 32, 32)

    def at(grown):
        for network in (G, D):
            stylegan1.grow(network, grown)
        return G.synthesis(ws, noise_mode="const"), D(faded(img, grown), None)

    for stage in (3, 4):
        for before, after in ((at(stage), at(stage + near)), (at(stage + 1 - near), at(stage + 1))):
            for a, b in zip(before, after):
                assert torch.allclose(a, b, atol=1e-4)
    small = at(3)[0]
    assert torch.allclose(small, interpolate(avg_pool2d(small, 4), scale_factor=4), atol=1e-6)  # 8×8 pixels, enlarged
    half = at(3.5)[0]
    both = torch.lerp(small, _of_next(G, ws), 0.5)
    assert torch.allclose(half, both, atol=1e-5)
    full = styled(resolution=32)
    full.load_state_dict({k: v for k, v in G.state_dict().items() if k in full.state_dict()})
    at(5)
    assert torch.equal(G.synthesis(ws, noise_mode="const"), full.synthesis(ws, noise_mode="const"))


def _of_next(G, ws):
    stylegan1.grow(G, 4)
    return G.synthesis(ws, noise_mode="const")


def test_real_images_fade_in_as_generated_ones_do():
    img = torch.randn(2, 3, 16, 16)
    small = interpolate(avg_pool2d(img, 2), scale_factor=2)
    assert torch.equal(faded(img, 4), img) and torch.allclose(faded(img, 3), small)
    assert torch.allclose(faded(img, 3.25), torch.lerp(small, img, 0.25), atol=1e-6)


def test_the_schedule_stands_and_fades_in_turn():
    reached = [grown_after(kimg, 10, 32) for kimg in (0, 10, 15, 20, 25, 30, 35, 40, 1000)]
    assert reached == [3, 3, 3.5, 4, 4, 4, 4.5, 5, 5]


# ---------------------------------------------------------------------------------------------------------------------
# Losses


def _loss(kind, **kwargs):
    torch.manual_seed(3)
    G = styled().requires_grad_(True).train()
    D = Discriminator(0, 16, 3, architecture="orig", **WIDTH, epilogue_kwargs=dict(mbstd_num_channels=0))
    options = dict(kind=kind, style_mixing_prob=0, pl_weight=0, r1_gamma=20, **kwargs)
    return PublishedLoss(torch.device("cpu"), G.mapping, G.synthesis, D, **options), G, D


def _independent(kind, interval, G, D, real, z):
    """D's whole loss, from the papers"""
    with torch.no_grad():
        fake = G(z, None)
    on_real, on_fake = D(real, None), D(fake, None)
    x = real.clone().requires_grad_()
    (slope,) = torch.autograd.grad(D(x, None).sum(), x, create_graph=True)
    zero_centred = 10 * slope.flatten(1).square().sum(dim=1).mean() * interval
    if kind == "hinge":
        return relu(1 - on_real).mean() + relu(1 + on_fake).mean() + zero_centred
    if kind == "logistic":
        return softplus(-on_real).mean() + softplus(on_fake).mean() + zero_centred
    x = torch.lerp(fake, real, torch.rand([len(real), 1, 1, 1])).requires_grad_()
    (slope,) = torch.autograd.grad(D(x, None).sum(), x, create_graph=True)
    penalty = (slope.square().sum(dim=[1, 2, 3]).sqrt() - 1).square().mean() * interval
    return on_fake.mean() - on_real.mean() + 0.001 * on_real.square().mean() + 10 * penalty


@pytest.mark.parametrize("kind, interval", [("hinge", 3), ("logistic", 1), ("wgan-gp", 1)])
def test_gradients_are_those_of_the_published_formulas(kind, interval):
    loss, G, D = _loss(kind, penalty_interval=interval)
    for part in G.synthesis.modules():
        part.use_noise = False  # it would have to be drawn alike
    real, z = torch.randn(4, 3, 16, 16), torch.randn(4, 8)
    args = dict(real_img=real, real_c=torch.zeros(4, 0), gen_z=z, gen_c=torch.zeros(4, 0), sync=True, gain=1)
    for step in range(4):  # of which the penalty comes in the first, and the interval-th
        D.zero_grad()
        torch.manual_seed(step)
        loss.accumulate_gradients("Dboth", **args)
        found = [p.grad.clone() for p in D.parameters()]
        torch.manual_seed(step)
        due = step % interval == 0
        total = _independent(kind, interval if due else 0, G, D, real, z)
        for a, b in zip(found, torch.autograd.grad(total, list(D.parameters()))):
            assert torch.allclose(a, b, atol=1e-5 * max(b.abs().max().item(), 1)), (kind, step)
    G.zero_grad()
    loss.accumulate_gradients("Gboth", **args)
    logits = D(G(z, None), None)
    total = {"hinge": relu(1 - logits), "logistic": softplus(-logits), "wgan-gp": -logits}[kind].mean()
    parameters = list(G.synthesis.parameters())
    for parameter, b in zip(parameters, torch.autograd.grad(total, parameters, allow_unused=True)):
        assert b is None or torch.allclose(parameter.grad, b, atol=1e-6 + 1e-4 * b.abs().max().item())


# ---------------------------------------------------------------------------------------------------------------------
# Stochastic variation


def test_noise_changes_what_it_reaches_and_nothing_where_it_is_off():
    G = styled()
    for name, layer in G.synthesis.named_modules():
        if getattr(layer, "use_noise", False):
            torch.nn.init.constant_(layer.noise_strength, 0.3 if name == "b8.conv1" else 0)
    ws = ws_of_seeds(G, [0])
    off, on = (stochastic_variation(G, ws, blocks, count=5) for blocks in ([0, 2], [1]))
    assert torch.equal(off.images[0], off.images[1]) and not off.deviation.any()
    assert torch.allclose(off.images[:1], G.synthesis(ws, noise_mode="none"), atol=1e-5)
    assert on.deviation.min() > 0 and on.deviation.shape == (16, 16)
    assert torch.equal(on.images, stochastic_variation(G, ws, [1], count=5).images)
    with pytest.raises(ValueError, match="no noise"):
        stochastic_variation(eigen(), torch.zeros(1, 2, 14), [0])


def test_blocks_are_named_by_words_and_ranges():
    said = [parse_blocks(text, 5) for text in ("all", "none", "coarse", "fine", "2", "1-3")]
    assert said == [[0, 1, 2, 3, 4], [], [0, 1, 2], [3, 4], [2], [1, 2, 3]]
    for text, why in (
        ("5", "blocks 0 to 4"),
        ("some", "names no blocks"),
        ("3-1", "names no blocks"),
        ("9,1", "blocks 0 to 4"),
    ):
        with pytest.raises(ValueError, match=why):
            parse_blocks(text, 5)


@pytest.mark.parametrize("G", [eigen(), styled(), styled(stylegan1.TraditionalGenerator, layers=0)])
def test_features_are_taken_from_every_convolution(G):
    hooks = FeatureHooks(G)
    images, features = hooks(ws_of_seeds(G, [0, 1]))
    assert [tuple(f.shape[1:3]) for f in features] == list(zip(hooks.channels, hooks.resolutions))
    assert len(features) == 2 * len(G.synthesis.block_resolutions) and images.shape == (2, 3, 16, 16)


# ---------------------------------------------------------------------------------------------------------------------
# Training, and the tools


PRESETS = {
    "eigengan": ["--cfg=eigengan"],
    "stylegan1": ["--cfg=stylegan1", "--map=2"],
    "grown": ["--cfg=stylegan1", "--map=2", "--grow-kimg=0.2", "--adv=wgan-gp"],
    "traditional": ["--cfg=traditional"],
    "traditional-map": ["--cfg=traditional", "--map=2", "--grow-kimg=0.2"],
}


@pytest.mark.parametrize("G", [eigen(), styled(), styled(stylegan1.TraditionalGenerator, layers=0)])
def test_interpolations_end_at_the_images_of_their_seeds(G):
    walk = interpolation(G, [4, 5], steps=3)[0]
    ends = G.synthesis(ws_of_seeds(G, [4, 5]), noise_mode="const")
    torch.testing.assert_close(walk[[0, 2]], ends, rtol=1e-3, atol=1e-4)


def test_path_lengths_in_z_are_of_latents_as_long_as_random_ones():
    """EigenGAN's w is z, and a small angle's arc is nearly the line: both spaces have about the same path lengths."""
    G, kwargs = eigen(), dict(G_kwargs={}, epsilon=1e-3, sampling="full", crop=False, vgg16=_Pixels())
    lengths = {}
    for space in ("z", "w"):
        torch.manual_seed(0)
        lengths[space] = float(PPLSampler(G, space=space, **kwargs)(torch.zeros(200, 0)).mean())
    assert 0.5 < lengths["z"] / lengths["w"] < 2


class _Pixels(torch.nn.Module):
    """Distances of pixels, as a perceptual detector"""

    def forward(self, images, **_kwargs):
        return images.flatten(1)


@pytest.mark.slow
@pytest.mark.parametrize("make", [eigen, styled, lambda: styled(stylegan1.TraditionalGenerator, layers=0)])
def test_they_travel_as_onnx_and_extractors_learn_from_them(make, tmp_path):
    G = make()
    assert export_onnx(G, tmp_path / "G.onnx") < 1e-4
    if make is eigen:  # whose last convolution looks at 7×7 pixels, where an extractor looks at one
        last = G.synthesis.b8.torgb.weight
        assert last.shape[2:] == (7, 7)
        last *= torch.nn.functional.pad(torch.ones(1, 1), [3] * 4)

    def bright(images):  # logits of two classes
        grey = images.mean(dim=1, keepdim=True) - 127.5
        return torch.cat([-grey, grey], dim=1)

    segmenter = Segmenter(bright, ("dark", "bright"), "brightness")
    extractor = closed_form.fit(G, segmenter, samples=150, progress=False)
    images, features = FeatureHooks(G, extractor.layers)(draw_ws(G, 8, seed=1000), noise_mode="const")
    wanted = segmenter.logits(images).argmax(dim=1)
    assert (extractor.labels(features, images.shape[-1]) == wanted).float().mean() > 0.8


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    return make_dataset(tmp_path_factory.mktemp("generators") / "discs.zip", size=16, count=64)


@pytest.mark.slow
@pytest.mark.parametrize("name", PRESETS)
def test_presets_train_and_their_snapshots_are_explored_edited_and_measured(name, data, tmp_path):
    out = tmp_path / "out"
    run("train_segan.py", *PRESETS[name], *TINY, f"--data={data}", "--kimg=1", "--snap=1", f"--outdir={out}")
    stats = read_stats(only_run(out))
    assert all(entry["mean"] == entry["mean"] for entry in stats[-1].values() if isinstance(entry, dict))
    network = newest(only_run(out))
    G = load_generator(str(network))
    z = torch.randn(2, G.z_dim)
    assert G(z, None, noise_mode="const").shape == (2, 3, 16, 16)
    found = network
    if name == "stylegan1":
        run("-m segan_ext explore", f"--network={network}", "--noise=all,0-1", f"--dest={tmp_path / 'noise.png'}")
    if name != "eigengan":  # whose coordinates are its own
        found = tmp_path / "found.pkl"
        run("-m segan_ext discover", f"--network={network}", "--method=sefa", "--dims=2", f"--dest={found}")
    run("-m segan_ext explore", f"--network={found}", "--rows=2", f"--dest={tmp_path / 'x.png'}")
    if name == "eigengan":
        run("-m segan_ext explore", f"--network={found}", "--seeds=0", f"--atlas={tmp_path / 'atlas.html'}")
        assert "L1.N0.D2" in (tmp_path / "atlas.html").read_text()
    edit = ["--set=L0.N0.D0=+2", f"--outdir={tmp_path / 'edit'}"]
    run("-m segan_ext edit", f"--network={found}", "--seeds=0", *edit)
    assert len(Opened(str(found), "cpu", False).search(count=2)) == 2  # of the page's sliders
    run("-m segan_ext report", only_run(out), f"--outdir={tmp_path / 'report'}")
    method = "stylegan1" if name == "grown" else name.split("-")[0]
    assert f"| {method} |" in (tmp_path / "report" / "report.md").read_text(encoding="utf-8")
    measured = ["--metrics=ppl_zend", "--num-gen=4", "--detector=pixel-pyramid"]
    run("-m segan_ext calc_metrics", f"--network={network}", f"--data={data}", *measured)


@pytest.mark.parametrize(
    "options, said",
    [
        (["--cfg=eigengan", "--mode=2"], "--mode: EigenGAN has no such thing"),
        (["--cfg=segan-fast", "--adv=hinge"], "--adv: belongs to --cfg=eigengan or stylegan1 or traditional"),
        (["--cfg=eigengan", "--grow-kimg=1"], "--grow-kimg: belongs to --cfg=stylegan1 or traditional"),
        (["--cfg=stylegan1", "--mode=1"], "--mode: 1 adds to what StyleGAN2's layers put out"),
    ],
)
def test_options_that_do_not_go_together_are_refused_in_a_sentence(options, said, data):
    done = run("train_segan.py", *options, *TINY, f"--data={data}", "-n", check=False)
    assert done.returncode != 0 and said in done.stderr and "Traceback" not in done.stderr, done.stderr


@pytest.mark.slow
@pytest.mark.parametrize("name", ["eigengan", "grown"])
def test_a_run_that_is_stopped_continues_bit_for_bit(name, data, tmp_path):
    given = [*PRESETS[name], *TINY, f"--data={data}", "--tick=0.2", "--snap=1"]
    run("train_segan.py", *given, "--kimg=2", f"--outdir={tmp_path / 'whole'}")
    run("train_segan.py", *given, "--kimg=1", f"--outdir={tmp_path / 'parts'}")
    run("train_segan.py", "--resume=latest", "--kimg=2", f"--outdir={tmp_path / 'parts'}")
    whole, parts = (
        state.read(str(newest(only_run(tmp_path / part), "training-state-*.pt"))) for part in ("whole", "parts")
    )
    for kind in ("G", "D", "G_ema"):
        for key, tensor in whole["modules"][kind].items():
            assert torch.equal(tensor, parts["modules"][kind][key]), (kind, key)
    assert all(torch.equal(whole["loss"][key], parts["loss"][key]) for key in whole["loss"])
