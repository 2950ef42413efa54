"""The atlas as one HTML file that opens offline."""

import html
import json
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from PIL import Image

from metrics.perceptual import perceptual_features
from segan_ext.atlas.atlas import Entry, make_atlas
from segan_ext.control.address import Name
from segan_ext.control.named import CLEAR
from segan_ext.control.sweep import Progress
from segan_ext.images import data_uri, encoded
from segan_ext.metrics.attributes import open_predictor
from segan_ext.semantics.class_effects import most_moved
from segan_ext.semantics.extractors import open_extractor
from snapshots.atomic import write_atomically


def write_atlas(
    G: torch.nn.Module,
    dest: str | Path,
    seeds: Sequence[int],
    attribute_source: str | Path | None = None,
    detector: str | None = None,
    title: str = "",
    progress: Progress | None = None,
    extractor_path: str | Path | None = None,
    class_idx: int = 0,
) -> list[Entry]:
    """Writes the atlas of G to `dest` (.html), returns its entries.

    ValueError for sources that do not open, after the option that names them: "--detector: …".
    """
    device = next(G.parameters()).device
    features = _opened("--detector", perceptual_features, detector, device)
    predictor = _opened("--attributes", open_predictor, attribute_source, device)
    extractor = _opened("--extractor", open_extractor, extractor_path, G)
    entries = make_atlas(G, seeds, predictor, features, progress=progress, extractor=extractor, class_idx=class_idx)
    Path(dest).parent.mkdir(parents=True, exist_ok=True)
    text = page(entries, seeds, title, features.name if features else None)
    write_atomically(dest, lambda file: file.write(text.encode()))
    return entries


def _opened(option, open_, source, *args):
    """open_(source, *args), or None without a source"""
    try:
        return open_(source, *args) if source else None
    except (OSError, ValueError) as error:
        raise ValueError(f"{option}: {error}") from error


def page(entries: Sequence[Entry], seeds: Sequence[int], title: str, detector: str | None = None) -> str:
    """The atlas as one HTML file that opens offline. detector: name of the one that `effect` is of; None: pixels."""
    unit = 1 if detector else 127.5  # distances as they are, pixels of 255
    data = json.dumps([_record(entry, unit) for entry in entries], separators=(",", ":")).replace("</", "<\\/")
    measure = f"distance by {detector}" if detector else "mean change of a pixel, of 255"
    values = dict(title=html.escape(title), seeds=", ".join(map(str, seeds)), measure=measure, data=data)
    text = (Path(__file__).parent / "atlas.html").read_text("utf-8")
    for name, value in values.items():
        text = text.replace(f"%{name}%", value)
    return text


def _record(entry, unit):
    """What the page needs of an entry"""
    named = isinstance(entry.address, Name)
    layer = "with a name" if named else f"L{entry.address.L}.N{entry.address.N}"
    record = dict(id=str(entry.address), l=layer, e=round(unit * entry.effect, 4), w=entry.said)
    record |= dict(s=round(entry.sigma, 3), n=entry.name, h=_heat_picture(entry.heat), t=data_uri(entry.strip, "webp"))
    if entry.purity is not None:
        strongest = sorted(entry.purity.effects.items(), key=lambda item: -item[1])[:3]
        record |= dict(p=round(entry.purity.purity, 3), g=round(entry.purity.strength, 3), z=round(entry.z, 1))
        record["better"] = entry.z > CLEAR
        record["a"] = [[name, round(effect, 2)] for name, effect in strongest]
    if entry.classes is not None:
        moved = most_moved(entry.classes)
        record["c"] = [[name, round(100 * effect.share), round(effect.shape, 2)] for name, effect in moved]
    if entry.is_copy:
        record["k"] = [str(entry.like[0]), round(entry.like[1], 3)]
    return record


def _heat_picture(heat):
    """A data URI: dark where nothing changes, over red to bright yellow"""
    ramp = np.linspace(0, 1, 256)[:, None]
    palette = np.concatenate([(2 * ramp).clip(0.1, 1), (2 * ramp - 0.8).clip(0, 1), 0.15 + 0 * ramp], axis=1)
    picture = Image.fromarray((heat * 255).astype(np.uint8), mode="P")
    picture.putpalette((palette * 255).astype(np.uint8).tobytes())
    return data_uri(encoded(picture, "PNG"))
