"""What one browser has done: its view with undo and redo, its slots of sliders, its annotations."""

import dataclasses
import json
import time

import torch

from segan_ext.edit import describe, read_edit
from segan_ext.moves import Address
from segan_ext.web.engine import View

SLOTS = 12
_MERGED = 1.0  # seconds within which moves of one control are one step of undo


@dataclasses.dataclass
class Annotating:
    """Work on the Train tab. labelled: {seed: labels [H, W]}; training: `few_shot.FewShot` that can go on."""

    classes: list = dataclasses.field(default_factory=lambda: ["background", "class 1"])
    seed: int = 0
    strokes: torch.Tensor | None = None
    labelled: dict = dataclasses.field(default_factory=dict)
    training: object = None
    losses: list = dataclasses.field(default_factory=list)


class Session:
    """The state of one browser. It is changed in place; Gradio keeps one for each open page."""

    def __init__(self, network):
        self.view = View(network)
        self.past, self.future, self.last_change = [], [], (None, 0.0)
        self.slots = []  # addresses of the sliders, in order
        self.strokes = None  # (labels, colours) painted on the Edit tab
        self.edited = None  # the w of the last edit by painting, as bytes
        self.work = Annotating()
        self.extractors = {}  # {network: extractor trained here}, before those of the command line
        self.stopped = False  # the user wants long work to end

    def extractor(self, opened):
        """The extractor of this browser for the view's network: its own, else that of the command line, or None"""
        return self.extractors.get(self.view.network, opened.extractor)

    def change(self, what, **values):
        """Sets fields of the view. what: names the control, whose moves in quick succession are one step of undo."""
        self.replace(dataclasses.replace(self.view, **values), what)

    def replace(self, view, what=None):
        """Sets the view as a whole"""
        if view == self.view:
            return
        merged = what is not None and self.last_change[0] == what and time.monotonic() - self.last_change[1] < _MERGED
        if not merged:
            self.past = [*self.past[-99:], self.view]
        self.future, self.view, self.last_change = [], view, (what, time.monotonic())

    def undo(self):
        """Back to the view before, if there is one"""
        if self.past:
            self.future.append(self.view)
            self.view, self.last_change = self.past.pop(), (None, 0.0)

    def redo(self):
        if self.future:
            self.past.append(self.view)
            self.view, self.last_change = self.future.pop(), (None, 0.0)

    def amount(self, address):
        """σ of an address in the view's edits"""
        return dict(self.view.edits).get(str(address), 0.0)


def saved(session, engine):
    """The view as text that `python -m segan_ext edit --replay` and `loaded` take."""
    view = session.view
    edits = {Address.parse(address): amount for address, amount in view.edits}
    noise_mode = view.noise if view.noise in ("const", "none") else "const"
    content = describe(engine.paths[view.network], edits, engine.ws(view), [f"seed{view.seed:04d}"], noise_mode)
    kept = dataclasses.asdict(view)
    kept["w"] = None if view.w is None else view.w.hex()
    return json.dumps(content | dict(page=kept), indent=1)


def loaded(path, session, engine):
    """Takes the view of a file of `saved`, or an edit.json's moves. ValueError, in one sentence, for another file."""
    content = read_edit(path)
    opened = engine.network(session.view.network)
    try:
        edits = {str(Address.parse(a).check(opened.G)): float(x) for a, x in content["edits"].items()}
        kept = json.loads(open(path, encoding="utf-8").read()).get("page")
        if kept is None:
            session.change(None, edits=tuple(edits.items()), w=_first_w(content["ws"], opened.G))
            return
        kept |= dict(network=session.view.network, edits=tuple(edits.items()))
        kept["w"] = None if kept.get("w") is None else bytes.fromhex(kept["w"])
        for name in ("mix_layers", "inside"):
            kept[name] = tuple(kept[name])
        numbers = dict(seed=int(kept["seed"]), psi=float(kept["psi"]), mix_seed=int(kept["mix_seed"]))
        session.replace(View(**kept | numbers))
    except (AttributeError, KeyError, TypeError, ValueError) as error:
        raise ValueError(f"this edit does not fit the network ({error})") from error


def _first_w(ws, G):
    if list(ws.shape[1:]) != [G.num_ws, G.w_dim]:
        raise ValueError(f"its w is {list(ws.shape[1:])}")
    return ws[0].to(torch.float32).numpy().tobytes()
