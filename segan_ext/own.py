"""Own coordinates of a generator: how many there are, what they follow, and how far a reading of them is off."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import torch

PRIORS = ("uniform", "gaussian")
_UNIFORM = [-math.sqrt(3), math.sqrt(3)]  # the quantiles of a uniform number of deviation 1


def eigen_coordinates(resolution: int, dims: int, prior: str = "uniform") -> list[dict[str, Any]]:
    """`SEGANGenerator(own=)` of mode eigen: `dims` coordinates for each block, of mean 0 and deviation 1; E1.0
    is the first one of block 1."""
    quantiles = _UNIFORM if prior == "uniform" else None
    blocks = int(math.log2(resolution)) - 1
    return [dict(name=f"E{block}", block=block, size=dims, quantiles=quantiles) for block in range(blocks)]


def widths(groups: Sequence[dict[str, Any]]) -> list[int]:
    """How many coordinates each group has"""
    return [len(group["shares"]) if "shares" in group else group["size"] for group in groups]


def code_loss(predicted: torch.Tensor, codes: torch.Tensor, groups: Sequence[dict[str, Any]]) -> torch.Tensor:
    """How far predictions are from codes, summed over the groups: half squared errors, and cross-entropies of values.

    predicted: [N, codes], logits for values. codes: [N, codes], NaN for what is not known. → [N], whose mean is the sum
    of each group's mean over those of which it is known, however few.
    """
    sizes, losses = widths(groups), []
    for group, q, e in zip(groups, predicted.split(sizes, dim=1), codes.split(sizes, dim=1)):
        known = e.isfinite()
        e = torch.where(known, e, 0)
        error = -e * q.log_softmax(dim=1) if "shares" in group else (q - e).square() / 2
        share = known[:, 0].float().mean().clamp(min=1 / len(known))
        losses.append((error * known).sum(dim=1) / share)
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
