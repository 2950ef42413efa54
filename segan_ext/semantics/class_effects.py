"""Which classes a dimension moves: what lies between single (L, N, D) of the atlas and the semantics of the image."""

from typing import NamedTuple

import torch

from segan_ext.control.sweep import Moved
from segan_ext.layers import FeatureHooks
from segan_ext.semantics.extractors import Extractor


class ClassEffect(NamedTuple):
    """What a dimension does to a class from −2σ to +2σ.

    share: of the whole change of the image, what falls on pixels that show the class before or after. shape: 1 − IoU of
    the class before and after; 0 where it stays in its place, and where it is in no image. colour: mean change of a
    pixel that shows the class before and after, of 255.
    """

    share: float
    shape: float
    colour: float


class ClassEffects:
    """`ClassEffect` of every class, for the dimensions in a `Moved` that `control.sweep.sweep` made of the same ws.

    sigmas, reach: as given to `sweep`.
    """

    def __init__(
        self,
        G: torch.nn.Module,
        extractor: Extractor,
        ws: torch.Tensor,
        sigmas: dict[tuple[int, int], torch.Tensor],
        reach: float = 2.0,
        batch: int = 64,
    ) -> None:
        self.G, self.extractor, self.ws, self.sigmas = G, extractor, ws, sigmas
        self.reach, self.batch, self.taps = reach, batch, FeatureHooks(G, extractor.layers)

    @torch.no_grad()
    def of(self, moved: Moved) -> list[dict[str, ClassEffect]]:
        """[{class: ClassEffect}] of each dimension of `moved`"""
        low, high = (self._labels(moved, sign) for sign in (-1, 1))  # [dims, S, H, W]
        change = (moved.high - moved.low).abs().mean(dim=2) * 127.5
        found = [{} for _ in moved.dims]
        for k, name in enumerate(self.extractor.classes):
            before, after = low == k, high == k
            either, both = before | after, before & after
            total = lambda x: x.sum(dim=[1, 2, 3])
            share = total(change * either) / total(change).clamp(min=1e-9)
            shape = 1 - total(both) / total(either).clamp(min=1)
            colour = total(change * both) / total(both).clamp(min=1)
            for i, numbers in enumerate(zip(share.tolist(), shape.tolist(), colour.tolist())):
                present = bool(either[i].any())
                found[i][name] = ClassEffect(*numbers) if present else ClassEffect(0.0, 0.0, 0.0)
        return found

    def _labels(self, moved, sign):
        """Label maps [dims, S, H, W] with the dimensions moved by sign · reach · σ"""
        sigma, S = self.sigmas[moved.layer], len(self.ws)
        offsets = torch.zeros(len(moved.dims), len(sigma), device=sigma.device)
        for row, d in enumerate(moved.dims):
            offsets[row, d] = sign * self.reach * sigma[d]
        offsets = offsets.repeat_interleave(S, dim=0)
        rows = torch.arange(S).repeat(len(moved.dims))
        labels = []
        for part in torch.arange(len(rows)).split(self.batch):
            with self.G.edited(offsets={moved.layer: offsets[part]}):
                images, features = self.taps(self.ws[rows[part]], noise_mode="const")
            labels.append(self.extractor.labels(features, images.shape[-1]))
        return torch.cat(labels).unflatten(0, (len(moved.dims), S))


def most_moved(effects: dict[str, ClassEffect], count: int = 3, least: float = 0.1) -> list[tuple[str, ClassEffect]]:
    """[(class, ClassEffect)], the classes with the largest shares of the change first, none below `least`"""
    ranked = sorted(effects.items(), key=lambda item: -item[1].share)
    return [(name, effect) for name, effect in ranked[:count] if effect.share >= least]
