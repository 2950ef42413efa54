"""`python -m segan_ext semantics train | eval | sample | edit`"""

import json
from pathlib import Path

import click
import numpy as np
import torch

from metrics.perceptual import perceptual_features
from runs.launch import choose_device
from runs.options import (
    SEED,
    Command,
    OneOf,
    OutputDir,
    OutputFile,
    generator_options,
    open_generator,
    refuse_given,
    usage_errors,
)
from segan_ext.latents import LATENTS, draw_ws
from segan_ext.layers import FeatureHooks
from segan_ext.semantics import closed_form, evaluation, painting, sampling, training
from segan_ext.semantics.annotations import annotate, read_annotations
from segan_ext.semantics.extractors import IGNORED, KINDS, open_extractor, save_extractor
from segan_ext.semantics.few_shot import train_few_shot
from segan_ext.semantics.painting import read_colours, read_label_map
from segan_ext.semantics.segmenters import open_segmenter
from snapshots.atomic import write_atomically
from torch_utils import cached_weights
from training.images import save_picture, to_pictures
from training.latents import load_ws, seed_latents

_TRUNC = click.option("--trunc", type=float, default=0.5, show_default=True, help="Truncation psi of the images")
_SEGMENTER = "Data with masks beside it (avatars.zip), or a TorchScript or ONNX segmenter with its classes in a JSON"
_EXTRACTOR = click.option("--extractor", required=True, metavar="FILE", help="Extractor, from `semantics train`")


@click.group()
def semantics():
    """Which part of an image is what, from a generator's features: train extractors, measure them, steer by them."""


def _opened(what, option, *args):
    """what(*args). click.UsageError, naming the option, for what does not open."""
    with usage_errors(option):
        return what(*args)


# ---------------------------------------------------------------------------------------------------------------------
# train


@semantics.command(cls=Command)
@generator_options
@click.option("--segmenter", metavar="PATH", help=_SEGMENTER)
@click.option("--annotations", metavar="DIR", help="… or a folder with classes.json and labelled seed0003.png")
@click.option("--kind", type=OneOf(list(KINDS)), default="LSE", show_default=True, help="Architecture")
@click.option(
    "--method",
    type=OneOf(["sgd", *closed_form.METHODS]),
    default="lda",
    show_default=True,
    help="The published recipe, or in closed form (LSE only)",
)
@click.option("--shots", type=click.IntRange(1), help="Let the segmenter annotate so many images, and use those only")
@click.option("--samples", type=click.IntRange(1), help="Images  [default: 51200 for sgd, 2000 in closed form]")
@click.option("--layers", metavar="NAME,…", help="Layers to read, as b8.conv0,b8.conv1  [default: all]")
@click.option("--loss", type=OneOf(training.LOSSES), default="normal", show_default=True, help="Of sgd")
@click.option("--latents", type=OneOf(LATENTS), default="trunc-wp", show_default=True, help="Of sgd")
@_TRUNC
@click.option("--seed", type=SEED, default=0, show_default=True, help="The first image's seed; the others follow")
@click.option(
    "--dest",
    type=OutputFile(".safetensors"),
    required=True,
    metavar="FILE",
    help="Where to write the extractor (.safetensors)",
)
def train(network, trust_pickle, device, segmenter, annotations, dest, **options):
    """Train an extractor, from a segmenter's labels or from a few annotated images.

    An interrupted sgd training goes on when the command is repeated.
    """
    if (segmenter is None) == (annotations is None):
        raise click.UsageError("--segmenter: give a segmenter, or --annotations, one of the two")
    few = annotations is not None or options["shots"] is not None
    if options["kind"] != "LSE" and (few or options["method"] != "sgd"):
        raise click.UsageError(f"--kind: {options['kind']} needs --segmenter and --method=sgd, without --shots")
    _refuse_useless(annotations, options)
    if options["loss"] == "normallayer" and not hasattr(KINDS[options["kind"]], "layer_logits"):
        raise click.UsageError("--loss: normallayer is for extractors with logits of each layer, LSE and NSE-1")
    device = choose_device(device)
    G = open_generator(network, device, trust_pickle)
    layers = options["layers"].split(",") if options["layers"] else None
    _opened(FeatureHooks, "--network", G)
    _opened(FeatureHooks, "--layers", G, layers)
    source = segmenter or annotations
    if annotations is not None:
        labelled = _opened(read_annotations, "--annotations", annotations, G, options["trunc"])
        if labelled.missing():
            print(f"No pixel shows {', '.join(labelled.missing())}; they will not be found.")
    else:
        labeller = _opened(open_segmenter, "--segmenter", segmenter, device)
        if few:
            wanted = (options["shots"], options["seed"], options["trunc"])
            labelled = _opened(annotate, "--segmenter", G, labeller, *wanted)
    try:
        if few:
            extractor = _train_few(G, labelled, layers, options)
        else:
            extractor = _train_many(G, labeller, layers, dest, options)
    except ValueError as error:
        said = "" if str(error).startswith("--") else "--segmenter: " if segmenter else "--annotations: "
        raise click.UsageError(f"{said}{error}") from error
    about = {name: options[name] for name in ("method", "samples", "shots", "trunc", "seed", "loss", "latents")}
    save_extractor(dest, extractor, network=str(network), source=str(source), **about)
    print(dest)


