"""Directions with a name: what is known of each, and the file that they travel in.

{"format": "segan-directions", "version": 1,
 "directions": [{"name": "hair", "low": -2, …, "offsets": {"L1.N0": […]}}]}
"""

import os
import re
from collections.abc import Iterable
from pathlib import Path
from typing import Any, NamedTuple

import torch

from training.files import parse_json

Layer = tuple[int, int]

CLEAR = 3.0  # deviations above chance from which on something is better than chance

_FORMAT, _VERSION = "segan-directions", 1


class NamedDirection(NamedTuple):
    """A direction and what it is known to do.

    offsets: {(L, N): [K]} of +1, which moves the attribute by one deviation of its own. low, high: amounts between
    which it does so as selectively as anywhere, nearly. towards: the value that + leads to, "" for a number.
    selectivity: its attribute's share of all effects, from low to high; z: how many deviations above that of random
    directions, None where too few attributes are known to tell; leaks: {other: effect where this attribute moves by
    one deviation}; all on held-out latents, by what it was found with. source: says what that was.
    """

    name: str
    offsets: dict[Layer, torch.Tensor]
    low: float
    high: float
    towards: str = ""
    selectivity: float = 0.0
    leaks: dict[str, float] = {}
    z: float | None = None
    source: str = ""

    def known(self) -> dict[str, Any]:
        """All but the offsets, as a generator keeps it (`SEGANGenerator.directions`)"""
        return {name: value for name, value in self._asdict().items() if name != "offsets"}

    def said(self) -> str:
        """What it does, in a few words"""
        leaks = sorted(self.leaks.items(), key=lambda item: -item[1])[:3]
        also = ", ".join(f"{name} {leak:.2f}" for name, leak in leaks)
        towards = f", + is {self.towards}" if self.towards else ""
        if not self.source:  # nothing was measured: G was trained with it
            return f"a coordinate of its own{towards}"
        chance = "" if self.z is None or self.z > CLEAR else " (no better than chance)"
        also = also or "what nobody named"
        return f"{self.selectivity:.0%} of what it moves{chance}{towards}; each 1 of it also moves {also}"


def named_directions(G: torch.nn.Module) -> dict[str, NamedDirection]:
    """{name: NamedDirection} of those that G has"""
    offsets = getattr(G, "named_offsets", dict)()
    known = {each["name"]: each for each in getattr(G, "directions", [])}
    return {name: NamedDirection(**known[name], offsets=offsets[name]) for name in offsets}


def as_records(directions: Iterable[NamedDirection]) -> list[dict[str, Any]]:
    """Directions as JSON holds them"""
    layers = lambda offsets: {f"L{L}.N{N}": offset.tolist() for (L, N), offset in offsets.items()}
    return [each.known() | dict(offsets=layers(each.offsets)) for each in directions]


def from_records(records: list[dict[str, Any]], G: torch.nn.Module) -> dict[str, NamedDirection]:
    """{name: NamedDirection} of `as_records`. ValueError, in one sentence, for what is none or does not fit G."""
    try:
        found = [NamedDirection(**each | dict(offsets=dict(map(_layer, each["offsets"].items())))) for each in records]
        for each in found:
            _check(each, getattr(G, "subspaces", dict)())
    except (KeyError, TypeError, AttributeError, RuntimeError, OverflowError) as error:
        raise ValueError("what it says of directions is damaged") from error
    return {each.name: each for each in found}


def _check(direction, subspaces):
    """Errors of many kinds unless all that is known of a direction is of the right kind, and it fits the subspaces"""
    texts = [direction.name.strip(), direction.towards.strip(), direction.source.strip()]
    if (
        not texts[0]
        or not -1e6 < direction.low < direction.high < 1e6
        or not 0 <= direction.selectivity <= 1
        or not abs(direction.z or 0) < 1e9
    ):
        raise ValueError("a direction has no name, or no range that makes sense")
    if not all(0 <= leak < 1e6 and name.strip() for name, leak in direction.leaks.items()):
        raise ValueError(f"{direction.name} leaks what makes no sense")
    for layer, offset in direction.offsets.items():
        fits = layer in subspaces and list(offset.shape) == [subspaces[layer].dims]
        if not fits or not offset.isfinite().all():
            raise ValueError(f"{direction.name} is of another generator")
        if offset.abs().max() > 1e6:
            raise ValueError(f"{direction.name} moves images farther than makes sense")


def _layer(item):
    L, N = re.fullmatch(r"L(\d+)\.N(\d+)", item[0]).groups()
    return (int(L), int(N)), torch.tensor(item[1], dtype=torch.float32)


def as_file(directions: Iterable[NamedDirection]) -> dict[str, Any]:
    """The content of the JSON file that `read_directions` reads"""
    return dict(format=_FORMAT, version=_VERSION, directions=as_records(directions))


def read_directions(path: str | os.PathLike, G: torch.nn.Module) -> dict[str, NamedDirection]:
    """{name: NamedDirection} of a file. OSError, or ValueError for another file, or one of another generator."""
    try:
        content = parse_json(Path(path).read_bytes(), dict)
        if content["format"] != _FORMAT:
            raise KeyError("format")
        version, records = content["version"], list(content["directions"])
    except (ValueError, KeyError, TypeError) as error:
        raise ValueError(f"{path} holds no directions; the page saves such files as sliders.json") from error
    if version != _VERSION:
        raise ValueError(f"{path} is of version {version!r}; this version of SEGAN reads {_VERSION}")
    try:
        return from_records(records, G)
    except ValueError as error:
        raise ValueError(f"{path}: {error}") from error
