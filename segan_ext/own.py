"""Own coordinates of a generator: how many there are, what they follow, and how far a reading of them is off."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import torch

PRIORS = ("uniform", "gaussian")
_LEAST_UNSEEN = 0.02  # of a number's variance: no Q sees all of it
_UNIFORM = [-math.sqrt(3), math.sqrt(3)]  # the quantiles of a uniform number of deviation 1


def eigen_coordinates(resolution: int, dims: int, prior: str = "uniform") -> list[dict[str, Any]]:
    """`SEGANGenerator(own=)` of mode eigen: `dims` coordinates for each block, of mean 0 and deviation 1; E1.0
    is the first one of block 1."""
    quantiles = _UNIFORM if prior == "uniform" else None
    blocks = int(math.log2(resolution)) - 1
    return [dict(name=f"E{block}", block=block, size=dims, quantiles=quantiles) for block in range(blocks)]


def unnamed_coordinates(size: int) -> dict[str, Any]:
    """A group of `size` coordinates, uniform with deviation 1, for all that labels do not name."""
    return dict(name="unnamed", size=size, quantiles=_UNIFORM, unnamed=True)


def named(groups: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    """The groups that labels speak of: all but what is unnamed"""
    return [group for group in groups if not group.get("unnamed")]


def of_all(codes: torch.Tensor, groups: Sequence[dict[str, Any]]) -> torch.Tensor:
    """Codes of the `named` groups [N, n] among those of all [N, codes]; NaN, not known, for what is unnamed"""
    places = [i for i, group in enumerate(of_each_code(groups)) if not group.get("unnamed")]
    found = codes.new_full([len(codes), sum(widths(groups))], torch.nan)
    found[:, places] = codes
    return found


def of_each_code(groups: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    """The group of every code"""
    return [group for group, size in zip(groups, widths(groups)) for _ in range(size)]


def widths(groups: Sequence[dict[str, Any]]) -> list[int]:
    """How many coordinates each group has"""
    return [len(group["shares"]) if "shares" in group else group["size"] for group in groups]


def code_losses(predicted: torch.Tensor, codes: torch.Tensor, groups: Sequence[dict[str, Any]]) -> torch.Tensor:
    """How far predictions are from codes: half squared errors of numbers, cross-entropies of values.

    predicted: [N, codes], logits for values. codes: [N, codes], NaN for what is not known. → [N, groups], whose mean
    over the images is each group's mean over those of which it is known, however few.
    """
    sizes, losses = widths(groups), []
    for group, q, e in zip(groups, predicted.split(sizes, dim=1), codes.split(sizes, dim=1)):
        known = e.isfinite()
        e = torch.where(known, e, 0)
        error = -e * q.log_softmax(dim=1) if "shares" in group else (q - e).square() / 2
        share = known[:, 0].float().mean().clamp(min=1 / len(known))
        losses.append((error * known).sum(dim=1) / share)
    return torch.stack(losses, dim=1)


def centre(groups: Sequence[dict[str, Any]]) -> list[float]:
    """The mean of every code: the shares of values, 0 of numbers"""
    return [x for group in groups for x in group.get("shares") or [0.0] * group["size"]]


def moments(read: torch.Tensor, groups: Sequence[dict[str, Any]]) -> torch.Tensor:
    """What `doubts` and `drawn` need the averages of, of a batch that Q has read [N, codes] → [3, codes].

    The means and mean squares of numbers, and the terms of the entropies of values.
    """
    terms = []
    for group, q in zip(groups, read.split(widths(groups), dim=1)):
        terms.append(-q.softmax(dim=1) * q.log_softmax(dim=1) if "shares" in group else torch.zeros_like(q))
    return torch.stack([read, read.square(), torch.cat(terms, dim=1)]).mean(dim=1)


def first_moments(groups: Sequence[dict[str, Any]]) -> torch.Tensor:
    """`moments` of a Q that knows nothing [3, codes]: it always says the mean, and the shares"""
    entropies = [-x * math.log(x) for group in groups for x in group.get("shares") or [1.0] * group["size"]]
    return torch.tensor([[0.0] * len(entropies), [0.0] * len(entropies), entropies])


def doubts(average: torch.Tensor, groups: Sequence[dict[str, Any]]) -> torch.Tensor:
    """The `code_losses` [groups] of real images, whose codes nobody knows, from average `moments` [3, codes].

    Of values the entropy of what Q says; of a number half of what is missing from its variance, 1.
    """
    parts = zip(groups, _unseen(average).split(widths(groups)), average[2].split(widths(groups)))
    return torch.stack([(terms if "shares" in group else unseen / 2).sum() for group, unseen, terms in parts])


def drawn(read: torch.Tensor, average: torch.Tensor, groups: Sequence[dict[str, Any]]) -> torch.Tensor:
    """Codes [N, codes] that images might have, off which Q reads `read` [N, codes].

    A value as likely as Q says; a number with noise that makes its variance 1. average: `moments` of real images.
    """
    parts, sizes = [], widths(groups)
    for group, q, unseen in zip(groups, read.split(sizes, dim=1), _unseen(average).split(sizes)):
        if "shares" in group:  # the first of several that come at these rates; torch.multinomial would wait for a GPU
            first = (q.softmax(dim=1) / torch.empty_like(q).exponential_()).argmax(dim=1)
            parts.append(torch.nn.functional.one_hot(first, q.shape[1]).to(q.dtype))
        else:
            parts.append(q + unseen.sqrt() * torch.randn_like(q))
    return torch.cat(parts, dim=1)


def _unseen(average):
    """The part of each number's variance that Q does not see"""
    return (1 - average[1] + average[0].square()).clamp(min=_LEAST_UNSEEN)


def skills(predicted: torch.Tensor, codes: torch.Tensor, groups: Sequence[dict[str, Any]]) -> dict[str, float]:
    """{name: share of the mistakes that predictions avoid} of the groups of which enough is known.

    1: none is left (for a number, R²); 0: as many as by always naming the most frequent value, or the mean. predicted,
    codes: as in `code_losses`.
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
