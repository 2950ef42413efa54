"""The Edit tab: paint classes or colours on the image, and the latents follow."""

import gradio as gr
import numpy as np
import torch

from segan_ext.images import enlargement
from segan_ext.semantics.evaluation import draw_labels
from segan_ext.semantics.extractors import IGNORED
from segan_ext.semantics.painting import Strokes, edit
from segan_ext.web.engine import as_w
from segan_ext.web.session import Session
from segan_ext.web.tabs.common import LIVE, LONG, refused, stopper
from segan_ext.web.widgets import canvas_value, figures, paint_canvas, picture_of, strokes_of

_NONE = "No extractor knows this network's classes: train one on the Train tab, or start the page with --extractor."


class EditTab:
    """Builds its components in the open `gr.Tab` and binds them. tab: that tab. session: the `gr.State`."""

    def __init__(self, engine, session, tab):
        self.engine, self.session = engine, session
        self.note = gr.Markdown(elem_id="edit-note")
        self.canvas = paint_canvas("edit-canvas")
        with gr.Row():
            self.steps = gr.Slider(5, 200, 50, step=5, label="Steps", elem_id="edit-steps")
            self.reach = gr.Slider(1, 50, 12, step=1, label="Reach around strokes, % of the side", elem_id="edit-reach")
            self.apply = gr.Button("Apply", variant="primary", elem_id="apply")
            self.cancel = gr.Button("Cancel", elem_id="edit-cancel")
            self.use = gr.Button("Go on from here", elem_id="use")
        self.result = gr.HTML(elem_id="edit-result")
        tab.select(self.enter, [session], [self.canvas, self.note])
        self.canvas.input(self.painted, [session], self.note, **LIVE)
        self.apply.click(self.run, [session, self.steps, self.reach], [self.result, self.note], **LONG)
        self.cancel.click(stopper("edit"), [session], queue=False)

    def enter(self, session: Session) -> tuple:
        """The image of the page with its sliders, and its label map"""
        opened = self.engine.network(session.view.network)
        extractor = session.extractor(opened)
        session.strokes = None
        if extractor is None:
            session.canvas, value = canvas_value(self.engine.render(session.view, None, session.named), [])
            return value, _NONE
        image, labels = self.engine.labels(session.view, extractor, session.named)
        session.canvas, value = canvas_value(image, extractor.classes, labels)
        return value, "Paint on the image or on its labels, then apply. Sliders stay as they are."

    def painted(self, session: Session, event: gr.EventData) -> str | dict | None:
        """Keeps what was painted, if it was painted on the image that is shown"""
        if event._data.get("id") != session.canvas:
            return gr.skip()
        opened = self.engine.network(session.view.network)
        extractor = session.extractor(opened)
        try:
            classes = len(extractor.classes) if extractor is not None else 0
            session.strokes = strokes_of(event._data, opened.G.img_resolution, classes)
        except (TypeError, ValueError) as error:
            raise refused(error) from error
        count = int((session.strokes[0] != IGNORED).sum())
        return f"{count} pixels have a class stroke, {_coloured(session.strokes[1])} a colour stroke."

    def run(self, session: Session, steps: int, reach: int, progress: gr.Progress = gr.Progress()) -> tuple:
        """Follows the strokes"""
        view, opened = session.view, self.engine.network(session.view.network)
        extractor = session.extractor(opened)
        if extractor is None or session.strokes is None:
            raise gr.Error(_NONE if extractor is None else "paint something first", print_exception=False)
        session.stopped.discard("edit")

        def on_step(step, count):
            progress((step, count), desc="Editing")
            self.engine.breathe()
            return "edit" not in session.stopped

        ws = self.engine.ws(view)
        try:
            strokes = _as_strokes(*session.strokes, opened.G.img_channels, ws.device)
            offsets = self.engine.offsets(view, session.named)
            with self.engine.long_work(view.network), opened.G.edited(offsets=offsets):
                done = edit(opened.G, extractor, ws, strokes, int(steps), reach=reach / 100, on_step=on_step)
        except ValueError as error:
            raise refused(error) from error
        session.edited[view.network] = as_w(done.ws[0])
        scale = enlargement(done.after.shape[-1], 256)
        pictures = [("before", picture_of(done.before[0])), ("after", picture_of(done.after[0]))]
        pictures += [("labels after", draw_labels(done.labels[0], scale))]
        inside = (
            ""
            if done.agreement.isnan().any()
            else f"{100 * done.agreement.item():.0f} % of the strokes have their class. "
        )
        return figures(*pictures), f"{inside}Mean change outside the strokes: {done.off_region.item():.2f} of 255."


def _coloured(colours):
    return 0 if colours is None else int((colours[:, :, 3] > 0).sum())


def _as_strokes(labels, colours, channels, device):
    """`Strokes` of one image"""
    if colours is None:
        return Strokes(labels[None].to(device))
    pixels = torch.from_numpy(colours.astype(np.float32)).movedim(2, 0)[None].to(device)
    shown = pixels[:, :3] if channels == 3 else pixels[:, :3].mean(dim=1, keepdim=True)
    return Strokes(labels[None].to(device), shown / 127.5 - 1, (pixels[:, 3:] > 0).float())
