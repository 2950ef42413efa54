"""Edits: single dimensions of single layers moved by so many σ, on seeds, on a saved w, or on a picture.

    with legacy.load_generator(…) as usual:
    images = render(G, ws, {"L3.N1.D5": +2.5, "L4.N0.D2": -1})

An edit is a sum of moves; it is written as JSON, with the latents, and replays to the same bytes.
"""

import base64
import io
import json
import re
from pathlib import Path

import click
import numpy as np
import torch
from PIL import Image, ImageDraw

from segan_ext import host

host.activate()

from atomic import write_atomically  # noqa: E402 (the host has to be on the path)
from generate import Numbers, class_label, generator_options, load_generator, load_ws, seed_latents, to_pictures  # noqa: E402
from launch import choose_device  # noqa: E402
from metrics.perceptual import perceptual_features  # noqa: E402
from projector import open_target, project  # noqa: E402
from segan_ext.moves import Address, coordinate_sigmas, coordinates_of, offsets_of  # noqa: E402
from segan_ext.semantics.extractors import open_extractor  # noqa: E402
from segan_ext.semantics.regions import Region, class_mask  # noqa: E402
from torch_utils import inference  # noqa: E402
from training.files import decode, parse_json  # noqa: E402

_FORMAT = "segan-edit"
_VERSION = 1


def parse_edits(G, edits):
    """{Address: σ}, those of one address added up.

    edits: {address: σ} or pairs of them, an address being an `Address`, a tuple (L, N, D), or a text like "L3.N1.D5".
    ValueError for an address that G does not have, and for what is no number.
    """
    amounts = {}
    for address, amount in edits.items() if isinstance(edits, dict) else edits:
        address = Address(*address) if isinstance(address, tuple) else Address.parse(address)
        address.check(G)
        if not isinstance(amount, (int, float)) or not abs(amount) < 1e6:
            raise ValueError(f"{address}: {str(amount)[:30]} is no number of σ that makes sense")
        amounts[address] = amounts.get(address, 0.0) + float(amount)
    return amounts


@torch.no_grad()
def render(G, ws, edits, sigmas=None, **synthesis_kwargs):
    """Images [N, C, H, W] of ws [N, num_ws, w_dim] with coordinates moved.

    edits: as in `parse_edits`, in units of each coordinate's deviation over 10 000 random latents. sigmas: those of
    `moves.coordinate_sigmas`, which take a moment to compute. synthesis_kwargs: of G.synthesis, such as
    noise_mode='const'. An edit whose sum is zero gives the very bytes of no edit, and an edit at (L, N, D) leaves every
    layer before (L, N) as it was. ValueError for an address that G does not have.
    """
    with G.edited(offsets=offsets_of(G, parse_edits(G, edits), sigmas)):
        return G.synthesis(ws, **synthesis_kwargs)


@torch.no_grad()
def mixed_offsets(G, ws, other_ws, layers):
    """Offsets for `G.edited` with which the given layers [(L, N), …] see the coordinates of other_ws instead of ws.

    Style mixing for single style layers. ws: [N, num_ws, w_dim], of one w each; other_ws: [1 or N, num_ws, w_dim].
    """
    subspaces = G.subspaces()
    return {x: subspaces[x].coordinates(other_ws[:, 0]) - subspaces[x].coordinates(ws[:, 0]) for x in layers}


@torch.no_grad()
def truncation(G, psi, layers=None):
    """(factors, offsets) for `G.edited` that pull coordinates of some layers to their mean: ψ·c + (1 − ψ)·mean."""
    means = {address: found.mean(dim=0) for address, found in coordinates_of(G).items()}
    chosen = list(means) if layers is None else list(layers)
    return dict.fromkeys(chosen, torch.tensor(float(psi))), {x: (1 - psi) * means[x] for x in chosen}


def keep_outside(before, after, kept):
    """`after` where the mask is 0, the pixels of `before` where it is 1. images [N, C, H, W]; kept [H, W] in [0, 1]"""
    return torch.where(kept > 0, before * kept + after * (1 - kept), after)


# ---------------------------------------------------------------------------------------------------------------------
# Files


