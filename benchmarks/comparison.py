"""Generators of every mode, trained alike and compared by what their dimensions mean: the tables of docs/results.md.

    python benchmarks/comparison.py --outdir=comparison-out            # hours; it goes on where it was stopped
    python benchmarks/comparison.py --outdir=comparison-out --rows=named

Each row is a run of train_segan.py on `avatars --recipe=bench` with the recipe segan-fast, measured by the bench's
judge, which nothing else has seen, and by KID with detectors that no training here uses. All run for as many kimg.
Directions that are found afterwards are found on the run of mode 0.
"""

import argparse
import json
import subprocess
import sys
import time
from pathlib import Path

import torch

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))
sys.path.insert(0, str(ROOT / "benchmarks"))

import segan_ext.host  # noqa: E402

segan_ext.host.activate()

from meaning import BENCH, DIMS, METHODS, ROTATIONS, labelled, with_names  # noqa: E402

from metrics import metric_main  # noqa: E402
from segan_ext.directions import find_directions  # noqa: E402
from segan_ext.directions.named import as_editable  # noqa: E402
from segan_ext.directions.subspaces import with_directions  # noqa: E402
from segan_ext.metrics.attributes import open_predictor  # noqa: E402
from segan_ext.metrics.selectivity import (  # noqa: E402
    Ruler,
    interval,
    measure,
    named_candidates,
    own_candidates,
    rotated_candidates,
    strongest_candidates,
    z_score,
)
from snapshots.load import load_generator  # noqa: E402
from torch_utils import cached_weights  # noqa: E402

COMMON = ["--cfg=segan-fast", "--lrate=0.004", "--workers=0", "--snap=8"]
NAMED = ["--mode=named", "--labels=factors"]
RUNS = {  # what is compared: options of train_segan.py
    "mode 0": ["--mode=0"],
    "mode 1": ["--mode=1", "--subspace-dim=8"],
    "mode 2": ["--mode=2"],
    "mode 2, no ortho": ["--mode=2", "--ortho=0"],
    "mode 3": ["--mode=3"],
    "eigen": ["--mode=eigen"],
    "eigen, gaussian": ["--mode=eigen", "--prior=gaussian"],
    "eigen, no bottleneck": ["--mode=eigen", "--bottleneck=0"],
    "eigen, no encoder": ["--mode=eigen", "--info=0"],
    "named, 50 labels": [*NAMED, "--num-labels=50"],
    "named, 200 labels": [*NAMED, "--num-labels=200"],
    "named, 500 labels": [*NAMED, "--num-labels=500"],
}
SEEDS = dict.fromkeys(("mode 0", "eigen", "named, 50 labels", "named, 200 labels"), 3)  # the others: one


def trained(name, seed, data, kimg, out):
    """The newest snapshot of a run, which is started, or continued, where it has not come to its end."""
    outdir = out / "runs" / f"{slug(name)}-seed{seed}"
    options = [*COMMON, *RUNS[name], f"--data={data}", f"--kimg={kimg}", f"--seed={seed}", f"--outdir={outdir}"]
    if not list(outdir.glob(f"*/network-snapshot-{kimg:06d}.pkl")):
        if list(outdir.glob("*/training-state-*.pt")):
            options = ["--resume=latest", f"--outdir={outdir}", f"--kimg={kimg}"]
        subprocess.run([sys.executable, str(ROOT / "train_segan.py"), *options], check=True, stdout=subprocess.DEVNULL)
    return sorted(outdir.glob("*/network-snapshot-*.pkl"))[-1]


def measured(G, candidates, judge):
    """A row of selectivity as JSON holds it"""
    with cached_weights.enabled():
        found = measure(Ruler(G, judge), candidates)
    return found._asdict() | dict(scores=[score._asdict() for score in found.scores], candidates=len(candidates))


def quality(network, data):
    """{detector: KID × 1000} of 1000 images by detectors that no training uses"""
    found = {}
    for detector in ("vgg-hed", "efficientnet-lite0"):
        result = metric_main.calc_metric(
            metric="kid50k_full",
            G=load_generator(str(network)).eval().requires_grad_(False),
            dataset_kwargs=dict(class_name="training.dataset.ImageFolderDataset", path=str(data), use_labels=False),
            device=torch.device("cpu"),
            detectors=[detector],
            num_gen=1000,
        )
        found[detector] = 1000 * next(iter(result.results.values()))
    return found


def once(out, name, compute):
    """What compute() gives, from its file where it has been computed before"""
    path = out / f"{slug(name)}.json"
    if not path.exists():
        begun = time.monotonic()
        result = compute()
        path.write_text(json.dumps(result | dict(seconds=time.monotonic() - begun), indent=1))
    row = json.loads(path.read_text())
    print(f"{name}: selectivity {row['selectivity']:.3f}", flush=True)
    return row


def slug(name):
    """A file's name"""
    return name.replace(",", "").replace(" ", "-")


