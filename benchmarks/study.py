"""Every system of the field, trained alike and measured by the same commands: the study of docs/results.md.

    python benchmarks/study.py --outdir=study-out          # hours on two cores; goes on where it was stopped
    python benchmarks/study.py --outdir=study-out --only=eigengan,stylegan1 --seeds=1
    python benchmarks/study.py --outdir=smallest --smallest      # everything, hardly trained, in minutes
    python benchmarks/study.py --outdir=published --published --data=danbooru.zip      # on a GPU

Trains each method with as many images, with two seeds, on avatars and on emoji (examples/emoji.py, which needs npm), of
one width and batch, and each with the loss, regularisers and learning rate of its own; then `segan report` measures
what is missing and writes a page for each data set. --published trains the published four with their own presets, on
one data set, and measures what was published.
"""

import argparse
import concurrent.futures
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
sys.path[:0] = [str(ROOT), str(ROOT / "examples")]

import emoji  # noqa: E402

from segan_ext.presets import PRESETS  # noqa: E402

WIDTH = ["--channels=64", "--channel-base=1024", "--batch=16", "--ema=2"]
STYLEGAN, TRADITIONAL = ["--cfg=stylegan1", "--map=2", "--gamma=1"], ["--cfg=traditional", "--gamma=1"]
FAST, PAPERS = ["--cfg=segan-fast"], [*WIDTH, "--aug=noaug"]
# Options of train_segan.py. Papers have learning rates for weeks; these were the best of three or four after 6 kimg,
# and EigenGAN's is the lower of two that were equally good: at 0.004 it breaks.
METHODS = {
    "mode 0": [*FAST, "--mode=0"],
    "mode 1": [*FAST, "--mode=1", "--subspace-dim=8"],
    "mode 2": [*FAST, "--mode=2"],
    "mode 2 without ortho": [*FAST, "--mode=2", "--ortho=0"],
    "mode 3": [*FAST, "--mode=3"],
    "eigen": [*FAST, "--mode=eigen"],
    "named": [*FAST, "--mode=named", "--labels=factors", "--num-labels=200"],
    "eigengan": ["--cfg=eigengan", *PAPERS, "--lrate=0.001"],
    "stylegan1": [*STYLEGAN, *PAPERS, "--lrate=0.008"],
    "stylegan1 without mixing": [*STYLEGAN, *PAPERS, "--lrate=0.008", "--mixing=0"],
    "traditional": [*TRADITIONAL, *PAPERS, "--lrate=0.002"],
    "traditional with mapping": [*TRADITIONAL, "--map=2", *PAPERS, "--lrate=0.002"],
}
OF_IMAGES = "--metrics=fid50k_full,kid50k_full"
FIRST, SECOND = "--detector=efficientnet-lite0,pixel-pyramid", "--detector=vgg-hed"  # a metric takes what serves it
PATHS = ",ppl_segan,ppl_zfull,ppl_wfull,ppl_zend,ppl_wend,subspaces"
JUDGE = ROOT / "benchmarks" / "bench" / "predictor-judge.safetensors"  # of avatars' attributes
SEPARATED = 10_000  # images of a separability, many times as many as latents have numbers


def run(*command, stdout=None):
    subprocess.run([sys.executable, *map(str, command)], cwd=ROOT, check=True, stdout=stdout)


def avatars(path, count, resolution):
    """The bench's avatars, whose factors are known"""
    if not path.exists():
        options = ["--recipe=bench", f"--count={count}", f"--resolution={resolution}", f"--dest={path}"]
        run("-m", "segan_ext", "avatars", *options)
    return path


def trained(options, data, kimg, seed, outdir, stdout=None):
    """The directory of a run, which is started, or goes on, where it has not come to its end"""
    if not list(outdir.glob(f"*/network-snapshot-{kimg:06d}.pkl")):
        started = list(outdir.glob("*/training-state-*.pt"))
        given = ["--resume=latest"] if started else [*options, f"--data={data}", f"--seed={seed}"]
        run(ROOT / "train_segan.py", *given, f"--kimg={kimg}", f"--outdir={outdir}", stdout=stdout)
    return sorted(outdir.glob("0*"))[-1]


