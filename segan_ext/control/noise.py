"""Stochastic variation: what noise decides in an image while the latent stays (StyleGAN, figures 4 and 5)."""

from collections.abc import Sequence
from typing import NamedTuple

import torch

from runs.numbers import parse_numbers
from segan_ext.layers import run_with_noise


class Variation(NamedTuple):
    """images [count, C, H, W] of one latent, each with other noise; deviation [H, W] over them, the channels' mean"""

    images: torch.Tensor
    deviation: torch.Tensor


def parse_blocks(text: str, count: int) -> list[int]:
    """The synthesis blocks, of `count`, that a text names: all, none, coarse, fine (halves), 2, or 2-4.

    ValueError for any other text, or a block that is not there.
    """
    half = (count + 1) // 2
    named = dict(all=range(count), none=range(0), coarse=range(half), fine=range(half, count))
    if text in named:
        return list(named[text])
    try:
        blocks = parse_numbers(text)
    except ValueError as error:
        raise ValueError(f"{text!r} names no blocks; write all, none, coarse, fine, 2 or 2-4") from error
    if max(blocks) >= count:
        raise ValueError(f"{text}: this generator has blocks 0 to {count - 1}")
    return blocks


@torch.no_grad()
def stochastic_variation(
    G: torch.nn.Module, ws: torch.Tensor, blocks: Sequence[int], count: int = 100, seed: int = 0, batch: int = 16
) -> Variation:
    """The images of one latent ws [1, num_ws, w_dim] with `count` random noises in these blocks, none in the others.

    ValueError for a generator that has no noise.
    """
    if not any(getattr(module, "use_noise", False) for module in G.synthesis.modules()):
        raise ValueError("this generator has no noise")
    with torch.random.fork_rng(devices=[ws.device] if ws.device.type == "cuda" else []):
        torch.manual_seed(seed)
        parts = torch.arange(count).split(batch)
        images = torch.cat([run_with_noise(G, ws.expand(len(part), -1, -1), blocks) for part in parts])
    return Variation(images, images.std(dim=0).mean(dim=0))