def of_run(name, seed, data, kimg, out, judge):
    """The row of one run: how well its own dimensions do, and its images"""
    network = trained(name, seed, data, kimg, out)
    G = load_generator(str(network)).eval().requires_grad_(False)
    G = G if getattr(G, "subspaces", dict)() else with_directions(G, {}, DIMS)  # raw axes
    row = measured(G, named_candidates(G) or strongest_candidates(G, DIMS), judge)
    speed = json.loads((network.parent / "stats.jsonl").read_text().splitlines()[-1])
    return row | dict(kid=quality(network, data), sec_per_kimg=speed["Timing/total_sec"]["mean"] / kimg)


def found_afterwards(network, judge):
    """{row: function} of directions found on the plain generator"""
    plain = load_generator(str(network)).eval().requires_grad_(False)

    def method(name):
        found = find_directions(plain, name, DIMS)[0]
        return measured(found, own_candidates(found, DIMS), judge)

    def labels(count):
        labeller = open_predictor(BENCH / "predictor-labels.safetensors")
        editable = as_editable(plain)
        return measured(*with_names(editable, labelled(editable, labeller, count, 0)), judge)

    def rotated(i):
        found = with_directions(plain, {}, plain.w_dim)
        return measured(found, rotated_candidates(found, DIMS, seed=i), judge)

    rows = {f"mode 0 with {name}": lambda name=name: method(name) for name in METHODS}
    rows |= {f"mode 0 with {count} labels": lambda count=count: labels(count) for count in (50, 200, 500)}
    return rows | {f"chance {i}": lambda i=i: rotated(i) for i in range(ROTATIONS)}


def table(rows, seeds):
    """Markdown. rows: {name: row}; seeds: {row with several: their names}"""
    best = max(
        (n for n in rows if " with " in n and "labels" not in n), key=lambda n: rows[n]["selectivity"], default=""
    )
    chance = [row["selectivity"] for name, row in rows.items() if name.startswith("chance")]
    lines = [f"| trained | selectivity (95 %) | above {best} | z | signed | dependency | worst | KID·10³ | s/kimg |"]
    lines.append("| --- |" + " --- |" * 8)
    for name, group in seeds.items():
        found = [rows[each] for each in group if each in rows]
        if not found:
            continue
        draws = torch.tensor([row["bootstrap"] for row in found])
        mean = lambda field, found=found: sum(row[field] for row in found) / len(found)
        spread = ", ".join(f"{row['selectivity']:.3f}" for row in found) if len(found) > 1 else ""
        said = f"{mean('selectivity'):.3f} {between(draws.mean(dim=0))} {spread}".strip()
        above = between(draws.mean(dim=0) - torch.tensor(rows[best]["bootstrap"])) if best else ""
        z = f"{z_score(mean('selectivity'), chance):+.1f}" if len(chance) > 2 and not name.startswith("chance") else ""
        worst = min((s for row in found for s in row["scores"]), key=lambda s: s["selectivity"])
        kid = " / ".join(f"{v:.1f}" for v in found[0]["kid"].values()) if "kid" in found[0] else ""
        speed = f"{mean('sec_per_kimg'):.1f}" if "sec_per_kimg" in found[0] else ""
        lines.append(
            f"| {name} | {said} | {above} | {z} | {mean('signed'):.3f} | {mean('dependency'):.3f} "
            f"| {worst['attribute']} {worst['selectivity']:.2f} | {kid} | {speed} |"
        )
    return "\n".join(lines) + "\n"


def between(draws):
    """The interval as text"""
    return "[{:.3f}, {:.3f}]".format(*interval(draws.tolist()))


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--outdir", default="comparison-out")
    parser.add_argument("--kimg", type=int, default=32)
    parser.add_argument("--rows", default="", help="compute only rows that begin so")
    args = parser.parse_args()
    out = Path(args.outdir)
    out.mkdir(parents=True, exist_ok=True)
    data, judge = out / "bench.zip", open_predictor(BENCH / "predictor-judge.safetensors")
    if not data.exists():
        from segan_ext.data.avatars import make_avatars
        from segan_ext.data.recipes import BENCH as recipe

        make_avatars(str(data), 10000, **recipe)
    rows, seeds = {}, {}
    for name in RUNS:
        for seed in range(SEEDS.get(name, 1)):
            seeds.setdefault(name, []).append(f"{name}, seed {seed}")
    order = sorted(
        ((seed, name) for name in RUNS for seed in range(SEEDS.get(name, 1))), key=lambda pair: pair[0]
    )  # first all once
    for seed, name in order:
        row = f"{name}, seed {seed}"
        if row.startswith(args.rows):
            rows[row] = once(out, row, lambda n=name, s=seed: of_run(n, s, data, args.kimg, out, judge))
    later = found_afterwards(trained("mode 0", 0, data, args.kimg, out), judge)
    for name, compute in later.items():
        seeds.setdefault("chance" if name.startswith("chance") else name, []).append(name)
        if name.startswith(args.rows):
            rows[name] = once(out, name, compute)
    (out / "comparison.md").write_text(table(rows, seeds))
    print(out / "comparison.md")


if __name__ == "__main__":
    main()
