"""Reads what others have made: pictures, JSON, entries of zips. Whatever is wrong with one becomes a ValueError.

Decoders raise what they like on broken files, from zlib.error to struct.error, and small files can be huge in memory.
Here too is which files of a folder count, and how a picture of any kind becomes 8-bit grey or colour.
"""

import contextlib
import importlib
import io
import json
import os
import re
import zipfile
from collections import Counter
from collections.abc import Container, Iterable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
from PIL import ExifTags, Image, ImageOps, UnidentifiedImageError

with contextlib.suppress(ImportError):
    import pillow_heif

    pillow_heif.register_heif_opener()
Image.init()
# EPS would start Ghostscript on a file from anywhere; the others are stubs without a decoder.
FORMATS = [f for f in Image.ID if f not in ("EPS", "BUFR", "GRIB", "HDF5", "MPEG", "WMF")]
SUFFIXES = {suffix for suffix, f in Image.registered_extensions().items() if f in FORMATS}

LEAST_SIDE = 8  # pixels of an image to train on; a discriminator takes no smaller ones
MOST_PIXELS = 2**26  # of a picture: 8192 × 8192
MOST_BYTES = 2**28  # of a picture's file
MOST_CLASSES = 2**16  # in labels; one-hot vectors of more do not fit into memory
MOST_JSON_BYTES = 2**30  # the labels of ten million images


# What Macs, Windows and network drives put beside the files of a user.
_LEFT_BEHIND = {"__MACOSX", "@eaDir", "Thumbs.db", "desktop.ini", "$RECYCLE.BIN", "System Volume Information"}
_LEFT_BEHIND |= {"lost+found"}
_LABEL_FILES = re.compile(r"(^|/)dataset\.json$|\.cls$")


def is_visible(name: str) -> bool:
    """True for the name of a file in a folder or archive, with its folders, if none of them is hidden or left behind
    by a system."""
    parts = name.replace("\\", "/").split("/")
    return not any((part[:1] == "." and part not in (".", "..")) or part in _LEFT_BEHIND for part in parts)


def lies_in(path: str | os.PathLike, folder: str | os.PathLike) -> bool:
    """True for a path that is that folder, or lies anywhere below it, however links lead there"""
    path, folder = (os.path.join(os.path.realpath(each), "") for each in (path, folder))
    return path.startswith(folder)


def without_folder(names: Iterable[str]) -> dict[str, str]:
    """{name without the folders that all lie in: name} of the visible files of an archive, which may be of a folder"""
    shown = [name for name in names if is_visible(name) and not name.endswith("/")]
    start = os.path.commonprefix(shown).rpartition("/")[0]
    return {name.removeprefix(f"{start}/"): name for name in shown}


def is_picture(name: str) -> bool:
    """True for a name that ends as those of pictures do that can be read"""
    return os.path.splitext(name)[1].lower() in SUFFIXES


def printable(name: str) -> str:
    """A name in a line of a message: what would break the line, or has no place in a terminal, is a question mark."""
    return "".join(c if c.isprintable() else "?" for c in name)


def what_is_no_picture(names: Iterable[str]) -> str:
    """A sentence, "8 files are no pictures that can be read: .heic (8)"; "" if all names are of pictures or labels."""
    others = [name for name in names if not is_picture(name) and not _LABEL_FILES.search(name)]
    if not others:
        return ""
    kinds = Counter(printable(os.path.splitext(name)[1].lower()[:20]) or "without a suffix" for name in others)
    listed = ", ".join(f"{kind} ({count})" for kind, count in kinds.most_common(5)) + (", …" if len(kinds) > 5 else "")
    said = "1 file is no picture" if len(others) == 1 else f"{len(others)} files are no pictures"
    cure = "; pip install pillow-heif, and they are read" if {".heic", ".heif", ".hif"} & kinds.keys() else ""
    return f"{said} that can be read: {listed}{cure}"


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


