"""What the server keeps of a browser: its last view, answers and sliders, annotations, trained extractors."""

import dataclasses
import json
import math
import re
import threading
from pathlib import Path
from typing import Any

import numpy as np
import torch

from segan_ext.control.address import Name, parse_address
from segan_ext.control.edit_file import describe, read_edit
from segan_ext.control.named import NamedDirection
from segan_ext.control.render import parse_edits
from segan_ext.semantics.extractors import Extractor
from segan_ext.web.engine import Engine, Opened, View, as_w
from training.latents import label_table

_MOST_SESSIONS = 64  # of which the server knows; the one that was used longest ago is forgotten
_MOST_EDITS = 1000
SOURCES = ("", "picture", "mix", "painting", "file")  # what a view's w came of


@dataclasses.dataclass
class Annotating:
    """Work on the Train tab, on images of one class.

    labelled: {seed: labels [H, W]}; training: `few_shot.FewShot` that can go on.
    """

    classes: list = dataclasses.field(default_factory=lambda: ["background", "class 1"])
    seed: int = 0
    class_idx: int = 0  # of a conditional network; that of the view when the first annotation was made
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


@dataclasses.dataclass
class Projection:
    """A projection that may be going on. stopped: by the user, who takes what there is; replaced: by a newer one"""

    stopped: bool = False
    replaced: bool = False


class Session:
    """What is kept for one browser, which has its history itself. view: the one that it showed last."""

    def __init__(self, network: str) -> None:
        self.view = View(network)
        self.newest = {}  # {an open page: number of the newest move it sent}
        self.canvas, self.strokes = None, None  # id of the image on the Edit tab; (labels, colours) painted on it
        self.edited = {}  # {network: w of the last edit by painting, as bytes}
        self.works = {}  # {network: Annotating}
        self.learned = {}  # {network: Learned}
        self.extractors = {}  # {network: extractor trained here}, before those of the command line
        self.stopped = set()  # long work of the studio that the user wants to end: edit, train, refine
        self.projection = None  # the last `Projection`

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
        return self.named_of(self.view.network)

    def named_of(self, network: str) -> dict[str, NamedDirection]:
        """The named directions that were learned here, for a network"""
        return self.learned.setdefault(network, Learned()).sliders

    def extractor(self, opened: Opened, network: str | None = None) -> Extractor | None:
        """The extractor of this browser for a network (None: the view's): its own, else the command line's, or None"""
        return self.extractors.get(network or self.view.network, opened.extractor)


class Sessions:
    """The sessions of a server by the id that a page gives itself, the last 64 of them. network: of a new one"""

    def __init__(self, network: str) -> None:
        self.network, self.known, self.lock = network, {}, threading.Lock()

    def of(self, key: Any) -> Session:
        """The session of an id, new if it is not known. ValueError for what is no id."""
        if not isinstance(key, str) or not re.fullmatch(r"[0-9a-f]{8,64}", key):
            raise ValueError("the id of a session is 8 to 64 hexadecimal digits")
        with self.lock:
            found = self.known.pop(key, None) or Session(self.network)
            self.known = dict([*self.known.items()][1 - _MOST_SESSIONS :]) | {key: found}
            return found


def saved(view: View, session: Session, engine: Engine) -> str:
    """The view as text that `python -m segan_ext edit --replay` and `loaded` take; random noise replays as constant."""
    edits = {parse_address(address): amount for address, amount in view.edits}
    noise_mode = view.noise if view.noise in ("const", "none") else "const"
    with engine.work(view.network) as opened:
        ws = engine.ws(view)
        mask = engine.mask(view, ws, session.extractor(opened, view.network)) if edits else None
        named = opened.named | session.named_of(view.network)
    inside = None if mask is None else mask[:, 0]
    names, path = [f"seed{view.seed:04d}"], engine.paths[view.network]
    content = describe(path, edits, ws, names, noise_mode, inside=inside, directions=named)
    return json.dumps(content | dict(page=as_json(view)), indent=1)


def loaded(path: str | Path, session: Session, engine: Engine, network: str) -> View:
    """The view of a file of `saved`, or of an edit.json; what it names, the session knows from then on.

    network: for which it is read. ValueError, in one sentence, for another file.
    """
    opened, sliders = engine.network(network), session.named_of(network)
    content = read_edit(path, opened.G, masks=False)
    if not opened.subspaces and any(not isinstance(address, Name) for address in content["edits"]):
        raise ValueError("this edit does not fit the network (it moves dimensions, and this one has none)")
    sliders.update({name: each for name, each in content["directions"].items() if name not in opened.named})
    edits = tuple((str(address), x) for address, x in content["edits"].items())
    kept = content.get("page")
    try:
        if kept is None:
            return View(network, edits=edits, w=as_w(content["ws"][0]), source="file")
        return checked_view(dict(kept) | dict(network=network, edits=dict(edits)), engine, opened.named | sliders)
    except (IndexError, TypeError, ValueError) as error:
        raise ValueError(f"this edit does not fit the network ({error})") from error


def as_json(view: View) -> dict[str, Any]:
    """A view as `checked_view` takes it"""
    kept = dataclasses.asdict(view) | dict(edits=dict(view.edits))
    return kept | dict(w=None if view.w is None else view.w.hex())


