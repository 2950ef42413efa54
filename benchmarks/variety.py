"""What names cost in variety: generators with and without them, trained alike on data with more in them than names.

    python benchmarks/variety.py --outdir=variety-out                       # hours; it goes on where it was stopped
    python benchmarks/variety.py --outdir=variety-out --benches=avatars --seeds=1 --kimg=25
    python benchmarks/variety.py --outdir=variety-out --data=photos.zip --labels=photos.csv     # pictures of your own

Of the avatars three of ten factors are labelled, of the toons four of twelve, each of 200 images, of the emoji three
attributes that were answered for by hand. A judge, which has seen no generator and other images, reads all factors off
3000 generated images and 3000 real ones:

- recall, precision, density and coverage (k = 5) by efficientnet-lite0, and what other real images give;
- unnamed: of each factor without a name, how far its values are distributed otherwise (total variation, 0 to 1; numbers
  in ten bins of equal shares), mean and worst; given names: the same among images of one value of a named factor;
- combinations: how many different ones of the unnamed factors' values (numbers in three) there are, of those in the
  real images;
- selectivity of the named factors' controls, among all factors.
"""

import argparse
import concurrent.futures
import csv
import functools
import itertools
import json
import subprocess
import sys
import zipfile
from pathlib import Path

import torch

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))
sys.path.insert(0, str(ROOT / "benchmarks"))

import segan_ext.host  # noqa: E402

segan_ext.host.activate()

from study import trained  # noqa: E402

from metrics.detectors import open_detector  # noqa: E402
from metrics.precision_recall import Likeness, likeness  # noqa: E402
from segan_ext.metrics.attributes import Attribute, Predictor, open_predictor  # noqa: E402
from segan_ext.metrics.selectivity import Ruler, measure, named_candidates  # noqa: E402
from snapshots.load import load_generator  # noqa: E402
from torch_utils import cached_weights  # noqa: E402
from training.dataset import ImageFolderDataset  # noqa: E402

NAMED = {  # of each recipe of avatars, the factors that are labelled
    "bench": ["hairVariant", "backgroundColor", "rotate"],
    "toons": ["hairVariant", "clothesColor", "skinColor", "rotate"],
}
RUNS = {"mode 0": ["--cfg=segan-fast", "--mode=0"], "named": ["--cfg=segan-named"]}
IMAGES, NEIGHBOURS, BINS, FEW = 3000, 5, 10, 3
JUDGES = {"bench": ROOT / "benchmarks" / "bench" / "predictor-judge.safetensors"}


# ---------------------------------------------------------------------------------------------------------------------
# Data


def avatars(path, recipe, seed, count=10_000):
    """The zip of a recipe at 32×32, drawn where it is not there yet"""
    if not path.exists():
        options = [f"--recipe={recipe}", "--resolution=32", f"--seed={seed}", f"--count={count}", f"--dest={path}"]
        subprocess.run([sys.executable, "-m", "segan_ext", "avatars", *options], cwd=ROOT, check=True)
    return path


def label_some(path, csv_path, names, count):
    """Writes what the first `count` avatars of a zip were drawn from, for these factors"""
    with zipfile.ZipFile(path) as archive:
        factors = json.loads(archive.read("dataset.json"))["factors"]
        images = sorted(name for name in archive.namelist() if name.endswith(".png"))
    with open(csv_path, "w", newline="") as file:
        rows = csv.writer(file)
        rows.writerow(["image", *names])
        for image, item in itertools.islice(zip(images, factors["items"]), count):
            rows.writerow([image, *(_said(factors, name, item) for name in names)])


def _said(factors, name, item):
    value, values = item[factors["names"].index(name)], factors["values"].get(name)
    return values[value] if values else value


def emoji(out):
    """(zip of the emoji at 32×32, CSV of one half of what was answered for by hand, judge that knows the other)"""
    sys.path.insert(0, str(ROOT / "examples"))
    from emoji import data_set

    data, csv_path = data_set(out, 32), out / "emoji-100.csv"
    with open(ROOT / "benchmarks" / "emoji" / "pictures.csv", newline="") as file:
        header, *rows = csv.reader(file)
    half = len(rows) // 2
    with open(csv_path, "w", newline="") as file:
        csv.writer(file).writerows([header, *rows[:half]])
    return data, csv_path, judge_of(data, header[1:], rows[half:])


