"""Images with single coordinates moved: what explore, the atlas and purity look at.

A dimension is addressed L, N, D: block, style layer within it, dimension of that layer's subspace. Steps are in σ, the
standard deviation of the coordinate over random latents. Blocks before the one that is edited run once for all edits.
"""

import re
from typing import NamedTuple

import numpy as np
import torch

from segan_ext import host

host.activate()

from generate import label_table  # noqa: E402 (the host has to be on the path)

SIGMA_SAMPLES = 10000


class Address(NamedTuple):
    """One dimension of one layer's subspace"""

    L: int
    N: int
    D: int

    def __str__(self):
        return f"L{self.L}.N{self.N}.D{self.D}"

    @property
    def layer(self):
        return self.L, self.N

    @classmethod
    def parse(cls, text):
        """'L3.N1.D5' → Address(3, 1, 5). ValueError for anything else."""
        found = re.fullmatch(r"L(\d+)\.N(\d+)\.D(\d+)", str(text).strip(), flags=re.IGNORECASE)
        if found is None:
            raise ValueError(f"{text!r} is no address; write L3.N1.D5 for block 3, style layer 1, dimension 5")
        return cls(*map(int, found.groups()))

    def check(self, G):
        """The address itself. ValueError if G has no such dimension."""
        subspaces = getattr(G, "subspaces", dict)()
        if self.layer not in subspaces:
            layers = ", ".join(f"L{L}.N{N}" for L, N in subspaces) or "none"
            raise ValueError(f"{self}: this generator has no layer L{self.L}.N{self.N}; it has {layers}")
        if subspaces[self.layer].dims <= self.D:
            raise ValueError(f"{self}: that layer has dimensions D0 to D{subspaces[self.layer].dims - 1}")
        return self


@torch.no_grad()
def random_w(G, samples, seed=0):
    """w [samples, w_dim] of random latents (and labels, drawn uniformly, of a conditional G)"""
    rng = np.random.RandomState(seed)
    device = next(G.parameters()).device
    z = torch.from_numpy(rng.randn(samples, G.z_dim)).to(device)
    table = label_table(G).to(device)
    c = table[rng.randint(len(table), size=samples)] if G.c_dim else None
    return G.mapping(z, c)[:, 0]  # without mixing all layers read the same w


@torch.no_grad()
def coordinates_of(G, samples=SIGMA_SAMPLES, seed=0):
    """{(L, N): coordinates [samples, K]} of random latents"""
    w = random_w(G, samples, seed)
    return {address: subspace.coordinates(w) for address, subspace in G.subspaces().items()}


def coordinate_sigmas(G, samples=SIGMA_SAMPLES, seed=0):
    """{(L, N): σ of each coordinate [K]} over random latents."""
    return {address: found.std(dim=0) for address, found in coordinates_of(G, samples, seed).items()}


class Start(NamedTuple):
    """A synthesis up to a block: the features and the image that block L gets. ws [S, num_ws, w_dim]."""

    ws: torch.Tensor
    L: int
    x: torch.Tensor | None = None
    img: torch.Tensor | None = None


def start(G, ws, L, **block_kwargs):
    """Runs the blocks before L, which no edit at L can change."""
    if not hasattr(G.synthesis, "block_resolutions"):
        return Start(ws, L)
    x = img = None
    for block, part in _blocks(G, ws)[:L]:
        x, img = block(x, img, part, **block_kwargs)
    return Start(ws, L, x, img)


def finish(G, begun, rows, **block_kwargs):
    """Images [len(rows), C, H, W]: goes on from `begun` with its latents `rows`, under the edits in force."""
    if not hasattr(G.synthesis, "block_resolutions"):
        return G.synthesis(begun.ws[rows], **block_kwargs)
    x, img = (None if t is None else t[rows] for t in (begun.x, begun.img))
    for block, part in _blocks(G, begun.ws[rows])[begun.L :]:
        x, img = block(x, img, part, **block_kwargs)
    return img


def _blocks(G, ws):
    """[(block, the ws that it reads), …]"""
    blocks, first = [], 0
    for resolution in G.synthesis.block_resolutions:
        block = getattr(G.synthesis, f"b{resolution}")
        blocks.append((block, ws.narrow(1, first, block.num_conv + block.num_torgb).to(torch.float32)))
        first += block.num_conv
    return blocks


class Moved(NamedTuple):
    """Some dimensions of one layer, each moved to −reach and to +reach σ on every latent.

    low, high: images [dims, S, C, H, W]
    """

    layer: tuple[int, int]
    dims: range
    low: torch.Tensor
    high: torch.Tensor


@torch.no_grad()
def sweep(G, ws, sigmas=None, reach=2.0, batch=64, progress=None):
    """Yields `Moved` for all dimensions of all subspaces, a few at a time.

    ws: [S, num_ws, w_dim]. sigmas: of `coordinate_sigmas`. batch: images at a time. progress: called with the list of
    layers, to show how far the work is (tqdm does).
    """
    sigmas = sigmas or coordinate_sigmas(G)
    layers = list(G.subspaces())
    at_a_time = max(batch // len(ws), 1)
    for layer in progress(layers) if progress else layers:
        begun = start(G, ws, layer[0], noise_mode="const")
        steps = torch.diag(reach * sigmas[layer])  # [K, K]: row d moves dimension d
        for first in range(0, len(steps), at_a_time):
            dims = range(first, min(first + at_a_time, len(steps)))
            rows = torch.arange(len(ws)).repeat(len(dims))
            offsets = steps[first : dims.stop].repeat_interleave(len(ws), dim=0)  # [dims·S, K]
            images, batches = [], torch.arange(len(rows)).split(batch)
            for sign in (-1, 1):
                parts = [_moved(G, begun, layer, sign * offsets, rows, part) for part in batches]
                images.append(torch.cat(parts).unflatten(0, (len(dims), len(ws))))
            yield Moved(layer, dims, *images)


def _moved(G, begun, layer, offsets, rows, part):
    with G.edited(offsets={layer: offsets[part]}):
        return finish(G, begun, rows[part], noise_mode="const")


def offsets_of(G, amounts, sigmas=None):
    """{(L, N): offsets [K]} for `G.edited`. amounts: {Address: σ}; amounts of 0 are left out."""
    amounts = {address: amount for address, amount in amounts.items() if amount != 0}
    if not amounts:
        return {}
    sigmas = sigmas or coordinate_sigmas(G)
    offsets = {address.layer: torch.zeros_like(sigmas[address.layer]) for address in amounts}
    for address, amount in amounts.items():
        offsets[address.layer][address.D] = amount * sigmas[address.layer][address.D]
    return offsets
