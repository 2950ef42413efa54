"""Directions found in a trained generator, one finder a module, listed in FINDERS; those with a name in `named`.

Each finder takes (G, dims, layers, samples, seed), of which it minds what it needs, and returns
{(L, N): (directions [w_dim, ≥ dims], their strengths)}.
"""

import torch

from segan_ext import host

host.activate()

from segan_ext.directions import ica, pca, sefa, varimax  # noqa: E402 (the host has to be on the path)
from segan_ext.directions.subspaces import number_of_dims, parse_layers, with_directions  # noqa: E402
from segan_ext.networks import style_layers  # noqa: E402


def _addresses(G):
    return [address for address, _, _ in style_layers(G.synthesis)]


FINDERS = {
    "sefa": lambda G, dims, layers, samples, seed: sefa.sefa(G, parse_layers(layers, _addresses(G))),
    "pca": lambda G, dims, layers, samples, seed: dict.fromkeys(_addresses(G), pca.pca_of_w(G, samples or 10000, seed)),
    "ica": lambda G, dims, layers, samples, seed: dict.fromkeys(
        _addresses(G), ica.ica_of_w(G, dims, samples or 10000, seed)
    ),
    "varimax": lambda G, dims, layers, samples, seed: varimax.varimax_of_jacobian(G, dims, samples or 32, seed),
    "pca-features": lambda G, dims, layers, samples, seed: pca.pca_of_features(G, dims, samples or 512, seed),
}


def check_samples(method: str, dims: int, samples: int | None) -> None:
    """ValueError for fewer latents than a method needs for so many directions; None: its own number, which is enough"""
    if samples is not None and samples <= dims and method != "varimax":
        raise ValueError(f"{samples} latents do not tell {dims} directions; take more samples")


def find_directions(
    G: torch.nn.Module,
    method: str = "sefa",
    dims: int | None = None,
    layers: str = "each",
    samples: int | None = None,
    seed: int = 0,
) -> tuple[torch.nn.Module, dict[tuple[int, int], torch.Tensor]]:
    """(G as a generator of mode 2 whose dimensions are the directions, {(L, N): their strengths}).

    method: of FINDERS. dims: directions a layer; None: 32, w_dim at most. layers: for sefa, "each", "all" or ranges as
    "0-3,4-7". samples: latents of the others; None: their own numbers. seed: of those. Without edits the images are G's
    bit for bit. ValueError for anything that does not go together.
    """
    if method not in FINDERS:
        raise ValueError(f"method must be one of {', '.join(FINDERS)}, not {method!r}")
    dims = number_of_dims(G, dims)
    check_samples(method, dims, samples)
    found = FINDERS[method](G, dims, layers, samples, seed)
    directions, strengths = ({address: pair[i] for address, pair in found.items()} for i in (0, 1))
    return with_directions(G, directions, dims), strengths
