"""Semantic-conditional sampling: images whose label map is a given one (Xu and Zheng 2021, section 5).

`published` is theirs. `sample` starts from better latents, moves the w of each layer, gives small classes more weight,
and returns the best image that it met instead of the last.
"""

import math
from collections.abc import Callable
from typing import NamedTuple

import torch

from segan_ext.latents import draw_ws, ws_from_z
from segan_ext.layers import FeatureHooks
from segan_ext.semantics.extractors import IGNORED, Extractor
from segan_ext.semantics.iou import image_ious
from torch_utils import cached_weights


class Sampled(NamedTuple):
    """Samples of one target: ws [R, num_ws, w_dim], images [R, C, H, W], labels [R, H, W] by the extractor, and
    agreement [R], the mean IoU with the target over its classes but the background."""

    ws: torch.Tensor
    images: torch.Tensor
    labels: torch.Tensor
    agreement: torch.Tensor


def agreement(labels: torch.Tensor, target: torch.Tensor, classes: int) -> torch.Tensor:
    """Mean IoU [N] of label maps [N, H, W] with a target [H, W], as in `iou.Scores`; IGNORED pixels do not count"""
    known = target != IGNORED
    ious = [image_ious(each[known].cpu(), target[known].cpu(), classes)[0] for each in labels]
    return torch.stack([each[1:].nanmean() for each in ious]).nan_to_num(1.0).float()  # nothing but background: right


class Pool:
    """Latents and their label maps, which the samples of every target may start from.

    Drawn once: `size` ws truncated to `truncation_psi`; labels uint8 [size, H, W].
    """

    @cached_weights.enabled()
    def __init__(
        self, G: torch.nn.Module, extractor: Extractor, size: int = 1000, seed: int = 0, truncation_psi: float = 0.7
    ) -> None:
        hooks = FeatureHooks(G, extractor.layers)
        self.ws = draw_ws(G, size, seed, truncation_psi=truncation_psi)
        found = []
        for part in self.ws.split(hooks.batch):
            images, features = hooks(part, noise_mode="const")
            found.append(extractor.labels(features, images.shape[-1]).to(torch.uint8).cpu())
        self.labels = torch.cat(found)

    def best(self, target: torch.Tensor, count: int, classes: int) -> torch.Tensor:
        """ws [count, num_ws, w_dim]: of each of `count` equal parts of the pool the one that agrees best.

        ValueError if the pool is smaller.
        """
        if count > len(self.ws):
            raise ValueError(f"a pool of {len(self.ws)} latents is too small for {count} samples")
        scores = agreement(self.labels, target, classes)
        return torch.stack(
            [self.ws[part[scores[part].argmax()]] for part in torch.arange(len(scores)).tensor_split(count)]
        )


def sample(
    G: torch.nn.Module,
    extractor: Extractor,
    target: torch.Tensor,
    count: int = 10,
    pool: Pool | None = None,
    steps: int = 50,
    lr: float = 0.05,
    pull: float = 2e-3,
    truncation_psi: float = 0.7,
    on_step: Callable[[int, int], bool | None] | None = None,
) -> Sampled:
    """`Sampled` images whose label map is `target` [H, W] (IGNORED where anything goes).

    pool: a `Pool`, which many targets can share; None: a new one. The ws of each layer is moved by Adam for `steps`
    steps whose length falls off from lr, in units of w's deviation; pull: weight of the squared distance to where it
    started, in those units. Truncation is that of the pool. on_step: called with (step, `steps`), False stops.
    """
    target = _checked(G, target, extractor)
    pool = pool or Pool(G, extractor, truncation_psi=truncation_psi)
    hooks, classes = FeatureHooks(G, extractor.layers), len(extractor.classes)
    start, sigma = pool.best(target.cpu(), count, classes), w_deviation(G)
    move = torch.zeros_like(start, requires_grad=True)
    optimizer = torch.optim.Adam([move], lr=lr, betas=(0.9, 0.9))
    weights = class_weights(target, classes)
    best = _Best(count)
    for step in range(steps + 1):
        ws = start + move * sigma
        images, features = hooks(ws, noise_mode="const")
        logits = extractor(features, target.shape[-1])
        best.offer(ws, images, logits.argmax(dim=1), target, classes)
        if step == steps or (on_step is not None and on_step(step, steps) is False):
            break
        losses = _cross_entropy(logits, target, weights) + pull * move.square().sum(dim=2).mean(dim=1)
        (move.grad,) = torch.autograd.grad(losses.sum(), [move])
        optimizer.param_groups[0]["lr"] = lr * (0.5 + 0.5 * math.cos(math.pi * step / steps))
        optimizer.step()
    return best.result()


