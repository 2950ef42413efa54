"""Semantic image editing: paint classes or colours on an image, and the latents follow (Xu and Zheng 2021, section 5).

`published` is theirs: the whole image may change. `edit` changes the image around the strokes only: elsewhere features
are those of the image before (`regions`), and the loss is that of the strokes.
"""

import math
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch

from segan_ext.latents import ws_from_z
from segan_ext.layers import FeatureHooks
from segan_ext.semantics.extractors import IGNORED, Extractor
from segan_ext.semantics.regions import Region, grown, off_region_change
from segan_ext.semantics.sampling import w_deviation
from training.files import open_picture, open_pixels


class Strokes(NamedTuple):
    """What was painted on N images. labels: indices of classes [N, H, W], IGNORED where nothing was painted. colours:
    [N, C, H, W] in [−1, 1], and where, painted [N, 1, H, W] in {0, 1}; both None without colour strokes."""

    labels: torch.Tensor
    colours: torch.Tensor | None = None
    painted: torch.Tensor | None = None

    def mask(self) -> torch.Tensor:
        """[N, 1, H, W], 1 where there is a stroke of either kind"""
        mask = (self.labels != IGNORED)[:, None].float()
        return mask if self.painted is None else torch.maximum(mask, self.painted)


class Edited(NamedTuple):
    """ws [N, num_ws, w_dim]; images before and after; labels after, by the extractor; agreement [N]: share of the label
    strokes' pixels that have their class (nan without); off_region [N]: mean change of a pixel outside the strokes, of
    255; region: the `Region` that limits the change, None where nothing does."""

    ws: torch.Tensor
    before: torch.Tensor
    after: torch.Tensor
    labels: torch.Tensor
    agreement: torch.Tensor
    off_region: torch.Tensor
    region: Region | None


def edit(
    G: torch.nn.Module,
    extractor: Extractor,
    ws: torch.Tensor,
    strokes: Strokes,
    steps: int = 50,
    lr: float = 0.1,
    reach: float = 1 / 8,
    pull: float = 1e-3,
    match: float = 5.0,
    keep: float = 3.0,
    on_step: Callable[[int, int], bool | None] | None = None,
) -> Edited:
    """`Edited` images of ws [N, num_ws, w_dim] that follow the strokes and stay as they are elsewhere.

    reach: how far around the strokes the image may change, as a share of its side. The w of each layer is moved by Adam
    in units of w's deviation; pull: weight of the squared distance to where it started. Around the strokes labels are
    asked to stay. match: weight of the squared distance between the mean colour of a painted class and the one that the
    class has elsewhere in the image; keep: of the squared change of pixels around the strokes. The best step counts.
    on_step: called with (step, steps), False stops.
    """
    _check(G, extractor, ws, strokes)
    size, mask = G.img_resolution, strokes.mask()
    around = grown(mask, max(round(reach * size), 1))
    region, hooks, sigma = Region(G, ws, around), FeatureHooks(G, extractor.layers), w_deviation(G)
    with torch.no_grad():
        wanted = extractor.labels(region.render(ws, hooks)[1], size)
    palette = _Palette(region.image, wanted, strokes.labels)
    wanted = torch.where(strokes.labels == IGNORED, wanted, strokes.labels)
    beside = _per_image(around[:, 0] * (1 - mask[:, 0]))
    weight = _per_image(mask[:, 0]) + 0.5 * beside
    move = torch.zeros_like(ws, requires_grad=True)
    optimizer = torch.optim.Adam([move], lr=lr, betas=(0.9, 0.9))
    best, kept = torch.full([len(ws)], -math.inf, device=ws.device), None
    for step in range(steps + 1):
        moved = ws + move * sigma
        images, features = region.render(moved, hooks)
        logits = extractor(features, size)
        losses = _stroke_losses(logits, images, wanted, strokes, weight) + match * palette.distances(images)
        losses = losses + keep * _squares(images - region.image, beside)
        scores = _in_strokes(logits.argmax(dim=1), strokes.labels).nan_to_num(0.0) - 0.1 * losses.detach()
        offered = [each.detach() for each in (moved, images, logits.argmax(dim=1))]
        better = scores > best
        kept = offered if kept is None else [_where(better, new, old) for new, old in zip(offered, kept)]
        best = torch.maximum(best, scores)
        if step == steps or (on_step is not None and on_step(step, steps) is False):
            break
        losses = losses + pull * move.square().sum(dim=2).mean(dim=1)
        (move.grad,) = torch.autograd.grad(losses.sum(), [move])
        optimizer.param_groups[0]["lr"] = lr * (0.5 + 0.5 * math.cos(math.pi * step / steps))
        optimizer.step()
    return _result(kept[0], region.image, *kept[1:], strokes, region)


