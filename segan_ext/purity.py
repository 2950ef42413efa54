"""How purely single dimensions move single attributes, and the state of the subspaces they belong to."""

from typing import NamedTuple

import torch

from segan_ext.explore import coordinate_sigmas

_REACH = 2  # σ to either side


class Purity(NamedTuple):
    """What a dimension does to attributes.

    effects: mean change of each attribute's prediction from −2σ to +2σ, in units of the attribute's own deviation.
    """

    address: tuple[int, int]
    index: int
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


@torch.no_grad()
def measure(G, predict, names=None, samples=8, batch=64, seed=0, progress=None):
    """`Purity` of every dimension of G, in order of address and index.

    predict: images [N, C, H, W] in [−1, 1] → {attribute: numbers or probabilities [N, k]}, such as
    `attributes.Predictor`. names: of the attributes that count (None: all). samples: latents that every dimension is
    moved on. progress: called with the subspaces' addresses, to show how far the work is (tqdm does).
    """
    sigmas = coordinate_sigmas(G, seed=seed)
    ws = _latents(G, samples, seed)
    deviations = _deviations(G, predict, names, seed)
    found = []
    for address in progress(list(sigmas)) if progress else sigmas:
        steps = torch.diag(_REACH * sigmas[address])  # [K, K]: row d moves dimension d
        moves = steps.repeat_interleave(samples, dim=0)  # [K·samples, K]
        changes = {name: [] for name in deviations}
        for rows in torch.arange(len(moves)).split(batch):
            w = ws[rows % samples]
            low, high = (predict(_render(G, w, address, sign * moves[rows])) for sign in (-1, 1))
            for name in changes:
                changes[name].append((high[name] - low[name]).norm(dim=1) / deviations[name])
        mean = {name: torch.cat(parts).reshape(-1, samples).mean(dim=1) for name, parts in changes.items()}
        found += [Purity(address, d, {n: float(m[d]) for n, m in mean.items()}) for d in range(len(steps))]
    return found


def overall(purities):
    """The mean purity, each dimension weighted by its strength; 0 where nothing moves."""
    strength = sum(p.strength for p in purities)
    return sum(p.purity * p.strength for p in purities) / strength if strength else 0.0


def by_subspace(purities):
    """{(L, N): overall purity of its dimensions}"""
    addresses = dict.fromkeys(p.address for p in purities)
    return {address: overall([p for p in purities if p.address == address]) for address in addresses}


def _latents(G, count, seed):
    """ws [count, num_ws, w_dim] of random latents"""
    device = next(G.parameters()).device
    generator = torch.Generator().manual_seed(seed)
    z = torch.randn([count, G.z_dim], generator=generator).to(device)
    c = torch.eye(G.c_dim)[torch.randint(G.c_dim, [count], generator=generator)].to(device) if G.c_dim else None
    return G.mapping(z, c)


def _deviations(G, predict, names, seed, samples=512, batch=64):
    """{attribute: root of the total variance of its prediction over images of G}, without attributes that never vary"""
    ws = _latents(G, samples, seed + 1)
    predictions = [predict(G.synthesis(part, noise_mode="const")) for part in ws.split(batch)]
    chosen = names if names is not None else list(predictions[0])
    deviations = {n: torch.cat([p[n] for p in predictions]).var(dim=0).sum().sqrt().item() for n in chosen}
    return {name: deviation for name, deviation in deviations.items() if deviation > 1e-6}


def _render(G, ws, address, offsets):
    with G.edited(offsets={address: offsets}):
        return G.synthesis(ws, noise_mode="const")


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
            orthogonality = (gram - torch.eye(len(gram))).abs().max().item()
        shares = subspace.L.double().square().clamp(min=1e-30)
        shares = shares / shares.sum()
        rank = (-(shares * shares.log()).sum()).exp().item()
        states[address] = SubspaceState(orthogonality, rank, subspace.dims)
    return states
