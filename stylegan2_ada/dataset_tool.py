"""Turn pictures from many kinds of sources into a data set that training can read.

A run has three steps: open the source, scan every picture and list what does not fit, write the data set. Nothing is
written before the scan is content, and nothing that existed is replaced before the writing is complete.
"""

import io
import json
import os
import re
import shutil
import zipfile
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, NamedTuple

import click
import numpy as np
from click import UsageError
from PIL import Image
from tqdm import tqdm

from runs.options import Command, OneOf
from training.dataset_sources import SOURCES, Source, choose_labels, open_source
from training.files import LEAST_SIDE, decode, to_8_bit, what_is_no_picture, without_alpha

FILTERS = {"box": Image.Resampling.BOX, "lanczos": Image.Resampling.LANCZOS}
MODES = {"rgb": "RGB", "grey": "L"}
EXACT = ("turned upright", "16-bit grey", "1-bit", "palette")  # conversions that need no option
BLOCK = 32  # results in flight at once; bounds the memory

# ---------------------------------------------------------------------------------------------------------------------
# One picture: decode, make it L or RGB, crop and resize


class Policy(NamedTuple):
    """What `convert_dataset` is to make of every picture; its arguments of the same names."""

    width: int | None
    height: int | None
    transform: str | None
    resize_filter: str
    alpha: str | None
    mode: str | None


def picture_of(data: bytes | np.ndarray, verify: bool = False) -> Image.Image:
    """What a source reads, bytes or an array, as a PIL image. ValueError with a short reason."""
    return Image.fromarray(data) if isinstance(data, np.ndarray) else decode(data, verify)


def to_grey_or_rgb(image: Image.Image, policy: Policy) -> tuple[Image.Image, tuple[str, ...]]:
    """(image in mode L or RGB, what had to be done for it). Loss-free steps and those that need a policy alike."""
    image, steps = to_8_bit(image)
    steps += ("alpha",) * (image.mode in ("LA", "RGBA"))
    image = without_alpha(image, policy.alpha if policy.alpha in ("white", "black") else None)
    return image.convert(MODES.get(policy.mode, image.mode)), steps


def layout(
    size: tuple[int, int], policy: Policy
) -> tuple[tuple[int, int, int, int], tuple[int, int], tuple[int, int]] | None:
    """(box to cut out, size to bring it to, size of the finished image), or None for an image that is too small."""
    width, height = size
    inner = outer = (policy.width or width, policy.height or height)
    cut = size
    if policy.transform == "center-crop":
        cut = (min(size), min(size))
    elif policy.transform == "center-crop-wide":
        if width < inner[0] or height < inner[1]:
            return None
        scale = min(width / inner[0], height / inner[1])
        cut = (round(inner[0] * scale), round(inner[1] * scale))
        outer = (inner[0], inner[0])
    left, top = (width - cut[0]) // 2, (height - cut[1]) // 2
    return (left, top, left + cut[0], top + cut[1]), inner, outer


