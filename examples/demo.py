"""Trains a small SEGAN on the built-in avatars and draws what it has learned: `make demo`.

Everything here is a call of the project's own commands, printed before it runs, so that each can be repeated by hand.
"""

import json
import shlex
import subprocess
import sys
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
OUT = ROOT / "demo-out"

# A set that 32×32 pixels and ten minutes can show: ten factors in plain sight.
DATA = "--recipe=bench --count=6000"
# What a training of minutes separates; forms of hair and glasses take longer.
COLOURS = "--dims=backgroundColor,hairColor,skinColor,clothingColor"
# Narrow layers, no augmentation (there is no lack of images), and faster learning than for a long run.
TRAIN = "--cfg=segan-mode2 --channels=64 --channel-base=1024 --aug=noaug --gamma=1 --lrate=0.004 --ema=2"
SCHEDULE = "--kimg=55 --tick=5 --snap=4 --grid=4x4"


def run(script, *args):
    command = [*script.split(), *args]
    print(f"\n$ python {shlex.join(command)}", flush=True)
    subprocess.run([sys.executable, *command], cwd=ROOT, check=True)


def main():
    start = time.time()
    OUT.mkdir(exist_ok=True)
    data, runs = OUT / "avatars.zip", OUT / "training-runs"
    if not data.exists():
        run("-m segan_ext avatars", *DATA.split(), f"--dest={data.relative_to(ROOT)}")
    run("train_segan.py", *TRAIN.split(), *SCHEDULE.split(), f"--data={data.relative_to(ROOT)}", f"--outdir={runs}")
    run_dir = max(runs.iterdir())
    snapshot = max(run_dir.glob("network-snapshot-*.pkl"))
    samples, traversal = OUT / "samples.png", OUT / "traversal.png"
    run("-m segan_ext samples", f"--network={snapshot}", f"--dest={samples}", "--grid=4x4", "--trunc=0.8")
    named, names = OUT / "named.pkl", OUT / "named.png"
    run("-m segan_ext explore", f"--network={snapshot}", f"--dest={traversal}", "--rows=6")
    run(
        "-m segan_ext discover",
        f"--network={snapshot}",
        "--method=labels",
        f"--labels={data}",
        "--steps=40",
        f"--dest={named}",
    )
    run("-m segan_ext explore", f"--network={named}", f"--dest={names}", COLOURS)

    options = json.loads((run_dir / "training_options.json").read_text())
    print(f"\nA SEGAN trained on {options['total_kimg']} kimg in {(time.time() - start) / 60:.1f} minutes. Look at")
    pictures = (("its samples", samples), ("directions with names", names), ("its strongest dimensions", traversal))
    for what, path in (*pictures, ("the network", named)):
        print(f"  {what + ':':<26s} {path.relative_to(ROOT)}")


if __name__ == "__main__":
    main()
