"""Directions with a name: each moves one attribute and holds the others, through all layers at once or one alone.

Closed form first, from the Jacobian J of the attributes at many latents: the direction d that moves attribute a by one
and changes the others least, (Σ_b E[J_bᵀJ_b] + λI)⁻¹ E[J_a]. Then gradient steps on what counts, the attribute's share
of all effects (`metrics.selectivity`), on latents drawn anew.
"""

import functools
import math
import os
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path

import torch

from segan_ext.control.named import Layer, NamedDirection, named_directions
from segan_ext.directions.probe import WHOLE, Probe
from segan_ext.directions.subspaces import with_directions
from segan_ext.latents import coordinates_of, covariance_root, random_ws, ws_of_seeds
from segan_ext.metrics.attributes import (
    Attribute,
    Predictor,
    deviations_of_numbers,
    hardly_varies,
    open_predictor,
)
from segan_ext.metrics.labels import SUFFIXES, Labels, read_labels
from segan_ext.networks import SEGANGenerator

Count = Callable[[range], Iterable[int]]  # hands on what it gets, and shows how far the work is; tqdm is one

STEPS = 100  # of the refinement
TELLABLE = 0.2  # skill of a probe from which on an attribute is worth a direction
_JACOBIANS, _TRIED, _HELD_OUT = 128, 48, 128  # latents
_BATCH = 24  # latents a step
_RIDGES = (10.0, 1.0)  # λ, in units of the mean eigenvalue; the first alone where little is known to choose by
_RANDOM = 24  # directions that stand for chance
_RENDERED = 3  # starts of either kind, those that look best by the Jacobian
_ALONE = 0.9  # what the share of a direction of one layer counts beside one of all layers: it is chosen among many
_EFFECT = 1.6  # deviations from −1 to +1 that a start is scaled to
_LONGEST = 0.55  # a start's root mean square of whitened offsets: far beyond, images are none of the generator's
_SAFE = 0.9  # share of the best selectivity that the ends of a slider still have


class Scores:
    """What attributes the images of latents have, in deviations over the generator's images.

    read: ws [N, num_ws, w_dim] → [heads, N, Σ width], under the edits in force, differentiable. weights [heads, Σ
    width]: of each head's effects in the whole. deviations: {name: over data}, where known, as a `Predictor` has them.
    steady: names of attributes that hardly vary in these images; effects on them, in deviations, say nothing.
    """

    def __init__(
        self,
        G: torch.nn.Module,
        read: Callable[[torch.Tensor], torch.Tensor],
        attributes: Sequence[Attribute],
        weights: torch.Tensor,
        batch: int = 32,
        seed: int = 0,
        deviations: Mapping[str, float] = {},
    ) -> None:
        self.G, self.read, self.attributes, self.batch = G, read, list(attributes), batch
        self.widths = [a.width for a in self.attributes]
        self.weights = weights
        self.shares = torch.stack([part.mean(dim=1) for part in weights.split(self.widths, dim=1)], dim=1)
        with torch.no_grad():
            parts = [self.mean(ws, units=False) for ws in random_ws(G, 512, seed + 1).split(batch)]
        parts = list(zip(self.attributes, torch.cat(parts).split(self.widths, dim=1)))
        self.steady = {a.name for a, said in parts if hardly_varies(said, deviations.get(a.name))}
        units = [said.var(dim=0).sum().sqrt().clamp(min=1e-6) for _, said in parts]
        self.units = torch.cat([unit.expand(width) for unit, width in zip(units, self.widths)])

    def mean(self, ws: torch.Tensor, units: bool = True) -> torch.Tensor:
        """[N, Σ width]: the heads' weighted mean"""
        found = (self.read(ws) * self.weights[:, None]).sum(dim=0)
        return found / self.units if units else found

    def effects(self, ws: torch.Tensor, offsets: dict[Layer, torch.Tensor]) -> torch.Tensor:
        """[N, attributes]: how far each is moved from −offsets to +offsets, each head's change for itself.

        Heads are weighed by their trust, so that what only one of them believes in does not count for much.
        """
        low, high = (self._at(ws, sign, offsets) for sign in (-1, 1))
        parts = ((high - low) / self.units).split(self.widths, dim=-1)
        sizes = torch.stack([part.square().sum(dim=-1).add(1e-8).sqrt() for part in parts], dim=-1)
        return (sizes * self.shares[:, None]).sum(dim=0)

    def towards(self, ws: torch.Tensor, offsets: dict[Layer, torch.Tensor]) -> torch.Tensor:
        """[Σ width]: mean change from −offsets to +offsets, with its sign"""
        low, high = (self._at(ws, sign, offsets) for sign in (-1, 1))
        return ((high - low).mean(dim=1) * self.weights).sum(dim=0) / self.units

    def _at(self, ws, sign, offsets):
        with self.G.edited(offsets={layer: sign * offset for layer, offset in offsets.items()}):
            return self.read(ws)


