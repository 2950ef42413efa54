"""A probe: reads attributes off a generator's own features, learned from a few labelled latents.

Features of a generator know what it draws: a ridge regression on them needs a fraction of the labels that a network on
images needs (DatasetGAN, Zhang et al. 2021, shows the same for labels of pixels).
"""

from collections.abc import Sequence
from typing import NamedTuple

import torch

from segan_ext.layers import FeatureHooks
from segan_ext.metrics.attributes import Attribute

_SIDE = 4  # features are averaged down to 4×4, the image to 8×8
_PENALTIES = (1e-3, 3e-3, 1e-2, 3e-2, 1e-1, 0.3, 1.0)


def all_features(hooks: FeatureHooks, ws: torch.Tensor) -> dict[str, torch.Tensor]:
    """{layer: its features [N, F], averaged down to 4×4; "image": the image, to 8×8} of ws [N, num_ws, w_dim]"""
    images, features = hooks(ws, noise_mode="const")
    pooled = {name: _pooled(x, _SIDE) for name, x in zip(hooks.names, features)}
    return pooled | dict(image=_pooled(images.float(), 2 * _SIDE))


class Head(NamedTuple):
    """A ridge regression on the features of some layers: (features − mean) @ weights. error: left-one-out, [Σ width]"""

    names: tuple[str, ...]
    mean: torch.Tensor
    weights: torch.Tensor
    error: torch.Tensor


class Probe:
    """Attributes of the images of latents, by several regressions that make their mistakes apart.

    attributes: what it knows. skill: {name: share of the labels' variance that it explains on labels left out}.
    `probe(ws)` runs G under the edits in force: ws [N, num_ws, w_dim] → [heads, N, Σ width], a number for each value of
    an attribute (about 1 where it has it) or a quantity. Differentiable. weights [heads, Σ width]: how far to trust
    each head, of sum 1.
    """

    def __init__(
        self,
        G: torch.nn.Module,
        ws: torch.Tensor,
        attributes: Sequence[Attribute],
        rows: torch.Tensor,
    ) -> None:
        """ws [N, num_ws, w_dim]; rows [N, attributes], as in `labels.Labels`. ValueError for fewer than 4 labels."""
        self.G, self.attributes = G, list(attributes)
        self.hooks = FeatureHooks(G)
        with torch.no_grad():
            parts = [all_features(self.hooks, part) for part in ws.split(self.hooks.batch)]
        targets = torch.cat([_targets(a, row) for a, row in zip(self.attributes, rows.t())], dim=1).to(ws.device)
        self.origin = torch.nanmean(targets, dim=0)
        self.heads = []
        for names in _groups(self.hooks.names):
            features = torch.cat([torch.cat([part[name] for name in names], dim=1) for part in parts])
            self.heads.append(_fit(names, features, targets - self.origin))
        errors = torch.stack([head.error for head in self.heads])
        trust = errors.clamp(min=1e-4) ** -2
        self.weights = trust / trust.sum(dim=0)
        self.skill = self._skill(errors, targets)

    def __call__(self, ws: torch.Tensor) -> torch.Tensor:
        """[heads, N, Σ width] of ws [N, num_ws, w_dim], under the edits in force"""
        features = all_features(self.hooks, ws)
        read = lambda head: (torch.cat([features[name] for name in head.names], dim=1) - head.mean) @ head.weights
        return torch.stack([read(head) for head in self.heads]) + self.origin

    def mean(self, ws: torch.Tensor) -> torch.Tensor:
        """[N, Σ width]: what the heads say together"""
        return (self(ws) * self.weights[:, None]).sum(dim=0)

    def _skill(self, errors, targets):
        error = (errors * self.weights).sum(dim=0)  # of the heads apart, which is more than that of their mean
        variance = torch.stack([column[column.isfinite()].var() for column in targets.t()])
        widths = [a.width for a in self.attributes]
        pairs = zip(self.attributes, error.split(widths), variance.split(widths))
        return {a.name: float(1 - e.sum() / v.sum().clamp(min=1e-12)) for a, e, v in pairs}


def _groups(names):
    """Which features go together: the last convolutions, each for itself, and the very last with the image"""
    return [(name,) for name in names[-3:]] + [(names[-1], "image")]


def _pooled(x, side):
    return torch.nn.functional.adaptive_avg_pool2d(x, min(side, x.shape[-1])).flatten(1)


def _targets(attribute, row):
    """[N, width]: 1 where an image has the value, or the number itself; NaN where nothing is said"""
    if attribute.values is None:
        return row[:, None].float()
    hot = torch.nn.functional.one_hot(row.nan_to_num().long(), attribute.width).float()
    return torch.where(row.isfinite()[:, None], hot, float("nan"))


def _fit(names, features, targets):
    """A `Head`; the penalty of each output is the one with the smallest error on labels left out one at a time."""
    mean, deviation = features.mean(dim=0), features.std(dim=0).clamp(min=1e-3)
    x = (features - mean) / deviation / features.shape[1] ** 0.5
    weights, errors = [], []
    for column in targets.t():
        known = column.isfinite()
        if known.sum() < 4:
            raise ValueError(f"an attribute has {int(known.sum())} labels; 4 are the least, some dozens are useful")
        weight, error = _ridge(x[known], column[known])
        weights.append(weight / deviation / features.shape[1] ** 0.5)
        errors.append(error)
    return Head(names, mean, torch.stack(weights, dim=1), torch.stack(errors))


def _ridge(x, y):
    """(weights [F], mean square error with each row left out in turn)"""
    gram, best = x @ x.t(), None
    for penalty in _PENALTIES:
        inverse = torch.linalg.inv(gram + penalty * torch.eye(len(x), device=x.device))
        dual = inverse @ y
        error = (dual / inverse.diagonal()).square().mean()
        if best is None or error < best[1]:
            best = x.t() @ dual, error
    return best
