"""Makes what benchmarks/bench holds, and says how good its images are: `python benchmarks/bench.py --outdir=bench-out`.

Draws the data, trains the generator (it goes on where it was interrupted) and the two predictors, exports them into the
output folder, and measures the kernel distance of generated images to the data beside that of other real ones, by two
detectors that no training here uses. Half a day on two cores; `--only=kid` takes the files of benchmarks/bench and some
minutes.
"""

import argparse
import functools
import subprocess
import sys
from pathlib import Path

import numpy as np
import torch

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

import segan_ext.host  # noqa: E402

segan_ext.host.activate()

from metrics.detectors import open_detector  # noqa: E402
from metrics.kernel_inception_distance import kernel_distance  # noqa: E402
from segan_ext.latents import random_ws  # noqa: E402
from segan_ext.metrics import attributes  # noqa: E402
from snapshots.load import load_generator  # noqa: E402
from training.dataset import ImageFolderDataset  # noqa: E402

TRAIN = "--cfg=segan-mode0 --channels=64 --channel-base=1024 --aug=noaug --gamma=1 --lrate=0.004 --ema=4 --kimg=400"
SETS = {"bench.zip": (0, 10000), "bench1.zip": (1, 50000)}  # seed, images
PREDICTORS = {  # name: (data, kimg, seed, width)
    "predictor-labels": ("bench.zip", 120, 0, 64),
    "predictor-judge": ("bench1.zip", 200, 1, 96),
}
DETECTORS = ("efficientnet-lite0", "vgg-hed")
IMAGES, SUBSETS = 2000, 100  # of each kind; distances between random halves of them


def draw(out, names):
    """The data sets that are not there yet"""
    for name in names:
        seed, count = SETS[name]
        if not (out / name).exists():
            options = ["--recipe=bench", f"--seed={seed}", f"--count={count}", f"--dest={out / name}"]
            subprocess.run([sys.executable, "-m", "segan_ext", "avatars", *options], cwd=ROOT, check=True)


def train_generator(out):
    runs = out / "training-runs"
    resume = ["--resume=latest"] if runs.exists() and any(runs.iterdir()) else []
    command = [sys.executable, "train_segan.py", *TRAIN.split(), f"--data={out / 'bench.zip'}", f"--outdir={runs}"]
    subprocess.run([*command, *resume], cwd=ROOT, check=True)
    snapshot = max(runs.glob("*/network-snapshot-*.pkl"))
    export = ["export", f"--network={snapshot}", f"--dest={out / 'generator.safetensors'}"]
    subprocess.run([sys.executable, "-m", "segan_ext", *export], cwd=ROOT, check=True)


def train_predictor(out, name):
    source, kimg, seed, width = PREDICTORS[name]
    if (out / f"{name}.safetensors").exists():
        return
    data = ImageFolderDataset(str(out / source), use_labels=True)
    known, rows = attributes.known_attributes(data)
    network, skill = attributes.train(data, known, rows, kimg, seed=seed, width=width)
    predictor = attributes.Predictor(known, network, skill, name)
    attributes.save_predictor(predictor, out / f"{name}.safetensors", half=True)
    print(name, {attribute: round(value, 3) for attribute, value in skill.items()})


@functools.cache
def real_features(path, detector, first, count):
    """[count, F] of the images of a data set from the `first` on"""
    data = ImageFolderDataset(path)
    batches = (range(i, min(i + 50, first + count)) for i in range(first, first + count, 50))
    return features((torch.from_numpy(np.stack([data[i][0] for i in batch])).float() for batch in batches), detector)


def features(batches, detector):
    """[N, F] of images [n, C, H, W] in [0, 255]"""
    detect = open_detector(detector, None)
    return np.concatenate([detect(images, return_features=True).numpy() for images in batches])


@torch.no_grad()
def kernel_distances(G, path, count=IMAGES, detectors=DETECTORS, others=True):
    """{detector: {"generated", "other real": KID · 1000 of halves of `count` images to halves of as many real ones}}

    The halves are the same ones for every G, so that differences of two generators' are of the same real images.
    """
    fakes = lambda ws: (G.synthesis(ws, noise_mode="const") * 127.5 + 127.5).clamp(0, 255).round()
    found = {}
    for name in detectors:
        first = real_features(str(path), name, 0, count)
        kinds = {"generated": features((fakes(ws) for ws in random_ws(G, count).split(50)), name)}
        kinds |= {"other real": real_features(str(path), name, count, count)} if others else {}
        np.random.seed(0)
        found[name] = {
            what: [kernel_distance(each, first, 1, count // 2) * 1000 for _ in range(SUBSETS)]
            for what, each in kinds.items()
        }
    return found


def kid(out, generator):
    """Says the distances, and their spreads over halves"""
    for name, kinds in kernel_distances(load_generator(str(generator)).eval(), out / "bench.zip").items():
        for what, each in kinds.items():
            low, high = np.percentile(each, [2.5, 97.5])
            print(f"{name}: {what} {np.mean(each):.3f}, 95 % of halves between {low:.3f} and {high:.3f}", flush=True)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--outdir", default="bench-out")
    parser.add_argument("--only", choices=["kid"])
    args = parser.parse_args()
    out = Path(args.outdir).resolve()
    out.mkdir(parents=True, exist_ok=True)
    if args.only == "kid":
        draw(out, ["bench.zip"])
        kid(out, ROOT / "benchmarks" / "bench" / "generator.safetensors")
        return
    draw(out, SETS)
    train_generator(out)
    for name in PREDICTORS:
        train_predictor(out, name)
    kid(out, out / "generator.safetensors")


if __name__ == "__main__":
    main()
