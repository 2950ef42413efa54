"""What the page computes: opened networks and extractors, and images of a `View`. Visitors compute in turn (`turns`).

Networks are those of the command line; nothing that a browser sends is ever opened as a pickle.
"""

import contextlib
import dataclasses
import json
import re
import threading
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path

import numpy as np
import torch

from segan_ext.control.address import Address, Name, parse_address
from segan_ext.control.named import NamedDirection, named_directions
from segan_ext.control.render import offsets_of, parse_edits
from segan_ext.directions.sefa import with_sefa_controls
from segan_ext.latents import coordinate_sigmas, ws_of_seeds
from segan_ext.layers import FeatureHooks
from segan_ext.semantics.extractors import Extractor, open_extractor
from segan_ext.semantics.regions import Region, class_mask
from segan_ext.web.turns import Turns
from snapshots import box
from snapshots.load import load_generator
from torch_utils import cached_weights

_KEPT, _KEPT_NUMBERS = 16, 2**23  # images, and numbers in all of them: two of 1024×1024
_TOGETHER, _PIXELS = 8, 2**17  # images that are made at once, at most; together of so many pixels
_SMALL = 64  # sides up to this are faster on one thread, beside a browser


@dataclasses.dataclass(frozen=True)
class View:
    """Everything that an image on the page depends on.

    noise: 'const', 'none', or the seed of random noise as text. edits: ((address, σ), …). mix_layers: entries of ws
    taken from mix_seed. inside: classes that alone may change. w: float32 as bytes, of one w for all layers or of one
    for each, instead of the seed. source: what w came of, one of `session.SOURCES`.
    """

    network: str
    seed: int = 0
    psi: float = 0.7
    cutoff: int | None = None
    noise: str = "const"
    class_idx: int = 0
    edits: tuple = ()
    mix_seed: int = 1
    mix_layers: tuple = ()
    inside: tuple = ()
    w: bytes | None = None
    source: str = ""

    def with_edit(self, address: str, amount: float) -> "View":
        """This view with one dimension moved to `amount` σ, or a named direction to so many units"""
        edits = dict(self.edits) | {address: round(float(amount), 3)}
        return dataclasses.replace(self, edits=tuple((a, x) for a, x in edits.items() if x))


class Opened:
    """A network, what the page knows of it, and what is computed from its weights once."""

    def __init__(self, path: str | Path, device: str | torch.device, trust: bool) -> None:
        loaded = load_generator(str(path), trust).to(device)
        self.path, self.subspaces = path, getattr(loaded, "subspaces", dict)()
        self.G = with_sefa_controls(loaded)  # so that any network has sliders, and more can be learned
        self.named, self.questions = named_directions(self.G), None
        self.known, self.names, self.extractor = {}, {}, None
        self.opposites = _opposites(self.G)  # {name: the value that its − leads to}
        self.readers = {}  # of a class, to begin projections from
        with cached_weights.enabled(self.known):
            self.sigmas = coordinate_sigmas(self.G)
        self.ranking = self._by_style_change()

    def _by_style_change(self):
        """All addresses, those first whose σ changes the layer's style most; exact images are not needed for this."""
        strengths = {}
        for (L, N), subspace in self.subspaces.items():
            U = getattr(subspace, "U", None)
            columns = torch.ones(subspace.dims) if U is None else U.detach().flatten(0, -2).norm(dim=0).cpu()
            columns = columns / columns.mean()
            strength = (self.sigmas[L, N].cpu() * subspace.L.detach().abs().cpu() * columns).tolist()
            strengths |= {Address(L, N, d): x for d, x in enumerate(strength)}
        return sorted(strengths, key=lambda address: -strengths[address])

    def read_atlas(self, path: str | Path) -> None:
        """Takes order and names from a page of `explore --atlas`. ValueError if it is none, or of another network."""
        if not self.subspaces:
            raise ValueError(f"{path} cannot be of {self.path}, which has no subspaces")
        found = re.search(r"^const entries = (\[.*\]);$", Path(path).read_text("utf-8"), flags=re.MULTILINE)
        entries = json.loads(found[1]) if found else []
        try:
            found = {parse_address(entry["id"]).check(self.G): entry for entry in entries}
            names = {address: entry["n"] or _where(entry) for address, entry in found.items()}
        except (KeyError, TypeError, ValueError) as error:
            raise ValueError(f"{path} is no atlas of {self.path}") from error
        if not found:
            raise ValueError(f"{path} is no page of `explore --atlas`")
        self.ranking = [address for address in found if not isinstance(address, Name)]
        self.names = {address: names[address] for address in self.ranking}
        self.named = {str(name): self.named[name] for name in found if isinstance(name, Name)} | self.named

    def label(self, address: Address | Name, named: Mapping[str, NamedDirection] = {}) -> str:
        """What the slider of a dimension or of a named direction is called"""
        if isinstance(address, Name):
            each = (self.named | dict(named))[address]
            share = f" · {each.selectivity:.0%} its own" if each.source else ""  # nothing was measured of coordinates
            opposite = f" · − is {self.opposites[address]}" if address in self.opposites else ""
            return each.name + share + (f" · + is {each.towards}" if each.towards else "") + opposite
        name = self.names.get(address)
        return f"{address} · {name}" if name else str(address)

    def search(
        self,
        text: str = "",
        layer: tuple[int, int] | None = None,
        count: int = 12,
        named: Mapping[str, NamedDirection] = {},
    ) -> list[Address | Name]:
        """The first addresses whose label has every word of `text`, those with a name before the others.

        layer: (L, N), of whose dimensions alone. named: directions beside those of the network.
        """
        words = text.lower().split()
        names = [Name(name) for name in dict(named) | self.named] if layer is None else []
        hits = names + [a for a in self.ranking if layer is None or a.layer == layer]
        hits = [a for a in hits if all(word in self.label(a, named).lower() for word in words)]
        return hits[:count]


