"""The state of subspaces: orthonormality of their bases, effective rank of their importances."""

from typing import NamedTuple

import torch

from metrics import metric_utils
from metrics.metric_main import register_metric
from segan_ext.metrics.shared import check_subspaces


class SubspaceState(NamedTuple):
    """orthogonality: largest entry of |UᵀU − I|, 0 for an orthonormal basis (None without a basis). effective_rank: exp
    of the entropy of the shares that the dimensions' importances have, 1 to K (Roy and Vetterli 2007)."""

    orthogonality: float | None
    effective_rank: float
    dims: int


@torch.no_grad()
def subspace_states(G: torch.nn.Module) -> dict[tuple[int, int], SubspaceState]:
    """{(L, N): SubspaceState} of every subspace."""
    states = {}
    for address, subspace in G.subspaces().items():
        orthogonality = None
        if hasattr(subspace, "U"):
            U = subspace.basis().double()
            gram = U.t() @ U if U.shape[0] >= U.shape[1] else U @ U.t()
            orthogonality = (gram - torch.eye(len(gram), device=U.device)).abs().max().item()
        shares = subspace.L.double().square().clamp(min=1e-30)
        shares = shares / shares.sum()
        rank = (-(shares * shares.log()).sum()).exp().item()
        states[address] = SubspaceState(orthogonality, rank, subspace.dims)
    return states


@register_metric(neither="subspaces_deviation subspaces_rank")
def subspaces(opts: metric_utils.MetricOptions) -> dict[str, float]:
    """Largest deviation from orthonormality of any basis, and the mean effective rank of the importances"""
    check_subspaces(opts)
    states = subspace_states(opts.G)
    opts.details |= {f"L{L}.N{N}": state._asdict() for (L, N), state in states.items()}
    bases = [state.orthogonality for state in states.values() if state.orthogonality is not None]
    rank = sum(state.effective_rank for state in states.values()) / len(states)
    return dict(subspaces_deviation=max(bases, default=0.0), subspaces_rank=rank)
