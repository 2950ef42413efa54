"""Generators whose style path runs through learned linear subspaces.

A style layer (conv0, conv1 or torgb of a block) reads one latent w. A subspace with basis U, importances L and origin μ
turns the coordinates of w into what the layer uses:

    mode 2     style        w' = U (L ⊙ (f·w + o)) + μ                           U: [D, D]        before the affine
    mode 2     residual     w' = w + U ((f ⊙ L − 1) ⊙ Uᵀw + L ⊙ o) + μ           U: [D, K]        before the affine
    mode 2     published    w' = (Σ_chw U) ⊙ L ⊙ (f·w + o) + μ                   U: [C, H, W, D]  before the affine
    mode 3     importance   w' = L ⊙ (f·w + o)                                                    before the affine
    mode 1     feature      x' = x + reshape(U (L ⊙ (f·w_K + o))) + μ            U: [C·H·W, K]    after the layer
    eigen, named            w' = [w +] U (L ⊙ (f·e + o)) + μ                     U: [W, K]        before the affine

There e are coordinates of the layer's own, drawn beside w and independent of it; w itself reaches block 0 alone.

f (factor, 1) and o (offset, 0) are the controls: `with G.edited(offsets={(3, 1): o}): G(z, c)`. They belong to the
caller's context, not to the network, so that several threads can edit one G without meeting.

This file travels inside pickles as source: it imports nothing but torch and the host's public names. Annotations that
need more than that, or a Python newer than a host's may be, are in quotes.
"""

import contextlib
import contextvars
import math

import torch

from torch_utils import misc, persistence
from training import networks

try:
    from torch_utils import cached_weights
except ImportError:  # another host
    cached_weights = None

MODES = (0, 1, 2, 3, "eigen", "named")
FORMS = ("full", "residual", "published")  # of mode 2
_MAX_ENTRIES = 2**28  # of one basis
_MAX_GROUP = 2**12  # coordinates of one group

_edits = contextvars.ContextVar("subspace_edits", default={})  # noqa: B039 (never written to): (L, N) → (factor, offset)


class LinearSubspace(torch.nn.Module):
    """What all forms share: an address (L, N), K importances `L`, a basis `U`, an origin `mu`, and the controls.

    L of the address: synthesis block (0 is 4×4); N: style layer within it in order of use. U is stored at unit scale
    and multiplied by a power of two near 1/√rows, like the host's weights: an optimizer step moves a large basis
    relatively as much as a small one, and the identity is stored exactly.
    """

    def __init__(self, address: "tuple[int, int]", dims: int) -> None:
        super().__init__()
        self.address, self.dims = tuple(address), dims
        self.L = torch.nn.Parameter(torch.ones([dims]))

    def _add_basis(self, rows, identity=False):
        """`U`: [rows, dims] with orthonormal columns, or orthonormal rows where there are fewer of them."""
        check_basis_size(rows, self.dims)
        self.gain = 2.0 ** round(-math.log2(rows) / 2)
        U = torch.eye(rows, self.dims) if identity else torch.nn.init.orthogonal_(torch.empty(rows, self.dims))
        self.U = torch.nn.Parameter(U / self.gain)

    def basis(self) -> torch.Tensor:
        """U at its own scale, [rows, dims]"""
        return self.U * self.gain

    def controlled(self, coordinates: torch.Tensor) -> torch.Tensor:
        """f·coordinates + o; the very same tensor where nothing is edited. [N, dims]"""
        factor, offset = _edits.get().get(self.address, (None, None))
        coordinates = coordinates if factor is None else coordinates * factor.to(coordinates)
        return coordinates if offset is None else coordinates + offset.to(coordinates)

    def is_edited(self) -> bool:
        """True if the controls are set, in this context."""
        return self.address in _edits.get()

    def coordinates(self, w: torch.Tensor) -> torch.Tensor:
        """What the controls act on: w [N, D] → [N, dims]"""
        return w

    def penalty(self) -> "torch.Tensor | None":
        """½‖UᵀU − I‖²_F (EigenGAN's regulariser), a scalar; with UUᵀ where U has fewer rows than columns."""
        U = self.basis()
        gram = U.t() @ U if U.shape[0] >= U.shape[1] else U @ U.t()
        return (gram - torch.eye(len(gram), device=U.device)).square().sum() / 2