def scores_of_probe(probe: Probe) -> Scores:
    """`Scores` by a probe, learned from labels"""
    deviations = deviations_of_numbers(probe.attributes)
    return Scores(probe.G, probe, probe.attributes, probe.weights, probe.hooks.batch, deviations=deviations)


def find_named(
    G: torch.nn.Module,
    scores: Scores,
    names: Sequence[str] | None = None,
    hold: Sequence[str] | None = None,
    steps: int = STEPS,
    seed: int = 0,
    source: str = "",
    count: Count = iter,
    towards: Mapping[str, str] = {},
) -> list[NamedDirection]:
    """One `NamedDirection` for each attribute of `names` (None: all that `scores` knows).

    G: with subspaces, in whose coordinates directions lie (`as_editable`). hold: attributes that must not change (None:
    all others). steps: of the refinement, each on 24 latents. source: goes into what is known of each. towards:
    {attribute: the value that + leads to}; not said, + leads to larger numbers, to the second of two values, and of
    more to the one that it changes most.
    """
    finder = _Finder(G, scores, hold, seed)
    names = [a.name for a in scores.attributes if a.name != WHOLE] if names is None else names
    turns = iter(count(range(len(names) * max(steps, 1))))
    found = []
    for name in names:
        start = finder.start(name)
        theta = finder.refined(start, name, steps, turns)
        found.append(finder.described(theta, name, source, towards.get(name)))
    for _ in turns:
        pass
    return found


