"""`segan discover`."""

import click

from runs.launch import choose_device
from runs.options import command, generator_options, usage_errors
from segan_ext.directions import FINDERS, find_directions
from snapshots.load import load_snapshot
from snapshots.safetensors import save_safetensors
from snapshots.save import save_snapshot


@command()
@generator_options
@click.option(
    "--method",
    type=click.Choice(list(FINDERS)),
    default="sefa",
    show_default=True,
    help="What the directions are: SeFa's, or principal components of w, or of each layer's features",
)
@click.option("--layers", default="each", show_default=True, metavar="RANGES", help="For sefa: each, all, or 0-3,4-7")
@click.option("--dims", type=click.IntRange(1), help="Directions a layer  [default: 32, w_dim at most]")
@click.option("--samples", type=click.IntRange(2), help="Latents of pca  [default: 10000, of pca-features 512]")
@click.option("--seed", type=int, default=0, show_default=True, help="Seed of those latents")
@click.option("--dest", required=True, metavar="PKL", help="Where to write the generator, .pkl or .safetensors")
def discover(network, trust_pickle, device, method, layers, dims, samples, seed, dest):
    """Give a trained generator subspaces in closed form, for explore, edit and the page."""
    device = choose_device(device)
    if not dest.endswith((".pkl", ".safetensors")):
        raise click.UsageError(f"--dest: {dest} must end in .pkl or .safetensors")
    if dest.endswith(".pkl") and network.endswith(".safetensors"):
        raise click.UsageError("--dest: an export holds no discriminator for a .pkl; name a .safetensors")
    print(f"Loading networks from {network}...")
    with usage_errors("--network"):
        snapshot = load_snapshot(network, trust_pickle)
    G = snapshot["G_ema"].to(device)
    try:
        found, strengths = find_directions(G, method, dims, layers, samples, seed)
        found = found.cpu()
    except ValueError as error:
        option = next((name for name in ("samples", "layers") if name in str(error)), "network")
        raise click.UsageError(f"--{option}: {error}") from error
    for (L, N), values in strengths.items():
        print(f"L{L}.N{N}: " + " ".join(f"{value:.3g}" for value in values[:8].tolist()))
    if dest.endswith(".safetensors"):
        save_safetensors(found, dest)
    else:
        save_snapshot(dest, dict(snapshot, G=found, G_ema=found))
    print(dest)