@persistence.persistent_class
class StyleSubspace(LinearSubspace):
    """w' = U (L ⊙ (f·w + o)) + μ"""

    def __init__(self, address: "tuple[int, int]", w_dim: int, identity: bool = False) -> None:
        super().__init__(address, w_dim)
        self._add_basis(w_dim, identity)
        self.mu = torch.nn.Parameter(torch.zeros([w_dim]))

    def forward(self, w: torch.Tensor) -> torch.Tensor:
        """w [N, D] → w' [N, D]"""
        return (self.L * self.controlled(w)) @ self.basis().t() + self.mu

    def as_affine(self) -> "tuple[torch.Tensor, torch.Tensor]":
        """(M [D, D], μ [D]) of w' = M w + μ, which it is where nothing is edited"""
        return self.basis() * self.L, self.mu


@persistence.persistent_class
class ResidualSubspace(LinearSubspace):
    """w' = w + U ((f ⊙ L − 1) ⊙ Uᵀw + L ⊙ o) + μ, the identity for L = 1, μ = 0 and any U"""

    def __init__(self, address: "tuple[int, int]", w_dim: int, dims: int) -> None:
        super().__init__(address, dims)
        self._add_basis(w_dim)
        self.mu = torch.nn.Parameter(torch.zeros([w_dim]))

    def coordinates(self, w: torch.Tensor) -> torch.Tensor:
        """w [N, D] → Uᵀw [N, dims]"""
        return w @ self.basis()

    def forward(self, w: torch.Tensor) -> torch.Tensor:
        """w [N, D] → w' [N, D]"""
        before = self.coordinates(w)
        change = self.L * self.controlled(before) - before
        return w + change @ self.basis().t() + self.mu

    def as_affine(self) -> "tuple[torch.Tensor, torch.Tensor]":
        """(M [D, D], μ [D]) of w' = M w + μ, which it is where nothing is edited"""
        U = self.basis()
        return torch.eye(len(U), device=U.device) + (U * (self.L - 1)) @ U.t(), self.mu


@persistence.persistent_class
class PublishedSubspace(LinearSubspace):
    """w'_d = (Σ_chw U_chwd) · L_d · (f·w_d + o_d) + μ_d, the parametrisation of the published code

    Every entry of U[:, :, :, d] gets the same gradient, so that this sum learns C·H·W times as fast as one number.
    """

    def __init__(
        self, address: "tuple[int, int]", w_dim: int, channels: int, resolution: int, identity: bool = False
    ) -> None:
        super().__init__(address, w_dim)
        U = torch.zeros(channels, resolution, resolution, w_dim)
        if identity:
            U[0, 0, 0] = 1
        else:
            torch.nn.init.orthogonal_(U)  # over the channels
        self.U = torch.nn.Parameter(U)
        self.mu = torch.nn.Parameter(torch.zeros([w_dim]))

    def basis(self) -> torch.Tensor:
        """U, [C·H·W, D]"""
        return self.U.flatten(0, 2)

    def forward(self, w: torch.Tensor) -> torch.Tensor:
        """w [N, D] → w' [N, D]"""
        return self.U.sum(dim=[0, 1, 2]) * self.L * self.controlled(w) + self.mu

    def as_affine(self) -> "tuple[torch.Tensor, torch.Tensor]":
        """(M [D, D], μ [D]) of w' = M w + μ, which it is where nothing is edited"""
        return torch.diag(self.U.sum(dim=[0, 1, 2]) * self.L), self.mu


@persistence.persistent_class
class ImportanceSubspace(LinearSubspace):
    """w' = L ⊙ (f·w + o)"""

    def __init__(self, address: "tuple[int, int]", w_dim: int) -> None:
        super().__init__(address, w_dim)

    def forward(self, w: torch.Tensor) -> torch.Tensor:
        """w [N, D] → w' [N, D]"""
        return self.L * self.controlled(w)

    def as_affine(self) -> "tuple[torch.Tensor, torch.Tensor]":
        """(M [D, D], 0 [D]) of w' = M w, which it is where nothing is edited"""
        return torch.diag(self.L), torch.zeros_like(self.L)

    def penalty(self) -> None:
        """None: there is no basis."""
        return None