def read_mask(path, resolution):
    """[resolution, resolution] in [0, 1] of a grey picture. click.UsageError for another size or what is no picture."""
    try:
        mask = np.asarray(decode(Path(path).read_bytes()).convert("L"), np.float32) / 255
    except (OSError, ValueError) as error:
        raise click.UsageError(f"--keep: {path} cannot be opened as a picture ({error})") from error
    if mask.shape != (resolution, resolution):
        size = f"{mask.shape[1]}×{mask.shape[0]}"
        raise click.UsageError(f"--keep: the mask is {size}; the images are {resolution}×{resolution}")
    return torch.from_numpy(mask)


def describe(network, edits, ws, names, noise_mode, mix=(), kept=None, inside=None):
    """An edit as what is written to its JSON.

    names: of the images of ws [N, num_ws, w_dim]. mix: of `_parse_mix`. kept: mask [H, W] of what stays in all images.
    inside: masks [N, H, W] of what alone may change in each.
    """
    content = dict(format=_FORMAT, version=_VERSION, network=str(network), names=names, noise_mode=noise_mode)
    content["edits"] = {str(address): amount for address, amount in edits.items()}
    content["mix"] = [[L, N, seed, w.tolist()] for L, N, seed, w in mix]
    content["ws"] = dict(shape=list(ws.shape), float32=base64.b64encode(ws.cpu().float().numpy().tobytes()).decode())
    if kept is not None:
        content["keep"] = _as_png(kept)
    if inside is not None:
        content["inside"] = [_as_png(mask) for mask in inside]
    return content


def _as_png(mask):
    """A mask [H, W] in [0, 1] as text"""
    buffer = io.BytesIO()
    Image.fromarray((mask.cpu().numpy() * 255).round().astype(np.uint8)).save(buffer, format="PNG")
    return base64.b64encode(buffer.getvalue()).decode()


def _from_png(text):
    return torch.from_numpy(np.asarray(decode(base64.b64decode(text)).convert("L"), np.float32) / 255)


def read_edit(path, G, masks=True):
    """What `describe` gave, with ws and masks as tensors (None without), edits as in `parse_edits`.

    masks: False leaves them out. OSError, or ValueError for another file, or an edit that G is too different for.
    """
    try:
        content = parse_json(Path(path).read_bytes())
        if content["format"] != _FORMAT:
            raise KeyError("format")
        shape, data = content["ws"]["shape"], base64.b64decode(content["ws"]["float32"])
        content["ws"] = torch.from_numpy(np.frombuffer(data, np.float32).copy()).reshape(shape)
        content["edits"] = dict(content["edits"])
        content["mix"] = [(int(L), int(N), int(seed), torch.tensor(w)) for L, N, seed, w in content.get("mix") or []]
        content["keep"] = _from_png(content["keep"]) if masks and content.get("keep") else None
        inside = content.get("inside") if masks else None
        content["inside"] = torch.stack([_from_png(mask) for mask in inside]) if inside else None
        names, noise_mode, version = content["names"], content["noise_mode"], content["version"]
    except (ValueError, KeyError, TypeError, RuntimeError, OverflowError) as error:
        raise ValueError(f"{path} is no edit; `python -m segan_ext edit` writes such files as edit.json") from error
    if version != _VERSION:
        raise ValueError(f"{path} is of version {version!r}; this version of SEGAN reads {_VERSION}")
    if noise_mode not in ("const", "none") or not _are_names(names, len(content["ws"])):
        raise ValueError(f"{path} is no edit: it has names or a noise mode that none has")
    content["edits"] = parse_edits(G, content["edits"])
    _check_fit(content, G, path)
    return content


def _are_names(names, count):
    """True for that many different names of files in one folder"""
    plain = lambda name: isinstance(name, str) and re.fullmatch(r"[^/\\\x00-\x1f]{1,100}", name) and name.strip(". ")
    return isinstance(names, list) and len(names) == count and all(map(plain, names)) and len(set(names)) == count


