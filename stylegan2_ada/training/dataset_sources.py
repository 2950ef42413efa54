"""What dataset_tool.py can read: folders, zips, LSUN, CIFAR-10, MNIST, each with its labels.

Every source is a context manager `path -> Source`, listed in SOURCES. CIFAR's pickles open without running their code.
"""

import fnmatch
import gzip
import math
import os
import re
import struct
import tarfile
import zipfile
from collections.abc import Callable, Iterator
from contextlib import ExitStack, closing, contextmanager
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from training import dataset_json
from training.contents import Contents, open_contents
from training.files import MOST_BYTES, MOST_CLASSES, is_picture, what_is_no_picture


class Source(NamedTuple):
    """An open source: names and contents of its images, and the labels it has."""

    names: list[str]  # in the order of the data set; relative paths with forward slashes where there are files
    read: Callable[[str], Any]  # name -> bytes of an image file, or a uint8 array [H, W] or [H, W, 3]
    labels: dict[str, int] | None = None
    contents: Contents | None = None  # the files of a folder or zip, a dataset.json perhaps among them


@contextmanager
def files_source(path: Path) -> Iterator[Source]:
    """All images in a folder or zip."""
    if path.is_file() and not zipfile.is_zipfile(path):
        raise ValueError("it is none")
    contents = open_contents(str(path))
    with closing(contents):
        names = [name for name in contents if is_picture(name)]
        yield Source(names, lambda name: contents.read(contents.find(name)), contents=contents)


@contextmanager
def lmdb_source(path: Path) -> Iterator[Source]:
    """The images of an LSUN folder, by key. ValueError without the lmdb package, or for a file that is cut short."""
    try:
        import lmdb
    except ImportError:
        raise ValueError("--source: an LSUN folder needs the lmdb package; pip install lmdb") from None
    with lmdb.open(str(path), readonly=True, lock=False) as database:
        if os.path.getsize(path / "data.mdb") < (database.info()["last_pgno"] + 1) * database.stat()["psize"]:
            raise ValueError("data.mdb is cut short")  # reading behind its end would be a SIGBUS
        with database.begin() as view, view.cursor() as cursor:
            names = [key.decode("latin1") for key in cursor.iternext(keys=True, values=False)]

        def read(name):
            with database.begin() as view:
                return view.get(name.encode("latin1"))

        yield Source(names, read)


@contextmanager
def cifar_source(path: Path) -> Iterator[Source]:
    """The 50 000 training images [32, 32, 3] of CIFAR-10 with their classes. ValueError if some are missing."""
    from snapshots import safe_pickle  # brings PyTorch, which no other source needs

    images, labels = {}, {}
    with tarfile.open(path, "r:gz") as archive:
        members = _tar_members(archive)
        for batch in (f"data_batch_{i}" for i in range(1, 6)):
            if batch not in members:
                raise ValueError(f"it holds no {batch}")
            content = safe_pickle.load_arrays(archive.extractfile(members[batch]))
            if not {b"data", b"labels"} <= set(content):
                raise ValueError(f"{batch} lacks data or labels")
            if not all(type(label) is int and 0 <= label < MOST_CLASSES for label in content[b"labels"]):
                raise ValueError(f"{batch} has labels that are no classes")
            planes = np.asarray(content[b"data"], dtype=np.uint8).reshape(len(content[b"labels"]), 3, 32, 32)
            for i, (image, label) in enumerate(zip(planes.transpose(0, 2, 3, 1), content[b"labels"])):
                images[f"{batch}:{i:05d}"] = image  # [32, 32, 3]
                labels[f"{batch}:{i:05d}"] = label
    yield Source(list(images), images.__getitem__, labels)


def _tar_members(archive):
    """{name without folders: member} of the files in a tar. ValueError if it unpacks to more than any CIFAR does."""
    members, total = {}, 0
    for member in archive:
        total += member.size
        if total > MOST_BYTES:
            raise ValueError(f"it unpacks to more than {MOST_BYTES} bytes")
        if member.isfile():
            members[os.path.basename(member.name)] = member
    return members


def read_idx(path: Path, magic: int, dims: int) -> np.ndarray:
    """An array of bytes in MNIST's format: magic number, one size per dimension, values."""
    with gzip.open(path) as file:
        found, *shape = struct.unpack(f">{dims + 1}i", file.read(4 * (dims + 1)))
        if found != magic:
            raise ValueError(f"{path.name} has the magic number {found}, not {magic}")
        if not all(0 < size < 2**24 for size in shape) or math.prod(shape) > MOST_BYTES:
            raise ValueError(f"{path.name} claims the shape {shape}, which no MNIST has")
        return np.frombuffer(file.read(math.prod(shape)), np.uint8).reshape(shape)


