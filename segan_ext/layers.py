"""Walks over a synthesis network: up to a block and on from it, and features on the way."""

import contextlib
import threading
from collections.abc import Callable, Iterator, Sequence
from typing import Any, NamedTuple

import torch


class Start(NamedTuple):
    """A synthesis up to a block: the features and the image that block L gets. ws [S, num_ws, w_dim]."""

    ws: torch.Tensor
    L: int
    x: torch.Tensor | None = None
    img: torch.Tensor | None = None


def run_until(G: torch.nn.Module, ws: torch.Tensor, L: int, **block_kwargs: Any) -> Start:
    """Runs the blocks before L, which no edit at L can change. ws: [S, num_ws, w_dim]; block_kwargs: as noise_mode."""
    if not hasattr(G.synthesis, "block_resolutions"):
        return Start(ws, L)
    x = img = None
    for block, part in _blocks(G, ws)[:L]:
        x, img = block(x, img, part, **block_kwargs)
    return Start(ws, L, x, img)


def resume(G: torch.nn.Module, started: Start, rows: torch.Tensor, **block_kwargs: Any) -> torch.Tensor:
    """Images [len(rows), C, H, W]: goes on from `started` with its latents `rows`, under the edits in force."""
    if not hasattr(G.synthesis, "block_resolutions"):
        return G.synthesis(started.ws[rows], **block_kwargs)
    x, img = (None if t is None else t[rows] for t in (started.x, started.img))
    for block, part in _blocks(G, started.ws[rows])[started.L :]:
        x, img = block(x, img, part, **block_kwargs)
    return img


def run_with_noise(G: torch.nn.Module, ws: torch.Tensor, blocks: Sequence[int]) -> torch.Tensor:
    """Images [S, C, H, W] of ws [S, num_ws, w_dim] with random noise in these blocks, and none in the others."""
    x = img = None
    for L, (block, part) in enumerate(_blocks(G, ws)):
        x, img = block(x, img, part, noise_mode="random" if L in blocks else "none")
    return img


def _blocks(G, ws):
    """[(block, the ws that it reads), …]"""
    blocks, first = [], 0
    for resolution in G.synthesis.block_resolutions:
        block = getattr(G.synthesis, f"b{resolution}")
        blocks.append((block, ws.narrow(1, first, block.num_conv + block.num_torgb).to(torch.float32)))
        first += block.num_conv
    return blocks


def row_of(G: torch.nn.Module, layer: tuple[int, int]) -> int:
    """Which of its ws a style layer (L, N) reads; 0 of a G without synthesis blocks, all of whose ws are one w."""
    L, N = layer
    blocks = [getattr(G.synthesis, f"b{res}") for res in getattr(G.synthesis, "block_resolutions", [])[:L]]
    return sum(block.num_conv for block in blocks) + (N if hasattr(G.synthesis, "block_resolutions") else 0)


def style_groups(G: torch.nn.Module) -> dict[str, list[int]]:
    """{"coarse", "middle", "fine": entries of ws}: up to 8×8, up to 32×32, and above; a third each without blocks."""
    sides = getattr(G.synthesis, "block_resolutions", None)
    names = ("coarse", "middle", "fine")
    if not sides:
        return {name: [i for i in range(G.num_ws) if 3 * i // G.num_ws == k] for k, name in enumerate(names)}
    groups, first = {name: [] for name in names}, 0
    for side in sides:
        name = "coarse" if side <= 8 else "fine" if side > 32 or side == G.img_resolution else "middle"
        block = getattr(G.synthesis, f"b{side}")
        count = block.num_conv + (block.num_torgb if side == sides[-1] else 0)
        groups[name] += range(first, first + count)
        first += count
    return groups


_MOST_NUMBERS = 2**27  # of features at a time


class FeatureHooks:
    """Takes features of G without changing it: `images, features = FeatureHooks(G)(ws)`.

    StyleGAN2's are the outputs of its 3×3 convolutions after noise, bias and activation, one in the block of 4×4 and
    two in each later one; torgb layers have none. names: those to take, as "b8.conv0" (None: all, in order of use).
    channels, resolutions: of each. batch: how many images' features make half a gigabyte, 32 at most. ValueError for a
    name that G does not have, or a G without synthesis blocks.
    """

    def __init__(self, G: torch.nn.Module, names: Sequence[str] | None = None) -> None:
        self.G = G
        if not hasattr(G.synthesis, "block_resolutions"):
            raise ValueError("semantics need a generator with synthesis blocks, such as StyleGAN2's")
        found = {}
        for resolution in G.synthesis.block_resolutions:
            block = getattr(G.synthesis, f"b{resolution}")
            found |= {f"b{resolution}.{name}": getattr(block, name, None) for name in ("conv0", "conv1")}
        found = {name: layer for name, layer in found.items() if layer is not None}
        unknown = [name for name in names or [] if name not in found]
        if unknown:
            raise ValueError(f"this generator has no layer {unknown[0]}; it has {', '.join(found)}")
        self.names = tuple(names or found)
        self.layers = [found[name] for name in self.names]
        self.channels = tuple(getattr(layer, "out_channels", 0) or len(layer.weight) for layer in self.layers)
        self.resolutions = tuple(layer.resolution for layer in self.layers)
        numbers = sum(c * r * r for c, r in zip(self.channels, self.resolutions))
        self.batch = min(max(_MOST_NUMBERS // numbers, 1), 32)

    def __call__(self, ws: torch.Tensor, **synthesis_kwargs: Any) -> tuple[torch.Tensor, list[torch.Tensor]]:
        """ws [N, num_ws, w_dim] → images [N, C, H, W] and a list of features [N, channels, h, w], float32"""
        features = [None] * len(self.layers)

        def keep(i, y):
            features[i] = y.float()

        with hooked(self.layers, keep):
            images = self.G.synthesis(ws, **synthesis_kwargs)
        return images, features


@contextlib.contextmanager
def hooked(
    layers: Sequence[torch.nn.Module], action: Callable[[int, torch.Tensor], torch.Tensor | None]
) -> Iterator[None]:
    """Inside, action(i, y) gets what layers[i] puts out, and what it returns takes its place (None: y stays).

    In this thread only: others may use the same layers meanwhile.
    """
    thread = threading.get_ident()

    def hook(i):
        return lambda _layer, _args, y: action(i, y) if threading.get_ident() == thread else None

    hooks = [layer.register_forward_hook(hook(i)) for i, layer in enumerate(layers)]
    try:
        yield
    finally:
        for each in hooks:
            each.remove()
