"""Inception Score (Salimans et al. 2016): are single images of a clear class, and all of many classes?"""

import numpy as np

from metrics import detectors, metric_utils
from metrics.frechet_inception_distance import INCEPTION


def compute_is(opts: metric_utils.MetricOptions, num_gen: int, num_splits: int) -> tuple[float, float]:
    """Mean and standard deviation of the score over num_splits parts of num_gen generated images."""
    probabilities = metric_utils.compute_feature_stats_for_generator(
        opts=opts,
        detector_url=opts.detector(detectors.PROBABILITIES, INCEPTION),
        detector_kwargs=dict(no_output_bias=True),
        capture_all=True,
        max_items=num_gen,
    ).get_all()
    if opts.rank != 0:
        return float("nan"), float("nan")
    starts = [i * num_gen // num_splits for i in range(num_splits + 1)]
    scores = [score(probabilities[a:b]) for a, b in zip(starts, starts[1:]) if b > a]
    return float(np.mean(scores)), float(np.std(scores))


def score(probabilities: np.ndarray) -> float:
    """exp of the mean divergence of each row [classes] from the mean row, for [N, classes]"""
    p = probabilities.astype(np.float64)
    mean = p.mean(axis=0, keepdims=True)
    with np.errstate(divide="ignore", invalid="ignore"):
        divergence = np.where(p > 0, p * (np.log(p) - np.log(mean)), 0)  # 0 · log 0 = 0
    return float(np.exp(divergence.sum(axis=1).mean()))