def published(
    G: torch.nn.Module,
    extractor: Extractor,
    z: torch.Tensor,
    strokes: Strokes,
    steps: int = 50,
    lr: float = 0.01,
    latents: str = "mixwp",
    on_step: Callable[[int, int], bool | None] | None = None,
) -> Edited:
    """`Edited` images by the published procedure: cross-entropy of the whole fused label map, the last step taken.

    z: latents [N, z_dim] of the images. latents: 'mixwp' moves a z for each layer, 'z' one for all. Colour strokes
    count as published for them: squared errors inside and outside. lr: 0.01 in the published application, 0.002 in the
    script.
    """
    hooks, size = FeatureHooks(G, extractor.layers), G.img_resolution
    z0 = z[:, None].repeat(1, G.num_ws, 1) if latents == "mixwp" else z
    with torch.no_grad():
        before, features = hooks(ws_from_z(G, z0), noise_mode="const")
        wanted = extractor.labels(features, size)
    _check(G, extractor, ws_from_z(G, z0), strokes)
    wanted = torch.where(strokes.labels == IGNORED, wanted, strokes.labels)
    z, rows = z0.clone().requires_grad_(True), z0[0].numel() // G.z_dim
    optimizer = torch.optim.Adam([z], lr=lr)
    for step in range(steps):
        ws = ws_from_z(G, z)
        images, features = hooks(ws, noise_mode="const")
        logits = extractor(features, size)
        if step == steps - 1 or (on_step is not None and on_step(step, steps) is False):
            break
        losses = torch.nn.functional.cross_entropy(logits, wanted, reduction="none").mean(dim=[1, 2])
        if strokes.painted is not None:
            inside, outside = _per_image(strokes.painted[:, 0]), _per_image(1 - strokes.painted[:, 0])
            losses = losses + _squares(images - strokes.colours, inside) + _squares(images - before, outside)
        losses = losses + 1e-3 * (z - z0).square().flatten(1).sum(1) + 1e-3 * z.square().flatten(1).sum(1) / rows
        (z.grad,) = torch.autograd.grad(losses.sum(), [z])
        optimizer.step()
    return _result(ws.detach(), before, images.detach(), logits.argmax(dim=1), strokes, None)


def _stroke_losses(logits, images, wanted, strokes, weight):
    """[N]: cross-entropy of the labels, and squared errors of the colours where some were painted"""
    losses = (torch.nn.functional.cross_entropy(logits, wanted, reduction="none") * weight).sum(dim=[1, 2])
    if strokes.painted is None:
        return losses
    return losses + 10 * _squares(images - strokes.colours, _per_image(strokes.painted[:, 0]))


class _Palette:
    """The mean colour that each painted class has in the images before, where it was not painted."""

    def __init__(self, before, labels, strokes):
        self.parts = []  # (image, pixels of a stroke [H, W], mean colour [C, 1])
        for i, painted in enumerate(strokes):
            for k in set(painted.unique().tolist()) - {IGNORED}:
                known = (labels[i] == k) & (painted != k)
                if known.any():
                    self.parts.append((i, painted == k, before[i][:, known].mean(dim=1)))

    def distances(self, images):
        """Squared distance of the strokes' mean colours to it [N]"""
        found = images.new_zeros(len(images))
        for i, painted, colour in self.parts:
            found[i] = found[i] + (images[i][:, painted].mean(dim=1) - colour).square().mean()
        return found


def _squares(difference, weight):
    return (difference.square().mean(dim=1) * weight).sum(dim=[1, 2])


def _per_image(mask):
    """[N, H, W], each brought to the sum 1 (0 where it is empty)"""
    return mask / mask.sum(dim=[1, 2], keepdim=True).clamp(min=1)


