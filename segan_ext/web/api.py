"""What the page asks of its server: JSON in, JSON or a file out. Each question is a method of `Api`.

Every question has "session", an id that the page gave itself, and most have "view" (`session.as_json`).
"""

import base64
import contextlib
import dataclasses
import re
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from starlette.responses import Response

from runs.numbers import parse_numbers
from segan_ext.control.address import Address, Name, parse_address
from segan_ext.control.named import read_directions
from segan_ext.images import averaged_down, data_uri, draw_traversal, encoded, to_pictures, webp, write_pictures
from segan_ext.layers import style_groups
from segan_ext.semantics.evaluation import colour_of
from segan_ext.web.controls import described, readable
from segan_ext.web.engine import Engine, View, as_w
from segan_ext.web.projecting import project_lines
from segan_ext.web.session import Projection, Session, Sessions, as_json, checked_view, fitted, loaded, saved
from training.files import parse_json
from training.latents import label_table
from training.projection import SPACES, open_target

_THUMB = 96  # pixels of a small picture's side at most
_CHANGE = 32  # of a map of where a control changes the image
_FILM, _FRAMES, _FPS = 384, 25, 20  # of a film: pixels of its side, as near as whole enlargements come; one way
_MOST_THUMBS, _MOST_SEEDS, _MOST_FOUND = 16, 64, 400
_KINDS = {"png": "image/png", "gif": "image/gif", "mp4": "video/mp4"}


