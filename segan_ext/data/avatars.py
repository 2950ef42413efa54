"""The built-in data set: avatars with known factors, class labels and exact masks, as an archive to train on."""

from __future__ import annotations

import contextlib
import functools
import importlib.metadata
import io
import json
import os
import re
import threading
import zipfile
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context, parent_process
from pathlib import Path

import numpy as np
from PIL import Image
from tqdm import tqdm

from segan_ext.data.drawing import (
    CLASSES,
    POSE,
    Ranges,
    blend,
    nearest,
    render_avatar,
    render_mask,
    style_factors,
    style_json,
    style_licence,
)

PACKAGES = ("dicebear-core", "dicebear-styles", "resvg-py", "pillow")
CHUNK = 32  # images a worker draws at a time


def make_avatars(
    dest: str | os.PathLike,
    count: int = 20000,
    resolution: int = 64,
    style: str = "toon-head",
    seed: int = 0,
    label: str | None = None,
    masks: bool = False,
    workers: int | None = None,
    zoom: float = 1,
    jitter: float = 1,
    only: dict[str, list[str]] | None = None,
    ranges: Ranges | None = None,
    progress: bool = True,
    overwrite: bool = False,
) -> Path:
    """Write a zip of RGB images for training and, with `masks`, `<stem>-masks.zip` with their class indices.

    zoom enlarges the faces, jitter (0 to 1) says how much tilt, size and place vary, only limits factors to some of
    their values ({"eyesVariant": ["variant14", "variant20"]}), which makes a set easier to learn, ranges lets colours
    and poses vary evenly between two ends ({"hairColor": ("#2c1b18", "#d6b370"), "rotate": (-15, 15)}).

    Its dataset.json holds "labels" (null, or [name, class] by the factor `label`), "factors" ("names", "kinds",
    "values" of those that are not continuous, and in "items" a row an image: indices into the values, or floats) and
    "source". Arguments and package versions fix every byte, `workers` changes none. Returns the path.
    Raises ValueError, in one sentence, for what it cannot do.
    """
    dest = Path(dest)
    _check(style, count, resolution, zoom, jitter, workers, label, [dest, mask_path(dest)][: 1 + masks], overwrite)
    _check_only(style, only or {})
    _check_ranges(style, ranges or {})
    dest.parent.mkdir(parents=True, exist_ok=True)
    workers = workers or min(os.cpu_count() or 1, 1 + count // 500)  # starting one takes as long as 100 images
    job = {"style": style, "seed": seed, "resolution": resolution, "zoom": float(zoom), "jitter": float(jitter)}
    job |= {"only": only or {}} | ({"ranges": ranges} if ranges else {})
    names, rows = [], []
    # Renamed in reverse order: whoever sees the images finds the masks.
    with contextlib.ExitStack() as stack:
        images = stack.enter_context(_new_zip(dest))
        mask_zip = stack.enter_context(_new_zip(mask_path(dest))) if masks else None
        drawn = stack.enter_context(contextlib.closing(_draw_all(job, masks, count, workers)))
        bar = tqdm(drawn, total=count, unit="img", disable=None if progress else True)  # None: only on a terminal
        for index, (png, mask_png, row) in enumerate(bar):
            names.append(f"{index // 1000:05d}/img{index:08d}.png")
            rows.append(row)
            _add(images, names[-1], png)
            if masks:
                _add(mask_zip, names[-1], mask_png)
        _add(images, "dataset.json", _dataset_json(job, names, rows, label))
        if masks:
            _add(mask_zip, "dataset.json", _json({"labels": None, "classes": CLASSES, "source": _source(job)}))
    return dest


def mask_path(dest: str | os.PathLike) -> Path:
    """Where the masks of an archive lie: avatars.zip -> avatars-masks.zip."""
    return Path(dest).with_name(f"{Path(dest).stem}-masks.zip")


def cached_avatars(
    resolution: int = 64,
    count: int = 20000,
    style: str = "toon-head",
    seed: int = 0,
    label: str | None = None,
    masks: bool = False,
    zoom: float = 1,
    jitter: float = 1,
) -> Path:
    """Path of such an archive in $SEGAN_CACHE_DIR or ~/.cache/segan, made on first use. Raises like make_avatars."""
    style_json(style)  # says what is missing before versions are asked for
    versions = "-".join(_versions().values())
    parts = [style, f"{count}x{resolution}", f"seed{seed}", f"zoom{zoom:g}", f"jitter{jitter:g}", label, versions]
    name = f"avatars-{'-'.join(filter(None, parts))}.zip"
    dest = Path(os.environ.get("SEGAN_CACHE_DIR") or Path.home() / ".cache" / "segan") / name
    if not dest.exists() or (masks and not mask_path(dest).exists()):
        make_avatars(dest, count, resolution, style, seed, label, masks, None, zoom, jitter, overwrite=True)
    return dest


def _check(style, count, resolution, zoom, jitter, workers, label, paths, overwrite) -> None:
    factors = {name: values for name, values in style_factors(style).items() if values}
    if label is not None and label not in factors:
        raise ValueError(f"--label: style {style} has no factor '{label}'; {nearest(label, factors)}")
    limits = {
        "count": (count, 1, 10**8),
        "resolution": (resolution, 8, 1024),
        "zoom": (zoom, 0.2, 5),
        "jitter": (jitter, 0, 1),
    }
    for option, (value, low, high) in (limits | {"workers": (workers or 1, 1, 256)}).items():
        if not low <= value <= high:
            raise ValueError(f"--{option}: {value} is out of range; choose one from {low} to {high}")
    for path in paths:
        if path.suffix != ".zip":
            raise ValueError(f"--dest: {path} is not a .zip; name an archive such as avatars.zip")
        if path.exists() and not overwrite:
            raise ValueError(f"--dest: {path} exists; choose another name or add --overwrite")


def _check_only(style, only) -> None:
    factors = {name: values for name, values in style_factors(style).items() if values}
    for name, values in only.items():
        for value in values:
            if value not in factors.get(name, []):
                raise ValueError(f"--only: style {style} has no {name}={value}; {nearest(name, factors)}")


def _check_ranges(style, ranges) -> None:
    for name, ends in ranges.items():
        colour = name.endswith("Color") and name in style_factors(style)
        fits = all(re.fullmatch("#[0-9a-f]{6}", str(end)) if colour else isinstance(end, int | float) for end in ends)
        if not (colour or name in POSE) or len(ends) != 2 or not fits:
            known = f"colours go from #rrggbb to #rrggbb, {', '.join(POSE)} from number to number"
            raise ValueError(f"ranges: {name} has no range {ends}; {known}")


def _draw_all(job: dict, masks: bool, count: int, workers: int) -> Iterator[tuple[bytes, bytes | None, list]]:
    """PNG, mask PNG or None, and factor row of each image, in order."""
    chunks = [range(start, min(start + CHUNK, count)) for start in range(0, count, CHUNK)]
    draw = functools.partial(_draw_chunk, job, masks)
    if workers == 1:
        for chunk in chunks:
            yield from draw(chunk)
        return
    context = get_context("spawn")  # forks of a process with threads may hang
    pool = ProcessPoolExecutor(workers, mp_context=context, initializer=_end_with_parent)
    try:
        for results in pool.map(draw, chunks):
            yield from results
    finally:
        pool.shutdown(cancel_futures=True)


def _end_with_parent() -> None:
    """Ends this worker when the process that started it has been killed; it would wait for work for ever."""

    def wait():
        parent_process().join()
        os._exit(1)

    threading.Thread(target=wait, daemon=True).start()


def _draw_chunk(job: dict, masks: bool, indices: range) -> list[tuple[bytes, bytes | None, list]]:
    style, seed, resolution, results = job["style"], job["seed"], job["resolution"], []
    known, ranges = _factors(job), job.get("ranges", {})
    settings = (job["zoom"], job["jitter"], job["only"], ranges)
    for index in indices:
        image, factors = render_avatar(style, seed, index, resolution, *settings)
        row = [values.index(factors[name]) if values else factors[name] for name, values in known.items()]
        for name in ranges.keys() - POSE.keys():
            factors[name] = blend(ranges[name], factors[name])
        mask = _png(render_mask(style, factors, resolution, f"{seed}-{index}")) if masks else None
        results.append((_png(image), mask, row))
    return results


def _factors(job: dict) -> dict[str, list[str] | None]:
    """The values of each factor, None for those along a range"""
    return style_factors(job["style"]) | dict.fromkeys(job.get("ranges", {}))


def _png(pixels: np.ndarray) -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, format="png", compress_level=6)
    return buffer.getvalue()


