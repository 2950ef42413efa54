"""SeFa (Shen and Zhou 2021): eigenvectors of AᵀA, A being the affine weights of a style layer, rows of unit length."""

from collections.abc import Iterable

import torch

from segan_ext.directions.subspaces import check_finite
from segan_ext.networks import style_layers


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
