"""Compares directions in one generator: its own subspaces, SeFa, PCA, and chance, by purity, effect and overlap.

`python benchmarks/directions.py --network=SNAPSHOT --attributes=avatars.zip`, a snapshot of mode 2 or 3. All of them
are measured on the same images: the subspaces are folded into the affines of a plain generator, which is given each
method's directions in turn.
"""

import sys
from pathlib import Path

import click
import torch

sys.path[:0] = [str(Path(__file__).resolve().parents[1])]

from segan_ext.atlas.atlas import make_atlas  # noqa: E402
from segan_ext.cli.edit import load_editable  # noqa: E402
from segan_ext.directions import pca, sefa, subspaces  # noqa: E402
from segan_ext.metrics import attributes, purity  # noqa: E402
from segan_ext.networks import style_layers  # noqa: E402
from torch_utils import misc  # noqa: E402
from training import networks  # noqa: E402


@torch.no_grad()
def without_subspaces(G):
    """The host's generator that makes G's images: w' = M w + m of a subspace becomes part of the affine behind it."""
    plain = networks.Generator(*G.init_args, **subspaces.host_kwargs(G)).eval().requires_grad_(False)
    misc.copy_params_and_buffers(G, plain)
    targets = {address: getattr(block, name).affine for address, block, name in style_layers(plain.synthesis)}
    for address, subspace in G.subspaces().items():
        affine, m = targets[address], subspace(torch.zeros(1, G.w_dim))
        M = subspace(torch.eye(G.w_dim)) - m  # row i: what coordinate i of w adds
        affine.bias.add_((affine.weight * affine.weight_gain @ m[0]) / affine.bias_gain)
        affine.weight.copy_(affine.weight @ M.t())
    return plain


@click.command()
@click.option("--network", required=True, metavar="PKL", help="Snapshot of mode 2 or 3")
@click.option("--attributes", "source", required=True, metavar="PATH", help="Data with known attributes")
@click.option("--top", type=int, default=40, show_default=True, help="Strongest dimensions to compare")
def main(network, source, top):
    G = load_editable(network, "cpu")
    predictor = attributes.open_predictor(source)
    plain, addresses = without_subspaces(G), list(G.subspaces())
    z = torch.randn(4, G.z_dim, generator=torch.Generator().manual_seed(0))
    difference = (plain(z, None, noise_mode="const") - G(z, None, noise_mode="const")).abs().max().item()
    chance = torch.linalg.qr(torch.randn(G.w_dim, G.w_dim, generator=torch.Generator().manual_seed(0)))[0]
    given = {
        "SeFa, each layer": {a: d for a, (d, _) in sefa.sefa(plain).items()},
        "PCA of w": dict.fromkeys(addresses, pca.pca_of_w(plain)[0]),
        "PCA of features": {a: d for a, (d, _) in pca.pca_of_features(plain, G.w_dim).items()},
        "chance": dict.fromkeys(addresses, chance),
    }
    print(f"The plain generator differs by {difference:.1e}. Attributes: {', '.join(predictor.reliable())}.\n")
    columns = ["purity of all", f"purity of the {top} strongest", "their effect, of 255", "likeness to a stronger one"]
    print(f"| directions | {' | '.join(columns)} |")
    print("| --- | --- | --- | --- | --- |")
    for name in ("own subspaces", *given):
        of = G if name not in given else subspaces.with_directions(plain, given[name], G.w_dim)
        entries = make_atlas(of, seeds=range(8), predictor=predictor)
        strongest = entries[:top]
        effect = 127.5 * sum(e.effect for e in strongest) / len(strongest)
        likeness = sum(abs(e.like[1]) for e in strongest[1:]) / (len(strongest) - 1)
        overall = [purity.overall([e.purity for e in some]) for some in (entries, strongest)]
        print(f"| {name} | {overall[0]:.3f} | {overall[1]:.3f} | {effect:.1f} | {likeness:.2f} |", flush=True)


if __name__ == "__main__":
    main()
