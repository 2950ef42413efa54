"""Addresses of what can be moved: a dimension L, N, D (block, style layer within it, dimension), or a name."""

import re
from collections.abc import Collection
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

    def check(self, G: "torch.nn.Module", named: Collection[str] = ()) -> "Address":
        """The address itself; named does not matter. ValueError if G has no such dimension."""
        subspaces = getattr(G, "subspaces", dict)()
        if self.layer not in subspaces:
            layers = ", ".join(f"L{L}.N{N}" for L, N in subspaces) or "none"
            raise ValueError(f"{self}: this generator has no layer L{self.L}.N{self.N}; it has {layers}")
        if subspaces[self.layer].dims <= self.D:
            raise ValueError(f"{self}: that layer has dimensions D0 to D{subspaces[self.layer].dims - 1}")
        return self


class Name(str):
    """A named direction of a generator, which may move several layers at once"""

    def check(self, G: "torch.nn.Module", named: Collection[str] = ()) -> "Name":
        """The name itself. named: of directions beside those of G. ValueError if there is no such direction."""
        names = list(dict.fromkeys([*getattr(G, "named_offsets", dict)(), *named]))
        if self not in names:
            known = ", ".join(names) or "none"
            raise ValueError(f"{self!s}: no address such as L3.N1.D5, and no named direction; there is {known}")
        return self


def parse_address(text: str) -> Address | Name:
    """'L3.N1.D5' → an `Address`, any other text → a `Name`. ValueError for an empty text."""
    text = str(text).strip()
    if not text:
        raise ValueError("an address is L3.N1.D5, or the name of a direction; this one is empty")
    return Address.parse(text) if re.match(r"L\d+\.", text, flags=re.IGNORECASE) else Name(text)
