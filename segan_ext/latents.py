"""The door from a seed to z, label, w and ws, and the statistics of w: no other module of the plugin draws latents."""

from collections.abc import Iterable

import numpy as np
import torch

from segan_ext import host

host.activate()

from training.latents import class_label, label_table, seed_latents  # noqa: E402 (the host has to be on the path)

LATENTS = ("trunc-wp", "notrunc-wp", "notrunc-mixwp")


def ws_from_z(G: torch.nn.Module, z: torch.Tensor, truncation_psi: float = 1, class_idx: int = 0) -> torch.Tensor:
    """ws of latents z [N, z_dim], or of one for each layer z [N, num_ws, z_dim]; of one class of a conditional G

    Returns [N, num_ws, w_dim]. Differentiable.
    """
    rows = z.reshape(-1, G.z_dim)
    ws = G.mapping(rows, labels_of(G, len(rows), class_idx), truncation_psi=truncation_psi)
    if z.ndim == 2:
        return ws
    layer = torch.arange(G.num_ws, device=z.device)
    return ws.unflatten(0, z.shape[:2])[:, layer, layer]


@torch.no_grad()
def draw_ws(
    G: torch.nn.Module,
    count: int,
    seed: int = 0,
    latents: str = "trunc-wp",
    truncation_psi: float = 0.5,
    class_idx: int = 0,
) -> torch.Tensor:
    """Random ws [count, num_ws, w_dim], those of the seeds seed, seed + 1, … of `generate`, of one class.

    latents, as published: trunc-wp truncates to `truncation_psi`, notrunc-wp does not, notrunc-mixwp draws a z for
    each layer. ValueError for another.
    """
    if latents not in LATENTS:
        raise ValueError(f"latents must be one of {', '.join(LATENTS)}, not {latents!r}")
    device = next(G.parameters()).device
    if latents == "notrunc-mixwp":
        seeds = [seed * G.num_ws + i for i in range(count * G.num_ws)]
        return ws_from_z(G, seed_latents(G, seeds, device).float().unflatten(0, (count, G.num_ws)), 1, class_idx)
    return ws_of_seeds(G, range(seed, seed + count), truncation_psi if latents == "trunc-wp" else 1, class_idx)


def ws_of_seeds(
    G: torch.nn.Module,
    seeds: Iterable[int],
    truncation_psi: float = 1,
    class_idx: int = 0,
    truncation_cutoff: int | None = None,
) -> torch.Tensor:
    """ws [len(seeds), num_ws, w_dim] that the seeds stand for, of one class of a conditional G

    truncation_psi, truncation_cutoff: as in `MappingNetwork.forward`.
    """
    z = seed_latents(G, seeds, next(G.parameters()).device).float()
    cutoff = {} if truncation_cutoff is None else dict(truncation_cutoff=truncation_cutoff)
    return G.mapping(z, labels_of(G, len(z), class_idx), truncation_psi=truncation_psi, **cutoff)


def labels_of(G: torch.nn.Module, count: int, class_idx: int = 0) -> torch.Tensor | None:
    """Labels [count, c_dim] of one class, counted around; None for an unconditional G"""
    table = label_table(G)
    return table[[class_idx % len(table)] * count].to(next(G.parameters()).device) if G.c_dim else None


def chosen_class(G: torch.nn.Module, class_idx: int | None) -> int:
    """The class that --class asks for; 0, and a sentence, where a conditional G is given none.

    ValueError for a class that G does not have.
    """
    if G.c_dim and class_idx is None:
        print(f"This network has {len(label_table(G))} classes: class 0 is shown, --class=N shows another.")
        class_idx = 0
    class_label(G, class_idx, 1, "cpu")  # checks it
    return class_idx or 0


def random_ws(G: torch.nn.Module, count: int, seed: int = 0) -> torch.Tensor:
    """ws [count, num_ws, w_dim] of random latents (and labels): `random_w`, the same w for every layer"""
    return random_w(G, count, seed).float()[:, None].repeat(1, G.num_ws, 1)


SIGMA_SAMPLES = 10000
NOTHING_TO_MOVE = (
    "has no subspaces; give a snapshot of mode 1, 2 or 3, or find some with `python -m segan_ext discover`"
)


@torch.no_grad()
def random_w(G: torch.nn.Module, samples: int, seed: int = 0) -> torch.Tensor:
    """w [samples, w_dim] of random latents (and labels, drawn uniformly, of a conditional G)"""
    rng = np.random.RandomState(seed)
    device = next(G.parameters()).device
    z = torch.from_numpy(rng.randn(samples, G.z_dim)).to(device)
    table = label_table(G).to(device)
    c = table[rng.randint(len(table), size=samples)] if G.c_dim else None
    return G.mapping(z, c)[:, 0]  # without mixing all layers read the same w


@torch.no_grad()
def coordinates_of(
    G: torch.nn.Module, samples: int = SIGMA_SAMPLES, seed: int = 0
) -> dict[tuple[int, int], torch.Tensor]:
    """{(L, N): coordinates [samples, K]} of random latents. ValueError for a G without subspaces."""
    if not getattr(G, "subspaces", dict)():
        raise ValueError(f"this generator {NOTHING_TO_MOVE}")
    w = random_w(G, samples, seed)
    return {address: subspace.coordinates(w) for address, subspace in G.subspaces().items()}


def covariance_root(coordinates: torch.Tensor) -> torch.Tensor:
    """A matrix [K, K], float64 on the CPU, whose product with its transpose is the covariance of coordinates [N, K]"""
    covariance = torch.cov(coordinates.t().double().cpu()).reshape(coordinates.shape[1], -1)
    values, vectors = torch.linalg.eigh(covariance)
    return vectors * values.clamp(min=0).sqrt()


def coordinate_sigmas(
    G: torch.nn.Module, samples: int = SIGMA_SAMPLES, seed: int = 0
) -> dict[tuple[int, int], torch.Tensor]:
    """{(L, N): σ of each coordinate [K]} over random latents."""
    return {address: found.std(dim=0) for address, found in coordinates_of(G, samples, seed).items()}