@persistence.persistent_class
class FeatureSubspace(LinearSubspace):
    """reshape(U (L ⊙ (f·w_K + o))) + μ, an image [C, H, W] that is added to what the layer puts out"""

    def __init__(
        self, address: "tuple[int, int]", dims: int, channels: int, resolution: int, identity: bool = False
    ) -> None:
        super().__init__(address, dims)
        self._add_basis(channels * resolution**2)
        self.mu = torch.nn.Parameter(torch.zeros([channels, resolution, resolution]))
        if identity:
            torch.nn.init.zeros_(self.L)

    def coordinates(self, w: torch.Tensor) -> torch.Tensor:
        """w [N, D] → its first entries w_K [N, dims]"""
        return w[:, : self.dims]

    def forward(self, w: torch.Tensor) -> torch.Tensor:
        """w [N, D] → [N, C, H, W], what is added to the layer's output"""
        features = (self.L * self.controlled(self.coordinates(w))) @ self.basis().t()  # [N, C·H·W]
        return features.reshape(-1, *self.mu.shape) + self.mu


# ---------------------------------------------------------------------------------------------------------------------
# Coordinates of one's own (modes eigen and named)


@persistence.persistent_class
class OwnCoordinates(torch.nn.Module):
    """Standard normal numbers → coordinates e, each group with a distribution of its own.

    groups: dicts with a "name" and either "size", of independent coordinates, and "quantiles", equally spaced ones of
    what they follow (None: they stay normal); or "values" and their "shares", frequencies, and one coordinate for each
    value, 1 for the one that holds. A group with shares takes one number, another one as many as its size. One that is
    "unnamed" stands for all that nobody has named, and has no controls. inputs, outputs: how many there are in all.
    """

    def __init__(self, groups: "list[dict]") -> None:
        super().__init__()
        for group in groups:
            _check_group(group)
        self.groups = [dict(group) for group in groups]
        self.sizes = [len(group["shares"]) if "shares" in group else group["size"] for group in groups]
        self.takes = [1 if "shares" in group else group["size"] for group in groups]
        self.inputs, self.outputs = sum(self.takes), sum(self.sizes)

    def forward(self, z: torch.Tensor) -> torch.Tensor:
        """z [N, inputs] → e [N, outputs]; differentiable where it is continuous"""
        parts = zip(self.groups, z.split(self.takes, dim=1))
        return torch.cat([_distributed(part, group) for group, part in parts], dim=1)

    def within(self, e: torch.Tensor) -> torch.Tensor:
        """The nearest coordinates [N, outputs] that can be drawn, or, of values, mixtures of such"""
        parts = zip(self.groups, e.split(self.sizes, dim=1))
        return torch.cat([_within(part, group) for group, part in parts], dim=1)

    def controls(self) -> "list[tuple[dict, torch.Tensor]]":
        """[(what is known of it, change of e by +1 [outputs])] of every control, of which what is unnamed has none.

        A number has one, of unit length; two or more values have one each after the first, from the first (−1) to that
        one (+1), whichever holds.
        """
        found, start = [], 0
        for group, size in zip(self.groups, self.sizes):
            unit = torch.eye(self.outputs)[start : start + size]
            start += size
            if group.get("unnamed"):
                continue
            if "shares" in group:
                scale = 1 if size == 2 else 2  # from any value, -1 leads to the first one and +1 to the other
                for value, row in zip(group["values"][1:], unit[1:]):
                    name = group["name"] if size == 2 else f"{group['name']} {value}"
                    found.append((dict(name=name, low=-1.0, high=1.0, towards=value), scale * (row - unit[0])))
            else:
                low, *_, high = group["quantiles"] or [-2.0, 2.0]
                names = [group["name"]] if size == 1 else [f"{group['name']}.{i}" for i in range(size)]
                found += [(dict(name=name, low=low, high=high), row) for name, row in zip(names, unit)]
        return found


