"""The address of one dimension: L, N, D; block, style layer within it, dimension of its subspace."""

import re
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:  # an address needs no PyTorch
    import torch


class Address(NamedTuple):
    """One dimension of one layer's subspace"""

    L: int
    N: int
    D: int

    def __str__(self) -> str:
        return f"L{self.L}.N{self.N}.D{self.D}"

    @property
    def layer(self) -> tuple[int, int]:
        """(L, N), the key that `G.edited` and `G.subspaces` know the layer by"""
        return self.L, self.N

    @classmethod
    def parse(cls, text: str) -> "Address":
        """'L3.N1.D5' → Address(3, 1, 5). ValueError for anything else."""
        found = re.fullmatch(r"L(\d+)\.N(\d+)\.D(\d+)", str(text).strip(), flags=re.IGNORECASE)
        if found is None:
            raise ValueError(f"{text!r} is no address; write L3.N1.D5 for block 3, style layer 1, dimension 5")
        return cls(*map(int, found.groups()))

    def check(self, G: "torch.nn.Module") -> "Address":
        """The address itself. ValueError if G has no such dimension."""
        subspaces = getattr(G, "subspaces", dict)()
        if self.layer not in subspaces:
            layers = ", ".join(f"L{L}.N{N}" for L, N in subspaces) or "none"
            raise ValueError(f"{self}: this generator has no layer L{self.L}.N{self.N}; it has {layers}")
        if subspaces[self.layer].dims <= self.D:
            raise ValueError(f"{self}: that layer has dimensions D0 to D{subspaces[self.layer].dims - 1}")
        return self
