"""Projection on the page: lines of progress, then the view whose image is nearest to a picture."""

import queue
import threading
from collections.abc import Iterator
from typing import Any

import torch

from metrics.perceptual import perceptual_features
from segan_ext.control.inversion import Reader, bounds_of
from segan_ext.images import averaged_down, data_uri, webp
from segan_ext.latents import labels_of
from segan_ext.web.engine import Engine, View, as_w
from segan_ext.web.session import Projection, as_json
from training.projection import project_many, psnr

_SHOWN = 192  # pixels of a picture's side at most
_READERS = 4  # classes of a network whose readers are kept


def project_lines(
    engine: Engine,
    network: str,
    target: torch.Tensor,
    space: str,
    steps: int,
    class_idx: int,
    state: Projection,
) -> Iterator[dict[str, Any]]:
    """Yields {"step", "steps", "what"}, and at last {"view", "difference", "psnr", "pictures"} or {"error"}.

    target: uint8 [C, H, W]. space: w or w+. state: once it is stopped, all ends with what there is; once it is
    replaced, with an error.
    "difference": mean of a pixel, of 255; "psnr": dB; "pictures": of the target, the image, and where they differ.
    """
    lines, gone = queue.Queue(), threading.Event()

    def goes_on(step, count, what):
        if step % 5 == 0:
            lines.put(dict(step=step, steps=count, what=what))
        engine.breathe()
        if state.replaced:
            raise ValueError("another picture is being projected by this browser now, so this projection has ended")
        return not state.stopped and not gone.is_set()

    def work():
        try:
            ws = _projected(engine, network, target, space, steps, class_idx, goes_on)
            lines.put(_result(engine, View(network, class_idx=class_idx, w=as_w(ws), source="picture"), target))
        except Exception as error:  # the browser waits for a last line
            lines.put(dict(error=str(error)))

    threading.Thread(target=work, daemon=True).start()
    try:
        while "step" in (line := lines.get()):
            yield line
        yield line
    finally:  # also where the browser has gone
        gone.set()


def _projected(engine, network, target, space, steps, class_idx, goes_on):
    """ws [num_ws, w_dim]"""

    def reading(parts):
        for i, part in enumerate(parts):
            if not goes_on(i, len(parts), "learning to read images"):
                raise InterruptedError("stopped before there was anything")
            yield part

    device = torch.device(engine.device)
    with engine.long_work(network) as opened:
        read = opened.readers.get(class_idx) or Reader(opened.G, class_idx=class_idx, count=reading)
        opened.readers = dict([*opened.readers.items()][1 - _READERS :]) | {class_idx: read}
        options = dict(space=space, start=read(target[None] / 127.5 - 1), bounds=bounds_of(opened.G), num_steps=steps)
        options |= dict(features=perceptual_features("pixel-pyramid", device), device=device)
        options |= dict(on_step=lambda step, *_: goes_on(step, steps, "projecting"))
        return project_many(opened.G, target[None], label=labels_of(opened.G, 1, class_idx), **options).ws[0]


def _result(engine, view, target):
    """The last line"""
    wanted, image = target.cpu() / 127.5 - 1, engine.render(view).cpu().clamp(-1, 1)
    differs = (image - wanted).abs()
    pictures = averaged_down(torch.stack([wanted, image, differs - 1]), _SHOWN)
    said = dict(difference=differs.mean().item() * 127.5, psnr=psnr(image[None], wanted[None]).item())
    return dict(view=as_json(view), pictures=[data_uri(webp(each), "webp") for each in pictures], **said)