def published(
    G: torch.nn.Module,
    extractor: Extractor,
    target: torch.Tensor,
    count: int = 10,
    n_init: int = 100,
    steps: int = 50,
    lr: float = 0.01,
    latents: str = "z",
    seed: int = 0,
    on_step: Callable[[int, int], bool | None] | None = None,
) -> Sampled:
    """`Sampled` images by the published procedure: the best of n_init random z, moved by Adam, the last one taken.

    latents: 'z', one for all layers, or 'mixwp', one for each. Neither z is truncated.
    """
    target = _checked(G, target, extractor)
    if latents not in ("z", "mixwp"):
        raise ValueError(f"latents must be z or mixwp, not {latents!r}")
    hooks, device = FeatureHooks(G, extractor.layers), target.device
    rng = torch.Generator().manual_seed(seed)
    z0 = torch.stack([_best_z(G, hooks, extractor, target, n_init, rng) for _ in range(count)])
    if latents == "mixwp":
        z0 = z0[:, None].repeat(1, G.num_ws, 1)
    z = z0.clone().requires_grad_(True)
    rows = z0[0].numel() // G.z_dim
    optimizer = torch.optim.Adam([z], lr=lr)
    uniform = torch.ones(len(extractor.classes), device=device)
    for step in range(steps):
        ws = ws_from_z(G, z)
        images, features = hooks(ws, noise_mode="const")
        logits = extractor(features, target.shape[-1])
        if step == steps - 1 or (on_step is not None and on_step(step, steps) is False):
            break
        losses = _cross_entropy(logits, target, uniform)
        losses = losses + 1e-3 * (z - z0).square().flatten(1).sum(dim=1) + 1e-3 * z.square().flatten(1).sum(1) / rows
        (z.grad,) = torch.autograd.grad(losses.sum(), [z])
        optimizer.step()
    labels = logits.argmax(dim=1)
    return Sampled(ws.detach(), images.detach(), labels, agreement(labels, target, len(extractor.classes)))


@cached_weights.enabled()
def _best_z(G, hooks, extractor, target, n_init, rng):
    """Of n_init random z the one with most pixels right [z_dim]"""
    z = torch.randn(n_init, G.z_dim, generator=rng).to(target.device)
    right = []
    for part in z.split(hooks.batch):
        features = hooks(ws_from_z(G, part), noise_mode="const")[1]
        right.append(_pixels_right(extractor.labels(features, target.shape[-1]), target))
    return z[torch.cat(right).argmax()]


def _pixels_right(labels, target):
    return ((labels == target) & (target != IGNORED)).sum(dim=[1, 2])


def diversity(images: torch.Tensor, features: Callable[[torch.Tensor], torch.Tensor]) -> float:
    """Mean distance of two of the images [N, C, H, W] of one target; 0 for one image.

    features: `metrics.perceptual`, images in [0, 255] → features whose squared distance says how different they look.
    """
    if len(images) < 2:
        return 0.0
    with torch.no_grad():
        x = torch.cat([features((part * 127.5 + 127.5).clamp(0, 255)) for part in images.split(8)])
        return torch.pdist(x).square().mean().item()


@torch.no_grad()
def w_deviation(G: torch.nn.Module, samples: int = 1000) -> torch.Tensor:
    """The deviation of each entry of w over random z [w_dim]"""
    return draw_ws(G, samples, latents="notrunc-wp")[:, 0].std(dim=0)


def class_weights(target: torch.Tensor, classes: int) -> torch.Tensor:
    """[classes]: 1/√frequency in the target, with the mean 1 over its pixels, so that small classes count too."""
    counts = target[target != IGNORED].bincount(minlength=classes).float()
    weights = counts.clamp(min=1).rsqrt()
    return weights * counts.sum() / (weights * counts).sum().clamp(min=1e-12)


def _cross_entropy(logits, target, weights):
    """Weighted mean over the pixels of each image [N]"""
    targets = target.expand(len(logits), -1, -1)
    losses = torch.nn.functional.cross_entropy(logits, targets, weights, ignore_index=IGNORED, reduction="none")
    return losses.sum(dim=[1, 2]) / (target != IGNORED).sum().clamp(min=1)


def _checked(G, target, extractor):
    """The target on G's device. ValueError for another size, or classes that the extractor does not have."""
    size = G.img_resolution
    if list(target.shape) != [size, size]:
        raise ValueError(
            f"the target is {'×'.join(map(str, target.shape))}; a label for {size}×{size} pixels is needed"
        )
    unknown = set(target.unique().tolist()) - set(range(len(extractor.classes))) - {IGNORED}
    if unknown:
        raise ValueError(f"the target has the label {min(unknown)}; there are {len(extractor.classes)} classes")
    if (target == IGNORED).all():
        raise ValueError("the target says nothing of any pixel")
    return target.to(next(G.parameters()).device, torch.int64)


class _Best:
    """For each image of a batch the best that was offered."""

    def __init__(self, count):
        self.scores, self.kept = torch.full([count], -1.0), None

    def offer(self, ws, images, labels, target, classes):
        scores = agreement(labels, target, classes)
        offered = [each.detach().clone() for each in (ws, images, labels)]
        if self.kept is None:
            self.kept = offered
        for i in (scores > self.scores).nonzero()[:, 0].tolist():
            for kept, each in zip(self.kept, offered):
                kept[i] = each[i]
        self.scores = torch.maximum(self.scores, scores)

    def result(self):
        return Sampled(*self.kept, self.scores)
