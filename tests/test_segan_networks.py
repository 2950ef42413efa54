"""Subspaces: formulas, initial values, identity start, controls, pickles, regulariser."""

import copy
import pickle
import threading

import numpy as np
import pytest
import torch

from segan_ext.loss import SEGANLoss
from segan_ext.networks import SEGANGenerator
from torch_utils import misc, training_stats
from training import networks

SHAPE = dict(z_dim=16, c_dim=0, w_dim=12, img_resolution=32, img_channels=3)
HOST = dict(mapping_kwargs=dict(num_layers=2), synthesis_kwargs=dict(channel_base=512, channel_max=16))
FORMS = {
    "mode1": dict(mode=1),
    "mode1-K": dict(mode=1, subspace_dim=5),
    "mode2": dict(mode=2),
    "mode2-residual": dict(mode=2, subspace_dim=5),
    "mode2-published": dict(mode=2, subspace_form="published"),
    "mode3": dict(mode=3),
}
all_forms = pytest.mark.parametrize("kwargs", FORMS.values(), ids=FORMS)


def build(**kwargs):
    return SEGANGenerator(**(SHAPE | HOST | kwargs)).eval().requires_grad_(False)


def images(G, n=3):
    return G(latents(G, n), None, noise_mode="const")


def latents(G, n=3):
    return torch.from_numpy(np.random.RandomState(0).randn(n, G.z_dim))


def randomise(G):
    """Trained-looking importances and origins, so that nothing is 1 or 0 by chance."""
    for i, subspace in enumerate(G.subspaces().values()):
        generator = torch.Generator().manual_seed(i)
        subspace.L.copy_(0.5 + torch.rand(subspace.L.shape, generator=generator))
        if hasattr(subspace, "mu"):
            subspace.mu.copy_(0.1 * torch.randn(subspace.mu.shape, generator=generator))
    return G


@all_forms
def test_addresses_and_order(kwargs):
    addresses = list(build(**kwargs).subspaces())
    assert addresses == [(0, 0), (0, 1), *((L, N) for L in (1, 2, 3) for N in (0, 1, 2))]


@all_forms
def test_identity_start_equals_the_host_generator_bit_for_bit(kwargs):
    source = networks.Generator(**SHAPE, **HOST).eval()
    for name, tensor in misc.named_params_and_buffers(source):
        if name.endswith("noise_strength") or name.endswith("bias") or name.endswith("w_avg"):
            tensor.data.normal_()
    G = build(**kwargs, subspace_init="identity")
    misc.copy_params_and_buffers(source, G)
    for options in (dict(), dict(truncation_psi=0.6), dict(fused_modconv=False)):
        expected, got = (net(latents(G), None, noise_mode="const", **options) for net in (source, G))
        assert torch.equal(expected, got)


@all_forms
def test_state_keeps_the_host_names(kwargs):
    host = dict(networks.Generator(**SHAPE, **HOST).named_parameters())
    ours = dict(build(**kwargs).named_parameters())
    assert host.keys() <= ours.keys()
    assert {name.split("subspace.")[1] for name in ours.keys() - host.keys()} <= {"U", "L", "mu"}


@pytest.mark.parametrize("kwargs", [FORMS["mode1"], FORMS["mode2"], FORMS["mode2-residual"]])
def test_bases_start_orthonormal_at_unit_scale(kwargs):
    for subspace in build(**kwargs).subspaces().values():
        U = subspace.basis()
        assert subspace.penalty() < 1e-8
        assert subspace.gain == 2.0 ** round(np.log2(subspace.gain))
        assert 0.7 < subspace.gain * np.sqrt(U.shape[0]) < 1.5
        assert 0.3 < subspace.U.square().mean().sqrt() < 3


def test_formulas():
    w = torch.randn(4, 12, dtype=torch.float64)
    f, o = torch.rand(12, dtype=torch.float64) + 0.5, torch.randn(12, dtype=torch.float64)
    for name, formula in {
        "mode2": lambda s: (s.L * (f * w + o)) @ s.basis().T + s.mu,
        "mode3": lambda s: s.L * (f * w + o),
        "mode2-published": lambda s: s.U.sum(dim=(0, 1, 2)) * s.L * (f * w + o) + s.mu,
        "mode2-residual": lambda s: w + ((f[:5] * s.L - 1) * (w @ s.basis()) + s.L * o[:5]) @ s.basis().T + s.mu,
        "mode1-K": lambda s: ((s.L * (f[:5] * w[:, :5] + o[:5])) @ s.basis().T).reshape(4, 16, 16, 16) + s.mu,
    }.items():
        G = randomise(build(**FORMS[name])).double()
        subspace = G.subspaces()[2, 1]
        K = subspace.dims
        with G.edited({(2, 1): f[:K].float()}, {(2, 1): o[:K].float()}):
            torch.testing.assert_close(subspace(w), formula(subspace), rtol=1e-6, atol=1e-6)


