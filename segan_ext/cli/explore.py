"""`segan explore` and `segan samples`."""

from pathlib import Path

import click
import numpy as np
import torch
from tqdm import tqdm

from runs.launch import choose_device
from runs.numbers import LARGEST_SEED
from runs.options import (
    SEED,
    Numbers,
    OutputFile,
    command,
    generator_options,
    open_generator,
    refuse_given,
    usage_errors,
)
from runs.outputs import check_file
from runs.recipe import parse_grid
from segan_ext.control.address import Name, parse_address
from segan_ext.control.named import named_directions
from segan_ext.control.noise import parse_blocks, stochastic_variation
from segan_ext.control.render import check_editable
from segan_ext.control.traversal import Dimension, captions, interpolation, strongest, traversal
from segan_ext.images import check_ending, draw_grid, write_pictures
from segan_ext.latents import chosen_class, coordinate_sigmas, labels_of, ws_of_seeds
from torch_utils import cached_weights
from training.images import save_picture
from training.latents import load_ws, seed_latents

PICTURES = (".png", ".jpg", ".jpeg", ".webp")


def _chosen(G, texts):
    """The dimensions and named directions that --dims names, with σ"""
    try:
        addresses = [parse_address(text).check(G) for text in texts.split(",")]
    except ValueError as error:
        raise click.UsageError(f"--dims: {error}") from error
    sigmas = coordinate_sigmas(G)
    sigma = lambda a: 1.0 if isinstance(a, Name) else float(sigmas[a.layer][a.D])
    return [Dimension(a, sigma(a), float("nan")) for a in addresses]


def _print_row(G, dimension):
    named = isinstance(dimension.address, Name)
    effect = "" if np.isnan(dimension.effect) else f"effect {dimension.effect:.3f}  "
    effect = named_directions(G)[dimension.address].said() if named else f"{effect}sd {dimension.sigma:.3f}"
    copies = f"  and {dimension.copies} more that do the same" if dimension.copies else ""
    print(f"{str(dimension):<12s} {effect}{copies}")


@command()
@generator_options
@click.option(
    "--dest",
    type=OutputFile(*PICTURES),
    default="samples.png",
    show_default=True,
    metavar="PNG",
    help="Picture to write",
)
@click.option("--grid", default="8x8", show_default=True, metavar="COLUMNSxROWS", help="Size of the grid")
@click.option("--seed", type=SEED, default=0, show_default=True, help="The first latent; the others follow")
@click.option("--trunc", type=float, default=1, show_default=True, help="Truncation psi")
@cached_weights.enabled()
def samples(network, trust_pickle, dest, grid, seed, trunc, device):
    """Draw a grid of images of a generator."""
    columns, rows = parse_grid(grid)
    with usage_errors("--dest"):
        check_file(dest)
    if seed + columns * rows - 1 > LARGEST_SEED:
        option = "--seed" if seed else "--grid"
        raise click.UsageError(f"{option}: the last image's seed would be above {LARGEST_SEED}; give less")
    G = open_generator(network, choose_device(device), trust_pickle)
    seeds = range(seed, seed + columns * rows)
    device = next(G.parameters()).device
    labels = [labels_of(G, 1, i) for i in seeds]
    latents = zip(seed_latents(G, seeds, device), labels)
    images = torch.cat([G(z[None], c, truncation_psi=trunc, noise_mode="const") for z, c in latents])
    images = images.unflatten(0, (rows, columns))
    Path(dest).parent.mkdir(parents=True, exist_ok=True)
    save_picture(draw_grid(images), dest)
    print(dest)


