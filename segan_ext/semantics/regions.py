"""Changes that stay inside a region of the image: features outside it are those of the image before.

Blending features, layer by layer, gives a seamless border, which pasting pixels does not (Suzuki et al. 2018,
"Spatially Controllable Image Synthesis with Internal Representation Collaging"; Collins et al. 2020).
"""

from collections.abc import Iterable
from typing import Any

import torch

from segan_ext.layers import FeatureHooks, hooked
from segan_ext.semantics.extractors import Extractor, class_index

_FEATHER = 1 / 64  # of the image's side: how far the border of a region is soft


def class_mask(
    G: torch.nn.Module, extractor: Extractor, ws: torch.Tensor, names: Iterable[str], **synthesis_kwargs: Any
) -> torch.Tensor:
    """[N, 1, H, W], 1 where images of ws show one of the classes `names`.

    synthesis_kwargs: such as noise_mode. ValueError for a name that is no class.
    """
    chosen = [class_index(extractor, name) for name in names]
    images, features = FeatureHooks(G, extractor.layers)(ws, **synthesis_kwargs)
    labels = extractor.labels(features, images.shape[-1])
    return torch.isin(labels, labels.new_tensor(chosen))[:, None].float()


def grown(mask: torch.Tensor, pixels: int) -> torch.Tensor:
    """mask [N, 1, H, W] with `pixels` more all around"""
    if pixels:
        for size, padding in (((2 * pixels + 1, 1), (pixels, 0)), ((1, 2 * pixels + 1), (0, pixels))):
            mask = torch.nn.functional.max_pool2d(mask, size, stride=1, padding=padding)
    return mask


def off_region_change(before: torch.Tensor, after: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
    """Mean change of a pixel, of 255, where mask [N, 1, H, W] is 0; images in [−1, 1]. One number an image, [N]."""
    outside = (mask == 0).float()
    change = (after - before).abs().mean(dim=1, keepdim=True) * outside
    return change.sum(dim=[1, 2, 3]) / outside.sum(dim=[1, 2, 3]).clamp(min=1) * 127.5


class Region:
    """A region of the images of ws, inside which they may change.

        region = Region(G, ws, mask)
        with G.edited(offsets):
            images = region.render(ws)

    mask: [N, 1, H, W] in [0, 1]. noise_mode: const or none, since the noise has to be the same before and after.
    """

    def __init__(self, G: torch.nn.Module, ws: torch.Tensor, mask: torch.Tensor, noise_mode: str = "const") -> None:
        size = [len(ws), 1, G.img_resolution, G.img_resolution]
        if list(mask.shape) != size:
            raise ValueError(f"the mask is {list(mask.shape)}; {size} is needed")
        self.G, self.noise_mode = G, noise_mode
        self.layers = [
            layer
            for resolution in G.synthesis.block_resolutions
            for name in ("conv0", "conv1", "torgb")
            if (layer := getattr(getattr(G.synthesis, f"b{resolution}"), name, None)) is not None
        ]
        self.mask = _feathered(mask)
        self.before = [None] * len(self.layers)
        with torch.no_grad(), hooked(self.layers, self._keep):
            self.image = G.synthesis(ws, noise_mode=noise_mode)

    def render(
        self, ws: torch.Tensor, taps: FeatureHooks | None = None
    ) -> torch.Tensor | tuple[torch.Tensor, list[torch.Tensor]]:
        """Images [N, C, H, W] of ws, or of the edits in force, inside the region; outside they are as before.

        taps: `FeatureHooks` of G; then also their features of the blended image.
        """
        with hooked(self.layers, self._blend):
            made = (taps or self.G.synthesis)(ws, noise_mode=self.noise_mode)
        images, features = made if taps else (made, None)
        images = self.image + self.mask * (images - self.image)
        return (images, features) if taps else images

    def _keep(self, i, y):
        self.before[i] = y

    def _blend(self, i, y):
        mask = torch.nn.functional.adaptive_avg_pool2d(self.mask, y.shape[-1]).to(y.dtype)
        return self.before[i] + mask * (y - self.before[i])


def _feathered(mask):
    """A mask whose border falls off smoothly outside of it"""
    pixels = max(round(mask.shape[-1] * _FEATHER), 1)
    wide = torch.nn.functional.pad(grown(mask, pixels), [pixels] * 4, mode="replicate")
    soft = torch.nn.functional.avg_pool2d(wide, 2 * pixels + 1, stride=1)
    return torch.maximum(mask, soft)
