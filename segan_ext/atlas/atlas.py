"""The atlas: a page that ranks all dimensions by how much they change the image, and says where and what they move."""

from collections.abc import Callable, Sequence
from typing import NamedTuple

import numpy as np
import torch
from PIL import Image

from segan_ext.control.address import Address, Name
from segan_ext.control.alike import ALIKE, nearest_before, signature
from segan_ext.control.named import CLEAR, named_directions
from segan_ext.control.render import render
from segan_ext.control.sweep import Moved, Progress, sweep
from segan_ext.images import averaged_down, encoded, to_uint8
from segan_ext.latents import coordinate_sigmas, ws_of_seeds
from segan_ext.metrics.attributes import Predictor
from segan_ext.metrics.purity import AttributeEffects, Purity
from segan_ext.metrics.selectivity import rotated_candidates
from segan_ext.semantics.class_effects import ClassEffect, ClassEffects
from segan_ext.semantics.extractors import Extractor
from torch_utils import cached_weights

_RANDOM = 24  # directions of a layer that stand for chance
_TILE = 64  # pixels of an image in a strip, at most
_HEAT = 32  # pixels of a heat map, at most


class Entry(NamedTuple):
    """A dimension of the atlas, or a named direction, which moves from one end of its range to the other (σ 1).

    effect: mean absolute change of the image (range 2) from −2σ to +2σ, or a perceptual distance. heat: where, [h, w]
    in [0, 1]. purity: None without attributes. like: the stronger dimension whose change is most like this one's, with
    the cosine of the two (negative: the other way round); None for the strongest, and where nothing changes. strip: a
    WebP picture, a row a latent: at −2σ, 0, +2σ. classes: {class: ClassEffect} or None. z: how many deviations its
    purity lies above that of random directions of its layer; None without attributes, and of a named direction. said:
    what is known of that one.
    """

    address: Address | Name
    sigma: float
    effect: float
    heat: np.ndarray
    strip: bytes
    purity: Purity | None = None
    like: tuple[Address, float] | None = None
    classes: dict[str, ClassEffect] | None = None
    z: float | None = None
    said: str = ""

    @property
    def is_copy(self) -> bool:
        """True if a stronger dimension makes nearly the same change: |cosine| above 0.9"""
        return self.like is not None and abs(self.like[1]) > ALIKE

    @property
    def name(self) -> str:
        """The attribute that it moves, if it moves one clearly

        That is half a deviation at least, most of its strength, and more purely than chance would.
        """
        clear = self.purity is not None and self.purity.purity >= 0.5 and self.purity.strength >= 0.5 and self.z > CLEAR
        return self.purity.attribute if clear else ""


@cached_weights.enabled()
def make_atlas(
    G: torch.nn.Module,
    seeds: Sequence[int] = range(4),
    predictor: Predictor | None = None,
    features: Callable[[torch.Tensor], torch.Tensor] | None = None,
    batch: int = 64,
    progress: Progress | None = None,
    extractor: Extractor | None = None,
    class_idx: int = 0,
) -> list[Entry]:
    """`Entry`s of all dimensions and named directions of G, the strongest first.

    seeds: latents that every dimension is moved on, of the class class_idx of a conditional G. predictor:
    `attributes.Predictor`, or None. features: images [N, C, H, W] in [0, 255] → [N, F] whose squared distance is
    the effect; None: pixels. batch, progress: of `control.sweep.sweep`. extractor: says which classes each
    dimension moves.
    """
    ws, sigmas = ws_of_seeds(G, seeds, class_idx=class_idx), coordinate_sigmas(G)
    base = averaged_down(G.synthesis(ws, noise_mode="const"), _TILE)
    measured = AttributeEffects(G, predictor, predictor.reliable()) if predictor is not None else None
    by_chance = _purity_by_chance(G, ws, measured, batch) if measured is not None else {}
    classes = ClassEffects(G, extractor, ws, sigmas, batch=batch) if extractor is not None else None
    entries, signatures = [], []
    for moved in sweep(G, ws, sigmas, batch=batch, progress=progress):
        purities = measured.of(moved) if measured is not None else [None] * len(moved.dims)
        class_effects = classes.of(moved) if classes is not None else [None] * len(moved.dims)
        signatures.append(signature(moved.high - moved.low))
        looks = _looks(moved, base, features)
        for d, look, purity, effects in zip(moved.dims, looks, purities, class_effects):
            sigma = float(sigmas[moved.layer][d])
            entry = Entry(Address(*moved.layer, d), sigma, *look, purity, None, effects)
            if purity is not None:
                mean, deviation = by_chance[moved.layer]
                entry = entry._replace(z=(purity.purity - mean) / deviation)
            entries.append(entry)
    for name, known in named_directions(G).items():
        ends = [render(G, ws, {name: end}, sigmas, noise_mode="const")[None] for end in (known.low, known.high)]
        moved = Moved(min(known.offsets), range(1), *ends)
        signatures.append(signature(moved.high - moved.low))
        entries.append(Entry(Name(name), 1.0, *_looks(moved, base, features)[0], said=known.said()))
    order = sorted(range(len(entries)), key=lambda i: -entries[i].effect)
    return _with_likes([entries[i] for i in order], torch.cat(signatures)[order])


