"""Labels that people give to images: a CSV whose first column names the image, the others what is seen in it.

    seed,glasses,tilt          image,glasses,tilt
    0,yes,-0.5                 00000/img00000000.png,yes,-0.5
    1,no,                      00000/img00000001.png,no,

Images are those of a generator's seeds (without truncation), or files of a data set. A column of numbers with more than
two different ones is a quantity, any other has values, in upper or lower case alike. A cell that is empty, or NaN, N/A,
null or ?, says nothing. Cells are separated by commas, semicolons or tabs; the text is UTF-8 or UTF-16.
"""

from __future__ import annotations

import csv
import io
import os
import re
import unicodedata
from collections import Counter
from collections.abc import Collection, Iterable, Sequence
from pathlib import Path
from typing import NamedTuple

import torch

from segan_ext.metrics.attributes import Attribute, unit_of
from snapshots.atomic import write_atomically

KEYS = ("seed", "image")
SUFFIXES = (".csv", ".tsv", ".txt")
_SEPARATORS = ",;\t"
_SAYS_NOTHING = {"", "nan", "-nan", "n/a", "#n/a", "na", "#na", "<na>", "null", "?"}
_MOST_VALUES = 50  # of one attribute
_MOST_LISTED = 10  # values of one attribute in a summary


class Labels(NamedTuple):
    """keys: seeds, or names of files, as `kind` says. rows: [images, attributes], indices of values or numbers of mean
    0 and deviation 1; NaN where nothing is said. units: (mean, deviation) of each number as it was written, None for
    values. cells: {attribute: what was written for each image, "" for nothing}."""

    kind: str
    keys: list
    attributes: list[Attribute]
    rows: torch.Tensor
    units: list[tuple[float, float] | None]
    cells: dict[str, list[str]]


def summary(attributes: Iterable[Attribute], rows: torch.Tensor) -> list[str]:
    """What each attribute was taken for, a line each: "tilt: a number, 180 values", "hair: long 90, short 92; 18 not
    said". rows: [images, attributes], as in `Labels`."""
    lines = []
    for attribute, column in zip(attributes, rows.t()):
        known = column[column.isfinite()]
        if attribute.values:
            counts = known.long().bincount(minlength=attribute.width).tolist()
            listed = [f"{value} {count}" for value, count in zip(attribute.values, counts)]
            more = [f"and {len(listed) - _MOST_LISTED} more"] if len(listed) > _MOST_LISTED else []
            text = ", ".join(listed[:_MOST_LISTED] + more)
        else:
            text = f"a number, {len(known.unique())} values"
        silent = len(column) - len(known)
        lines.append(f"{attribute.name}: {text}" + (f"; {silent} not said" if silent else ""))
    return lines


def read_labels(path: str | os.PathLike) -> Labels:
    """The labels of a CSV. OSError, or ValueError, in one sentence, for what is none."""
    text = _text(path)
    first = next((line for line in text.splitlines() if line.strip()), "")
    keyed = (separator for separator in _SEPARATORS if _is_key(first.split(separator)[0].strip().strip('"')))
    separator = next(keyed, ",")
    try:
        table = [row for row in csv.reader(io.StringIO(text), delimiter=separator) if any(map(str.strip, row))]
    except csv.Error as error:
        raise ValueError(f"{path} is no CSV ({error})") from error
    names = [name.strip() for name in table[0]] if table else []
    if len(names) < 2 or not _is_key(names[0]):
        raise ValueError(
            f"{path}: the first line of labels is seed (or image) and the names of attributes: seed,glasses (commas, "
            "semicolons or tabs between them)"
        )
    if len(set(names)) < len(names) or not all(names):
        raise ValueError(f"{path}: each attribute needs a name of its own")
    for number, row in enumerate(table, 1):
        if len(row) != len(names):
            raise ValueError(f"{path}: row {number} has {len(row)} cells, the first line {len(names)}")
    keys, *columns = (
        ([cell.strip() for cell in column] for column in zip(*table[1:], strict=True)) if table[1:] else [()]
    )
    if separator != ",":
        columns = [[_with_point(cell) for cell in column] for column in columns]
    return labels_of_columns(names[0].casefold(), keys, dict(zip(names[1:], columns)), str(path))


