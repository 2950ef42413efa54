"""Own coordinates of a generator: how many there are, what they follow, and the labels that give them names."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from pathlib import PurePosixPath
from typing import Any, NamedTuple

import torch

from segan_ext.metrics.attributes import Attribute, images_of, known_attributes
from segan_ext.metrics.labels import read_labels
from training.dataset import ImageFolderDataset

PRIORS = ("uniform", "gaussian")
_UNIFORM = [-math.sqrt(3), math.sqrt(3)]  # the quantiles of a uniform number of deviation 1
_ENOUGH = 50  # labelled images, from which on some are kept
_QUANTILES = 17  # of a labelled number


def eigen_coordinates(resolution: int, dims: int, prior: str = "uniform") -> list[dict[str, Any]]:
    """`SEGANGenerator(own=)` of mode eigen: `dims` coordinates for each block, of mean 0 and deviation 1; E1.0
    is the first one of block 1."""
    quantiles = _UNIFORM if prior == "uniform" else None
    blocks = int(math.log2(resolution)) - 1
    return [dict(name=f"E{block}", block=block, size=dims, quantiles=quantiles) for block in range(blocks)]


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


def widths(groups: Sequence[dict[str, Any]]) -> list[int]:
    """How many coordinates each group has"""
    return [len(group["shares"]) if "shares" in group else group["size"] for group in groups]


def numbers(groups: Sequence[dict[str, Any]]) -> int:
    """How many numbers of z the groups take: one for values, one a coordinate for the others"""
    return sum(1 if "shares" in group else group["size"] for group in groups)


def code_loss(predicted: torch.Tensor, codes: torch.Tensor, groups: Sequence[dict[str, Any]]) -> torch.Tensor:
    """How far predictions are from codes, summed over the groups: half squared errors, and cross-entropies of values.

    predicted: [N, codes], logits for values. codes: [N, codes], NaN for what is not known. → [N]
    """
    sizes, losses = widths(groups), []
    for group, q, e in zip(groups, predicted.split(sizes, dim=1), codes.split(sizes, dim=1)):
        known = e.isfinite()
        e = torch.where(known, e, 0)
        error = -e * q.log_softmax(dim=1) if "shares" in group else (q - e).square() / 2
        losses.append((error * known).sum(dim=1))
    return torch.stack(losses).sum(dim=0)


def skills(predicted: torch.Tensor, codes: torch.Tensor, groups: Sequence[dict[str, Any]]) -> dict[str, float]:
    """{name: share of the mistakes that predictions avoid} of the groups of which enough is known.

    1: none is left (for a number, R²); 0: as many as by always naming the most frequent value, or the mean. predicted,
    codes: as in `code_loss`.
    """
    sizes, found = widths(groups), {}
    for group, q, e in zip(groups, predicted.split(sizes, dim=1), codes.split(sizes, dim=1)):
        known = e[:, 0].isfinite()
        q, e = q[known], e[known]
        if "shares" in group:
            mistakes = (q.argmax(dim=1) != e.argmax(dim=1)).float().mean()
            at_first = 1 - e.mean(dim=0).max() if len(e) else 0
        else:
            mistakes, at_first = (q - e).square().mean(), e.var(correction=0) if len(e) else 0
        if at_first > 0:
            found[group["name"]] = float(1 - mistakes / at_first)
    return found


class Labelled(NamedTuple):
    """Labelled images of a data set. indices: of the images. rows: as in `metrics.labels.Labels`."""

    attributes: list[Attribute]
    indices: list[int]
    rows: torch.Tensor


def labelled(data: ImageFolderDataset, source: str, count: int | None = None) -> Labelled:
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
        """(images [count, C, H, W] in [−1, 1] with noise of that deviation, codes) of random ones"""
        chosen = torch.randint(self.held_out, len(self.codes), [count], device=self.codes.device)
        images = self.images[chosen].float() / 127.5 - 1
        return images + noise * torch.randn_like(images), self.codes[chosen]

    def kept(self) -> tuple[torch.Tensor, torch.Tensor]:
        """(images [held_out, C, H, W] in [−1, 1], codes) that are never drawn"""
        return self.images[: self.held_out].float() / 127.5 - 1, self.codes[: self.held_out]


def open_labelled(path: str, source: str, count: int | None, device: torch.device | str) -> LabelledImages:
    """The labelled images of the data set at `path`; source and count as in `labelled`."""
    data = ImageFolderDataset(path, use_labels=True)
    return LabelledImages(data, labelled(data, source, count), device)
