"""How well label maps agree: the published mean of images' IoUs, and the pooled one."""

from collections.abc import Sequence
from typing import NamedTuple

import torch


class Table(NamedTuple):
    """Scores over all images. ious: {class: IoU or None where it never occurred}; pooled: the same from one confusion
    matrix of all pixels; mean_iou, pooled_mean_iou: over the classes but the background; accuracy: share of pixels."""

    ious: dict
    pooled: dict
    mean_iou: float
    pooled_mean_iou: float
    accuracy: float
    images: int


class Scores:
    """Adds up the agreement of predicted and reference labels, of `classes` classes of which 0 is the background.

    As published (Xu and Zheng 2021): for each image and class IoU = TP / (TP + FP + FN), which is 0 where the class is
    in one of the two only and undefined where it is in neither; a class's score is the mean over the images where it
    is defined, the total the mean over classes that are defined anywhere, without the background. The mean over images
    gives a small thing in one image the weight of a large one in another, so that the two totals are not comparable.
    """

    def __init__(self, classes: int) -> None:
        self.confusion = torch.zeros(classes, classes, dtype=torch.int64)
        self.sums = torch.zeros(classes, dtype=torch.float64)
        self.counts = torch.zeros(classes, dtype=torch.int64)
        self.images = 0

    def add(self, predicted: torch.Tensor, reference: torch.Tensor, ignored: int | None = None) -> None:
        """Counts label maps [N, H, W]; pixels whose reference is `ignored` are left out."""
        for p, r in zip(predicted.cpu(), reference.cpu()):
            known = torch.ones_like(r, dtype=torch.bool) if ignored is None else r != ignored
            ious, confusion = image_ious(p[known], r[known], len(self.counts))
            self.confusion += confusion
            defined = ~ious.isnan()
            self.sums[defined] += ious[defined]
            self.counts += defined
            self.images += 1

    def class_ious(self) -> torch.Tensor:
        """[classes], nan for a class that never occurred"""
        return self.sums / self.counts

    def pooled_ious(self) -> torch.Tensor:
        """[classes], of one confusion matrix of all pixels"""
        return _ious(self.confusion)

    def mean_iou(self) -> float:
        """The published total"""
        return self.class_ious()[1:].nanmean().item()

    def table(self, names: Sequence[str]) -> Table:
        """`Table` with the classes' names"""
        by_name = lambda ious: {name: None if x != x else x for name, x in zip(names, ious.tolist())}
        pooled = self.pooled_ious()
        accuracy = (self.confusion.diagonal().sum() / self.confusion.sum().clamp(min=1)).item()
        totals = self.mean_iou(), pooled[1:].nanmean().item()
        return Table(by_name(self.class_ious()), by_name(pooled), *totals, accuracy, self.images)


def image_ious(predicted: torch.Tensor, reference: torch.Tensor, classes: int) -> tuple[torch.Tensor, torch.Tensor]:
    """(ious [classes], nan for classes in neither; confusion [classes, classes], a row a reference) of one image"""
    pairs = reference.flatten().long() * classes + predicted.flatten().long()
    confusion = pairs.bincount(minlength=classes**2).reshape(classes, classes)
    return _ious(confusion), confusion


def _ious(confusion):
    confusion = confusion.double()
    both = confusion.diagonal()
    return both / (confusion.sum(0) + confusion.sum(1) - both)  # 0 / 0 is nan