def finish(image: Image.Image, policy: Policy) -> bytes:
    """The image as it goes into the data set, in bytes of PNG."""
    image, _ = to_grey_or_rgb(image, policy)
    box, inner, outer = layout(image.size, policy)
    image = image.crop(box)
    if image.size != inner:
        image = image.resize(inner, FILTERS[policy.resize_filter])
    if inner != outer:
        canvas = Image.new(image.mode, outer)
        canvas.paste(image, (0, (outer[1] - inner[1]) // 2))
        image = canvas
    image.info = {}  # else profile and resolution would be written too
    out = io.BytesIO()
    image.save(out, format="png", compress_level=0, optimize=False)
    return out.getvalue()


# ---------------------------------------------------------------------------------------------------------------------
# Scan: look at every picture, then list what does not fit and the option that mends it


class Finding(NamedTuple):
    """What the scan has found out about one picture."""

    size: tuple[int, int] | None = None  # of the finished image; None: too small for the transform
    mode: str = ""
    steps: tuple[str, ...] = ()
    error: str = ""  # why it cannot be used at all


def inspect(source: Source, name: str, policy: Policy) -> Finding:
    """Opens a picture of the source and says how it would go into the data set, or why it cannot; raises nothing."""
    try:
        image, steps = to_grey_or_rgb(picture_of(source.read(name), verify=True), policy)
    except Exception as error:  # decoders raise what they like on broken files
        return Finding(error=" ".join(str(error).split()) or type(error).__name__)
    placed = layout(image.size, policy)
    return Finding(placed and placed[2], image.mode, steps)


def in_order(function: Callable[[Any], Any], items: Sequence[Any], what: str) -> Iterator[Any]:
    """Yield function(item) of every item in order, computed in threads, with a progress bar on a terminal."""
    workers = min(8, os.cpu_count() or 1)
    with ThreadPoolExecutor(workers) as pool, tqdm(total=len(items), desc=what, unit="img", disable=None) as bar:
        for start in range(0, len(items), BLOCK):
            for result in pool.map(function, items[start : start + BLOCK]):
                yield result
                bar.update()


def some(names: Sequence[str], limit: int = 1) -> str:
    """The first `limit` names, and an ellipsis if there are more."""
    return ", ".join(names[:limit]) + (", …" if len(names) > limit else "")


def size_misfit(sizes: Counter[tuple[int, int]], policy: Policy) -> tuple[str, str] | None:
    """(what is wrong, cure) with the sizes of the finished images, or None."""
    usual = sizes.most_common(1)[0][0]
    square = all(w == h for w, h in sizes)
    if len(sizes) == 1 and square and usual[0] >= LEAST_SIDE and usual[0].bit_count() == 1:
        return None
    side = policy.width or policy.height or max(LEAST_SIDE, 1 << (min(usual).bit_length() - 1))
    counts = some([f"{n} of {w}×{h}" for (w, h), n in sizes.most_common()], 6)
    cure = f"--width={side} --height={side}" + ("" if square else " --transform=center-crop")
    return f"sizes: {counts}; all must be one square with a power of two of {LEAST_SIDE} or more as its side", cure


def misfits(found: dict[str, Finding], policy: Policy, on_bad: str) -> list[tuple[str, str]]:
    """[(what is wrong, cure)] for {name: Finding}."""
    rows = []
    bad = [f"{name} ({f.error})" for name, f in found.items() if f.error]
    good = {name: f for name, f in found.items() if not f.error and f.size}
    if bad and on_bad == "stop":
        rows.append((f"{len(bad)} cannot be used: " + some(bad, 10), "--on-bad=skip"))
    alpha = [name for name, f in good.items() if "alpha" in f.steps]
    if alpha and policy.alpha is None:
        rows.append((f"{len(alpha)} with alpha ({some(alpha, 3)}); put on white or black or drop it", "--alpha=white"))
    foreign = Counter(step for f in good.values() for step in f.steps if step not in EXACT and step != "alpha")
    if foreign and policy.mode is None:
        rows.append(("other colour spaces: " + ", ".join(f"{n} {m}" for m, n in foreign.items()), "--mode=rgb"))
    modes = Counter(f.mode for f in good.values())
    if len(modes) > 1:
        rows.append((f"{modes['RGB']} in colour and {modes['L']} grey; make all rgb or all grey", "--mode=rgb"))
    sizes = Counter(f.size for f in good.values())
    return rows + [row for row in [sizes and size_misfit(sizes, policy)] if row]


def scan(source: Source, names: list[str], policy: Policy, on_bad: str) -> dict[str, Finding]:
    """{name: Finding} of the pictures that can be used; if they do not fit, one UsageError with the whole listing."""
    found = dict(zip(names, in_order(lambda name: inspect(source, name, policy), names, "Scan")))
    rows = misfits(found, policy, on_bad)
    small = sum(not f.error and f.size is None for f in found.values())
    exact = Counter(step for f in found.values() for step in f.steps if step in EXACT)
    notes = [f"{n} {step}: converted" for step, n in exact.items()]
    notes += [f"{small} smaller than {policy.width}×{policy.height}: skipped"] if small else []
    others = what_is_no_picture(source.contents or ())
    if rows:
        lines = [f"{what}: {cure}" for what, cure in rows] + [f"{note}, needs no option" for note in notes]
        lines += [others] if others else []
        lines += ["all at once: " + " ".join(dict.fromkeys(cure for _, cure in rows))] if len(rows) > 1 else []
        raise UsageError(
            f"--source: its {len(names)} images do not fit as they are, and nothing was written; "
            "found, with the option that mends it:\n  " + "\n  ".join(lines)
        )
    bad = [f"{name} ({f.error})" for name, f in found.items() if f.error]
    notes += [f"{len(bad)} cannot be used: skipped: {some(bad, 10)}"] if bad else []
    usable = {name: f for name, f in found.items() if f.size}
    if not usable:
        raise UsageError("--source: no image is left to write: " + "; ".join(notes))
    for note in notes + [others] * bool(others):
        click.echo(note)
    return usable


# ---------------------------------------------------------------------------------------------------------------------
# Write


def check_dest(source: Path, dest: Path, overwrite: bool) -> None:
    """Refuse a destination whose content would be lost."""
    if dest == source or dest in source.parents:
        raise UsageError(f"--dest: {dest} holds the source; name another place")
    if source.is_dir() and source in dest.parents and dest.suffix.lower() != ".zip":
        raise UsageError(f"--dest: {dest} lies in the source, which would hold both next time; name another place")
    if not dest.exists():
        return
    if dest.is_dir() == (dest.suffix.lower() == ".zip"):
        raise UsageError(f"--dest: {dest} exists and is no {'file' if dest.is_dir() else 'folder'}; name another")
    content = [] if dest.is_file() else os.listdir(dest)
    if (dest.is_file() or content) and not overwrite:
        raise UsageError(f"--dest: {dest} exists; name another or replace it with --overwrite")
    if content and not all(name == "dataset.json" or re.fullmatch(r"\d{5}", name) for name in content):
        raise UsageError(f"--dest: {dest} holds more than a data set and is not replaced; name another")


@contextmanager
def writing(source: Path, dest: Path, overwrite: bool) -> Iterator[Callable[[str, bytes], Any]]:
    """Give a function save(name, data); all of it appears at `dest` at the end, or nothing does."""
    temp, old = (dest.with_name(f".{dest.name}.{os.getpid()}.{end}") for end in ("tmp", "old"))

    def save_file(name, data):
        (temp / name).parent.mkdir(exist_ok=True)
        (temp / name).write_bytes(data)

    try:
        dest.parent.mkdir(parents=True, exist_ok=True)
        if dest.suffix.lower() == ".zip":
            with zipfile.ZipFile(temp, "x") as archive:  # a bare ZipInfo is stored and has a fixed date: same bytes
                yield lambda name, data: archive.writestr(zipfile.ZipInfo(name), data)
        else:
            temp.mkdir()
            yield save_file
        check_dest(source, dest, overwrite)  # the scan may have taken long
        if dest.is_dir():
            dest.rename(old)  # a folder with content cannot be replaced in one step
        try:
            temp.replace(dest)
        except OSError:
            if old.exists():
                old.rename(dest)
            raise
        shutil.rmtree(old, ignore_errors=True)
    except OSError as error:
        raise UsageError(f"--dest: cannot write {dest} ({error.strerror or error}); name another") from error
    finally:
        shutil.rmtree(temp, ignore_errors=True)
        with suppress(OSError):
            temp.unlink()


def write(
    source: Source,
    usable: dict[str, Finding],
    labels: dict[str, Any] | None,
    classes: list | None,
    policy: Policy,
    save: Callable[[str, bytes], Any],
) -> None:
    """Save all images and dataset.json."""

    def render(name):
        try:
            return finish(picture_of(source.read(name)), policy)
        except Exception as error:
            raise UsageError(f"--source: {name} has changed since the scan ({error}); run again") from error

    rows = []
    for i, (name, data) in enumerate(zip(usable, in_order(render, list(usable), "Write"))):
        rows.append([f"{i // 1000:05d}/img{i:08d}.png", labels and labels[name]])
        save(rows[-1][0], data)
    content = {"labels": rows if labels else None} | ({"classes": classes} if classes else {})
    save("dataset.json", json.dumps(content).encode())


# ---------------------------------------------------------------------------------------------------------------------
# The command


def check_options(policy: Policy) -> None:
    """UsageError for sizes that training does not take, or that do not go with the transform."""
    width, height, transform = policy[:3]
    if transform and not (width and height):
        raise UsageError(f"--transform: {transform} needs the size of the result; give --width and --height too")
    if transform == "center-crop-wide" and height > width:
        raise UsageError("--height: center-crop-wide makes pictures wider than high; give at most the --width")
    if transform != "center-crop-wide" and width and height and width != height:
        raise UsageError(f"--height: must equal --width={width}, as training takes squares")
    for name, side in (("width", width), ("height", None if transform == "center-crop-wide" else height)):
        if side and (side < LEAST_SIDE or side.bit_count() != 1):
            lower = max(LEAST_SIDE, 1 << (side.bit_length() - 1))
            raise UsageError(f"--{name}: {side} is not a power of two from {LEAST_SIDE} on; try {lower} or {2 * lower}")


def print_summary(usable: dict[str, Finding], labels: dict[str, Any] | None, classes: list | None, dest: Path) -> None:
    """Prints what was written, and the first 20 classes with the number of their images."""
    ((size, mode),) = {(f.size, f.mode) for f in usable.values()}
    click.echo(f"Wrote {len(usable)} images, {size[0]}×{size[1]} {mode}, to {dest}")
    used = [labels[name] for name in usable] if labels else []
    if used and isinstance(used[0], int):
        counts = sorted(Counter(used).items())
        lines = [f"  {i}{' ' + str(classes[i]) if classes and i < len(classes) else ''}: {n}" for i, n in counts[:20]]
        click.echo("\n".join([f"{len(counts)} classes:", *lines] + ["  …"] * (len(counts) > 20)))


def convert_dataset(
    source: str | os.PathLike,
    dest: str | os.PathLike,
    max_images: int | None = None,
    resize_filter: str = "lanczos",
    transform: str | None = None,
    width: int | None = None,
    height: int | None = None,
    labels: str = "auto",
    on_bad: str = "stop",
    alpha: str | None = None,
    mode: str | None = None,
    overwrite: bool = False,
    resolution: tuple[int, int] | None = None,
) -> int:
    """Scan the images of `source`, then write them as a data set to `dest`, a folder or a .zip; return their number.

    source, dest   paths; SOURCES lists the kinds of source
    max_images     use only the first ones of the source
    resize_filter  'box' or 'lanczos'
    transform      None: resize to width x height (one that is None stays as it is); 'center-crop': the largest centred
                   square; 'center-crop-wide': cut to width:height, with black bars above and below
    labels         'auto': those of the source, if any; 'folders': its sub-folders; 'none'
    on_bad         'stop' or 'skip' at images that cannot be read
    alpha          transparency: put on 'white' or 'black', or 'drop' it; None: stop at it
    mode           make all images 'rgb' or 'grey'; None: stop at a mixture
    overwrite      replace a data set at `dest`
    resolution     (width, height), instead of these two

    Raises click.UsageError with a sentence for the user; `dest` is then as it was.
    """
    source, dest = Path(os.path.realpath(source)), Path(os.path.realpath(dest))  # minds no loops of links
    if resolution is not None:
        if width is not None or height is not None:
            raise UsageError("--resolution: is --width and --height in one; leave them or it out")
        width, height = resolution
    policy = Policy(width, height, transform, resize_filter, alpha, mode)
    check_options(policy)
    check_dest(source, dest, overwrite)
    with open_source(source) as opened:
        chosen, classes = choose_labels(opened, labels)
        usable = scan(opened, opened.names[:max_images], policy, on_bad)
        with writing(source, dest, overwrite) as save:
            write(opened, usable, chosen, classes, policy, save)
    print_summary(usable, chosen, classes, dest)
    return len(usable)


class Size(click.ParamType):
    """(width, height) of a text like 32x32."""

    name = "size"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> tuple[int, int]:
        """A pair stays as it is. click.UsageError, with the option, for a text of another form."""
        if isinstance(value, tuple):
            return value
        found = re.fullmatch(r"([1-9][0-9]{0,5})\s*[x×]\s*([1-9][0-9]{0,5})", value.strip().lower())
        if found is None:
            raise UsageError(f"{param.opts[0]}: {value!r} is not of the form WIDTHxHEIGHT, like 32x32")
        return int(found[1]), int(found[2])


main = Command(
    "dataset_tool",
    callback=convert_dataset,
    help=__doc__,
    params=[
        click.Option(["--source"], required=True, metavar="PATH", help="; ".join(kind for kind, *_ in SOURCES)),
        click.Option(["--dest"], required=True, metavar="PATH", help="new folder or .zip"),
        click.Option(["--max-images"], type=click.IntRange(min=1), help="use only the first ones"),
        click.Option(
            ["--resize-filter"],
            type=OneOf(sorted(FILTERS)),
            default="lanczos",
            show_default=True,
            help="of what is larger or smaller",
        ),
        click.Option(["--transform"], type=OneOf(["center-crop", "center-crop-wide"]), help="cut before resizing"),
        click.Option(["--width"], type=click.IntRange(min=1), help="of the result"),
        click.Option(
            ["--height"], type=click.IntRange(min=1), help="of the result (center-crop-wide: without the bars)"
        ),
        click.Option(["--resolution"], type=Size(), metavar="WxH", help="--width and --height in one, as 32x32"),
        click.Option(
            ["--labels"],
            type=OneOf(["auto", "folders", "none"]),
            default="auto",
            show_default=True,
            help="auto: the source's own; folders: sub-folders are classes",
        ),
        click.Option(
            ["--on-bad"],
            type=OneOf(["stop", "skip"]),
            default="stop",
            show_default=True,
            help="at images that cannot be read",
        ),
        click.Option(["--alpha"], type=OneOf(["white", "black", "drop"]), help="what to do with transparency"),
        click.Option(["--mode"], type=OneOf(["rgb", "grey"]), help="convert all images to it"),
        click.Option(["--overwrite"], is_flag=True, help="replace a data set at --dest"),
    ],
)

if __name__ == "__main__":
    main()
