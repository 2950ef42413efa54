"""The features that semantics are read from: what a generator's convolutions put out while it makes an image."""

import contextlib
import threading

import torch

from segan_ext import host

host.activate()

from generate import label_table, seed_latents  # noqa: E402 (the host has to be on the path)

_MOST_NUMBERS = 2**27  # of features at a time
LATENTS = ("trunc-wp", "notrunc-wp", "notrunc-mixwp")


class Taps:
    """Takes features of G without changing it: `images, features = Taps(G)(ws)`.

    StyleGAN2's are the outputs of its 3×3 convolutions after noise, bias and activation, one in the block of 4×4 and
    two in each later one; torgb layers have none. names: those to take, as "b8.conv0" (None: all, in order of use).
    channels, resolutions: of each. batch: how many images' features make half a gigabyte, 32 at most. ValueError for a
    name that G does not have, or a G without synthesis blocks.
    """

    def __init__(self, G, names=None):
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
        self.channels = tuple(layer.weight.shape[0] for layer in self.layers)
        self.resolutions = tuple(layer.resolution for layer in self.layers)
        numbers = sum(c * r * r for c, r in zip(self.channels, self.resolutions))
        self.batch = min(max(_MOST_NUMBERS // numbers, 1), 32)

    def __call__(self, ws, **synthesis_kwargs):
        """ws [N, num_ws, w_dim] → images [N, C, H, W] and a list of features [N, channels, h, w], float32"""
        features = [None] * len(self.layers)

        def keep(i, y):
            features[i] = y.float()

        with hooked(self.layers, keep):
            images = self.G.synthesis(ws, **synthesis_kwargs)
        return images, features


@contextlib.contextmanager
def hooked(layers, action):
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


def ws_from_z(G, z, truncation_psi=1, class_idx=0):
    """ws of latents z [N, z_dim], or of one for each layer z [N, num_ws, z_dim]; of one class of a conditional G

    Returns [N, num_ws, w_dim]. Differentiable.
    """
    rows = z.reshape(-1, G.z_dim)
    label = label_table(G)[[class_idx] * len(rows)].to(z.device) if G.c_dim else None
    ws = G.mapping(rows, label, truncation_psi=truncation_psi)
    if z.ndim == 2:
        return ws
    layer = torch.arange(G.num_ws, device=z.device)
    return ws.unflatten(0, z.shape[:2])[:, layer, layer]


@torch.no_grad()
def draw_ws(G, count, seed=0, latents="trunc-wp", truncation_psi=0.5, class_idx=0):
    """Random ws [count, num_ws, w_dim], those of the seeds seed, seed + 1, … of `generate`, of one class.

    latents, as published: trunc-wp truncates to `truncation_psi`, notrunc-wp does not, notrunc-mixwp draws a z for
    each layer. ValueError for another.
    """
    if latents not in LATENTS:
        raise ValueError(f"latents must be one of {', '.join(LATENTS)}, not {latents!r}")
    device = next(G.parameters()).device
    if latents == "notrunc-mixwp":
        seeds = [seed * G.num_ws + i for i in range(count * G.num_ws)]
        return ws_from_z(G, seed_latents(G, seeds, device).float().unflatten(0, (count, G.num_ws)), 1, class_idx)
    z = seed_latents(G, range(seed, seed + count), device).float()
    return ws_from_z(G, z, truncation_psi if latents == "trunc-wp" else 1, class_idx)