class _Finder:
    """Works in whitened offsets θ [P] of all layers at once: offsets of a layer are its part of θ times `roots`."""

    def __init__(self, G, scores, hold, seed):
        self.G, self.scores, self.seed = G, scores, seed
        self.names = [a.name for a in scores.attributes]
        self.counted = {name: self._counted(name, hold) for name in self.names}
        self.roots = {layer: covariance_root(c).float().to(c.device) for layer, c in coordinates_of(G).items()}
        self.sizes = [len(root) for root in self.roots.values()]
        jacobians = [self._jacobian(ws) for ws in random_ws(G, _JACOBIANS, seed + 2).split(scores.batch)]
        self.J = torch.cat(jacobians)  # [latents, Σ width, P]

    def _counted(self, name, hold):
        """[attributes]: how much a change of each counts for `name`

        The picture as a whole stands for what nobody has labelled, and the less so the more is labelled. Of others that
        hardly vary every change would be many deviations: they do not count.
        """
        whole, steady = 1 / max(len(self.names) - 1, 1), self.scores.steady - {name}
        counts = [whole if n == WHOLE else float(hold is None or n in (name, *hold)) for n in self.names]
        counts = [0.0 if n in steady else count for n, count in zip(self.names, counts)]
        return torch.tensor(counts, device=_device(self.G))

    def offsets(self, theta):
        """{(L, N): [..., K]} of θ [..., P]; layers that it does not move are left out"""
        parts = zip(self.roots.items(), theta.split(self.sizes, dim=-1))
        return {layer: part @ root.t() for (layer, root), part in parts if part.any()}

    def _jacobian(self, ws):
        theta = torch.zeros(len(ws), sum(self.sizes), device=ws.device, requires_grad=True)
        parts = zip(self.roots.items(), theta.split(self.sizes, dim=1))
        with self.G.edited(offsets={layer: part @ root.t() for (layer, root), part in parts}):
            columns = self.scores.mean(ws).sum(dim=0)
        last = len(columns) - 1
        rows = [torch.autograd.grad(y, theta, retain_graph=k < last)[0] for k, y in enumerate(columns)]
        return torch.stack(rows, dim=1)

    def _own(self, a):
        """Which of Σ width are attribute a's"""
        first = sum(self.scores.widths[:a])
        return slice(first, first + self.scores.widths[a])

    def _can_choose(self):
        """True if enough attributes are known that the best of many directions is more than a lucky one"""
        return len(self.names) > 3

    # Closed form

    def start(self, name):
        """The start [P] whose images move `name` most selectively, scaled so that ±1 moves it by 1.6 deviations"""
        a = self.names.index(name)
        own = self._own(a)
        everywhere = self._closed_form(a, own, None)
        alone = range(len(self.sizes)) if self._can_choose() else ()
        candidates = torch.cat([everywhere, *(self._closed_form(a, own, part) for part in alone)])
        effects = self._linear_effects(candidates)
        longest = 2 * _LONGEST * (candidates != 0).sum(dim=1).sqrt()  # from end to end
        shares = self._share(effects, a) * (effects[:, a] * longest >= _EFFECT)
        ws = random_ws(self.G, _TRIED, self.seed + 3)
        best = None
        best_of = lambda part, first: (part.argsort(descending=True)[:_RENDERED] + first).tolist()
        rendered = best_of(shares[: len(everywhere)], 0) + best_of(shares[len(everywhere) :], len(everywhere))
        for i in rendered:
            theta = self._scaled(candidates[i], ws, a)
            effects = self._mean_effects(ws, theta)
            share = float(self._share(effects[None], a)) * (float(effects[a]) >= 1)
            share *= 1 if i < len(everywhere) else _ALONE
            if best is None or share > best[0]:
                best = share, theta
        return best[1]

    def _closed_form(self, a, own, part):
        """[candidates, P] of unit length: for each value of attribute a and each λ, in one layer or (None) in all"""
        first = 0 if part is None else sum(self.sizes[:part])
        columns = slice(first, None if part is None else first + self.sizes[part])
        counts = self.counted[self.names[a]].repeat_interleave(torch.tensor(self.scores.widths).to(self.J.device))
        held = counts > 0
        held[own] = False
        J = self.J[:, :, columns]
        X = (J * counts[:, None])[:, held].flatten(0, 1) / math.sqrt(len(J))  # XᵀX: how far the others are moved
        goals = J[:, own].mean(dim=0)  # [values, P]
        ridges = _RIDGES if self._can_choose() else _RIDGES[:1]
        found = [_least_squares(X, goals, ridge) for ridge in ridges] if len(X) else [goals]
        thetas = self.J.new_zeros(sum(map(len, found)), self.J.shape[2])
        thetas[:, columns] = torch.cat(found)
        return thetas / thetas.norm(dim=1, keepdim=True).clamp(min=1e-12)

    def _linear_effects(self, thetas):
        """[candidates, attributes], as the Jacobian foretells them"""
        change = torch.einsum("swp,mp->msw", self.J, thetas)
        parts = change.split(self.scores.widths, dim=-1)
        return torch.stack([part.norm(dim=-1).mean(dim=1) for part in parts], dim=1)

    def _share(self, effects, a):
        """Selectivity of each row of effects [..., attributes]"""
        return effects[..., a] / (effects * self.counted[self.names[a]]).sum(dim=-1).clamp(min=1e-12)

    def _scaled(self, theta, ws, a):
        longest = _LONGEST * math.sqrt(int((theta != 0).sum()))
        for _ in range(6):
            effect = float(self._mean_effects(ws, theta)[a])
            theta = theta * min(max(_EFFECT / max(effect, 1e-3), 0.3), 3.0)
            theta = theta * min(longest / max(float(theta.norm()), 1e-12), 1.0)  # a layer may move nothing
        return theta

    @torch.no_grad()
    def _mean_effects(self, ws, theta):
        offsets = self.offsets(theta)
        return torch.cat([self.scores.effects(part, offsets) for part in ws.split(self.scores.batch)]).mean(dim=0)

    @torch.no_grad()
    def _towards(self, ws, theta):
        offsets = self.offsets(theta)
        return sum(self.scores.towards(part, offsets) * len(part) for part in ws.split(self.scores.batch)) / len(ws)

    # Refinement

    def refined(self, theta, name, steps, turns):
        """θ after gradient steps on the logarithm of its selectivity; layers that it does not move stay so."""
        if not steps:
            next(turns, None)
            return theta
        a, moved = self.names.index(name), (theta != 0).to(theta)
        theta = theta.clone().requires_grad_(True)
        optimizer = torch.optim.Adam([theta], lr=0.03)
        schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, steps)
        pool = random_ws(self.G, max(steps * _BATCH, 1), self.seed + 4)
        for ws in pool.split(_BATCH):
            next(turns, None)
            offsets = self.offsets(theta * moved)
            total = 0
            for part in ws.split(self.scores.batch):
                total = total + self.scores.effects(part, offsets).sum(dim=0)
            effects = total / len(ws)
            short = (1.3 - effects[a]).clamp(min=0)  # it has to move by a deviation at least
            loss = -self._share(effects, a).clamp(min=1e-4).log() + 2 * short + 2e-3 * theta.square().sum()
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            schedule.step()
        return theta.detach() * moved

    # What it does

    def described(self, theta, name, source, towards):
        """The `NamedDirection`, measured on latents that nothing before has seen; + leads to the value `towards`"""
        a, ws = self.names.index(name), random_ws(self.G, _HELD_OUT, self.seed + 5)
        reaches = (0.5, 0.75, 1.0, 1.5, 2.0)
        effects = torch.stack([self._mean_effects(ws, theta * reach) for reach in reaches])
        shares = self._share(effects, a)
        reached = effects[:, a] >= 1
        best = int(torch.where(reached, shares, -1.0).argmax()) if reached.any() else len(reaches) - 1
        fine = [i for i in range(best, len(reaches)) if shares[i] >= _SAFE * shares[best]]
        unit = 2 * reaches[best] / max(float(effects[best, a]), 1e-3)  # in steps of θ
        reach = reaches[fine[-1]] / unit
        attribute = self.scores.attributes[a]
        own = self._towards(ws, theta * reaches[best])[self._own(a)]
        if own[_leading(attribute, own, towards)] < 0:  # effects are the same either way
            theta, own = -theta, -own
        leak = lambda i: float(effects[best, i] / effects[best, a].clamp(min=1e-3))
        leaks = {n: leak(i) for i, n in enumerate(self.names) if i != a and n not in self.scores.steady}
        offsets = {layer: (offset * unit).cpu() for layer, offset in self.offsets(theta).items()}
        towards = attribute.values[int(own.argmax())] if attribute.values else ""
        selectivity = float(shares[best]) if reached[best] else 0.0
        z = None
        if len(leaks) > 2:
            by_chance = self._share(self._by_chance(), a)
            z = (selectivity - float(by_chance.mean())) / max(float(by_chance.std()), 1e-6)
        return NamedDirection(name, offsets, -reach, reach, towards, selectivity, leaks, z, source)

    @functools.cache  # noqa: B019 (a finder lives for one search)
    def _by_chance(self):
        """[random directions, attributes]: their effects"""
        generator = torch.Generator().manual_seed(self.seed)
        ws, length = random_ws(self.G, _TRIED, self.seed + 6), _LONGEST * math.sqrt(sum(self.sizes))
        thetas = torch.nn.functional.normalize(torch.randn(_RANDOM, sum(self.sizes), generator=generator), dim=1)
        return torch.stack([self._mean_effects(ws, length * theta.to(self.J)) for theta in thetas])


