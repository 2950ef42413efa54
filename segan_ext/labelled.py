"""Images of a data set that somebody has labelled, for training with names.

A run writes its labels into its directory when it begins, and reads them there ever after: whatever becomes of the CSV,
and wherever the data move.
"""

from __future__ import annotations

import concurrent.futures
import copy
import json
import os
import posixpath
import threading
import unicodedata
from collections.abc import Iterable, Sequence
from typing import Any, NamedTuple

import numpy as np
import torch

from runs import processes
from segan_ext import own
from segan_ext.metrics.attributes import Attribute, attributes_and_units
from segan_ext.metrics.labels import labels_of_columns, read_labels
from snapshots.atomic import write_atomically
from training import files
from training.dataset import ImageFolderDataset

FILE = "labels.json"  # in the directory of a run
_FORMAT, _VERSION = "segan-labels", 1
_QUANTILES = 17  # of a labelled number
_DIGITS = 4  # of shares and quantiles
_ENOUGH = 50  # labelled images, from which on some are held out
_MOST_HELD_OUT = 500
_KEPT_BYTES = 2**30  # of images that have been read, uint8
_READERS = 4  # threads


# ---------------------------------------------------------------------------------------------------------------------
# From what people write to coordinates


class Labelled(NamedTuple):
    """Labelled images of a data set. names: their files. rows, units: as in `metrics.labels.Labels`. left_out: how many
    more are labelled, which `max_size` keeps out of the data set."""

    attributes: list[Attribute]
    names: list[str]
    rows: torch.Tensor
    units: list[tuple[float, float] | None]
    left_out: int = 0


def read(data: ImageFolderDataset, source: str, count: int | None = None) -> Labelled:
    """The labelled images of `data`, its first `count` of them (None: all).

    source: "factors", for those in its dataset.json (or its classes), or a CSV with an image a row. OSError or
    ValueError, in one sentence, for labels that are missing, of other images, or of which none differs.
    """
    if source == "factors":
        found = Labelled(*_factors(data))
    else:
        found = _read_csv(data, source)
    found = found._replace(names=found.names[:count], rows=found.rows[:count].double())
    for attribute, column in zip(found.attributes, found.rows.t()):
        if len(column[column.isfinite()].unique()) < 2:
            raise ValueError(f"{source}: the labels of {attribute.name} are all the same; label more images")
    return found


def _factors(data):
    attributes, rows, units = attributes_and_units(data)
    return attributes, list(dict.fromkeys(data.image_names())), rows, units


def _read_csv(data, source):
    labels = read_labels(source)
    if labels.kind != "image":
        raise ValueError(f"{source} labels seeds; training needs labels of images: its first column is image")
    pictures, used = _Pictures(data.file_names()), set(data.image_names())
    names = [pictures.called(key) for key in labels.keys]
    if None in names:
        raise ValueError(f"{source} names {labels.keys[names.index(None)]}, which {data.path} does not have")
    inside = [i for i, name in enumerate(names) if name in used]
    cells = {attribute: [column[i] for i in inside] for attribute, column in labels.cells.items()}
    names, left_out = [names[i] for i in inside], len(names) - len(inside)
    if left_out or len(set(names)) < len(names):  # two keys may mean one picture
        labels = labels_of_columns("image", names, cells, source)
    return Labelled(labels.attributes, names, labels.rows, labels.units, left_out)


class _Pictures:
    """Finds files by what people call them: with or without a suffix, however accents are composed."""

    def __init__(self, names: Iterable[str]) -> None:
        self._whole, self._stems = {}, {}
        for name in names:
            key = _spelt(name)
            self._whole.setdefault(key, []).append(name)
            self._stems.setdefault(posixpath.splitext(key)[0], []).append(name)

    def called(self, key: str) -> str | None:
        """The file that is called so, or None. ValueError where there are two."""
        key = _spelt(key)
        stem = posixpath.splitext(key)[0]
        found = self._whole.get(key) or self._stems.get(key) or self._stems.get(stem) or [None]
        if len(found) > 1:
            raise ValueError(f"{key} may be {found[0]} or {found[1]}; write it as the file is called")
        return found[0]


