"""What large data sets cost: `python benchmarks/data.py`; minutes, and 3 GB of disk for the million.

    python benchmarks/data.py --count=1000000 --resolution=32 --kinds=zip,shards
    python benchmarks/data.py --count=500 --resolution=1024

Makes a data set of random gradients (like photographs, PNG can do little with their noise) as a zip, a folder and tar
shards, and does, in processes of their own, what a training does before its first step: open, check every image, take
the digest; once with nothing remembered and once again. Then reads random images as a loader's process does.
"""

import argparse
import io
import json
import os
import resource
import subprocess
import sys
import tarfile
import tempfile
import time
import zipfile
from pathlib import Path

import numpy as np
import PIL.Image
import psutil

ROOT = Path(__file__).resolve().parents[1]
DIFFERENT, READ, SHARD = 50, 2000, 10_000  # pictures that are drawn; images that are read; images a tar


def pictures(resolution):
    """PNGs of gradients with noise, which are a data set's images over and over"""
    rng, (y, x) = np.random.default_rng(0), np.mgrid[0 : 1 : resolution * 1j, 0 : 1 : resolution * 1j]
    found = []
    for _ in range(DIFFERENT):
        a, b, c = rng.uniform(-1, 1, (3, 3))
        smooth = 127 + 60 * (y[..., None] * a + x[..., None] * b + np.sin(6 * x * y)[..., None] * c)
        pixels = (smooth + rng.normal(0, 6, (resolution, resolution, 3))).clip(0, 255).astype(np.uint8)
        buffer = io.BytesIO()
        PIL.Image.fromarray(pixels).save(buffer, format="PNG")
        found.append(buffer.getvalue())
    return found


def make(kind, path, count, images):
    """Writes `count` images as a folder, zip or tar shards"""
    named = ((f"{i // 1000:05d}/img{i:08d}.png", images[i % len(images)]) for i in range(count))
    if kind == "zip":
        with zipfile.ZipFile(path, "w", zipfile.ZIP_STORED) as archive:
            for name, data in named:
                archive.writestr(name, data)
        return
    path.mkdir()
    if kind == "folder":
        for name, data in named:
            (path / name).parent.mkdir(exist_ok=True)
            (path / name).write_bytes(data)
        return
    for first in range(0, count, SHARD):
        with tarfile.open(path / f"{first // SHARD:05d}.tar", "w") as archive:
            for name, data in (next(named) for _ in range(min(SHARD, count - first))):
                entry = tarfile.TarInfo(name)
                entry.size = len(data)
                archive.addfile(entry, io.BytesIO(data))


def measure(path):
    """In a process of its own: seconds to open, check and know the digest, images read a second, memory"""
    sys.path.insert(0, str(ROOT / "stylegan2_ada"))
    from training.dataset import ImageFolderDataset

    before, began = psutil.Process().memory_full_info().uss, time.monotonic()
    data = ImageFolderDataset(path=path)
    opened = time.monotonic()
    data.check_images()
    data.digest()
    ready = time.monotonic()
    for i in np.random.default_rng(0).integers(len(data), size=READ):
        data[i]
    rate, memory = READ / (time.monotonic() - ready), psutil.Process().memory_full_info().uss - before
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    print(json.dumps([opened - began, ready - opened, rate, memory / 2**20, peak / 2**10]))


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--count", type=int, default=200_000)
    parser.add_argument("--resolution", type=int, default=32)
    parser.add_argument("--kinds", default="zip,folder,shards")
    parser.add_argument("--of", help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.of:
        return measure(args.of)
    print("| images as | | open, s | check and digest, s | images/s read | memory, MB | peak, MB |")
    print("| --- | --- | --- | --- | --- | --- | --- |")
    with tempfile.TemporaryDirectory() as folder:
        images, env = pictures(args.resolution), os.environ | {"DNNLIB_CACHE_DIR": str(Path(folder) / "cache")}
        for kind in args.kinds.split(","):
            path = Path(folder) / ("data.zip" if kind == "zip" else kind)
            make(kind, path, args.count, images)
            for attempt in ("first", "again"):
                command = [sys.executable, __file__, f"--of={path}"]
                done = subprocess.run(command, env=env, check=True, capture_output=True, text=True)
                opened, checked, rate, memory, peak = json.loads(done.stdout)
                cells = f"{opened:.2f} | {checked:.2f} | {rate:.0f} | {memory:.0f} | {peak:.0f}"
                print(f"| {kind} | {attempt} | {cells} |", flush=True)


if __name__ == "__main__":
    main()
