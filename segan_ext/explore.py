"""Traversals: what single dimensions of single layers do to an image.

A dimension is addressed L, N, D: block, style layer within it, dimension of that layer's subspace. Steps are in σ, the
standard deviation of the coordinate over random latents.
"""

from pathlib import Path
from typing import NamedTuple

import click
import numpy as np
import torch
from PIL import Image, ImageDraw
from tqdm import tqdm

from segan_ext import host

host.activate()

from generate import generator_options, load_generator, seed_latents  # noqa: E402 (the host has to be on the path)
from launch import choose_device  # noqa: E402
from recipe import parse_grid  # noqa: E402


class Dimension(NamedTuple):
    """One dimension with its σ, and its effect: mean absolute change of the image (range 2) from −2σ to +2σ."""

    address: tuple[int, int]
    index: int
    sigma: float
    effect: float

    def __str__(self):
        return f"L{self.address[0]}.N{self.address[1]}.D{self.index}"


@torch.no_grad()
def coordinate_sigmas(G, samples=10000, seed=0):
    """{(L, N): σ of each coordinate [K]} over random latents (and labels, drawn uniformly, of a conditional G)."""
    rng = np.random.RandomState(seed)
    device = next(G.parameters()).device
    z = torch.from_numpy(rng.randn(samples, G.z_dim)).to(device)
    c = torch.eye(G.c_dim, device=device)[rng.randint(G.c_dim, size=samples)] if G.c_dim else None
    w = G.mapping(z, c)[:, 0]  # [samples, w_dim]; without mixing all layers read the same w
    return {address: subspace.coordinates(w).std(dim=0) for address, subspace in G.subspaces().items()}


@torch.no_grad()
def rank_dimensions(G, seeds=(0, 1), batch=64, progress=None):
    """All dimensions as `Dimension`s, the one that changes the images of these seeds most first.

    progress: called with an iterable of layers, to show how far the work is (tqdm does).
    """
    sigmas, ranked = coordinate_sigmas(G), []
    layers = list(G.subspaces().items())
    for address, subspace in progress(layers) if progress else layers:
        sigma = sigmas[address]
        steps = torch.diag(2 * sigma)  # [K, K]: row d moves dimension d
        changes = torch.zeros(subspace.dims)
        for seed in seeds:
            ws = _ws(G, seed)
            for first in range(0, subspace.dims, batch):
                rows = slice(first, first + batch)
                low, high = (_render(G, ws, address, sign * steps[rows]) for sign in (-1, 1))
                changes[rows] += (high - low).abs().mean(dim=[1, 2, 3]).cpu()
        ranked += [Dimension(address, d, float(sigma[d]), float(changes[d]) / len(seeds)) for d in range(subspace.dims)]
    return sorted(ranked, key=lambda dimension: -dimension.effect)


@torch.no_grad()
def traversal(G, dimensions, seed=0, sigmas=3.0, steps=7):
    """Images [len(dimensions), steps, C, H, W]: each row moves one dimension of one latent from −sigmas to +sigmas."""
    ws = _ws(G, seed)
    rows = []
    for dimension in dimensions:
        offsets = torch.zeros(steps, G.subspaces()[dimension.address].dims)
        offsets[:, dimension.index] = torch.linspace(-sigmas, sigmas, steps) * dimension.sigma
        rows.append(_render(G, ws, dimension.address, offsets))
    return torch.stack(rows)


def _ws(G, seed):
    """ws [1, num_ws, w_dim] that the seed stands for, class 0 of a conditional G"""
    return G.mapping(*_latent_and_label(G, seed, 0))


def _latent_and_label(G, seed, class_idx):
    """z [1, z_dim] of the seed and the one-hot label [1, c_dim]; None for the label of an unconditional G"""
    device = next(G.parameters()).device
    label = torch.eye(G.c_dim, device=device)[[class_idx]] if G.c_dim else None
    return seed_latents(G, [seed], device), label


def _render(G, ws, address, offsets):
    """Images [N, C, H, W] of one ws [1, num_ws, w_dim] with offsets [N, K] at one address"""
    with G.edited(offsets={address: offsets}):
        return G.synthesis(ws.expand(len(offsets), -1, -1), noise_mode="const")