def _opposites(G):
    """Own coordinates have a control for each value but the first, which is what − of all of them leads to"""
    groups = getattr(getattr(G.mapping, "own", None), "groups", [])
    valued = [group for group in groups if "shares" in group]
    names = {known["name"] for known, _ in G.own_controls()}
    each = {f"{group['name']} {value}": group["values"][0] for group in valued for value in group["values"][1:]}
    each |= {group["name"]: group["values"][0] for group in valued}
    return {Name(name): value for name, value in each.items() if name in names}


def _where(entry):
    """'in hair' for a dimension of the atlas whose change falls mostly on one class"""
    classes = entry.get("c") or []
    return f"in {classes[0][0]}" if classes and classes[0][1] >= 50 else ""


class Engine:
    """The networks of the command line, each opened on first use, and the work that is done with them.

    networks, extractors: paths; a network has the first extractor that fits its features, or that of its box.
    """

    def __init__(
        self,
        networks: Sequence[str],
        device: str | torch.device = "cpu",
        trust: bool = False,
        extractors: Iterable[str] = (),
    ) -> None:
        self.paths = {_short(path, networks): path for path in networks}
        self.device, self.trust, self.extractors = device, trust, list(extractors)
        self.opened, self.kept, self.turns = {}, {}, Turns()
        self.opening = {name: threading.Lock() for name in self.paths}
        self.threads = torch.get_num_threads()

    def network(self, name: str) -> Opened:
        """`Opened`. ValueError for a name that there is not; OSError or ValueError if it cannot be opened."""
        if not isinstance(name, str) or name not in self.paths:
            raise ValueError(f"there is no network {str(name)[:100]!r} here")
        if name in self.opened:
            return self.opened[name]
        with self.opening[name]:  # beside the work with others, which does not wait for it
            if name not in self.opened:
                opened = Opened(self.paths[name], self.device, self.trust)
                own = box.find(self.paths[name], box.EXTRACTOR)
                for path in [*self.extractors, *([own] if own else [])]:
                    with contextlib.suppress(ValueError):  # of another generator
                        opened.extractor = opened.extractor or open_extractor(path, opened.G)
                if atlas := box.find(self.paths[name], box.ATLAS):
                    opened.read_atlas(atlas)
                opened.G.synthesis.register_forward_pre_hook(lambda *_: self._before_an_image())
                self.opened[name] = opened
            return self.opened[name]

    @contextlib.contextmanager
    def work(self, name: str) -> Iterator[Opened]:
        """The opened network, to be used inside by this thread only, without autograd and with cached weights."""
        opened = self.network(name)
        with self.turns, cached_weights.enabled(opened.known):
            self._set_threads(opened)
            yield opened

    @contextlib.contextmanager
    def long_work(self, name: str) -> Iterator[Opened]:
        """The opened network for work with gradients, which calls `breathe` between its steps."""
        opened = self.network(name)
        with self.turns:
            self._set_threads(opened)
            yield opened

    def _set_threads(self, opened):
        """For this thread: PyTorch keeps the number for each"""
        torch.set_num_threads(1 if opened.G.img_resolution <= _SMALL else self.threads)

    def breathe(self) -> None:
        """Lets those in who wait, in the midst of work, and leaves PyTorch's random numbers as they are.

        turns.GivenUp if the browser has gone.
        """
        with torch.random.fork_rng([self.device] if torch.device(self.device).type == "cuda" else []):
            self.turns.breathe()

    def _before_an_image(self):
        """Runs before every synthesis, the studio's too: whoever makes many images lets others in between them"""
        if self.turns.next_image():
            self.breathe()

    def ws(self, view: View) -> torch.Tensor:
        """[1, num_ws, w_dim] of a view, with its style mixing"""
        with self.work(view.network) as opened:
            G = opened.G
            ws = self._ws_of(G, view, [view.seed]) if view.w is None else _as_ws(view.w, G, self.device)
            return self._mixed(G, view, ws)

    def _mixed(self, G, view, ws):
        """ws [N, num_ws, w_dim] with the layers that the view takes from another seed"""
        layers = [i for i in view.mix_layers if i < G.num_ws]
        if layers:
            ws = ws.clone()
            ws[:, layers] = self._ws_of(G, view, [view.mix_seed])[:, layers]
        return ws

    def _ws_of(self, G, view, seeds):
        return ws_of_seeds(G, seeds, view.psi, view.class_idx, view.cutoff)

    def render(
        self, view: View, extractor: Extractor | None = None, named: Mapping[str, NamedDirection] = {}
    ) -> torch.Tensor:
        """Image [C, H, W] of a view; extractor: knows the classes of view.inside. named: as in `offsets`.

        ValueError for an address that G does not have.
        """
        return self.variants(view, [view], extractor, named)[0]

    def variants(
        self,
        view: View,
        moved: Sequence[View],
        extractor: Extractor | None = None,
        named: Mapping[str, NamedDirection] = {},
    ) -> torch.Tensor:
        """Images [len(moved), C, H, W] of a view with the edits of each of `moved` instead of its own.

        Random noise would differ between several images: they have the constant one. The rest is as in `render`.
        """
        with self.work(view.network):
            ws = self.ws(view)
            if len(moved) > 1 and view.noise not in ("const", "none"):
                view = dataclasses.replace(view, noise="const")
            offsets = [self.offsets(each, named) for each in moved]
            stacked = {}
            for layer in {layer for each in offsets for layer in each}:
                zero = torch.zeros_like(next(each[layer] for each in offsets if layer in each))
                stacked[layer] = torch.stack([each.get(layer, zero) for each in offsets])
            return self._in_parts(view, ws.repeat(len(moved), 1, 1), stacked, extractor)

    def sheet(
        self,
        view: View,
        seeds: Sequence[int],
        extractor: Extractor | None = None,
        named: Mapping[str, NamedDirection] = {},
    ) -> torch.Tensor:
        """Images [len(seeds), C, H, W] of a view for each of these seeds instead of its own; else as in `render`."""
        with self.work(view.network) as opened:
            ws = self._mixed(opened.G, view, self._ws_of(opened.G, view, seeds))
            offsets = self.offsets(view, named)
            stacked = {layer: offset.expand(len(ws), -1) for layer, offset in offsets.items()}
            return self._in_parts(view, ws, stacked, extractor)

    def _in_parts(self, view, ws, offsets, extractor):
        """`_images` of few at a time. offsets: {(L, N): [N, K]}"""
        size = min(max(_PIXELS // self.network(view.network).G.img_resolution ** 2, 1), _TOGETHER)
        parts = [slice(i, i + size) for i in range(0, len(ws), size)]
        of = lambda part: {layer: offset[part] for layer, offset in offsets.items()}
        return torch.cat([self._images(view, ws[part], of(part), extractor) for part in parts])

    def _images(self, view, ws, offsets, extractor):
        """Images of ws under offsets {(L, N): [N, K]}, inside the classes of the view. Call it inside `work`."""
        G, noise_mode = self.network(view.network).G, self.noise_mode(view)
        mask = self.mask(view, ws, extractor) if offsets else None
        if mask is None:
            with G.edited(offsets=offsets):
                return G.synthesis(ws, noise_mode=noise_mode)
        if noise_mode == "random":
            raise ValueError("changes inside a class need noise that stays: set it to const or none")
        region = Region(G, ws, mask, noise_mode)
        with G.edited(offsets=offsets):
            return region.render(ws)

    def before(self, view: View) -> torch.Tensor:
        """Image [C, H, W] of a view without its edits; the last few are kept."""
        view = dataclasses.replace(view, edits=(), inside=())
        image = self.kept.get(view)  # others may drop it at any moment
        if image is None:
            image = self.render(view)
            most = max(min(_KEPT, _KEPT_NUMBERS // image.numel()), 1)
            self.kept = dict([*self.kept.items()][max(len(self.kept) + 1 - most, 0) :]) | {view: image}
        return image

    def offsets(self, view: View, named: Mapping[str, NamedDirection] = {}) -> dict[tuple[int, int], torch.Tensor]:
        """{(L, N): offsets [K]} of a view's edits, for `G.edited`. ValueError for an address that there is not.

        named: directions beside those of the network.
        """
        opened = self.network(view.network)
        return offsets_of(opened.G, parse_edits(opened.G, view.edits, named), opened.sigmas, named)

    def mask(self, view: View, ws: torch.Tensor, extractor: Extractor | None) -> torch.Tensor | None:
        """[1, 1, H, W] of the classes in view.inside; None without"""
        if not view.inside or extractor is None:
            return None
        G = self.network(view.network).G
        return class_mask(G, extractor, ws, view.inside, noise_mode="none" if view.noise == "none" else "const")

    @staticmethod
    def noise_mode(view: View) -> str:
        """const, none, or random, for which the seed is set. Call it inside `work`."""
        if view.noise in ("const", "none"):
            return view.noise
        torch.manual_seed(int(view.noise))
        return "random"

    def labels(
        self, view: View, extractor: Extractor, named: Mapping[str, NamedDirection] = {}
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """(image [C, H, W], label map [H, W]) of a view with its edits, wherever they reach"""
        with self.work(view.network) as opened, opened.G.edited(offsets=self.offsets(view, named)):
            images, features = FeatureHooks(opened.G, extractor.layers)(self.ws(view), noise_mode="const")
            return images[0], extractor.labels(features, images.shape[-1])[0]


def _as_ws(content, G, device):
    w = torch.from_numpy(np.frombuffer(content, np.float32).copy())
    if w.numel() not in (G.w_dim, G.num_ws * G.w_dim):
        raise ValueError("the latents are of another network")
    return w.reshape(1, -1, G.w_dim).expand(1, G.num_ws, G.w_dim).to(device)


def as_w(ws: torch.Tensor) -> bytes:
    """ws [num_ws, w_dim] as `View.w` holds it: a single w where all layers have the same"""
    shown = ws[:1] if (ws == ws[:1]).all() else ws
    return shown.cpu().numpy().astype(np.float32).tobytes()


def _short(path, paths):
    """The name of a network: its file's, with its run's where several have the same"""
    path = Path(path)
    alike = [p for p in paths if Path(p).name == path.name]
    return path.name if len(alike) == 1 else f"{path.parent.name}/{path.name}"
