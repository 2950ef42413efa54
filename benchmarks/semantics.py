"""The tables of docs/semantics.md: extractors, few shots, sampling and editing on a generator of avatars.

    python benchmarks/semantics.py --outdir=DIR [--network=PKL] [--parts=extractors,few-shot,sampling,editing]

Without --network it first trains one (32×32, 64 channels, mode 2), in some 15 minutes. What is there in
DIR already is used again.
"""

import argparse
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import torch

ROOT = Path(__file__).resolve().parents[1]
sys.path[:0] = [str(ROOT)]

from runs.options import open_generator  # noqa: E402
from segan_ext.data.avatars import make_avatars  # noqa: E402
from segan_ext.latents import draw_ws, ws_from_z  # noqa: E402
from segan_ext.layers import FeatureHooks  # noqa: E402
from segan_ext.semantics import closed_form, evaluation, painting, sampling, training  # noqa: E402
from segan_ext.semantics.annotations import annotate  # noqa: E402
from segan_ext.semantics.extractors import KINDS, open_extractor, save_extractor  # noqa: E402
from segan_ext.semantics.few_shot import train_few_shot  # noqa: E402
from segan_ext.semantics.iou import Scores  # noqa: E402
from segan_ext.semantics.segmenters import open_segmenter  # noqa: E402
from training.latents import seed_latents  # noqa: E402

from metrics.perceptual import perceptual_features  # noqa: E402 # isort: skip

# The demo's data and generator, trained for longer.
DATA = dict(style="big-ears", resolution=32, count=6000, zoom=1.3, jitter=0.25)
ONLY = dict(eyesVariant=["variant14", "variant16", "variant20", "variant26"])
TRAIN = "--cfg=segan-mode2 --channels=64 --channel-base=1024 --aug=noaug --gamma=1 --lrate=0.004 --ema=2 --tick=5"
PSI = 0.5
FEW_SEED = 500_000  # of the annotated images


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--outdir", required=True, type=Path)
    parser.add_argument("--network", help="a generator of avatars")
    parser.add_argument("--kimg", default=100, help="of its training")
    parser.add_argument("--samples", type=int, default=2000, help="images to judge by")
    parser.add_argument("--train-samples", type=int, default=training.SAMPLES, help="of the published recipe")
    parser.add_argument("--parts", default="extractors,few-shot,sampling,editing")
    args = parser.parse_args()
    args.outdir.mkdir(parents=True, exist_ok=True)
    data = args.outdir / "avatars.zip"
    if not data.exists():
        make_avatars(data, masks=True, only=ONLY, **DATA)
    G = open_generator(args.network or trained_generator(args, data), "cpu")
    segmenter = open_segmenter(str(data))
    print(f"segmenter: mean IoU {100 * segmenter.skill:.1f} on drawn avatars that it has not seen")
    parts = {"extractors": extractors, "few-shot": few_shot, "sampling": sample, "editing": edit}
    for name in args.parts.split(","):
        text = parts[name](G, segmenter, args)
        print(text, flush=True)
        (args.outdir / f"{name}.md").write_text(text + "\n")


def trained_generator(args, data):
    runs = args.outdir / "runs"
    if not list(runs.glob("*/network-snapshot-*.pkl")):
        where = [f"--data={data}", f"--outdir={runs}", f"--kimg={args.kimg}"]
        subprocess.run([sys.executable, ROOT / "train_segan.py", *TRAIN.split(), *where], check=True)
    return max(runs.glob("*/network-snapshot-*.pkl"))


def full_lse(G, segmenter, args):
    path = args.outdir / "LSE.safetensors"
    if not path.exists():
        extractors(G, segmenter, args)
    return open_extractor(path, G)


# ---------------------------------------------------------------------------------------------------------------------


def extractors(G, segmenter, args):
    """Published recipe for all three side by side; LSE alone, for its time; closed form."""
    torch.manual_seed(0)
    found, seconds = {}, {}
    for names in (["LSE"], ["NSE-1", "NSE-2"]):
        made = [KINDS[name].of(G, segmenter.classes) for name in names]
        start = time.perf_counter()
        training.train(G, made, segmenter, args.train_samples, state_path=args.outdir / f"{names[0]}.state")
        seconds |= dict.fromkeys(names, time.perf_counter() - start)
        found |= dict(zip(names, made))
    for method in closed_form.METHODS:
        start = time.perf_counter()
        found[method] = closed_form.fit(G, segmenter, method=method)
        seconds[method] = time.perf_counter() - start
    for name, extractor in found.items():
        save_extractor(args.outdir / f"{name}.safetensors", extractor.eval().requires_grad_(False))
    tables = dict(zip(found, evaluation.evaluate(G, list(found.values()), segmenter, args.samples, PSI)))
    evaluation.write_tables(args.outdir / "extractors.json", tables, samples=args.samples, truncation_psi=PSI)
    evaluation.draw_examples(G, found, segmenter).save(args.outdir / "examples.png")
    ratios = ", ".join(f"{name} {seconds[name] / seconds['LSE']:.3f}" for name in closed_form.METHODS)
    return f"{evaluation.markdown(tables)}\n\ntime against LSE by the published recipe: {ratios}"


