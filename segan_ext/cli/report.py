"""`segan report`."""

from pathlib import Path

import click

import calc_metrics
from metrics import metric_main
from runs.launch import choose_device
from runs.options import Numbers, OutputDir, command, metric_options, refuse_given, usage_errors
from runs.outputs import check_directory
from runs.recipe import metric_kwargs, metric_names
from segan_ext.metrics.attributes import source_digest
from segan_ext.report.page import draw_curves, draw_samples, page
from segan_ext.report.runs import columns_of, json_lines, read_run, short_names
from segan_ext.report.table import in_words, markdown, table_of
from snapshots.atomic import write_atomically
from snapshots.load import load_generator


@command()
@click.argument("run_dirs", nargs=-1, required=True, metavar="RUN…")
@click.option(
    "--outdir", type=OutputDir(), default="report", show_default=True, metavar="DIR", help="Where to write the report"
)
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
    with usage_errors("--outdir"):
        check_directory(outdir)
    if not metrics:
        refuse_given(["--detector", "--num-gen", "--attributes"], "without --metrics")
    if options["attributes"] is not None:
        with usage_errors("--attributes"):
            source_digest(options["attributes"])
    kwargs = dict(metric_kwargs(**options), seed=0, num_gpus=1, device=device) if metrics else {}
    with usage_errors("RUN"):
        runs = [read_run(path) for path in run_dirs]
        generators = [load_generator(str(run.snapshot)).to(device) for run in runs]
        for run in runs:
            _compute_missing(run, metrics, kwargs)
        runs = [read_run(path) for path in run_dirs]

    columns = columns_of(runs)
    header, rows = table_of(runs, generators, columns)
    protocols = {}
    for column in columns:
        protocols.setdefault(in_words(column.protocol), []).append(column.title)
    protocols = {", ".join(titles): words for words, titles in protocols.items()}
    pictures = {"Samples": draw_samples(runs, generators, seeds, truncation_psi)}
    curves = draw_curves(runs, columns)
    pictures |= {"Curves": curves} if curves is not None else {}

    outdir = Path(outdir)
    outdir.mkdir(parents=True, exist_ok=True)
    for title, png in pictures.items():
        write_atomically(outdir / f"{title.lower()}.png", lambda file, png=png: file.write(png))
    names = {name: run.path for name, run in zip(short_names(runs), runs)}
    html = page(header, rows, names, protocols, pictures)
    write_atomically(outdir / "report.html", lambda file: file.write(html.encode()))
    files = {title: f"{title.lower()}.png" for title in pictures}
    text = markdown(header, rows, names, protocols, files)
    write_atomically(outdir / "report.md", lambda file: file.write(text.encode()))
    print(outdir / "report.html")
    print(outdir / "report.md")


_OF_SUBSPACES = ("purity", "subspaces", "selectivity", "disentanglement", "mig", "factorvae")


def _compute_missing(run, names, kwargs):
    """Computes the metrics that the newest snapshot does not have yet with these options."""
    lines = [line for file in run.path.glob("metric-*.jsonl") for line in json_lines(file)]
    protocols = [line.get("protocol", {}) for line in lines if line.get("snapshot_pkl") == run.snapshot.name]
    for name in names:
        if name in _OF_SUBSPACES and not run.has_subspaces:
            continue
        if not any(_answers(protocol, name, kwargs) for protocol in protocols):
            print(f"{run.name}: {name}")
            calc_metrics.measure(str(run.snapshot), [name], verbose=False, **kwargs)


def _answers(protocol, name, kwargs):
    """True if a result under this protocol is what a metric would give with these options"""
    source = kwargs["attributes"]
    if not metric_main.answers(protocol, name, kwargs["detectors"], kwargs["num_gen"], kwargs["seed"]):
        return False
    return source is None or protocol.get("attributes_digest") in (None, source_digest(source))
