"""One report over several training runs: a table of their metrics, the curves, and samples at equal seeds.

It reads what runs leave behind (training_options.json, stats.jsonl, metric-*.jsonl, the newest snapshot), computes
metrics that are asked for and not there, and writes `report.html`, one file that opens offline, and `report.md` with
its pictures beside it.
"""

import base64
import html
import io
import json
import re
from pathlib import Path
from typing import NamedTuple

import click
import torch

from segan_ext import host

host.activate()

import calc_metrics  # noqa: E402 (the host has to be on the path)
import segan_ext.metrics  # noqa: E402, F401 (registers them)
from generate import Numbers, label_table, load_generator, seed_latents  # noqa: E402
from launch import choose_device  # noqa: E402
from metrics.metric_utils import get_feature_detector_name  # noqa: E402
from recipe import metric_kwargs, metric_names, metric_options  # noqa: E402
from segan_ext.attributes import source_digest  # noqa: E402
from segan_ext.explore import draw_traversal  # noqa: E402
from torch_utils import inference, misc  # noqa: E402
from training.files import parse_json  # noqa: E402

_HIGHER_IS_BETTER = ("is50k_mean", "pr50k3", "purity")
_NEITHER_IS_BETTER = ("is50k_std", "subspaces")
_NOT_LEARNED = ("noise_const", "resample_filter", "w_avg")  # of a generator's tensors; frozen weights are buffers too
_LOSSES = {"Loss/G/loss": "loss of G", "Loss/D/loss": "loss of D", "Loss/signs/real": "mean sign of D on reals"}


class Result(NamedTuple):
    """One number of a metric, at a snapshot. protocol: what it depends on, as JSON with sorted keys."""

    name: str
    value: float
    kimg: float
    protocol: str


class Run(NamedTuple):
    """What a run directory tells about its training. snapshot: the newest. losses: {name: [(kimg, mean), …]}."""

    path: Path
    mode: str
    kimg: float
    seconds_per_kimg: float | None
    snapshot: Path
    results: list[Result]
    losses: dict[str, list]

    @property
    def name(self):
        return self.path.name


def read_run(path):
    """The `Run` in a directory. ValueError if there is none."""
    path = Path(path)
    snapshots = sorted(path.glob("network-snapshot-*.pkl"))
    if not (path / "training_options.json").is_file() or not snapshots:
        raise ValueError(f"{path} is no training run: it has no training_options.json, or no snapshot yet")
    try:
        return _parse_run(path, snapshots)
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise ValueError(f"{path}: its JSON files are not those of a run ({type(error).__name__}: {error})") from error


