"""How purely single dimensions move single attributes, and the state of the subspaces they belong to."""

from typing import NamedTuple

import torch

from segan_ext import host

host.activate()

from generate import label_table  # noqa: E402 (the host has to be on the path)
from segan_ext.moves import Address, coordinate_sigmas, sweep  # noqa: E402


class Purity(NamedTuple):
    """What a dimension does to attributes.

    effects: mean change of each attribute's prediction from −2σ to +2σ, in units of the attribute's own deviation.
    """

    address: Address
    effects: dict[str, float]

    @property
    def strength(self):
        """Sum of the effects"""
        return sum(self.effects.values())

    @property
    def attribute(self):
        """The attribute that is moved most"""
        return max(self.effects, key=self.effects.get)

    @property
    def purity(self):
        """That attribute's share of the strength, 1 / number of attributes to 1; 0 where nothing moves"""
        return self.effects[self.attribute] / self.strength if self.strength else 0.0


class AttributeEffects:
    """Measures how far dimensions move attributes, batch by batch of `moves.sweep`.

    predict: images [N, C, H, W] in [−1, 1] → {attribute: numbers or probabilities [N, k]}, such as
    `attributes.Predictor`. names: of the attributes that count (None: all). Effects are in units of each attribute's
    deviation over random images of G; what does not vary there is left out.
    """

    def __init__(self, G, predict, names=None, seed=0):
        self.predict, self.deviations = predict, _deviations(G, predict, names, seed)

    def of(self, moved):
        """`Purity` of each dimension of a `Moved`"""
        low, high = (self.predict(images.flatten(0, 1)) for images in (moved.low, moved.high))
        effects = {
            name: ((high[name] - low[name]).norm(dim=1) / deviation).unflatten(0, moved.low.shape[:2]).mean(dim=1)
            for name, deviation in self.deviations.items()
        }
        addresses = [Address(*moved.layer, d) for d in moved.dims]
        return [Purity(a, {name: float(e[i]) for name, e in effects.items()}) for i, a in enumerate(addresses)]


@torch.no_grad()
def measure(G, predict, names=None, samples=8, batch=64, seed=0, progress=None):
    """`Purity` of every dimension of G, in order of address.

    predict, names: of `AttributeEffects`. samples: latents that every dimension is moved on. batch, progress: of
    `moves.sweep`.
    """
    effects = AttributeEffects(G, predict, names, seed)
    moves = sweep(G, random_ws(G, samples, seed), coordinate_sigmas(G, seed=seed), batch=batch, progress=progress)
    return [purity for moved in moves for purity in effects.of(moved)]


def overall(purities):
    """The mean purity, each dimension weighted by its strength; 0 where nothing moves."""
    strength = sum(p.strength for p in purities)
    return sum(p.purity * p.strength for p in purities) / strength if strength else 0.0


def by_subspace(purities):
    """{(L, N): overall purity of its dimensions}"""
    layers = dict.fromkeys(p.address.layer for p in purities)
    return {layer: overall([p for p in purities if p.address.layer == layer]) for layer in layers}


def random_ws(G, count, seed):
    """ws [count, num_ws, w_dim] of random latents (and labels)"""
    device = next(G.parameters()).device
    generator = torch.Generator().manual_seed(seed)
    z = torch.randn([count, G.z_dim], generator=generator).to(device)
    table = label_table(G)
    c = table[torch.randint(len(table), [count], generator=generator)].to(device) if G.c_dim else None
    return G.mapping(z, c)


@torch.no_grad()
def _deviations(G, predict, names, seed, samples=512, batch=64):
    """{attribute: root of the total variance of its prediction over images of G}, without attributes that never vary"""
    ws = random_ws(G, samples, seed + 1)
    predictions = [predict(G.synthesis(part, noise_mode="const")) for part in ws.split(batch)]
    chosen = names if names is not None else list(predictions[0])
    deviations = {n: torch.cat([p[n] for p in predictions]).var(dim=0).sum().sqrt().item() for n in chosen}
    return {name: deviation for name, deviation in deviations.items() if deviation > 1e-6}


class SubspaceState(NamedTuple):
    """orthogonality: largest entry of |UᵀU − I|, 0 for an orthonormal basis (None without a basis). effective_rank: exp
    of the entropy of the shares that the dimensions' importances have, 1 to K (Roy and Vetterli 2007)."""

    orthogonality: float | None
    effective_rank: float
    dims: int


@torch.no_grad()
def subspace_states(G):
    """{(L, N): SubspaceState} of every subspace."""
    states = {}
    for address, subspace in G.subspaces().items():
        orthogonality = None
        if hasattr(subspace, "U"):
            U = subspace.basis().double()
            gram = U.t() @ U if U.shape[0] >= U.shape[1] else U @ U.t()
            orthogonality = (gram - torch.eye(len(gram), device=U.device)).abs().max().item()
        shares = subspace.L.double().square().clamp(min=1e-30)
        shares = shares / shares.sum()
        rank = (-(shares * shares.log()).sum()).exp().item()
        states[address] = SubspaceState(orthogonality, rank, subspace.dims)
    return states