def _refuse_useless(annotations, options):
    """click.UsageError for an option that the others leave without effect"""
    if annotations is not None:
        refuse_given(["--shots"], "with --annotations")
    if annotations is not None or options["shots"] is not None:
        refuse_given(["--samples", "--latents"], "on images that are annotated")
    if options["method"] != "sgd":
        refuse_given(["--loss", "--latents"], "without --method=sgd")


def _train_few(G, labelled, layers, options):
    if options["method"] == "sgd":
        return train_few_shot(G, labelled, layers, options["loss"], seed=options["seed"])
    return closed_form.fit_annotations(G, labelled, layers, method=options["method"], seed=options["seed"])


def _train_many(G, labeller, layers, dest, options):
    shared = dict(truncation_psi=options["trunc"], seed=options["seed"])
    if options["method"] != "sgd":
        return closed_form.fit(G, labeller, layers, options["samples"] or 2000, method=options["method"], **shared)
    torch.manual_seed(options["seed"])
    extractor = KINDS[options["kind"]].of(G, labeller.classes, layers).to(next(G.parameters()).device)
    Path(dest).resolve().parent.mkdir(parents=True, exist_ok=True)
    shared |= dict(loss=options["loss"], latents=options["latents"], state_path=f"{dest}.state")
    training.train(G, [extractor], labeller, options["samples"] or training.SAMPLES, **shared)
    return extractor.eval().requires_grad_(False)


# ---------------------------------------------------------------------------------------------------------------------
# eval


@semantics.command("eval", cls=Command)
@generator_options
@click.option(
    "--extractor", "extractors", required=True, multiple=True, metavar="FILE", help="Extractor; repeat it to compare"
)
@click.option("--segmenter", required=True, metavar="PATH", help=_SEGMENTER)
@click.option(
    "--samples", type=click.IntRange(1), default=evaluation.SAMPLES, show_default=True, help="Images to judge by"
)
@_TRUNC
@click.option("--outdir", type=OutputDir(), required=True, metavar="DIR", help="Where to write tables and pictures")
def evaluate(network, trust_pickle, device, extractors, segmenter, samples, trunc, outdir):
    """Measure extractors against a segmenter: a table of classes, scores.json, examples.png."""
    device = choose_device(device)
    G = open_generator(network, device, trust_pickle)
    alone = len({Path(path).stem for path in extractors}) == len(extractors)
    opened = {
        Path(path).stem if alone else path: _opened(open_extractor, "--extractor", path, G) for path in extractors
    }
    labeller = _opened(open_segmenter, "--segmenter", segmenter, device)
    tables = _opened(lambda: evaluation.evaluate(G, list(opened.values()), labeller, samples, trunc), "--extractor")
    tables = dict(zip(opened, tables))
    outdir = Path(outdir)
    outdir.mkdir(parents=True, exist_ok=True)
    protocol = dict(network=str(network), segmenter=labeller.name, samples=samples, truncation_psi=trunc)
    evaluation.write_tables(outdir / "scores.json", tables, resolution=G.img_resolution, **protocol)
    write_atomically(outdir / "scores.md", lambda file: file.write(f"{evaluation.markdown(tables)}\n".encode()))
    save_picture(evaluation.draw_examples(G, opened, labeller, truncation_psi=trunc), outdir / "examples.png")
    print(evaluation.markdown(tables))
    print(outdir / "examples.png")


# ---------------------------------------------------------------------------------------------------------------------
# sample


@semantics.command(cls=Command)
@generator_options
@_EXTRACTOR
@click.option("--target", metavar="PNG", help="Label map: a class index a pixel, 255 where anything goes")
@click.option("--target-seed", type=SEED, metavar="SEED", help="… or the label map of a seed's image")
@click.option("--count", type=click.IntRange(1), default=10, show_default=True, help="How many images")
@click.option("--method", type=OneOf(["improved", "published"]), default="improved", show_default=True, help="How")
@click.option("--steps", type=click.IntRange(1), default=50, show_default=True, help="Steps of the optimisation")
@click.option("--seed", type=SEED, default=0, show_default=True, help="Of the random latents")
@click.option(
    "--detector", default="pixel-pyramid", show_default=True, metavar="NAME", help="Tells how diverse they are"
)
@click.option(
    "--outdir", type=OutputDir(), required=True, metavar="DIR", help="Where to write images, latents and sample.json"
)
def sample(network, trust_pickle, device, extractor, target, target_seed, outdir, **options):
    """Make images of a given layout."""
    if (target is None) == (target_seed is None):
        raise click.UsageError("--target: give a label map, or --target-seed, one of the two")
    device = choose_device(device)
    G = open_generator(network, device, trust_pickle)
    extractor = _opened(open_extractor, "--extractor", extractor, G)
    features = _opened(perceptual_features, "--detector", options["detector"], device)
    if target is not None:
        wanted = _opened(read_label_map, "--target", target, G.img_resolution)
    else:
        with cached_weights.enabled():
            images, seen = FeatureHooks(G, extractor.layers)(
                draw_ws(G, 1, target_seed, truncation_psi=0.7), noise_mode="const"
            )
            wanted = extractor.labels(seen, images.shape[-1])[0]
    found = _opened(_sample, "--target", G, extractor, wanted, options)
    outdir = Path(outdir)
    outdir.mkdir(parents=True, exist_ok=True)
    for i, picture in enumerate(to_pictures(found.images)):
        save_picture(picture, outdir / f"sample{i:02d}.png")
    save_picture(evaluation.draw_labels(wanted), outdir / "target.png")
    write_atomically(outdir / "ws.npz", lambda file: np.savez(file, w=found.ws.cpu().numpy()))
    report = dict(agreement=found.agreement.tolist(), mean_agreement=found.agreement.mean().item())
    report |= dict(diversity=sampling.diversity(found.images, features), **options | dict(detector=features.name))
    write_atomically(outdir / "sample.json", lambda file: file.write(json.dumps(report, indent=1).encode()))
    print(f"agreement (mean IoU) {report['mean_agreement']:.3f}, diversity ({features.name}) {report['diversity']:.3f}")
    print(outdir)


