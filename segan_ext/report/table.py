"""A report as a table: one row a run, one column a result under one protocol."""

import json
from collections.abc import Iterable, Sequence
from pathlib import Path

import torch

from segan_ext.report.runs import VARIETY, Column, Run, short_names
from torch_utils import misc

_NOT_LEARNED = ("noise_const", "resample_filter", "w_avg")  # of a generator's tensors; frozen weights are buffers too


def table_of(
    runs: Sequence[Run], generators: Sequence[torch.nn.Module], columns: Sequence[Column]
) -> tuple[list[str], list[list[str]]]:
    """(header, rows) of texts; the best of a column is put between asterisks, as in Markdown."""
    header = ["run", "mode", "kimg", "parameters of G", "s/kimg", "variety", *(column.title for column in columns)]
    rows = []
    for i, (run, G, name) in enumerate(zip(runs, generators, short_names(runs))):
        speed = "–" if run.seconds_per_kimg is None else f"{run.seconds_per_kimg:.1f}"
        varied = run.losses.get(VARIETY)
        variety = f"{varied[-1][1]:.2f}" if varied else "–"
        row = [name, run.mode, f"{run.kimg:g}", f"{parameters_of(G):,}", speed, variety]
        for column in columns:
            value = column.values[i]
            text = "–" if value is None else f"{value:.4g}"
            row.append(f"**{text}**" if value is not None and value == column.best else text)
        rows.append(row)
    return header, rows


def parameters_of(G: torch.nn.Module) -> int:
    """How many numbers of a generator are learned, frozen ones among them"""
    return sum(t.numel() for n, t in misc.named_params_and_buffers(G) if not n.endswith(_NOT_LEARNED))


def markdown(
    header: Sequence[str],
    rows: Iterable[Sequence[str]],
    names: dict[str, Path],
    protocols: dict[str, str],
    pictures: dict[str, str],
) -> str:
    """The report as text. names: {short name: path of the run}. pictures: {title: path}"""
    lines = ["# Training runs", "", "Bold: the best of a column. Numbers compare within a column only.", ""]
    lines += ["Variety: recall of the last samples by small pictures, that of other real images being 1.", ""]
    lines += [f"| {' | '.join(row)} |" for row in (header, ["---"] * len(header), *rows)]
    lines += ["", "What the columns depend on:", ""]
    lines += [f"- `{title}`: {protocol}" for title, protocol in protocols.items()]
    lines += ["", "Runs:", "", *(f"- `{name}`: {path}" for name, path in names.items())]
    for title, path in pictures.items():
        lines += ["", f"## {title}", "", f"![{title}]({path})"]
    return "\n".join(lines) + "\n"


_UNSAID = ("asked_for", "metric", "usual_detector")


def in_words(protocol: str) -> str:
    """{"seed": 0, …} → 'seed 0, …'"""
    known = {key: value for key, value in json.loads(protocol).items() if key not in _UNSAID}
    known = {key: ", ".join(map(str, value)) if isinstance(value, list) else value for key, value in known.items()}
    return "; ".join(f"{key.replace('_', ' ')}: {value}" for key, value in known.items()) or "not recorded"
