"""The Name tab: answers for a few images become a slider with a name, and what leaks from it is said."""

import json
from collections.abc import Iterator

import gradio as gr
import torch

from segan_ext.control.named import as_file, read_directions
from segan_ext.directions.asking import Questions
from segan_ext.directions.named import find_named, scores_of_probe
from segan_ext.directions.probe import Probe
from segan_ext.images import draw_traversal
from segan_ext.latents import ws_of_seeds
from segan_ext.metrics.labels import as_csv, labels_of_columns, read_labels, summary
from segan_ext.web.session import Session
from segan_ext.web.tabs.common import LIVE, LONG, refused, stopper
from segan_ext.web.widgets import downloads, figures, picture_of

_HANDFUL = 10  # answers after which the slider is made anew
_QUICK, _THOROUGH = 0, 60  # gradient steps after a handful of answers, and when asked for
_SHOWN = (0, 1, 2)  # seeds that a new slider is shown on


class NameTab:
    """Builds its components in the open `gr.Tab` and binds them. tab: that tab. session: the `gr.State`."""

    def __init__(self, engine, session, tab):
        self.engine, self.session = engine, session
        with gr.Row():
            self.name = gr.Textbox("glasses", label="What should the slider change?", elem_id="name", max_lines=1)
            self.low = gr.Textbox("no", label="One answer", elem_id="answer-low", max_lines=1, min_width=90)
            self.high = gr.Textbox("yes", label="The other", elem_id="answer-high", max_lines=1, min_width=90)
            kinds = ["two values", "a position between"]
            self.kind = gr.Radio(kinds, value=kinds[0], label="Answers are", elem_id="answer-kind")
        with gr.Row():
            with gr.Column(scale=2, min_width=240):
                self.question = gr.HTML(elem_id="question")
                with gr.Row():
                    self.first = gr.Button("no", elem_id="say-low", min_width=70, variant="primary")
                    self.second = gr.Button("yes", elem_id="say-high", min_width=70, variant="primary")
                self.position = gr.Slider(-1, 1, 0, step=0.05, label="–", visible=False, elem_id="position")
                self.say = gr.Button("That far", elem_id="say", visible=False, variant="primary")
                with gr.Row():
                    self.skip = gr.Button("Cannot tell", elem_id="skip", min_width=70)
                    self.back = gr.Button("Take back", elem_id="take-back", min_width=70)
            with gr.Column(scale=5, min_width=280):
                self.told = gr.Markdown(elem_id="told")
                self.made = gr.HTML(elem_id="slider-made")
                self.held = gr.CheckboxGroup([], label="Hold these (all that are named, if none)", elem_id="hold")
                with gr.Row():
                    self.refine = gr.Button("Make it purer (a minute)", elem_id="refine")
                    self.stop = gr.Button("Stop", elem_id="refine-stop", min_width=70)
                with gr.Row():
                    self.save = gr.Button("Save sliders", elem_id="sliders-save")
                    self.load = gr.UploadButton("Load sliders", file_types=[".json"], elem_id="sliders-load")
                    self.save_answers = gr.Button("Save answers", elem_id="answers-save")
                    self.load_answers = gr.UploadButton("Load answers", file_types=[".csv"], elem_id="answers-load")
        self._bind(tab)

    def _bind(self, tab):
        asked = [self.question, self.first, self.second, self.position, self.say, self.told, self.held]
        words = [self.session, self.name, self.low, self.high, self.kind]
        self.asked, self.words = asked, words
        tab.select(self.ask, words, asked)
        gr.on([self.name.submit, self.name.blur, self.kind.input], self.ask, words, asked, **LIVE)
        gr.on([self.low.blur, self.high.blur, self.low.submit, self.high.submit], self.ask, words, asked, **LIVE)
        everything = [*asked, self.made]
        options = dict(show_progress="hidden", concurrency_limit=None)
        self.first.click(self._answering(lambda low, high, _: low), [*words, self.position], everything, **options)
        self.second.click(self._answering(lambda low, high, _: high), [*words, self.position], everything, **options)
        self.say.click(self._answering(lambda low, high, x: f"{x:g}"), [*words, self.position], everything, **options)
        self.skip.click(self._answering(lambda low, high, _: None), [*words, self.position], everything, **options)
        self.back.click(self.take_back, words, asked, **options)
        self.held.input(self.hold, [self.session, self.held], None, **LIVE)
        self.refine.click(self.make, [self.session, self.name], [self.told, self.made], **LONG)
        self.stop.click(stopper("refine"), [self.session], queue=False)
        downloads(self.save, self.write, [self.session])
        downloads(self.save_answers, self.write_answers, [self.session])
        self.load.upload(self.read, [self.session, self.load], self.told)
        self.load_answers.upload(self.read_answers, [self.session, self.load_answers], [self.told, self.name])

    # Asking

    def ask(self, session: Session, name: str, low: str, high: str, kind: str) -> tuple:
        """The image of the next question, the buttons that answer it, and how far the work is"""
        name, values = _words(name, low, high, kind)
        learned = session.learning
        if learned.kinds.get(name, values) != values and any(learned.answers.get(name, {}).values()):
            raise refused(f"{name} has answers of another kind already; give the slider another name")
        learned.kinds[name] = values
        learned.asked = self._next(session, name)
        with self.engine.work(session.view.network) as opened:
            ws = ws_of_seeds(opened.G, [learned.asked], class_idx=session.view.class_idx)
            image = opened.G.synthesis(ws, noise_mode="const")[0]
        low, high = low.strip() or "no", high.strip() or "yes"
        others = [other for other, said in learned.answers.items() if other != name and any(said.values())]
        shown = figures((f"{name}? (seed {learned.asked})", picture_of(image).resize([256, 256], 0)))
        buttons = [gr.update(value=low, visible=values is not None), gr.update(value=high, visible=values is not None)]
        buttons += [gr.update(visible=values is None, label=f"From {low} to {high}"), gr.update(visible=values is None)]
        held = gr.update(choices=others, value=[each for each in learned.held if each in others])
        return shown, *buttons, self._told(learned, name), held

    def _next(self, session, name):
        said, values = session.learning.answers.get(name, {}), session.learning.kinds[name]
        with self.engine.work(session.view.network) as opened:
            if opened.questions is None or opened.questions.class_idx != session.view.class_idx:
                opened.questions = Questions(opened.G, session.view.class_idx)
            return opened.questions.next({seed: _as_number(answer, values) for seed, answer in said.items()})

    @staticmethod
    def _told(learned, name):
        said = _given(learned.answers.get(name, {}))
        text = f"{len(said)} answers for {name}. "
        if learned.kinds[name] is not None:
            text += ", ".join(f"{value}: {said.count(value)}" for value in learned.kinds[name]) + ". "
        left = _HANDFUL - len(said) % _HANDFUL
        text += f"{left} more make its slider{' anew' if name in learned.sliders else ''}."
        if name in learned.sliders:
            slider = learned.sliders[name]
            text += f"\n\n**{name}** ({slider.source}): {slider.said()}. It is among the sliders of the page."
        return text

    def _answering(self, choose):
        def answer(session, name, low, high, kind, position):
            name, values = _words(name, low, high, kind)
            learned = session.learning
            if learned.asked is None or learned.kinds.get(name) != values:  # another question is on the screen
                return *self.ask(session, name, low, high, kind), gr.update()
            said = learned.answers.setdefault(name, {})
            said[learned.asked] = choose(*(values or ("", "")), position)
            made = gr.update()
            if said[learned.asked] is not None and len(_given(said)) % _HANDFUL == 0:
                made = self._slider(session, name, _QUICK)
            return *self.ask(session, name, low, high, kind), made

        return answer

    def take_back(self, session: Session, name: str, low: str, high: str, kind: str) -> tuple:
        """The last answer goes"""
        said = session.learning.answers.get(name.strip(), {})
        if said:
            del said[next(reversed(said))]
        return self.ask(session, name, low, high, kind)

    def hold(self, session: Session, held: list[str]) -> None:
        """What must not change from now on"""
        session.learning.held = tuple(held)

    # Sliders

    def make(self, session: Session, name: str, progress: gr.Progress = gr.Progress()) -> Iterator[tuple]:
        """The slider, refined by gradient steps; stopped, it stays as it was"""
        name, learned = name.strip(), session.learning
        if len(_given(learned.answers.get(name, {}))) < _HANDFUL:
            raise refused(f"{name} needs {_HANDFUL} answers first")
        session.stopped.discard("refine")
        try:
            made = self._slider(session, name, _THOROUGH, progress)
        except InterruptedError:
            yield self._told(learned, name) + "\n\nStopped; the slider is as it was.", gr.update()
            return
        yield self._told(learned, name), made

    def _slider(self, session, name, steps, progress=None):
        """Learns the slider of an attribute from all answers; HTML of what it does"""
        learned, network = session.learning, session.view.network
        answers = {n: said for n, said in learned.answers.items() if n == name or _is_learnable(said)}
        if not _is_learnable(answers[name]):
            return figures() + "<p>Every answer is the same so far: nothing tells what to change.</p>"

        def count(turns):
            for i in turns:
                if "refine" in session.stopped:
                    raise InterruptedError
                if progress is not None:
                    progress((i, len(turns)), desc="Making it purer")
                self.engine.breathe()
                yield i

        seeds = sorted({seed for said in answers.values() for seed in said})
        columns = {n: [said.get(seed) or "" for seed in seeds] for n, said in answers.items()}
        with self.engine.long_work(network) as opened:
            positions = [n for n in answers if learned.kinds[n] is None]
            labels = labels_of_columns("seed", seeds, columns, numbers=positions)
            ws = ws_of_seeds(opened.G, seeds, class_idx=session.view.class_idx)
            scores = scores_of_probe(Probe(opened.G, ws, labels.attributes, labels.rows))
            held = [each for each in learned.held if each in answers] or None
            said = len(_given(answers[name]))
            towards = {name: learned.kinds[name][1]} if learned.kinds[name] else {}  # + is the second answer
            source = f"{said} answers, {steps} steps"
            (found,) = find_named(opened.G, scores, [name], held, steps, source=source, count=count, towards=towards)
        learned.sliders[name] = found
        return self._shown(session, found)

    def _shown(self, session, found):
        """HTML: the slider's way on a few seeds"""
        with self.engine.work(session.view.network) as opened, torch.no_grad():
            ws = ws_of_seeds(opened.G, _SHOWN, class_idx=session.view.class_idx)
            steps, rows = torch.linspace(found.low, found.high, 7), []
            for w in ws.split(1):
                offsets = {x: steps[:, None].to(w) * offset.to(w) for x, offset in found.offsets.items()}
                with opened.G.edited(offsets=offsets):
                    rows.append(opened.G.synthesis(w.repeat(7, 1, 1), noise_mode="const"))
        columns = [f"{step:+.1f}" for step in steps.tolist()]
        picture = draw_traversal(torch.stack(rows), [f"seed {seed}" for seed in _SHOWN], columns)
        return figures((f"{found.name} from {columns[0]} to {columns[-1]}", picture), kind="wide")

    # Files

    def write(self, session: Session) -> tuple[str, bytes]:
        """Name and content of the file of sliders, which `edit --directions` takes"""
        if not session.named:
            raise refused("there is no slider yet")
        return "sliders.json", json.dumps(as_file(session.named.values())).encode()

    def read(self, session: Session, path: str) -> str:
        """The sliders of a file"""
        try:
            found = read_directions(path, self.engine.network(session.view.network).G)
        except (OSError, ValueError) as error:
            raise refused(error) from error
        session.named.update(found)
        return f"Loaded {', '.join(found)}: among the sliders of the page."

    def write_answers(self, session: Session) -> tuple[str, bytes]:
        """Name and content of the CSV of answers, which `discover --method=labels` takes"""
        answers = {}
        for name, said in session.learning.answers.items():
            for seed, answer in said.items():
                if answer is not None:
                    answers.setdefault(seed, {})[name] = answer
        if not answers:
            raise refused("there are no answers yet")
        return "answers.csv", as_csv("seed", answers).encode()

    def read_answers(self, session: Session, path: str) -> tuple:
        """The answers of a CSV, beside those that are there"""
        try:
            labels = read_labels(path)
            if labels.kind != "seed":
                raise ValueError("these labels are of the files of a data set, not of seeds")
        except (OSError, ValueError) as error:
            raise refused(error) from error
        kinds = {attribute.name: attribute.values for attribute in labels.attributes}
        for name, values in kinds.items():
            if values is not None and len(values) != 2:
                raise refused(f"{name} has {len(values)} values; the page asks for two, or for a position")
            if values is not None and _are_positions(values, session.learning.kinds.get(name, values)):
                kinds[name] = None
        for (name, values), row in zip(kinds.items(), labels.rows.t().tolist()):
            known = {k: (x, cell) for k, x, cell in zip(labels.keys, row, labels.cells[name]) if cell}
            said = {k: cell if values is None else values[int(x)] for k, (x, cell) in known.items()}
            if values is None:
                said = _as_positions(said)
            session.learning.answers[name] = said
            session.learning.kinds[name] = values
        text = "; ".join(summary(labels.attributes, labels.rows))
        return f"Loaded the answers for {len(labels.keys)} images. {text}.", next(iter(kinds))