def _check_fit(content, G, path):
    """ValueError unless the tensors of an edit are of the sizes that G has"""
    ws, size = content["ws"], [G.img_resolution] * 2
    misfits = [f"w of {list(ws.shape[1:])}"] if list(ws.shape[1:]) != [G.num_ws, G.w_dim] else []
    misfits += ["w that is not finite"] if not ws.isfinite().all() else []
    for L, N, _seed, w in content["mix"]:
        if (L, N) not in getattr(G, "subspaces", dict)() or list(w.shape) != [G.w_dim]:
            misfits.append(f"a mix at L{L}.N{N}")
    kept, inside = content["keep"], content["inside"]
    misfits += ["a mask"] if kept is not None and list(kept.shape) != size else []
    misfits += ["masks"] if inside is not None and list(inside.shape) != [len(ws), *size] else []
    if misfits:
        raise ValueError(f"{path} is of another generator: it has {misfits[0]}")


def draw_change(before, after):
    """A PIL picture: before, after, and where they differ (brighter: more), side by side. images [C, H, W]"""
    difference = (after - before).abs().mean(dim=0, keepdim=True)
    difference = (difference / difference.max().clamp(min=1e-6) * 2 - 1).expand_as(before)
    panels = to_pictures(torch.stack([before, after, difference]))
    width, height = panels[0].size
    picture = Image.new("RGB", (3 * width + 8, height + 14), "white")
    draw = ImageDraw.Draw(picture)
    for i, (panel, title) in enumerate(zip(panels, ("before", "after", "change"))):
        picture.paste(panel, (i * (width + 4), 14))
        draw.text((i * (width + 4) + width / 2, 7), title, fill="black", anchor="mm")
    return picture


# ---------------------------------------------------------------------------------------------------------------------
# Command


def _parse_set(texts):
    for text in texts:
        address, equals, amount = text.partition("=")
        try:
            yield Address.parse(address), float(amount)
        except ValueError as error:
            said = str(error) if equals and "address" in str(error) else f"{text!r} is no edit; write L3.N1.D5=+2.5"
            raise click.UsageError(f"--set: {said}") from error


def _parse_mix(G, texts, trunc, class_idx):
    """[(L, N, seed, w [w_dim] of that seed), …]"""
    found, device = [], next(G.parameters()).device
    for text in texts:
        layer, _, seed = text.partition("=")
        try:
            address = Address.parse(f"{layer}.D0").check(G)
            z = seed_latents(G, [int(seed)], device)
            w = G.mapping(z, class_label(G, class_idx, 1, device), truncation_psi=trunc)[0, 0]
            found.append((*address.layer, int(seed), w.cpu()))
        except ValueError as error:
            raise click.UsageError(f"--mix: {text!r} is not of the form L3.N1=SEED ({error})") from error
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
    features = perceptual_features(None, device)
    target = open_target(image, G)
    label = class_label(G, class_idx, 1, device) if G.c_dim else None
    path = project(G, target, features=features, label=label, num_steps=num_steps, verbose=True, device=device)
    return path[-1:].to(device), [f"{Path(image).stem}-edited"]