def _text(path):
    """What a file of UTF-8 or UTF-16 holds, accents composed and lines ended by a line feed"""
    try:
        data = Path(path).read_bytes()
    except OSError as error:
        raise OSError(f"{path} cannot be read ({error.strerror})") from error
    encodings = {b"\xff\xfe": "utf-16", b"\xfe\xff": "utf-16"}
    unmarked = {0: "utf-16-be", 1: "utf-16-le"}.get(data[:2].find(0), "utf-8-sig")  # a letter's other byte is 0
    try:
        text = data.decode(encodings.get(data[:2], unmarked))
    except UnicodeDecodeError as error:
        raise ValueError(f"{path} is no CSV ({error}); save it in UTF-8") from error
    return unicodedata.normalize("NFC", text.replace("\r\n", "\n").replace("\r", "\n"))


def _is_key(text):
    return text.casefold() in KEYS


def _with_point(cell):
    """A number that has a decimal comma with a point; other cells as they are"""
    return cell.replace(",", ".") if re.fullmatch(r"[+-]?\d*,\d+", cell) else cell


def labels_of_columns(
    kind: str,
    keys: Sequence,
    columns: dict[str, Sequence[str]],
    source: str = "labels",
    numbers: Collection[str] = (),
) -> Labels:
    """`Labels` of {attribute: a text for each image}. numbers: attributes that are quantities, however few different
    numbers they have. ValueError if one cannot be learned from."""
    if kind == "seed":
        keys = [_seed(key, source) for key in keys]
    twice = next((key for key, count in Counter(keys).items() if count > 1), None)
    if twice is not None:
        raise ValueError(f"{source}: the {kind} {twice} is there twice")
    if not columns:
        raise ValueError(f"{source} has no labelled images")
    cells = {n: ["" if cell.casefold() in _SAYS_NOTHING else cell for cell in column] for n, column in columns.items()}
    taken = [_column(name, column, source, name in numbers) for name, column in cells.items()]
    attributes, rows, units = map(list, zip(*taken))
    return Labels(kind, list(keys), attributes, torch.stack(rows, dim=1), units, cells)


def _seed(text, source):
    text = str(text)
    if not (text.isascii() and text.isdigit() and int(text) < 2**32):
        raise ValueError(f"{source}: {text!r} is no seed; seeds are whole numbers from 0 to 4294967295")
    return int(text)


def _column(name, cells, source, is_number):
    """(attribute, its row of numbers, their unit or None)"""
    said = Counter(cell for cell in cells if cell)
    numbers = {cell: _number(cell) for cell in said}
    words = [cell for cell, number in numbers.items() if number is None]
    same = {cell: cell.casefold() for cell in said} if words else numbers
    different = len(set(same.values()))
    if different < 2:
        raise ValueError(f"{source}: {name} needs two different answers at least, and has {', '.join(said) or 'none'}")
    if not words and (is_number or different > 2):
        row = torch.tensor([numbers.get(cell, float("nan")) for cell in cells], dtype=torch.float64)
        mean, deviation = unit_of(row)
        return Attribute(name), (row - mean) / deviation, (mean, deviation)
    if different > _MOST_VALUES:
        hint = f", and {words[0]!r} is no number" if len(words) < len(said) else ""
        raise ValueError(f"{source}: {name} has {different} different values; {_MOST_VALUES} are the most{hint}")
    spelling = {}  # of equal answers, the most frequent; of equally frequent ones the first by alphabet
    for cell in sorted(said, key=lambda cell: (-said[cell], cell)):
        spelling.setdefault(same[cell], cell)
    values = tuple(sorted(spelling.values()))
    index = {cell: float(values.index(spelling[same[cell]])) for cell in said} | {"": float("nan")}
    return Attribute(name, values), torch.tensor([index[cell] for cell in cells], dtype=torch.float64), None


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
