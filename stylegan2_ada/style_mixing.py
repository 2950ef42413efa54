"""Mixes styles: the coarse layers of one image with the fine layers of another, in a grid."""

import os

import click
import numpy as np
import PIL.Image

from runs.launch import choose_device
from runs.options import Numbers, command, network_options, open_generator
from torch_utils import cached_weights
from training.images import save_picture, to_pictures
from training.latents import class_label, seed_latents


@command()
@network_options
@click.option("--rows", "row_seeds", type=Numbers(), required=True, help="Seeds of the rows' images")
@click.option("--cols", "col_seeds", type=Numbers(), required=True, help="Seeds of the columns' images")
@click.option("--styles", type=Numbers(), default="0-6", show_default=True, help="Layers that take the column's w")
@click.option("--trunc", "truncation_psi", type=float, default=1, show_default=True, help="Truncation psi")
@click.option("--class", "class_idx", type=int, help="Class label of a conditional network")
@cached_weights.enabled()
def main(network, trust_pickle, noise_mode, outdir, device, row_seeds, col_seeds, styles, truncation_psi, class_idx):
    """Generate a grid of style mixes: each image has its row's w but for --styles, which have its column's."""
    device = choose_device(device)
    G = open_generator(network, device, trust_pickle)
    given = click.get_current_context().get_parameter_source("styles") is not click.core.ParameterSource.DEFAULT
    if given and max(styles) >= G.num_ws:
        raise click.UsageError(f"--styles: this network has the layers 0 to {G.num_ws - 1}")
    if not given and max(styles) >= G.num_ws - 2:  # hardly anything but the columns' images would show
        styles = range(G.num_ws // 2)
        print(f"This network has {G.num_ws} layers; the coarse half is mixed, --styles=0-{styles[-1]}.")

    seeds = list(dict.fromkeys([*row_seeds, *col_seeds]))
    label = class_label(G, class_idx, len(seeds), device)
    ws = G.mapping(seed_latents(G, seeds, device), label, truncation_psi=truncation_psi)
    ws = dict(zip(seeds, ws))  # seed → [num_ws, w_dim]

    mixed = {}
    for row in row_seeds:
        for col in col_seeds:
            mixed[row, col] = ws[row].clone()
            mixed[row, col][styles] = ws[col][styles]
    mixed |= {(seed, seed): w for seed, w in ws.items()}

    os.makedirs(outdir, exist_ok=True)
    pictures = {}
    for key, w in mixed.items():
        pictures[key] = to_pictures(G.synthesis(w[None], noise_mode=noise_mode))[0]
        save_picture(pictures[key], os.path.join(outdir, f"{key[0]}-{key[1]}.png"))
    save_picture(_grid(pictures, row_seeds, col_seeds), os.path.join(outdir, "grid.png"))


def _grid(pictures, row_seeds, col_seeds):
    """The mixes, with the columns' images above and the rows' images at the left."""
    blank = np.zeros_like(np.asarray(next(iter(pictures.values()))))
    rows = [[blank, *(np.asarray(pictures[seed, seed]) for seed in col_seeds)]]
    for row in row_seeds:
        rows.append([np.asarray(pictures[key]) for key in [(row, row), *((row, col) for col in col_seeds)]])
    return PIL.Image.fromarray(np.concatenate([np.concatenate(row, axis=1) for row in rows], axis=0))


if __name__ == "__main__":
    main()
