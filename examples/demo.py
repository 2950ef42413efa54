"""Trains a small SEGAN whose dimensions have names, and draws what they do: `make demo`.

Everything here is a call of the project's own commands, printed before it runs, so that each can be repeated by hand.
"""

import json
import shlex
import subprocess
import sys
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))
OUT = ROOT / "demo-out"

# A set that 32×32 pixels and ten minutes can show: ten factors in plain sight.
DATA = "--recipe=bench --count=6000"
# Two hundred of the images are labelled; the others show what there is.
TRAIN = "--cfg=segan-named --labels=factors --num-labels=200"
SCHEDULE = "--kimg=50 --tick=5 --snap=5 --grid=4x4"

IMAGES, NEIGHBOURS = 1000, 5  # of each kind, to compare how varied they are

# A judge that has seen neither these images nor this generator, and what it said (docs/results.md).
JUDGE = ROOT / "benchmarks" / "bench" / "predictor-judge.safetensors"
MEASURED, MEASURED_RECALL = "one run gave 0.748", "one run gave 0.925"
LEAST, LEAST_RECALL = 0.71, 0.85  # other processors and versions of PyTorch round differently: theirs is another run


def selectivity(network):
    """The share of all effects that a named control has on its own attribute, 0 to 1: the mean over attributes."""
    import segan_ext
    from segan_ext.metrics.attributes import open_predictor
    from segan_ext.metrics.selectivity import Ruler, measure, named_candidates
    from torch_utils import cached_weights

    G = segan_ext.load_generator(str(network)).eval().requires_grad_(False)
    with cached_weights.enabled():
        return measure(Ruler(G, open_predictor(JUDGE)), named_candidates(G)).selectivity


def recalls(network, data):
    """The share of real images that lie among generated ones, and among as many other real ones (docs/metrics.md)."""
    import torch

    import segan_ext
    from metrics.detectors import open_detector
    from metrics.precision_recall import likeness
    from torch_utils import cached_weights
    from training.dataset import ImageFolderDataset

    G, detector = segan_ext.load_generator(str(network)).eval(), open_detector("efficientnet-lite0", None)
    images = ImageFolderDataset(str(data))
    order = torch.randperm(len(images), generator=torch.Generator().manual_seed(0))[: 2 * IMAGES]
    pictures = torch.stack([torch.from_numpy(images[int(i)][0]) for i in order])
    z = torch.randn(IMAGES, G.z_dim, generator=torch.Generator().manual_seed(0))
    with torch.no_grad(), cached_weights.enabled():
        generated = torch.cat([(G(part, None) * 127.5 + 128).clamp(0, 255).to(torch.uint8) for part in z.split(50)])
        features = [torch.cat([detector(part) for part in x.split(50)]) for x in (*pictures.split(IMAGES), generated)]
    real, other, generated = features
    return likeness(real, generated, NEIGHBOURS).recall, likeness(real, other, NEIGHBOURS).recall


def verdict(what, score, least, measured):
    """(whether a score is as expected, a sentence that says so)"""
    met = score >= least
    expected = f"expected is {least} or more: {measured}, and other machines round differently"
    return met, f"{what} {score:.3f}: {'as expected' if met else 'LOWER THAN EXPECTED'} ({expected})."


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
    samples, names, edited = OUT / "samples.png", OUT / "named.png", OUT / "edited"
    run("-m segan_ext samples", f"--network={snapshot}", f"--dest={samples}", "--grid=4x4")
    run("-m segan_ext explore", f"--network={snapshot}", f"--dest={names}", "--rows=14")
    run("-m segan_ext edit", f"--network={snapshot}", "--seeds=0-3", "--set=hairColor=+2", f"--outdir={edited}")

    options = json.loads((run_dir / "training_options.json").read_text())
    print(f"\nA SEGAN trained on {options['total_kimg']} kimg in {(time.time() - start) / 60:.1f} minutes. Look at")
    for what, path in (
        ("its samples", samples),
        ("what each name does", names),
        ("an edit", edited),
        ("the network", snapshot),
    ):
        print(f"  {what + ':':<22s} {path.relative_to(ROOT)}")
    print("\nAsking the judge, half a minute: of all that a control moves, how much is what its name says?", flush=True)
    names = verdict("Selectivity", selectivity(snapshot), LEAST, MEASURED)
    print("And of all that the data show, how much is among the generated images? Another half minute.", flush=True)
    among, possible = recalls(snapshot, data)
    variety = verdict(f"Recall (other real images: {possible:.2f})", among, LEAST_RECALL, MEASURED_RECALL)
    print("\n".join(sentence for _, sentence in (names, variety)))
    sys.exit(0 if names[0] and variety[0] else 1)


if __name__ == "__main__":
    main()