def _check_group(group):
    """ValueError for a group that describes no coordinates, or more than any network has"""
    shares, quantiles, size = group.get("shares"), group.get("quantiles"), group.get("size")
    if shares is not None:
        sound = 2 <= len(shares) == len(group["values"]) <= _MAX_GROUP and min(shares) > 0
    else:
        sound = isinstance(size, int) and 0 < size <= _MAX_GROUP and (quantiles is None or len(quantiles) > 1)
    if not sound or not isinstance(group.get("name"), str):
        raise ValueError(
            f"own coordinates need a name, and a size or the shares of their values, not {str(group)[:80]}"
        )


def _within(e, group):
    if "shares" in group:
        return _onto_simplex(e)
    quantiles = group.get("quantiles")
    return e if quantiles is None else e.clamp(quantiles[0], quantiles[-1])


def _distributed(z, group):
    """z [N, n], normal → what follows the group's distribution"""
    if "shares" in group:
        shares = misc.constant(group["shares"], device=z.device)  # made once: a copy would wait for a GPU
        bounds = (shares.cumsum(0) / shares.sum())[:-1].contiguous()
        return torch.nn.functional.one_hot(torch.bucketize(_phi(z[:, 0]), bounds), len(shares)).to(z.dtype)
    if group.get("quantiles") is None:
        return z
    quantiles = misc.constant(group["quantiles"], dtype=z.dtype, device=z.device)
    place = _phi(z) * (len(quantiles) - 1)
    below = place.detach().floor().long().clamp(max=len(quantiles) - 2)
    return torch.lerp(quantiles[below], quantiles[below + 1], place - below)


def _phi(z):
    return (1 + torch.erf(z / math.sqrt(2))) / 2


@persistence.persistent_class
class OwnMapping(torch.nn.Module):
    """z and label → [w, e] for every style layer: the host's mapping network makes w of the first part of z.

    z_dim, w_dim: of both parts together. groups: as in `OwnCoordinates`. The other arguments are the host's. Truncation
    pulls w to its mean and numbers among e to 0; a value stays what it is.
    """

    def __init__(
        self, z_dim: int, c_dim: int, w_dim: int, num_ws: int, groups: "list[dict]", **mapping_kwargs: object
    ) -> None:
        super().__init__()
        self.z_dim, self.c_dim, self.w_dim, self.num_ws = z_dim, c_dim, w_dim, num_ws
        self.own = OwnCoordinates(groups)
        self.shared_z, self.shared_w = z_dim - self.own.inputs, w_dim - self.own.outputs
        self.shared = networks.MappingNetwork(self.shared_z, c_dim, self.shared_w, num_ws, **mapping_kwargs)
        shrinks = [0 if "shares" in group else 1 for group, n in zip(groups, self.own.sizes) for _ in range(n)]
        self.register_buffer("shrinks", torch.tensor(shrinks, dtype=torch.float32))

    @property
    def w_avg(self) -> torch.Tensor:
        """Mean of [w, e], [w_dim]; 0 over e"""
        return torch.nn.functional.pad(self.shared.w_avg, [0, self.own.outputs])

    def forward(
        self,
        z: torch.Tensor,
        c: "torch.Tensor | None",
        truncation_psi: float = 1,
        truncation_cutoff: "int | None" = None,
        skip_w_avg_update: bool = False,
    ) -> torch.Tensor:
        """z [N, z_dim], c [N, c_dim] → ws [N, num_ws, w_dim]; as the host's"""
        z, own = z.to(torch.float32).split([self.shared_z, self.own.inputs], dim=1)
        ws = self.shared(z, c, truncation_psi, truncation_cutoff, skip_w_avg_update=skip_w_avg_update)
        e = self.own(own)[:, None].repeat(1, self.num_ws, 1)
        if truncation_psi != 1:
            e[:, :truncation_cutoff] *= 1 + self.shrinks * (truncation_psi - 1)
        return torch.cat([ws, e], dim=2)


