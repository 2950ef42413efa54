"""Directions as subspaces of a generator that was trained without any."""

from collections.abc import Sequence
from typing import Any

import torch

from segan_ext.networks import SEGANGenerator
from torch_utils import misc


def host_kwargs(G: torch.nn.Module) -> dict[str, Any]:
    """The host's part of the arguments that a generator, with or without subspaces, was made with"""
    ours = ("mode", "subspace_dim", "subspace_form", "subspace_init", "trained", "directions")
    return {name: value for name, value in G.init_kwargs.items() if name not in ours}


def check_plain(G: torch.nn.Module) -> None:
    """ValueError if G has subspaces already"""
    if getattr(G, "subspaces", dict)():
        mode = f" of mode {G.mode}" if hasattr(G, "mode") else ""
        raise ValueError(f"this generator has subspaces{mode} already; nothing needs to be discovered")


def number_of_dims(G: torch.nn.Module, dims: int | None) -> int:
    """How many directions a layer gets: `dims`, or for None 32, w_dim at most. ValueError for a number out of range."""
    dims = min(32, G.w_dim) if dims is None else dims
    if not 1 <= dims <= G.w_dim:
        raise ValueError(f"dims must lie between 1 and w_dim = {G.w_dim}, not {dims}")
    return dims


@torch.no_grad()
def with_directions(G: torch.nn.Module, directions: dict[tuple[int, int], torch.Tensor], dims: int) -> SEGANGenerator:
    """A generator of mode 2 in residual form with G's weights and, at each (L, N), the first `dims` directions.

    directions: {(L, N): [w_dim, ≥ dims]}; a layer that is not there gets w's own axes. Without edits its images are G's
    bit for bit. ValueError if G has subspaces already, or for dims out of range.
    """
    check_plain(G)
    number_of_dims(G, dims)
    maker = type(G) if isinstance(G, SEGANGenerator) else SEGANGenerator
    found = maker(*G.init_args, **host_kwargs(G), mode=2, subspace_dim=dims, subspace_init="identity")
    found = found.eval().requires_grad_(False).to(next(G.parameters()).device)
    misc.copy_params_and_buffers(G, found)
    if getattr(G, "label_examples", None) is not None:
        found.label_examples = G.label_examples
    for address, subspace in found.subspaces().items():
        U = directions.get(address, torch.eye(G.w_dim))[:, :dims]
        subspace.U.copy_(U / subspace.gain)
    return found


def parse_layers(text: str, addresses: Sequence[tuple[int, int]]) -> list[list[tuple[int, int]]]:
    """Groups of addresses for a text such as 0-3,4-7: numbers of style layers in order of use, 0 the first.

    'each': every layer for itself. 'all': one group. ValueError for a number that is none.
    """
    if text == "each":
        return [[address] for address in addresses]
    groups = []
    for part in f"0-{len(addresses) - 1}".split(",") if text == "all" else text.split(","):
        first, _, last = part.strip().partition("-")
        if not first.isdigit() or not (last or first).isdigit():
            raise ValueError(f"{part!r} is no range of layers; write each, all, or 0-3,4-7")
        numbers = range(int(first), int(last or first) + 1)
        if not len(numbers):
            raise ValueError(f"{part} runs backwards; write {last}-{first}")
        if numbers[-1] >= len(addresses):
            raise ValueError(f"{part}: this generator has style layers 0 to {len(addresses) - 1}")
        groups.append([addresses[i] for i in numbers])
    return groups


def check_finite(*tensors: torch.Tensor) -> None:
    """ValueError for tensors from which no directions can be computed"""
    if not all(tensor.isfinite().all() for tensor in tensors):
        raise ValueError("its weights are not all finite numbers")
