"""Generators of every mode, trained alike and compared by what their dimensions mean: the tables of docs/results.md.

    python benchmarks/comparison.py --outdir=comparison-out            # hours; it goes on where it was stopped
    python benchmarks/comparison.py --outdir=comparison-out --rows=named
    python benchmarks/comparison.py --jobs=16 --batch=64 --ema=8 --device=cuda     # minutes, then an hour of measuring

Each row is a run of train_segan.py on `avatars --recipe=bench` with the recipe segan-fast, measured by the bench's
judge, which nothing else has seen, and by KID with detectors that no training here uses. All run for as many kimg.
Directions that are found afterwards are found on the run of mode 0.
"""

import argparse
import concurrent.futures
import json
import subprocess
import sys
import time
from pathlib import Path

import torch
from tqdm import tqdm

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))
sys.path.insert(0, str(ROOT / "benchmarks"))

import segan_ext.host  # noqa: E402

segan_ext.host.activate()

from bench import kernel_distances  # noqa: E402
from meaning import BENCH, DIMS, METHODS, ROTATIONS, labelled, with_names  # noqa: E402
from study import avatars, trained  # noqa: E402

from segan_ext.directions import find_directions  # noqa: E402
from segan_ext.directions.named import as_editable  # noqa: E402
from segan_ext.directions.subspaces import with_directions  # noqa: E402
from segan_ext.metrics import codes  # noqa: E402
from segan_ext.metrics.attributes import known_attributes, open_predictor  # noqa: E402
from segan_ext.metrics.selectivity import (  # noqa: E402
    Ruler,
    control_candidates,
    effects_of,
    entropies,
    interval,
    measure,
    own_candidates,
    rotated_candidates,
    rotated_controls,
    z_score,
)
from snapshots.load import load_generator  # noqa: E402
from torch_utils import cached_weights  # noqa: E402
from training.dataset import ImageFolderDataset  # noqa: E402

COMMON = ["--cfg=segan-fast", "--workers=0", "--snap=8"]
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
    "eigen, info 0.3": ["--mode=eigen", "--info=0.3"],
    "eigen, info 1": ["--mode=eigen", "--info=1"],
    "eigen, two a block": ["--mode=eigen", "--own-dim=2"],
    "named, 50 labels": [*NAMED, "--num-labels=50"],
    "named, 200 labels": [*NAMED, "--num-labels=200"],
    "named, 500 labels": [*NAMED, "--num-labels=500"],
}
DETECTORS, KID_IMAGES = ("efficientnet-lite0", "pixel-pyramid"), 1000
OWN_ROTATIONS = 5  # of own coordinates; the others' chance is of directions of mode 0
SEEDS = dict.fromkeys(("mode 0", "eigen", "named, 50 labels", "named, 200 labels"), 3)  # the others: one


def newest_of(name, seed, out, args):
    """The newest snapshot of a run, which is started, or continued, where it has not come to its end."""
    chosen = {key: getattr(args, key) for key in ("batch", "ema", "device")}
    options = [*COMMON, *RUNS[name], *(f"--{key}={value}" for key, value in chosen.items() if value is not None)]
    outdir = out / "runs" / f"{slug(name)}-seed{seed}"
    run_dir = trained(options, out / "bench.zip", args.kimg, seed, outdir, stdout=subprocess.DEVNULL)
    return sorted(run_dir.glob("network-snapshot-*.pkl"))[-1]


def measured(G, candidates, judge):
    """A row of selectivity, disentanglement and completeness as JSON holds it"""
    ruler = Ruler(G, judge)
    with cached_weights.enabled():
        found = measure(ruler, candidates)
        both = dict(zip(("disentanglement", "completeness"), entropies(effects_of(ruler, candidates), len(candidates))))
    row = found._asdict() | both
    return row | dict(scores=[score._asdict() for score in found.scores], candidates=len(candidates))


def read_by_encoder(G, data):
    """MIG and FactorVAE's score, of the factors that the bench was drawn from"""
    attributes, rows = known_attributes(data)
    encoder = codes.train_encoder(G, DIMS, count=tqdm)
    said = codes.encoded(encoder, data, len(rows)), encoder.widths
    gaps = codes.information_gaps(*said, attributes, rows)
    held = codes.held_factor_accuracy(*said, attributes, rows, torch.Generator().manual_seed(0))
    return dict(mig=sum(gaps) / len(gaps), factorvae=held)


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


def of_run(network, out, judge, with_encoder):
    """The row of one run: how well its own dimensions do, and its images"""
    G = load_generator(str(network)).eval().requires_grad_(False)
    distances = kernel_distances(G, out / "bench.zip", KID_IMAGES, DETECTORS, others=False)
    kid = {name: kinds["generated"] for name, kinds in distances.items()}
    G = G if getattr(G, "subspaces", dict)() else with_directions(G, {}, DIMS)  # raw axes
    controls = control_candidates(G, DIMS)
    row = measured(G, controls, judge)
    if getattr(G, "own_controls", list)():
        rotated = [rotated_controls(G, len(controls), seed=i) for i in range(OWN_ROTATIONS)]
        row |= dict(chance=[measured(G, each, judge)["selectivity"] for each in rotated])
    if with_encoder:
        row |= read_by_encoder(G, ImageFolderDataset(str(out / "bench.zip"), use_labels=True))
    last = json.loads((network.parent / "stats.jsonl").read_text().splitlines()[-1])
    spent = last["Timing/total_sec"]["mean"] / last["Progress/kimg"]["mean"]
    return row | dict(kid=kid, sec_per_kimg=spent)


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

    def through_all(i):
        found = as_editable(plain)
        return measured(found, rotated_controls(found, 10, seed=i), judge)  # as many as attributes

    rows = {f"mode 0 with {name}": lambda name=name: method(name) for name in METHODS}
    rows |= {f"mode 0 with {count} labels": lambda count=count: labels(count) for count in (50, 200, 500)}
    rows |= {f"chance {i}": lambda i=i: rotated(i) for i in range(ROTATIONS)}
    return rows | {f"chance of names {i}": lambda i=i: through_all(i) for i in range(ROTATIONS)}