def _spelt(name):
    return unicodedata.normalize("NFC", name.replace("\\", "/")).removeprefix("./")


def named_coordinates(
    attributes: Iterable[Attribute], rows: torch.Tensor, units: Sequence[tuple[float, float] | None] | None = None
) -> list[dict[str, Any]]:
    """`SEGANGenerator(own=)` of mode named: a coordinate for a number, one a value for the others, distributed as the
    labels are, NaN left out. rows [images, attributes], units: as in `metrics.labels.Labels`; a number keeps its unit.
    """
    groups = []
    for i, (attribute, column) in enumerate(zip(attributes, rows.t())):
        known = column[column.isfinite()]
        if attribute.values:
            counts = known.long().bincount(minlength=len(attribute.values)) + 1  # none is impossible
            shares = _rounded(counts / counts.sum())
            groups.append(dict(name=attribute.name, values=list(attribute.values), shares=shares))
        else:
            quantiles = _rounded(known.quantile(torch.linspace(0, 1, _QUANTILES, dtype=known.dtype)))
            groups.append(dict(name=attribute.name, size=1, quantiles=quantiles))
            if units is not None:
                groups[-1]["unit"] = list(units[i])
    return groups


def _rounded(numbers):
    return [float(f"{number:.{_DIGITS}g}") for number in numbers.tolist()]  # none becomes 0


def in_coordinates(found: Labelled, groups: Sequence[dict[str, Any]]) -> torch.Tensor:
    """`found.rows` as a generator's `groups` count: indices of their values, numbers in their units. [images, groups]

    NaN for groups that are not labelled. ValueError, in one sentence, for attributes that are none of the groups, or
    other values than theirs.
    """
    names, theirs = [a.name for a in found.attributes], [group["name"] for group in groups]
    if not set(names) <= set(theirs):
        raise ValueError(f"label {', '.join(names)}, and the generator has coordinates for {', '.join(theirs)}")
    columns = []
    for group in groups:
        if group["name"] not in names:
            columns.append(torch.full([len(found.names)], torch.nan, dtype=torch.float64))
            continue
        i = names.index(group["name"])
        values, column = found.attributes[i].values, found.rows[:, i]
        if (values is None) != ("shares" not in group):
            kinds = ["values", "a number"]
            kinds = kinds if values else kinds[::-1]
            raise ValueError(f"take {group['name']} for {kinds[0]}, and for the generator it is {kinds[1]}")
        if values:
            unknown = set(values) - set(group["values"])
            if unknown:
                raise ValueError(f"say {group['name']} {min(unknown)}, which the generator does not know")
            place = torch.tensor([float(group["values"].index(value)) for value in values], dtype=torch.float64)
            column = torch.where(column.isfinite(), place[column.nan_to_num().long()], torch.nan)
        elif "unit" in group:
            (mean, deviation), (origin, unit) = found.units[i], group["unit"]
            column = (column * deviation + (mean - origin)) / unit
        columns.append(column)
    return torch.stack(columns, dim=1)


