"""The door from tensors to pictures: nothing else of the host turns the one into the other."""

import io
import os
import tempfile
from collections.abc import Iterable
from typing import Any

import numpy as np
import PIL.Image
import torch

from snapshots.atomic import write_atomically


def to_uint8(images: torch.Tensor) -> torch.Tensor:
    """Images in [−1, 1], of any shape, → uint8; 0 becomes 128, as published."""
    return (images * 127.5 + 128).clamp(0, 255).to(torch.uint8)


def to_pictures(images: torch.Tensor) -> list[PIL.Image.Image]:
    """Images [N, C, H, W] in [−1, 1] → list of N PIL images"""
    pixels = to_uint8(images.cpu()).movedim(1, -1).numpy()
    return [PIL.Image.fromarray(p[:, :, 0] if p.shape[2] == 1 else p) for p in pixels]


def save_picture(picture: PIL.Image.Image, path: str | os.PathLike, **options: Any) -> None:
    """Writes a picture, whole or not at all, as what the ending of `path` says. options: of Pillow's writer.

    ValueError for an ending that Pillow does not know, OSError if the file cannot be written.
    """
    ending = os.path.splitext(path)[1].lower()
    kind = PIL.Image.registered_extensions().get(ending)
    if kind not in PIL.Image.SAVE:
        raise ValueError(f"{path}: pictures are not written as {ending or 'files without an ending'}; .png is one way")
    content = io.BytesIO()  # Pillow would write to a file by itself, and say less about what went wrong
    picture.save(content, format=kind, **options)
    write_atomically(path, lambda file: file.write(content.getbuffer()))


def save_video(path: str | os.PathLike, frames: Iterable[np.ndarray], fps: float = 10) -> None:
    """Writes uint8 frames [H, W, 3] as MP4, whole or not at all. ImportError without imageio-ffmpeg, else OSError."""
    import imageio_ffmpeg

    frames = iter(frames)
    first = next(frames)
    height, width = first.shape[:2]
    with tempfile.TemporaryDirectory(dir=os.path.dirname(os.path.abspath(path)), prefix=".video-") as folder:
        made, count = os.path.join(folder, "video.mp4"), 1
        writer = imageio_ffmpeg.write_frames(
            made, (width, height), fps=fps, codec="libx264", macro_block_size=2, quality=8
        )
        try:
            writer.send(None)
            writer.send(np.ascontiguousarray(first))
            for frame in frames:
                writer.send(np.ascontiguousarray(frame))
                count += 1
            writer.close()
            complete = imageio_ffmpeg.count_frames_and_secs(made)[0] == count
        except (OSError, RuntimeError):  # either quotes ffmpeg, over many lines
            complete = False
        if not complete:
            raise OSError(f"ffmpeg could not write all of {path}; is the disk full?")
        os.replace(made, path)
