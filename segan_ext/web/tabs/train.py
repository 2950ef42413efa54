"""The Train tab: name classes, paint them on a few images, train an extractor, look at it, use it, keep it."""

import tempfile
from collections.abc import Iterator
from pathlib import Path

import gradio as gr
import torch

from segan_ext.latents import draw_ws
from segan_ext.layers import FeatureHooks
from segan_ext.semantics.annotations import AnnotationFiles, Annotations, annotations_zip, read_annotations_zip
from segan_ext.semantics.evaluation import draw_examples, draw_labels
from segan_ext.semantics.extractors import IGNORED, save_extractor
from segan_ext.semantics.few_shot import FewShot
from segan_ext.semantics.iou import Scores
from segan_ext.web.session import Annotating, Session
from segan_ext.web.tabs.common import LIVE, LONG, refused, stopper
from segan_ext.web.widgets import canvas_value, downloads, figures, paint_canvas, strokes_of

_PSI = 0.5  # of the images to annotate
_MOST_CLASSES = 64
_MOST_ANNOTATIONS = 64


class TrainTab:
    """Builds its components in the open `gr.Tab` and binds them. tab: that tab. session: the `gr.State`."""

    def __init__(self, engine, session, tab):
        self.engine, self.session = engine, session
        with gr.Row():
            self.name = gr.Textbox(label="Class name", elem_id="class-name", max_lines=1)
            self.chosen = gr.Dropdown([], label="Class", elem_id="class-chosen")
            self.add = gr.Button("Add class", elem_id="class-add", min_width=90)
            self.rename = gr.Button("Rename", elem_id="class-rename", min_width=90)
            self.delete = gr.Button("Delete", elem_id="class-delete", min_width=90)
        self.canvas = paint_canvas("train-canvas")
        with gr.Row():
            self.keep = gr.Button("Keep annotation, next image", variant="primary", elem_id="keep")
            self.next = gr.Button("Another image", elem_id="next")
            self.forget = gr.Button("Delete last annotation", elem_id="forget")
        self.kept = gr.HTML(elem_id="kept")
        self.note = gr.Markdown(elem_id="train-note")
        with gr.Row():
            self.epochs = gr.Slider(1, 50, 20, step=1, label="Epochs", elem_id="epochs")
            self.start = gr.Button("Start or continue", variant="primary", elem_id="train-start")
            self.pause = gr.Button("Pause", elem_id="train-pause")
            self.use = gr.Button("Use in Edit", elem_id="train-use")
            self.save = gr.Button("Save extractor", elem_id="train-save")
            self.save_work = gr.Button("Save annotations", elem_id="work-save")
            self.load_work = gr.UploadButton("Load annotations", file_types=[".zip"], elem_id="work-load")
        self.loss = gr.Markdown(elem_id="train-loss")
        self.check = gr.HTML(elem_id="train-check")
        self._bind(tab)

    def _bind(self, tab):
        canvas = [self.canvas, self.chosen, self.kept, self.note]
        tab.select(self.show, [self.session], canvas)
        self.canvas.input(self.painted, [self.session], None, **LIVE)
        self.add.click(self.add_class, [self.session, self.name], [*canvas, self.name])
        self.rename.click(self.rename_class, [self.session, self.chosen, self.name], [*canvas, self.name])
        self.delete.click(self.delete_class, [self.session, self.chosen], canvas)
        self.keep.click(self.keep_annotation, [self.session], canvas)
        self.next.click(self.next_image, [self.session], canvas)
        self.forget.click(self.forget_annotation, [self.session], canvas)
        self.start.click(self.train, [self.session, self.epochs], [self.loss, self.check], **LONG)
        self.pause.click(stopper("train"), [self.session], queue=False)
        self.use.click(self.use_in_edit, [self.session], self.note)
        downloads(self.save, self.write_extractor, [self.session])
        downloads(self.save_work, self.write_work, [self.session])
        self.load_work.upload(self.read_work, [self.session, self.load_work], canvas)

    # What is shown

    def show(self, session: Session) -> tuple:
        """Canvas, classes, annotations, and what is missing"""
        work = session.work
        if not work.labelled:
            work.class_idx = session.view.class_idx
        with self.engine.work(session.view.network) as opened:
            ws = draw_ws(opened.G, 1, work.seed, truncation_psi=_PSI, class_idx=work.class_idx)
            image = opened.G.synthesis(ws, noise_mode="const")[0]
        pictures = [(f"seed {seed}", draw_labels(labels, 2)) for seed, labels in work.labelled.items()]
        named = gr.update(choices=work.classes, value=work.classes[-1])
        work.canvas, value = canvas_value(image, work.classes, strokes=work.strokes, colours=False)
        return value, named, figures(*pictures, kind="thumbs"), self.missing(work)

    @staticmethod
    def missing(work: Annotating) -> str:
        """Which classes lack examples, in words"""
        counts = {
            name: sum(bool((labels == i).any()) for labels in work.labelled.values())
            for i, name in enumerate(work.classes)
        }
        lacking = [name for name, count in counts.items() if not count]
        said = f"{len(work.labelled)} annotations. "
        if lacking:
            said += f"No example yet of: {', '.join(lacking)}. "
            return said + "Pixels without paint teach nothing, so paint the background too."
        few = min(counts, key=counts.get)
        return said + f"Every class has an example; {few} has the fewest ({counts[few]})."

    # Classes and annotations

    def painted(self, session: Session, event: gr.EventData) -> str | dict | None:
        """Keeps what was painted, if it was painted on the image that is shown"""
        if event._data.get("id") != session.work.canvas:
            return
        size = self.engine.network(session.view.network).G.img_resolution
        try:
            session.work.strokes = strokes_of(event._data, size, len(session.work.classes))[0]
        except (TypeError, ValueError) as error:
            raise refused(error) from error

    def add_class(self, session: Session, name: str) -> tuple:
        """A class of its own"""
        session.work.classes.append(_checked(name, session.work.classes))
        session.work.training = None
        return (*self.show(session), "")

    def rename_class(self, session: Session, old: str, name: str) -> tuple:
        """Another name for a class"""
        classes = session.work.classes
        classes[classes.index(old)] = _checked(name, classes)
        session.work.training = None
        return (*self.show(session), "")

    def delete_class(self, session: Session, name: str) -> tuple:
        """A class goes, with what was painted of it"""
        work = session.work
        if len(work.classes) <= 2:
            raise gr.Error("two classes are needed at least", print_exception=False)
        gone = work.classes.index(name)
        work.classes.pop(gone)
        work.labelled = {seed: _without(labels, gone) for seed, labels in work.labelled.items()}
        work.strokes = None if work.strokes is None else _without(work.strokes, gone)
        work.training = None
        return self.show(session)

    def keep_annotation(self, session: Session) -> tuple:
        """What is painted becomes an example"""
        work = session.work
        if work.strokes is None or (work.strokes == IGNORED).all():
            raise gr.Error("paint something first", print_exception=False)
        if len(work.labelled) >= _MOST_ANNOTATIONS:
            raise gr.Error(f"{_MOST_ANNOTATIONS} annotations are the most that the page keeps", print_exception=False)
        work.labelled[work.seed] = work.strokes
        work.training = None
        return self.next_image(session)

    def next_image(self, session: Session) -> tuple:
        """An image that has no annotation"""
        work = session.work
        work.seed += 1
        while work.seed in work.labelled:
            work.seed += 1
        work.strokes = None
        return self.show(session)

    def forget_annotation(self, session: Session) -> tuple:
        """The last example goes; its image comes back to be painted again"""
        work = session.work
        if work.labelled:
            work.seed, work.strokes = work.labelled.popitem()
            work.training = None
        return self.show(session)

    # Training

    def train(self, session: Session, epochs: int) -> Iterator[tuple]:
        """Trains until the epochs are over or the user pauses; goes on where it was paused."""
        work = session.work
        if not work.labelled or len(torch.cat([x[x != IGNORED].unique() for x in work.labelled.values()]).unique()) < 2:
            raise gr.Error("annotate first: two classes at least, the background may be one", print_exception=False)
        session.stopped.discard("train")
        network = session.view.network
        if work.training is None:
            with self.engine.long_work(network) as opened:
                work.training, work.losses = FewShot(opened.G, self._annotations(opened.G, work)), []
        training = work.training
        for epoch in range(int(epochs)):
            with self.engine.long_work(network):
                work.losses.append(training.epoch(self.engine.breathe))
            session.extractors[network] = training.extractor
            stopped = "train" in session.stopped or work.training is not training  # other annotations by now
            last = epoch == int(epochs) - 1 or stopped
            said = self._progress(work.losses, "paused" if stopped else "done" if last else "training")
            yield said, self._validation(network, training, work.class_idx) if last or epoch % 5 == 0 else gr.skip()
            if last:
                break

    def _annotations(self, G, work):
        ws = torch.cat([draw_ws(G, 1, seed, truncation_psi=_PSI, class_idx=work.class_idx) for seed in work.labelled])
        return Annotations(ws, torch.stack(list(work.labelled.values())).to(ws.device), tuple(work.classes))

    @staticmethod
    def _progress(losses, state):
        bars = "▁▂▃▄▅▆▇█"
        top = max(losses) or 1
        curve = "".join(bars[min(int(8 * x / top), 7)] for x in losses[-60:])
        return f"**{state}**, epoch {len(losses)}, loss {losses[-1]:.3f} {curve}"

    def _validation(self, network, training, class_idx):
        """Predicted label maps of fresh images, and the mIoU on the annotations"""
        with self.engine.work(network) as opened:
            extractor, annotations = training.extractor, training.annotations
            scores = Scores(len(annotations.classes))
            taps = FeatureHooks(opened.G, extractor.layers)
            for ws, labels in zip(annotations.ws.split(8), annotations.labels.split(8)):
                found = extractor.labels(taps(ws, noise_mode="const")[1], labels.shape[-1])
                scores.add(found, labels, IGNORED)
            table = scores.table(annotations.classes)
            shown = dict(seeds=range(10**6, 10**6 + 6), truncation_psi=_PSI, class_idx=class_idx)
            picture = draw_examples(opened.G, {"labels": extractor}, **shown)
        said = f"mIoU on what was painted {100 * table.mean_iou:.0f} %, pixels right {100 * table.accuracy:.0f} %"
        return figures((said, picture), kind="wide")

    def use_in_edit(self, session: Session) -> str:
        """Says that Edit and the page have it; they take it from the session as soon as it has been trained"""
        if session.view.network not in session.extractors:
            raise gr.Error("train first", print_exception=False)
        return "The Edit tab paints with these classes now, and the page can keep changes inside them."

    # Files

    def write_extractor(self, session: Session) -> tuple[str, bytes]:
        """Name and content of the .safetensors"""
        if session.view.network not in session.extractors:
            raise gr.Error("train first", print_exception=False)
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder) / "extractor.safetensors"
            save_extractor(path, session.extractors[session.view.network], network=session.view.network)
            return path.name, path.read_bytes()

    def write_work(self, session: Session) -> tuple[str, bytes]:
        """A zip with what `semantics train --annotations` reads when it is unpacked"""
        work = session.work
        return "annotations.zip", annotations_zip(AnnotationFiles(work.classes, work.labelled, work.class_idx))

    def read_work(self, session: Session, path: str) -> tuple:
        """Classes and annotations of such a zip"""
        G = self.engine.network(session.view.network).G
        try:
            found = read_annotations_zip(path, G, _MOST_ANNOTATIONS)
            if not 2 <= len(found.classes) <= _MOST_CLASSES:
                raise ValueError(f"it has {len(found.classes)} classes, not 2 to {_MOST_CLASSES}")
        except (OSError, ValueError) as error:
            size = G.img_resolution
            raise refused(f"this is no archive of annotations for {size}×{size} pixels: {error}") from error
        work = session.work
        work.classes, work.labelled, work.class_idx = list(found.classes), found.labels, found.class_idx
        work.strokes = work.training = None
        return self.next_image(session)


def _checked(name, classes):
    """The name of a new class"""
    name = (name or "").strip()[:40]
    if not name or name in classes or len(classes) >= _MOST_CLASSES:
        raise gr.Error("write a name that no other class has", print_exception=False)
    return name


def _without(labels, gone):
    """Labels without a class; those after it move up"""
    labels = torch.where(labels == gone, IGNORED, labels)
    return torch.where((labels > gone) & (labels != IGNORED), labels - 1, labels)