@command()
@generator_options
@click.option(
    "--dest",
    type=OutputFile(".png", ".gif", ".mp4"),
    default="traversal.png",
    show_default=True,
    metavar="FILE",
    help="Picture, .gif or .mp4 to write",
)
@click.option("--seed", type=SEED, default=0, show_default=True, help="Latent whose image is changed")
@click.option("--projected-w", metavar="FILE", help="… or the first w in an .npz of `project`")
@click.option("--rows", type=click.IntRange(1), default=12, show_default=True, help="How many, those that differ most")
@click.option("--dims", metavar="L3.N1.D5,hair,…", help="These dimensions or named directions instead")
@click.option("--sigmas", type=float, default=3, show_default=True, help="How far to go to either side, in σ")
@click.option("--steps", type=click.IntRange(2), default=7, show_default=True, help="Images a row")
@click.option("--trunc", type=float, default=1, show_default=True, help="Truncation psi")
@click.option("--interpolate", type=Numbers(), metavar="SEEDS", help="Go from seed to seed instead, as 0,5,10-12")
@click.option(
    "--noise",
    is_flag=False,
    flag_value="all,coarse,fine,none",
    metavar="BLOCKS,…",
    help="Draw what noise decides instead, a row for noise in these blocks, as all,0-1,2  [all,coarse,fine,none]",
)
@click.option("--class", "class_idx", type=int, help="Class label of a conditional network  [default: 0]")
@click.option("--atlas", type=OutputFile(".html"), metavar="HTML", help="Write a page about all dimensions instead")
@click.option("--seeds", type=Numbers(), default="0-3", show_default=True, help="Latents that the atlas looks at")
@click.option("--attributes", metavar="PATH", help="For the atlas: data with known attributes, or a classifier")
@click.option("--extractor", metavar="FILE", help="For the atlas: says which classes a dimension moves")
@click.option("--detector", metavar="NAME", help="For the atlas: rank by a perceptual distance, such as vgg-hed")
def explore(network, trust_pickle, device, dest, interpolate, atlas, seeds, attributes, detector, extractor, **options):
    """Draw what dimensions of a SEGAN do, a row each: directions with a name first, then the strongest of each kind.

    With --interpolate, walks between seeds, of any generator; with --noise, one latent under many noises, and where
    they change the image. With --atlas, a page that ranks and names all dimensions.
    """
    _refuse_useless(interpolate, atlas, options)
    if atlas is None:
        check_ending(dest)
        with usage_errors("--dest"):
            check_file(dest)
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
    if options["noise"] is not None:
        _draw_noise(G, dest, options["noise"].split(","), options["seed"], steps, trunc, class_idx)
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
    given = options["projected_w"]
    ws = None if given is None else load_ws(G, given, next(G.parameters()).device)[:1]
    if options["dims"]:
        chosen = _chosen(G, options["dims"])
    else:
        chosen = strongest(G, options["rows"], options["seed"], class_idx, bar)
    images = traversal(G, chosen, options["seed"], options["sigmas"], steps, trunc, class_idx, ws)
    rows, columns = captions(G, chosen, options["sigmas"], steps)
    write_pictures(dest, images, rows, columns)
    for dimension in chosen:
        _print_row(G, dimension)
    print(dest)


def _refuse_useless(interpolate, atlas, options):
    """click.UsageError for an option that the others leave without effect"""
    of_dimensions = ["--rows", "--dims", "--sigmas", "--projected-w"]
    of_atlas = ["--seeds", "--attributes", "--extractor", "--detector"]
    if interpolate is not None:
        refuse_given(["--noise", "--atlas", "--seed", *of_dimensions], "with --interpolate")
    elif options["noise"] is not None:
        refuse_given(["--atlas", *of_dimensions], "with --noise")
    elif atlas is not None:
        refuse_given(["--dest", "--seed", "--steps", "--trunc", *of_dimensions], "with --atlas")
    if atlas is None:
        refuse_given(of_atlas, "without --atlas")
    if options["dims"]:
        refuse_given(["--rows"], "with --dims")
    if options["projected_w"]:
        refuse_given(["--trunc"], "with --projected-w")
        if options["dims"]:  # else it decides which dimensions are shown
            refuse_given(["--seed"], "with --projected-w and --dims")


def _draw_noise(G, dest, groups, seed, steps, trunc, class_idx):
    """A row for each group of blocks: images under `steps` noises, and the deviation of many, all on one scale"""
    count = len(getattr(G.synthesis, "block_resolutions", []))
    with usage_errors("--noise"):
        ws = ws_of_seeds(G, [seed], trunc, class_idx)
        rows = [stochastic_variation(G, ws, parse_blocks(text, count)) for text in groups]
    most = max(float(row.deviation.max()) for row in rows)
    maps = [(row.deviation / max(most, 1e-6) * 2 - 1).expand_as(row.images[0]) for row in rows]
    images = [torch.cat([row.images[:steps], seen[None]]) for row, seen in zip(rows, maps)]
    labels = [f"noise: {text}" for text in groups]
    write_pictures(
        dest, torch.stack(images), labels, [*(f"{i + 1}" for i in range(steps)), f"deviation, to {most:.2f}"]
    )
