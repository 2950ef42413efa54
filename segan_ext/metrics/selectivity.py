"""How selectively directions move attributes: one attribute each, the others held.

The unit of every effect is the attribute's own deviation over the generator's images. The measure follows attribute
dependency (StyleSpace, Wu et al. 2021) and the entropies of DCI (Eastwood and Williams 2018), on interventions.
"""

import math
from collections.abc import Callable, Iterable, Sequence
from typing import NamedTuple

import torch

from segan_ext.control.alike import originals, signature
from segan_ext.control.traversal import rank_dimensions
from segan_ext.latents import SIGMA_SAMPLES, coordinates_of, covariance_root, random_w, random_ws
from segan_ext.layers import resume, run_until
from segan_ext.metrics.attributes import Predictor, hardly_varies

Layer = tuple[int, int]
Count = Callable[[Sequence], Iterable]  # hands on what it gets, and shows how far the work is; tqdm is one

STEPS = (1.0, 2.0, 3.0)  # to either side, in units of the directions
REACHED = 1.0  # an effect, in deviations, from which on a direction moves an attribute
SELECTION, HELD_OUT = 64, 128  # latents to choose on, and to report on


class Candidate(NamedTuple):
    """A direction to measure. offsets: {(L, N): [K]} of one step, as `G.edited` takes them."""

    name: str
    offsets: dict[Layer, torch.Tensor]


class Ruler:
    """Scores of a generator's images in units of each attribute's deviation over them.

    predictor: knows the attributes. names: of those that count (None: all that it knows reliably). Attributes that
    hardly vary in these images (`hardly_varies`) have no unit; they count as moved by nothing.
    """

    def __init__(
        self, G: torch.nn.Module, predictor: Predictor, names: Sequence[str] | None = None, seed: int = 0
    ) -> None:
        self.G, self.predictor = G, predictor
        self.names = list(names if names is not None else predictor.reliable())
        parts = [self._raw(G.synthesis(ws, noise_mode="const")) for ws in random_ws(G, 512, seed + 1).split(64)]
        scores = torch.cat(parts)
        self.widths = [a.width for name in self.names for a in predictor.attributes if a.name == name]
        parts = dict(zip(self.names, scores.split(self.widths, dim=1)))
        steady = {name: hardly_varies(part, predictor.deviations.get(name)) for name, part in parts.items()}
        units = [scores.new_tensor(torch.inf) if steady[n] else p.var(dim=0).sum().sqrt() for n, p in parts.items()]
        self.units = torch.cat([unit.expand(width) for unit, width in zip(units, self.widths)])

    def _raw(self, images):
        scores = self.predictor.scores(images)
        return torch.cat([scores[name] for name in self.names], dim=1)

    def __call__(self, images: torch.Tensor) -> torch.Tensor:
        """images [N, C, H, W] in [−1, 1] → [N, Σ width] in deviations"""
        return self._raw(images) / self.units

    def sizes(self, changes: torch.Tensor) -> torch.Tensor:
        """changes [..., Σ width] → how far each attribute moved [..., A], in deviations"""
        return torch.stack([part.norm(dim=-1) for part in changes.split(self.widths, dim=-1)], dim=-1)


class Score(NamedTuple):
    """How well the best direction of an attribute moves it and nothing else.

    effect: in deviations, from −step to +step. selectivity: the attribute's share of all effects, 1 / number of
    attributes to 1. dependency: mean effect on another attribute where this one moves by one deviation. signed: the
    selectivity of the mean changes, which forgives what is up on one image and down on another. Where no direction
    reaches an effect of 1, direction is "", selectivity and signed are 0, dependency is 1.
    """

    attribute: str
    direction: str = ""
    step: float = 0.0
    effect: float = 0.0
    selectivity: float = 0.0
    dependency: float = 1.0
    signed: float = 0.0
    leaks: dict[str, float] = {}


