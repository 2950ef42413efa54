"""Labels that people give to images: a CSV whose first column names the image, the others what is seen in it.

    seed,glasses,tilt          image,glasses,tilt
    0,yes,-0.5                 00000/img00000000.png,yes,-0.5
    1,no,                      00000/img00000001.png,no,

Images are those of a generator's seeds (without truncation), or files of a data set. A column of numbers with more than
two different ones is a quantity, any other has values. A cell may be empty.
"""

from __future__ import annotations

import csv
import io
import os
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import NamedTuple

import torch

from segan_ext.metrics.attributes import Attribute
from snapshots.atomic import write_atomically

KEYS = ("seed", "image")
_MOST_VALUES = 50  # of one attribute


class Labels(NamedTuple):
    """keys: seeds, or names of files, as `kind` says. rows: [images, attributes], indices of values or numbers of mean
    0 and deviation 1; NaN where nothing is said."""

    kind: str
    keys: list
    attributes: list[Attribute]
    rows: torch.Tensor


def read_labels(path: str | os.PathLike) -> Labels:
    """The labels of a CSV. OSError, or ValueError, in one sentence, for what is none."""
    try:
        table = [row for row in csv.reader(io.StringIO(Path(path).read_text("utf-8-sig"))) if any(map(str.strip, row))]
    except (UnicodeDecodeError, csv.Error) as error:
        raise ValueError(f"{path} is no CSV ({error})") from error
    names = [name.strip() for name in table[0]] if table else []
    if len(names) < 2 or names[0] not in KEYS:
        raise ValueError(
            f"{path}: the first line of labels is seed (or image) and the names of attributes: seed,glasses"
        )
    if len(set(names)) < len(names) or not all(names):
        raise ValueError(f"{path}: each attribute needs a name of its own")
    for number, row in enumerate(table, 1):
        if len(row) != len(names):
            raise ValueError(f"{path}: row {number} has {len(row)} cells, the first line {len(names)}")
    keys, *columns = (
        ([cell.strip() for cell in column] for column in zip(*table[1:], strict=True)) if table[1:] else [()]
    )
    return labels_of_columns(names[0], keys, dict(zip(names[1:], columns)), str(path))


def labels_of_columns(kind: str, keys: Sequence, columns: dict[str, Sequence[str]], source: str = "labels") -> Labels:
    """`Labels` of {attribute: a text for each image}. ValueError if one cannot be learned from."""
    if kind == "seed":
        keys = [_seed(key, source) for key in keys]
    if len(set(keys)) < len(keys):
        raise ValueError(f"{source}: the {kind} {next(k for k in keys if list(keys).count(k) > 1)} is there twice")
    attributes, rows = [], []
    for name, cells in columns.items():
        attribute, row = _column(name, cells, source)
        attributes.append(attribute)
        rows.append(row)
    if not attributes:
        raise ValueError(f"{source} has no labelled images")
    return Labels(kind, list(keys), attributes, torch.stack(rows, dim=1))


def _seed(text, source):
    text = str(text)
    if not (text.isascii() and text.isdigit() and int(text) < 2**32):
        raise ValueError(f"{source}: {text!r} is no seed; seeds are whole numbers from 0 to 4294967295")
    return int(text)


def _column(name, cells, source):
    """(attribute, its row of numbers)"""
    said = sorted({cell for cell in cells if cell})
    if len(said) < 2:
        raise ValueError(f"{source}: {name} needs two different answers at least, and has {said or 'none'}")
    numbers = [_number(cell) for cell in said]
    if None not in numbers and len(said) > 2:
        row = torch.tensor([_number(cell) if cell else float("nan") for cell in cells], dtype=torch.float64)
        known = row[row.isfinite()]
        return Attribute(name), (row - known.mean()) / known.std().clamp(min=1e-12)
    if len(said) > _MOST_VALUES:
        raise ValueError(f"{source}: {name} has {len(said)} different values; {_MOST_VALUES} are the most")
    index = {value: float(i) for i, value in enumerate(said)} | {"": float("nan")}
    return Attribute(name, tuple(said)), torch.tensor([index[cell] for cell in cells], dtype=torch.float64)


def _number(text):
    try:
        number = float(text)
    except ValueError:
        return None
    return number if abs(number) < 1e30 else None


def write_labels(path: str | os.PathLike, kind: str, answers: dict[int | str, dict[str, str]]) -> None:
    """Writes the CSV that `read_labels` reads. answers: {seed or file: {attribute: what is seen}}."""
    write_atomically(path, lambda file: file.write(as_csv(kind, answers).encode()))


def as_csv(kind: str, answers: dict[int | str, dict[str, str]]) -> str:
    """The text of that CSV"""
    names: Iterable[str] = dict.fromkeys(name for said in answers.values() for name in said)
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow([kind, *names])
    writer.writerows([key, *(said.get(name, "") for name in names)] for key, said in answers.items())
    return text.getvalue()
