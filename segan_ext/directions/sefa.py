"""SeFa (Shen and Zhou 2021): eigenvectors of AᵀA, A being the affine weights of a style layer, rows of unit length."""

from collections.abc import Iterable

import torch

from segan_ext.control.named import NamedDirection
from segan_ext.directions.named import as_editable, with_named
from segan_ext.directions.subspaces import check_finite
from segan_ext.latents import random_w
from segan_ext.layers import row_of, style_groups
from segan_ext.networks import style_layers

_REACH = 3.0  # σ of w at the ends of a slider, as in SeFa's demonstration


@torch.no_grad()
def sefa(
    G: torch.nn.Module, layers: Iterable[list[tuple[int, int]]] | None = None
) -> dict[tuple[int, int], tuple[torch.Tensor, torch.Tensor]]:
    """{(L, N): (directions [w_dim, w_dim], eigenvalues [w_dim])}, the strongest first, columns of unit length.

    layers: lists of addresses [(L, N), …] that share their directions; None: each layer for itself. Layers that no list
    names are left out.
    """
    affines = {address: getattr(block, name).affine for address, block, name in style_layers(G.synthesis)}
    found = {}
    for group in [[address] for address in affines] if layers is None else layers:
        A = torch.cat([affines[address].weight.double().cpu() for address in group])
        check_finite(A)
        A = A / A.norm(dim=1, keepdim=True).clamp(min=1e-12)
        values, vectors = torch.linalg.eigh(A.t() @ A)
        found |= dict.fromkeys(group, (vectors.flip(1), values.flip(0)))
    return found


@torch.no_grad()
def sefa_controls(G: torch.nn.Module, count: int = 8) -> list[NamedDirection]:
    """The first `count` directions of the coarse, the middle and the fine layers, as "coarse 1"; +1 is one σ of w.

    G: as `as_editable` makes it of a generator without subspaces. Layers are grouped by `style_groups`.
    """
    w = random_w(G, 1000).double().cpu()
    found = []
    for group, rows in style_groups(G).items():
        layers = [layer for layer in G.subspaces() if row_of(G, layer) in rows]
        if not layers:
            continue
        directions = sefa(G, [layers])[layers[0]][0][:, :count]
        largest = directions.abs().argmax(dim=0, keepdim=True)
        directions = directions * directions.gather(0, largest).sign()  # eigenvectors have no sign of their own
        for i, d in enumerate((directions * (w @ directions).std(dim=0)).float().t()):
            found.append(NamedDirection(f"{group} {i + 1}", dict.fromkeys(layers, d), -_REACH, _REACH))
    return found


def with_sefa_controls(G: torch.nn.Module) -> torch.nn.Module:
    """G itself if it has subspaces; else a generator with its images and `sefa_controls`, for the page and edit."""
    if getattr(G, "subspaces", dict)():
        return G
    editable = as_editable(G)
    return with_named(editable, sefa_controls(editable))