def judge_of(data, names, rows):
    """A predictor that has learned from rows (image, value, value, …): logistic regressions on efficientnet-lite0"""
    from sklearn.linear_model import LogisticRegression

    images = ImageFolderDataset(str(data))
    places = {name: i for i, name in enumerate(images.image_names())}
    x = features(torch.stack([torch.from_numpy(images[places[row[0]]][0]) for row in rows]))
    fits = [LogisticRegression(C=0.01, max_iter=1000).fit(x, column) for column in list(zip(*rows))[1:]]
    attributes = [Attribute(name, tuple(fit.classes_)) for name, fit in zip(names, fits)]

    def network(pixels):
        found = features(pixels.round().to(torch.uint8)).numpy()
        said = [fit.predict_log_proba(found) for fit in fits]
        return torch.cat([torch.from_numpy(each) for each in said], dim=1).float()

    return Predictor(attributes, network)


# ---------------------------------------------------------------------------------------------------------------------
# Measures


def pictures(data, first, count):
    """uint8 [count, 3, H, W]: images of a data set in an order drawn once"""
    order = torch.randperm(len(data), generator=torch.Generator().manual_seed(0))[first : first + count]
    return torch.stack([torch.from_numpy(data[int(i)][0]) for i in order])


@torch.no_grad()
def generated(G, count):
    """uint8 [count, 3, H, W]"""
    z = torch.randn(count, G.z_dim, generator=torch.Generator().manual_seed(1))
    with cached_weights.enabled():
        return torch.cat([(G(part, None) * 127.5 + 128).clamp(0, 255).to(torch.uint8) for part in z.split(50)])


@torch.no_grad()
def features(images):
    """[N, F]"""
    detector = open_detector("efficientnet-lite0", None)
    return torch.cat([detector(part) for part in images.split(50)]).float()


@torch.no_grad()
def readings(judge, images):
    """{factor: index of the value [N], or number [N]} of those that the judge can tell"""
    parts = [judge(part / 127.5 - 1) for part in images.float().split(100)]
    said = {name: torch.cat([part[name] for part in parts]) for name in judge.reliable()}
    return {name: x.argmax(dim=1) if x.shape[1] > 1 else x[:, 0].contiguous() for name, x in said.items()}


def binned(said, real, bins):
    """Readings as whole numbers: values as they are, numbers in bins of equal shares of the real ones"""
    edges = torch.linspace(0, 1, bins + 1)[1:-1]
    return {k: x if x.dtype == torch.int64 else torch.bucketize(x, real[k].quantile(edges)) for k, x in said.items()}


def total_variation(a, b):
    """½ Σ |p − q| of two samples of whole numbers, 0 to 1; 1 if one is empty"""
    if not (len(a) and len(b)):
        return 1.0
    size = int(max(a.max(), b.max())) + 1
    p, q = (x.bincount(minlength=size) / len(x) for x in (a, b))
    return float((p - q).abs().sum() / 2)


def variety(said, real, named):
    """What the images show of factors without a name: a row of the table"""
    fine, fine_real = binned(said, real, BINS), binned(real, real, BINS)
    few, few_real = binned(said, real, FEW), binned(real, real, FEW)
    unnamed = [name for name in real if name not in named]
    if not unnamed:
        return {}
    alone = {name: total_variation(fine[name], fine_real[name]) for name in unnamed}
    given = [
        total_variation(fine[name][few[by] == value], fine_real[name][few_real[by] == value])
        for name, by in itertools.product(unnamed, [name for name in named if name in real])
        for value in few_real[by].unique()
    ]
    combinations = [len(torch.stack([x[name] for name in unnamed], dim=1).unique(dim=0)) for x in (few, few_real)]
    mean = lambda numbers: sum(numbers) / len(numbers)
    return dict(
        unnamed=mean(alone.values()),
        worst=max(alone.values()),
        given_names=mean(given),
        combinations=combinations[0] / combinations[1],
        factors=alone,
    )


def row_of(images, real, judge, named):
    """All that is said of some images. real: (images, features, readings)"""
    row = likeness(real[1], features(images), NEIGHBOURS)._asdict()
    return row | (variety(readings(judge, images), real[2], named) if judge else {})


def measured(network, real, judge, named):
    G = load_generator(str(network)).eval().requires_grad_(False)
    row = row_of(generated(G, IMAGES), real, judge, named)
    if judge and getattr(G, "own_controls", list)():
        with cached_weights.enabled():
            scores = measure(Ruler(G, judge), named_candidates(G)).scores
        scores = [score.selectivity for score in scores if score.attribute in named]
        row |= dict(selectivity=sum(scores) / len(scores), worst_name=min(scores))
    return row


