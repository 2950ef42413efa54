"""How purely single dimensions move single attributes, and the state of the subspaces they belong to."""

from collections.abc import Callable, Sequence
from typing import NamedTuple

import torch

from metrics import metric_utils
from metrics.metric_main import register_metric
from segan_ext.control.address import Address
from segan_ext.control.sweep import Moved, Progress, sweep
from segan_ext.latents import coordinate_sigmas, random_ws
from segan_ext.metrics.attributes import hardly_varies
from segan_ext.metrics.shared import check_subspaces, counted, generator_of, open_predictor_of
from torch_utils import cached_weights

Predict = Callable[[torch.Tensor], dict[str, torch.Tensor]]  # such as `attributes.Predictor`


class Purity(NamedTuple):
    """What a dimension does to attributes.

    effects: mean change of each attribute's prediction from −2σ to +2σ, in units of the attribute's own deviation.
    """

    address: Address
    effects: dict[str, float]

    @property
    def strength(self) -> float:
        """Sum of the effects"""
        return sum(self.effects.values())

    @property
    def attribute(self) -> str:
        """The attribute that is moved most"""
        return max(self.effects, key=self.effects.get)

    @property
    def purity(self) -> float:
        """That attribute's share of the strength, 1 / number of attributes to 1; 0 where nothing moves"""
        return self.effects[self.attribute] / self.strength if self.strength else 0.0


class AttributeEffects:
    """Measures how far dimensions move attributes, batch by batch of `control.sweep.sweep`.

    predict: images [N, C, H, W] in [−1, 1] → {attribute: numbers or probabilities [N, k]}, such as
    `attributes.Predictor`. names: of the attributes that count (None: all). Effects are in units of each attribute's
    deviation over random images of G; what hardly varies there (`attributes.hardly_varies`) is left out.
    """

    def __init__(self, G: torch.nn.Module, predict: Predict, names: Sequence[str] | None = None, seed: int = 0) -> None:
        self.predict, self.deviations = predict, _deviations(G, predict, names, seed)

    def of(self, moved: Moved) -> list[Purity]:
        """`Purity` of each dimension of a `Moved`"""
        low, high = (self.predict(images.flatten(0, 1)) for images in (moved.low, moved.high))
        effects = {
            name: ((high[name] - low[name]).norm(dim=1) / deviation).unflatten(0, moved.low.shape[:2]).mean(dim=1)
            for name, deviation in self.deviations.items()
        }
        addresses = [Address(*moved.layer, d) for d in moved.dims]
        return [Purity(a, {name: float(e[i]) for name, e in effects.items()}) for i, a in enumerate(addresses)]


@torch.no_grad()
def measure(
    G: torch.nn.Module,
    predict: Predict,
    names: Sequence[str] | None = None,
    samples: int = 8,
    batch: int = 64,
    seed: int = 0,
    progress: Progress | None = None,
) -> list[Purity]:
    """`Purity` of every dimension of G, in order of address.

    predict, names: of `AttributeEffects`. samples: latents that every dimension is moved on. batch, progress: of
    `control.sweep.sweep`.
    """
    effects = AttributeEffects(G, predict, names, seed)
    batches = sweep(G, random_ws(G, samples, seed), coordinate_sigmas(G, seed=seed), batch=batch, progress=progress)
    return [purity for moved in batches for purity in effects.of(moved)]


def overall(purities: Sequence[Purity]) -> float:
    """The mean purity, each dimension weighted by its strength; 0 where nothing moves."""
    strength = sum(p.strength for p in purities)
    return sum(p.purity * p.strength for p in purities) / strength if strength else 0.0


def by_subspace(purities: Sequence[Purity]) -> dict[tuple[int, int], float]:
    """{(L, N): overall purity of its dimensions}"""
    layers = dict.fromkeys(p.address.layer for p in purities)
    return {layer: overall([p for p in purities if p.address.layer == layer]) for layer in layers}


@torch.no_grad()
def _deviations(G, predict, names, seed, samples=512, batch=64):
    """{attribute: root of the total variance of its prediction over images of G}, without those that hardly vary"""
    ws = random_ws(G, samples, seed + 1)
    predictions = [predict(G.synthesis(part, noise_mode="const")) for part in ws.split(batch)]
    chosen = names if names is not None else list(predictions[0])
    said, usual = {n: torch.cat([p[n] for p in predictions]) for n in chosen}, getattr(predict, "deviations", {})
    varying = {n: outputs for n, outputs in said.items() if not hardly_varies(outputs, usual.get(n))}
    return {n: outputs.var(dim=0).sum().sqrt().item() for n, outputs in varying.items()}


@register_metric(higher="purity")
def purity(opts: metric_utils.MetricOptions) -> dict[str, float]:
    """How far single dimensions move single attributes, 1 being one attribute each (needs attributes and subspaces)"""
    check_subspaces(opts)
    predictor, G = open_predictor_of(opts), generator_of(opts)
    dims = sum(subspace.dims for subspace in G.subspaces().values())
    samples = max(opts.count(16 * dims) // (2 * dims), 1)  # latents that every dimension is moved on
    opts.protocol["num_gen"] = opts.num_gen or "16 a dimension"
    opts.protocol["version"] = 3  # 1 drew other latents; in 2 what hardly varies swamped all
    with cached_weights.enabled():
        found = measure(
            G, predictor, predictor.reliable(), samples, seed=opts.seed or 0, progress=counted(opts, "purity")
        )
    opts.details |= {
        str(p.address): dict(purity=p.purity, strength=p.strength, attribute=p.attribute, effects=p.effects)
        for p in found
    }
    opts.details |= {f"L{L}.N{N}": dict(purity=value) for (L, N), value in by_subspace(found).items()}
    return dict(purity=overall(found))
