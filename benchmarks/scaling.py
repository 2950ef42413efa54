"""What a second process of one thread brings: `python benchmarks/scaling.py`, some minutes.

Trains the same short run with one and with two processes (`--gpus`) alternately, and prints images a second of two over
one, and the efficiency, half of that.
"""

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
OPTIONS = ["--cfg=segan-fast", "--workers=0", "--grid=2x2", "--snap=100", "--kimg=2", "--batch=32"]


def seconds_per_kimg(count, data, out):
    """Of the second tick, which is whole"""
    options = [*OPTIONS, f"--gpus={count}", f"--data={data}", f"--outdir={out}"]
    env = dict(os.environ, OMP_NUM_THREADS="1", OMP_WAIT_POLICY="passive")
    subprocess.run([sys.executable, ROOT / "train_segan.py", *options], env=env, check=True, stdout=subprocess.DEVNULL)
    newest = sorted(Path(out).glob("*/stats.jsonl"))[-1]
    return json.loads(newest.read_text().splitlines()[-1])["Timing/sec_per_kimg"]["mean"]


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--pairs", type=int, default=3)
    pairs, ratios = parser.parse_args().pairs, []
    with tempfile.TemporaryDirectory() as folder:
        data = Path(folder) / "avatars.zip"
        avatars = ["-m", "segan_ext", "avatars", "--count=200", "--resolution=32", f"--dest={data}"]
        subprocess.run([sys.executable, *avatars], cwd=ROOT, check=True, stdout=subprocess.DEVNULL)
        for _ in range(pairs):
            one, two = (seconds_per_kimg(count, data, Path(folder) / "runs") for count in (1, 2))
            ratios.append(one / two)
            print(f"two processes: {one / two:.2f} times the images a second of one", flush=True)
    print(f"efficiency of two processes: {statistics.median(ratios) / 2:.2f}")


if __name__ == "__main__":
    main()