def new_coordinates(found: Labelled, groups: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    """`named_coordinates` of the attributes that are none of `groups`"""
    known = {group["name"] for group in groups}
    new = [i for i, attribute in enumerate(found.attributes) if attribute.name not in known]
    return named_coordinates([found.attributes[i] for i in new], found.rows[:, new], [found.units[i] for i in new])


def merged(
    names: Sequence[str], rows: torch.Tensor, other_names: Sequence[str], other_rows: torch.Tensor
) -> tuple[list[str], torch.Tensor]:
    """(names, rows [images, groups]) of two sets of labels in the same coordinates; where both say something, the first
    counts."""
    said = dict(zip(other_names, other_rows))
    for name, row in zip(names, rows):
        said[name] = torch.where(row.isnan(), said.get(name, row), row)
    return list(said), torch.stack(list(said.values()))


# ---------------------------------------------------------------------------------------------------------------------
# In the directory of a run


def as_file(names: Sequence[str], rows: torch.Tensor, groups: Sequence[dict[str, Any]]) -> bytes:
    """What `FILE` holds. rows [images, groups]: as `in_coordinates` gives them."""
    columns = {}
    for group, column in zip(groups, rows.t().tolist()):
        kind = int if "shares" in group else float
        columns[group["name"]] = [kind(x) if x == x else None for x in column]
    return json.dumps(dict(format=_FORMAT, version=_VERSION, images=list(names), labels=columns)).encode()


def of_file(content: bytes, groups: Sequence[dict[str, Any]]) -> tuple[list[str], torch.Tensor]:
    """(names, rows) of `as_file`. ValueError, in one sentence, for what is none of these groups."""
    try:
        said = files.parse_json(content, dict)
        if (said["format"], said["version"]) != (_FORMAT, _VERSION):
            raise ValueError(f"it is of another format than version {_VERSION}")
        names = list(map(str, said["images"]))
        columns = [said["labels"][group["name"]] for group in groups]
        numbers = [[float("nan") if x is None else float(x) for x in column] for column in columns]
        rows = torch.tensor(numbers, dtype=torch.float64).t()
        sound = rows.shape == (len(names), len(groups))
        for group, column in zip(groups, rows.t() if sound else []):
            known = column[~column.isnan()]
            sizes = len(group["values"]) if "shares" in group else None
            whole = sizes is None or bool(((known >= 0) & (known < sizes) & (known % 1 == 0)).all())
            sound = sound and whole and bool(known.isfinite().all())
    except (KeyError, TypeError, AttributeError, ValueError, OverflowError, RuntimeError) as error:
        raise ValueError(f"the labels of the run cannot be read ({error!r})") from error
    if not sound:
        raise ValueError("the labels of the run are not of its coordinates")
    return names, rows


def of_run(
    run_dir: str,
    data: ImageFolderDataset,
    groups: Sequence[dict[str, Any]],
    source: str | None = None,
    count: int | None = None,
) -> tuple[list[str], torch.Tensor]:
    """(names, rows [images, groups]) of the labels that a run has begun with.

    source, count: as in `read`, for a run of a version that kept no labels: it keeps them from now on. OSError or
    ValueError, in one sentence, where they cannot be read.
    """
    path = os.path.join(run_dir, FILE)
    if source is not None and not os.path.exists(path):
        found = read(data, source, count)
        content = as_file(found.names, in_coordinates(found, groups), groups)
        write_atomically(path, lambda file: file.write(content))
        print(f"The run kept no labels: from now on it has those that {source} holds today.")
    with open(path, "rb") as file:
        return of_file(file.read(files.MOST_JSON_BYTES), groups)


def codes(rows: torch.Tensor, groups: Sequence[dict[str, Any]]) -> torch.Tensor:
    """What a generator would draw for rows [images, groups]: [images, codes], one code for each value; NaN where
    nothing is said."""
    parts = []
    for group, column in zip(groups, rows.t()):
        part = column[:, None].float()
        if "shares" in group:
            part = torch.nn.functional.one_hot(column.nan_to_num().long(), len(group["shares"])).float()
            part[column.isnan()] = torch.nan
        parts.append(part)
    return torch.cat(parts, dim=1)


# ---------------------------------------------------------------------------------------------------------------------
# While training


class LabelledImages:
    """Labelled images to draw pairs from; of 50 and more a tenth is held out, to tell how well the rest was learned.

    codes: [n, codes], NaN where nothing is said. The first `num_held_out`, 500 at most, are never drawn. Images are
    read when they are needed, ahead of time, by threads, and kept on the CPU as far as a gigabyte goes. What is drawn
    depends on the seed, the process and a number alone, so that a run goes on with it exactly.
    """

    def __init__(
        self,
        data: ImageFolderDataset,
        names: Sequence[str],
        codes: torch.Tensor,
        groups: Sequence[dict[str, Any]],
        seed: int = 0,
    ) -> None:
        places = dict(zip(reversed(data.image_names()), reversed(range(len(data)))))  # of mirrored ones the first
        missing = [name for name in names if name not in places]
        if missing:
            raise ValueError(f"{data.path} does not have {missing[0]}, which is labelled")
        order = torch.randperm(len(names), generator=torch.Generator().manual_seed(0))
        self._raw = [data.get_details(places[names[i]]).raw_idx for i in order]
        self.codes = codes[order]
        self.num_held_out = min(len(names) // 10, _MOST_HELD_OUT) if len(names) >= _ENOUGH else 0
        known = self.codes[:, np.cumsum([0, *own.widths(groups)])[:-1]].isfinite()
        if not known[self.num_held_out :].any():
            self.num_held_out = 0
        known[: self.num_held_out] = False
        pools = [column.nonzero()[:, 0].numpy() for column in known.t()]
        self._pools = [pool for pool in pools if len(pool)]  # places of the images that each attribute is known of
        self._seed, self._data, self._thread = seed, data, threading.local()
        self._threads = concurrent.futures.ThreadPoolExecutor(_READERS, initializer=self._open)
        self._kept, self._room, self._ahead = {}, _KEPT_BYTES, {}

    def __len__(self) -> int:
        return len(self.codes)

    def pairs(self, number: int, count: int) -> np.ndarray:
        """Places [count, 2] of the images of draw `number`: of an attribute, then of two images that it is known of.

        So every attribute is learned from equally many mixtures, however few images it is known of.
        """
        seeds = [self._seed, processes.count(), processes.rank(), number]
        rng = np.random.RandomState(np.array(seeds, dtype=np.uint32))
        chosen = [self._pools[i] for i in rng.randint(len(self._pools), size=count)]
        return np.stack([pool[rng.randint(len(pool), size=2)] for pool in chosen])

    def draw(self, number: int, count: int) -> tuple[torch.Tensor, torch.Tensor]:
        """(images uint8 [count, 2, C, H, W], codes [count, 2, codes]) of `pairs`; the next ones are then read."""
        pairs, reading = self._ahead.pop((number, count), None) or self._start(number, count)
        self._ahead = {(number + 1, count): self._start(number + 1, count)}
        images = self._keep(pairs.flat, [future.result() for future in reading])
        return images.reshape(count, 2, *images.shape[1:]), self.codes[torch.from_numpy(pairs)]

    def read(self, places: Iterable[int]) -> torch.Tensor:
        """Images uint8 [N, C, H, W]"""
        places = list(places)
        return self._keep(places, list(self._threads.map(self._image, places)))

    def _start(self, number, count):
        pairs = self.pairs(number, count)
        return pairs, [self._threads.submit(self._image, place) for place in pairs.flat]

    def _open(self):
        self._thread.data = copy.deepcopy(self._data)  # a handle of its own: zipfile is for one thread

    def _image(self, place):
        image = self._kept.get(place)
        return self._thread.data._load_raw_image(self._raw[place]) if image is None else image

    def _keep(self, places, images):
        """The images as a tensor; those for which there is room stay in memory."""
        for place, image in zip(places, images):
            if place not in self._kept and image.nbytes <= self._room:
                self._room -= image.nbytes
                self._kept[int(place)] = image
        return torch.from_numpy(np.stack(images))


def mixed(images: torch.Tensor, codes: torch.Tensor, noise: float) -> tuple[torch.Tensor, torch.Tensor]:
    """(images [N, C, H, W] in [−1, 1] with noise of that deviation, codes [N, codes]) of mixtures of pairs.

    images: uint8 [N, 2, C, H, W]. codes: [N, 2, codes]; NaN, unless both are known. Few images are learned by heart,
    mixtures are not (mixup, Zhang et al. 2018).
    """
    share = torch.rand([len(images), 1, 1, 1], device=images.device)
    mixture = torch.lerp(images[:, 0].float(), images[:, 1].float(), share) / 127.5 - 1
    return mixture + noise * torch.randn_like(mixture), torch.lerp(codes[:, 0], codes[:, 1], share[:, :, 0, 0])
