"""Directions of a layer whose changes of the image overlap least: principal components of its Jacobian, rotated.

Varimax (Kaiser 1958) turns the components until each pixel is moved by few of them.
"""

import torch
from tqdm import tqdm

from segan_ext.directions.pca import pca_of_w
from segan_ext.directions.subspaces import with_directions
from segan_ext.latents import random_ws
from segan_ext.layers import resume, run_until

_STEP = 0.5  # deviations of w, to either side
_SIDE = 16  # pixels of an image of the Jacobian
_MOST = 128  # principal components of w that are tried at each layer


@torch.no_grad()
def varimax_of_jacobian(
    G: torch.nn.Module, dims: int, samples: int = 32, seed: int = 0, batch: int = 64
) -> dict[tuple[int, int], tuple[torch.Tensor, torch.Tensor]]:
    """{(L, N): (directions [w_dim, dims], effects [dims])} of every style layer, the strongest first.

    samples: latents that the Jacobian is taken at. Columns have unit length; an effect is the root mean square change
    of a pixel (range 2) over one deviation of w along it.
    """
    axes, deviations = pca_of_w(G, seed=seed)
    root = (axes * deviations)[:, : max(_MOST, dims)]  # [w_dim, tried]: of unit variance
    moved, ws = with_directions(G, {}, G.w_dim), random_ws(G, samples, seed)
    found = {}
    for layer in tqdm(list(moved.subspaces()), desc="Jacobians", unit="layer", disable=None):
        J = _jacobian(moved, ws, layer, root.t().float(), batch)
        components = torch.linalg.svd(J, full_matrices=False)[2][:dims].t()  # [tried, dims]
        rotated = components @ _varimax(J @ components)
        effects = (J @ rotated).square().mean(dim=0).sqrt()
        order = effects.argsort(descending=True)
        directions = (root @ rotated)[:, order]
        found[layer] = directions / directions.norm(dim=0), effects[order]
    return found


def _jacobian(G, ws, layer, steps, batch):
    """[samples · pixels, len(steps)]: central differences of small images along steps [·, w_dim] at one layer"""
    started = run_until(G, ws, layer[0], noise_mode="const")
    rows = torch.arange(len(ws), device=ws.device)
    columns = []
    for step in steps.to(ws):
        parts = []
        for part in rows.split(batch):
            images = []
            for sign in (-1, 1):
                with G.edited(offsets={layer: sign * _STEP * step}):
                    images.append(resume(G, started, part, noise_mode="const"))
            parts.append(_small(images[1] - images[0]).flatten())
        columns.append(torch.cat(parts).double().cpu() / (2 * _STEP))
    return torch.stack(columns, dim=1)


def _small(images):
    side = min(_SIDE, images.shape[-1])
    return torch.nn.functional.adaptive_avg_pool2d(images, side)


def _varimax(loadings, iterations=200):
    """The rotation [K, K] for which the squares of loadings [P, K] vary most within each column"""
    P, K = loadings.shape
    rotation, reached = torch.eye(K, dtype=loadings.dtype), 0.0
    for _ in range(iterations):
        turned = loadings @ rotation
        gradient = loadings.t() @ (turned**3 - turned * turned.square().mean(dim=0))
        left, values, right = torch.linalg.svd(gradient)
        rotation = left @ right
        if values.sum() < reached * (1 + 1e-6):
            break
        reached = values.sum()
    return rotation
