"""Makes images with a trained generator: `python generate.py --network=PKL --seeds=0-35 --outdir=out`."""

import os

import click

from runs.launch import choose_device
from runs.options import Numbers, command, network_options, open_generator, refuse_given
from torch_utils import cached_weights
from training.images import save_picture, to_pictures
from training.latents import class_label, load_ws, seed_latents


@command()
@network_options
@click.option("--seeds", type=Numbers(), help="Random seeds, as 0,5,10-20")
@click.option("--trunc", "truncation_psi", type=float, default=1, show_default=True, help="Truncation psi")
@click.option("--class", "class_idx", type=int, help="Class label of a conditional network")
@click.option("--projected-w", metavar="FILE", help="Use the ws in an .npz of projector.py instead of seeds")
@cached_weights.enabled()
def main(network, trust_pickle, noise_mode, outdir, device, seeds, truncation_psi, class_idx, projected_w):
    """Generate images with a trained network: one PNG a seed."""
    if (seeds is None) == (projected_w is None):
        raise click.UsageError("--seeds: give the seeds to use, or --projected-w, one of the two")
    if projected_w is not None:
        refuse_given(["--trunc", "--class"], "on ws that are given")
    device = choose_device(device)
    G = open_generator(network, device, trust_pickle)
    if projected_w is not None:
        ws = load_ws(G, projected_w, device)
        os.makedirs(outdir, exist_ok=True)
        for i, w in enumerate(ws):
            image = G.synthesis(w[None], noise_mode=noise_mode)
            save_picture(to_pictures(image)[0], os.path.join(outdir, f"proj{i:02d}.png"))
        return
    label = class_label(G, class_idx, 1, device)
    os.makedirs(outdir, exist_ok=True)
    for i, seed in enumerate(seeds):
        print(f"Generating image for seed {seed} ({i + 1}/{len(seeds)}) ...")
        z = seed_latents(G, [seed], device)
        image = G(z, label, truncation_psi=truncation_psi, noise_mode=noise_mode)
        save_picture(to_pictures(image)[0], os.path.join(outdir, f"seed{seed:04d}.png"))


if __name__ == "__main__":
    main()
