"""A probe: reads attributes off a generator's own features, learned from a few labelled latents.

Features of a generator know what it draws: a ridge regression on them needs a fraction of the labels that a network on
images needs (DatasetGAN, Zhang et al. 2021, shows the same for labels of pixels).
"""

from collections.abc import Sequence
from typing import NamedTuple

import torch

from segan_ext.latents import random_ws
from segan_ext.layers import FeatureHooks
from segan_ext.metrics.attributes import Attribute

WHOLE = "the picture as a whole"
_SIDE = 4  # features are averaged down to 4×4, the image to 8×8
_PENALTIES = (1e-3, 3e-3, 1e-2, 3e-2, 1e-1, 0.3, 1.0)
_COMPONENTS, _PICTURES = 32, 600  # principal components of what pictures show, and of how many


def all_features(hooks: FeatureHooks, ws: torch.Tensor) -> dict[str, torch.Tensor]:
    """{layer: its features [N, F], averaged down to 4×4; "image": the image, to 8×8} of ws [N, num_ws, w_dim]"""
    images, features = hooks(ws, noise_mode="const")
    pooled = {name: _pooled(x, _SIDE) for name, x in zip(hooks.names, features)}
    return pooled | dict(image=_pooled(images.float(), 2 * _SIDE))


def _pooled(x, side):
    return torch.nn.functional.adaptive_avg_pool2d(x, min(side, x.shape[-1])).flatten(1)


class Head(NamedTuple):
    """A linear function of the features of some layers, [N, F] each: (features − mean) @ weights + bias."""

    names: tuple[str, ...]
    mean: torch.Tensor
    weights: torch.Tensor
    bias: torch.Tensor

    def __call__(self, features: dict[str, torch.Tensor]) -> torch.Tensor:
        """[N, outputs] of `all_features`"""
        return (torch.cat([features[name] for name in self.names], dim=1) - self.mean) @ self.weights + self.bias


class Probe:
    """Attributes of the images of latents, by several regressions that make their mistakes apart.

    labelled: attributes that it has learned; attributes: those and `WHOLE`, the principal components of all that
    pictures show, which stands for what nobody has labelled. skill: {name: share of the labels' variance that it
    explains on labels left out}.
    `probe(ws)` runs G under the edits in force: ws [N, num_ws, w_dim] → [heads, N, Σ width], a number for each value of
    an attribute (about 1 where it has it) or a quantity. Differentiable. weights [heads, Σ width]: how far to trust
    each head, of sum 1.
    """

    def __init__(
        self, G: torch.nn.Module, ws: torch.Tensor, attributes: Sequence[Attribute], rows: torch.Tensor
    ) -> None:
        """ws [N, num_ws, w_dim]; rows [N, attributes], as in `labels.Labels`. ValueError for fewer than 4 labels."""
        self.G, self.labelled, self.hooks = G, list(attributes), FeatureHooks(G)
        known = self._features(ws)
        targets = torch.cat([_targets(a, row) for a, row in zip(self.labelled, rows.t())], dim=1).to(ws.device)
        last = self.hooks.names[-1]
        groups = [(name,) for name in self.hooks.names[-3:]] + [(last, "image")]
        fits = [_fit(names, known, targets) for names in groups]
        self.heads, errors = [head for head, _ in fits], torch.stack([error for _, error in fits])
        trust = errors.clamp(min=1e-4) ** -2
        trust = trust / trust.sum(dim=0)
        self.skill = self._skill((errors * trust).sum(dim=0), targets)
        self.whole = _components((last, "image"), self._features(random_ws(G, _PICTURES, seed=71)))
        self.attributes = [*self.labelled, Attribute(WHOLE, tuple(map(str, range(self.whole.weights.shape[1]))))]
        self.weights = torch.cat([trust, torch.full_like(self.whole.weights[: len(trust)], 1 / len(trust))], dim=1)

    @torch.no_grad()
    def _features(self, ws):
        parts = [all_features(self.hooks, part) for part in ws.split(self.hooks.batch)]
        return {name: torch.cat([part[name] for part in parts]) for name in parts[0]}

    def __call__(self, ws: torch.Tensor) -> torch.Tensor:
        """[heads, N, Σ width] of ws [N, num_ws, w_dim], under the edits in force"""
        features = all_features(self.hooks, ws)
        whole = self.whole(features)
        return torch.stack([torch.cat([head(features), whole], dim=1) for head in self.heads])

    def mean(self, ws: torch.Tensor) -> torch.Tensor:
        """[N, Σ width]: what the heads say together"""
        return (self(ws) * self.weights[:, None]).sum(dim=0)

    def _skill(self, error, targets):
        variance = torch.stack([column[column.isfinite()].var() for column in targets.t()])
        widths = [a.width for a in self.labelled]
        pairs = zip(self.labelled, error.split(widths), variance.split(widths))
        return {a.name: float(1 - e.sum() / v.sum().clamp(min=1e-12)) for a, e, v in pairs}


def _targets(attribute, row):
    """[N, width]: 1 where an image has the value, or the number itself; NaN where nothing is said"""
    if attribute.values is None:
        return row[:, None].float()
    hot = torch.nn.functional.one_hot(row.nan_to_num().long(), attribute.width).float()
    return torch.where(row.isfinite()[:, None], hot, float("nan"))


def _standardised(names, known):
    """(features of equal weight [N, F], their mean [F], what they were divided by [F])"""
    features = torch.cat([known[name] for name in names], dim=1)
    mean, scale = features.mean(dim=0), features.std(dim=0).clamp(min=1e-3) * features.shape[1] ** 0.5
    return (features - mean) / scale, mean, scale


def _fit(names, known, targets):
    """(`Head`, mean square error of each output on labels left out one at a time)

    The penalty of each output is the one with the smallest such error.
    """
    x, mean, scale = _standardised(names, known)
    found = []
    for column in targets.t():
        said = column.isfinite()
        if said.sum() < 4:
            raise ValueError(f"an attribute has {int(said.sum())} labels; 4 are the least, some dozens are useful")
        found.append(_ridge(x[said], column[said]))
    weights, biases, errors = (torch.stack(each, dim=-1) for each in zip(*found))
    return Head(names, mean, weights / scale[:, None], biases), errors


def _ridge(x, y):
    """(weights [F], bias, mean square error with each row left out in turn) of the penalty with the least such error"""
    center, origin, best = x.mean(dim=0), y.mean(), None
    x, y = x - center, y - origin
    gram = x @ x.t()
    for penalty in _PENALTIES:
        inverse = torch.linalg.inv(gram + penalty * torch.eye(len(x), device=x.device))
        dual = inverse @ y
        # The hat matrix is I − penalty · inverse, and 1/N more for the bias.
        error = (penalty * dual / (penalty * inverse.diagonal() - 1 / len(x))).square().mean()
        if best is None or error < best[2]:
            weights = x.t() @ dual
            best = weights, origin - center @ weights, error
    return best


def _components(names, known):
    """`Head` of the widest principal components"""
    x, mean, scale = _standardised(names, known)
    axes = torch.linalg.svd(x, full_matrices=False)[2][:_COMPONENTS]
    return Head(names, mean, axes.t() / scale[:, None], torch.zeros(len(axes), device=x.device))