def _leading(attribute, change, towards):
    """Which of an attribute's outputs + raises. change [width]: what a direction does to them"""
    if towards is not None:
        return attribute.values.index(towards)
    return {1: 0, 2: 1}.get(attribute.width, int(change.abs().argmax()))


def _least_squares(X, goals, ridge):
    """goals (XᵀX + λI)⁻¹ up to a factor, λ = ridge · the mean eigenvalue; by the smaller of XᵀX and XXᵀ"""
    penalty = ridge * X.square().sum() / X.shape[1]
    if X.shape[1] <= len(X):
        return torch.linalg.solve(X.t() @ X + penalty * torch.eye(X.shape[1], device=X.device), goals.t()).t()
    gram = X @ X.t() + penalty * torch.eye(len(X), device=X.device)
    return goals - (goals @ X.t()) @ torch.linalg.solve(gram, X)


def _device(G):
    return next(G.buffers()).device


def as_editable(G: torch.nn.Module) -> torch.nn.Module:
    """G itself if it has subspaces; else a generator with its images whose coordinates are each layer's whole w."""
    return G if getattr(G, "subspaces", dict)() else with_directions(G, {}, G.w_dim)


@torch.no_grad()
def with_named(G: torch.nn.Module, found: Sequence[NamedDirection]) -> SEGANGenerator:
    """A generator with G's weights and G's named directions, but those of `found` instead where names are the same.

    G: with subspaces, such as `as_editable` gives. Where one of its own coordinates has the name, it keeps it, and the
    other is called "(found)" besides.
    """
    taken = {known["name"] for known, _ in G.own_controls()}
    found = [each._replace(name=f"{each.name} (found)") if each.name in taken else each for each in found]
    before = [each for name, each in named_directions(G).items() if name not in taken]
    kept = {direction.name: direction for direction in [*before, *found]}
    kwargs = dict(G.init_kwargs) | dict(directions=[each.known() for each in kept.values()])
    made = type(G)(*G.init_args, **kwargs).eval().requires_grad_(False).to(_device(G))
    if getattr(G, "label_examples", None) is not None:
        made.label_examples = G.label_examples
    made.load_state_dict({k: v for k, v in G.state_dict().items() if k != "direction_offsets"}, strict=False)
    for row, each in zip(made.direction_offsets, kept.values()):
        row.copy_(torch.cat([each.offsets.get(x, torch.zeros(s.dims)).cpu() for x, s in made.subspaces().items()]))
    return made


