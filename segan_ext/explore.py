"""Traversals: what single dimensions of single layers do to an image; walks between latents; the atlas of all of it."""

import itertools
from pathlib import Path
from typing import NamedTuple

import click
import numpy as np
import torch
from PIL import Image, ImageDraw
from tqdm import tqdm

from segan_ext import host

host.activate()

from generate import (  # noqa: E402 (after the host)
    Numbers,
    class_label,
    generator_options,
    label_table,
    load_generator,
    seed_latents,
    to_pictures,
)
from launch import choose_device  # noqa: E402
from metrics.perceptual_path_length import slerp  # noqa: E402
from projector import save_video  # noqa: E402
from recipe import parse_grid  # noqa: E402
from segan_ext.edit import check_editable  # noqa: E402
from segan_ext.moves import Address, coordinate_sigmas, finish, start, sweep  # noqa: E402
from torch_utils import inference  # noqa: E402


class Dimension(NamedTuple):
    """One dimension with its σ, and its effect: mean absolute change of the image (range 2) from −2σ to +2σ."""

    address: Address
    sigma: float
    effect: float

    def __str__(self):
        return str(self.address)


@inference.folded()
def rank_dimensions(G, seeds=(0, 1), batch=64, progress=None, class_idx=0):
    """All dimensions as `Dimension`s, the one that changes the images of these seeds most first.

    progress: called with the list of layers, to show how far the work is (tqdm does).
    """
    sigmas, ranked = coordinate_sigmas(G), []
    for moved in sweep(G, ws_of_seeds(G, seeds, class_idx=class_idx), sigmas, batch=batch, progress=progress):
        effects = (moved.high - moved.low).abs().mean(dim=[1, 2, 3, 4]).tolist()
        for d, effect in zip(moved.dims, effects):
            ranked.append(Dimension(Address(*moved.layer, d), float(sigmas[moved.layer][d]), effect))
    return sorted(ranked, key=lambda dimension: -dimension.effect)


@inference.folded()
def traversal(G, dimensions, seed=0, sigmas=3.0, steps=7, truncation_psi=1, class_idx=0):
    """Images [len(dimensions), steps, C, H, W]: each row moves one dimension of one latent from −sigmas to +sigmas."""
    ws = ws_of_seeds(G, [seed], truncation_psi, class_idx)
    rows = []
    for dimension in dimensions:
        layer = dimension.address.layer
        offsets = torch.zeros(steps, G.subspaces()[layer].dims)
        offsets[:, dimension.address.D] = torch.linspace(-sigmas, sigmas, steps) * dimension.sigma
        begun = start(G, ws, layer[0], noise_mode="const")
        with G.edited(offsets={layer: offsets}):
            rows.append(finish(G, begun, torch.zeros(steps, dtype=torch.long), noise_mode="const"))
    return torch.stack(rows)


@inference.folded()
def interpolation(G, seeds, steps=9, truncation_psi=1, class_idx=0):
    """Images [len(seeds) − 1, steps, C, H, W]: each row goes from one seed to the next along a great circle in z."""
    z = seed_latents(G, seeds, next(G.parameters()).device).float()
    t = torch.linspace(0, 1, steps, device=z.device)[:, None]
    label = _label(G, steps, class_idx)
    walks = [G.mapping(slerp(a[None], b[None], t), label, truncation_psi=truncation_psi) for a, b in zip(z, z[1:])]
    return torch.stack([G.synthesis(ws, noise_mode="const") for ws in walks])


def ws_of_seeds(G, seeds, truncation_psi=1, class_idx=0):
    """ws [len(seeds), num_ws, w_dim] that the seeds stand for, of one class of a conditional G"""
    z = seed_latents(G, seeds, next(G.parameters()).device).float()
    return G.mapping(z, _label(G, len(z), class_idx), truncation_psi=truncation_psi)


def _label(G, count, class_idx=0):
    """Labels [count, c_dim] of `generate.label_table`; None for an unconditional G"""
    return label_table(G)[[class_idx] * count].to(next(G.parameters()).device) if G.c_dim else None


