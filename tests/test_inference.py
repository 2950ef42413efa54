"""Generation with what depends on the weights alone computed once: the same images, edits in force, nothing stale."""

import copy
import gc
import weakref

import pytest
import torch

from segan_ext.networks import SEGANGenerator
from torch_utils import cached_weights, kernels

FORMS = [
    dict(mode=0),
    dict(mode=1, subspace_dim=5),
    dict(mode=2),
    dict(mode=2, subspace_dim=5),
    dict(mode=2, subspace_form="published"),
    dict(mode=3),
]


def generator(randomised=True, **kwargs):
    synthesis_kwargs = dict(channel_base=128, channel_max=8)
    G = SEGANGenerator(8, 0, 8, 16, 3, dict(num_layers=2), synthesis_kwargs, **kwargs)
    if randomised:
        for parameter in G.parameters():
            parameter.data += 0.3 * torch.randn_like(parameter)
    return G.eval().requires_grad_(False)


def image(G, z):
    return G(z, None, noise_mode="const")


@pytest.fixture(params=[True, False], ids=["native", "plain"], autouse=True)
def with_and_without_kernels(request, monkeypatch):
    monkeypatch.setattr(kernels, "enabled", request.param)


@pytest.mark.parametrize("batch", [1, 3])
@pytest.mark.parametrize("form", FORMS, ids=str)
def test_images_and_edited_images_are_those_of_the_layers(form, batch):
    G, z = generator(**form), torch.randn(batch, 8)
    offsets = {address: torch.randn(subspace.dims) for address, subspace in list(G.subspaces().items())[1:4]}
    plain = image(G, z)
    with G.edited(offsets=offsets):
        plain_edited = image(G, z)
    with cached_weights.enabled():
        folded, again = image(G, z), image(G, z)
        with G.edited(offsets=offsets):
            edited = image(G, z)
    scale = plain.abs().max()
    torch.testing.assert_close(folded / scale, plain / scale, rtol=0, atol=2e-6)
    torch.testing.assert_close(edited / scale, plain_edited / scale, rtol=0, atol=2e-6)
    assert torch.equal(again, folded)
    assert torch.equal(folded, plain) or form["mode"] in (2, 3)
    assert form["mode"] == 0 or not torch.equal(edited, folded)


@pytest.mark.parametrize("form", FORMS[1:], ids=str)
def test_the_identity_stays_exact(form):
    plain = generator(randomised=False, mode=0)
    G = generator(randomised=False, subspace_init="identity", **form)
    G.load_state_dict(G.state_dict() | plain.state_dict())
    z = torch.randn(2, 8)
    with cached_weights.enabled():
        assert torch.equal(image(G, z), image(plain, z))


def test_nothing_is_kept_after_the_end():
    G, z = generator(mode=2), torch.randn(2, 8)
    with cached_weights.enabled():
        before = image(G, z)
    for parameter in G.parameters():
        parameter.data *= 1.1
    with cached_weights.enabled():
        after = image(G, z)
    assert not torch.allclose(after, before)
    torch.testing.assert_close(after, image(G, z), rtol=1e-4, atol=1e-4)


def test_a_dictionary_keeps_what_was_computed_and_does_not_grow():
    G, z, known = generator(mode=2), torch.randn(2, 8), {}
    with cached_weights.enabled(known):
        first = image(G, z)
    size = len(known)
    with cached_weights.enabled(known):
        assert torch.equal(image(G, z), first)
        with cached_weights.enabled():  # a nested one has the same
            image(G, z)
    assert 0 < size == len(known)


def test_gradients_are_as_before_outside():
    G, z = generator(mode=2).requires_grad_(True), torch.randn(1, 8)
    with cached_weights.enabled():
        assert not image(G, z).requires_grad
    image(G, z).sum().backward()
    assert all(p.grad is not None for name, p in G.named_parameters() if "noise_strength" not in name)


def test_of_temporary_tensors_nothing_is_kept():
    known, calls = {}, []
    with cached_weights.enabled(known):
        for _ in range(3):
            cached_weights.once("sum", torch.ones(3), lambda t: calls.append(t) or t.sum())
    assert len(calls) == 3 and not known


def test_plain_use_keeps_what_was_computed_until_any_weight_changes():
    G, z = generator(mode=2), torch.randn(2, 8)
    plain = image(G, z)  # with autograd, where nothing is kept
    with torch.no_grad():
        assert torch.equal(image(G, z), plain) and torch.equal(image(G, z), plain)
        for parameter in [*G.synthesis.parameters()][::5]:
            parameter.data.view(-1)[-1] += 1  # which no version counts
            assert torch.equal(image(G, z), image(copy.deepcopy(G), z))
        G.b = G.synthesis.b16.conv1
        G.b.weight = torch.nn.Parameter(G.b.weight * 2, requires_grad=False)
        assert torch.equal(image(G, z), image(copy.deepcopy(G), z))
    del G.b
    kept = weakref.ref(G.synthesis)
    assert (G.synthesis in cached_weights._kept) == kernels.enabled
    del G, parameter
    gc.collect()
    assert kept() is None


CHANGES = dict(
    signs=lambda weight: weight.neg_(),
    double=lambda weight: weight.mul_(2),
    half=lambda weight: weight.mul_(0.5),
    two_signs=lambda weight: weight.view(-1)[:256:128].neg_(),
    order=lambda weight: weight.copy_(weight.flip(-1)),
    places=lambda weight: weight.copy_(weight.roll(64, -1)),
    zeros=lambda weight: weight.zero_(),
)


@pytest.mark.parametrize("dtype", [torch.float16, torch.float32, torch.float64])
@pytest.mark.parametrize("change", CHANGES)
def test_a_digest_sees_changes_of_many_numbers_at_once(change, dtype, monkeypatch):
    monkeypatch.setattr(kernels, "enabled", True)
    for shape in (512, 512), (128, 512), (64, 64, 3, 3), (256,):
        weight = torch.randn(shape).to(dtype)
        before = cached_weights._digest([weight])
        CHANGES[change](weight)
        assert cached_weights._digest([weight]) != before, shape


@pytest.mark.parametrize("change", CHANGES)
def test_weights_changed_in_place_change_the_image(change):
    G = SEGANGenerator(8, 0, 512, 8, 3, dict(num_layers=1), dict(channel_base=1024)).eval().requires_grad_(False)
    z = torch.randn(1, 8)
    with torch.no_grad():
        before = image(G, z)
        CHANGES[change](G.synthesis.b8.conv1.affine.weight.data)
        after = image(G, z)
        assert torch.equal(after, image(copy.deepcopy(G), z)) and not torch.equal(after, before)


@pytest.mark.parametrize("dtype", [torch.float16, torch.float32, torch.float64])
def test_a_digest_sees_every_number(dtype, monkeypatch):
    monkeypatch.setattr(kernels, "enabled", True)
    tensors = [torch.randn(n).to(dtype) for n in (1, 3, 63, 64, 65, 200)] + [torch.randn(0).to(dtype)]
    before = cached_weights._digest(tensors)
    for tensor in tensors:
        for i in range(len(tensor)):
            old = tensor[i].item()
            tensor[i] = old + 0.5
            assert cached_weights._digest(tensors) != before
            tensor[i] = old
    assert cached_weights._digest(tensors) == before
    assert cached_weights._digest(tensors[::-1]) != before
    assert cached_weights._digest([torch.randn(4, 6)[:, ::2]]) is None
