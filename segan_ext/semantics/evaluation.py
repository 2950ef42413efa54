"""How well extractors agree with a segmenter on fresh images: tables and pictures."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
import tqdm
from PIL import Image, ImageDraw

from segan_ext.images import enlargement
from segan_ext.latents import draw_ws
from segan_ext.layers import FeatureHooks
from segan_ext.semantics.extractors import Extractor
from segan_ext.semantics.iou import Scores, Table
from snapshots.atomic import write_atomically
from torch_utils import cached_weights
from training.images import to_pictures

if TYPE_CHECKING:  # it imports what draws avatars
    from segan_ext.semantics.segmenters import Segmenter

SAMPLES = 10000  # as published
_FIRST_SEED = 1_000_000  # far from the seeds that trainings start with
# One colour for each class, in turn; the background is light grey.
# fmt: off
COLOURS = [
    "#e8e8e8", "#f2b48c", "#6b3e26", "#2a6fb0", "#1f1f1f", "#d2336e", "#8f5cc2", "#b8762c", "#35b6a5", "#6a4bc4",
    "#7f8c99", "#e8c33c", "#4f9d3a", "#c44536", "#74c0e8", "#a3a05b", "#ff8fb3", "#2d5d50", "#c9a0dc", "#5b5b8c",
]
# fmt: on


@cached_weights.enabled()
def evaluate(
    G: torch.nn.Module,
    extractors: Sequence[Extractor],
    segmenter: "Segmenter",
    samples: int = SAMPLES,
    truncation_psi: float = 0.5,
    seed: int = _FIRST_SEED,
    progress: bool = True,
) -> list[Table]:
    """[`iou.Table`] of each extractor: the published protocol, labels by the segmenter as the reference.

    extractors: with the segmenter's classes. ValueError if classes differ.
    """
    for extractor in extractors:
        if extractor.classes != segmenter.classes:
            raise ValueError(
                f"the extractor's classes ({', '.join(extractor.classes)}) are not the segmenter's "
                f"({', '.join(segmenter.classes)})"
            )
    scores = [Scores(len(segmenter.classes)) for _ in extractors]
    hooks = FeatureHooks(G)
    parts = torch.arange(samples).split(hooks.batch)
    for part in tqdm.tqdm(parts, desc="Evaluating", unit="batch", disable=None if progress else True):
        ws = draw_ws(G, len(part), seed + int(part[0]), truncation_psi=truncation_psi)
        images, features = hooks(ws, noise_mode="const")
        reference = segmenter(images)
        for score, extractor in zip(scores, extractors):
            score.add(extractor.labels(_of(extractor, hooks, features), images.shape[-1]), reference)
    return [score.table(segmenter.classes) for score in scores]


def _of(extractor, hooks, features):
    """Those of the features that the extractor reads"""
    return [features[hooks.names.index(name)] for name in extractor.layers]


def markdown(tables: dict[str, Table]) -> str:
    """A table with a row a class. tables: {name of an extractor: `iou.Table`}"""
    classes = [name for name in next(iter(tables.values())).ious][1:]
    shown = lambda x: "–" if x is None else f"{100 * x:.1f}"
    rows = [["class", *tables], ["---"] * (1 + len(tables))]
    for name in classes:
        if any(table.ious[name] is not None for table in tables.values()):
            rows.append([name, *(shown(table.ious[name]) for table in tables.values())])
    rows.append(["**mean of images' IoUs (published)**", *(f"**{shown(t.mean_iou)}**" for t in tables.values())])
    rows.append(["pooled mIoU", *(shown(t.pooled_mean_iou) for t in tables.values())])
    rows.append(["pixels right", *(shown(t.accuracy) for t in tables.values())])
    return "\n".join(f"| {' | '.join(row)} |" for row in rows)


def write_tables(path: str | Path, tables: dict[str, Table], **protocol: Any) -> None:
    """Writes {name of an extractor: `iou.Table`} and how they were measured as JSON."""
    content = dict(protocol=protocol, results={name: table._asdict() for name, table in tables.items()})
    write_atomically(path, lambda file: file.write(json.dumps(content, indent=1).encode()))


# ---------------------------------------------------------------------------------------------------------------------
# Pictures


def colour_of(index: int) -> str:
    """The colour that a class has everywhere, as '#rrggbb'"""
    return COLOURS[index % len(COLOURS)]


def draw_labels(labels: torch.Tensor, scale: int = 1) -> Image.Image:
    """A PIL picture of a label map [H, W], each class in its colour, pixels without a label white."""
    palette = [tuple(bytes.fromhex(colour_of(i)[1:])) for i in range(256)]
    palette[255] = (255, 255, 255)
    picture = Image.fromarray(labels.cpu().numpy().astype(np.uint8), mode="P")
    picture.putpalette(np.array(palette, np.uint8).tobytes())
    return picture.convert("RGB").resize([side * scale for side in picture.size], Image.Resampling.NEAREST)


@cached_weights.enabled()
def draw_examples(
    G: torch.nn.Module,
    extractors: dict[str, Extractor],
    segmenter: "Segmenter | None" = None,
    seeds: Sequence[int] = range(_FIRST_SEED, _FIRST_SEED + 6),
    truncation_psi: float = 0.5,
    class_idx: int = 0,
) -> Image.Image:
    """A picture with a row for the images, one for the segmenter's labels, one for each of {name: extractor}."""
    hooks = FeatureHooks(G)
    ws = torch.cat([draw_ws(G, 1, seed, truncation_psi=truncation_psi, class_idx=class_idx) for seed in seeds])
    images, features = hooks(ws, noise_mode="const")
    size = images.shape[-1]
    scale = enlargement(size)
    enlarged = [p.convert("RGB").resize((size * scale,) * 2, Image.Resampling.NEAREST) for p in to_pictures(images)]
    rows = {"image": enlarged}
    if segmenter is not None:
        rows[segmenter.name] = [draw_labels(labels, scale) for labels in segmenter(images)]
    for name, extractor in extractors.items():
        rows[name] = [draw_labels(labels, scale) for labels in extractor.labels(_of(extractor, hooks, features), size)]
    return _labelled_rows(rows, next(iter(extractors.values())).classes)


def _labelled_rows(rows, classes):
    """Rows of pictures of one size, each with its name, and a legend of the classes below"""
    side, left, columns = next(iter(rows.values()))[0].width, 96, len(next(iter(rows.values())))
    across = max(columns * side // 96, 1)
    legend_top = len(rows) * side + 6
    height = legend_top + -(-len(classes) // across) * 16 + 4
    picture = Image.new("RGB", (left + columns * side, height), "white")
    draw = ImageDraw.Draw(picture)
    for i, (name, tiles) in enumerate(rows.items()):
        draw.text((4, (i + 0.5) * side), name, fill="black", anchor="lm")
        for j, tile in enumerate(tiles):
            picture.paste(tile, (left + j * side, i * side))
    for i, name in enumerate(classes):
        x, y = left + i % across * 96, legend_top + i // across * 16
        draw.rectangle([x, y + 2, x + 11, y + 13], fill=colour_of(i), outline="#888888")
        draw.text((x + 16, y + 8), name, fill="black", anchor="lm")
    return picture
