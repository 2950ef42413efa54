"""Kernel Inception Distance (Bińkowski et al. 2018): how far two clouds of features are apart, without bias."""

import numpy as np

from metrics import detectors, metric_utils
from metrics.frechet_inception_distance import INCEPTION


def compute_kid(
    opts: metric_utils.MetricOptions, max_real: int | None, num_gen: int, num_subsets: int, max_subset_size: int
) -> float:
    """KID between the images of the data set (max_real at most) and num_gen generated ones: a mean over random subsets.

    The subsets are drawn with NumPy's global generator.
    """
    detector = opts.detector(detectors.FEATURES, INCEPTION)
    both = metric_utils.features_of_both(opts, detector, max_real, num_gen, capture_all=True)
    real, generated = (stats.get_all() for stats in both)
    return kernel_distance(generated, real, num_subsets, max_subset_size) if opts.rank == 0 else float("nan")


def kernel_distance(a: np.ndarray, b: np.ndarray, num_subsets: int, max_subset_size: int) -> float:
    """Squared maximum mean discrepancy of features [N, F] and [M, F], estimated without bias, under (x·y/F + 1)³.

    The mean over random subsets of at most max_subset_size rows.
    """
    size = min(len(a), len(b), max_subset_size)
    if size < 2:
        raise ValueError("a kernel distance needs two images of each kind at least")
    total = 0
    for _ in range(num_subsets):
        x, y = (each[np.random.choice(len(each), size, replace=False)].astype(np.float64) for each in (a, b))
        within = _kernel(x, x) + _kernel(y, y)
        total += (within.sum() - np.trace(within)) / (size * (size - 1)) - 2 * _kernel(x, y).mean()
    return float(total / num_subsets)


def _kernel(x, y):
    return (x @ y.T / x.shape[1] + 1) ** 3
