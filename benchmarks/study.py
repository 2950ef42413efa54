"""Every system of the field, trained alike and measured by the same commands: the study of docs/results.md.

    python benchmarks/study.py --outdir=study-out          # a day on two cores; goes on where it was stopped
    python benchmarks/study.py --outdir=study-out --only=eigengan,stylegan1 --seeds=1
    python benchmarks/study.py --outdir=smallest --smallest      # everything, hardly trained, in minutes
    python benchmarks/study.py --outdir=published --published --data=danbooru.zip      # on a GPU

Trains each method with as many images, with two seeds, on avatars and on emoji (examples/emoji.py, which needs npm), of
one width and batch, and each with the loss, regularisers and learning rate of its own; then `segan report` measures
what is missing and writes a page for each data set. --published trains the published four with their own presets, on
one data set, and measures what was published.
"""

import argparse
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT / "examples"))

import emoji  # noqa: E402

WIDTH = ["--channels=64", "--channel-base=1024", "--batch=16", "--ema=2"]
FAST, PAPERS = ["--cfg=segan-fast"], [*WIDTH, "--aug=noaug"]
METHODS = {  # options of train_segan.py; a paper's learning rate is for weeks, these are for minutes
    "mode 0": [*FAST, "--mode=0"],
    "mode 1": [*FAST, "--mode=1", "--subspace-dim=8"],
    "mode 2": [*FAST, "--mode=2"],
    "mode 2 without ortho": [*FAST, "--mode=2", "--ortho=0"],
    "mode 3": [*FAST, "--mode=3"],
    "eigen": [*FAST, "--mode=eigen"],
    "named": [*FAST, "--mode=named", "--labels=factors", "--num-labels=200"],
    "eigengan": ["--cfg=eigengan", *PAPERS, "--lrate=0.001"],
    "stylegan1": ["--cfg=stylegan1", "--map=2", *PAPERS, "--lrate=0.004", "--gamma=1"],
    "traditional": ["--cfg=traditional", *PAPERS, "--lrate=0.004", "--gamma=1"],
    "traditional with mapping": ["--cfg=traditional", "--map=2", *PAPERS, "--lrate=0.004", "--gamma=1"],
}
OF_IMAGES = "fid50k_full,kid50k_full"
METRICS = OF_IMAGES + ",ppl_segan,ppl_zfull,ppl_wfull,ppl_zend,ppl_wend,subspaces"
OF_ATTRIBUTES = "ls,selectivity,disentanglement"  # where they are known
FIRST, SECOND = "efficientnet-lite0,pixel-pyramid", "vgg-hed"  # detectors; a metric takes the first that serves it


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


def study(data, methods, seeds, kimg, out, metrics, measured):
    """Trains the methods on a data set, and writes the report. measured: options of `segan report`"""
    runs = []
    for seed in range(seeds):
        for name, options in methods.items():
            outdir = out / "runs" / data.stem / f"{name.replace(' ', '-')}-seed{seed}"
            print(f"\n{data.stem}: {name}, seed {seed}", flush=True)
            runs.append(trained(options, data, kimg, seed, outdir))
    report = ["-m", "segan_ext", "report", *runs, f"--outdir={out / f'report-{data.stem}'}", *measured]
    if measured:
        run(*report, f"--detector={SECOND}", f"--metrics={OF_IMAGES}")
        report.append(f"--detector={FIRST}")
    run(*report, f"--metrics={metrics}")


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--outdir", default="study-out")
    parser.add_argument("--kimg", type=int, default=50)
    parser.add_argument("--seeds", type=int, default=2)
    parser.add_argument("--resolution", type=int, default=32)
    parser.add_argument("--only", help="these methods, comma-separated")
    parser.add_argument("--sets", default="avatars,emoji")
    parser.add_argument("--smallest", action="store_true", help="all of it in minutes")
    parser.add_argument("--published", action="store_true", help="the published four with their own presets, on --data")
    parser.add_argument("--data", help="images for --published")
    args = parser.parse_args()
    out = Path(args.outdir).resolve()
    out.mkdir(parents=True, exist_ok=True)
    if args.published:
        if args.data is None:
            parser.error("--published needs --data, a zip of 64×64 images; the published set is one of anime faces")
        methods = {f"mode {mode}": [f"--cfg=segan-mode{mode}"] for mode in range(4)}
        data = Path(args.data).resolve()
        study(data, methods, 1, args.kimg, out, "fid50k_full,ppl_segan", [])
        return
    names = args.only.split(",") if args.only else list(METHODS)
    unknown = [name for name in names if name not in METHODS]
    if unknown:
        parser.error(f"--only: there is no {unknown[0]!r}; known: {', '.join(METHODS)}")
    methods, count, images = {name: METHODS[name] for name in names}, 10_000, 2000
    if args.smallest:
        args.kimg, args.seeds, args.resolution, args.sets, count, images = 1, 1, 16, "avatars", 300, 20
        methods = {name: [*options, "--channels=8", "--channel-base=128"] for name, options in methods.items()}
    of_attributes = "" if args.smallest else f",{OF_ATTRIBUTES}"  # they need a predictor, which takes minutes
    measured = [f"--num-gen={images}"]
    if "avatars" in args.sets.split(","):
        data = avatars(out / "avatars.zip", count, args.resolution)
        study(data, methods, args.seeds, args.kimg, out, METRICS + of_attributes, measured)
    if "emoji" in args.sets.split(","):
        without = {name: options for name, options in methods.items() if name != "named"}  # emoji have no labels
        study(emoji.data_set(out, args.resolution), without, args.seeds, args.kimg, out, METRICS, measured)


if __name__ == "__main__":
    main()
