"""What single dimensions do to an image, the strongest first; walks between latents."""

from collections.abc import Sequence
from typing import NamedTuple

import torch

from metrics.perceptual_path_length import slerp
from segan_ext.control.address import Address
from segan_ext.control.sweep import Progress, sweep
from segan_ext.latents import coordinate_sigmas, labels_of, ws_of_seeds
from segan_ext.layers import resume, run_until
from torch_utils import cached_weights
from training.latents import seed_latents


class Dimension(NamedTuple):
    """One dimension with its σ, and its effect: mean absolute change of the image (range 2) from −2σ to +2σ."""

    address: Address
    sigma: float
    effect: float

    def __str__(self) -> str:
        return str(self.address)


@cached_weights.enabled()
def rank_dimensions(
    G: torch.nn.Module,
    seeds: Sequence[int] = (0, 1),
    batch: int = 64,
    progress: Progress | None = None,
    class_idx: int = 0,
) -> list[Dimension]:
    """All dimensions as `Dimension`s, the one that changes the images of these seeds most first.

    progress: called with the list of layers, to show how far the work is (tqdm does).
    """
    sigmas, ranked = coordinate_sigmas(G), []
    for moved in sweep(G, ws_of_seeds(G, seeds, class_idx=class_idx), sigmas, batch=batch, progress=progress):
        effects = (moved.high - moved.low).abs().mean(dim=[1, 2, 3, 4]).tolist()
        for d, effect in zip(moved.dims, effects):
            ranked.append(Dimension(Address(*moved.layer, d), float(sigmas[moved.layer][d]), effect))
    return sorted(ranked, key=lambda dimension: -dimension.effect)


@cached_weights.enabled()
def traversal(
    G: torch.nn.Module,
    dimensions: Sequence[Dimension],
    seed: int = 0,
    sigmas: float = 3.0,
    steps: int = 7,
    truncation_psi: float = 1,
    class_idx: int = 0,
) -> torch.Tensor:
    """Images [len(dimensions), steps, C, H, W]: each row moves one dimension of one latent from −sigmas to +sigmas."""
    ws = ws_of_seeds(G, [seed], truncation_psi, class_idx)
    rows = []
    for dimension in dimensions:
        layer = dimension.address.layer
        offsets = torch.zeros(steps, G.subspaces()[layer].dims)
        offsets[:, dimension.address.D] = torch.linspace(-sigmas, sigmas, steps) * dimension.sigma
        started = run_until(G, ws, layer[0], noise_mode="const")
        with G.edited(offsets={layer: offsets}):
            rows.append(resume(G, started, torch.zeros(steps, dtype=torch.long), noise_mode="const"))
    return torch.stack(rows)


@cached_weights.enabled()
def interpolation(
    G: torch.nn.Module, seeds: Sequence[int], steps: int = 9, truncation_psi: float = 1, class_idx: int = 0
) -> torch.Tensor:
    """Images [len(seeds) − 1, steps, C, H, W]: each row goes from one seed to the next along a great circle in z."""
    z = seed_latents(G, seeds, next(G.parameters()).device).float()
    t = torch.linspace(0, 1, steps, device=z.device)[:, None]
    label = labels_of(G, steps, class_idx)
    walks = [G.mapping(slerp(a[None], b[None], t), label, truncation_psi=truncation_psi) for a, b in zip(z, z[1:])]
    return torch.stack([G.synthesis(ws, noise_mode="const") for ws in walks])