class Selectivity(NamedTuple):
    """scores of every attribute, and their means.

    bootstrap: 1000 means of selectivity, each over held-out latents drawn again. Those of the same seed draw the same
    latents in the same order, so that differences of two methods' are differences on the same latents.
    """

    scores: list[Score]
    selectivity: float
    dependency: float
    signed: float
    bootstrap: list[float]

    @property
    def selectivity_interval(self) -> tuple[float, float]:
        """The 95 % interval of selectivity over latents"""
        return interval(self.bootstrap)

    @property
    def worst(self) -> Score:
        """The score of the attribute that is moved least selectively"""
        return min(self.scores, key=lambda score: score.selectivity)


def own_candidates(G: torch.nn.Module, dims: int | None = None) -> list[Candidate]:
    """Every dimension of G's subspaces, the first `dims` of each layer; a step is one deviation of its coordinate."""
    return [
        Candidate(f"L{L}.N{N}.D{d}", {(L, N): torch.eye(c.shape[1])[d].to(c) * c[:, d].std()})
        for (L, N), c in coordinates_of(G).items()
        for d in range(min(dims or c.shape[1], c.shape[1]))
    ]


def strongest_candidates(G: torch.nn.Module, dims: int, seeds: Sequence[int] = (0, 1)) -> list[Candidate]:
    """Of `own_candidates` the `dims` of each layer that change the images of these seeds most"""
    kept, taken = [], {}
    for each in rank_dimensions(G, seeds):
        layer = each.address.layer
        taken[layer] = taken.get(layer, 0) + 1
        if taken[layer] <= dims:
            kept.append(str(each.address))
    candidates = {candidate.name: candidate for candidate in own_candidates(G)}
    return sorted((candidates[name] for name in kept), key=lambda c: next(iter(c.offsets)))


def named_candidates(G: torch.nn.Module) -> list[Candidate]:
    """The named directions of G; a step is half the way to the end of its range."""
    halves = {known["name"]: known["high"] / 2 for known in getattr(G, "directions", [])}
    named = getattr(G, "named_offsets", dict)()
    return [Candidate(name, {x: o * halves[name] for x, o in offsets.items()}) for name, offsets in named.items()]


def control_candidates(G: torch.nn.Module, dims: int) -> list[Candidate]:
    """What people would move: G's own coordinates where it has them, else the `dims` strongest of each layer"""
    return named_candidates(G) if getattr(G, "own_controls", list)() else strongest_candidates(G, dims)


def rotated_candidates(G: torch.nn.Module, dims: int | None = None, seed: int = 0) -> list[Candidate]:
    """As many directions as `own_candidates`, drawn at random: Haar rotations of each layer's whitened coordinates"""
    generator, found = torch.Generator().manual_seed(seed), []
    for (L, N), c in coordinates_of(G).items():
        K = c.shape[1]
        steps = _rotated(c, generator)
        found += [Candidate(f"L{L}.N{N} rotated {d}", {(L, N): steps[d]}) for d in range(min(dims or K, K))]
    return found


def rotated_controls(G: torch.nn.Module, count: int, seed: int = 0) -> list[Candidate]:
    """`count` directions drawn at random that move all layers, as names do

    Haar rotations of the whitened own coordinates, where G has some; else each layer moves along one of its own.
    """
    generator, own = torch.Generator().manual_seed(seed), getattr(getattr(G, "mapping", None), "own", None)
    if count == 0:
        return []
    if own is not None:
        e = random_w(G, SIGMA_SAMPLES)[:, -own.outputs :].float()
        drawn = torch.cat([_rotated(e, generator) for _ in range(math.ceil(count / own.outputs))])[:count]
        drawn = torch.nn.functional.pad(drawn, [G.w_dim - own.outputs, 0])
        steps = {layer: subspace.coordinates(drawn) for layer, subspace in G.subspaces().items()}
    else:
        repeated = lambda c: [_rotated(c, generator) for _ in range(math.ceil(count / c.shape[1]))]
        steps = {layer: torch.cat(repeated(c)) for layer, c in coordinates_of(G).items()}
    return [Candidate(f"rotated {i}", {layer: each[i] for layer, each in steps.items()}) for i in range(count)]


