"""Do StyleGAN's findings hold on what study.py trained? `python benchmarks/findings.py --outdir=study-out`

Three of them (Karras et al. 2019; sections 3 and 4): styles of several latents can be mixed in an image, and training
with mixed ones helps; noise decides what is stochastic and small, and leaves the rest alone; and w is a shorter and
more separable space than z, which is read off the study's own metrics. Writes findings.md, whose cells have a
number a seed, and noise-NAME.png for each data set.
"""

import argparse
import sys
from pathlib import Path

import numpy as np
import torch
from PIL import Image

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))
sys.path.insert(0, str(ROOT / "benchmarks"))

import segan_ext.host  # noqa: E402

segan_ext.host.activate()

from bench import features, real_features  # noqa: E402
from study import JUDGE  # noqa: E402
from study_summary import markdown, numbers, runs_of, value_of  # noqa: E402

from metrics.kernel_inception_distance import kernel_distance  # noqa: E402
from segan_ext.control.noise import stochastic_variation  # noqa: E402
from segan_ext.latents import ws_of_seeds  # noqa: E402
from segan_ext.metrics.attributes import open_predictor  # noqa: E402
from snapshots.load import load_generator  # noqa: E402
from training.images import to_uint8  # noqa: E402

DETECTOR, IMAGES, MIXED = "efficientnet-lite0", 1000, (1, 2, 3, 4)
LATENTS, NOISES, COARSE = 32, 32, 8  # COARSE: pixels; what is smaller counts as detail
OF_SPACES = ("ppl_zfull", "ppl_wfull", "ppl_zend", "ppl_wend", "ls_z", "ls_w")
SPACIOUS = ("mode 0", "mode 2", "stylegan1", "stylegan1 without mixing", "traditional", "traditional with mapping")
NOISY = ("mode 0", "mode 2", "stylegan1", "stylegan1 without mixing")


def generator_of(run):
    return load_generator(str(run.snapshot)).eval().requires_grad_(False)


def mixed_ws(G, count, latents, seed=0):
    """ws [count, num_ws, w_dim], each of `latents` latents that take over from each other at random layers"""
    random, w = np.random.RandomState(seed), ws_of_seeds(G, range(count * latents))[:, 0].unflatten(0, (count, latents))
    rows = []
    for own in w:
        borders = np.sort(random.choice(np.arange(1, G.num_ws), latents - 1, replace=False))
        rows.append(own[np.searchsorted(borders, np.arange(G.num_ws), side="right")])
    return torch.stack(rows)


@torch.no_grad()
def distance_of_mixtures(G, data, latents):
    """KID · 1000 of images mixed from so many latents"""
    images = (to_uint8(G.synthesis(ws)).float() for ws in mixed_ws(G, IMAGES, latents).split(50))
    np.random.seed(0)
    reals = real_features(str(data), DETECTOR, 0, IMAGES)
    return kernel_distance(features(images, DETECTOR), reals, 100, IMAGES // 2) * 1000


def detail_share(deviations):
    """The share of the variance of images [N, C, H, W] in what averages over COARSE×COARSE pixels do not see"""
    coarse = torch.nn.functional.avg_pool2d(deviations, COARSE)
    return float(1 - coarse.square().mean() / deviations.square().mean())


def of_noise(G, judge):
    """What noise changes, as parts of what latents change: pixels, attributes, and the shares of detail of both"""
    ws = ws_of_seeds(G, range(LATENTS))
    blocks = range(len(G.synthesis.block_resolutions))
    varied = torch.stack([stochastic_variation(G, row[None], blocks, NOISES).images for row in ws])  # latents × noises
    means = varied.mean(dim=1, keepdim=True)
    by_noise, by_latent = (varied - means).flatten(0, 1), means[:, 0] - means.mean(dim=(0, 1))
    part = lambda noise, latent: float((noise.square().mean() / latent.square().mean()).sqrt())
    row = dict(
        pixels=part(by_noise, by_latent), detail=detail_share(by_noise), detail_of_latents=detail_share(by_latent)
    )
    if judge is not None:
        scores = torch.cat(list(judge.scores(varied.flatten(0, 1)).values()), dim=1).unflatten(0, varied.shape[:2])
        scores = scores / scores.std(dim=(0, 1))
        means = scores.mean(dim=1, keepdim=True)
        row["attributes"] = part(scores - means, means - means.mean(dim=0))
    return row, varied


def noise_picture(varied, path):
    """A row a latent: four noises, and the deviation over all of them, the largest of it white"""
    rows = []
    for images in varied[:4]:
        deviation = images.std(dim=0).mean(dim=0)
        map_ = (deviation / deviation.max() * 2 - 1).expand(1, images.shape[1], -1, -1)
        rows.append(torch.cat(list(to_uint8(torch.cat([images[:4], map_]))), dim=2))
    sheet = torch.cat(rows, dim=1).permute(1, 2, 0).numpy()
    Image.fromarray(sheet).resize((sheet.shape[1] * 2, sheet.shape[0] * 2), Image.Resampling.NEAREST).save(path)


def spaces_table(folder):
    """Markdown: path lengths and separabilities of the methods"""
    rows = []
    for name in SPACIOUS:
        runs = runs_of(folder, name)
        rows += [[name, *(numbers([value_of(run, each) for run in runs], ".4g") for each in OF_SPACES)]] * bool(runs)
    return markdown(["trained", *OF_SPACES], rows)


def mixing_table(folder, data):
    """Markdown: KID of images of several latents, of StyleGAN trained with and without mixing"""
    rows = []
    for name in ("stylegan1", "stylegan1 without mixing"):
        networks = [generator_of(run) for run in runs_of(folder, name)]
        distances = ([distance_of_mixtures(G, data, count) for G in networks] for count in MIXED)
        rows.append([name, *(numbers(each, ".0f") for each in distances)])
    return markdown(["KID·10³ of images of … latents", *map(str, MIXED)], rows)


def noise_table(folder, judge, picture):
    """Markdown: `of_noise`; and the picture of the first StyleGAN"""
    columns, rows = ("pixels", "attributes", "detail", "detail_of_latents"), []
    for name in NOISY:
        found = []
        for run in runs_of(folder, name):
            row, varied = of_noise(generator_of(run), judge)
            found.append(row)
            if name == "stylegan1" and len(found) == 1:
                noise_picture(varied, picture)
        rows.append([name, *(numbers([row.get(each) for row in found], ".3f") for each in columns)])
    return markdown(["trained", *columns], rows)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--outdir", default="study-out", help="that of study.py")
    out = Path(parser.parse_args().outdir).resolve()
    sections = []
    for folder in sorted((out / "runs").iterdir()):
        data, judge = out / f"{folder.name}.zip", open_predictor(JUDGE) if folder.name == "avatars" else None
        noise = noise_table(folder, judge, out / f"noise-{folder.name}.png")
        sections.append("\n\n".join([f"## {folder.name}", spaces_table(folder), mixing_table(folder, data), noise]))
        print(sections[-1], flush=True)
    (out / "findings.md").write_text("\n\n".join(sections) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