@persistence.persistent_class
class OwnSubspace(LinearSubspace):
    """w' = U (L ⊙ (f·e + o)) + μ, and w too where `shared`. x = [w, e of all layers], this layer's from `first` on.

    w_dim: of w alone. groups: of its coordinates. Edits stay where G was trained: numbers are clamped to the range that
    they are drawn from, values are projected onto the simplex.
    """

    def __init__(
        self, address: "tuple[int, int]", w_dim: int, total: int, first: int, groups: "list[dict]", shared: bool
    ) -> None:
        own = OwnCoordinates(groups)
        super().__init__(address, own.outputs)
        self.own = own
        self.w_dim, self.total, self.first, self.shared = w_dim, total, first, shared
        self._add_basis(w_dim)
        torch.nn.init.constant_(self.L, math.sqrt(w_dim / self.dims))  # w' gets about the length of a w
        self.mu = torch.nn.Parameter(torch.zeros([w_dim]))

    def coordinates(self, w: torch.Tensor) -> torch.Tensor:
        """[w, e] [N, total] → this layer's e [N, dims]"""
        return w[:, self.first : self.first + self.dims]

    def controlled(self, coordinates: torch.Tensor) -> torch.Tensor:
        """f·coordinates + o, within bounds; the very same tensor where nothing is edited. [N, dims]"""
        return self.own.within(super().controlled(coordinates)) if self.is_edited() else coordinates

    def forward(self, w: torch.Tensor) -> torch.Tensor:
        """[w, e] [N, total] → w' [N, w_dim]"""
        own = (self.L * self.controlled(self.coordinates(w))) @ self.basis().t() + self.mu
        return w[:, : self.w_dim] + own if self.shared else own

    def as_affine(self) -> "tuple[torch.Tensor, torch.Tensor]":
        """(M [w_dim, total], μ [w_dim]) of w' = M [w, e] + μ, which it is where nothing is edited"""
        matrix = torch.zeros([self.w_dim, self.total], device=self.L.device)
        matrix[:, self.first : self.first + self.dims] = self.basis() * self.L
        if self.shared:
            matrix[:, : self.w_dim] = torch.eye(self.w_dim, device=self.L.device)
        return matrix, self.mu


def _onto_simplex(x):
    """The nearest points of which all entries are 0 or more and sum to 1 (Duchi et al. 2008). [N, n] → [N, n]"""
    ordered = x.sort(dim=1, descending=True).values
    surplus = (ordered.cumsum(1) - 1) / torch.arange(1, x.shape[1] + 1, device=x.device)
    count = (ordered > surplus).sum(dim=1, keepdim=True).clamp(min=1)  # of huge numbers float32 drops the 1
    return (x - surplus.gather(1, count - 1)).clamp(min=0)


# ---------------------------------------------------------------------------------------------------------------------
# Where they sit in the host's layers


# `subspace` is set after construction: the host keeps constructor arguments, and would store every basis twice.


@persistence.persistent_class
class SubspaceAffine(networks.FullyConnectedLayer):
    """A style layer's affine that sends w through its `subspace` first (modes 2 and 3)."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """x: w [N, w_dim] → styles [N, out_features]"""
        if cached_weights is None or not cached_weights.active() or self.subspace.is_edited():
            return super().forward(self.subspace(x))
        weight, bias = cached_weights.once("folded subspace", self.subspace.L, self._folded)
        return torch.nn.functional.linear(x, weight, bias)

    def _folded(self, _importances):
        """Matrix and bias of the subspace and the layer together"""
        weight, bias = self.effective()
        matrix, origin = self.subspace.as_affine()
        return weight @ matrix, bias + weight @ origin


def _subspace_affine(affine, in_features):
    """One in place of a layer's own"""
    made = SubspaceAffine(in_features, affine.weight.shape[0], bias_init=1)
    made.bias.data.copy_(affine.bias)
    return made


@persistence.persistent_class
class SubspaceSynthesisLayer(networks.SynthesisLayer):
    """A convolution whose output has the image of its `subspace` added (mode 1)."""

    def forward(self, x: torch.Tensor, w: torch.Tensor, **kwargs: object) -> torch.Tensor:
        """x [N, in_channels, h, w], w [N, w_dim] → [N, out_channels, H, W]. kwargs: the host's."""
        x = super().forward(x, w, **kwargs)
        return x + self.subspace(w).to(x.dtype)