def _dataset_json(job: dict, names: list[str], rows: list[list], label: str | None) -> bytes:
    known = _factors(job)
    kinds = [("colour" if n.endswith("Color") else "categorical") if v else "continuous" for n, v in known.items()]
    labels = [[name, row[list(known).index(label)]] for name, row in zip(names, rows, strict=True)] if label else None
    values = {name: values for name, values in known.items() if values}
    factors = {"names": list(known), "kinds": kinds, "values": values, "items": rows}
    return _json({"labels": labels, "factors": factors, "source": _source(job)})


def _source(job: dict) -> dict:
    return job | style_licence(job["style"]) | {"versions": _versions()}


def _versions() -> dict[str, str]:
    return {package: importlib.metadata.version(package) for package in PACKAGES}


def _json(content: dict) -> bytes:
    return json.dumps(content, separators=(",", ":")).encode()


def _add(archive: zipfile.ZipFile, name: str, content: bytes) -> None:
    archive.writestr(zipfile.ZipInfo(name, date_time=(1980, 1, 1, 0, 0, 0)), content)  # no clock in the bytes


@contextlib.contextmanager
def _new_zip(dest: Path) -> Iterator[zipfile.ZipFile]:
    """A zip that takes its name when it is complete. OSError, which names it, if the disk is full."""
    temporary = dest.with_name(f".{dest.name}.{os.getpid()}.tmp")
    try:
        with zipfile.ZipFile(temporary, "w", zipfile.ZIP_STORED) as archive:
            yield archive
        os.replace(temporary, dest)
    except OSError as error:
        raise OSError(error.errno, error.strerror or str(error), str(dest)) from error
    finally:
        temporary.unlink(missing_ok=True)


# ---------------------------------------------------------------------------------------------------------------------
# Command
