"""One report over several training runs: a table of their metrics, the curves, and samples at equal seeds.

It reads what runs leave behind (training_options.json, stats.jsonl, metric-*.jsonl, the newest snapshot), computes
metrics that are asked for and not there, and writes `report.html`, one file that opens offline, and `report.md` with
its pictures beside it.
"""

import json
import re
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import segan_ext.metrics  # noqa: F401 (registers them, and which way each is better)
from metrics.metric_main import better_way
from training.files import parse_json

_METHODS = {"EigenGANGenerator": "eigengan", "StyleGAN1Generator": "stylegan1", "TraditionalGenerator": "traditional"}
VARIETY = "Health/recall"
_LOSSES = {"Loss/G/loss": "loss of G", "Loss/D/loss": "loss of D", "Loss/signs/real": "mean sign of D on reals"}
_LOSSES |= {VARIETY: "recall of samples, of real images 1"}


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
    def name(self) -> str:
        """The name of its directory"""
        return self.path.name

    @property
    def has_subspaces(self) -> bool:
        """Whether its generator has coordinates to move"""
        return self.mode not in ("0", "stylegan1", "traditional")


def read_run(path: str | Path) -> Run:
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
    stats = json_lines(path / "stats.jsonl")
    losses = {name: _series(stats, name) for name in _LOSSES}
    speeds = [value for _, value in _series(stats, "Timing/sec_per_kimg")[1:]]  # the first tick is one step
    return Run(
        path=path,
        mode=_mode(options["G_kwargs"]),
        kimg=_kimg(snapshots[-1].name),
        seconds_per_kimg=sorted(speeds)[len(speeds) // 2] if speeds else None,
        snapshot=snapshots[-1],
        results=[result for file in sorted(path.glob("metric-*.jsonl")) for result in _results(file)],
        losses=losses,
    )


def _mode(G_kwargs):
    """What the generator is: 0 to 3, eigen, named; or another method, and the mode where it is not 0"""
    package, _, name = G_kwargs["class_name"].rpartition(".")
    mode = str(G_kwargs.get("mode", 0)) if package.startswith("segan_ext") else "0"
    if name not in _METHODS:
        return mode
    return _METHODS[name] + (f", mode {mode}" if mode != "0" else "")


def json_lines(path: Path) -> list[dict]:
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
    for line in json_lines(file):
        protocol = line.get("protocol", {})
        if not isinstance(protocol, dict) or not all(isinstance(x, (int, float)) for x in line["results"].values()):
            raise ValueError(f"{file.name} holds no results of a metric")
        protocol = json.dumps(protocol, sort_keys=True)
        for name, value in line["results"].items():
            yield Result(name, value, _kimg(line.get("snapshot_pkl")), protocol)


def results_beside(snapshot: str | Path) -> list[Result]:
    """What metric-*.jsonl beside a snapshot of a run say of it, the last of each name and protocol. ValueError for
    files that hold no results."""
    kimg, found = _kimg(Path(snapshot).name), {}
    if kimg:
        for file in sorted(Path(snapshot).parent.glob("metric-*.jsonl")):
            found |= {(each.name, each.protocol): each for each in _results(file) if each.kimg == kimg}
    return list(found.values())


class Column(NamedTuple):
    """One result under one protocol. values: of each run's newest snapshot, or None. better: as `better_way` has it."""

    title: str
    protocol: str
    values: list[float | None]
    better: str = "neither"

    @property
    def best(self) -> float | None:
        """The best value; None with fewer than two, or where neither high nor low is better"""
        known = [value for value in self.values if value is not None]
        if len(known) < 2 or self.better == "neither":
            return None
        return (max if self.better == "higher" else min)(known)


def short_names(runs: Sequence[Run]) -> list[str]:
    """What tells the runs apart: their names, or the folders', without the parts that all have; or their paths"""
    for full in ([run.name for run in runs], [run.path.parent.name for run in runs]):
        parts = [name.split("-") for name in full]
        common = set.intersection(*map(set, parts)) if len(runs) > 1 else set()
        names = ["-".join(part for part in name if part not in common) for name in parts]
        if len(set(names)) == len(names):
            return names
    return [str(run.path) for run in runs]


def columns_of(runs: Sequence[Run]) -> list[Column]:
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
        columns.append(Column(title, protocol, values, better_way(name)))
    return columns
