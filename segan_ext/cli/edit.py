"""`segan edit`."""

import json
from pathlib import Path

import click
import torch

from metrics.perceptual import perceptual_features
from runs.launch import choose_device
from runs.options import (
    Numbers,
    OneOf,
    OutputDir,
    command,
    generator_options,
    open_generator,
    refuse_given,
    usage_errors,
)
from segan_ext.control.address import Address, parse_address
from segan_ext.control.edit_file import PARTS, describe, read_edit, read_mask
from segan_ext.control.inversion import Reader, bounds_of, reading_bar
from segan_ext.control.named import named_directions, read_directions
from segan_ext.control.render import keep_outside, mixed_offsets, offsets_of, parse_edits
from segan_ext.directions.sefa import with_sefa_controls
from segan_ext.images import draw_change
from segan_ext.latents import coordinate_sigmas
from segan_ext.semantics.extractors import open_extractor
from segan_ext.semantics.regions import Region, class_mask
from snapshots.atomic import write_atomically
from torch_utils import cached_weights
from training.images import save_picture, to_pictures
from training.latents import class_label, load_ws, seed_latents
from training.projection import open_target, project_many


def _parse_set(texts):
    for text in texts:
        address, equals, amount = text.partition("=")
        try:
            yield parse_address(address), float(amount)
        except ValueError as error:
            said = f"{text!r} is no edit; write L3.N1.D5=+2.5, or the name of a direction, as hairColor=-1"
            said = str(error) if equals and "address" in str(error) else said
            raise click.UsageError(f"--set: {said}") from error


def _parse_mix(G, texts, trunc, class_idx):
    """[(L, N, seed, w [w_dim] of that seed), …]"""
    found, device = [], next(G.parameters()).device
    for text in texts:
        layer, _, seed = text.partition("=")
        try:
            address = Address.parse(f"{layer}.D0").check(G)
            z = seed_latents(G, [int(seed)], device)
        except ValueError as error:
            raise click.UsageError(f"--mix: {text!r} is not of the form L3.N1=SEED ({error})") from error
        w = G.mapping(z, class_label(G, class_idx, 1, device), truncation_psi=trunc)[0, 0]
        found.append((*address.layer, int(seed), w.cpu()))
    return found


def _latents(G, device, seeds, projected_w, image, num_steps, trunc, class_idx):
    """ws [N, num_ws, w_dim] and a name for each: of seeds, of a file of projector.py, or of a picture"""
    if sum(given is not None for given in (seeds, projected_w, image)) != 1:
        raise click.UsageError("--seeds: give --seeds, --projected-w or --image, one of the three")
    if seeds is not None:
        label = class_label(G, class_idx, 1, device)
        z = seed_latents(G, seeds, device)
        ws = [G.mapping(each[None], label, truncation_psi=trunc) for each in z]
        return torch.cat(ws), [f"seed{seed:04d}" for seed in seeds]
    if projected_w is not None:
        ws = load_ws(G, projected_w, device)
        return ws, [f"w{i:02d}" for i in range(len(ws))]
    with usage_errors("--image"):
        target = open_target(image, G)
    features = perceptual_features(None, device)
    label = class_label(G, class_idx, 1, device) if G.c_dim else None
    start = Reader(G, samples=500, class_idx=class_idx or 0, count=reading_bar)(
        target[None].float().to(device) / 127.5 - 1
    )
    options = dict(features=features, start=start, bounds=bounds_of(G), label=label, verbose=True, device=device)
    found = project_many(G, target[None], num_steps=num_steps, **options)
    return found.ws.to(device), [f"{Path(image).stem}-edited"]