def chosen_class(G, class_idx):
    """The class that --class asks for; 0, and a sentence, where a conditional G is given none.

    click.UsageError for a class that G does not have.
    """
    if G.c_dim and class_idx is None:
        print(f"This network has {len(label_table(G))} classes: class 0 is shown, --class=N shows another.")
        class_idx = 0
    class_label(G, class_idx, 1, "cpu")  # checks it
    return class_idx or 0


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


def write_pictures(dest, images, labels, columns, fps=10):
    """Writes images [rows, steps, C, H, W] as a labelled PNG, or as GIF or MP4 whose frames are the steps, to and fro.

    click.UsageError for another ending of `dest`, and for MP4 without imageio-ffmpeg.
    """
    dest, scale = Path(dest), max(96 // images.shape[-1], 1)
    if dest.suffix not in (".png", ".gif", ".mp4"):
        raise click.UsageError(f"--dest: {dest} must end in .png, .gif or .mp4")
    dest.parent.mkdir(parents=True, exist_ok=True)
    if dest.suffix == ".png":
        draw_traversal(images, labels, columns, scale).save(dest)
        return
    across = int(np.ceil(np.sqrt(len(images))))
    frames = [_frame(images[:, step], labels, across, scale) for step in range(images.shape[1])]
    frames += frames[-2:0:-1]
    if dest.suffix == ".gif":
        frames[0].save(dest, save_all=True, append_images=frames[1:], duration=1000 // fps, loop=0)
        return
    try:
        save_video(str(dest), (np.asarray(frame) for frame in itertools.chain(frames, frames[:1])), fps)
    except ImportError as error:
        raise click.UsageError("--dest: videos need `pip install imageio-ffmpeg`; .gif works without") from error


def _frame(images, labels, across, scale):
    """Images [N, C, H, W] in a grid, each under its label; sides are even, as videos need."""
    pictures = [picture.convert("RGB") for picture in to_pictures(images)]
    width, height = (side * scale for side in pictures[0].size)
    rows = -(-len(pictures) // across)
    frame = Image.new(
        "RGB", (across * width + across * width % 2, rows * (height + 14) + rows * (height + 14) % 2), "white"
    )
    draw = ImageDraw.Draw(frame)
    for i, (picture, label) in enumerate(zip(pictures, labels)):
        x, y = i % across * width, i // across * (height + 14)
        draw.text((x + width / 2, y + 7), label, fill="black", anchor="mm")
        frame.paste(picture.resize((width, height), Image.Resampling.NEAREST), (x, y + 14))
    return frame


def _chosen(G, texts):
    """The dimensions that --dims names, with σ"""
    sigmas = coordinate_sigmas(G)
    try:
        addresses = [Address.parse(text).check(G) for text in texts.split(",")]
    except ValueError as error:
        raise click.UsageError(f"--dims: {error}") from error
    return [Dimension(a, float(sigmas[a.layer][a.D]), float("nan")) for a in addresses]


# ---------------------------------------------------------------------------------------------------------------------
# Commands


@click.command()
@generator_options
@click.option("--dest", default="samples.png", show_default=True, metavar="PNG", help="Picture to write")
@click.option("--grid", default="8x8", show_default=True, metavar="COLUMNSxROWS", help="Size of the grid")
@click.option("--seed", type=int, default=0, show_default=True, help="The first latent; the others follow")
@click.option("--trunc", type=float, default=1, show_default=True, help="Truncation psi")
@inference.folded()
def samples(network, trust_pickle, dest, grid, seed, trunc, device):
    """Draw a grid of images of a generator."""
    columns, rows = parse_grid(grid)
    G = load_generator(network, choose_device(device), trust_pickle)
    seeds = range(seed, seed + columns * rows)
    device = next(G.parameters()).device
    labels = [_label(G, 1, i % max(len(label_table(G)), 1)) for i in seeds]
    latents = zip(seed_latents(G, seeds, device), labels)
    images = torch.cat([G(z[None], c, truncation_psi=trunc, noise_mode="const") for z, c in latents])
    images = images.unflatten(0, (rows, columns))
    Path(dest).parent.mkdir(parents=True, exist_ok=True)
    draw_grid(images, scale=max(96 // images.shape[-1], 1)).save(dest)
    print(dest)


@click.command()
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
    G = load_generator(network, choose_device(device), trust_pickle)
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
        from segan_ext.atlas import write_atlas

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
