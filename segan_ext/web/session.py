"""What one browser has done: its view with undo and redo, its slots of sliders, its annotations."""

import dataclasses
import json
import time
from pathlib import Path
from typing import Any

import torch

from segan_ext.control.address import Address, Name, parse_address
from segan_ext.control.edit_file import describe, read_edit
from segan_ext.control.named import NamedDirection
from segan_ext.semantics.extractors import Extractor
from segan_ext.web.engine import Engine, Opened, View

SLOTS = 12
_MERGED = 1.0  # seconds within which moves of one control are one step of undo


@dataclasses.dataclass
class Annotating:
    """Work on the Train tab, on images of one class.

    labelled: {seed: labels [H, W]}; training: `few_shot.FewShot` that can go on.
    """

    classes: list = dataclasses.field(default_factory=lambda: ["background", "class 1"])
    seed: int = 0
    class_idx: int = 0  # of a conditional network; the Explore tab's when the first annotation was made
    canvas: str | None = None  # id of the image that is shown
    strokes: torch.Tensor | None = None
    labelled: dict = dataclasses.field(default_factory=dict)
    training: object = None
    losses: list = dataclasses.field(default_factory=list)


@dataclasses.dataclass
class Learned:
    """Work on the Name tab: what was asked and answered, and the sliders that came of it.

    answers: {attribute: {seed: the answer as text, None where it was skipped}}; kinds: {attribute: its two values, or
    None for a position from −1 to 1}. asked: the seed on the screen. held: attributes that must not change.
    """

    answers: dict = dataclasses.field(default_factory=dict)
    kinds: dict = dataclasses.field(default_factory=dict)
    asked: int | None = None
    held: tuple = ()
    sliders: dict = dataclasses.field(default_factory=dict)


class Session:
    """The state of one browser. It is changed in place; Gradio keeps one for each open page."""

    def __init__(self, network: str) -> None:
        self.view = View(network)
        self.past, self.future, self.last_change = [], [], (None, 0.0)
        self.slots, self.slots_of = [], None  # addresses of the sliders, in order, and their network
        self.canvas, self.strokes = None, None  # id of the image on the Edit tab; (labels, colours) painted on it
        self.edited = {}  # {network: w of the last edit by painting, as bytes}
        self.works = {}  # {network: Annotating}
        self.learned = {}  # {network: Learned}
        self.extractors = {}  # {network: extractor trained here}, before those of the command line
        self.stopped = set()  # long work that the user wants to end: project, edit, train, batch

    @property
    def work(self) -> Annotating:
        """The annotations of the view's network"""
        return self.works.setdefault(self.view.network, Annotating())

    @property
    def learning(self) -> Learned:
        """The answers and sliders of the view's network"""
        return self.learned.setdefault(self.view.network, Learned())

    @property
    def named(self) -> dict[str, NamedDirection]:
        """The named directions that were learned here, for the view's network"""
        return self.learning.sliders

    def extractor(self, opened: Opened) -> Extractor | None:
        """The extractor of this browser for the view's network: its own, else that of the command line, or None"""
        return self.extractors.get(self.view.network, opened.extractor)

    def change(self, what: str | None, **values: Any) -> None:
        """Sets fields of the view. what: names the control, whose moves in quick succession are one step of undo."""
        self.replace(dataclasses.replace(self.view, **values), what)

    def replace(self, view: View, what: str | None = None) -> None:
        """Sets the view as a whole"""
        if view == self.view:
            return
        merged = what is not None and self.last_change[0] == what and time.monotonic() - self.last_change[1] < _MERGED
        if not merged:
            self.past = [*self.past[-99:], self.view]
        self.future, self.view, self.last_change = [], view, (what, time.monotonic())

    def undo(self) -> None:
        """Back to the view before, if there is one"""
        if self.past:
            self.future.append(self.view)
            self.view, self.last_change = self.past.pop(), (None, 0.0)

    def redo(self) -> None:
        """Forward to the view that was undone last, if there is one"""
        if self.future:
            self.past.append(self.view)
            self.view, self.last_change = self.future.pop(), (None, 0.0)

    def amount(self, address: Address | Name | str) -> float:
        """σ of an address in the view's edits"""
        return dict(self.view.edits).get(str(address), 0.0)


def saved(session: Session, engine: Engine) -> str:
    """The view as text that `python -m segan_ext edit --replay` and `loaded` take; random noise replays as constant."""
    view = session.view
    edits = {parse_address(address): amount for address, amount in view.edits}
    noise_mode = view.noise if view.noise in ("const", "none") else "const"
    with engine.work(view.network) as opened:
        ws = engine.ws(view)
        mask = engine.mask(view, ws, session.extractor(opened)) if edits else None
        named = opened.named | session.named
    inside = None if mask is None else mask[:, 0]
    names, path = [f"seed{view.seed:04d}"], engine.paths[view.network]
    content = describe(path, edits, ws, names, noise_mode, inside=inside, directions=named)
    kept = dataclasses.asdict(view)
    kept["w"] = None if view.w is None else view.w.hex()
    return json.dumps(content | dict(page=kept), indent=1)


def loaded(path: str | Path, session: Session, engine: Engine) -> None:
    """Takes the view of a file of `saved`, or an edit.json's moves. ValueError, in one sentence, for another file."""
    G = engine.network(session.view.network).G
    content = read_edit(path, G, masks=False)
    opened = engine.network(session.view.network)
    if not opened.subspaces and any(not isinstance(address, Name) for address in content["edits"]):
        raise ValueError("this edit does not fit the network (it moves dimensions, and this one has none)")
    known = opened.named
    session.named.update({name: each for name, each in content["directions"].items() if name not in known})
    try:
        edits = tuple((str(address), x) for address, x in content["edits"].items())
        kept = content.get("page")
        if kept is None:
            session.change(None, edits=edits, w=content["ws"][0].numpy().tobytes())
        else:
            session.replace(checked_view(kept, session.view.network, edits, G))
    except (AttributeError, KeyError, TypeError, ValueError) as error:
        raise ValueError(f"this edit does not fit the network ({error})") from error


def checked_view(kept: dict[str, Any], network: str, edits: tuple[tuple[str, float], ...], G: torch.nn.Module) -> View:
    """A `View` from what a file says of it. KeyError, TypeError or ValueError if something is missing or impossible."""
    w = None if kept["w"] is None else bytes.fromhex(kept["w"])
    if w is not None and len(w) != 4 * G.num_ws * G.w_dim:
        raise ValueError("its w is of another size")
    return View(
        network,
        seed=checked_seed(kept["seed"]),
        psi=float(kept["psi"]),
        cutoff=None if kept["cutoff"] is None else int(kept["cutoff"]),
        noise=checked_noise(kept["noise"]),
        class_idx=int(kept["class_idx"]),
        edits=edits,
        mix_seed=checked_seed(kept["mix_seed"]),
        mix_layers=tuple(i for i in map(int, kept["mix_layers"]) if 0 <= i < G.num_ws),
        inside=tuple(map(str, kept["inside"])),
        w=w,
    )


def checked_seed(value: Any) -> int:
    """A seed. ValueError for a number that cannot be one"""
    seed = int(value)
    if not 0 <= seed < 2**32:
        raise ValueError("a seed lies between 0 and 4294967295")
    return seed


def checked_noise(text: Any) -> str:
    """const, none, or a seed as text. ValueError for anything else"""
    text = str(text).strip() or "const"
    if text not in ("const", "none") and not (text.isascii() and text.isdigit() and len(text) < 10):
        raise ValueError("noise is const, none, or a whole number, the seed of random noise")
    return text
