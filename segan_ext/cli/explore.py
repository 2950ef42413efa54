"""`segan explore` and `segan samples`."""

from pathlib import Path

import click
import numpy as np
import torch
from tqdm import tqdm

from runs.launch import choose_device
from runs.options import Numbers, command, generator_options, open_generator
from runs.recipe import parse_grid
from segan_ext.control.address import Address
from segan_ext.control.render import check_editable
from segan_ext.control.traversal import Dimension, interpolation, rank_dimensions, traversal
from segan_ext.images import draw_grid, write_pictures
from segan_ext.latents import chosen_class, coordinate_sigmas, labels_of
from torch_utils import cached_weights
from training.latents import seed_latents


def _chosen(G, texts):
    """The dimensions that --dims names, with σ"""
    sigmas = coordinate_sigmas(G)
    try:
        addresses = [Address.parse(text).check(G) for text in texts.split(",")]
    except ValueError as error:
        raise click.UsageError(f"--dims: {error}") from error
    return [Dimension(a, float(sigmas[a.layer][a.D]), float("nan")) for a in addresses]


@command()
@generator_options
@click.option("--dest", default="samples.png", show_default=True, metavar="PNG", help="Picture to write")
@click.option("--grid", default="8x8", show_default=True, metavar="COLUMNSxROWS", help="Size of the grid")
@click.option("--seed", type=int, default=0, show_default=True, help="The first latent; the others follow")
@click.option("--trunc", type=float, default=1, show_default=True, help="Truncation psi")
@cached_weights.enabled()
def samples(network, trust_pickle, dest, grid, seed, trunc, device):
    """Draw a grid of images of a generator."""
    columns, rows = parse_grid(grid)
    G = open_generator(network, choose_device(device), trust_pickle)
    seeds = range(seed, seed + columns * rows)
    device = next(G.parameters()).device
    labels = [labels_of(G, 1, i) for i in seeds]
    latents = zip(seed_latents(G, seeds, device), labels)
    images = torch.cat([G(z[None], c, truncation_psi=trunc, noise_mode="const") for z, c in latents])
    images = images.unflatten(0, (rows, columns))
    Path(dest).parent.mkdir(parents=True, exist_ok=True)
    draw_grid(images, scale=max(96 // images.shape[-1], 1)).save(dest)
    print(dest)


@command()
@generator_options
@click.option(
    "--dest", default="traversal.png", show_default=True, metavar="FILE", help="Picture, .gif or .mp4 to write"
)
@click.option("--seed", type=int, default=0, show_default=True, help="Latent whose image is changed")
@click.option(
    "--rows", type=click.IntRange(1), default=12, show_default=True, help="How many dimensions, strongest first"
)
@click.option("--dims", metavar="L3.N1.D5,…", help="These dimensions instead of the strongest")
@click.option("--sigmas", type=float, default=3, show_default=True, help="How far to go to either side, in σ")
@click.option("--steps", type=click.IntRange(2), default=7, show_default=True, help="Images a row")
@click.option("--trunc", type=float, default=1, show_default=True, help="Truncation psi")
@click.option("--interpolate", type=Numbers(), metavar="SEEDS", help="Go from seed to seed instead, as 0,5,10-12")
@click.option("--class", "class_idx", type=int, help="Class label of a conditional network  [default: 0]")
@click.option("--atlas", metavar="HTML", help="Write a page about all dimensions instead")
@click.option("--seeds", type=Numbers(), default="0-3", show_default=True, help="Latents that the atlas looks at")
@click.option("--attributes", metavar="PATH", help="For the atlas: data with known attributes, or a classifier")
@click.option("--extractor", metavar="FILE", help="For the atlas: says which classes a dimension moves")
@click.option("--detector", metavar="NAME", help="For the atlas: rank by a perceptual distance, such as vgg-hed")
def explore(network, trust_pickle, device, dest, interpolate, atlas, seeds, attributes, detector, extractor, **options):
    """Draw what the strongest dimensions of a SEGAN do: a row each, from −σ to +σ.

    With --interpolate, walks between seeds, of any generator. With --atlas, a page that ranks and names all dimensions.
    """
    G = open_generator(network, choose_device(device), trust_pickle)
    trunc, steps, class_idx = options["trunc"], options["steps"], chosen_class(G, options["class_idx"])
    if interpolate is not None:
        if len(interpolate) < 2:
            raise click.UsageError("--interpolate: name two seeds at least")
        images = interpolation(G, interpolate, steps, trunc, class_idx)
        labels = [f"{a} to {b}" for a, b in zip(interpolate, interpolate[1:])]
        write_pictures(dest, images, labels, [f"{t:.2f}" for t in np.linspace(0, 1, steps)])
        print(dest)
        return
    check_editable(G, network)
    bar = lambda layers: tqdm(layers, desc="Ranking", unit="layer", disable=None)
    if atlas is not None:
        from segan_ext.atlas.page import write_atlas

        title = Path(network).name + (f", class {class_idx}" if G.c_dim else "")
        write_atlas(G, atlas, seeds, attributes, detector, title, bar, extractor, class_idx)
        print(atlas)
        return
    if options["dims"]:
        chosen = _chosen(G, options["dims"])
    else:
        chosen = rank_dimensions(G, progress=bar, class_idx=class_idx)[: options["rows"]]
    images = traversal(G, chosen, options["seed"], options["sigmas"], steps, trunc, class_idx)
    columns = [f"{step:+.1f} sd" if step else "0" for step in np.linspace(-options["sigmas"], options["sigmas"], steps)]
    write_pictures(dest, images, [str(dimension) for dimension in chosen], columns)
    for dimension in chosen:
        effect = "" if np.isnan(dimension.effect) else f"effect {dimension.effect:.3f}  "
        print(f"{str(dimension):<12s} {effect}sd {dimension.sigma:.3f}")
    print(dest)