def draw_grid(images, scale=1):
    """A PIL picture of images [rows, columns, C, H, W] in [−1, 1], each pixel `scale` pixels wide."""
    rows, columns, channels, height, width = images.shape
    pixels = (images * 127.5 + 128).clamp(0, 255).to(torch.uint8).cpu()
    pixels = pixels.permute(0, 3, 1, 4, 2).reshape(rows * height, columns * width, channels).numpy()
    picture = Image.fromarray(pixels[:, :, 0] if channels == 1 else pixels).convert("RGB")
    return picture.resize((columns * width * scale, rows * height * scale), Image.Resampling.NEAREST)


def draw_traversal(images, labels, columns, scale=1):
    """`draw_grid` with a label at each row and above each column."""
    rows, count = images.shape[:2]
    left, top = 96, 16
    grid = draw_grid(images, scale)
    picture = Image.new("RGB", (left + grid.width, top + grid.height), "white")
    picture.paste(grid, (left, top))
    draw = ImageDraw.Draw(picture)
    for i, text in enumerate(columns):
        draw.text((left + (i + 0.5) * grid.width / count, top / 2), text, fill="black", anchor="mm")
    for i, text in enumerate(labels):
        draw.text((left / 2, top + (i + 0.5) * grid.height / rows), text, fill="black", anchor="mm")
    return picture


def explore_network(G, dest, seed=0, rows=12, sigmas=3.0, steps=7, progress=None):
    """Writes a picture of the `rows` strongest dimensions to `dest` and returns those dimensions, strongest first."""
    strongest = rank_dimensions(G, progress=progress)[:rows]
    images = traversal(G, strongest, seed, sigmas, steps)
    columns = [f"{step:+.1f} sd" if step else "0" for step in np.linspace(-sigmas, sigmas, steps)]
    scale = max(96 // images.shape[-1], 1)
    Path(dest).parent.mkdir(parents=True, exist_ok=True)
    draw_traversal(images, [str(dimension) for dimension in strongest], columns, scale).save(dest)
    return strongest


@click.command()
@generator_options
@click.option("--dest", default="samples.png", show_default=True, metavar="PNG", help="Picture to write")
@click.option("--grid", default="8x8", show_default=True, metavar="COLUMNSxROWS", help="Size of the grid")
@click.option("--seed", type=int, default=0, show_default=True, help="The first latent; the others follow")
@click.option("--trunc", type=float, default=1, show_default=True, help="Truncation psi")
def samples(network, trust_pickle, dest, grid, seed, trunc, device):
    """Draw a grid of images of a generator."""
    columns, rows = parse_grid(grid)
    G = load_generator(network, choose_device(device), trust_pickle)
    seeds = range(seed, seed + columns * rows)
    inputs = [_latent_and_label(G, i, i % max(G.c_dim, 1)) for i in seeds]
    images = torch.cat([G(z, c, truncation_psi=trunc, noise_mode="const") for z, c in inputs])
    images = images.unflatten(0, (rows, columns))
    Path(dest).parent.mkdir(parents=True, exist_ok=True)
    draw_grid(images, scale=max(96 // images.shape[-1], 1)).save(dest)
    print(dest)


@click.command()
@generator_options
@click.option("--dest", default="traversal.png", show_default=True, metavar="PNG", help="Picture to write")
@click.option("--seed", type=int, default=0, show_default=True, help="Latent whose image is changed")
@click.option(
    "--rows", type=click.IntRange(1), default=12, show_default=True, help="How many dimensions, strongest first"
)
@click.option("--sigmas", type=float, default=3, show_default=True, help="How far to go to either side, in σ")
@click.option("--steps", type=click.IntRange(2), default=7, show_default=True, help="Images a row")
def explore(network, trust_pickle, dest, seed, rows, sigmas, steps, device):
    """Draw what the strongest dimensions of a SEGAN do: a row each, from −σ to +σ."""
    G = load_generator(network, choose_device(device), trust_pickle)
    if not getattr(G, "subspaces", dict)():
        raise click.UsageError(f"--network: {network} has no subspaces; give a snapshot of mode 1, 2 or 3")
    bar = lambda layers: tqdm(layers, desc="Ranking", unit="layer", disable=None)
    for dimension in explore_network(G, dest, seed, rows, sigmas, steps, progress=bar):
        print(f"{str(dimension):<12s} effect {dimension.effect:.3f}  sd {dimension.sigma:.3f}")
    print(dest)