def scores_of(G: torch.nn.Module, path: str | os.PathLike, class_idx: int = 0) -> tuple[Scores, str]:
    """(`Scores`, what they were learned from) of a CSV of labelled seeds, or of whatever `open_predictor` opens.

    A predictor labels 1000 images, from which a probe learns: what gradients of an image network find are changes that
    nobody sees. G: with subspaces. class_idx: of the seeds' images. OSError or ValueError, in one sentence, for
    anything else.
    """
    if not is_table(path):
        predictor = open_predictor(path, _device(G))
        return scores_of_probe(probe_of_predictor(G, predictor)), f"predictor {predictor.name}"
    return scores_of_labels(G, labels_of_seeds(path), class_idx)


def is_table(path: str | os.PathLike) -> bool:
    """Whether `scores_of` takes a file for a CSV"""
    return Path(path).suffix.lower() in SUFFIXES


def labels_of_seeds(path: str | os.PathLike) -> Labels:
    """The labels of a CSV. OSError, or ValueError, in one sentence, for what is none, or of files of a data set."""
    labels = read_labels(path)
    if labels.kind != "seed":
        raise ValueError(f"{path} labels files of a data set; directions are found from labels of a generator's seeds")
    return labels


def scores_of_labels(G: torch.nn.Module, labels: Labels, class_idx: int = 0) -> tuple[Scores, str]:
    """`scores_of` labelled seeds"""
    ws = ws_of_seeds(G, labels.keys, class_idx=class_idx)
    return scores_of_probe(Probe(G, ws, labels.attributes, labels.rows)), f"{len(labels.keys)} labelled images"


@torch.no_grad()
def probe_of_predictor(G: torch.nn.Module, predictor: Predictor, count: int = 1000, seed: int = 0) -> Probe:
    """A `Probe` of the attributes that a predictor knows reliably and sees in G's images, from so many of them.

    ValueError if it sees none: every image is the same to it.
    """
    ws = random_ws(G, count, seed + 8)
    said = [predictor(G.synthesis(part, noise_mode="const")) for part in ws.split(32)]
    attributes, rows = [], []
    for attribute in predictor.attributes:
        found = torch.cat([each[attribute.name] for each in said])
        row = found.argmax(dim=1).double() if attribute.values else found[:, 0].double()
        if attribute.name in predictor.reliable() and len(row.unique()) > 1:
            attributes.append(attribute)
            rows.append(row)
    if not attributes:
        raise ValueError(f"{predictor.name} sees no attribute vary in the images of this generator")
    return Probe(G, ws, attributes, torch.stack(rows, dim=1))
