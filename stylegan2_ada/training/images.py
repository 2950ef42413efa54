"""The door from tensors to pictures: nothing else of the host turns the one into the other."""

from collections.abc import Iterable

import numpy as np
import PIL.Image
import torch


def to_uint8(images: torch.Tensor) -> torch.Tensor:
    """Images in [−1, 1], of any shape, → uint8; 0 becomes 128, as published."""
    return (images * 127.5 + 128).clamp(0, 255).to(torch.uint8)


def to_pictures(images: torch.Tensor) -> list[PIL.Image.Image]:
    """Images [N, C, H, W] in [−1, 1] → list of N PIL images"""
    pixels = to_uint8(images.cpu()).movedim(1, -1).numpy()
    return [PIL.Image.fromarray(p[:, :, 0] if p.shape[2] == 1 else p) for p in pixels]


def save_video(path: str, frames: Iterable[np.ndarray], fps: float = 10) -> None:
    """Writes uint8 frames [H, W, 3] as MP4. ImportError without imageio-ffmpeg."""
    import imageio_ffmpeg

    frames = iter(frames)
    first = next(frames)
    height, width = first.shape[:2]
    writer = imageio_ffmpeg.write_frames(path, (width, height), fps=fps, codec="libx264", macro_block_size=2, quality=8)
    writer.send(None)
    writer.send(np.ascontiguousarray(first))
    for frame in frames:
        writer.send(np.ascontiguousarray(frame))
    writer.close()