def _parse_run(path, snapshots):
    options = json.loads((path / "training_options.json").read_text("utf-8"))
    stats = _json_lines(path / "stats.jsonl")
    losses = {name: _series(stats, name) for name in _LOSSES}
    speeds = [value for _, value in _series(stats, "Timing/sec_per_kimg")[1:]]  # the first tick is one step
    mode = options.get("G_kwargs", {}).get("mode", 0)
    return Run(
        path=path,
        mode=str(mode) if options["G_kwargs"]["class_name"].startswith("segan_ext") else "0",
        kimg=_kimg(snapshots[-1].name),
        seconds_per_kimg=sorted(speeds)[len(speeds) // 2] if speeds else None,
        snapshot=snapshots[-1],
        results=[result for file in sorted(path.glob("metric-*.jsonl")) for result in _results(file)],
        losses=losses,
    )


def _json_lines(path):
    """The objects in a file of ours, a line each; the last may be half-written. ValueError for another file."""
    lines = path.read_text("utf-8").splitlines() if path.is_file() else []
    found = []
    for i, line in enumerate(lines):
        try:
            found.append(parse_json(line, dict))
        except ValueError as error:
            if i < len(lines) - 1:
                raise ValueError(f"line {i + 1} of {path.name}: {error}") from error
    return found


def _series(stats, name):
    """[(kimg, mean of a statistic), …]"""
    return [(line["Progress/kimg"]["mean"], line[name]["mean"]) for line in stats if name in line]


def _kimg(snapshot):
    """The kimg in a snapshot's name, 0 for another name"""
    found = re.search(r"(\d+)\.pkl$", snapshot or "")
    return float(found[1]) if found else 0.0


def _results(file):
    for line in _json_lines(file):
        protocol = line.get("protocol", {})
        if not isinstance(protocol, dict) or not all(isinstance(x, (int, float)) for x in line["results"].values()):
            raise ValueError(f"{file.name} holds no results of a metric")
        protocol = json.dumps(protocol, sort_keys=True)
        for name, value in line["results"].items():
            yield Result(name, value, _kimg(line.get("snapshot_pkl")), protocol)


class Column(NamedTuple):
    """One result under one protocol. values: of each run's newest snapshot, or None."""

    title: str
    protocol: str
    values: list[float | None]

    @property
    def best(self):
        known = [value for value in self.values if value is not None]
        if len(known) < 2 or self.title.startswith(_NEITHER_IS_BETTER):
            return None
        return (max if self.title.startswith(_HIGHER_IS_BETTER) else min)(known)


def short_names(runs):
    """What tells the runs apart: their names without the parts that all of them have"""
    parts = [run.name.split("-") for run in runs]
    common = set.intersection(*map(set, parts)) if len(runs) > 1 else set()
    names = ["-".join(part for part in name if part not in common) for name in parts]
    return names if len(set(names)) == len(names) else [str(run.path) for run in runs]


def columns_of(runs):
    """A column for every result name and protocol, so that numbers in one column can be compared.

    Where a name occurs with several protocols, the titles are numbered.
    """
    found = {}
    for i, run in enumerate(runs):
        for result in run.results:
            if result.kimg == run.kimg:  # of the newest snapshot; what was measured last stays
                found.setdefault((result.name, result.protocol), [None] * len(runs))[i] = result.value
    columns, seen = [], {}
    names = [name for name, _ in found]
    for (name, protocol), values in sorted(found.items(), key=lambda item: item[0][0]):
        seen[name] = seen.get(name, 0) + 1
        title = name if names.count(name) == 1 else f"{name} ({seen[name]})"
        columns.append(Column(title, protocol, values))
    return columns


# ---------------------------------------------------------------------------------------------------------------------
# Pictures


def draw_curves(runs, columns):
    """PNG bytes: every metric that has a curve, and the losses, over kimg; None if there is nothing to draw."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    panels = []
    for column in columns:
        curves = [_curve(run, column) for run in runs]
        if any(len(curve) > 1 for curve in curves):
            panels.append((column.title, curves))
    panels += [(title, [run.losses[name] for run in runs]) for name, title in _LOSSES.items()]
    panels = [panel for panel in panels if any(panel[1])]
    if not panels:
        return None
    rows = -(-len(panels) // 3)
    figure, axes = pyplot.subplots(rows, 3, figsize=(12, 2.9 * rows), squeeze=False, layout="constrained")
    for axis in axes.flat[len(panels) :]:
        axis.axis("off")
    for axis, (title, curves) in zip(axes.flat, panels):
        for name, curve in zip(short_names(runs), curves):
            if curve:
                axis.plot(*zip(*curve), label=name, marker="o", markersize=3, linewidth=1.5)
        axis.set_title(title, fontsize=10)
        axis.set_xlabel("kimg", fontsize=9)
        axis.grid(alpha=0.3)
        axis.spines[["top", "right"]].set_visible(False)
    handles, labels = max((axis.get_legend_handles_labels() for axis in axes.flat), key=lambda found: len(found[0]))
    figure.legend(handles, labels, loc="outside lower center", fontsize=8, frameon=False, ncols=6)
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", dpi=110)
    pyplot.close(figure)
    return buffer.getvalue()


def _curve(run, column):
    """[(kimg, value), …] of a column's result in one run; the newest where a snapshot was measured twice"""
    name = re.sub(r" \(\d+\)$", "", column.title)
    points = {r.kimg: r.value for r in run.results if (r.name, r.protocol) == (name, column.protocol)}
    return sorted(points.items())


@inference.folded()
def draw_samples(runs, generators, seeds, truncation_psi):
    """PNG bytes: a row a run, a column a seed."""
    rows = []
    for G in generators:
        label = label_table(G)[[0] * len(seeds)].to(next(G.parameters()).device) if G.c_dim else None
        z = seed_latents(G, seeds, next(G.parameters()).device)
        images = G(z, label, truncation_psi=truncation_psi, noise_mode="const").cpu()
        rows.append(images.expand(-1, 3, -1, -1))
    size = max(max(images.shape[2] for images in rows), 96)
    rows = [torch.nn.functional.interpolate(images, [size, size], mode="nearest") for images in rows]
    picture = draw_traversal(torch.stack(rows), short_names(runs), [f"seed {seed}" for seed in seeds])
    buffer = io.BytesIO()
    picture.save(buffer, format="png")
    return buffer.getvalue()


# ---------------------------------------------------------------------------------------------------------------------
# Pages


def table_of(runs, generators, columns):
    """(header, rows) of texts; the best of a column is put between asterisks, as in Markdown."""
    header = ["run", "mode", "kimg", "parameters of G", "s/kimg", *(column.title for column in columns)]
    rows = []
    for i, (run, G, name) in enumerate(zip(runs, generators, short_names(runs))):
        parameters = sum(t.numel() for n, t in misc.named_params_and_buffers(G) if not n.endswith(_NOT_LEARNED))
        speed = "–" if run.seconds_per_kimg is None else f"{run.seconds_per_kimg:.1f}"
        row = [name, run.mode, f"{run.kimg:g}", f"{parameters:,}", speed]
        for column in columns:
            value = column.values[i]
            text = "–" if value is None else f"{value:.4g}"
            row.append(f"**{text}**" if value is not None and value == column.best else text)
        rows.append(row)
    return header, rows


def markdown(header, rows, names, protocols, pictures):
    """The report as text. names: {short name: path of the run}. pictures: {title: path}"""
    lines = ["# Training runs", "", "Bold: the best of a column. Numbers compare within a column only.", ""]
    lines += [f"| {' | '.join(row)} |" for row in (header, ["---"] * len(header), *rows)]
    lines += ["", "What the columns depend on:", ""]
    lines += [f"- `{title}`: {protocol}" for title, protocol in protocols.items()]
    lines += ["", "Runs:", "", *(f"- `{name}`: {path}" for name, path in names.items())]
    for title, path in pictures.items():
        lines += ["", f"## {title}", "", f"![{title}]({path})"]
    return "\n".join(lines) + "\n"


_PAGE = """<!doctype html>
<html lang="en"><meta charset="utf-8"><meta name="viewport" content="width=device-width, initial-scale=1">
<title>Training runs</title>
<style>
 body {{ font: 15px/1.5 system-ui, sans-serif; margin: 2rem auto; max-width: 84rem; padding: 0 1rem; color: #1c1e21 }}
 h1 {{ font-size: 1.6rem }} h2 {{ font-size: 1.2rem; margin-top: 2.2rem }}
 .wide {{ overflow-x: auto }}
 table {{ border-collapse: collapse; font-variant-numeric: tabular-nums }}
 th, td {{ padding: .35rem .7rem; text-align: right; border-bottom: 1px solid #ddd; white-space: nowrap }}
 th {{ white-space: normal; vertical-align: bottom; font-size: .85rem; max-width: 8.5rem }}
 th:first-child, td:first-child {{ text-align: left; position: sticky; left: 0; background: #fff }}
 td b {{ color: #0a6b3d }} li {{ overflow-wrap: anywhere }} .small {{ color: #555; font-size: .85rem }}
 img {{ max-width: 100% }}
</style>
<h1>Training runs</h1>
<p class="small">Green: the best of a column. Numbers compare within a column only.</p>
<div class="wide"><table><thead>{header}</thead><tbody>{rows}</tbody></table></div>
{pictures}
<h2>What the columns depend on</h2>
<ul class="small">{protocols}</ul>
<h2>Runs</h2>
<ul class="small">{names}</ul>
</html>
"""


def page(header, rows, names, protocols, pictures):
    """The report as one HTML file. names: {short name: path of the run}. pictures: {title: PNG bytes}"""

    def row(cells, tag):
        cells = [re.sub(r"^\*\*(.*)\*\*$", r"<b>\1</b>", html.escape(cell)).replace("_", "_<wbr>") for cell in cells]
        return "<tr>" + "".join(f"<{tag}>{cell}</{tag}>" for cell in cells) + "</tr>"

    def picture(title, png):
        data = base64.b64encode(png).decode()
        return f'<h2>{html.escape(title)}</h2><img alt="{html.escape(title)}" src="data:image/png;base64,{data}">'

    def listed(items):
        items = ((html.escape(name), html.escape(str(text))) for name, text in items.items())
        return "".join(f"<li><code>{name}</code>: {text}</li>" for name, text in items)

    return _PAGE.format(
        header=row(header, "th"),
        rows="".join(row(cells, "td") for cells in rows),
        pictures="".join(picture(title, png) for title, png in pictures.items()),
        protocols=listed(protocols),
        names=listed(names),
    )


_UNSAID = ("asked_for", "metric", "usual_detector")


def _in_words(protocol):
    """{"seed": 0, …} → 'seed 0, …'"""
    known = {key: value for key, value in json.loads(protocol).items() if key not in _UNSAID}
    known = {key: ", ".join(value) if isinstance(value, list) else value for key, value in known.items()}
    return "; ".join(f"{key.replace('_', ' ')}: {value}" for key, value in known.items()) or "not recorded"


# ---------------------------------------------------------------------------------------------------------------------
# Command


@click.command()
@click.argument("run_dirs", nargs=-1, required=True, metavar="RUN…")
@click.option("--outdir", default="report", show_default=True, metavar="DIR", help="Where to write the report")
@click.option("--metrics", default="none", metavar="LIST", help="Metrics to compute first where they are missing")
@click.option("--seeds", type=Numbers(), default="0-7", show_default=True, help="Seeds of the samples")
@click.option(
    "--trunc", "truncation_psi", type=float, default=1, show_default=True, help="Truncation psi of the samples"
)
@click.option("--device", metavar="NAME", help="cpu, cuda  [default: cuda where there is one]")
@metric_options
def report(run_dirs, outdir, metrics, seeds, truncation_psi, device, **options):
    """Compare training runs: metrics, curves, samples at equal seeds."""
    try:
        import matplotlib  # noqa: F401
    except ImportError as error:
        raise click.UsageError("the curves need `pip install matplotlib`") from error
    device, metrics = choose_device(device), metric_names(metrics)
    kwargs = dict(metric_kwargs(**options), seed=0, num_gpus=1, device=device) if metrics else {}
    try:
        runs = [read_run(path) for path in run_dirs]
        for run in runs:
            _compute_missing(run, metrics, kwargs)
        runs = [read_run(path) for path in run_dirs]
    except (OSError, ValueError) as error:
        raise click.UsageError(f"RUN: {error}") from error
    generators = [load_generator(str(run.snapshot), device) for run in runs]

    columns = columns_of(runs)
    header, rows = table_of(runs, generators, columns)
    protocols = {}
    for column in columns:
        protocols.setdefault(_in_words(column.protocol), []).append(column.title)
    protocols = {", ".join(titles): words for words, titles in protocols.items()}
    pictures = {"Samples": draw_samples(runs, generators, seeds, truncation_psi)}
    curves = draw_curves(runs, columns)
    pictures |= {"Curves": curves} if curves is not None else {}

    outdir = Path(outdir)
    outdir.mkdir(parents=True, exist_ok=True)
    for title, png in pictures.items():
        (outdir / f"{title.lower()}.png").write_bytes(png)
    names = {name: run.path for name, run in zip(short_names(runs), runs)}
    (outdir / "report.html").write_text(page(header, rows, names, protocols, pictures), encoding="utf-8")
    files = {title: f"{title.lower()}.png" for title in pictures}
    (outdir / "report.md").write_text(markdown(header, rows, names, protocols, files), encoding="utf-8")
    print(outdir / "report.html")
    print(outdir / "report.md")


def _compute_missing(run, names, kwargs):
    """Computes the metrics that the newest snapshot does not have yet with these options."""
    lines = [line for file in run.path.glob("metric-*.jsonl") for line in _json_lines(file)]
    protocols = [line.get("protocol", {}) for line in lines if line.get("snapshot_pkl") == run.snapshot.name]
    for name in names:
        if name in ("purity", "subspaces") and run.mode == "0":
            continue  # there are no subspaces
        if not any(_answers(protocol, name, kwargs) for protocol in protocols):
            print(f"{run.name}: {name}")
            calc_metrics.measure(str(run.snapshot), [name], verbose=False, **kwargs)


def _answers(protocol, name, kwargs):
    """True if a result under this protocol is what a metric would give with these options"""
    detectors = [get_feature_detector_name(each) for each in kwargs["detectors"]]
    source = kwargs["attributes"]
    return (
        (protocol.get("metric"), protocol.get("seed")) == (name, kwargs["seed"])
        and kwargs["num_gen"] == protocol.get("asked_for", kwargs["num_gen"])
        and (protocol.get("detector", detectors[0]) in detectors if detectors else protocol.get("usual_detector", True))
        and (source is None or protocol.get("attributes_digest") in (None, source_digest(source)))
    )
