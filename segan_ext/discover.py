"""Subspaces for a generator that was trained without any, in closed form.

SeFa (Shen and Zhou 2021): eigenvectors of AᵀA, A being the affine weights of a style layer, rows scaled to unit length.
PCA over w, or per layer over features with a regression back to w (GANSpace, Härkönen et al. 2020).

The result is a generator of mode 2 in residual form, whose untouched images are the source's bit for bit, so that every
tool for trained subspaces works on it.
"""

import pickle

import click
import torch

from segan_ext import host

host.activate()

import exported  # noqa: E402 (the host has to be on the path)
import legacy  # noqa: E402
from atomic import write_atomically  # noqa: E402
from generate import generator_options  # noqa: E402
from launch import choose_device  # noqa: E402
from segan_ext.moves import random_w  # noqa: E402
from segan_ext.networks import SEGANGenerator, style_layers  # noqa: E402
from torch_utils import misc  # noqa: E402


@torch.no_grad()
def sefa(G, layers=None):
    """{(L, N): (directions [w_dim, w_dim], eigenvalues [w_dim])}, the strongest first, columns of unit length.

    layers: lists of addresses [(L, N), …] that share their directions; None: each layer for itself. Layers that no list
    names are left out.
    """
    affines = {address: getattr(block, name).affine for address, block, name in style_layers(G.synthesis)}
    found = {}
    for group in [[address] for address in affines] if layers is None else layers:
        A = torch.cat([affines[address].weight.double().cpu() for address in group])
        check_finite(A)
        A = A / A.norm(dim=1, keepdim=True).clamp(min=1e-12)
        values, vectors = torch.linalg.eigh(A.t() @ A)
        found |= dict.fromkeys(group, (vectors.flip(1), values.flip(0)))
    return found


def check_finite(*tensors):
    """ValueError for tensors from which no directions can be computed"""
    if not all(tensor.isfinite().all() for tensor in tensors):
        raise ValueError("its weights are not all finite numbers")


@torch.no_grad()
def pca_of_w(G, samples=10000, seed=0):
    """(directions [w_dim, w_dim], deviations [w_dim]) of w over random latents, the widest first."""
    w = random_w(G, samples, seed).double().cpu()
    check_finite(w)
    _, deviations, directions = torch.linalg.svd(w - w.mean(dim=0), full_matrices=False)
    return directions.t(), deviations / (samples - 1) ** 0.5


@torch.no_grad()
def pca_of_features(G, dims, samples=512, seed=0, batch=16):
    """{(L, N): (directions [w_dim, dims], deviations [dims])} of what each style layer puts out.

    The principal components of the features (averaged down to 16×16, which bounds the memory), each mapped back to w by
    least squares; then made orthonormal in their order, since a subspace's coordinates are projections.
    """
    w = random_w(G, samples, seed)
    features = {address: [] for address, _, _ in style_layers(G.synthesis)}

    def keep(kept):
        pooled = lambda y: torch.nn.functional.avg_pool2d(y, max(y.shape[-1] // 16, 1))
        return lambda _layer, _args, y: kept.append(pooled(y.float()).flatten(1).cpu())

    hooks = [
        getattr(block, name).register_forward_hook(keep(features[address]))
        for address, block, name in style_layers(G.synthesis)
    ]
    grams = {}
    try:
        for part in w.split(batch):
            G.synthesis(part[:, None].expand(-1, G.num_ws, -1), noise_mode="const")
    finally:
        for hook in hooks:
            hook.remove()
    for address, parts in features.items():
        y = torch.cat(parts)
        parts.clear()
        y -= y.mean(dim=0)
        grams[address] = (y @ y.t()).double()  # [samples, samples]: its eigenvectors are the components' coordinates
    return {address: _regressed(gram, w.double().cpu(), dims) for address, gram in grams.items()}


def _regressed(gram, w, dims):
    """(directions [w_dim, dims], deviations [dims]) from a Gram matrix of centred features and the w behind them"""
    check_finite(gram, w)
    values, vectors = torch.linalg.eigh(gram)
    coordinates = vectors.flip(1)[:, :dims] * (len(w) - 1) ** 0.5  # of unit variance
    directions = torch.linalg.lstsq(coordinates, w - w.mean(dim=0)).solution.t()  # [w_dim, dims]
    orthonormal, upper = torch.linalg.qr(directions)
    deviations = (values.flip(0)[:dims].clamp(min=0) / (len(w) - 1)).sqrt()
    return orthonormal * upper.diagonal().sign(), deviations


def host_kwargs(G):
    """The host's part of the arguments that a generator, with or without subspaces, was made with"""
    ours = ("mode", "subspace_dim", "subspace_form", "subspace_init", "trained")
    return {name: value for name, value in G.init_kwargs.items() if name not in ours}


@torch.no_grad()
def with_directions(G, directions, dims):
    """A generator of mode 2 in residual form with G's weights and, at each (L, N), the first `dims` directions.

    directions: {(L, N): [w_dim, ≥ dims]}; a layer that is not there gets w's own axes. Without edits its images are G's
    bit for bit. ValueError if G has subspaces already, or for dims out of range.
    """
    if getattr(G, "mode", 0) != 0:
        raise ValueError(f"this generator has subspaces of mode {G.mode} already; nothing needs to be discovered")
    if not 1 <= dims <= G.w_dim:
        raise ValueError(f"dims must lie between 1 and w_dim = {G.w_dim}, not {dims}")
    found = SEGANGenerator(*G.init_args, **host_kwargs(G), mode=2, subspace_dim=dims, subspace_init="identity")
    found = found.eval().requires_grad_(False).to(next(G.parameters()).device)
    misc.copy_params_and_buffers(G, found)
    for address, subspace in found.subspaces().items():
        U = directions.get(address, torch.eye(G.w_dim))[:, :dims]
        subspace.U.copy_(U / subspace.gain)
    return found


def parse_layers(text, addresses):
    """Groups of addresses for a text such as 0-3,4-7: numbers of style layers in order of use, 0 the first.

    'each': every layer for itself. 'all': one group. ValueError for a number that is none.
    """
    if text == "each":
        return [[address] for address in addresses]
    groups = []
    for part in f"0-{len(addresses) - 1}".split(",") if text == "all" else text.split(","):
        first, _, last = part.strip().partition("-")
        if not first.isdigit() or not (last or first).isdigit():
            raise ValueError(f"{part!r} is no range of layers; write each, all, or 0-3,4-7")
        numbers = range(int(first), int(last or first) + 1)
        if not len(numbers) or numbers[-1] >= len(addresses):
            raise ValueError(f"{part}: this generator has style layers 0 to {len(addresses) - 1}")
        groups.append([addresses[i] for i in numbers])
    return groups


# ---------------------------------------------------------------------------------------------------------------------
# Command


@click.command()
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
        exported.save_generator(found, dest)
    else:
        data = dict(snapshot, G=found, G_ema=found)
        write_atomically(dest, lambda file: pickle.dump(data, file))
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
