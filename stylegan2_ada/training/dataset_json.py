"""dataset.json: the labels of a data set's pictures, read in one way for training and for dataset_tool.

It lies at the top, or in a folder around the pictures, as archives have one; then its names count from that folder.
"""

import json
import os
import posixpath
import unicodedata
from collections.abc import Sequence
from typing import Any

from training.contents import Contents
from training.files import MOST_CLASSES, MOST_JSON_BYTES, parse_json, printable

_NAME = "dataset.json"
_FORM = '{"labels": [["name", label], …]}'


def load(contents: Contents) -> tuple[str, dict[str, Any]]:
    """(the name of dataset.json with its folders, what it holds); the latter is empty where there is none, or several.

    ValueError, one sentence, for one that cannot be read.
    """
    found = _places(contents)
    if len(found) != 1:
        return _NAME, {}
    try:
        content = parse_json(contents.read(contents.find(found[0]), MOST_JSON_BYTES))
    except ValueError as error:
        raise ValueError(f"{found[0]} cannot be read ({error})") from error
    if not isinstance(content, dict):
        raise ValueError(f"{found[0]} is not of the form {_FORM}")
    return found[0], content


def has_labels(contents: Contents, pictures: Sequence[str]) -> bool:
    """True if there are labels, whether they can be used or not. ValueError for a dataset.json that is none."""
    place, content = load(contents)
    if content:
        return any(label is not None for _, label in _rows(place, content))
    return any(contents.find(_class_file(name)) is not None for name in pictures)


def read_labels(contents: Contents, pictures: Sequence[str]) -> tuple[list[Any] | None, list[str]]:
    """(the label of each picture, names that have one but are not there).

    Labels are all classes from 0 on, or all lists of equally many numbers; None if no picture has one. They stand in
    dataset.json, or in files NAME.cls beside NAME.png, as webdataset has them. ValueError, one sentence, if some
    pictures have none, one has two, or they are of another kind.
    """
    places = _places(contents)
    if len(places) > 1:
        raise ValueError(f"it holds several dataset.json ({places[0]}, {places[1]}, …); give one of their folders")
    place, content = load(contents)
    folder = place[: -len(_NAME)]
    rows = _rows(place, content) if content else _class_files(contents, pictures)
    place = place if content else ".cls files"
    stored = _as_dict(place, rows)
    if all(label is None for label in stored.values()):
        return None, []
    names = _names_in(stored, pictures, folder)
    labels = [stored.get(name) for name in names]
    absent = sorted(stored.keys() - set(names)) if len(stored) > len(names) - labels.count(None) else []
    missing = [name for name, label in zip(pictures, labels) if label is None]
    if missing:
        said = f"{place}: no label for {len(missing)} of {len(labels)} images (first: {printable(missing[0])})"
        raise ValueError(said + (f"; {what_is_absent(absent)}" if absent else ""))
    kinds = sorted({_kind(label) for label in labels})
    if len(kinds) > 1 or kinds == ["other values"]:
        raise ValueError(
            f"{place}: labels are {' and '.join(kinds)}; they must be classes from 0 on ({MOST_CLASSES - 1} at most), "
            "or lists of equally many numbers"
        )
    return [[+x for x in label] if isinstance(label, list) else int(label) for label in labels], absent


def what_is_absent(names: Sequence[str]) -> str:
    """A sentence, "3 labels are of missing files (first: a.png)", for the names that `read_labels` has not found"""
    said = "1 label is of a missing file" if len(names) == 1 else f"{len(names)} labels are of missing files"
    return f"{said} (first: {printable(names[0])})"


def _places(contents):
    """[its name], also if it lies in a folder; several only where none of them lies at the top"""
    if contents.find(_NAME) is not None:
        return [_NAME]
    return [name for name in contents if name.endswith(f"/{_NAME}")]


def _rows(place, content):
    """[(name, label), …] of what the file holds"""
    if "labels" not in content:
        raise ValueError(f'{place} has no "labels"; it is not of the form {_FORM}')
    rows = content["labels"] or []
    if isinstance(rows, dict):
        return [(name.replace("\\", "/"), label) for name, label in rows.items()]
    if not isinstance(rows, list):
        raise ValueError(f"{place} is not of the form {_FORM}")
    for i, row in enumerate(rows):
        if not (isinstance(row, list) and len(row) == 2 and isinstance(row[0], str)):
            raise ValueError(f"{place}: label {i + 1}, {_short(row)}, is {_cure(row)}")
    return [(name.replace("\\", "/"), label) for name, label in rows]


def _cure(row):
    if isinstance(row, list) and len(row) > 2 and isinstance(row[0], str):
        return f"too long; write {_short([row[0], row[1:]])}"
    return 'not of the form ["name", label]'


def _short(value):
    try:
        text = json.dumps(value)
    except RecursionError:
        return "[[[…]]]"
    return text if len(text) <= 100 else f"{text[:99]}…"


def _as_dict(place, rows):
    """{name: label}. ValueError for a picture that has two."""
    found = {}
    for name, label in rows:
        before = found.get(name)
        if None not in (before, label) and before != label:
            raise ValueError(
                f"{place}: {printable(name)} has two labels, {_short(before)} and {_short(label)}; for several classes "
                f"at once write vectors, as {_short([name, [1, 1, 0]])}, or a CSV for --cfg=segan-named --labels=CSV"
            )
        found[name] = before if label is None else label
    return found


def _names_in(stored, pictures, folder):
    """The name that each picture has in dataset.json, whose names count from `folder`"""
    names = [name.replace("\\", "/") for name in pictures]
    names = [name[len(folder) :] if name.startswith(folder) else posixpath.relpath(name, folder) for name in names]
    if all(name in stored for name in names):
        return names
    same = {as_read(name): name for name in stored}
    return [name if name in stored else same.get(as_read(name), name) for name in names]


def as_read(name: str) -> str:
    """The same for names that look the same: accents that are letters of their own, as Macs write them, or not; a/./b
    and a/b."""
    return unicodedata.normalize("NFC", posixpath.normpath(name.replace("\\", "/")))


def _class_file(name):
    return f"{os.path.splitext(name)[0]}.cls"


def _class_files(contents, pictures):
    """[(name, class), …] of files NAME.cls beside NAME.png"""
    rows = []
    for name in pictures:
        i = contents.find(_class_file(name))
        try:
            rows.append((name, None if i is None else parse_json(contents.read(i, 100), int)))
        except ValueError as error:
            raise ValueError(f"{_class_file(name)} holds no class ({error})") from error
    return rows


def _kind(label):
    """'class numbers', 'vectors of … numbers' or 'other values'; true and false are 1 and 0"""
    if isinstance(label, int) and 0 <= label < MOST_CLASSES:
        return "class numbers"
    if isinstance(label, list) and 0 < len(label) <= MOST_CLASSES and all(map(_is_number, label)):
        return f"vectors of {len(label)} numbers"
    return "other values"


def _is_number(x):
    """True for what a float32 can hold"""
    return isinstance(x, (int, float)) and abs(x) < 3e38