def checked_view(kept: Any, engine: Engine, named: dict[str, NamedDirection]) -> View:
    """A `View` from what a page or a file says of it. ValueError, in one sentence, for anything impossible.

    named: the directions that its edits may name.
    """
    try:
        network = kept["network"]
        G = engine.network(network).G
        edits = parse_edits(G, dict(kept["edits"]), named)
        view = View(
            network,
            seed=checked_seed(kept["seed"]),
            psi=_number("truncation", kept["psi"], -5, 5),
            cutoff=None if kept["cutoff"] is None else _whole("truncated layers", kept["cutoff"], G.num_ws),
            noise=checked_noise(kept["noise"]),
            class_idx=_whole("class", kept["class_idx"], max(len(label_table(G)) - 1, 0)),
            edits=tuple((str(address), amount) for address, amount in edits.items() if amount),
            mix_seed=checked_seed(kept["mix_seed"]),
            mix_layers=tuple(_whole("layers to mix", i, G.num_ws - 1) for i in list(kept["mix_layers"])[: G.num_ws]),
            inside=tuple(str(name)[:100] for name in list(kept["inside"])[:256]),
            w=None if kept["w"] is None else _checked_w(kept["w"], G),
            source=_checked_source(kept.get("source", "")),
        )
    except (AttributeError, KeyError, TypeError, OverflowError) as error:
        raise ValueError("this is no view of the page: something in it is missing or of the wrong kind") from error
    if len(view.edits) > _MOST_EDITS:
        raise ValueError(f"{_MOST_EDITS} edits are the most")
    return view


def fitted(kept: dict[str, Any], session: Session, engine: Engine) -> tuple[View, dict[str, str]]:
    """(what of a view from elsewhere can be shown here, {what is left out: why, in a sentence}).

    Such a view comes from a link, or from before the server was started anew. kept: as in `checked_view`.
    """
    network, left_out = kept.get("network") or session.view.network, {}
    if not isinstance(network, str) or network not in engine.paths:
        left_out["network"] = f"the network {str(network)[:60]} is not open here, so another one is shown"
        network = next(iter(engine.paths))
        kept = {name: value for name, value in kept.items() if name in ("seed", "psi", "noise")}
    opened, sliders = engine.network(network), session.named_of(network)
    named, extractor = opened.named | sliders, session.extractor(opened, network)
    view = as_json(View(network))
    for name, value in _pieces(kept):
        tried = view | {name: view[name] | value if name == "edits" else value}
        try:
            checked_view(tried, engine, named)
            view = tried
        except ValueError as error:
            what = str(next(iter(value)))[:100] if name == "edits" else name
            known = name != "edits" or what in named or re.fullmatch(r"L\d+\.N\d+\.D\d+", what)
            left_out[what] = str(error) if known else _UNKNOWN_SLIDER.format(what)
    classes = () if extractor is None else extractor.classes
    for name in set(view["inside"]) - set(classes):
        left_out[name] = f"no extractor knows the class {name} here"
    view["inside"] = [name for name in view["inside"] if name in classes]
    return checked_view(view, engine, named), left_out


_UNKNOWN_SLIDER = (
    "the slider {} is not known here: it was named in another browser, or before the server was started anew. "
    "Load its file (Export), or name it again"
)


def _pieces(kept):
    """The values of a view one by one: [(name, value)], each edit by itself"""
    edits = kept.get("edits")
    each = [("edits", {address: x}) for address, x in edits.items()] if isinstance(edits, dict) else []
    names = {field.name for field in dataclasses.fields(View)} - {"network", "edits"}
    return [(name, value) for name, value in kept.items() if name in names] + each


def _checked_source(text):
    if text not in SOURCES:
        raise ValueError(f"the source of its w is one of {', '.join(SOURCES[1:])}")
    return text


def _checked_w(text, G):
    try:
        content = bytes.fromhex(text)
    except ValueError as error:
        raise ValueError("its w is not hexadecimal") from error
    if len(content) not in (4 * G.w_dim, 4 * G.num_ws * G.w_dim):
        raise ValueError("its w is of another size")
    w = np.frombuffer(content, np.float32)
    if not np.isfinite(w).all():
        raise ValueError("its w is not finite")
    return w.tobytes()


def _number(what, value, low, high):
    try:
        value = float(value)
    except (TypeError, ValueError) as error:
        raise ValueError(f"{what} is a number from {low} to {high}") from error
    if not math.isfinite(value) or not low <= value <= high:
        raise ValueError(f"{what} lies between {low} and {high}")
    return value


def _whole(what, value, most):
    if not isinstance(value, (int, float)) or not 0 <= value <= most or value != int(value):
        raise ValueError(f"{what}: a whole number from 0 to {most}")
    return int(value)


def checked_seed(value: Any) -> int:
    """A seed. ValueError for a number that cannot be one"""
    return _whole("seed", value, 2**32 - 1)


def checked_noise(text: Any) -> str:
    """const, none, or a seed as text. ValueError for anything else"""
    text = str(text).strip() or "const"
    if text not in ("const", "none") and not (text.isascii() and text.isdigit() and len(text) < 10):
        raise ValueError("noise is const, none, or a whole number, the seed of random noise")
    return text
