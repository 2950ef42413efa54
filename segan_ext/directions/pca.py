"""PCA of w, or per layer of features with a regression back to w (GANSpace, Härkönen et al. 2020)."""

import torch

from segan_ext.directions.subspaces import check_finite
from segan_ext.latents import random_w
from segan_ext.networks import style_layers


@torch.no_grad()
def pca_of_w(G: torch.nn.Module, samples: int = 10000, seed: int = 0) -> tuple[torch.Tensor, torch.Tensor]:
    """(directions [w_dim, w_dim], deviations [w_dim]) of w over random latents, the widest first."""
    w = random_w(G, samples, seed).double().cpu()
    check_finite(w)
    _, deviations, directions = torch.linalg.svd(w - w.mean(dim=0), full_matrices=False)
    return directions.t(), deviations / (samples - 1) ** 0.5


@torch.no_grad()
def pca_of_features(
    G: torch.nn.Module, dims: int, samples: int = 512, seed: int = 0, batch: int = 16
) -> dict[tuple[int, int], tuple[torch.Tensor, torch.Tensor]]:
    """{(L, N): (directions [w_dim, dims], deviations [dims])} of what each style layer puts out.

    The principal components of the features (averaged down to 16×16, which bounds the memory), each mapped back to w by
    least squares; then made orthonormal in their order, since a subspace's coordinates are projections.
    """
    w = random_w(G, samples, seed)
    features = {address: [] for address, _, _ in style_layers(G.synthesis)}

    def keep(kept):
        pooled = lambda y: torch.nn.functional.avg_pool2d(y, max(y.shape[-1] // 16, 1))
        return lambda _layer, _args, y: kept.append(pooled(y.float()).flatten(1).cpu())

    hooks = [
        getattr(block, name).register_forward_hook(keep(features[address]))
        for address, block, name in style_layers(G.synthesis)
    ]
    grams = {}
    try:
        for part in w.split(batch):
            G.synthesis(part[:, None].expand(-1, G.num_ws, -1), noise_mode="const")
    finally:
        for hook in hooks:
            hook.remove()
    for address, parts in features.items():
        y = torch.cat(parts)
        parts.clear()
        y -= y.mean(dim=0)
        grams[address] = (y @ y.t()).double()  # [samples, samples]: its eigenvectors are the components' coordinates
    return {address: _regressed(gram, w.double().cpu(), dims) for address, gram in grams.items()}


def _regressed(gram, w, dims):
    """(directions [w_dim, dims], deviations [dims]) from a Gram matrix of centred features and the w behind them"""
    check_finite(gram, w)
    values, vectors = torch.linalg.eigh(gram)
    coordinates = vectors.flip(1)[:, :dims] * (len(w) - 1) ** 0.5  # of unit variance
    directions = torch.linalg.lstsq(coordinates, w - w.mean(dim=0)).solution.t()  # [w_dim, dims]
    orthonormal, upper = torch.linalg.qr(directions)
    deviations = (values.flip(0)[:dims].clamp(min=0) / (len(w) - 1)).sqrt()
    return orthonormal * upper.diagonal().sign(), deviations
