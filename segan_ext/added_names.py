"""Gives trained networks more names: codes that do nothing at first, beside all that the networks can already do."""

from __future__ import annotations

import inspect
from collections.abc import Sequence
from typing import Any

import torch

from segan_ext.encoder import EncoderDiscriminator
from segan_ext.networks import LinearSubspace, OwnCoordinates, SEGANGenerator, style_layers
from torch_utils import misc
from training import networks


@torch.no_grad()
def generator_with_names(G: torch.nn.Module, groups: Sequence[dict[str, Any]]) -> SEGANGenerator:
    """A generator of mode named with the images of G for the same seeds, and coordinates of `groups` that do nothing.

    G: StyleGAN2's, or a `SEGANGenerator` of mode 0, 2, 3 or named; the coordinates that it has come first. Its
    subspaces of modes 2 and 3 become part of the layers that they belong to. groups: as in `networks.OwnCoordinates`.
    ValueError, in one sentence, for another generator.
    """
    mode = getattr(G, "mode", 0)
    if type(G) not in (networks.Generator, SEGANGenerator) or mode not in (0, 2, 3, "named"):
        raise ValueError(
            f"a {type(G).__name__} of mode {mode} cannot be given names; take one of mode 0, 2, 3 or named"
        )
    arguments = _arguments(G)
    before, added = list(arguments.get("own", [])), OwnCoordinates(list(groups))
    kept = ("c_dim", "img_resolution", "img_channels", "mapping_kwargs", "synthesis_kwargs")
    made = SEGANGenerator(
        z_dim=G.z_dim + added.inputs,
        w_dim=G.w_dim + added.outputs,
        mode="named",
        own=[*before, *groups],
        bottleneck=mode == "named" and arguments.get("bottleneck", True),
        **{name: arguments[name] for name in kept if name in arguments},
    )
    tensors = dict(misc.named_params_and_buffers(G))
    if mode != "named":
        tensors = {name.replace("mapping.", "mapping.shared.", 1): tensor for name, tensor in tensors.items()}
    for name, tensor in misc.named_params_and_buffers(made):
        if name in tensors and tensors[name].shape == tensor.shape:
            tensor.copy_(tensors[name])
    own = G.subspaces() if mode in (2, 3, "named") else {}
    for address, subspace in made.subspaces().items():
        _silence(subspace, own.get(address) if mode == "named" else None)
    if mode in (2, 3):
        _fold(G, made)
    return made.train(G.training).requires_grad_(False)


def _arguments(G):
    """What a generator was made with, by name"""
    return inspect.signature(type(G)).bind(*G.init_args, **G.init_kwargs).arguments


def _silence(subspace: LinearSubspace, before: LinearSubspace | None):
    """Codes that are new get importance 0; those of `before`, which come first, move what they moved."""
    known = 0 if before is None else before.dims
    subspace.mu.copy_(before.mu if known else torch.zeros_like(subspace.mu))
    fresh = subspace.basis()[:, known:]
    if known:
        old = before.basis()
        fresh = torch.nn.functional.normalize(fresh - old @ (torch.linalg.pinv(old) @ fresh), dim=0)
        subspace.U[:, :known], subspace.L[:known] = before.U, before.L
    subspace.U[:, known:] = fresh / subspace.gain
    subspace.L[known:] = 0


def _fold(G, made):
    """The affine layers of `made` do what the subspaces of G and its affine layers did together."""
    layers = dict(_affines(made))
    for address, affine in _affines(G):
        matrix, origin = affine.subspace.as_affine()
        weight, bias = affine.effective()
        layers[address].weight.copy_(weight @ matrix / layers[address].weight_gain)
        layers[address].bias.copy_((bias + weight @ origin) / layers[address].bias_gain)


def _affines(G):
    for address, block, name in style_layers(G.synthesis):
        yield address, getattr(block, name).affine


@torch.no_grad()
def discriminator_with_names(D: torch.nn.Module, codes: int) -> EncoderDiscriminator:
    """D with heads for so many codes; those that it can read it goes on to read, and they come first.

    ValueError, in one sentence, for another discriminator than StyleGAN2's, or one with an encoder.
    """
    if type(D) not in (networks.Discriminator, EncoderDiscriminator):
        raise ValueError(f"a {type(D).__name__} cannot be given an encoder; take a discriminator of StyleGAN2")
    made = EncoderDiscriminator(*D.init_args, **{**D.init_kwargs, "codes": codes, "projection": True})
    tensors = dict(misc.named_params_and_buffers(D))
    for name, tensor in misc.named_params_and_buffers(made):
        if name.startswith("b4.projection_out"):
            tensor.zero_()  # silent too
        if name in tensors:
            before = tensors[name]
            (tensor[: len(before)] if tensor.ndim else tensor).copy_(before)
    return made.train(D.training).requires_grad_(False)