@persistence.persistent_class
class SubspaceToRGBLayer(networks.ToRGBLayer):
    """A torgb whose image has the image of its `subspace` added (mode 1)."""

    def forward(self, x: torch.Tensor, w: torch.Tensor, **kwargs: object) -> torch.Tensor:
        """x [N, in_channels, H, W], w [N, w_dim] → [N, img_channels, H, W]. kwargs: the host's."""
        x = super().forward(x, w, **kwargs)
        return x + self.subspace(w).to(x.dtype)


def style_layers(synthesis: torch.nn.Module) -> "Iterator[tuple[tuple[int, int], torch.nn.Module, str]]":  # noqa: F821 (see above)
    """(address, block, name) of every style layer, in order of use."""
    for L, resolution in enumerate(synthesis.block_resolutions):
        block = getattr(synthesis, f"b{resolution}")
        names = [n for n in ("conv0", "conv1", "torgb") if hasattr(getattr(block, n, None), "affine")]
        for N, name in enumerate(names):
            yield (L, N), block, name


class Editable:
    """Of a generator whose layers have subspaces: their controls by address, and directions with names.

    A mixin of torch modules. directions: what is known of each name, its "name" at least; those of own coordinates come
    first, the offsets of the others are the buffer `direction_offsets`.
    """

    def subspaces(self) -> "dict[tuple[int, int], LinearSubspace]":
        """{(L, N): subspace} in order of use."""
        found = {}
        for address, block, name in style_layers(self.synthesis):
            layer = getattr(block, name)
            subspace = getattr(layer, "subspace", None) or getattr(layer.affine, "subspace", None)
            if subspace is not None:
                found[address] = subspace
        return found

    def _name_directions(self, directions):
        self.directions = [known for known, _ in self.own_controls()] + [dict(direction) for direction in directions]
        if directions:
            self.register_buffer("direction_offsets", torch.zeros([len(directions), sum(self._sizes())]))

    def _sizes(self):
        return [subspace.dims for subspace in self.subspaces().values()]

    def named_offsets(self) -> "dict[str, dict[tuple[int, int], torch.Tensor]]":
        """{name: {(L, N): offsets [K] of one unit}} of the named directions, without layers that one does not move."""
        found, subspaces = {}, self.subspaces()
        for known, change in self.own_controls():
            padded = torch.nn.functional.pad(change, [self.mapping.shared_w, 0])
            parts = {address: subspace.coordinates(padded[None])[0] for address, subspace in subspaces.items()}
            found[known["name"]] = {address: part for address, part in parts.items() if part.any()}
        others = getattr(self, "directions", [])[len(found) :]
        for direction, row in zip(others, getattr(self, "direction_offsets", [])):
            parts = zip(subspaces, row.split(self._sizes()))
            found[direction["name"]] = {address: part for address, part in parts if part.any()}
        return found

    def own_controls(self) -> "list[tuple[dict, torch.Tensor]]":
        """`OwnCoordinates.controls` of this generator's; none if it has no coordinates of its own."""
        own = getattr(self.mapping, "own", None)
        return [] if own is None else own.controls()

    @contextlib.contextmanager
    def edited(
        self,
        factors: "dict[tuple[int, int], float | torch.Tensor]" = {},
        offsets: "dict[tuple[int, int], float | torch.Tensor]" = {},
    ) -> "Iterator[Editable]":  # noqa: F821
        """Inside, in this thread or task only, subspaces are controlled by these factors and offsets.

        factors, offsets: {(L, N): scalar, [K], or [N, K] for N images}. Contexts nest; the inner one counts where both
        name an address. ValueError for an address that this generator does not have, or a length that is not K.
        """
        subspaces = self.subspaces()
        edits = dict(_edits.get())
        for address in {**factors, **offsets}:
            if address not in subspaces:
                raise ValueError(f"there is no subspace at {address}; this generator has {list(subspaces)}")
            pair = [_control(values.get(address), subspaces[address]) for values in (factors, offsets)]
            edits[address] = tuple(pair)
        token = _edits.set(edits)
        try:
            yield self
        finally:
            _edits.reset(token)