def _sample(G, extractor, wanted, options):
    count, steps, seed = options["count"], options["steps"], options["seed"]
    if options["method"] == "published":
        return sampling.published(G, extractor, wanted, count, steps=steps, seed=seed)
    pool = sampling.Pool(G, extractor, max(100 * count, 1000), seed)
    return sampling.sample(G, extractor, wanted, count, pool, steps)


# ---------------------------------------------------------------------------------------------------------------------
# edit


@semantics.command(cls=Command)
@generator_options
@_EXTRACTOR
@click.option("--seed", type=SEED, help="The image to edit")
@click.option("--projected-w", metavar="FILE", help="… or the first w of an .npz of projector.py")
@click.option("--trunc", type=float, default=1, show_default=True, help="Truncation psi of the seed")
@click.option("--labels", metavar="PNG", help="Label strokes: a class index a pixel, 255 where nothing is painted")
@click.option("--colours", metavar="PNG", help="Colour strokes: a picture that is transparent elsewhere")
@click.option("--method", type=OneOf(["improved", "published"]), default="improved", show_default=True, help="How")
@click.option("--steps", type=click.IntRange(1), default=50, show_default=True, help="Steps of the optimisation")
@click.option(
    "--outdir",
    type=OutputDir(),
    required=True,
    metavar="DIR",
    help="Where to write the images, their labels and ws.npz",
)
def edit(network, trust_pickle, device, extractor, seed, projected_w, trunc, labels, colours, method, steps, outdir):
    """Change an image by painting classes or colours on it."""
    if labels is None and colours is None:
        raise click.UsageError("--labels: paint something: give label strokes, or colour strokes with --colours")
    if (seed is None) == (projected_w is None):
        raise click.UsageError("--seed: give the seed of an image, or --projected-w, one of the two")
    if projected_w is not None:
        refuse_given(["--trunc"], "on ws that are given")
    if method == "published" and seed is None:
        raise click.UsageError("--method: the published editor moves z, which only a --seed has")
    device = choose_device(device)
    G = open_generator(network, device, trust_pickle)
    extractor = _opened(open_extractor, "--extractor", extractor, G)
    painted = torch.full([G.img_resolution] * 2, IGNORED)
    if labels is not None:
        painted = _opened(read_label_map, "--labels", labels, G.img_resolution)
    shown = [each.to(device) for each in _opened(read_colours, "--colours", colours, G)] if colours else [None, None]
    strokes = painting.Strokes(painted[None].to(device), *shown)
    option = "--labels" if labels else "--colours"
    if method == "published":
        z = seed_latents(G, [seed], device).float()
        done = _opened(lambda: painting.published(G, extractor, z, strokes, steps), option)
    else:
        ws = load_ws(G, projected_w, device)[:1] if projected_w else draw_ws(G, 1, seed, truncation_psi=trunc)
        done = _opened(lambda: painting.edit(G, extractor, ws, strokes, steps), option)
    outdir = Path(outdir)
    outdir.mkdir(parents=True, exist_ok=True)
    for name, images in (("before", done.before), ("after", done.after)):
        save_picture(to_pictures(images)[0], outdir / f"{name}.png")
    save_picture(evaluation.draw_labels(done.labels[0]), outdir / "labels.png")
    write_atomically(outdir / "ws.npz", lambda file: np.savez(file, w=done.ws.cpu().numpy()))
    report = dict(in_strokes=done.agreement.item(), off_region=done.off_region.item(), method=method, steps=steps)
    text = json.dumps({k: None if v != v else v for k, v in report.items()}, indent=1)
    write_atomically(outdir / "edit.json", lambda file: file.write(text.encode()))
    if labels is not None:
        print(f"{100 * report['in_strokes']:.0f} % of the label strokes have their class")
    print(f"mean change outside the strokes: {report['off_region']:.2f} of 255")
    print(outdir / "after.png")
