"""Finds the w whose image is nearest to a picture: `python projector.py --network=PKL --target=face.png --outdir=out`.

The method of StyleGAN2, appendix D: Adam on one w for all layers and on the noise images, a learning rate that ramps up
and down, noise on w that fades, and a penalty that keeps the noise images free of the picture.
"""

import os

import runs  # noqa: F401  isort: skip (before PyTorch)
import click
import numpy as np
import PIL.Image
import torch

from metrics.perceptual import perceptual_features
from runs.launch import choose_device
from runs.options import SEED, OutputDir, command, generator_options, open_generator, usage_errors
from runs.outputs import check_inputs_stay
from snapshots.atomic import write_atomically
from training.images import save_picture, to_pictures, to_uint8
from training.images import save_video as write_video
from training.latents import class_label
from training.projection import open_target, project, psnr

_WRITTEN = ("target.png", "proj.png", "projected_w.npz", "proj.mp4")


@command()
@generator_options
@click.option("--target", required=True, metavar="FILE", help="Picture to project")
@click.option("--num-steps", type=click.IntRange(1), default=1000, show_default=True, help="Steps of the optimizer")
@click.option("--seed", type=SEED, default=303, show_default=True, help="Random seed")
@click.option("--save-video", type=bool, default=True, show_default=True, help="Save an MP4 of the progress")
@click.option("--class", "class_idx", type=int, help="Class label of a conditional network")
@click.option("--detector", metavar="PATH", help="TorchScript file to compare images with, or pixel-pyramid")
@click.option("--outdir", type=OutputDir(), required=True, metavar="DIR", help="Where to save the results")
def main(network, trust_pickle, device, target, num_steps, seed, save_video, class_idx, detector, outdir):
    """Project a picture into W: writes target.png, proj.png, projected_w.npz and proj.mp4."""
    torch.manual_seed(seed)
    with usage_errors("--outdir"):
        check_inputs_stay([target], [os.path.join(outdir, name) for name in _WRITTEN])
    device = choose_device(device)
    G = open_generator(network, device, trust_pickle)
    label = class_label(G, class_idx, 1, device)
    with usage_errors("--target"):
        pixels = open_target(target, G)
    with usage_errors("--detector"):
        features = perceptual_features(detector, device)
    print(f"Projecting in {num_steps} steps; distances are of {features.name}.")
    path = project(G, pixels, features=features, label=label, num_steps=num_steps, verbose=True, device=device)

    os.makedirs(outdir, exist_ok=True)
    image = G.synthesis(path[-1:].to(device), noise_mode="const").cpu()
    picture = PIL.Image.fromarray(pixels.movedim(0, 2).numpy().squeeze())
    save_picture(picture, os.path.join(outdir, "target.png"))
    save_picture(to_pictures(image)[0], os.path.join(outdir, "proj.png"))
    write_atomically(os.path.join(outdir, "projected_w.npz"), lambda file: np.savez(file, w=path[-1:].numpy()))
    print(f"PSNR of the projection: {psnr(image, pixels / 127.5 - 1).item():.1f} dB")
    if save_video:
        _save_progress(os.path.join(outdir, "proj.mp4"), G, path, pixels, device)


def _save_progress(dest, G, path, pixels, device):
    """A video of the target beside the image at every step; only a sentence without imageio-ffmpeg."""
    target = pixels.expand(3, -1, -1)

    def frames():
        for ws in path:
            image = to_uint8(G.synthesis(ws[None].to(device), noise_mode="const")[0].cpu())
            yield torch.cat([target, image.expand(3, -1, -1)], dim=2).movedim(0, 2).numpy()

    try:
        write_video(dest, frames())
    except ImportError:
        print("There is no video: pip install imageio-ffmpeg adds it.")


if __name__ == "__main__":
    main()
