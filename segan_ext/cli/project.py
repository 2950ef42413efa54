"""`segan project`."""

import json
import os
from pathlib import Path

import click
import numpy as np
import torch

from metrics.perceptual import perceptual_features
from runs.launch import choose_device
from runs.options import SEED, OneOf, OutputDir, command, generator_options, open_generator, usage_errors
from runs.outputs import check_inputs_stay
from segan_ext.control.edit_file import describe
from segan_ext.control.inversion import SAMPLES, Reader, bounds_of, reading_bar
from segan_ext.images import draw_curves, draw_traversal
from snapshots.atomic import write_atomically
from training.contents import FolderContents
from training.files import is_picture, lies_in, what_is_no_picture
from training.images import save_picture, to_pictures
from training.latents import class_label
from training.projection import SPACES, open_targets, project_many, psnr

_SHOWN = 24  # rows of the picture of the result


@command()
@generator_options
@click.option("--target", "targets", required=True, multiple=True, metavar="PATH", help="Picture or folder; repeat it")
@click.option(
    "--space", type=OneOf(SPACES), default="w", show_default=True, help="One w for all layers, or one each: w+"
)
@click.option(
    "--start",
    type=OneOf(["reader", "mean"]),
    default="reader",
    show_default=True,
    help=f"Begin at what a regression on {SAMPLES} generated images (fewer above 256×256) reads off a picture, "
    "or at the mean of w",
)
@click.option("--num-steps", type=click.IntRange(1), default=200, show_default=True, help="Steps of the optimizer")
@click.option("--batch", type=click.IntRange(1), default=8, show_default=True, help="Pictures at a time")
@click.option("--seed", type=SEED, default=303, show_default=True, help="Random seed")
@click.option("--class", "class_idx", type=int, help="Class label of a conditional network")
@click.option("--detector", metavar="PATH", help="TorchScript file to compare images with, vgg-hed or pixel-pyramid")
@click.option("--outdir", type=OutputDir(), required=True, metavar="DIR", help="Where to save the results")
def project(network, trust_pickle, device, targets, space, start, num_steps, batch, seed, class_idx, detector, outdir):
    """Project pictures into W or W+, several at once.

    Writes projected_w.npz and, for every picture, NAME.png and NAME.json, an edit that `edit --replay` and the page
    open with all sliders; projection.png shows how well it went.
    """
    torch.manual_seed(seed)
    device = choose_device(device)
    G = open_generator(network, device, trust_pickle)
    label = class_label(G, class_idx, 1, device)
    with usage_errors("--target"):
        paths = _pictures(targets)
        pixels = open_targets(paths, G)
    _check_outdir(outdir, targets, paths)
    with usage_errors("--detector"):
        features = perceptual_features(detector, device)
    started = pixels.float() / 127.5 - 1
    first = Reader(G, class_idx=class_idx or 0, count=reading_bar)(started.to(device)) if start == "reader" else None
    print(f"Projecting {len(paths)} into {space} in {num_steps} steps; distances are of {features.name}.")
    options = dict(features=features, space=space, bounds=bounds_of(G), num_steps=num_steps, verbose=True)
    options |= dict(device=device, label=label if G.c_dim else None)
    parts = []
    for rows in torch.arange(len(paths)).split(batch):
        parts.append(project_many(G, pixels[rows], start=None if first is None else first[rows], **options))
    ws = torch.cat([part.ws for part in parts])
    _write(G, network, paths, started, ws, torch.cat([part.distances for part in parts], dim=1), Path(outdir))


def _pictures(targets):
    """Paths of pictures, those of folders in order. ValueError where there are none, or two of one name."""
    found = []
    for target in map(Path, targets):
        if not target.is_dir():
            found.append(target)
            continue
        contents = FolderContents(str(target))
        inside, others = [target / name for name in contents if is_picture(name)], what_is_no_picture(contents)
        if not inside:
            raise ValueError(f"{target} holds no pictures{': ' * bool(others)}{others}")
        found += inside
        if others:
            print(f"{target}: {others}.")
    names = [path.stem for path in found]
    for name in names:
        if names.count(name) > 1:
            raise ValueError(f"two pictures are called {name}; their results would have one name")
        if name == "projection":
            raise ValueError("a picture is called projection, as the picture of all results is; rename it")
    return found


def _check_outdir(outdir, targets, paths):
    """ValueError if results would replace pictures, or lie in a folder of them and be projected with it next time."""
    for folder in filter(os.path.isdir, targets):
        if lies_in(outdir, folder):
            raise ValueError(f"--outdir: {outdir} lies in {folder}, whose pictures are projected; name another folder")
    with usage_errors("--outdir"):
        check_inputs_stay(
            paths, [Path(outdir) / name for name in [*(f"{p.stem}.png" for p in paths), "projection.png"]]
        )


@torch.no_grad()
def _write(G, network, paths, targets, ws, distances, outdir):
    """Files of every picture, those of all, and a line for each"""
    outdir.mkdir(parents=True, exist_ok=True)
    device = next(G.parameters()).device
    images = torch.cat([G.synthesis(w.to(device), noise_mode="const").cpu() for w in ws.split(32)])
    names = [path.stem for path in paths]
    arrays = dict(w=ws.numpy(), distances=distances.numpy(), names=np.array(names))
    write_atomically(outdir / "projected_w.npz", lambda file: np.savez(file, **arrays))
    quality = [f"{ratio:.1f} dB" for ratio in psnr(images, targets).tolist()]
    for i, name in enumerate(names):
        save_picture(to_pictures(images[i : i + 1])[0], outdir / f"{name}.png")
        text = json.dumps(describe(network, {}, ws[i : i + 1], [name], "const"), indent=1)
        write_atomically(outdir / f"{name}.json", lambda file, text=text: file.write(text.encode()))
        print(f"{name}: distance {distances[-1, i]:.4g}, PSNR {quality[i]}")
    differences = (images.clamp(-1, 1) - targets).abs() - 1  # black where they are equal
    rows = torch.stack([targets, images, differences], dim=1)[:_SHOWN]
    labels = [f"{name[:24]}\n{said}" for name, said in zip(names, quality)][:_SHOWN]
    table = draw_traversal(rows, labels, ["target", "projection", "difference"])
    save_picture(draw_curves(table, distances), outdir / "projection.png")
    print(outdir / "projection.png")