def _in_strokes(labels, wanted):
    """Share of the painted pixels that have their class [N]; nan where none is painted"""
    painted = wanted != IGNORED
    return ((labels == wanted) & painted).sum(dim=[1, 2]) / painted.sum(dim=[1, 2])


def _where(chosen, new, old):
    return torch.where(chosen.reshape(-1, *[1] * (new.ndim - 1)), new, old)


def _result(ws, before, after, labels, strokes, region):
    right = _in_strokes(labels, strokes.labels)
    return Edited(ws, before, after, labels, right, off_region_change(before, after, strokes.mask()), region)


def _check(G, extractor, ws, strokes):
    """ValueError, in one sentence, for strokes that do not fit the images or the classes."""
    size = [len(ws), G.img_resolution, G.img_resolution]
    if list(strokes.labels.shape) != size:
        raise ValueError(f"the strokes are {list(strokes.labels.shape)}; {size} labels are needed")
    pictures = [size[0], G.img_channels, *size[1:]]
    if strokes.painted is not None and list(strokes.colours.shape) != pictures:
        raise ValueError(f"the colours are {list(strokes.colours.shape)}; {pictures} is needed")
    known = set(range(len(extractor.classes))) | {IGNORED}
    unknown = set(strokes.labels.unique().tolist()) - known
    if unknown:
        raise ValueError(f"the strokes have the label {min(unknown)}; there are {len(extractor.classes)} classes")
    if not strokes.mask().any():
        raise ValueError("nothing is painted")


def scripted_strokes(
    labels: torch.Tensor, classes: int, count: int, seed: int = 0, radius: float = 1 / 10
) -> torch.Tensor:
    """Strokes for measuring: on each of `count` label maps [count, H, W] a disc of another class, beside that class.

    Each disc of `radius` (a share of the side) lies at a pixel next to the class that it grows, so that what it asks
    for is possible. Returns labels [count, H, W] with IGNORED elsewhere.
    """
    rng, size = torch.Generator().manual_seed(seed), labels.shape[-1]
    y, x = torch.meshgrid(torch.arange(size), torch.arange(size), indexing="ij")
    strokes = torch.full_like(labels.cpu(), IGNORED)
    for i, each in enumerate(labels.cpu()):
        present = [k for k in range(classes) if (each == k).sum() >= size]  # as many pixels as the side is long
        grows = present[torch.randint(len(present), [1], generator=rng)]
        own = (each == grows)[None, None].float()
        border = (grown(own, 1) > own)[0, 0].nonzero()
        cy, cx = border[torch.randint(len(border), [1], generator=rng)][0] if len(border) else (size // 2, size // 2)
        disc = (y - cy) ** 2 + (x - cx) ** 2 <= (radius * size) ** 2
        strokes[i][disc] = grows
    return strokes.to(labels.device)


def read_label_map(path: str | Path, size: int) -> torch.Tensor:
    """int64 [size, size]: the classes in a grey or palette picture, 255 where none is. ValueError for others."""
    pixels = open_pixels(path)
    if pixels.ndim != 2 or pixels.dtype != np.uint8:
        raise ValueError(f"{path} is no label map: one class index a pixel, a grey or palette picture, is needed")
    if pixels.shape != (size, size):
        raise ValueError(f"{path} is {pixels.shape[1]}×{pixels.shape[0]}; the images are {size}×{size}")
    return torch.from_numpy(pixels.astype(np.int64))


def read_colours(path: str | Path, G: torch.nn.Module) -> tuple[torch.Tensor, torch.Tensor]:
    """(colours [1, C, H, W] in [−1, 1], painted [1, 1, H, W] in {0, 1}) of a picture, transparent elsewhere.

    ValueError for another size or what is no picture.
    """
    pixels = np.asarray(open_picture(path).convert("LA" if G.img_channels == 1 else "RGBA"), np.float32)
    size = G.img_resolution
    if pixels.shape[:2] != (size, size):
        raise ValueError(f"{path} is {pixels.shape[1]}×{pixels.shape[0]}; the images are {size}×{size}")
    pixels = torch.from_numpy(pixels).movedim(2, 0)[None]
    return pixels[:, :-1] / 127.5 - 1, (pixels[:, -1:] > 127).float()