def _words(name, low, high, kind):
    """(name, its two values or None). gr.Error for what cannot be asked."""
    name, low, high = name.strip(), low.strip() or "no", high.strip() or "yes"
    if not name or len(name) > 40:
        raise refused("give the slider a name, of 40 letters at most")
    try:
        labels_of_columns("seed", [0, 1], {name: [low, high]})
    except ValueError as error:
        raise refused("the two answers must differ, and say something") from error
    return name, ((low, high) if kind == "two values" else None)


def _as_number(answer, values):
    if answer is None:
        return None
    return float(answer == values[1]) if values else float(answer)


def _are_positions(values, kind):
    """Whether the two answers of a file are positions, as those that are there already, of `kind`, or by their looks"""
    try:
        numbers = [float(value) for value in values]
    except ValueError:
        return False
    return kind is None or (kind == values and not all(number.is_integer() for number in numbers))


def _as_positions(said):
    """{seed: a number, as it was written, or divided by the largest where that lies beyond −1 … 1}"""
    largest = max(abs(float(text)) for text in said.values())
    return said if largest <= 1 else {seed: f"{float(text) / largest:g}" for seed, text in said.items()}


def _given(said):
    """The answers of {seed: answer} without those that were skipped"""
    return [answer for answer in said.values() if answer is not None]


def _is_learnable(said):
    """True with two different answers, and four in all"""
    given = _given(said)
    return len(given) >= 4 and len(set(given)) > 1
