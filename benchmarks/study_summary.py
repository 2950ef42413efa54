"""The tables and pictures of docs/results.md, of what study.py has trained and measured.

    python benchmarks/study_summary.py --outdir=study-out

Writes for each data set summary-NAME.md (a row a method, a number a seed), samples-NAME.png (equal seeds),
interpolations-NAME.png (between two latents) and curves-NAME.png (of all four modes).
"""

import argparse
import re
import sys
from pathlib import Path

import torch

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

import segan_ext.host  # noqa: E402

segan_ext.host.activate()

from study import METHODS  # noqa: E402

from segan_ext.control.traversal import interpolation  # noqa: E402
from segan_ext.images import draw_traversal  # noqa: E402
from segan_ext.latents import ws_of_seeds  # noqa: E402
from segan_ext.report.page import draw_curves  # noqa: E402
from segan_ext.report.runs import read_run  # noqa: E402
from segan_ext.report.table import parameters_of  # noqa: E402
from snapshots.load import load_generator  # noqa: E402

RESULTS = {  # titles of columns: how the name of a result begins, and how it goes on
    "FD efficientnet-lite0": ("fid50k_full_efficientnet-lite0", ".0f"),
    "FD vgg-hed": ("fid50k_full_vgg-hed", ".0f"),
    "KID efficientnet-lite0": ("kid50k_full_efficientnet-lite0", ".3g"),
    "PPL as published": ("ppl_segan", ".3g"),
    "PPL z full": ("ppl_zfull", ".3g"),
    "w full": ("ppl_wfull", ".3g"),
    "z end": ("ppl_zend", ".3g"),
    "w end": ("ppl_wend", ".3g"),
    "separability z": ("ls_z", ".3g"),
    "w": ("ls_w", ".3g"),
    "selectivity": ("selectivity", ".3f"),
    "chance": ("selectivity_chance", ".3f"),
    "deviation of UᵀU": ("subspaces_deviation", ".1e"),
    "effective rank": ("subspaces_rank", ".3g"),
}
MODES = [f"mode {mode}" for mode in range(4)]
SEEDS, ENDS, STEPS = range(8), (0, 2), 9


def runs_of(folder, name):
    """The finished runs of a method below a data set's folder, one a seed"""
    paths = sorted(folder.glob(f"{name.replace(' ', '-')}-seed[0-9]/0*"))
    return [read_run(path) for path in paths if list(path.glob("network-snapshot-*.pkl"))]


def value_of(run, start):
    """The newest snapshot's result whose name is `start`, or that with the detector and number after it; or None"""
    name = re.compile(rf"{start}(_[a-z0-9]+-[a-z0-9]+)?(_n\d+)?")
    return next((r.value for r in reversed(run.results) if r.kimg == run.kimg and name.fullmatch(r.name)), None)


def markdown(columns, rows):
    """A table; rows of texts"""
    return "\n".join(f"| {' | '.join(row)} |" for row in [columns, ["---"] * len(columns), *rows])


def numbers(values, form):
    """Those of several seeds, side by side; empty where none was measured"""
    if all(value is None for value in values):
        return ""
    return " ".join("–" if value is None else format(value, form) for value in values)


def table(folder):
    """Markdown: a row a method; numbers of several seeds side by side. Columns without any number are left out."""
    rows = []
    for name in METHODS:
        runs = runs_of(folder, name)
        if not runs:
            continue
        G = load_generator(str(runs[0].snapshot))
        cells = [name, f"{parameters_of(G):,}", numbers([run.seconds_per_kimg for run in runs], ".1f")]
        rows.append([*cells, *(numbers([value_of(r, start) for r in runs], form) for start, form in RESULTS.values())])
    columns = zip(["trained", "parameters of G", "s/kimg", *RESULTS], *rows)
    columns, *rows = zip(*(column for column in columns if any(column[1:])))
    return markdown(columns, rows) + "\n"


@torch.no_grad()
def pictures(folder, out):
    """Samples at equal seeds and interpolations, a row a method, of the first seed"""
    names, samples, between = [], [], []
    for name in METHODS:
        for run in runs_of(folder, name)[:1]:
            G = load_generator(str(run.snapshot)).eval()
            names.append(name)
            samples.append(G.synthesis(ws_of_seeds(G, SEEDS), noise_mode="const").expand(-1, 3, -1, -1))
            between.append(interpolation(G, ENDS, STEPS)[0].expand(-1, 3, -1, -1))
    seeds, steps = [f"seed {seed}" for seed in SEEDS], [""] * STEPS
    draw_traversal(torch.stack(samples), names, seeds).save(out / f"samples-{folder.name}.png")
    draw_traversal(torch.stack(between), names, steps).save(out / f"interpolations-{folder.name}.png")


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--outdir", default="study-out", help="that of study.py")
    out = Path(parser.parse_args().outdir).resolve()
    for folder in sorted((out / "runs").iterdir()):
        text = table(folder)
        (out / f"summary-{folder.name}.md").write_text(text, encoding="utf-8")
        print(f"{folder.name}\n\n{text}", flush=True)
        pictures(folder, out)
        runs = [run for name in MODES for run in runs_of(folder, name)[:1]]
        (out / f"curves-{folder.name}.png").write_bytes(draw_curves(runs, []))


if __name__ == "__main__":
    main()
