"""The Explore tab: seeds, truncation, noise, mixing, sliders for dimensions, undo, files, strips, projection."""

import base64
import dataclasses
import html
import io
import math
import random
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import gradio as gr
import numpy as np
import torch

from metrics.perceptual import perceptual_features
from runs.numbers import parse_numbers
from segan_ext.control.address import Address, Name, parse_address
from segan_ext.control.render import one_step
from segan_ext.images import draw_traversal, write_pictures
from segan_ext.latents import labels_of
from segan_ext.web.session import SLOTS, Session, checked_noise, checked_seed, loaded, saved
from segan_ext.web.widgets import downloads, figures, picture_of
from training.latents import label_table
from training.projection import open_target, project

LIVE = dict(trigger_mode="always_last", show_progress="hidden", concurrency_limit=None)  # for what answers at once
LONG = dict(concurrency_id="long", concurrency_limit=8)
_REACH = 6.0  # σ at the ends of a slider
_MOST_SEEDS = 32  # that one edit is shown on


def stopper(work: str) -> Callable[[Session], None]:
    """A handler that ends this browser's long work of that name after its current step"""
    return lambda session: session.stopped.add(work)


def refused(error: Exception | str) -> gr.Error:
    """A message in the browser"""
    return gr.Error(str(error), print_exception=False)