def train_all(sets, methods, args, out):
    """{data set: [run directory of each method and seed]}, --jobs of them trained at a time"""
    plan = [(data, seed, name) for seed in range(args.seeds) for data in sets for name in methods_of(data, methods)]

    def train(data, seed, name):
        outdir = out / "runs" / data.stem / f"{name.replace(' ', '-')}-seed{seed}"
        print(f"{data.stem}: {name}, seed {seed}", flush=True)
        return trained(methods[name], data, args.kimg, seed, outdir, None if args.jobs == 1 else subprocess.DEVNULL)

    with concurrent.futures.ThreadPoolExecutor(args.jobs) as pool:
        dirs = list(pool.map(lambda item: train(*item), plan))
    return {data: [path for (of, _, _), path in zip(plan, dirs) if of == data] for data in sets}


def methods_of(data, methods):
    """The names of the methods that a data set can train: emoji have no labels"""
    return [name for name in methods if name != "named" or data.stem == "avatars"]


def report(data, dirs, out, measurements):
    """Measures what is missing, a report for each list of options, and writes the page of a data set"""
    for options in measurements:
        run("-m", "segan_ext", "report", *dirs, f"--outdir={out / f'report-{data.stem}'}", *options)


def measurements(images, with_attributes):
    """Options of `segan report` for all that is measured, on so many images"""
    number, judge = f"--num-gen={images}", f"--attributes={JUDGE}"
    found = [[judge, "--metrics=selectivity,disentanglement"], [judge, "--metrics=ls", f"--num-gen={SEPARATED}"]]
    return [*found[: 2 * with_attributes], [number, SECOND, OF_IMAGES], [number, FIRST, OF_IMAGES + PATHS]]


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--outdir", default="study-out")
    parser.add_argument("--kimg", type=int, help="of each run  [default: 16; --published: what the presets say, 25000]")
    parser.add_argument("--seeds", type=int, default=2)
    parser.add_argument("--resolution", type=int, default=32)
    parser.add_argument("--jobs", type=int, default=1, help="runs that train at a time")
    parser.add_argument("--only", help="these methods, comma-separated")
    parser.add_argument("--only-train", action="store_true", help="measure nothing")
    parser.add_argument("--sets", default="avatars,emoji")
    parser.add_argument("--smallest", action="store_true", help="all of it in minutes")
    parser.add_argument("--published", action="store_true", help="the published four with their own presets, on --data")
    parser.add_argument("--data", help="images for --published")
    parser.add_argument("--detector", help="for --published, in the place of the published ones, which are downloaded")
    parser.add_argument("--num-gen", type=int, help="for --published, images in the place of the published numbers")
    args = parser.parse_args()
    out = Path(args.outdir).resolve()
    out.mkdir(parents=True, exist_ok=True)
    if args.published:
        if args.data is None:
            parser.error("--published needs --data, a zip of 64×64 images; the published set is one of anime faces")
        methods = {f"mode {mode}": [f"--cfg=segan-mode{mode}"] for mode in range(4)}
        sets, args.seeds, args.kimg = [Path(args.data).resolve()], 1, args.kimg or PRESETS["segan-mode0"].kimg
        given = {"detector": args.detector, "num-gen": args.num_gen}
        chosen_ones = [f"--{name}={value}" for name, value in given.items() if value is not None]
        measured = {sets[0]: [["--metrics=fid50k_full,ppl_segan", *chosen_ones]]}
    else:
        methods, images, args.kimg = chosen(args.only, parser), 1000, args.kimg or 16
        if args.smallest:
            args.kimg, args.seeds, args.resolution, args.sets, images = 1, 1, 16, "avatars", 20
            methods = {name: [*options, "--channels=8", "--channel-base=128"] for name, options in methods.items()}
        sets = data_sets(args, out)
        # The judge looks at 32×32 pixels.
        measured = {data: measurements(images, data.stem == "avatars" and args.resolution == 32) for data in sets}
    for data, dirs in train_all(sets, methods, args, out).items():
        if not args.only_train:
            report(data, dirs, out, measured[data])


def chosen(only, parser):
    """The methods that --only names"""
    names = only.split(",") if only else list(METHODS)
    unknown = [name for name in names if name not in METHODS]
    if unknown:
        parser.error(f"--only: there is no {unknown[0]!r}; known: {', '.join(METHODS)}")
    return {name: METHODS[name] for name in names}


def data_sets(args, out):
    """The zips that --sets names"""
    names, sets = args.sets.split(","), []
    if "avatars" in names:
        sets.append(avatars(out / "avatars.zip", 300 if args.smallest else 10_000, args.resolution))
    if "emoji" in names:
        sets.append(emoji.data_set(out, args.resolution))
    return sets


if __name__ == "__main__":
    main()