@all_forms
def test_controls_change_the_image_and_nothing_before_their_layer(kwargs):
    G = randomise(build(**kwargs))
    plain = images(G)
    before, after = {}, {}
    for record in (before, after):
        hooks = [
            getattr(block, name).register_forward_hook(
                lambda m, i, out, key=address, record=record: record.__setitem__(key, out.clone())
            )
            for address, block, name in _layers(G)
        ]
        with G.edited(offsets={(2, 1): 2.0} if record is after else {}):
            edited = images(G)
        for hook in hooks:
            hook.remove()
    assert not torch.equal(edited, plain)
    for address in before:
        # Block by block, layer by layer; a torgb reads what conv1 made, and conv0 of the next block reads conv1 too.
        assert torch.equal(before[address], after[address]) == (address < (2, 1)), address


def _layers(G):
    from segan_ext.networks import style_layers

    return style_layers(G.synthesis)


@all_forms
def test_factor_one_and_offset_zero_leave_the_image_as_it_is(kwargs):
    G = randomise(build(**kwargs))
    plain = images(G)
    with G.edited({(1, 0): 1.0, (3, 2): torch.ones(G.subspaces()[3, 2].dims)}, {(0, 0): 0.0}):
        assert torch.equal(images(G), plain)
    with G.edited({(1, 0): 0.0}):
        assert not torch.equal(images(G), plain)
    assert torch.equal(images(G), plain)


def test_threads_with_different_edits_do_not_meet():
    G = randomise(build(mode=2))
    offsets = [{}, {(1, 1): 3.0}, {(2, 0): -3.0}, {(3, 2): torch.linspace(-1, 1, 12)}]
    expected = []
    for offset in offsets:
        with G.edited(offsets=offset):
            expected.append(images(G))
    barrier, wrong = threading.Barrier(len(offsets)), []

    def user(i):
        for _ in range(10):
            with G.edited(offsets=offsets[i]):
                barrier.wait()
                if not torch.equal(images(G), expected[i]):
                    wrong.append(i)

    threads = [threading.Thread(target=user, args=[i]) for i in range(len(offsets))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not wrong
    assert len({e.numpy().tobytes() for e in expected}) == len(offsets)


def test_edits_nest_and_wrong_ones_are_explained():
    G = randomise(build(mode=2))
    with G.edited(offsets={(1, 1): 1.0}), G.edited(offsets={(2, 2): 1.0}):
        nested = images(G)
    with G.edited(offsets={(1, 1): 1.0, (2, 2): 1.0}):
        assert torch.equal(images(G), nested)
    with pytest.raises(ValueError, match="no subspace at"), G.edited(offsets={(9, 0): 1.0}):
        pass
    with pytest.raises(ValueError, match="12 of them"), G.edited(offsets={(1, 0): torch.ones(7)}):
        pass


@all_forms
def test_pickle_round_trip(kwargs):
    G = randomise(build(**kwargs))
    again = pickle.loads(pickle.dumps(G))
    assert type(again) is SEGANGenerator and again.init_kwargs == G.init_kwargs
    assert torch.equal(images(again), images(G))
    torch.testing.assert_close(images(copy.deepcopy(G)), images(G), rtol=0, atol=0)


def test_options_that_do_not_go_together_are_explained():
    for kwargs, message in [
        (dict(mode=4), "mode must be"),
        (dict(mode=3, subspace_dim=4), "modes 1 and 2"),
        (dict(mode=1, subspace_form="published"), "belongs to mode 2"),
        (dict(mode=2, subspace_form="publsihed"), "must be one of"),
        (dict(mode=2, subspace_dim=13), "between 1 and w_dim"),
        (dict(subspace_init="random"), "orthogonal or identity"),
    ]:
        with pytest.raises(ValueError, match=message):
            build(**kwargs)


def test_huge_bases_are_refused_with_the_cure():
    from segan_ext.networks import FeatureSubspace

    with pytest.raises(ValueError, match=r"536,870,912 entries.*--subspace-dim=32 or less"):
        FeatureSubspace((6, 1), dims=64, channels=128, resolution=256)


@all_forms
def test_regulariser_adds_its_gradient_once_and_times_gain(kwargs):
    G = SEGANGenerator(**SHAPE, **HOST, **kwargs)
    bases = [s.U for s in G.subspaces().values() if hasattr(s, "U")]
    for U in bases:
        U.data += 0.1 * torch.randn_like(U)
    D = networks.Discriminator(c_dim=0, img_resolution=32, img_channels=3, channel_base=512, channel_max=16)
    z, c = torch.randn(4, 16), torch.zeros(4, 0)
    grads = []
    for ortho in (0, 0.3):
        loss = SEGANLoss("cpu", G.mapping, G.synthesis, D.requires_grad_(False), ortho=ortho, style_mixing_prob=0)
        G.zero_grad()
        torch.manual_seed(5)
        loss.accumulate_gradients("Gmain", None, None, z, c, sync=True, gain=2)
        grads.append([None if U.grad is None else U.grad.clone() for U in bases])
    total = sum(s.penalty() for s in G.subspaces().values() if hasattr(s, "U"))
    if bases:
        expected = torch.autograd.grad(total * 0.3 * 2, bases)
        for without, with_, extra in zip(*grads, expected):
            torch.testing.assert_close(with_, without + extra, rtol=1e-4, atol=1e-5)
    before = training_stats.Collector(regex="Loss/G/ortho")
    loss.accumulate_gradients("Greg", None, None, z, c, sync=True, gain=4)
    before.update()
    assert before.num("Loss/G/ortho") == 0