def _looks(moved, base, features):
    """[(effect, heat, strip)] of each dimension of a `Moved`"""
    change = moved.high - moved.low  # [dims, S, C, H, W]
    heat = change.abs().mean(dim=[1, 2])
    effects = heat.mean(dim=[1, 2]) if features is None else _distances(features, moved)
    low, high = (averaged_down(images.flatten(0, 1), _TILE).unflatten(0, change.shape[:2]) for images in moved[2:])
    found = []
    for i in range(len(change)):
        shown = averaged_down(heat[i][None, None], _HEAT)[0, 0].cpu().numpy()
        strip = _strip_picture(torch.stack([low[i], base, high[i]], dim=1).cpu())
        found.append((float(effects[i]), shown / max(shown.max(), 1e-12), strip))
    return found


def _purity_by_chance(G, ws, measured, batch):
    """{(L, N): mean and deviation of the purity} of random directions of each layer"""
    steps, found = {}, {}
    for i in range(-(-_RANDOM // min(s.dims for s in G.subspaces().values()))):
        for candidate in rotated_candidates(G, _RANDOM, seed=i):
            ((layer, step),) = candidate.offsets.items()
            steps.setdefault(layer, []).append(step)
    steps = {layer: torch.stack(rows[:_RANDOM]) for layer, rows in steps.items()}
    for moved in sweep(G, ws, batch=batch, steps=steps):
        found.setdefault(moved.layer, []).extend(each.purity for each in measured.of(moved))
    return {layer: (float(np.mean(each)), max(float(np.std(each, ddof=1)), 1e-6)) for layer, each in found.items()}


def _distances(features, moved):
    """Perceptual distances of pictures of 256 pixels at most, which is what such features are made for"""
    low, high = (
        torch.cat(
            [
                features((averaged_down(each, 256) * 127.5 + 127.5).clamp(0, 255))
                for each in images.flatten(0, 1).split(8)
            ]
        )
        for images in (moved.low, moved.high)
    )
    return (high - low).square().sum(dim=1).unflatten(0, moved.low.shape[:2]).mean(dim=1)


def _with_likes(entries, signatures):
    """The entries, in order, each with the one before it that is most like it."""
    pairs = zip(entries, nearest_before(signatures))
    return [entry._replace(like=like and (entries[like[0]].address, like[1])) for entry, like in pairs]


def _strip_picture(strip):
    """WebP of images [S, 3, C, h, w]: a row a latent, a column a step"""
    S, steps, C, h, w = strip.shape
    pixels = to_uint8(strip).permute(0, 3, 1, 4, 2).reshape(S * h, steps * w, C)
    picture = Image.fromarray(pixels.numpy().squeeze()).convert("RGB")
    return encoded(picture, "WEBP", quality=80)