def few_shot(G, segmenter, args, repeats=5):
    """Five repeats of each number of annotations, published and in closed form."""
    ways = {
        "published": lambda few, seed: train_few_shot(G, few, seed=seed),
        "lda": lambda few, seed: closed_form.fit_annotations(G, few, seed=seed),
    }
    rows = [
        "| annotations | " + " | ".join(f"{way}: mean ± deviation (largest)" for way in ways) + " |",
        "| --- | --- | --- |",
    ]
    for shots in (1, 4, 8, 16):
        cells = []
        for way in ways.values():
            made = []
            for repeat in range(repeats):
                few = annotate(G, segmenter, shots, FEW_SEED + 100 * repeat, PSI)
                made.append(way(few, repeat))
            tables = evaluation.evaluate(G, made, segmenter, args.samples, PSI)
            scores = 100 * np.array([table.mean_iou for table in tables])
            largest = np.abs(scores - scores.mean()).max()
            cells.append(f"{scores.mean():.1f} ± {scores.std(ddof=1):.1f} ({largest:.1f})")
        rows.append(f"| {shots} | {' | '.join(cells)} |")
        print(rows[-1], flush=True)
    return "\n".join(rows)


def sample(G, segmenter, args, targets=20, count=10):
    """Label maps of truncated samples as targets; agreement by the segmenter, at the same time for both."""
    extractor, features = full_lse(G, segmenter, args), perceptual_features("pixel-pyramid", torch.device("cpu"))
    ws = draw_ws(G, targets, seed=2_000_000, truncation_psi=PSI)
    with torch.no_grad():
        wanted = segmenter(G.synthesis(ws, noise_mode="const"))
    start = time.perf_counter()
    pool = sampling.Pool(G, extractor, 2000)
    spent = {"improved": time.perf_counter() - start, "published": 0.0}
    ways = {
        "published": lambda target, i: sampling.published(G, extractor, target, count, seed=i),
        "improved": lambda target, i: sampling.sample(G, extractor, target, count, pool),
    }
    scores = {name: Scores(len(segmenter.classes)) for name in ways}
    distances = {name: [] for name in ways}
    for i, target in enumerate(wanted):
        for name, way in ways.items():
            start = time.perf_counter()
            found = way(target, i)
            spent[name] += time.perf_counter() - start
            scores[name].add(segmenter(found.images), target.expand(count, -1, -1))
            distances[name].append(sampling.diversity(found.images, features))
        print(i, {name: round(100 * score.mean_iou(), 1) for name, score in scores.items()}, flush=True)
    rows = [
        "| sampler | mIoU with the target | pooled | diversity (pixel-pyramid) | time |",
        "| --- | --- | --- | --- | --- |",
    ]
    for name in ways:
        table = scores[name].table(segmenter.classes)
        time_ratio = spent[name] / spent["published"]
        rows.append(
            f"| {name} | {100 * table.mean_iou:.1f} | {100 * table.pooled_mean_iou:.1f} | "
            f"{np.mean(distances[name]):.4g} | {time_ratio:.2f} |"
        )
    return "\n".join(rows)


def edit(G, segmenter, args, count=50):
    """Scripted strokes; agreement inside by the extractor and by the segmenter, change outside."""
    extractor, seeds = full_lse(G, segmenter, args), range(3_000_000, 3_000_000 + count)
    z = seed_latents(G, seeds, "cpu").float()
    with torch.no_grad():
        ws = ws_from_z(G, z)
        labels = segmenter(FeatureHooks(G)(ws, noise_mode="const")[0])
    strokes = painting.scripted_strokes(labels, len(segmenter.classes), count)
    ways = {
        "published, rate 0.01": lambda part: painting.published(G, extractor, z[part], painting.Strokes(strokes[part])),
        "published, rate 0.002": lambda part: painting.published(
            G, extractor, z[part], painting.Strokes(strokes[part]), lr=0.002
        ),
        "improved": lambda part: painting.edit(G, extractor, ws[part], painting.Strokes(strokes[part])),
    }
    rows = [
        "| editor | in the strokes, by LSE | by the segmenter | change outside, of 255 |",
        "| --- | --- | --- | --- |",
    ]
    for name, way in ways.items():
        done = [way(part) for part in torch.arange(count).split(10)]
        painted = strokes != 255
        seen = torch.cat([segmenter(each.after) for each in done])
        right = (((seen == strokes) & painted).sum(dim=[1, 2]) / painted.sum(dim=[1, 2])).mean()
        agreement, off = (torch.cat([each[i] for each in done]).mean() for i in (4, 5))
        rows.append(f"| {name} | {100 * agreement:.1f} % | {100 * right:.1f} % | {off:.2f} |")
    return "\n".join(rows)


if __name__ == "__main__":
    main()