@click.command()
@generator_options
@click.option(
    "--set", "sets", multiple=True, metavar="ADDRESS=SIGMA", help="Move a dimension: L3.N1.D5=+2.5; repeat it"
)
@click.option(
    "--mix", multiple=True, metavar="LAYER=SEED", help="Take a style layer's coordinates from a seed: L3.N1=7"
)
@click.option("--seeds", type=Numbers(), help="Images to edit: seeds, as 0,5,10-20")
@click.option("--projected-w", metavar="FILE", help="… or the ws in an .npz of projector.py")
@click.option("--image", metavar="FILE", help="… or a picture, which is projected first")
@click.option("--num-steps", type=click.IntRange(1), default=500, show_default=True, help="Steps of that projection")
@click.option("--trunc", type=float, default=1, show_default=True, help="Truncation psi of the seeds")
@click.option("--class", "class_idx", type=int, help="Class label of a conditional network")
@click.option("--keep", metavar="PNG", help="Mask of the images' size; what is white stays as it was")
@click.option("--inside", metavar="CLASS,…", help="Change nothing outside what shows these classes: hair,brows")
@click.option("--extractor", metavar="FILE", help="Extractor that knows them, from `semantics train`")
@click.option("--noise-mode", type=click.Choice(["const", "none"]), default="const", show_default=True, help="Noise")
@click.option("--replay", metavar="JSON", help="Make the images of an edit.json again, instead of all the above")
@click.option("--outdir", required=True, metavar="DIR", help="Where to save images, changes, and edit.json")
def edit(network, trust_pickle, device, sets, mix, keep, inside, extractor, noise_mode, replay, outdir, **source):
    """Edit images by moving single dimensions of single layers.

    Writes each image, a picture of what changed, and edit.json, which --replay turns into the same bytes again.
    """
    device = choose_device(device)
    G = load_editable(network, device, trust_pickle)
    try:
        content = read_edit(replay, G) if replay else None
        edits = content["edits"] if replay else parse_edits(G, list(_parse_set(sets)))
    except (OSError, ValueError) as error:
        raise click.UsageError(f"--{'replay' if replay else 'set'}: {error}") from error
    if content is None:
        mix = _parse_mix(G, mix, source["trunc"], source["class_idx"])
        kept = None if keep is None else read_mask(keep, G.img_resolution)
        ws, names = _latents(G, device, **source)
        region = None if inside is None else _class_masks(G, ws, inside, extractor, noise_mode)
        content = dict(zip(_PARTS, (edits, ws, names, noise_mode, mix, kept, region)))
    content |= dict(edits=edits, ws=content["ws"].to(device))
    write_edit(G, content, outdir)
    text = json.dumps(describe(network, *(content[key] for key in _PARTS)), indent=1)
    write_atomically(str(Path(outdir) / "edit.json"), lambda file: file.write(text.encode()))
    print(Path(outdir) / "edit.json")


_PARTS = ("edits", "ws", "names", "noise_mode", "mix", "keep", "inside")  # of an edit, in the order of `describe`


def _class_masks(G, ws, names, extractor, noise_mode):
    """Masks [N, H, W] of the classes in the images of ws"""
    if extractor is None:
        raise click.UsageError("--inside: classes are found by an extractor; give one with --extractor")
    try:
        names = [name.strip() for name in names.split(",")]
        with torch.no_grad():
            opened = open_extractor(extractor, G)
            mask = torch.cat([class_mask(G, opened, w, names, noise_mode=noise_mode) for w in ws.split(1)])
    except (OSError, ValueError) as error:
        raise click.UsageError(f"--inside: {error}") from error
    return mask[:, 0]


def load_editable(network, device, trust_pickle=False):
    """A generator with subspaces. click.UsageError for another."""
    G = load_generator(network, device, trust_pickle)
    check_editable(G, network)
    return G


def check_editable(G, network):
    """click.UsageError if a generator, from the file `network`, has no subspaces."""
    if not getattr(G, "subspaces", dict)():
        raise click.UsageError(
            f"--network: {network} has no subspaces; give a snapshot of mode 1, 2 or 3, or find some with "
            "`python -m segan_ext discover`"
        )


@inference.folded()
def write_edit(G, content, outdir):
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
        to_pictures(after)[0].save(outdir / f"{name}.png")
        draw_change(before[0].cpu(), after[0].cpu()).save(outdir / f"{name}-change.png")
        print(f"{outdir / name}.png: mean change {(after - before).abs().mean().item() * 127.5:.2f} of 255")


def _mixed(G, w, content, sigmas, inside=None):
    """The image of one latent with its mixing and its edits, which change it in the mask `inside` [H, W] only"""
    offsets = offsets_of(G, content["edits"], sigmas)
    for L, N, _seed, other in content["mix"]:
        mixed = mixed_offsets(G, w, other.to(w)[None, None], [(L, N)])[L, N]
        offsets[L, N] = mixed + offsets.get((L, N), 0)
    region = None if inside is None else Region(G, w, inside[None, None].to(w.device), content["noise_mode"])
    with G.edited(offsets=offsets):
        return region.render(w) if region else G.synthesis(w, noise_mode=content["noise_mode"])
