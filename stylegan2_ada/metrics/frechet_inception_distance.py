"""Fréchet Inception Distance (Heusel et al. 2017): how far two clouds of features are apart, taken for Gaussians."""

import numpy as np

from metrics import detectors, metric_utils

INCEPTION = "https://nvlabs-fi-cdn.nvidia.com/stylegan2-ada-pytorch/pretrained/metrics/inception-2015-12-05.pt"


def compute_fid(opts: metric_utils.MetricOptions, max_real: int | None, num_gen: int) -> float:
    """FID between all images of the data set (max_real at most, None: all) and num_gen generated ones."""
    detector = opts.detector(detectors.FEATURES, INCEPTION)
    both = metric_utils.features_of_both(opts, detector, max_real, num_gen, capture_mean_cov=True)
    real, generated = (stats.get_mean_cov() for stats in both)
    if opts.rank != 0:
        return float("nan")
    if num_gen < len(generated[0]):
        print(f"FID of {num_gen} images with {len(generated[0])} features each is far too large; KID is not biased.")
    return frechet_distance(*generated, *real)


def frechet_distance(mean_a: np.ndarray, cov_a: np.ndarray, mean_b: np.ndarray, cov_b: np.ndarray) -> float:
    """‖μ_a − μ_b‖² + tr(Σ_a + Σ_b − 2 (Σ_a Σ_b)^½), for means [F] and covariances [F, F] in float64.

    The root's trace is the sum of the singular values of Σ_a^½ Σ_b^½, which also exists for singular matrices.
    """
    singular_values = np.linalg.svd(_root(cov_a) @ _root(cov_b), compute_uv=False)
    return float(np.square(mean_a - mean_b).sum() + np.trace(cov_a) + np.trace(cov_b) - 2 * singular_values.sum())


def _root(covariance):
    values, vectors = np.linalg.eigh(covariance)
    return (vectors * np.sqrt(values.clip(min=0))) @ vectors.T
