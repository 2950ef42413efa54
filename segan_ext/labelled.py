"""Images of a data set that somebody has labelled, for training with names."""

from __future__ import annotations

import os
from collections.abc import Iterable
from pathlib import PurePosixPath
from typing import Any, NamedTuple

import torch

from segan_ext.metrics.attributes import Attribute, images_of, known_attributes
from segan_ext.metrics.labels import read_labels
from training.dataset import ImageFolderDataset

_QUANTILES = 17  # of a labelled number
_ENOUGH = 50  # labelled images, from which on some are kept


def named_coordinates(attributes: Iterable[Attribute], rows: torch.Tensor) -> list[dict[str, Any]]:
    """`SEGANGenerator(own=)` of mode named: a coordinate for a number, one a value for the others, distributed as the
    labels are. rows: [images, attributes] as in `metrics.labels.Labels`, NaN where nothing is said."""
    groups = []
    for attribute, column in zip(attributes, rows.t()):
        known = column[column.isfinite()]
        if attribute.values:
            counts = known.long().bincount(minlength=len(attribute.values)) + 1  # none is impossible
            shares = [round(share, 4) for share in (counts / counts.sum()).tolist()]
            groups.append(dict(name=attribute.name, values=list(attribute.values), shares=shares))
        else:
            quantiles = known.quantile(torch.linspace(0, 1, _QUANTILES, dtype=known.dtype))
            groups.append(dict(name=attribute.name, size=1, quantiles=[round(q, 4) for q in quantiles.tolist()]))
    return groups


class Labelled(NamedTuple):
    """Labelled images of a data set. indices: of the images. rows: as in `metrics.labels.Labels`."""

    attributes: list[Attribute]
    indices: list[int]
    rows: torch.Tensor


def read(data: ImageFolderDataset, source: str, count: int | None = None) -> Labelled:
    """The labelled images of `data`, its first `count` of them (None: all).

    source: "factors", for those in its dataset.json (or its classes), or a CSV with an image a row. OSError or
    ValueError, in one sentence, for labels that are missing, of other images, or of which none differs.
    """
    if source == "factors":
        attributes, rows = known_attributes(data)
        indices = list(range(len(data)))
    else:
        labels = read_labels(source)
        if labels.kind != "image":
            raise ValueError(f"{source} labels seeds; training needs labels of images: its first column is image")
        place = {_key(name): i for i, name in enumerate(data.image_names())}
        unknown = [key for key in labels.keys if _key(key) not in place]
        if unknown:
            raise ValueError(f"{source} names {unknown[0]}, which {data.path} does not have")
        attributes, rows, indices = labels.attributes, labels.rows, [place[_key(key)] for key in labels.keys]
    indices, rows = indices[:count], rows[:count]
    for attribute, column in zip(attributes, rows.t()):
        if len(column[column.isfinite()].unique()) < 2:
            raise ValueError(f"{source}: the labels of {attribute.name} are all the same; label more images")
    return Labelled(attributes, indices, rows.double())


def _key(name):
    return str(PurePosixPath(name).with_suffix(""))


class LabelledImages:
    """A store of labelled images to draw from; of 50 and more, a tenth is kept to tell how well the rest was learned.

    images: uint8 [n, C, H, W]; codes: [n, codes], as the generator would draw them, NaN where nothing is said. The
    first `held_out` of them are never drawn.
    """

    def __init__(self, data: ImageFolderDataset, found: Labelled, device: torch.device | str) -> None:
        self.held_out = len(found.indices) // 10 if len(found.indices) >= _ENOUGH else 0
        order = torch.randperm(len(found.indices), generator=torch.Generator().manual_seed(0))
        self.images = images_of(data, [found.indices[i] for i in order], device)
        parts = []
        for attribute, column in zip(found.attributes, found.rows.t()):
            part = column[:, None].float()
            if attribute.values:
                part = torch.nn.functional.one_hot(column.nan_to_num(0).long(), attribute.width).float()
                part[column.isnan()] = torch.nan
            parts.append(part)
        self.codes = torch.cat(parts, dim=1)[order].to(device)

    def __len__(self) -> int:
        return len(self.codes)

    def draw(self, count: int, noise: float) -> tuple[torch.Tensor, torch.Tensor]:
        """(images [count, C, H, W] in [−1, 1] with noise of that deviation, codes) of mixtures of two random ones

        Few images are learned by heart, mixtures are not (mixup, Zhang et al. 2018).
        """
        first, second = torch.randint(self.held_out, len(self.codes), [2, count], device=self.codes.device)
        share = torch.rand([count, 1, 1, 1], device=self.codes.device)
        images = torch.lerp(self.images[first].float(), self.images[second].float(), share) / 127.5 - 1
        return images + noise * torch.randn_like(images), torch.lerp(
            self.codes[first], self.codes[second], share[:, :, 0, 0]
        )

    def kept(self) -> tuple[torch.Tensor, torch.Tensor]:
        """(images [held_out, C, H, W] in [−1, 1], codes) that are never drawn"""
        return self.images[: self.held_out].float() / 127.5 - 1, self.codes[: self.held_out]


def open_images(path: str | os.PathLike, source: str, count: int | None, device: torch.device | str) -> LabelledImages:
    """The labelled images of the data set at `path`; source and count as in `read`."""
    data = ImageFolderDataset(path, use_labels=True)
    return LabelledImages(data, read(data, source, count), device)
