"""Images of a generator that somebody has labelled, in memory and as a folder or a zip.

Such a folder holds classes.json, a list of names (background first), and seed0003.png and so on. Each picture labels
the image that `generate --trunc` makes of that seed, a class index a pixel (grey or palette), 255 where it says
nothing. annotations.json, if it is there, says the format's version and the "class" of a conditional generator that
the images are of; the first version had that class as a number in class.json.
"""

import io
import json
import zipfile
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO, NamedTuple

import numpy as np
import PIL.Image
import torch

from segan_ext.latents import draw_ws
from segan_ext.semantics.extractors import IGNORED
from snapshots.atomic import write_atomically
from training.files import decode, parse_json, read_entry, read_file, without_folder
from training.latents import label_table

if TYPE_CHECKING:  # it imports what draws avatars
    from segan_ext.semantics.segmenters import Segmenter


_FORMAT = "segan-annotations"
_MOST = 2**24  # bytes of a file
_VERSION = 2


class Annotations(NamedTuple):
    """Labelled images of G. ws [N, num_ws, w_dim]; labels [N, H, W] with IGNORED where nobody said; classes: names."""

    ws: torch.Tensor
    labels: torch.Tensor
    classes: tuple[str, ...]

    def missing(self) -> list[str]:
        """Names of the classes that no pixel shows"""
        seen = set(self.labels.unique().tolist())
        return [name for i, name in enumerate(self.classes) if i not in seen]


class AnnotationFiles(NamedTuple):
    """What such a folder holds. labels: {seed: int64 [H, W]}; class_idx: of a conditional generator, else 0"""

    classes: tuple[str, ...]
    labels: dict[int, torch.Tensor]
    class_idx: int = 0


def annotate(
    G: torch.nn.Module, segmenter: "Segmenter", count: int, seed: int = 0, truncation_psi: float = 0.5
) -> Annotations:
    """`Annotations` by a segmenter instead of a person, of `draw_ws`."""
    ws = draw_ws(G, count, seed, truncation_psi=truncation_psi)
    with torch.no_grad():
        labels = torch.cat([segmenter(G.synthesis(part, noise_mode="const")) for part in ws.split(8)])
    return Annotations(ws, labels, segmenter.classes)


def read_annotations(folder: str | Path, G: torch.nn.Module, truncation_psi: float = 0.5) -> Annotations:
    """`Annotations` of G from a folder. OSError or ValueError, in one sentence, if there are none or they misfit."""
    folder = Path(folder)
    names = [path.name for path in folder.glob("*")]
    found = _read(names, lambda name: read_file(folder / name, most=_MOST), folder, G)
    labels = torch.stack(list(found.labels.values()))
    if (labels == IGNORED).all():
        raise ValueError(f"{folder}: no pixel of the annotations is labelled")
    shown = dict(truncation_psi=truncation_psi, class_idx=found.class_idx)
    ws = torch.cat([draw_ws(G, 1, seed, **shown) for seed in found.labels])
    return Annotations(ws, labels.to(ws.device), found.classes)


def read_annotations_zip(path: str | Path | BinaryIO, G: torch.nn.Module, most: int = 64) -> AnnotationFiles:
    """`AnnotationFiles` of G from a zip, `most` pictures at most. OSError or ValueError, in one sentence, as above."""
    try:
        with zipfile.ZipFile(path) as archive:
            names = without_folder(archive.namelist())
            if len(names) > most + 2:
                raise ValueError(f"it holds {len(names)} files; {most} annotations are the most")
            return _read(list(names), lambda name: read_entry(archive, names[name], most=_MOST), "the archive", G)
    except (zipfile.BadZipFile, NotImplementedError) as error:
        raise ValueError(f"it is no zip ({error})") from error


def write_annotations(folder: str | Path, annotations: Annotations, seeds: Iterable[int]) -> None:
    """Writes what `read_annotations` reads. seeds: of the images."""
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    files = AnnotationFiles(annotations.classes, dict(zip(seeds, annotations.labels)))
    for name, content in _contents(files):
        write_atomically(folder / name, lambda file, content=content: file.write(content))


def annotations_zip(files: AnnotationFiles) -> bytes:
    """A zip that `read_annotations_zip` reads, and `read_annotations` when it is unpacked"""
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        for name, content in _contents(files):
            archive.writestr(name, content)
    return buffer.getvalue()


def _contents(files):
    """(name, bytes) of every file"""
    yield "classes.json", json.dumps(list(files.classes)).encode()
    yield "annotations.json", json.dumps({"format": _FORMAT, "version": _VERSION, "class": files.class_idx}).encode()
    for seed, labels in files.labels.items():
        buffer = io.BytesIO()
        PIL.Image.fromarray(labels.cpu().numpy().astype(np.uint8)).save(buffer, "PNG")
        yield f"seed{seed:04d}.png", buffer.getvalue()


def _read(names, read: Callable[[str], bytes], where, G):
    """`AnnotationFiles` from files of these names"""
    if "classes.json" not in names:
        raise ValueError(f"{where} has no classes.json, the list of the classes' names, background first")
    classes = _json(read, "classes.json", where)
    if not isinstance(classes, list) or not 1 <= len(classes) < IGNORED or not all(isinstance(c, str) for c in classes):
        raise ValueError(f"{where}: classes.json is no list of 1 to {IGNORED - 1} names")
    class_idx = _class_idx(names, read, where)
    if type(class_idx) is not int or not 0 <= class_idx < max(len(label_table(G)), 1):
        raise ValueError(f"{where}: its annotations are of class {class_idx!r}, which this network lacks")
    seeds = {name: int(name[4:-4]) for name in sorted(names) if _names_a_seed(name)}
    if not seeds:
        raise ValueError(f"{where} has no annotations: a picture seed0003.png labels the image of seed 3")
    labels = {seed: _labels(read, name, where, G.img_resolution, len(classes)) for name, seed in seeds.items()}
    return AnnotationFiles(tuple(classes), labels, class_idx)


def _class_idx(names, read, where):
    if "annotations.json" not in names:
        return _json(read, "class.json", where) if "class.json" in names else 0
    content = _json(read, "annotations.json", where)
    if not isinstance(content, dict) or content.get("format") != _FORMAT:
        raise ValueError(f"{where}: annotations.json is none of SEGAN's")
    version = content.get("version")
    if version != _VERSION:
        raise ValueError(f"{where}: annotations.json is of version {version!r}; this version of SEGAN reads {_VERSION}")
    return content.get("class", 0)


def _names_a_seed(name):
    digits = name[4:-4]
    return name[:4] == "seed" and name[-4:] == ".png" and digits.isascii() and digits.isdigit() and len(digits) < 10


def _json(read, name, where):
    try:
        return parse_json(read(name))
    except ValueError as error:
        raise ValueError(f"{where}: {name} cannot be read ({error})") from error


def _labels(read, name, where, size, count):
    """int64 [size, size], each below `count` or IGNORED"""
    try:
        pixels = np.asarray(decode(read(name)))
    except ValueError as error:
        raise ValueError(f"{where}: {name} cannot be read ({error})") from error
    if pixels.shape != (size, size):
        shown = "×".join(map(str, pixels.shape))
        raise ValueError(f"{where}: {name} is {shown}; a label for each of {size}×{size} pixels was expected")
    unknown = set(np.unique(pixels).tolist()) - set(range(count)) - {IGNORED}
    if unknown:
        raise ValueError(f"{where}: {name} has the label {min(unknown)}; there are {count} classes, and {IGNORED}")
    return torch.from_numpy(pixels.astype(np.int64))
