"""Edits: dimensions moved by so many σ, names by their units: `render(G, ws, {"L3.N1.D5": +2.5, "hair": -1})`."""

from collections.abc import Iterable, Mapping
from typing import Any

import torch

from segan_ext.control.address import Address, Name, parse_address
from segan_ext.control.named import NamedDirection
from segan_ext.latents import NOTHING_TO_MOVE, coordinate_sigmas, coordinates_of
from segan_ext.layers import row_of


def parse_edits(
    G: torch.nn.Module, edits: dict | Iterable[tuple], named: Mapping[str, NamedDirection] = {}
) -> dict[Address | Name, float]:
    """{Address: σ, Name: units}, those of one address added up.

    edits: {address: amount} or pairs of them, an address being an `Address`, a tuple (L, N, D), or a text like
    "L3.N1.D5" or "hairColor". named: directions beside those of G. ValueError for an address that there is not, and for
    what is no number.
    """
    amounts = {}
    for address, amount in edits.items() if isinstance(edits, dict) else edits:
        address = Address(*address) if isinstance(address, tuple) else parse_address(address)
        address.check(G, named)
        if not isinstance(amount, (int, float)) or not abs(amount) < 1e6:
            raise ValueError(f"{address}: {str(amount)[:30]} is no amount that makes sense")
        amounts[address] = amounts.get(address, 0.0) + float(amount)
    return amounts


@torch.no_grad()
def render(
    G: torch.nn.Module,
    ws: torch.Tensor,
    edits: dict | Iterable[tuple],
    sigmas: dict[tuple[int, int], torch.Tensor] | None = None,
    named: Mapping[str, NamedDirection] = {},
    **synthesis_kwargs: Any,
) -> torch.Tensor:
    """Images [N, C, H, W] of ws [N, num_ws, w_dim] with coordinates moved.

    edits: as in `parse_edits`, of dimensions in units of each coordinate's deviation over 10 000 random latents.
    sigmas: those of `latents.coordinate_sigmas`, which take a moment to compute. named: directions beside those of G.
    synthesis_kwargs: of G.synthesis, such as noise_mode='const'. An edit whose sum is zero gives the very bytes of no
    edit, and an edit at (L, N, D) leaves every layer before (L, N) as it was. ValueError for an address that there is
    not, and for edits of a G without subspaces.
    """
    edits = edits if isinstance(edits, dict) else list(edits)
    if not getattr(G, "subspaces", dict)():
        if edits:
            raise ValueError(f"this generator {NOTHING_TO_MOVE}")
        return G.synthesis(ws, **synthesis_kwargs)
    with G.edited(offsets=offsets_of(G, parse_edits(G, edits, named), sigmas, named)):
        return G.synthesis(ws, **synthesis_kwargs)


@torch.no_grad()
def mixed_offsets(
    G: torch.nn.Module, ws: torch.Tensor, other_ws: torch.Tensor, layers: Iterable[tuple[int, int]]
) -> dict[tuple[int, int], torch.Tensor]:
    """Offsets for `G.edited` with which the given layers [(L, N), …] see the coordinates of other_ws instead of ws.

    Style mixing for single style layers. ws, other_ws: [N, num_ws, w_dim], or [1, 1, w_dim] of one w for all.
    """
    found = {}
    for layer in layers:
        read = G.subspaces()[layer].coordinates
        before, after = (each[:, min(row_of(G, layer), each.shape[1] - 1)] for each in (ws, other_ws))
        found[layer] = read(after) - read(before)
    return found


@torch.no_grad()
def truncation(
    G: torch.nn.Module, psi: float, layers: Iterable[tuple[int, int]] | None = None
) -> tuple[dict[tuple[int, int], torch.Tensor], dict[tuple[int, int], torch.Tensor]]:
    """(factors, offsets) for `G.edited` that pull coordinates of some layers to their mean: ψ·c + (1 − ψ)·mean."""
    means = {address: found.mean(dim=0) for address, found in coordinates_of(G).items()}
    chosen = list(means) if layers is None else list(layers)
    return dict.fromkeys(chosen, torch.tensor(float(psi))), {x: (1 - psi) * means[x] for x in chosen}


def keep_outside(before: torch.Tensor, after: torch.Tensor, kept: torch.Tensor) -> torch.Tensor:
    """`after` where the mask is 0, the pixels of `before` where it is 1. images [N, C, H, W]; kept [H, W] in [0, 1]"""
    return torch.where(kept > 0, before * kept + after * (1 - kept), after)


def check_editable(G: torch.nn.Module, network: str) -> None:
    """ValueError if a generator, from the file `network`, has no subspaces."""
    if not getattr(G, "subspaces", dict)():
        raise ValueError(f"--network: {network} {NOTHING_TO_MOVE}")


def offsets_of(
    G: torch.nn.Module,
    amounts: dict[Address | Name, float],
    sigmas: dict[tuple[int, int], torch.Tensor] | None = None,
    named: Mapping[str, NamedDirection] = {},
) -> dict[tuple[int, int], torch.Tensor]:
    """{(L, N): offsets [K]} for `G.edited`. amounts: {Address: σ, Name: units}; amounts of 0 are left out.

    named: directions that go before those of G.
    """
    amounts = {address: amount for address, amount in amounts.items() if amount != 0}
    if not amounts:
        return {}
    if sigmas is None and any(isinstance(address, Address) for address in amounts):
        sigmas = coordinate_sigmas(G)
    offsets = {}
    for address, amount in amounts.items():
        for layer, step in one_step(G, address, sigmas, named).items():
            offsets[layer] = offsets.get(layer, 0) + amount * step
    return offsets


def one_step(
    G: torch.nn.Module,
    address: Address | Name,
    sigmas: dict[tuple[int, int], torch.Tensor] | None,
    named: Mapping[str, NamedDirection] = {},
) -> dict[tuple[int, int], torch.Tensor]:
    """{(L, N): offsets [K]} of +1: a dimension's σ, or a named direction's unit. sigmas: needed for dimensions."""
    if isinstance(address, Name):
        offsets = named[address].offsets if address in named else G.named_offsets()[address]
        return {layer: offset.to(next(G.buffers()).device) for layer, offset in offsets.items()}
    step = torch.zeros_like(sigmas[address.layer])
    step[address.D] = sigmas[address.layer][address.D]
    return {address.layer: step}