def _rotated(coordinates, generator):
    """[K, K]: steps of one deviation, by whitened coordinates [N, K], along the axes of a Haar rotation of those"""
    K = coordinates.shape[1]
    rotation = torch.linalg.qr(torch.randn(K, K, generator=generator, dtype=torch.float64))[0]
    return (covariance_root(coordinates) @ rotation).t().float().to(coordinates.device)


@torch.no_grad()
def changes(
    ruler: Ruler, candidates: Sequence[Candidate], ws: torch.Tensor, step: float = 1.0, batch: int = 128
) -> torch.Tensor:
    """[candidates, S, Σ width]: how the scores change from −step to +step on each latent of ws [S, num_ws, w_dim]"""
    G, found = ruler.G, []
    for group in _of_same_layers(candidates):
        first = min(layer[0] for layer in group[0].offsets)
        started = run_until(G, ws, first, noise_mode="const")
        at_a_time = max(batch // len(ws), 1)
        for i in range(0, len(group), at_a_time):
            part = group[i : i + at_a_time]
            rows = torch.arange(len(ws)).repeat(len(part))
            stepped = [ruler(_images(G, started, rows, part, sign * step, len(ws), batch)) for sign in (-1, 1)]
            found.append((stepped[1] - stepped[0]).unflatten(0, (len(part), len(ws))))
    return torch.cat(found)


def _of_same_layers(candidates):
    """Neighbours that move the same layers, together"""
    group = []
    for candidate in candidates:
        if group and group[0].offsets.keys() != candidate.offsets.keys():
            yield group
            group = []
        group.append(candidate)
    if group:
        yield group


def _images(G, started, rows, part, step, S, batch):
    images = []
    layers = part[0].offsets.keys()
    offsets = {x: torch.stack([c.offsets[x] * step for c in part]).repeat_interleave(S, dim=0) for x in layers}
    for chosen in torch.arange(len(rows)).split(batch):
        with G.edited(offsets={x: offset[chosen] for x, offset in offsets.items()}):
            images.append(resume(G, started, rows[chosen], noise_mode="const"))
    return torch.cat(images)


@torch.no_grad()
def measure(
    ruler: Ruler,
    candidates: Sequence[Candidate],
    steps: Sequence[float] = STEPS,
    seed: int = 0,
    count: Count = list,
    selection: int = SELECTION,
    held_out: int = HELD_OUT,
) -> Selectivity:
    """`Selectivity` of the best directions: chosen on `selection` latents, reported on `held_out` others.

    For each attribute the (direction, step) with the highest selectivity among those that move it by 1 deviation.
    """
    ws = random_ws(ruler.G, selection + held_out, seed)
    chosen_on, reported_on = ws[:selection], ws[selection:]
    effects = torch.stack(
        [ruler.sizes(changes(ruler, candidates, chosen_on, step)).mean(dim=1) for step in count(list(steps))]
    )  # [steps, candidates, A]
    shares = torch.where(effects >= REACHED, effects / effects.sum(dim=2, keepdim=True), 0.0)
    scores, sizes = [], []
    for a, name in enumerate(ruler.names):
        best = int(shares[:, :, a].argmax())
        s, i = divmod(best, len(candidates))
        if shares[s, i, a] == 0:
            scores.append(Score(name))
            sizes.append(None)
            continue
        change = changes(ruler, [candidates[i]], reported_on, steps[s])[0]
        scores.append(_score(ruler, a, candidates[i].name, steps[s], change))
        sizes.append(ruler.sizes(change))
    A = len(scores)
    mean = lambda field: sum(getattr(score, field) for score in scores) / A
    return Selectivity(scores, mean("selectivity"), mean("dependency"), mean("signed"), _bootstrap(sizes))


@torch.no_grad()
def effects_of(
    ruler: Ruler, candidates: Sequence[Candidate], step: float = 2.0, seed: int = 0, latents: int = SELECTION
) -> torch.Tensor:
    """[M, A]: mean effects from −step to +step, in deviations, of the candidates that are no copies, strongest first.

    A copy changes images as a stronger one does: |cosine| above 0.9.
    """
    ws = random_ws(ruler.G, latents, seed)
    effects = ruler.sizes(changes(ruler, candidates, ws, step)).mean(dim=1).cpu()
    signatures = torch.cat([signature(part) for part in _image_changes(ruler.G, candidates, ws[:8], step)])
    order = signatures.norm(dim=1).argsort(descending=True)
    first = originals(signatures[order])
    return effects[order][[i for i, original in enumerate(first) if i == original]]


def _image_changes(G, candidates, ws, step):
    """[1, S, C, H, W] of each candidate"""
    rows = torch.arange(len(ws))
    for candidate in candidates:
        started = run_until(G, ws, min(layer[0] for layer in candidate.offsets), noise_mode="const")
        low, high = (_images(G, started, rows, [candidate], s * step, len(ws), len(ws)) for s in (-1, 1))
        yield (high - low)[None]


def entropies(effects: torch.Tensor, candidates: int | None = None) -> tuple[float, float]:
    """(disentanglement, completeness) of effects [M, A], 0 to 1, as DCI takes them of importances (Eastwood 2018).

    1 where each dimension moves one attribute; 1 where each attribute is moved by one dimension. Weighted by how much
    is moved; 0 where nothing is. candidates: how many there were before copies were left out (None: M), in whose
    logarithm completeness is measured, so that it compares between as many.
    """
    effects = effects.double().clamp(min=0)
    if effects.sum() == 0:
        return 0.0, 0.0
    M, A = effects.shape
    return _one_minus_entropy(effects, A), _one_minus_entropy(effects.t(), candidates or M)


def _one_minus_entropy(effects, outcomes):
    totals = effects.sum(dim=1)
    shares = effects / totals.clamp(min=1e-12)[:, None]
    entropy = -torch.xlogy(shares, shares).sum(dim=1) / math.log(max(outcomes, 2))
    return float(((1 - entropy) * totals).sum() / totals.sum())


def _score(ruler, a, direction, step, change):
    size = ruler.sizes(change).mean(dim=0)  # [A]
    signed = ruler.sizes(change.mean(dim=0))
    others = [i for i in range(len(size)) if i != a]
    leak = size[others] / size[a]
    return Score(
        ruler.names[a],
        direction,
        step,
        size[a].item(),
        (size[a] / size.sum()).item(),
        leak.mean().item() if others else 0.0,
        (signed[a] / signed.sum()).item(),
        {ruler.names[i]: leak.item() for i, leak in zip(others, leak)},
    )


def _bootstrap(sizes, draws=1000):
    """Means of selectivity over latents drawn again. sizes: [S, A] one for each attribute, or None where it is 0"""
    S = next((len(size) for size in sizes if size is not None), 0)
    total = torch.zeros(draws)
    if S:
        rows = torch.randint(S, [draws, S], generator=torch.Generator().manual_seed(0))
    for a, size in enumerate(sizes):
        if size is not None:
            means = size.cpu()[rows].mean(dim=1)  # [draws, A]
            total += means[:, a] / means.sum(dim=1)
    return (total / len(sizes)).tolist()


def interval(values: Sequence[float]) -> tuple[float, float]:
    """Where 95 % of the values lie"""
    low, high = torch.tensor(values).quantile(torch.tensor([0.025, 0.975])).tolist()
    return low, high


def chance(
    ruler: Ruler,
    dims: int | None = None,
    rotations: int = 20,
    seed: int = 0,
    count: Count = list,
    controls: int = 0,
    **latents: int,
) -> list[Selectivity]:
    """`measure` of as many random directions as `own_candidates`, with the whole protocol, once a rotation

    controls: how many that move all layers besides, for as many names. latents: selection and held_out of `measure`.
    """
    G, turns = ruler.G, count(list(range(rotations)))
    drawn = lambda i: rotated_candidates(G, dims, seed + i) + rotated_controls(G, controls, seed + i)
    return [measure(ruler, drawn(i), seed=seed, **latents) for i in turns]


def z_score(own: float, others: Sequence[float]) -> float:
    """How many deviations `own` lies above the mean of chance"""
    mean = sum(others) / len(others)
    deviation = math.sqrt(sum((x - mean) ** 2 for x in others) / max(len(others) - 1, 1))
    return (own - mean) / max(deviation, 1e-6)