@persistence.persistent_class
class SEGANGenerator(Editable, networks.Generator):
    """The host's generator with a subspace in every style layer.

    mode: 0 none, 1 feature, 2 style, 3 importance, eigen and named: own coordinates, which `own` describes (as in
    `OwnCoordinates`, with a "block" whose style layers alone read it, or none, and then all do; z_dim and w_dim count
    them); with `bottleneck` w itself reaches block 0 alone. subspace_form: of mode 2, full, residual or published; None
    means residual with subspace_dim, else full. subspace_dim: K coordinates (modes 1 and residual 2; None: w_dim).
    subspace_init: 'orthogonal' to train from scratch; 'identity' to make the images those of the generator without
    subspaces. trained: 'all', or 'subspace' to keep everything else as it is (as buffers, which no optimizer sees).
    directions: of named directions, what is known of each, its "name" at least; their offsets are the buffer
    `direction_offsets`. The other arguments are the host's. ValueError for what does not go together.
    """

    def __init__(
        self,
        z_dim: int,
        c_dim: int,
        w_dim: int,
        img_resolution: int,
        img_channels: int,
        mapping_kwargs: dict = {},
        synthesis_kwargs: dict = {},
        mode: "int | str" = 2,
        subspace_dim: "int | None" = None,
        subspace_form: "str | None" = None,
        subspace_init: str = "orthogonal",
        trained: str = "all",
        directions: "list[dict]" = [],
        own: "list[dict]" = [],
        bottleneck: bool = True,
    ) -> None:
        form = subspace_form or ("full" if subspace_dim is None else "residual")
        check_subspace_options(mode, subspace_dim, subspace_form, w_dim)
        check_own_coordinates(mode, own, z_dim, w_dim)
        if subspace_init not in ("orthogonal", "identity"):
            raise ValueError(f"subspace_init must be orthogonal or identity, not {subspace_init!r}")
        if trained not in ("all", "subspace") or (trained == "subspace" and mode == 0):
            raise ValueError(f"trained must be all, or subspace with a mode other than 0, not {trained!r}")
        super().__init__(
            z_dim,
            c_dim,
            w_dim,
            img_resolution,
            img_channels,
            mapping_kwargs=mapping_kwargs,
            synthesis_kwargs=synthesis_kwargs,
        )
        self.mode, self.subspace_form, self.subspace_dim = mode, form, subspace_dim or w_dim
        if own:
            self.mapping = OwnMapping(z_dim, c_dim, w_dim, self.num_ws, groups=own, **mapping_kwargs)
        identity = subspace_init == "identity"
        for address, block, name in style_layers(self.synthesis):
            if mode == 1:
                channels = getattr(block, name).weight.shape[0]
                layer = self._feature_layer(block, name, synthesis_kwargs)
                layer.subspace = FeatureSubspace(address, self.subspace_dim, channels, block.resolution, identity)
                setattr(block, name, layer)
            elif mode in (2, 3):
                layer = getattr(block, name)
                layer.affine = _subspace_affine(layer.affine, w_dim)
                layer.affine.subspace = self._style_subspace(address, layer, block.resolution, identity)
            elif own:
                layer = getattr(block, name)
                layer.affine = _subspace_affine(layer.affine, self.mapping.shared_w)
                layer.affine.subspace = self._own_subspace(address, own, bottleneck)
        if trained == "subspace":
            self._fix_all_but_subspaces()
        self._name_directions(directions)

    def _style_subspace(self, address, layer, resolution, identity):
        if self.mode == 3:
            return ImportanceSubspace(address, self.w_dim)
        if self.subspace_form == "residual":
            return ResidualSubspace(address, self.w_dim, self.subspace_dim)
        if self.subspace_form == "published":
            return PublishedSubspace(address, self.w_dim, layer.weight.shape[0], resolution, identity)
        return StyleSubspace(address, self.w_dim, identity)

    def _own_subspace(self, address, own, bottleneck):
        """The subspace of the groups that a style layer reads, which lie side by side."""
        read = [i for i, group in enumerate(own) if group.get("block") in (None, address[0])]
        first = self.mapping.shared_w + sum(self.mapping.own.sizes[: read[0]])
        shared = address[0] == 0 or not bottleneck
        return OwnSubspace(address, self.mapping.shared_w, self.w_dim, first, [own[i] for i in read], shared)

    def _feature_layer(self, block, name, synthesis_kwargs):
        """A layer like the one that the host's constructor made, of the class that adds a subspace's image."""
        out_channels, in_channels = getattr(block, name).weight.shape[:2]
        kwargs = dict(conv_clamp=getattr(block, name).conv_clamp, channels_last=block.channels_last)
        if name == "torgb":
            return SubspaceToRGBLayer(in_channels, out_channels, self.w_dim, **kwargs)
        shared = ("kernel_size", "use_noise", "activation", "resample_filter")
        kwargs |= {key: synthesis_kwargs[key] for key in shared if key in synthesis_kwargs}
        kwargs |= dict(resolution=block.resolution, up=getattr(block, name).up)
        return SubspaceSynthesisLayer(in_channels, out_channels, self.w_dim, **kwargs)

    def _fix_all_but_subspaces(self):
        for module in self.modules():
            if not isinstance(module, LinearSubspace):
                for name, parameter in list(module.named_parameters(recurse=False)):
                    delattr(module, name)
                    module.register_buffer(name, parameter.detach())


