"""`segan discover`."""

import click

import legacy
from runs.launch import choose_device
from runs.options import command, generator_options
from segan_ext.directions.pca import pca_of_features, pca_of_w
from segan_ext.directions.sefa import sefa
from segan_ext.directions.subspaces import parse_layers, with_directions
from segan_ext.networks import style_layers
from snapshots.safetensors import save_safetensors
from snapshots.save import save_snapshot


@command()
@generator_options
@click.option(
    "--method",
    type=click.Choice(["sefa", "pca", "pca-features"]),
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
    try:
        snapshot = legacy.load_snapshot(network, trust_pickle)
    except (OSError, ValueError) as error:
        raise click.UsageError(f"--network: {error}") from error
    G = snapshot["G_ema"].to(device)
    dims = min(32, G.w_dim) if dims is None else dims
    try:
        directions, strengths = _directions(G, method, layers, dims, samples, seed)
        found = with_directions(G, directions, dims).cpu()
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


def _directions(G, method, layers, dims, samples, seed):
    """({(L, N): directions}, {(L, N): their eigenvalues or deviations})"""
    addresses = [address for address, _, _ in style_layers(G.synthesis)]
    if samples is not None and samples <= dims:
        raise ValueError(f"{samples} latents do not tell {dims} directions; take more with --samples")
    if method == "sefa":
        found = sefa(G, parse_layers(layers, addresses))
    elif method == "pca":
        found = dict.fromkeys(addresses, pca_of_w(G, samples or 10000, seed))
    else:
        found = pca_of_features(G, dims, samples or 512, seed)
    return tuple({address: pair[i] for address, pair in found.items()} for i in (0, 1))