@command()
@generator_options
@click.option(
    "--set",
    "sets",
    multiple=True,
    metavar="ADDRESS=AMOUNT",
    help="Move a dimension by so many σ: L3.N1.D5=+2.5, or a named direction by its units: hairColor=-1; repeat it",
)
@click.option(
    "--mix", multiple=True, metavar="LAYER=SEED", help="Take a style layer's coordinates from a seed: L3.N1=7"
)
@click.option("--seeds", type=Numbers(), help="Images to edit: seeds, as 0,5,10-20")
@click.option("--projected-w", metavar="FILE", help="… or the ws in an .npz of `project` or projector.py")
@click.option("--image", metavar="FILE", help="… or a picture, which is projected first")
@click.option("--num-steps", type=click.IntRange(1), default=200, show_default=True, help="Steps of that projection")
@click.option("--trunc", type=float, default=1, show_default=True, help="Truncation psi of the seeds")
@click.option("--class", "class_idx", type=int, help="Class label of a conditional network")
@click.option("--keep", metavar="PNG", help="Mask of the images' size; what is white stays as it was")
@click.option("--inside", metavar="CLASS,…", help="Change nothing outside what shows these classes: hair,brows")
@click.option("--extractor", metavar="FILE", help="Extractor that knows them, from `semantics train`")
@click.option("--directions", metavar="JSON", help="Named directions beside the network's own, saved by the page")
@click.option("--noise-mode", type=OneOf(["const", "none"]), default="const", show_default=True, help="Noise")
@click.option("--replay", metavar="JSON", help="Make the images of an edit.json again, instead of all the above")
@click.option(
    "--outdir", type=OutputDir(), required=True, metavar="DIR", help="Where to save images, changes, and edit.json"
)
def edit(network, trust_pickle, device, sets, mix, keep, inside, extractor, noise_mode, replay, outdir, **source):
    """Edit images by moving single dimensions of single layers.

    Writes each image, a picture of what changed, and edit.json, which --replay turns into the same bytes again.
    """
    directions = source.pop("directions")
    _refuse_useless(replay, inside, mix, **source)
    device = choose_device(device)
    loaded = open_generator(network, device, trust_pickle)
    G = with_sefa_controls(loaded)
    with usage_errors("--directions"):
        named = named_directions(G) | (read_directions(directions, G) if directions else {})
    with usage_errors("--replay" if replay else "--set"):
        content = read_edit(replay, G) if replay else None
        edits = content["edits"] if replay else parse_edits(G, list(_parse_set(sets)), named)
        _check_dimensions(loaded, edits, named)
    if content is None:
        mix = _parse_mix(G, mix, source["trunc"], source["class_idx"])
        with usage_errors("--keep"):
            kept = None if keep is None else read_mask(keep, G.img_resolution)
        ws, names = _latents(G, device, **source)
        region = None if inside is None else _class_masks(G, ws, inside, extractor, noise_mode)
        content = dict(zip(PARTS, (edits, ws, names, noise_mode, mix, kept, region, named)))
    content |= dict(edits=edits, ws=content["ws"].to(device))
    write_edit(G, content, outdir)
    text = json.dumps(describe(network, *(content[key] for key in PARTS)), indent=1)
    write_atomically(str(Path(outdir) / "edit.json"), lambda file: file.write(text.encode()))
    print(Path(outdir) / "edit.json")


def _refuse_useless(replay, inside, mix, seeds, projected_w, image, **_others):
    """click.UsageError for an option that the others leave without effect"""
    if replay:
        of_images = ("--seeds", "--projected-w", "--image", "--num-steps", "--trunc", "--class")
        what = ("--set", "--mix", "--keep", "--inside", "--extractor", "--directions", "--noise-mode")
        refuse_given([*of_images, *what], "on an edit that is made again")
    if image is None:
        refuse_given(["--num-steps"], "without --image")
    if seeds is None and not mix:  # what is mixed in is of a seed
        refuse_given(["--trunc"], "without --seeds")
    if projected_w is not None and not mix:
        refuse_given(["--class"], "on ws that are given")
    if inside is None:
        refuse_given(["--extractor"], "without --inside")


def _check_dimensions(G, edits, named):
    """ValueError if an edit moves a dimension of a generator that has names alone"""
    dimension = next((address for address in edits if isinstance(address, Address)), None)
    if dimension is not None and not getattr(G, "subspaces", dict)():
        known = ", ".join(named)
        cure = "or find some with `python -m segan_ext discover`"
        raise ValueError(f"{dimension}: this network has no subspaces; move {known}, {cure}")


def _class_masks(G, ws, names, extractor, noise_mode):
    """Masks [N, H, W] of the classes in the images of ws"""
    if extractor is None:
        raise click.UsageError("--inside: classes are found by an extractor; give one with --extractor")
    names = [name.strip() for name in names.split(",")]
    with usage_errors("--extractor"):
        opened = open_extractor(extractor, G)
    with usage_errors("--inside"), torch.no_grad():
        mask = torch.cat([class_mask(G, opened, w, names, noise_mode=noise_mode) for w in ws.split(1)])
    return mask[:, 0]


@cached_weights.enabled()
def write_edit(G: torch.nn.Module, content: dict, outdir: str | Path) -> None:
    """Writes NAME.png and NAME-change.png for every latent of an edit (`read_edit`), and prints the change."""
    sigmas, ws = coordinate_sigmas(G), content["ws"]
    outdir = Path(outdir)
    outdir.mkdir(parents=True, exist_ok=True)
    for i, name in enumerate(content["names"]):
        w = ws[i : i + 1]
        before = G.synthesis(w, noise_mode=content["noise_mode"])
        after = _mixed(G, w, content, sigmas, None if content["inside"] is None else content["inside"][i])
        if content["keep"] is not None:
            after = keep_outside(before, after, content["keep"].to(before.device))
        save_picture(to_pictures(after)[0], outdir / f"{name}.png")
        save_picture(draw_change(before[0].cpu(), after[0].cpu()), outdir / f"{name}-change.png")
        print(f"{outdir / name}.png: mean change {(after - before).abs().mean().item() * 127.5:.2f} of 255")


def _mixed(G, w, content, sigmas, inside=None):
    """The image of one latent with its mixing and its edits, which change it in the mask `inside` [H, W] only"""
    offsets = offsets_of(G, content["edits"], sigmas, content["directions"])
    for L, N, _seed, other in content["mix"]:
        mixed = mixed_offsets(G, w, other.to(w)[None, None], [(L, N)])[L, N]
        offsets[L, N] = mixed + offsets.get((L, N), 0)
    region = None if inside is None else Region(G, w, inside[None, None].to(w.device), content["noise_mode"])
    with G.edited(offsets=offsets):
        return region.render(w) if region else G.synthesis(w, noise_mode=content["noise_mode"])
