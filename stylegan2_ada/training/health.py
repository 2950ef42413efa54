"""Says in plain words whether a training run is going well, from what its statistics show."""

import numpy as np
import torch

from metrics.precision_recall import likeness

# Thresholds, with what they mean. They are rules of thumb: a warning is a reason to look, not a verdict.
_NONFINITE = 0.01  # share of optimizer steps whose gradients held NaN or infinity
_SURE = 0.9  # mean sign of D's scores for reals beyond which it tells nearly all of them from fakes
_HIGH_P = 0.8  # beyond this ADA's augmentations begin to show in the images
_COLLAPSED = 0.35  # diversity of the samples relative to that of the real images
_NEIGHBOURS = 3
_REPEATS = 0.25  # recall of the samples relative to that of other real images
_EARLY = 20  # kimg, until which recall is still low everywhere


def diversity(images: torch.Tensor | np.ndarray) -> float:
    """Mean distance between pairs of images [N, C, H, W], as root mean square over pixels shrunk to 16×16."""
    if len(images) < 2:
        return float("nan")
    small = _small(images, 16)
    return float(torch.pdist(small).mean() / np.sqrt(small.shape[1]))


def recall(real: torch.Tensor | np.ndarray, images: torch.Tensor | np.ndarray) -> float:
    """The share of real images [N, C, H, W] that lie among `images` [M, C, H, W], by their 3 nearest neighbours.

    Pixels shrunk to 8×8 are the features: enough to see that all samples of a kind are alike, and at no cost. NaN with
    fewer than 4 of either.
    """
    if min(len(real), len(images)) <= _NEIGHBOURS:
        return float("nan")
    return likeness(_small(real, 8), _small(images, 8), _NEIGHBOURS).recall


def _small(images, points):
    """Images as rows of pixels, shrunk to so many a side"""
    images = torch.as_tensor(images, dtype=torch.float32)
    return torch.nn.functional.adaptive_avg_pool2d(images, min(points, images.shape[-1])).flatten(1)


def assess(
    signs_real: float,
    signs_fake: float,
    augment_p: float,
    adaptive: bool,
    nonfinite: float,
    relative_diversity: float,
    bad_steps: dict[str, tuple[int, int]] = {},
    left_out: dict[str, int] = {},
    one_picture: bool = False,
    relative_recall: float = float("nan"),
    kimg: float = 0,
) -> list[str]:
    """A list of sentences, each a problem and what to change; empty when all is well. NaN means not known.

    signs_real, signs_fake: mean sign of D's scores. augment_p: ADA's p; adaptive: whether it adapts. nonfinite: share
    of steps with non-finite gradients. bad_steps: {phase: their number, and the last}. relative_diversity: of the
    samples, with that of the reals as 1. left_out:
    {statistic: number of its values that were not finite}. one_picture: whether all real images are equal.
    relative_recall: `recall` of the samples, with that of other real images as 1. kimg: how long training has gone on.
    """
    problems = []
    if one_picture:
        problems.append("the data set is one picture: G can only learn to repeat it; use --data with more of them.")
    if nonfinite > _NONFINITE:
        problems.append(
            f"{nonfinite:.0%} of the steps had non-finite gradients: lower --lrate or raise --gamma, or use --fp32=1."
        )
    for phase, (count, last) in bad_steps.items():
        problems.append(f"{count} steps of {phase} had gradients that are not finite, the last of them step {last}.")
    if left_out:
        counts = ", ".join(f"{count} of {name}" for name, count in left_out.items())
        problems.append(f"values that are not finite were left out of the statistics: {counts}.")
    if augment_p > _HIGH_P:
        problems.append(
            f"augment p is {augment_p:.2f}: augmentations begin to show in the images; more data, --mirror=1, "
            "a higher --gamma or a milder --augpipe help."
        )
    if signs_real > _SURE and signs_fake < -_SURE and not (adaptive and augment_p < _HIGH_P):
        problems.append(
            f"D recognises nearly every real image (sign {signs_real:+.2f}) and every fake ({signs_fake:+.2f}): "
            "it memorises; use --aug=ada, a higher --gamma or more data."
        )
    if relative_diversity < _COLLAPSED:
        problems.append(
            f"the samples are {relative_diversity:.0%} as different from each other as real images are: "
            "G collapses; raise --gamma (×2 to ×4), or go back to an earlier snapshot."
        )
    elif relative_recall < _REPEATS and kimg >= _EARLY:
        problems.append(
            f"the samples show {relative_recall:.0%} of the variety that real images have: G repeats itself, or is "
            "still young; if this does not rise, raise --gamma or lower --info, or go back to an earlier snapshot."
        )
    return problems