# ---------------------------------------------------------------------------------------------------------------------
# Table

COLUMNS = [*Likeness._fields, "unnamed", "worst", "given_names", "combinations", "selectivity", "worst_name"]


def table(rows):
    """Markdown. rows: {name: [a row a seed]}"""
    columns = [column for column in COLUMNS if any(column in row for group in rows.values() for row in group)]
    lines = [f"| trained | {' | '.join(columns)} |".replace("_", " "), "| --- |" + " --- |" * len(columns)]
    for name, group in rows.items():
        lines.append("| " + " | ".join([name, *(_cell([row[c] for row in group if c in row]) for c in columns)]) + " |")
    return "\n".join(lines) + "\n"


def _cell(values):
    """Mean, and of several the values themselves"""
    if not values:
        return ""
    each = f" ({', '.join(f'{value:.2f}' for value in values)})" if len(values) > 1 else ""
    return f"{sum(values) / len(values):.3f}{each}"


def once(path, compute):
    """What compute() gives, from its file where it has been computed before"""
    if not path.exists():
        path.write_text(json.dumps(compute(), indent=1))
    return json.loads(path.read_text())


def bench(out, name, data_path, labels, named, judge, args):
    """Trains and measures on one data set; returns the table."""
    out.mkdir(parents=True, exist_ok=True)
    runs = dict(RUNS, **{each: ["--cfg=segan-named", *each.split()] for each in args.also})
    jobs = list(itertools.product(runs, range(args.seeds)))

    def train(job):
        which, seed = job
        options = [*runs[which], "--workers=0", "--snap=10"]
        options += [] if which == "mode 0" else [f"--labels={labels}"]
        return trained(options, data_path, args.kimg, seed, out / f"{which.replace(' ', '')}-{seed}")

    with concurrent.futures.ThreadPoolExecutor(args.jobs) as pool:
        run_dirs = dict(zip(jobs, pool.map(train, jobs)))
    data = ImageFolderDataset(str(data_path))
    half = min(IMAGES, len(data) // 2)
    real, other = pictures(data, 0, half), pictures(data, half, half)
    real = (real, features(real), readings(judge, real) if judge else None)
    rows = {"other real images": [once(out / "real.json", lambda: row_of(other, real, judge, named))]}
    for (which, seed), run_dir in run_dirs.items():
        network = sorted(run_dir.glob("network-snapshot-*.pkl"))[-1]
        compute = functools.partial(measured, network, real, judge, named)
        rows.setdefault(which, []).append(once(out / f"{which.replace(' ', '')}-{seed}.json", compute))
    (out / "variety.md").write_text(table(rows))
    print(f"{name}, {args.kimg} kimg, seeds 0 to {args.seeds - 1}:\n\n{table(rows)}", flush=True)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--outdir", default="variety-out")
    parser.add_argument("--benches", default="avatars,toons,emoji")
    parser.add_argument("--data", help="pictures of your own, in place of the benches")
    parser.add_argument("--labels", help="their labels, a CSV")
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--kimg", type=int, default=50)
    parser.add_argument("--num-labels", type=int, default=200)
    parser.add_argument("--jobs", type=int, default=1, help="runs that train at a time")
    parser.add_argument("--also", action="append", default=[], help="options of one more row, such as --bottleneck=1")
    args = parser.parse_args()
    out = Path(args.outdir).resolve()
    out.mkdir(parents=True, exist_ok=True)
    if args.data:
        return bench(out / "own", args.data, Path(args.data).resolve(), Path(args.labels).resolve(), [], None, args)
    for name in args.benches.split(","):
        if name == "emoji":
            data, labels, judge = emoji(out)
            bench(out / name, name, data, labels, [a.name for a in judge.attributes], judge, args)
            continue
        recipe = {"avatars": "bench"}.get(name, name)
        data = avatars(out / f"{recipe}.zip", recipe, seed=0)
        labels = out / f"{recipe}-{args.num_labels}.csv"
        label_some(data, labels, NAMED[recipe], args.num_labels)
        judge = open_predictor(JUDGES.get(recipe) or avatars(out / f"{recipe}-judge.zip", recipe, seed=7))
        bench(out / name, name, data, labels, NAMED[recipe], judge, args)


if __name__ == "__main__":
    main()