class Api:
    """The questions. Their errors are ValueError, in one sentence, as all of this comes from outside."""

    QUESTIONS = ("open", "search", "thumbs", "sheet", "labels", "mix", "walk", "picture", "save", "cancel", "fit")

    def __init__(self, engine: Engine, sessions: Sessions) -> None:
        self.engine, self.sessions = engine, sessions

    # What there is

    def open(self, data: dict[str, Any]) -> dict[str, Any]:
        """A network as the page shows it. data: session, network (None: that of the session)"""
        session = self.sessions.of(data.get("session"))
        network = data.get("network") or session.view.network
        opened, sliders = self.engine.network(network), session.named_of(network)
        G, extractor = opened.G, session.extractor(opened, network)
        classes = list(extractor.classes) if extractor is not None else []
        return dict(
            networks=list(self.engine.paths),
            network=network,
            resolution=G.img_resolution,
            num_ws=G.num_ws,
            classes_of_G=len(label_table(G)),
            layers=[f"L{L}.N{N}" for L, N in opened.subspaces],
            named=[_card(opened, Name(name), sliders) for name in opened.named | sliders],
            classes=[dict(name=name, colour=colour_of(i)) for i, name in enumerate(classes)],
            groups=style_groups(G),
            view=as_json(session.view if session.view.network == network else View(network)),
        )

    def search(self, data: dict[str, Any]) -> dict[str, Any]:
        """Controls whose label has all words. data: session, network, text, layer ("L3.N1" or ""), count, ids

        ids: of controls that are wanted whatever the text is; those that there are not are left out.
        """
        opened, sliders = (
            self.engine.network(data.get("network")),
            self.sessions.of(data.get("session")).named_of(data["network"]),
        )
        text, layer = str(data.get("text", ""))[:200], str(data.get("layer", ""))
        chosen = Address.parse(f"{layer}.D0").layer if layer else None
        count = min(_whole(data.get("count", 24)), _MOST_FOUND)
        every = opened.search(text, chosen, 10**6, sliders)
        wanted = []
        for each in _texts(data.get("ids", [])):
            with contextlib.suppress(ValueError):  # a slider that is not known any more
                wanted.append(parse_address(each).check(opened.G, sliders))
        show = lambda found: [_card(opened, each, sliders) for each in found]
        return dict(found=show(every[:count]), more=max(len(every) - count, 0), wanted=show(wanted))

    def fit(self, data: dict[str, Any]) -> dict[str, Any]:
        """What of a view from a link, or from before a new start, can be shown. data: session, view

        "left_out": {what cannot: why}
        """
        kept = data.get("view")
        if not isinstance(kept, dict):
            raise ValueError("a view is missing")
        view, left_out = fitted(kept, self.sessions.of(data.get("session")), self.engine)
        return dict(view=as_json(view), left_out=left_out)

    # Pictures

    def announce(self, data: dict[str, Any]) -> None:
        """Notes an image as soon as it is asked for: what the page asked for before and waits is not made any more"""
        if data.get("shown", True):
            session, page, number = self.sessions.of(data.get("session")), *_place(data)
            newest = max(session.newest.get(page, 0), number)
            session.newest = dict([*session.newest.items()][-16:]) | {page: newest}

    def image(self, data: dict[str, Any]) -> Response:
        """The view's image as WebP; 204 for one that a newer request of the same page has superseded.

        data: session, view, page (an id) and number, which grows from request to request; shown: false for an image
        that does not become the session's view, and that nothing supersedes
        """
        self.announce(data)
        session, shown, (page, number) = self.sessions.of(data.get("session")), data.get("shown", True), _place(data)
        superseded = lambda: shown and session.newest.get(page, 0) > number
        if superseded():
            return Response(status_code=204)
        session, view, known = self._asked(data)
        with self.engine.work(view.network):
            if superseded():
                return Response(status_code=204)
            image = self.engine.render(view, **known) if view.edits else self.engine.before(view)
        if shown:
            session.view = view
        return Response(webp(image), media_type="image/webp", headers={"Cache-Control": "no-store"})

    def thumbs(self, data: dict[str, Any]) -> dict[str, Any]:
        """For each control its small pictures, and where it changes the image. data: session, view, ids

        "change": 32×32 bytes in base64, the mean difference of the two pictures, of 255.
        """
        session, view, known = self._asked(data)
        ids = _texts(data.get("ids"))[:_MOST_THUMBS]
        opened, moved = self.engine.network(view.network), []
        for each in ids:
            address = parse_address(each).check(opened.G, known["named"])
            control = described(opened, address, known["named"])
            moved += [view.with_edit(each, control[end]) for end in ("minus", "plus")]
        if not moved:
            return dict(thumbs=[])
        images = self.engine.variants(view, moved, **known)
        change = (images[1::2] - images[::2]).abs().mean(dim=1, keepdim=True) * 127.5
        change = torch.nn.functional.adaptive_avg_pool2d(change, min(_CHANGE, images.shape[-1]))
        change = torch.nn.functional.interpolate(change, size=_CHANGE).clamp(0, 255).round().to(torch.uint8).cpu()
        pictures = [data_uri(webp(each), "webp") for each in averaged_down(images, _THUMB)]
        maps = [base64.b64encode(each.numpy().tobytes()).decode() for each in change]
        shown = zip(ids, pictures[::2], pictures[1::2], maps)
        return dict(thumbs=[dict(id=i, minus=a, plus=b, change=c) for i, a, b, c in shown])

    def sheet(self, data: dict[str, Any]) -> dict[str, Any] | Response:
        """Small pictures of other seeds. data: session, view, seeds ("0-23"), edited (with the view's edits)

        file: true for a PNG of before and after instead.
        """
        session, view, known = self._asked(data)
        try:
            seeds = parse_numbers(str(data.get("seeds", "")), most=_MOST_SEEDS)
        except ValueError as error:
            raise ValueError(f"Seeds: {error}") from error
        view = dataclasses.replace(view, w=None)
        plain = dataclasses.replace(view, edits=(), inside=())
        if data.get("file"):
            both = [self.engine.sheet(each, seeds, **known) for each in (plain, view)]
            picture = draw_traversal(torch.stack(both, dim=1), [f"seed {s}" for s in seeds], ["before", "after"])
            return _file(encoded(picture, "PNG"), f"{_name_of(view).rpartition('-')[0]}-seeds.png")
        images = self.engine.sheet(view if data.get("edited") else plain, seeds, **known)
        pictures = [data_uri(webp(each), "webp") for each in averaged_down(images, _THUMB)]
        return dict(seeds=[dict(seed=seed, image=image) for seed, image in zip(seeds, pictures)])

    def labels(self, data: dict[str, Any]) -> dict[str, Any]:
        """The class of each pixel, [side · side] bytes in base64, "" without an extractor. data: session, view"""
        session, view, known = self._asked(data)
        if known["extractor"] is None:
            return dict(side=0, labels="", classes=[])
        labels = self.engine.labels(view, **known)[1].to(torch.uint8).cpu().numpy()
        text = base64.b64encode(labels.tobytes()).decode()
        return dict(side=labels.shape[-1], labels=text, classes=list(known["extractor"].classes))

    def mix(self, data: dict[str, Any]) -> dict[str, Any]:
        """The view with some layers' w of another. data: session, view, other (a view), layers (entries of ws)"""
        session, view, _ = self._asked(data)
        other = self._asked(data | dict(view=data.get("other")))[1]
        if other.network != view.network:
            raise ValueError("images of two networks do not mix")
        ws, layers = self.engine.ws(view).clone(), data.get("layers")
        if not isinstance(layers, list) or not all(isinstance(i, int) and 0 <= i < ws.shape[1] for i in layers):
            raise ValueError(f"layers to mix: whole numbers from 0 to {ws.shape[1] - 1}")
        ws[:, layers] = self.engine.ws(other)[:, layers]
        return dict(view=as_json(dataclasses.replace(view, w=as_w(ws[0]), mix_layers=(), source="mix")))

    # Files

    def walk(self, data: dict[str, Any]) -> Response:
        """One control from end to end, as a strip or a moving picture. data: session, view, id, kind (png, gif, mp4)"""
        session, view, known = self._asked(data)
        kind = data.get("kind", "png")
        if kind not in _KINDS:
            raise ValueError(f"kind is one of {', '.join(_KINDS)}")
        opened = self.engine.network(view.network)
        address = parse_address(str(data.get("id", ""))).check(opened.G, known["named"])
        control = described(opened, address, known["named"])
        low, high = (control["minus"], control["plus"]) if control["own"] else (-4.0, 4.0)
        steps = torch.linspace(low, high, 9 if kind == "png" else _FRAMES).tolist()
        moved = [view.with_edit(str(address), step) for step in steps]
        images = self.engine.variants(view, moved, **known)
        label, columns = (
            opened.label(address, known["named"]),
            [f"{step:+.1f}" if step else "0" for step in steps],
        )
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder) / f"{'strip' if kind == 'png' else 'walk'}.{kind}"
            scale = 1 if kind == "png" else max(_FILM // images.shape[-1], 1)
            images = torch.nn.functional.interpolate(images, scale_factor=scale)
            write_pictures(path, images[None], [label], columns, fps=_FPS)
            return _file(path.read_bytes(), f"{_name_of(view, str(address))}{path.suffix}")

    def picture(self, data: dict[str, Any]) -> Response:
        """The image as PNG. data: session, view"""
        session, view, known = self._asked(data)
        (picture,) = to_pictures(self.engine.render(view, **known)[None])
        return _file(encoded(picture, "PNG"), f"{_name_of(view)}.png")

    def save(self, data: dict[str, Any]) -> Response:
        """The edit file. data: session, view"""
        session, view, _ = self._asked(data)
        return _file(saved(view, session, self.engine).encode(), f"{_name_of(view)}-edit.json")

    def load(self, path: Path, asked: dict[str, str]) -> dict[str, Any]:
        """The view of an edit file, or the names of a file of sliders. asked: session, network"""
        session, opened = self.sessions.of(asked.get("session")), self.engine.network(asked.get("network"))
        content = {}
        with contextlib.suppress(ValueError):
            content = parse_json(path.read_bytes(), dict)
        if content.get("format") == "segan-directions":
            found = read_directions(path, opened.G)
            session.named_of(asked["network"]).update(found)
            return dict(view=None, names=list(found))
        return dict(view=as_json(loaded(path, session, self.engine, asked["network"])), names=[])

    # Projection

    def project(self, path: Path, asked: dict[str, str]) -> Iterator[dict[str, Any]]:
        """The lines of `projecting.project_lines` for a picture. asked: session, network, class_idx, steps, space"""
        session, opened = self.sessions.of(asked.get("session")), self.engine.network(asked.get("network"))
        target = open_target(str(path), opened.G)
        steps, space = _whole(asked.get("steps", 200)), asked.get("space", "w")
        class_idx = _whole(asked.get("class_idx", 0), most=max(len(label_table(opened.G)) - 1, 0))
        if not 1 <= steps <= 1000:
            raise ValueError("steps: a whole number from 1 to 1000")
        if space not in SPACES:
            raise ValueError(f"space is one of {', '.join(SPACES)}")
        if session.projection is not None:
            session.projection.replaced = True  # which ends it
        session.projection = Projection()
        return project_lines(self.engine, asked["network"], target, space, steps, class_idx, session.projection)

    def cancel(self, data: dict[str, Any]) -> dict[str, Any]:
        """Ends the projection after its current step, with what there is. data: session"""
        going_on = self.sessions.of(data.get("session")).projection
        if going_on is not None:
            going_on.stopped = True
        return {}

    # Checks

    def _asked(self, data) -> tuple[Session, View, dict[str, Any]]:
        """(session, view, the extractor and the directions that `Engine` wants with it) of a question"""
        session, kept = self.sessions.of(data.get("session")), data.get("view")
        network = kept.get("network") if isinstance(kept, dict) else None
        opened = self.engine.network(network)
        known = dict(extractor=session.extractor(opened, network), named=session.named_of(network))
        return session, checked_view(kept, self.engine, opened.named | known["named"]), known


def _card(opened, address, sliders):
    """`described`, and "opposite": the value that − leads to, where there is one"""
    opposite = opened.opposites.get(address, "")
    return described(opened, address, sliders) | dict(
        opposite=readable(f"value {opposite}", opposite)[1] if opposite else ""
    )


def _place(data):
    """(the page that asks, the number of its request)"""
    return str(data.get("page"))[:40], _whole(data.get("number", 0))


def _file(content, name):
    headers = {"Content-Disposition": f'attachment; filename="{name}"', "Cache-Control": "no-store"}
    kind = _KINDS.get(name.rpartition(".")[2], "application/json")
    return Response(content, media_type=kind, headers=headers)


def _name_of(view, *more):
    """What a file of the view is called: network, seed or what its latents came of, and more, in plain letters"""
    origin = view.source or "latents" if view.w is not None else f"seed{view.seed:04d}"
    parts = [re.sub(r"\W+", "-", part, flags=re.ASCII).strip("-")[:40] for part in (Path(view.network).stem, *more)]
    return "-".join(part for part in (parts[0], *parts[1:], origin) if part)


def _texts(values):
    if not isinstance(values, list) or not all(isinstance(each, str) for each in values):
        raise ValueError("ids: a list of controls")
    return values


def _whole(value, most=2**53):
    try:
        number = int(value)
    except (TypeError, ValueError, OverflowError) as error:
        raise ValueError("a whole number is missing") from error
    if not 0 <= number <= most:
        raise ValueError(f"a whole number lies between 0 and {most}")
    return number
