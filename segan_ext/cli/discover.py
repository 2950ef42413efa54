"""`segan discover`."""

import click
from tqdm import tqdm

from runs.launch import choose_device
from runs.options import SEED, OneOf, OutputFile, command, generator_options, refuse_given, usage_errors
from segan_ext.directions import FINDERS, check_samples, find_directions
from segan_ext.directions.named import (
    STEPS,
    TELLABLE,
    as_editable,
    find_named,
    is_table,
    labels_of_seeds,
    scores_of,
    scores_of_labels,
    with_named,
)
from segan_ext.directions.subspaces import check_plain, number_of_dims, parse_layers
from segan_ext.latents import chosen_class
from segan_ext.layers import FeatureHooks
from segan_ext.metrics.labels import summary
from segan_ext.networks import style_layers
from snapshots import hub
from snapshots.load import load_snapshot
from snapshots.safetensors import check_destination, save_safetensors
from snapshots.save import save_snapshot


@command()
@generator_options
@click.option(
    "--method",
    type=OneOf([*FINDERS, "labels"]),
    default="sefa",
    show_default=True,
    help="What the directions are: SeFa's; principal or independent components of w; principal components of each "
    "layer's features; of its Jacobian, rotated; or one with a name for each attribute of --labels",
)
@click.option("--labels", metavar="PATH", help="CSV of labelled seeds, data with known attributes, or a classifier")
@click.option("--names", metavar="NAME,…", help="Of these attributes only  [default: all that can be told]")
@click.option("--hold", metavar="NAME,…", help="What must not change  [default: every other attribute]")
@click.option("--steps", type=click.IntRange(0), default=STEPS, show_default=True, help="Gradient steps a name")
@click.option("--class", "class_idx", type=int, help="Class of the labelled seeds  [default: 0]")
@click.option("--layers", default="each", show_default=True, metavar="RANGES", help="For sefa: each, all, or 0-3,4-7")
@click.option("--dims", type=click.IntRange(1), help="Directions a layer  [default: 32, w_dim at most]")
@click.option(
    "--samples", type=click.IntRange(2), help="Latents [default: 10000 of pca and ica, pca-features 512, varimax 32]"
)
@click.option("--seed", type=SEED, default=0, show_default=True, help="Seed of those latents")
@click.option(
    "--dest",
    type=OutputFile(".pkl", ".safetensors"),
    required=True,
    metavar="PKL",
    help="Where to write the generator, .pkl or .safetensors",
)
def discover(network, trust_pickle, device, method, layers, dims, samples, seed, dest, **naming):
    """Find directions in a trained generator, for explore, edit and the page: per layer, or with names."""
    device = choose_device(device)
    if dest.lower().endswith(".pkl") and hub.is_export(network):
        raise click.UsageError("--dest: an export holds no discriminator for a .pkl; name a .safetensors")
    if (method == "labels") != (naming["labels"] is not None):
        raise click.UsageError("--labels: --method=labels and --labels=PATH go together")
    _refuse_useless(method)
    if dest.lower().endswith(".safetensors"):
        with usage_errors("--dest"):
            check_destination(dest)
    print(f"Loading networks from {network}...")
    with usage_errors("--network"):
        snapshot = load_snapshot(network, trust_pickle)
    G = snapshot["G_ema"].to(device)
    found = _named(G, seed, **naming) if method == "labels" else _unnamed(G, method, dims, layers, samples, seed)
    if dest.lower().endswith(".safetensors"):
        save_safetensors(found, dest)
    else:
        save_snapshot(dest, dict(snapshot, G=found, G_ema=found))
    print(dest)


def _refuse_useless(method):
    """click.UsageError for an option that the method leaves without effect"""
    if method == "labels":
        refuse_given(["--layers", "--dims", "--samples"], "with --method=labels")
    else:
        refuse_given(["--names", "--hold", "--steps", "--class"], f"with --method={method}")
    if method != "sefa":
        refuse_given(["--layers"], f"with --method={method}")
    else:
        refuse_given(["--samples", "--seed"], "with --method=sefa, which looks at weights alone")


def _unnamed(G, method, dims, layers, samples, seed):
    with usage_errors("--network"):
        check_plain(G)
    with usage_errors("--dims"):
        dims = number_of_dims(G, dims)
    with usage_errors("--samples"):
        check_samples(method, dims, samples)
    with usage_errors("--layers"):
        parse_layers(layers, [address for address, _, _ in style_layers(G.synthesis)])
    try:
        found, strengths = find_directions(G, method, dims, layers, samples, seed)
    except (OSError, ValueError) as error:  # OSError: a library that the method needs is missing
        raise click.UsageError(f"--{'method' if isinstance(error, OSError) else 'network'}: {error}") from error
    for (L, N), values in strengths.items():
        print(f"L{L}.N{N}: " + " ".join(f"{value:.3g}" for value in values[:8].tolist()))
    return found.cpu()


def _scores(G, path, class_idx):
    if not is_table(path):
        return scores_of(G, path, class_idx)
    labels = labels_of_seeds(path)
    print(f"{len(labels.keys)} images are labelled:")
    for line in summary(labels.attributes, labels.rows):
        print(f"  {line}")
    return scores_of_labels(G, labels, class_idx)


def _named(G, seed, labels, names, hold, steps, class_idx):
    with usage_errors("--network"):
        FeatureHooks(G)
        G = as_editable(G)
    class_idx = chosen_class(G, class_idx)
    with usage_errors("--labels"):
        scores, source = _scores(G, labels, class_idx)
    skill, chosen = scores.read.skill, {}
    for option, text in (("names", names), ("hold", hold)):
        chosen[option] = None if text is None else list(dict.fromkeys(name.strip() for name in text.split(",")))
        for name in chosen[option] or []:
            if name not in skill:
                raise click.UsageError(f"--{option}: {name} is no attribute of {labels}; it has {', '.join(skill)}")
    asked_for = [name for names in chosen.values() for name in names or []]
    known = [name for name, value in skill.items() if value >= TELLABLE or name in asked_for]
    for name in skill.keys() - set(known):
        print(f"{name} can hardly be told from these labels (skill {skill[name]:.2f}), and is left out.")
    if not known:
        raise click.UsageError(f"--labels: no attribute can be told from {labels}; label more images")
    both = set(chosen["names"] or []) & set(chosen["hold"] or [])
    if both:
        raise click.UsageError(f"--hold: {min(both)} is to be moved, by --names; name others")
    bar = lambda turns: tqdm(turns, desc="Refining", unit="step", disable=None)
    chosen["names"] = chosen["names"] or known
    found = find_named(G, scores, **chosen, steps=steps, seed=seed, source=source, count=bar)
    for each in found:
        print(f"{each.name}: from {each.low:+.1f} to {each.high:+.1f}; {each.said()}")
    return with_named(G, found).cpu()
