"""Makes images with a trained generator: `python generate.py --network=PKL --seeds=0-35 --outdir=out`."""

import os
import re

import click
import numpy as np
import PIL.Image
import torch

import legacy
from launch import choose_device
from recipe import with_options
from torch_utils import inference
from training.files import read_npz


def parse_numbers(text, most=10**6):
    """`1,5,7` or `10-20` (both ends included) as a list of numbers below 2³². ValueError for more than `most`."""
    numbers = []
    for part in text.replace(" ", "").split(","):
        match = re.fullmatch(r"(\d{1,10})(?:-(\d{1,10}))?", part)
        if match is None:
            raise ValueError(f"{part[:30]!r} is no number or range; write 1,5,7 or 10-20")
        first, last = int(match[1]), int(match[2] or match[1])
        if max(first, last) >= 2**32:
            raise ValueError(f"{part} is too large; numbers end at {2**32 - 1}")
        if len(numbers) + last - first >= most:
            raise ValueError(f"with {part} there are more than {most} numbers")
        numbers += range(first, last + 1)
    return numbers


class Numbers(click.ParamType):
    """The list that `parse_numbers` makes of a text."""

    name = "numbers"

    def convert(self, value, param, ctx):
        if isinstance(value, list):
            return value
        try:
            return parse_numbers(value)
        except ValueError as error:
            raise click.UsageError(f"{param.opts[0]}: {error}") from error


def load_generator(network, device, trust=False):
    """The averaged generator of a pickle or export (`legacy.load_generator`) on a device.

    click.UsageError if it cannot be opened.
    """
    print(f"Loading networks from {network}...")
    try:
        return legacy.load_generator(network, trust).to(device)
    except (OSError, ValueError) as error:
        raise click.UsageError(f"--network: {error}") from error


def seed_latents(G, seeds, device):
    """z [len(seeds), z_dim]: the latent that each seed stands for"""
    z = np.concatenate([np.random.RandomState(seed).randn(1, G.z_dim) for seed in seeds])
    return torch.from_numpy(z).to(device)


def label_table(G):
    """Labels [classes, c_dim] that a conditional G knows, in the order that --class counts them.

    One-hot ones; those of a network trained on label vectors are the examples that its snapshot keeps.
    """
    examples = getattr(G, "label_examples", None)
    return torch.eye(G.c_dim) if examples is None else examples


def class_label(G, class_idx, count, device):
    """Labels [count, c_dim] of one class. click.UsageError unless a conditional generator gets a class it has."""
    if G.c_dim == 0:
        if class_idx is not None:
            print("--class is ignored: this network is not conditional.")
        return torch.zeros([count, 0], device=device)
    table = label_table(G)
    if class_idx is None or not 0 <= class_idx < len(table):
        kind = "conditional" if getattr(G, "label_examples", None) is None else "conditional on label vectors"
        raise click.UsageError(f"--class: this network is {kind}; give a class from 0 to {len(table) - 1}")
    return table[[class_idx] * count].to(device)


def to_pictures(images):
    """Images [N, C, H, W] in [−1, 1] → list of N PIL images"""
    pixels = (images.cpu() * 127.5 + 128).clamp(0, 255).to(torch.uint8).movedim(1, -1).numpy()
    return [PIL.Image.fromarray(p[:, :, 0] if p.shape[2] == 1 else p) for p in pixels]


def generator_options(command):
    """Decorator: the options that choose a generator and the device it runs on."""
    options = [
        click.option("--network", required=True, metavar="PKL", help="Network pickle (path or URL), or .safetensors"),
        click.option("--trust-pickle", is_flag=True, help="Run the code in the pickle; only for files you trust"),
        click.option("--device", metavar="NAME", help="cpu, cuda  [default: cuda where there is one]"),
    ]
    return with_options(command, options)


def network_options(command):
    """Decorator: the options that all of the host's scripts around a generator share."""
    noise = click.option("--noise-mode", type=click.Choice(["const", "random", "none"]), default="const", help="Noise")
    outdir = click.option("--outdir", required=True, metavar="DIR", help="Where to save the images")
    return generator_options(with_options(command, [noise, outdir]))


@click.command()
@network_options
@click.option("--seeds", type=Numbers(), help="Random seeds, as 0,5,10-20")
@click.option("--trunc", "truncation_psi", type=float, default=1, show_default=True, help="Truncation psi")
@click.option("--class", "class_idx", type=int, help="Class label of a conditional network")
@click.option("--projected-w", metavar="FILE", help="Use the ws in an .npz of projector.py instead of seeds")
@inference.folded()
def main(network, trust_pickle, noise_mode, outdir, device, seeds, truncation_psi, class_idx, projected_w):
    """Generate images with a trained network: one PNG a seed."""
    if (seeds is None) == (projected_w is None):
        raise click.UsageError("--seeds: give the seeds to use, or --projected-w, one of the two")
    device = choose_device(device)
    G = load_generator(network, device, trust_pickle)
    if projected_w is not None:
        ws = load_ws(G, projected_w, device)
        os.makedirs(outdir, exist_ok=True)
        for i, w in enumerate(ws):
            image = G.synthesis(w[None], noise_mode=noise_mode)
            to_pictures(image)[0].save(os.path.join(outdir, f"proj{i:02d}.png"))
        return
    label = class_label(G, class_idx, 1, device)
    os.makedirs(outdir, exist_ok=True)
    for i, seed in enumerate(seeds):
        print(f"Generating image for seed {seed} ({i + 1}/{len(seeds)}) ...")
        z = seed_latents(G, [seed], device)
        image = G(z, label, truncation_psi=truncation_psi, noise_mode=noise_mode)
        to_pictures(image)[0].save(os.path.join(outdir, f"seed{seed:04d}.png"))


def load_ws(G, path, device):
    """[N, num_ws, w_dim]"""
    try:
        ws = torch.from_numpy(read_npz(path, "w")).to(device, torch.float32)
    except (OSError, ValueError) as error:
        raise click.UsageError(f"--projected-w: {path} is no .npz with an array w ({error})") from error
    if list(ws.shape[1:]) != [G.num_ws, G.w_dim] or not len(ws):
        raise click.UsageError(f"--projected-w: w is {list(ws.shape)}, this network takes [N, {G.num_ws}, {G.w_dim}]")
    return ws


if __name__ == "__main__":
    main()
