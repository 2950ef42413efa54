"""Whether generated images are like real ones, and all kinds of real ones are among them, by nearest neighbours.

The manifold of a set is the union of balls round its features, each as wide as the distance to its k-th neighbour.
Precision is the share of generated images within the manifold of the real ones; recall the other way round
(Kynkäänniemi et al. 2019). Density counts how many balls of real images a generated one lies in, as a multiple of what
is expected; coverage is the share of real images that have a generated one in their own ball (Naeem et al. 2020).
"""

import functools
from collections.abc import Callable, Iterable
from typing import NamedTuple

import torch

from metrics import detectors, metric_utils
from metrics.perceptual import VGG16
from runs import processes


def compute_distances(
    row_features: torch.Tensor, col_features: torch.Tensor, num_gpus: int, rank: int, col_batch_size: int
) -> torch.Tensor | None:
    """Euclidean distances [rows, columns] of features [rows, F] and [columns, F], on the CPU; None but on rank 0.

    Processes share the columns between them; col_batch_size are computed at a time.
    """
    starts = range(0, len(col_features), col_batch_size)
    mine = [_distances(row_features, col_features[s : s + col_batch_size]) for s in starts[rank::num_gpus]]
    if num_gpus == 1:
        return torch.cat(mine, dim=1).cpu()
    parts = []
    for i, start in enumerate(starts):
        width = min(col_batch_size, len(col_features) - start)
        part = mine[i // num_gpus] if i % num_gpus == rank else row_features.new_empty([len(row_features), width])
        part = part.contiguous()
        processes.go_on()
        torch.distributed.broadcast(part, src=i % num_gpus)
        parts.append(part)
    return torch.cat(parts, dim=1).cpu() if rank == 0 else None


class Likeness(NamedTuple):
    """How well generated images cover real ones: precision, recall and coverage from 0 to 1, density from 0 on."""

    precision: float
    recall: float
    density: float
    coverage: float


def _distances(a, b):
    """√(|a|² + |b|² − 2 a·b), [len(a), len(b)]; makes no copy of the features, as torch.cdist would"""
    lengths = [torch.linalg.vector_norm(each, dim=1).square() for each in (a, b)]
    return torch.addmm(lengths[1], a, b.t(), alpha=-2).add_(lengths[0][:, None]).clamp_(min=0).sqrt_()


def compute_pr(
    opts: metric_utils.MetricOptions,
    max_real: int | None,
    num_gen: int,
    nhood_size: int,
    row_batch_size: int,
    col_batch_size: int,
) -> tuple[float, float]:
    """(precision, recall) of num_gen generated images against at most max_real of the data set, with k = nhood_size."""
    detector = opts.detector(detectors.FEATURES, VGG16)
    both = metric_utils.features_of_both(opts, detector, max_real, num_gen, capture_all=True)
    real, generated = (stats.get_all_torch().to(opts.device) for stats in both)
    distances = functools.partial(_blocks, opts, row_batch_size, col_batch_size)
    found = likeness(real, generated, nhood_size, distances)
    return (found.precision, found.recall) if found else (float("nan"), float("nan"))


def compute_prdc(
    opts: metric_utils.MetricOptions, num_gen: int, nhood_size: int, row_batch_size: int, col_batch_size: int
) -> tuple[Likeness, Likeness]:
    """(of generated images, of other real ones) against as many real images, with k = nhood_size.

    Their number is num_gen, or half of the data set where that is less: these numbers grow with how many images there
    are, so that only the second says what the first could reach. NaN on other ranks than 0.
    """
    detector = opts.detector(detectors.FEATURES, VGG16)
    half = len(metric_utils.open_dataset(opts)) // 2
    num_gen = min(num_gen, half)
    both = metric_utils.features_of_both(opts, detector, None, num_gen, capture_all=True)
    opts.protocol["num_real"] = num_gen
    real, generated = (stats.get_all_torch() for stats in both)
    order = torch.randperm(len(real), generator=torch.Generator().manual_seed(0))  # sorted data have unlike halves
    real, other, generated = (x.to(opts.device) for x in (real[order[:num_gen]], real[order[-num_gen:]], generated))
    distances = functools.partial(_blocks, opts, row_batch_size, col_batch_size)
    nothing = Likeness(*[float("nan")] * 4)
    return tuple(likeness(real, probes, nhood_size, distances) or nothing for probes in (generated, other))


def likeness(
    real: torch.Tensor,
    generated: torch.Tensor,
    nhood_size: int,
    distances: Callable[[torch.Tensor, torch.Tensor], Iterable[torch.Tensor | None]] | None = None,
) -> Likeness | None:
    """`Likeness` of features [N, F] and [M, F], with k = nhood_size.

    distances: two sets → their distances in blocks of rows (None: all in one); where it gives None, so does this.
    ValueError with fewer than k + 1 of either.
    """
    distances = distances or (lambda rows, columns: [_distances(rows, columns)])
    radii = [_radii(x, nhood_size, distances) for x in (real, generated)]
    count, recalled, covered = 0, [], []  # count: balls of real images round each generated one
    for block in distances(real, generated):
        if block is not None:
            own = radii[0][sum(map(len, covered)) :][: len(block)]
            count = count + (block <= own[:, None]).sum(dim=0)
            recalled.append((block <= radii[1]).any(dim=1))
            covered.append(block.amin(dim=1) <= own)
    if not covered:
        return None
    precision, recall, coverage = (
        x.float().mean().item() for x in (count > 0, torch.cat(recalled), torch.cat(covered))
    )
    return Likeness(precision, recall, count.float().mean().item() / nhood_size, coverage)


def _radii(features, nhood_size, distances):
    """Distance of each feature to its k-th neighbour [N]; None on other ranks than 0"""
    if len(features) <= nhood_size:
        raise ValueError(f"{len(features)} images have no {nhood_size} neighbours each; take more images")
    blocks = [b.kthvalue(nhood_size + 1).values for b in distances(features, features) if b is not None]
    return torch.cat(blocks) if blocks else None


def _blocks(opts, row_batch_size, col_batch_size, rows, columns):
    """The distances of all rows to all columns in blocks of rows, so that memory stays bounded.

    All processes compute; on other ranks than 0 the blocks are None.
    """
    for some_rows in rows.split(row_batch_size):
        yield compute_distances(some_rows, columns, opts.num_gpus, opts.rank, col_batch_size)
