"""What single dimensions do to an image, the strongest first; walks between latents."""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import torch

from metrics.perceptual_path_length import slerp
from segan_ext.control.address import Address, Name
from segan_ext.control.alike import most_different, signature
from segan_ext.control.named import named_directions
from segan_ext.control.render import one_step
from segan_ext.control.sweep import Progress, sweep
from segan_ext.latents import coordinate_sigmas, labels_of, ws_of_seeds
from segan_ext.layers import resume, run_until
from torch_utils import cached_weights
from training.latents import seed_latents


class Dimension(NamedTuple):
    """One dimension with its σ, or a named direction (σ 1), and its effect.

    effect: mean absolute change of the image (range 2) from −2σ to +2σ. copies: how many other dimensions do the same.
    """

    address: Address | Name
    sigma: float
    effect: float
    copies: int = 0

    def __str__(self) -> str:
        return str(self.address)


@cached_weights.enabled()
def rank_dimensions(
    G: torch.nn.Module,
    seeds: Sequence[int] = (0, 1),
    batch: int = 64,
    progress: Progress | None = None,
    class_idx: int = 0,
    different: int | None = None,
) -> list[Dimension]:
    """All dimensions as `Dimension`s, the one that changes the images of these seeds most first.

    different: so many of them at most, each unlike those before it (|cosine| of their changes below a half), with the
    number of those that do the same (above 0.9). progress: called with the list of layers, to show how
    far the work is (tqdm does).
    """
    sigmas, ranked, signatures = coordinate_sigmas(G), [], []
    for moved in sweep(G, ws_of_seeds(G, seeds, class_idx=class_idx), sigmas, batch=batch, progress=progress):
        change = moved.high - moved.low
        signatures.append(signature(change))
        for d, effect in zip(moved.dims, change.abs().mean(dim=[1, 2, 3, 4]).tolist()):
            ranked.append(Dimension(Address(*moved.layer, d), float(sigmas[moved.layer][d]), effect))
    if different is None:
        return sorted(ranked, key=lambda dimension: -dimension.effect)
    effects = torch.tensor([dimension.effect for dimension in ranked])
    chosen = most_different(torch.cat(signatures), effects, different)
    return [ranked[i]._replace(copies=copies) for i, copies in chosen]


def strongest(
    G: torch.nn.Module, rows: int, seed: int = 0, class_idx: int = 0, progress: Progress | None = None
) -> list[Dimension]:
    """`rows` dimensions at most: named directions first, then the strongest dimensions of those that are unlike."""
    named = [Dimension(Name(name), 1.0, float("nan")) for name in G.named_offsets()][:rows]
    if len(named) == rows:
        return named
    return named + rank_dimensions(G, [seed], progress=progress, class_idx=class_idx, different=rows - len(named))


def reach_of(G: torch.nn.Module, address: Address | Name, sigmas: float = 3.0) -> tuple[float, float]:
    """From where to where an address is moved: ±sigmas, or the range in which a named direction is selective"""
    if not isinstance(address, Name):
        return -sigmas, sigmas
    known = named_directions(G)[address]
    return known.low, known.high


@cached_weights.enabled()
def traversal(
    G: torch.nn.Module,
    dimensions: Sequence[Dimension],
    seed: int = 0,
    sigmas: float = 3.0,
    steps: int = 7,
    truncation_psi: float = 1,
    class_idx: int = 0,
    ws: torch.Tensor | None = None,
) -> torch.Tensor:
    """Images [len(dimensions), steps, C, H, W]: each row moves one dimension of one latent over its `reach_of`.

    ws: [1, num_ws, w_dim] instead of those of the seed.
    """
    ws = ws_of_seeds(G, [seed], truncation_psi, class_idx) if ws is None else ws
    known, rows = coordinate_sigmas(G), []
    for dimension in dimensions:
        amounts = torch.linspace(*reach_of(G, dimension.address, sigmas), steps, device=ws.device)[:, None]
        offsets = {layer: amounts * step for layer, step in one_step(G, dimension.address, known).items()}
        started = run_until(G, ws, min(layer[0] for layer in offsets), noise_mode="const")
        with G.edited(offsets=offsets):
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
    walks = [G.mapping(_walk(a[None], b[None], t), label, truncation_psi=truncation_psi) for a, b in zip(z, z[1:])]
    return torch.stack([G.synthesis(ws, noise_mode="const") for ws in walks])


def _walk(a, b, t):
    """Points at t from a to b, with lengths between theirs: some mappings do not normalise"""
    return slerp(a, b, t) * torch.lerp(a.norm(), b.norm(), t)


def captions(
    G: torch.nn.Module, dimensions: Sequence[Dimension], sigmas: float, steps: int
) -> tuple[list[str], list[str]]:
    """Labels of the rows and columns of a `traversal`; where named directions are among them each row has its reach."""
    label = lambda d: f"{d}\n+{d.copies} alike" if d.copies else str(d)
    if not any(isinstance(d.address, Name) for d in dimensions):
        columns = [f"{step:+.1f} sd" if step else "0" for step in np.linspace(-sigmas, sigmas, steps)]
        return [label(d) for d in dimensions], columns
    reach = lambda d: f"±{reach_of(G, d.address, sigmas)[1]:.1f}" + ("" if isinstance(d.address, Name) else " sd")
    columns = [f"{step:+.0%}" if step else "0" for step in np.linspace(-1, 1, steps)]
    return [f"{label(d)}\n{reach(d)}" for d in dimensions], columns