def to_8_bit(picture: Image.Image) -> tuple[Image.Image, tuple[str, ...]]:
    """(the picture, upright, in mode L or RGB, or LA or RGBA where something is transparent; what had to be done).

    16 bits are scaled to 8. What was done: "turned upright", "16-bit grey", "1-bit", "palette", or the mode of other
    colours, as "CMYK". ValueError for numbers without a fixed range (32 bits, floats), or broken EXIF data.
    """
    with _reasons():
        steps, kind = [], picture.format
        if picture.getexif().get(ExifTags.Base.Orientation, 1) != 1:
            steps.append("turned upright")
            picture = ImageOps.exif_transpose(picture)
        if picture.mode.startswith("I;16") or (picture.mode == "I" and kind in ("PNG", "PPM")):
            steps.append("16-bit grey")
            picture = _from_16_bit(picture)
        elif picture.mode in ("I", "F"):
            raise ValueError(f"mode {picture.mode} has no fixed range of values")
        if picture.mode in ("LA", "La", "PA", "RGBA", "RGBa") or "transparency" in picture.info:
            picture = picture.convert("LA" if picture.mode in ("1", "L", "LA", "La") else "RGBA")
            if picture.getchannel("A").getextrema() == (255, 255):
                picture = picture.convert(picture.mode[:-1])
        elif picture.mode not in ("L", "RGB"):
            steps.append({"1": "1-bit", "P": "palette"}.get(picture.mode, picture.mode))
            picture = picture.convert("L" if picture.mode == "1" else "RGB")
        return picture, tuple(steps)


def _from_16_bit(picture):
    """Grey of 16 bits in mode L, or LA if one of its values stands for what is transparent"""
    pixels = np.asarray(picture).astype(np.uint32)
    grey = Image.fromarray(((pixels + 128) // 257).astype(np.uint8))  # 65535 / 255: widened bytes come back exactly
    hidden = picture.info.get("transparency")
    if isinstance(hidden, int):
        grey.putalpha(Image.fromarray(np.where(pixels == hidden, 0, 255).astype(np.uint8)))
    return grey


def without_alpha(picture: Image.Image, ground: str | None) -> Image.Image:
    """A picture of `to_8_bit` in mode L or RGB, laid on a colour; None: what was transparent shows as it is stored."""
    if picture.mode in ("L", "RGB"):
        return picture
    opaque = picture.convert(picture.mode[:-1])
    if ground is None:
        return opaque
    return Image.composite(opaque, Image.new(opaque.mode, opaque.size, ground), picture.getchannel("A"))


def open_picture(path: str | os.PathLike) -> Image.Image:
    """The picture in a file as `to_8_bit` makes it. ValueError, in one sentence, where there is none that opens."""
    with _unopened(path):
        return to_8_bit(decode(read_file(path)))[0]


def open_pixels(path: str | os.PathLike) -> np.ndarray:
    """The pixels in a file as they are stored, of one with a palette its indices. ValueError as in `open_picture`."""
    with _unopened(path):
        return np.asarray(decode(read_file(path)))


def upright(picture: Image.Image) -> Image.Image:
    """The picture turned as its EXIF data say that it was taken. ValueError where those are broken."""
    with _reasons():
        turned = picture.getexif().get(ExifTags.Base.Orientation, 1) != 1
        return ImageOps.exif_transpose(picture) if turned else picture


def read_file(path: str | os.PathLike, most: int = MOST_BYTES) -> bytes:
    """The bytes of a file. OSError, or ValueError with a short reason for one that is longer than `most`."""
    with open(path, "rb") as file:
        size = os.fstat(file.fileno()).st_size
        if size > most:
            raise ValueError(f"its {size} bytes are more than the {most} that are read")
        return file.read() if size else file.read(most)  # a pipe has no size


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
        try:
            content = json.loads(data)
        except json.JSONDecodeError as error:
            around = error.doc[max(error.pos - 20, 0) : error.pos] + "⟨here⟩" + error.doc[error.pos : error.pos + 20]
            raise ValueError(f"{error}: {printable(' '.join(around.split()))}") from error
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


@contextlib.contextmanager
def _unopened(path):
    """Inside, an OSError or ValueError becomes a ValueError that names the picture."""
    try:
        yield
    except (OSError, ValueError) as error:
        raise ValueError(f"{path} cannot be opened as a picture ({error})") from error


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
