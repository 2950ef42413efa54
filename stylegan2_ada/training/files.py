"""Reads what others have made: pictures, JSON, entries of zips. Whatever is wrong with one becomes a ValueError.

Decoders raise what they like on broken files, from zlib.error to struct.error, and small files can be huge in memory.
"""

import contextlib
import importlib
import io
import json
import os
import zipfile
from collections.abc import Container, Iterator
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image, ImageOps, UnidentifiedImageError

Image.init()
# EPS would start Ghostscript on a file from anywhere; the others are stubs without a decoder.
FORMATS = [f for f in Image.ID if f not in ("EPS", "BUFR", "GRIB", "HDF5", "MPEG", "WMF")]
SUFFIXES = {suffix for suffix, f in Image.registered_extensions().items() if f in FORMATS}

LEAST_SIDE = 8  # pixels of an image to train on; a discriminator takes no smaller ones
MOST_PIXELS = 2**26  # of a picture: 8192 × 8192
MOST_BYTES = 2**28  # of a picture's file
MOST_CLASSES = 2**16  # in labels; one-hot vectors of more do not fit into memory
MOST_JSON_BYTES = 2**30  # the labels of ten million images


def decode(data: bytes, verify: bool = False) -> Image.Image:
    """The picture in `data`, loaded; of one that moves, its first frame.

    verify: look at a PNG's checksums too. ValueError with a short reason for what is no picture, is damaged, or has
    more than MOST_PIXELS.
    """
    with _reasons():
        picture = _opened(data)
        if verify and picture.format == "PNG":
            picture.verify()
            picture = _opened(data)  # verifying has used it up
        picture.load()
        return picture


def check(data: bytes) -> Image.Image:
    """The picture in `data`, to be asked for size, mode and format only: a PNG's checksums are looked at, no pixels.

    ValueError as in `decode`.
    """
    with _reasons():
        picture = _opened(data)
        picture.verify() if picture.format == "PNG" else picture.load()
        return picture


def open_picture(path: str | os.PathLike) -> Image.Image:
    """The picture in a file, as `decode` gives it. ValueError, in one sentence, where there is none that opens."""
    try:
        with open(path, "rb") as file:
            return decode(file.read(MOST_BYTES))
    except (OSError, ValueError) as error:
        raise ValueError(f"{path} cannot be opened as a picture ({error})") from error


def upright(picture: Image.Image) -> Image.Image:
    """The picture turned as its EXIF data say that it was taken. ValueError where those are broken."""
    with _reasons():
        return ImageOps.exif_transpose(picture)


def read_entry(archive: zipfile.ZipFile, name: str | zipfile.ZipInfo, most: int = MOST_BYTES) -> bytes:
    """One entry of a zip. ValueError with a short reason for one that is damaged, encrypted, or longer than `most`."""
    with _reasons():
        entry = name if isinstance(name, zipfile.ZipInfo) else archive.getinfo(name)
        if entry.file_size > most:
            raise ValueError(f"its {entry.file_size} bytes are more than the {most} that are read")
        return archive.read(entry)


def parse_json(data: bytes | str, kind: type | tuple[type, ...] = object) -> Any:
    """What a JSON file holds. ValueError with a short reason, also if that is not a `kind`."""
    with _reasons():
        content = json.loads(data)
        if not isinstance(content, kind):
            raise ValueError(f"it holds a {type(content).__name__}")
        return content


def read_npz(path: str | Path, name: str) -> np.ndarray:
    """The array of that name in an .npz, float64. ValueError with a short reason unless it is one of finite numbers."""
    with _reasons(), zipfile.ZipFile(path) as archive:
        file = io.BytesIO(read_entry(archive, f"{name}.npy"))
        version = np.lib.format.read_magic(file)
        read_header = {(1, 0): np.lib.format.read_array_header_1_0, (2, 0): np.lib.format.read_array_header_2_0}
        shape, fortran_order, dtype = read_header[version](file)
        if dtype.kind not in "fiu" or dtype.itemsize > 8:
            raise ValueError(f"{name} is of the type {dtype}")
        array = np.frombuffer(file.read(), dtype).reshape(shape, order="F" if fortran_order else "C")
        if not np.isfinite(array).all():
            raise ValueError(f"{name} holds numbers that are not finite")
        return array.astype(np.float64)


def check_torch_zip(path: str | Path) -> None:
    """ValueError if a file of PyTorch would unpack to many times its size: those hold numbers as they are."""
    if zipfile.is_zipfile(path):
        with _reasons(), zipfile.ZipFile(path) as archive:
            unpacked = sum(entry.file_size for entry in archive.infolist())
        if unpacked > 4 * os.path.getsize(path) + 2**26:
            raise ValueError(f"it unpacks to {unpacked} bytes")


def check_class_name(name: Any, modules: Container[str], kind: type = object) -> None:
    """ValueError unless `name` is MODULE.CLASS, one of these modules and a class in it that is a `kind`.

    Names in files of others must not lead to any function there is.
    """
    module_name, _, class_name = str(name).rpartition(".")
    if module_name in modules:
        found = vars(importlib.import_module(module_name)).get(class_name)
        if isinstance(found, type) and issubclass(found, kind):
            return
    raise ValueError(f"it names {str(name)[:100]!r}, which is no class that is known here")


def _opened(data):
    picture = Image.open(io.BytesIO(data), formats=FORMATS)
    if picture.width * picture.height > MOST_PIXELS:
        raise ValueError(f"its {picture.width}×{picture.height} pixels are more than the {MOST_PIXELS} that are read")
    return picture


@contextlib.contextmanager
def _reasons() -> Iterator[None]:
    """Inside, any exception but a lack of memory or disk becomes a ValueError of one line."""
    try:
        yield
    except UnidentifiedImageError as error:
        raise ValueError("not an image that Pillow can read") from error
    except MemoryError:
        raise
    except Exception as error:
        reason = " ".join(str(error).split())[:200] or type(error).__name__
        raise ValueError(reason) from error
