"""What goes to the browser and comes back: images, strokes, downloads; all inside the page, without files."""

import base64
import html
import json
import uuid
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import gradio as gr
import numpy as np
import PIL.Image
import torch

from segan_ext.images import data_uri, encoded, to_pictures
from segan_ext.semantics.evaluation import colour_of
from segan_ext.semantics.extractors import IGNORED

_STATIC = Path(__file__).parent / "static"


def _uri(picture):
    return data_uri(encoded(picture, "PNG", compress_level=1))


def picture_of(image: torch.Tensor) -> PIL.Image.Image:
    """[C, H, W] in [−1, 1] → a PIL picture"""
    return to_pictures(image[None])[0]


def figures(*pairs: tuple[str, PIL.Image.Image], kind: str = "pictures") -> str:
    """HTML of (caption, PIL picture) side by side"""
    each = (
        f'<figure><img alt="{html.escape(c)}" src="{_uri(p)}"><figcaption>{html.escape(c)}</figcaption></figure>'
        for c, p in pairs
    )
    return f'<div class="{kind}">{"".join(each)}</div>'


def paint_canvas(elem_id: str) -> gr.HTML:
    """A component to paint on, whose `input` event carries the strokes (`strokes_of`)"""
    code = (_STATIC / "paint.js").read_text("utf-8")
    return gr.HTML(html_template='<div class="paint"></div>', js_on_load=code, elem_id=elem_id)


def canvas_value(
    image: torch.Tensor,
    classes: Iterable[str],
    labels: torch.Tensor | None = None,
    strokes: torch.Tensor | None = None,
    colours: bool = True,
) -> tuple[str, str]:
    """(id, value) of what a canvas shows; its events carry the id.

    image [C, H, W]; labels, strokes [H, W] or None; colours: whether colours can be painted.
    """
    as_text = lambda each: base64.b64encode(each.cpu().to(torch.uint8).numpy().tobytes()).decode()
    value = dict(
        id=uuid.uuid4().hex,
        size=image.shape[-1],
        image=_uri(picture_of(image).convert("RGB")),
    )
    value["colours"] = colours
    value["classes"] = [dict(name=name, colour=colour_of(i)) for i, name in enumerate(classes)]
    value["labels"] = None if labels is None else as_text(labels)
    value["strokes"] = None if strokes is None else as_text(strokes)
    return value["id"], json.dumps(value)


def strokes_of(data: dict[str, Any], size: int, classes: int) -> tuple[torch.Tensor, np.ndarray | None]:
    """(labels int64 [size, size], RGBA uint8 [size, size, 4] or None) of a canvas's event.

    ValueError for anything that does not fit: it comes from outside.
    """
    labels = _bytes(data.get("labels", ""), size * size).reshape(size, size)
    if ((labels >= classes) & (labels != IGNORED)).any():
        raise ValueError("the strokes have a class that there is not")
    colours = data.get("colours") or None
    colours = None if colours is None else _bytes(colours, 4 * size * size).reshape(size, size, 4)
    return torch.from_numpy(labels.astype(np.int64)), colours


def downloads(button: gr.Button, handler: Callable[..., tuple[str, bytes]], inputs: list) -> None:
    """Lets a click on `button` save what `handler(*inputs)` returns, (name, bytes), in the browser."""
    content = gr.Textbox(visible="hidden")
    as_text = lambda *args: "\n".join(_named(*handler(*args)))
    button.click(as_text, inputs, content).success(None, content, None, js=_DOWNLOAD)


_DOWNLOAD = """text => {
  const [name, content] = text.split("\\n"), link = document.createElement("a");
  link.href = "data:application/octet-stream;base64," + content;
  link.download = name;
  link.click();
}"""


def _named(name, content):
    return name, base64.b64encode(content).decode()


def _bytes(text, count):
    if not isinstance(text, str) or len(text) > 2 * count + 8:
        raise ValueError("the strokes do not fit the image")
    content = np.frombuffer(base64.b64decode(text, validate=True), np.uint8)
    if len(content) != count:
        raise ValueError("the strokes do not fit the image; reload the page")
    return content
