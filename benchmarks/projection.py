"""How near projections come: W and W+, from the mean of w and from what the regression reads, at equal steps.

    python -m segan_ext avatars --recipe=bench --resolution=64 --count=16 --seed=77 --dest=real.zip
    python benchmarks/projection.py --network=avatars64 --data=real.zip

The table of docs/projection.md: eight generated targets, eight real ones, the same for all.
"""

import argparse
import math
import sys
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

from segan_ext import host  # noqa: E402

host.activate()

import torch  # noqa: E402

from metrics.perceptual import perceptual_features  # noqa: E402
from segan_ext.control.inversion import Reader, bounds_of  # noqa: E402
from segan_ext.latents import ws_of_seeds  # noqa: E402
from snapshots.load import load_generator  # noqa: E402
from training.dataset import ImageFolderDataset  # noqa: E402
from training.projection import project_many, psnr  # noqa: E402


def pixels_of(images):
    """[-1, 1] → [0, 255], as a picture would hold them"""
    return (images.clamp(-1, 1) * 127.5 + 127.5).round()


@torch.no_grad()
def judged(G, ws, targets, features):
    """(mean distance, mean PSNR) of the images of ws, without the noise that the optimizer adds"""
    images = G.synthesis(ws, noise_mode="const") * 127.5 + 127.5
    distances = (features(images) - features(targets)).square().sum(dim=1)
    return distances.mean().item(), psnr(images / 127.5 - 1, targets / 127.5 - 1).mean().item()


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--network", required=True)
    parser.add_argument("--data", required=True)
    parser.add_argument("--steps", default="0,25,100", help="lengths of runs, each a run of its own")
    parser.add_argument("--count", type=int, default=8)
    parser.add_argument("--detector", default="vgg-hed")
    args = parser.parse_args()
    G, features = load_generator(args.network), perceptual_features(args.detector, "cpu")
    with torch.no_grad():
        made = pixels_of(G.synthesis(ws_of_seeds(G, range(500, 500 + args.count)), noise_mode="const"))
        data = ImageFolderDataset(args.data)
        real = torch.stack([torch.from_numpy(data[i][0].copy()).float() for i in range(args.count)])
    targets = torch.cat([made, real])
    began = time.time()
    read = Reader(G)(targets / 127.5 - 1)
    print(f"regression: {time.time() - began:.1f} s", flush=True)
    mean = ws_of_seeds(G, range(2000))[:, 0].mean(dim=0).expand(len(targets), -1)
    print("| space | start | steps | distance, generated | real | PSNR, generated | real |")
    for steps in map(int, args.steps.split(",")):
        for space in ("w", "w+"):
            for name, start in (("mean", mean), ("reader", read)):
                torch.manual_seed(0)
                options = dict(
                    features=features, space=space, start=start, bounds=bounds_of(G), num_steps=max(steps, 1)
                )
                ws = start[:, None].repeat(1, G.num_ws, 1)
                if steps:
                    ws = project_many(G, targets, **options).ws
                parts = (slice(0, args.count), slice(args.count, None))
                found = [judged(G, ws[part], targets[part], features) for part in parts]
                cells = [f"{distance:.3g}" for distance, _ in found] + [f"{psnr:.1f}" for _, psnr in found]
                assert all(math.isfinite(float(cell)) for cell in cells)
                print(f"| {space} | {name} | {steps} | {' | '.join(cells)} |", flush=True)


if __name__ == "__main__":
    main()