@contextmanager
def mnist_source(path: Path) -> Iterator[Source]:
    """The images of MNIST, padded from 28² to 32² pixels, with the classes in the labels file beside them."""
    labels_path = path.with_name(path.name.replace("images-idx3", "labels-idx1"))
    if not labels_path.is_file():
        raise ValueError(f"--source: {labels_path.name} is missing; put it beside {path.name}")
    images, labels = read_idx(path, 2051, 3), read_idx(labels_path, 2049, 1)
    if images.shape[1:] != (28, 28) or len(images) != len(labels):
        raise ValueError(f"shapes {images.shape} and {labels.shape} of images and labels do not go together")
    images = np.pad(images, ((0, 0), (2, 2), (2, 2)))  # [N, 32, 32]
    names = [f"{i:05d}" for i in range(len(images))]
    yield Source(names, lambda name: images[int(name)], dict(zip(names, labels.tolist())))


SOURCES = [  # (kind, is a folder, pattern of the name, opens it); the first that fits is used
    ("LSUN lmdb folder", True, "*_lmdb", lmdb_source),
    ("folder of images", True, "*", files_source),
    ("zip of images", False, "*.zip", files_source),
    ("cifar-10-python.tar.gz", False, "*.tar.gz", cifar_source),
    ("MNIST train-images-idx3-ubyte.gz", False, "*images-idx3-ubyte.gz", mnist_source),
]


@contextmanager
def open_source(path: Path) -> Iterator[Source]:
    """Open any source of the table; what is broken in it becomes one sentence."""
    if not path.exists():
        raise ValueError(f"--source: {path} does not exist; check the path")
    fits = [
        (kind, opener)
        for kind, is_folder, pattern, opener in SOURCES
        if is_folder == path.is_dir() and fnmatch.fnmatch(path.name.lower(), pattern)
    ]
    if not fits:
        raise ValueError(f"--source: {path.name} is of no known kind; give a " + ", ".join(s[0] for s in SOURCES))
    kind, opener = fits[0]
    with ExitStack() as stack:
        try:
            source = stack.enter_context(opener(path))
        except Exception as error:  # zip, tar, gzip, pickle and lmdb each have errors of their own
            if str(error).startswith("--source"):
                raise
            if str(error).startswith(str(path)):
                raise ValueError(f"--source: {error}") from error
            reason = " ".join(str(error).split())
            raise ValueError(f"--source: {path} is no sound {kind} ({reason}); get it again") from error
        if not source.names:
            others = what_is_no_picture(source.contents or ())
            raise ValueError(f"--source: {path} holds no images; " + (others or f"point it at a {kind} that does"))
        yield source


# ---------------------------------------------------------------------------------------------------------------------
# Labels


def labels_from_json(source: Source) -> tuple[dict[str, Any] | None, list | None]:
    """(labels, classes) from the source's own dataset.json, or .cls files. Says which labels are of no image."""
    try:
        labels, absent = dataset_json.read_labels(source.contents, source.names)
        classes = dataset_json.load(source.contents)[1].get("classes")
    except ValueError as error:
        raise ValueError(f"--source: {error}; mend it or pass --labels=none") from error
    if absent:
        print(f"{dataset_json.what_is_absent(absent)}: ignored")
    if labels is None:
        return None, None
    return dict(zip(source.names, labels)), classes if isinstance(classes, list) else None


def labels_from_folders(source: Source) -> tuple[dict[str, int], list[str]]:
    """(labels, classes) from the first folder in each name; a folder around all of them (as zips have) is no class."""
    parts = [name.split("/") for name in source.names]
    while all(len(p) > 2 for p in parts) and len({p[0] for p in parts}) == 1:
        parts = [p[1:] for p in parts]
    outside = [name for name, p in zip(source.names, parts) if len(p) < 2]
    if outside:
        raise ValueError(
            f"--labels: folders needs every image in a sub-folder, but {len(outside)} of "
            f"{len(parts)} are in none (first: {outside[0]}); move them or drop --labels"
        )
    classes = sorted({p[0] for p in parts}, key=_natural)
    number = {name: i for i, name in enumerate(classes)}
    return {name: number[p[0]] for name, p in zip(source.names, parts)}, classes


def _natural(name):
    """For sorting: numbers in names by their value, so that 2 comes before 10"""
    parts = re.split("([0-9]+)", name)
    numbers = (part.lstrip("0") for part in parts[1::2])
    return [*zip(parts[::2], [*((len(number), number) for number in numbers), (0, "")])], name


def choose_labels(source: Source, labels: str) -> tuple[dict[str, Any] | None, list | None]:
    """(labels {name: label}, classes) for the option --labels: 'none', 'folders', or 'auto': the source's own.

    Either is None where there is none. ValueError with one sentence for labels that cannot be used.
    """
    if labels == "none":
        return None, None
    if labels == "folders":
        return labels_from_folders(source)
    return labels_from_json(source) if source.contents is not None else (source.labels, None)