COLUMNS = "trained|candidates|selectivity (95 %)|above {best}|z|signed|dependency|worst|disentanglement|completeness"
COLUMNS += "|MIG|FactorVAE|" + "|".join(f"KID·10³ {name}, above mode 0" for name in DETECTORS) + "|s/kimg"


def table(rows, seeds):
    """Markdown. rows: {name: row}; seeds: {row with several: their names}"""
    best = max(
        (n for n in rows if " with " in n and "labels" not in n), key=lambda n: rows[n]["selectivity"], default=""
    )
    lines = [f"| {COLUMNS.format(best=best).replace('|', ' | ')} |", "| --- |" + " --- |" * COLUMNS.count("|")]
    groups = {name: [rows[each] for each in group if each in rows] for name, group in seeds.items()}
    for name, group in groups.items():
        if group:
            lines.append("| " + " | ".join(line(name, group, rows.get(best), groups)) + " |")
    return "\n".join(lines) + "\n"


def line(name, group, best, groups):
    """What the table says of runs that differ in their seeds"""

    def mean(field):
        known = [row[field] for row in group if field in row]
        return sum(known) / len(known)

    number = lambda field: f"{mean(field):.2f}" if field in group[0] else ""
    draws = torch.tensor([row["bootstrap"] for row in group]).mean(dim=0)
    each = " ".join(f"{row['selectivity']:.3f}" for row in group) if len(group) > 1 else ""
    of = "chance of names" if name.endswith("labels") else "chance"
    chance = [row["selectivity"] for row in groups.get(of, [])]
    chance = [value for row in group for value in row.get("chance", [])] or chance
    worst = min((s for row in group for s in row["scores"]), key=lambda s: s["selectivity"])
    return [
        name,
        str(group[0]["candidates"]),
        f"{mean('selectivity'):.3f} {between(draws)} {each}".strip(),
        between(draws - torch.tensor(best["bootstrap"])) if best else "",
        f"{z_score(mean('selectivity'), chance):+.1f}" if len(chance) > 2 and not name.startswith("chance") else "",
        f"{mean('signed'):.3f}",
        f"{mean('dependency'):.3f}",
        f"{worst['attribute']} {worst['selectivity']:.2f}",
        *map(number, ("disentanglement", "completeness", "mig", "factorvae")),
        *(distance(group, groups["mode 0"], detector) for detector in DETECTORS),
        f"{mean('sec_per_kimg'):.1f}" if "sec_per_kimg" in group[0] else "",
    ]


def distance(group, plain, detector):
    """KID, and what it is above mode 0's: means over runs, with 95 % intervals over the same halves of the images"""
    if "kid" not in group[0]:
        return ""
    of = lambda rows: torch.tensor([row["kid"][detector] for row in rows]).mean(dim=0)
    text = f"{of(group).mean():.4g}"
    if group is plain or not plain:
        return text
    return "{} [{:.3g}, {:.3g}]".format(text, *interval((of(group) - of(plain)).tolist()))


def between(draws):
    """The interval as text"""
    return "[{:.3f}, {:.3f}]".format(*interval(draws.tolist()))


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--outdir", default="comparison-out")
    parser.add_argument("--kimg", type=int, default=50)
    parser.add_argument("--batch", type=int, help="of all runs (the recipe's, where nothing is given; as the next two)")
    parser.add_argument("--ema", type=float, help="kimg")
    parser.add_argument("--device")
    parser.add_argument("--jobs", type=int, default=1, help="runs that train at a time")
    parser.add_argument("--rows", default="", help="compute only rows that begin so")
    parser.add_argument("--only-train", action="store_true", help="measure nothing")
    args = parser.parse_args()
    out = Path(args.outdir).resolve()
    out.mkdir(parents=True, exist_ok=True)
    avatars(out / "bench.zip", 10_000, 32)
    seeds = {name: [f"{name}, seed {seed}" for seed in range(SEEDS.get(name, 1))] for name in RUNS}
    pairs = [(name, seed) for seed in range(max(SEEDS.values())) for name in RUNS if seed < SEEDS.get(name, 1)]
    pairs = [pair for pair in pairs if f"{pair[0]}, seed {pair[1]}".startswith(args.rows) or pair == ("mode 0", 0)]
    with concurrent.futures.ThreadPoolExecutor(args.jobs) as pool:
        networks = list(pool.map(lambda pair: newest_of(*pair, out, args), pairs))
    if args.only_train:
        return
    judge, rows = open_predictor(BENCH / "predictor-judge.safetensors"), {}
    computed = {}
    for (name, seed), network in zip(pairs, networks):
        with_encoder = name in SEEDS and seed == 0  # minutes each
        computed[f"{name}, seed {seed}"] = lambda n=network, e=with_encoder: of_run(n, out, judge, e)
    for name, compute in found_afterwards(networks[pairs.index(("mode 0", 0))], judge).items():
        seeds.setdefault(name.rstrip(" 0123456789") if name.startswith("chance") else name, []).append(name)
        computed[name] = compute
    for name, compute in computed.items():
        if name.startswith(args.rows):
            rows[name] = once(out, name, compute)
    (out / "comparison.md").write_text(table(rows, seeds))
    print(out / "comparison.md")


if __name__ == "__main__":
    main()
