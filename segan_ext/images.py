"""The door from tensors to pictures that people look at: sheets with labels, GIF, MP4, data URIs."""

import base64
import importlib.util
import io
import itertools
from collections.abc import Sequence
from pathlib import Path
from textwrap import wrap
from typing import Any

import numpy as np
import torch
from PIL import Image, ImageDraw

from segan_ext import host

host.activate()

from training.images import save_picture, save_video, to_pictures, to_uint8  # noqa: E402 (the host has to be on the path)


def averaged_down(images: torch.Tensor, side: int) -> torch.Tensor:
    """Images [N, C, H, W], averaged over squares until no side is longer than `side`"""
    factor = -(-images.shape[-1] // side)
    return torch.nn.functional.avg_pool2d(images, factor) if factor > 1 else images


def enlargement(side: int, least: int = 96) -> int:
    """How many pixels wide a pixel of small images is drawn, so that `side` of them come near `least`"""
    return max(least // side, 1)


def draw_grid(images: torch.Tensor) -> Image.Image:
    """A PIL picture of images [rows, columns, C, H, W] in [−1, 1], small ones enlarged."""
    rows, columns, channels, height, width = images.shape
    pixels = to_uint8(images).cpu()
    pixels = pixels.permute(0, 3, 1, 4, 2).reshape(rows * height, columns * width, channels).numpy()
    picture, scale = Image.fromarray(pixels[:, :, 0] if channels == 1 else pixels).convert("RGB"), enlargement(width)
    return picture.resize((columns * width * scale, rows * height * scale), Image.Resampling.NEAREST)


def draw_traversal(images: torch.Tensor, labels: Sequence[str], columns: Sequence[str]) -> Image.Image:
    """`draw_grid` with a label at each row and above each column."""
    rows, count = images.shape[:2]
    measure = ImageDraw.Draw(Image.new("RGB", (1, 1)))
    left = max([96, *(8 + int(measure.multiline_textbbox((0, 0), text)[2]) for text in labels)])
    top, grid = 16, draw_grid(images)
    picture = Image.new("RGB", (left + grid.width, top + grid.height), "white")
    picture.paste(grid, (left, top))
    draw = ImageDraw.Draw(picture)
    for i, text in enumerate(columns):
        draw.text((left + (i + 0.5) * grid.width / count, top / 2), text, fill="black", anchor="mm")
    for i, text in enumerate(labels):
        draw.text((left / 2, top + (i + 0.5) * grid.height / rows), text, fill="black", anchor="mm")
    return picture


def check_ending(dest: str | Path) -> str:
    """The ending in small letters. ValueError for a file that `write_pictures` cannot write here."""
    ending = Path(dest).suffix.lower()
    if ending not in (".png", ".gif", ".mp4"):
        raise ValueError(f"--dest: {dest} must end in .png, .gif or .mp4")
    if ending == ".mp4" and importlib.util.find_spec("imageio_ffmpeg") is None:
        raise ValueError("--dest: videos need `pip install imageio-ffmpeg`; .gif works without")
    return ending


def write_pictures(
    dest: str | Path, images: torch.Tensor, labels: Sequence[str], columns: Sequence[str], fps: int = 10
) -> None:
    """Writes images [rows, steps, C, H, W] as a labelled PNG, or as GIF or MP4 whose frames are the steps, to and fro.

    ValueError for another ending of `dest`, and for MP4 without imageio-ffmpeg.
    """
    dest, ending = Path(dest), check_ending(dest)
    dest.parent.mkdir(parents=True, exist_ok=True)
    if ending == ".png":
        save_picture(draw_traversal(images, labels, columns), dest)
        return
    across, scale = int(np.ceil(np.sqrt(len(images)))), enlargement(images.shape[-1], 128)
    frames = [_frame(images[:, step], labels, across, scale) for step in range(images.shape[1])]
    frames += frames[-2:0:-1]
    if ending == ".gif":
        save_picture(frames[0], dest, save_all=True, append_images=frames[1:], duration=1000 // fps, loop=0)
        return
    save_video(str(dest), (np.asarray(frame) for frame in itertools.chain(frames, frames[:1])), fps)


def _frame(images, labels, across, scale):
    """Images [N, C, H, W] in a grid, each under its label; sides are even, as videos need."""
    pictures = [picture.convert("RGB") for picture in to_pictures(images)]
    width, height = (side * scale for side in pictures[0].size)
    wrapped = ["\n".join(line for text in label.split("\n") for line in wrap(text, width // 6)) for label in labels]
    top = 2 + 12 * max(text.count("\n") + 1 for text in wrapped)  # 6×12 pixels a letter
    across, rows = min(across, len(pictures)), -(-len(pictures) // across)
    sides = (across * width, rows * (height + top))
    frame = Image.new("RGB", tuple(side + side % 2 for side in sides), "white")
    draw = ImageDraw.Draw(frame)
    for i, (picture, label) in enumerate(zip(pictures, wrapped)):
        x, y = i % across * width, i // across * (height + top)
        draw.multiline_text((x + width / 2, y + top / 2), label, fill="black", anchor="mm", align="center", spacing=1)
        frame.paste(picture.resize((width, height), Image.Resampling.NEAREST), (x, y + top))
    return frame


def draw_change(before: torch.Tensor, after: torch.Tensor) -> Image.Image:
    """A PIL picture: before, after, and where they differ (brighter: more), side by side. images [C, H, W]"""
    difference = (after - before).abs().mean(dim=0, keepdim=True)
    difference = (difference / difference.max().clamp(min=1e-6) * 2 - 1).expand_as(before)
    panels = to_pictures(torch.stack([before, after, difference]))
    width, height = panels[0].size
    picture = Image.new("RGB", (3 * width + 8, height + 14), "white")
    draw = ImageDraw.Draw(picture)
    for i, (panel, title) in enumerate(zip(panels, ("before", "after", "change"))):
        picture.paste(panel, (i * (width + 4), 14))
        draw.text((i * (width + 4) + width / 2, 7), title, fill="black", anchor="mm")
    return picture


_LOSSLESS = 256  # sides up to this are sent without loss


def webp(image: torch.Tensor) -> bytes:
    """An image [C, H, W] in [−1, 1] as a WebP file: without loss where it is small"""
    (picture,) = to_pictures(image[None])
    lossless = image.shape[-1] <= _LOSSLESS
    return encoded(picture, "WEBP", lossless=lossless, quality=20 if lossless else 90, method=0)


def draw_curves(picture: Image.Image, values: torch.Tensor, title: str = "distance over steps") -> Image.Image:
    """A PIL picture with curves beneath it, on a logarithmic scale: of values [steps, curves], all above 0; their
    median is drawn black."""
    left, height, width = 56, 140, max(picture.width, 320)
    whole = Image.new("RGB", (width, picture.height + height + 40), "white")
    whole.paste(picture, (0, 0))
    draw, top = ImageDraw.Draw(whole), picture.height + 24
    logs = values.double().clamp(min=1e-12).log10()
    low, high = float(logs.min()), max(float(logs.max()), float(logs.min()) + 1e-3)
    x = np.linspace(left, width - 12, len(logs))
    place = lambda column: list(zip(x, top + height * (high - column.numpy()) / (high - low)))
    draw.text((left, top - 12), title, fill="black", anchor="lm")
    for value in (high, low):
        draw.text(
            (left - 6, top + height * (high - value) / (high - low)), f"{10**value:.2g}", fill="black", anchor="rm"
        )
    draw.text((width - 12, top + height + 8), f"{len(logs)} steps", fill="black", anchor="rm")
    for column in logs.t():
        draw.line(place(column), fill="#b8c4d0")
    draw.line(place(logs.median(dim=1).values), fill="black", width=2)
    return whole


def encoded(picture: Image.Image, kind: str, **options: Any) -> bytes:
    """A PIL picture as a file of that kind ("PNG", "WEBP"); options: of Pillow's writer."""
    buffer = io.BytesIO()
    picture.save(buffer, kind, **options)
    return buffer.getvalue()


def data_uri(content: bytes, kind: str = "png") -> str:
    """A picture's file as the address of an image in a page"""
    return f"data:image/{kind};base64,{base64.b64encode(content).decode()}"