def _control(value, subspace):
    """A factor or offset as a tensor, or None."""
    if value is None:
        return None
    value = torch.as_tensor(value, dtype=torch.float32)
    if value.ndim > 2 or (value.ndim > 0 and value.shape[-1] != subspace.dims):
        raise ValueError(
            f"a control of {subspace.address} is a number or {subspace.dims} of them, not {list(value.shape)}"
        )
    return value


def check_own_coordinates(mode: "int | str", own: "list[dict]", z_dim: int, w_dim: int) -> None:
    """ValueError, in one sentence, unless these arguments of `SEGANGenerator` go together."""
    if bool(own) != (mode in ("eigen", "named")):
        raise ValueError(f"own coordinates are what the modes eigen and named have, and no other; mode is {mode}")
    if not own:
        return
    counted = OwnCoordinates(own)
    if z_dim < counted.inputs or w_dim <= counted.outputs:
        raise ValueError(
            f"own coordinates take {counted.inputs} of z and {counted.outputs} of w; {z_dim} and {w_dim} leave nothing"
        )


def check_basis_size(rows: int, dims: int) -> None:
    """ValueError, with the cure, for a basis that would not fit into memory together with its gradient and moments."""
    if rows * dims > _MAX_ENTRIES:
        raise ValueError(
            f"subspace_dim {dims} would give a basis of {rows} × {dims} = {rows * dims:,} entries, more than "
            f"{_MAX_ENTRIES:,}; choose --subspace-dim={max(_MAX_ENTRIES // rows, 1)} or less"
        )


def check_subspace_options(mode: int, subspace_dim: "int | None", subspace_form: "str | None", w_dim: int) -> None:
    """ValueError, in one sentence, unless these arguments of `SEGANGenerator` go together."""
    if mode not in MODES:
        raise ValueError(f"mode must be one of {MODES}, not {mode!r}")
    if subspace_form is not None and subspace_form not in FORMS:
        raise ValueError(f"subspace_form must be one of {', '.join(FORMS)}, not {subspace_form!r}")
    if subspace_form is not None and mode != 2:
        raise ValueError(f"subspace_form belongs to mode 2, not to mode {mode}")
    if subspace_dim is not None and mode not in (1, 2):
        raise ValueError(f"subspace_dim belongs to modes 1 and 2, not to mode {mode}")
    if subspace_dim is not None and subspace_form in ("full", "published"):
        raise ValueError(f"subspace_dim belongs to the residual form, not to the {subspace_form} form")
    if subspace_dim is None and subspace_form == "residual":
        raise ValueError(f"subspace_form residual needs subspace_dim, from 1 to {w_dim}")
    if subspace_dim is not None and not 1 <= subspace_dim <= w_dim:
        raise ValueError(f"subspace_dim must lie between 1 and w_dim = {w_dim}, not {subspace_dim}")