class ExploreTab:
    """Builds its components in the open `gr.Tab` and binds them. session: the `gr.State`."""

    def __init__(self, engine, session):
        self.engine, self.session = engine, session
        with gr.Row():
            with gr.Column(scale=2, min_width=280):
                self._source()
            with gr.Column(scale=5, min_width=280):
                self.pictures = gr.HTML(elem_id="pictures", label="Before and after")
                self.status = gr.Markdown(elem_id="status")
                self._history()
                self._sliders()
        self._tools()
        self.controls = [self.network, self.seed, self.psi, self.cutoff, self.noise, self.class_idx]
        self.controls += [self.mix_seed, self.mix_layers, self.inside, self.layer, *self.sliders, self.dimension]
        self.shown = [self.pictures, self.status]
        self._bind()

    # Components

    def _source(self):
        self.network = gr.Dropdown(list(self.engine.paths), label="Network", elem_id="network")
        with gr.Row():
            self.seed = gr.Number(0, precision=0, minimum=0, label="Seed", elem_id="seed", min_width=90)
            self.random = gr.Button("Random seed", min_width=90, elem_id="random")
        self.psi = gr.Slider(-1, 2, 0.7, step=0.05, label="Truncation ψ", elem_id="psi")
        self.cutoff = gr.Slider(0, 18, 18, step=1, label="Truncated layers", elem_id="cutoff")
        self.noise = gr.Textbox("const", label="Noise: const, none, or a seed", elem_id="noise", max_lines=1)
        self.class_idx = gr.Number(0, precision=0, minimum=0, label="Class", visible=False, elem_id="class")
        with gr.Accordion("Mix styles", open=False):
            self.mix_seed = gr.Number(1, precision=0, minimum=0, label="Seed to mix in", elem_id="mix-seed")
            self.mix_layers = gr.CheckboxGroup([], label="Layers that take its style", elem_id="mix-layers")
        with gr.Accordion("Project a picture", open=False):
            self.upload = gr.Image(type="filepath", sources=["upload"], label="Picture", elem_id="upload", height=160)
            self.steps = gr.Slider(10, 1000, 200, step=10, label="Steps", elem_id="project-steps")
            with gr.Row():
                self.project = gr.Button("Project", elem_id="project")
                self.cancel = gr.Button("Cancel", elem_id="project-cancel")

    def _history(self):
        with gr.Row():
            self.undo = gr.Button("Undo", min_width=70, elem_id="undo")
            self.redo = gr.Button("Redo", min_width=70, elem_id="redo")
            self.reset = gr.Button("Reset sliders", min_width=70, elem_id="reset")
            self.save = gr.Button("Save edit", min_width=70, elem_id="save")
            self.save_image = gr.Button("Save image", min_width=70, elem_id="save-image")
            self.load = gr.UploadButton("Load edit", file_types=[".json"], min_width=70, elem_id="load")

    def _sliders(self):
        with gr.Row():
            self.search = gr.Textbox(label="Search: L3.N1.D5, hair …", elem_id="search", max_lines=1)
            self.layer = gr.Dropdown(["all"], value="all", label="Layer", elem_id="layer")
        self.inside = gr.CheckboxGroup([], label="Change only inside", visible=False, elem_id="inside")
        with gr.Group(elem_classes="sliders"):
            make = lambda i: gr.Slider(-_REACH, _REACH, 0, step=0.1, label="–", visible=False, elem_id=f"slot{i}")
            self.sliders = [make(i) for i in range(SLOTS)]

    def _tools(self):
        with gr.Accordion("Strip, video, several seeds", open=False):
            with gr.Row():
                self.dimension = gr.Dropdown([], label="Dimension", elem_id="dimension")
                self.strip = gr.Button("Strip", elem_id="strip")
                self.video = gr.Button("Video", elem_id="video")
                self.seeds = gr.Textbox("0-5", label="Seeds", elem_id="seeds", max_lines=1)
                self.batch = gr.Button("Same edit on these seeds", elem_id="batch")
                self.stop = gr.Button("Cancel", elem_id="batch-cancel")
            self.made = gr.HTML(elem_id="made")

    # Events

    def _bind(self):
        fields = [
            ("seed", self.seed, checked_seed),
            ("psi", self.psi, float),
            ("mix_seed", self.mix_seed, checked_seed),
        ]
        fields += [
            ("noise", self.noise, checked_noise),
            ("mix_layers", self.mix_layers, tuple),
            ("inside", self.inside, tuple),
        ]
        fields += [("cutoff", self.cutoff, int), ("class_idx", self.class_idx, int)]
        for name, component, kind in fields:
            events = [component.submit, component.blur] if isinstance(component, gr.Textbox) else [component.input]
            gr.on(events, self._setter(name, kind), [self.session, component], self.shown, **LIVE)
        for i, slider in enumerate(self.sliders):
            slider.input(self._mover(i), [self.session, slider], self.shown, **LIVE)
        everything = [*self.controls, *self.shown]
        self.network.input(self.choose_network, [self.session, self.network], everything)
        found = [*self.sliders, self.dimension]
        gr.on([self.search.change, self.layer.input], self.find, [self.session, self.search, self.layer], found, **LIVE)
        for button, action in ((self.random, _random), (self.undo, _undo), (self.redo, _redo), (self.reset, _reset)):
            button.click(self._acting(action), [self.session], everything, **LIVE)
        downloads(self.save, self.write, [self.session])
        downloads(self.save_image, self.write_image, [self.session])
        self.load.upload(self.read, [self.session, self.load], everything)
        self.strip.click(self.make_strip, [self.session, self.dimension], self.made, **LONG)
        self.video.click(self.make_video, [self.session, self.dimension], self.made, **LONG)
        self.batch.click(self.make_batch, [self.session, self.seeds], self.made, **LONG)
        self.project.click(self.run_projection, [self.session, self.upload, self.steps], everything, **LONG)
        self.cancel.click(stopper("project"), [self.session], queue=False)
        self.stop.click(stopper("batch"), [self.session], queue=False)

    def _setter(self, name, kind):
        def set_field(session, value):
            try:
                session.change(name, **{name: kind(value), **({"w": None} if name == "seed" else {})})
            except (TypeError, ValueError) as error:
                raise refused(error) from error
            return self.show(session)

        return set_field

    def _mover(self, slot):
        def move(session, amount):
            address = session.slots[slot]
            session.replace(session.view.with_edit(str(address), amount), str(address))
            return self.show(session)

        return move

    def _acting(self, action):
        def act(session):
            action(session)
            return self.all(session)

        return act

    # What is shown

    def show(self, session: Session) -> tuple:
        """The pictures and the line below them"""
        start, view = time.perf_counter(), session.view
        try:
            extractor = session.extractor(self.engine.network(view.network))
            before = self.engine.before(view)
            after = self.engine.render(view, extractor, session.named) if view.edits else before
        except (OSError, ValueError) as error:
            raise refused(error) from error
        pairs = [("before", picture_of(before))] if view.edits else []
        change = (after - before).abs().mean().item() * 127.5
        edits = ", ".join(f"{address} {amount:+.1f}σ" for address, amount in view.edits)
        said = (
            f"{1000 * (time.perf_counter() - start):.0f} ms · mean change {change:.1f} of 255 · {edits or 'no edits'}"
        )
        return figures(*pairs, ("after" if view.edits else "image", picture_of(after))), said

    def all(self, session: Session) -> tuple:
        """New values of all controls, in the order of `controls`, and what is shown"""
        view, opened = session.view, self.engine.network(session.view.network)
        count = opened.G.num_ws
        layers = ["all", *(f"L{L}.N{N}" for L, N in opened.subspaces)]
        extractor = session.extractor(opened)
        classes = extractor.classes if extractor is not None else []
        if session.slots_of != view.network:
            session.slots, session.slots_of = opened.search(count=SLOTS, named=session.named), view.network
        controls = [view.network, view.seed, view.psi]
        controls += [gr.update(maximum=count, value=count if view.cutoff is None else view.cutoff), view.noise]
        classes_of_G = len(label_table(opened.G))
        controls += [gr.update(value=view.class_idx, maximum=max(classes_of_G - 1, 0), visible=classes_of_G > 0)]
        choices = [(str(i), i) for i in range(count)]
        controls += [view.mix_seed, gr.update(choices=choices, value=list(view.mix_layers))]
        controls += [gr.update(choices=list(classes), value=list(view.inside), visible=bool(classes))]
        controls += [gr.update(choices=layers)]
        return (*controls, *self._slots(session), *self.show(session))

    def _slots(self, session):
        """Updates of the sliders, and of the list of dimensions"""
        opened = self.engine.network(session.view.network)
        updates = [self._slot(session, opened, address) for address in session.slots]
        updates += [gr.update(visible=False)] * (SLOTS - len(updates))
        names = [(opened.label(a, session.named), str(a)) for a in session.slots]
        return [*updates, gr.update(choices=names, value=names[0][1] if names else None)]

    @staticmethod
    def _slot(session, opened, address):
        low, high = -_REACH, _REACH
        if isinstance(address, Name):  # not further than it is selective
            each = (opened.named | session.named)[address]
            low, high = math.floor(10 * each.low) / 10, math.ceil(10 * each.high) / 10
        label, value = opened.label(address, session.named), min(max(session.amount(address), low), high)
        return gr.update(label=label, value=value, minimum=low, maximum=high, visible=True)

    # Handlers

    def choose_network(self, session: Session, network: str) -> tuple:
        """Another network, with nothing edited"""
        try:
            self.engine.network(network)
        except (OSError, ValueError) as error:
            raise refused(error) from error
        kept = dict(seed=session.view.seed, psi=session.view.psi, noise=session.view.noise)
        session.replace(dataclasses.replace(type(session.view)(network), **kept))
        return self.all(session)

    def find(self, session: Session, text: str, layer: str) -> list:
        """Sliders of the dimensions that are searched for"""
        chosen = None if layer == "all" else Address.parse(f"{layer}.D0").layer
        session.slots = self.engine.network(session.view.network).search(text or "", chosen, SLOTS, session.named)
        return self._slots(session)

    def write(self, session: Session) -> tuple[str, bytes]:
        """Name and content of the file"""
        return "edit.json", saved(session, self.engine).encode()

    def write_image(self, session: Session) -> tuple[str, bytes]:
        """Name and content of the picture that is shown"""
        view, content = session.view, io.BytesIO()
        extractor = session.extractor(self.engine.network(view.network))
        picture_of(self.engine.render(view, extractor, session.named)).save(content, "PNG")
        return f"seed{view.seed:04d}.png", content.getvalue()

    def read(self, session: Session, path: str) -> tuple:
        """The view of a file"""
        try:
            loaded(path, session, self.engine)
        except (OSError, ValueError) as error:
            raise refused(error) from error
        return self.all(session)

    def _walk(self, session, address):
        """(images [1, 9, C, H, W], its label, the steps' labels): one dimension moved, the rest as it is shown"""
        if not address:
            raise gr.Error("this network has no dimensions to move", print_exception=False)
        view = session.view
        with self.engine.work(view.network) as opened:
            chosen = parse_address(address).check(opened.G, session.named)
            low, high = (-4.0, 4.0)
            if isinstance(chosen, Name):
                each = (opened.named | session.named)[chosen]
                low, high = each.low, each.high
            steps = torch.linspace(low, high, 9)
            others = tuple((each, amount) for each, amount in view.edits if each != address)
            offsets = self.engine.offsets(dataclasses.replace(view, edits=others), session.named)
            for layer, step in one_step(opened.G, chosen, opened.sigmas, session.named).items():
                offsets[layer] = offsets.get(layer, 0) + steps[:, None].to(step) * step
            with opened.G.edited(offsets=offsets):
                noise_mode = self.engine.noise_mode(view)
                images = opened.G.synthesis(self.engine.ws(view).repeat(9, 1, 1), noise_mode=noise_mode)
        columns = [f"{step:+.1f}" if step else "0" for step in steps.tolist()]
        return images[None], [opened.label(chosen, session.named)], columns

    def make_strip(self, session: Session, address: str) -> str:
        """A row of pictures from −4σ to +4σ, or over the range of a named direction"""
        images, label, columns = self._walk(session, address)
        picture = draw_traversal(images, label, columns, scale=max(128 // images.shape[-1], 1))
        return figures((f"{label[0]} from {columns[0]} to {columns[-1]}", picture), kind="wide")

    def make_video(self, session: Session, address: str) -> str:
        """The same as a moving picture"""
        images, label, columns = self._walk(session, address)
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder) / "walk.gif"
            write_pictures(path, images, label, columns, fps=6)
            content = base64.b64encode(path.read_bytes()).decode()
        link, name = f"data:image/gif;base64,{content}", html.escape(label[0])
        image = f'<img alt="{name} moving" src="{link}">'
        return f'<figure class="pictures"><a download="walk.gif" href="{link}">{image}</a></figure>'

    def make_batch(self, session: Session, seeds: str, progress: gr.Progress = gr.Progress()) -> str:
        """Before and after of several seeds"""
        try:
            seeds = parse_numbers(seeds or "", most=_MOST_SEEDS)
        except ValueError as error:
            raise refused(f"Seeds: {error}") from error
        pairs, extractor = [], session.extractor(self.engine.network(session.view.network))
        session.stopped.discard("batch")
        for seed in progress.tqdm(seeds):
            if "batch" in session.stopped:
                break
            view = dataclasses.replace(session.view, seed=seed, w=None)
            pairs.append((f"seed {seed}", picture_of(self.engine.before(view))))
            pairs.append(("edited", picture_of(self.engine.render(view, extractor, session.named))))
        return figures(*pairs)

    def run_projection(self, session: Session, path: str, steps: int, progress: gr.Progress = gr.Progress()) -> tuple:
        """The w whose image is nearest to an uploaded picture becomes the view's"""
        if not path:
            raise gr.Error("upload a picture first", print_exception=False)
        opened = self.engine.network(session.view.network)
        try:
            target = open_target(path, opened.G)
        except (OSError, ValueError) as error:
            raise refused(error) from error
        session.stopped.discard("project")
        device, label = torch.device(self.engine.device), labels_of(opened.G, 1, session.view.class_idx)

        def on_step(step, count):
            progress((step, count), desc="Projecting")
            self.engine.breathe()
            return "project" not in session.stopped

        features = perceptual_features("pixel-pyramid", device)
        with self.engine.long_work(session.view.network) as opened:
            options = dict(features=features, label=label, num_steps=int(steps), device=device, on_step=on_step)
            found = project(opened.G, target, **options)
        session.change(None, w=found[-1].cpu().numpy().astype(np.float32).tobytes(), mix_layers=())
        return self.all(session)


def _random(session):
    session.change(None, seed=random.randrange(2**31), w=None)


def _undo(session):
    session.undo()


def _redo(session):
    session.redo()


def _reset(session):
    session.change(None, edits=())
