"""Precision and recall of generated images (Kynkäänniemi et al. 2019).

Precision: the share of generated images that lie within the manifold of the real ones; recall: the other way round. The
manifold of a set is the union of balls round its features, each as wide as the distance to its k-th neighbour.
"""

import functools

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
    precision = _share_within(real, generated, nhood_size, distances)
    recall = _share_within(generated, real, nhood_size, distances)
    return (precision, recall) if opts.rank == 0 else (float("nan"), float("nan"))


def _share_within(manifold, probes, nhood_size, distances):
    """The share of probes [M, F] that lie within the manifold of features [N, F]; 0 on other ranks than 0."""
    if len(manifold) <= nhood_size:
        raise ValueError(f"{len(manifold)} images have no {nhood_size} neighbours each; take more images")
    radii = [b.kthvalue(nhood_size + 1).values for b in distances(manifold, manifold) if b is not None]
    radii = torch.cat(radii) if radii else None
    within = [(b <= radii).any(dim=1).sum().item() for b in distances(probes, manifold) if b is not None]
    return sum(within) / len(probes)


def _blocks(opts, row_batch_size, col_batch_size, rows, columns):
    """The distances of all rows to all columns in blocks of rows, so that memory stays bounded.

    All processes compute; on other ranks than 0 the blocks are None.
    """
    for some_rows in rows.split(row_batch_size):
        yield compute_distances(some_rows, columns, opts.num_gpus, opts.rank, col_batch_size)
