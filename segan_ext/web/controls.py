"""What the page says of a control: a label that people read, its ends, and the two pictures that stand beside it."""

import math
import re
from collections.abc import Mapping
from typing import Any

from segan_ext.control.address import Address, Name
from segan_ext.control.named import NamedDirection
from segan_ext.web.engine import Opened

REACH = 6.0  # σ at the ends of a dimension's slider
_SHOWN = 3.0  # σ of its two pictures


def readable(name: str, value: str = "") -> tuple[str, str]:
    """(what a named direction is called, its value), as people read them.

    name: as the generator has it; value: what + leads to, which may be its end. ("hairVariant curly", "curly") gives
    ("hair", "curly"), ("clothingColor #e24553", "#e24553") ("clothing colour", "#e24553").
    """
    ends = value and name.endswith(f" {value}")
    head = name.removesuffix(f" {value}") if ends else name
    head = re.sub(r"(?<=[a-z])Variant$", "", head)
    return _words(head), _words(value) if ends else ""


def _words(text):
    """camelCase as words; colours such as #e24553 and what has spaces stay"""
    if text.startswith("#") or " " in text:
        return text
    words = re.sub(r"(?<=[a-z0-9])(?=[A-Z])", " ", text)
    words = re.sub("comed$", "combed", words, flags=re.IGNORECASE)  # as toon-head spells sideComed
    return re.sub(r"\bcolor\b", "colour", words.lower()) if words != text else text


def described(opened: Opened, address: Address | Name, named: Mapping[str, NamedDirection] = {}) -> dict[str, Any]:
    """A control as JSON: id, label, value, colour, note, low and high end, minus and plus (amounts of its pictures).

    named: directions beside those of the network.
    """
    if isinstance(address, Name):
        each = (opened.named | dict(named))[address]
        label, value = readable(each.name, each.towards)
        low, high = math.floor(10 * each.low) / 10, math.ceil(10 * each.high) / 10
        colour = value if re.fullmatch(r"#[0-9a-f]{6}", value) else ""
        note = each.said() if each.source else ""
        ends = dict(low=low, high=high, minus=each.low, plus=each.high)
        return dict(id=str(address), label=label, value=value, colour=colour, note=note, own=True) | ends
    name, resolutions = opened.names.get(address, ""), getattr(opened.G.synthesis, "block_resolutions", None)
    note = f"{resolutions[address.L]}×{resolutions[address.L]}" if resolutions else ""
    ends = dict(low=-REACH, high=REACH, minus=-_SHOWN, plus=_SHOWN)
    label, value = (name, str(address)) if name else (str(address), "")
    return dict(id=str(address), label=label, value=value, colour="", note=note, own=False) | ends
