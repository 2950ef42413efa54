"""What is fuzzed: kinds of files, sound ones of each to begin with, and the commands that open them."""

import gzip
import importlib
import io
import json
import os
import pickle
import shutil
import struct
import sys
import tarfile
import zipfile
from pathlib import Path
from types import SimpleNamespace
from typing import NamedTuple

import click
import numpy as np
import torch
from PIL import Image

from fuzz_mutations import Dice, mutate
from helpers import TINY, make_dataset, newest, only_run, png

GOLDEN = Path(__file__).parent / "golden"


class Kind(NamedTuple):
    """bases: folders of sound files, one of which becomes in/. changed: patterns of the files that are changed.

    commands: as a user types them, beside in/ and out/; {given} is a folder of sound files. weight: how often.
    """

    bases: list[str]
    changed: list[str]
    commands: list[str]
    weight: float = 1


class Case(NamedTuple):
    number: int
    kind: str
    command: str
    notes: list[str]


# ---------------------------------------------------------------------------------------------------------------------
# Kinds

G = "--network={given}/G.pkl"
E = "--extractor={given}/e.safetensors"
FEW = "--detector=pixel-pyramid --num-gen=4"
NAMED = "train_segan.py --cfg=segan-fast --mode=named --outdir=out --dry-run"
TRAIN_ON = [
    "train_segan.py --data=in/DATA --outdir=out --dry-run",
    "train_segan.py --data=in/DATA --cond=1 --outdir=out --dry-run",
    "train.py --data=in/DATA --cond=1 --mirror=1 --subset=3 --outdir=out --dry-run",
    "dataset_tool.py --source=in/DATA --dest=out/x.zip",
    "dataset_tool.py --source=in/DATA --dest=out/x --labels=none --on-bad=skip --alpha=white --mode=rgb --width=16 "
    "--height=16 --transform=center-crop",
    "dataset_tool.py --source=in/DATA --dest=out/x.zip --labels=folders --on-bad=skip --alpha=drop --mode=grey "
    "--width=16 --height=8 --transform=center-crop-wide",
    "dataset_tool.py --source=in/DATA --dest=out/x --labels=none --on-bad=skip --alpha=black --mode=rgb "
    "--resolution=16x16 --transform=center-crop",
]
PROJECT_FOLDER = [
    f"segan_ext project {G} --target=in/DATA --num-steps=1 --start=mean --detector=pixel-pyramid --outdir=out"
]
MEASURE_ON = [
    f"calc_metrics.py {G} --data=in/DATA --metrics=fid50k_full --detector={{given}}/detector.onnx --num-gen=4",
    f"segan_ext calc_metrics {G} --metrics=purity --attributes=in/DATA {FEW}",
    f"segan_ext explore {G} --atlas=out/a.html --seeds=0 --attributes=in/DATA",
    f"{NAMED} --labels=factors --data=in/DATA",
]
OF_ANY = [
    "generate.py --network=in/NET --seeds=0-1 --class=0 --trunc=0.5 --outdir=out",
    "style_mixing.py --network=in/NET --rows=0 --cols=1 --class=0 --outdir=out",
    "projector.py --network=in/NET --target={given}/x.png --num-steps=1 --detector=pixel-pyramid --class=0 "
    "--save-video=0 --outdir=out",
    "segan_ext samples --network=in/NET --grid=2x2 --dest=out/x.png",
    "segan_ext explore --network=in/NET --interpolate=0,1 --steps=2 --dest=out/x.gif",
    "segan_ext export --network=in/NET --dest=out/x.safetensors",
    f"calc_metrics.py --network=in/NET --metrics=ppl2_wend {FEW}",
]
OF_SUBSPACES = [
    "segan_ext explore --network=in/NET --rows=2 --steps=2 --dest=out/x.png",
    "segan_ext edit --network=in/NET --set=L1.N0.D0=2 --seeds=0 --class=0 --outdir=out",
    "segan_ext semantics train --network=in/NET --annotations={given}/annotations --dest=out/x.safetensors",
    "segan_ext calc_metrics --network=in/NET --metrics=subspaces",
]
OF_PLAIN = [
    "segan_ext discover --network=in/NET --dest=out/x.safetensors",
    "segan_ext discover --network=in/NET --method=pca --dims=4 --samples=20 --dest=out/x.pkl",
]
CONVERT = [
    "legacy.py --source=in/NET --dest=out/x.pkl",
    "legacy.py --source=in/NET --dest=out/x.pkl --force-fp16=1",
]
RESUME = [
    "train_segan.py --resume=in/NET --data={given}/data.zip --outdir=out --dry-run",
    "train.py --resume=in/NET --data={given}/data.zip --cond=1 --outdir=out --dry-run",
]
OF_RUN = [
    "train_segan.py --resume=in/run --outdir=out --dry-run --kimg=2",
    "train.py --resume=in/run --outdir=out --dry-run --kimg=2",
    "train_segan.py --resume=latest --outdir=in --dry-run --kimg=2",
]
OF_LATENTS = [
    f"generate.py {G} --projected-w=in/w.npz --outdir=out",
    f"segan_ext edit {G} --projected-w=in/w.npz --set=L1.N0.D0=2 --outdir=out",
    f"segan_ext explore {G} --projected-w=in/w.npz --dims=L1.N0.D0 --steps=2 --dest=out/x.png",
    f"segan_ext semantics edit {G} {E} --projected-w=in/w.npz --steps=2 --labels={{given}}/labels.png --outdir=out",
]
OF_MASK = [
    f"segan_ext edit {G} --set=L1.N0.D0=2 --seeds=0 --keep=in/labels.png --outdir=out",
    f"segan_ext semantics edit {G} {E} --seed=0 --steps=2 --labels=in/labels.png --outdir=out",
    f"segan_ext semantics edit {G} {E} --seed=0 --steps=2 --colours=in/labels.png --outdir=out",
    f"segan_ext semantics sample {G} {E} --method=published --steps=2 --count=1 --target=in/labels.png --outdir=out",
    f"segan_ext edit {G} --set=L1.N0.D0=2 --num-steps=1 --image=in/labels.png --outdir=out",
    f"segan_ext project {G} --target=in/labels.png --num-steps=1 --detector=pixel-pyramid --outdir=out",
    f"projector.py {G} --target=in/labels.png --num-steps=1 --detector=pixel-pyramid --save-video=0 --outdir=out",
]
OF_EXTRACTOR = [
    f"segan_ext semantics eval {G} --extractor=in/e.safetensors --segmenter={{given}}/seg.pt --samples=4 --outdir=out",
    f"segan_ext semantics sample {G} --extractor=in/e.safetensors --method=published --steps=2 --count=1 "
    "--target-seed=0 --outdir=out",
    f"segan_ext semantics edit {G} --extractor=in/e.safetensors --seed=0 --steps=2 --labels={{given}}/labels.png "
    "--outdir=out",
    f"segan_ext edit {G} --set=L1.N0.D0=2 --seeds=0 --inside=b --extractor=in/e.safetensors --outdir=out",
    f"segan_ext explore {G} --atlas=out/a.html --seeds=0 --extractor=in/e.safetensors",
]
OF_SEGMENTER = [
    f"segan_ext semantics train {G} --segmenter=in/SEG --samples=20 --dest=out/x.safetensors",
    f"segan_ext semantics train {G} --segmenter=in/SEG --shots=2 --dest=out/x.safetensors",
    f"segan_ext semantics eval {G} {E} --segmenter=in/SEG --samples=4 --outdir=out",
]
OF_ANNOTATIONS = [
    f"segan_ext semantics train {G} --annotations=in/annotations --dest=out/x.safetensors",
    f"segan_ext semantics train {G} --annotations=in/annotations --method=ridge --dest=out/x.safetensors",
]
OF_DETECTOR = [
    f"calc_metrics.py {G} --data={{given}}/data.zip --metrics=fid50k_full --detector=in/NET --num-gen=4",
    f"calc_metrics.py {G} --data={{given}}/data.zip --metrics=ppl2_wend --detector=in/NET --num-gen=4",
    f"projector.py {G} --target={{given}}/x.png --num-steps=1 --detector=in/NET --save-video=0 --outdir=out",
    f"segan_ext calc_metrics {G} --metrics=ls,purity --attributes=in/NET --num-gen=8",
    f"segan_ext explore {G} --atlas=out/a.html --seeds=0 --attributes=in/NET",
]


OF_ANSWERS = [
    f"segan_ext discover {G} --method=labels --labels=in/seeds.csv --steps=0 --dest=out/x.safetensors",
    "page answers {given}/G.pkl",
]


def _on(name, placeholder, commands):
    return [command.replace(placeholder, name) for command in commands]


GOLDEN_BASES = ["nvidia_uncond", "nvidia_cond", "nvidia_fp16", "tf_uncond", "tf_cond", "tf_plain"]
KINDS = {
    "data-zip": Kind(["classes", "vectors"], ["data.zip"], _on("data.zip", "DATA", TRAIN_ON), 5),
    "data-folder": Kind(["folder"], ["data/**/*.*"], _on("data", "DATA", TRAIN_ON + PROJECT_FOLDER), 3),
    "data-wrapped": Kind(["wrapped"], ["data/**/*.*"], _on("data", "DATA", TRAIN_ON), 1),
    "data-wrapped-zip": Kind(["wrapped"], ["data.zip"], _on("data.zip", "DATA", TRAIN_ON), 1),
    "data-shards": Kind(["shards"], ["data/*"], _on("data", "DATA", TRAIN_ON[:4]), 1),
    "data-measured": Kind(["many", "factors"], ["data.zip"], _on("data.zip", "DATA", MEASURE_ON)),
    "archive-cifar": Kind(["archives"], ["cifar*.gz"], _on("cifar-10-python.tar.gz", "DATA", TRAIN_ON[3:5])),
    "archive-mnist": Kind(["archives"], ["train*.gz"], _on("train-images-idx3-ubyte.gz", "DATA", TRAIN_ON[3:5])),
    "archive-lsun": Kind(["archives"], ["x_lmdb/data.mdb"], _on("x_lmdb", "DATA", TRAIN_ON[3:5]), 0.5),
    "snapshot": Kind(
        ["colour", "labelled"], ["*.pkl"], _on("G.pkl", "NET", OF_ANY + OF_SUBSPACES + CONVERT + RESUME), 5
    ),
    "snapshot-plain": Kind(["plain"], ["*.pkl"], _on("G.pkl", "NET", OF_ANY + OF_PLAIN + RESUME[:1]), 2),
    "snapshot-golden": Kind(GOLDEN_BASES, ["*.pkl"], _on("G.pkl", "NET", OF_ANY + OF_PLAIN + CONVERT * 2), 3),
    "export": Kind(["export"], ["G.*"], _on("G.safetensors", "NET", OF_ANY + OF_SUBSPACES), 3),
    "run": Kind(["run"], ["run/training_options.json", "run/*.pt", "run/training_options.json"], OF_RUN, 3),
    "run-named": Kind(["named"], ["run/training_options.json", "run/labels.json"], OF_RUN, 1),
    "labels-images": Kind(["labels"], ["images.csv"], [f"{NAMED} --labels=in/images.csv --data={{given}}/data.zip"], 2),
    "labels-seeds": Kind(["labels"], ["seeds.csv"], OF_ANSWERS, 2),
    "report": Kind(["run"], ["run/*.json*", "run/*.pkl"], ["segan_ext report in/run --seeds=0 --outdir=out"], 1.5),
    "edit": Kind(
        ["edit"],
        ["edit.json"],
        [f"segan_ext edit {G} --replay=in/edit.json --outdir=out", "page edit {given}/G.pkl"],
        3,
    ),
    "latents": Kind(["latents"], ["w.npz"], OF_LATENTS, 2),
    "mask": Kind(["mask"], ["labels.png"], OF_MASK, 2),
    "annotations": Kind(["annotations"], ["annotations/*"], OF_ANNOTATIONS, 2),
    "annotations-zip": Kind(["work"], ["work.zip"], ["page annotations {given}/G.pkl"], 1.5),
    "extractor": Kind(["extractor"], ["e.safetensors"], OF_EXTRACTOR, 3),
    "segmenter-data": Kind(["masks"], ["data*.zip"], _on("data.zip", "SEG", OF_SEGMENTER), 1.5),
    "segmenter-script": Kind(["script"], ["seg.*"], _on("seg.pt", "SEG", OF_SEGMENTER), 1),
    "segmenter-onnx": Kind(["onnx"], ["seg.*"], _on("seg.onnx", "SEG", OF_SEGMENTER), 1),
    "detector-script": Kind(["script"], ["net.*"], _on("net.pt", "NET", OF_DETECTOR), 1),
    "detector-onnx": Kind(["onnx"], ["net.*"], _on("net.onnx", "NET", OF_DETECTOR[::3] + OF_DETECTOR[-1:]), 1),
}


# ---------------------------------------------------------------------------------------------------------------------
# Commands


SCRIPTS = ["train_segan", "train", "dataset_tool", "generate", "style_mixing", "projector", "calc_metrics", "legacy"]


def prepare():
    """Imports all commands, and makes the trainings that some of them contain short."""
    from segan_ext import cli, host

    host.activate()
    for name in cli.COMMANDS:
        cli.main.get_command(None, name)
    for name in SCRIPTS:
        importlib.import_module(name)
    import matplotlib.pyplot  # noqa: F401
    import onnxruntime  # noqa: F401

    for name in ("segan_ext.metrics.attributes", "segan_ext.semantics.segmenters"):
        sys.modules[name]._KIMG = 1


def run_command(words):
    """Runs a command line as its program does; ends in SystemExit."""
    name, *args = words
    command = {"segan_ext": "segan_ext.cli", "page": __name__}.get(name, name.removesuffix(".py"))
    importlib.import_module(command).main.main(args, prog_name=name)


@click.group()
def main():
    """What the page does with files that are given to it; its errors are usage errors here."""


def _page(network):
    """(engine, session) of the page"""
    from segan_ext.web import engine as engines
    from segan_ext.web import session

    engine = engines.Engine([network])
    return engine, session.Session(next(iter(engine.paths)))


@main.command()
@click.argument("network")
def edit(network):
    from segan_ext.web.session import loaded

    engine, session = _page(network)
    try:
        engine.render(loaded("in/edit.json", session, engine, session.view.network), None, session.named)
    except (OSError, ValueError) as error:  # a file that is not there is the harness's, never the page's
        raise click.UsageError(str(error)) from error


@main.command()
@click.argument("network")
def annotations(network):
    import gradio

    from segan_ext.web.tabs.train import TrainTab

    engine, session = _page(network)
    try:
        TrainTab.read_work(SimpleNamespace(engine=engine, next_image=lambda _: None), session, "in/work.zip")
    except gradio.Error as error:
        raise click.UsageError(str(error)) from error


@main.command()
@click.argument("network")
def answers(network):
    import gradio

    from segan_ext.web.tabs.name import NameTab

    _, session = _page(network)
    try:
        NameTab.read_answers(None, session, "in/seeds.csv")
    except gradio.Error as error:
        raise click.UsageError(str(error)) from error


# ---------------------------------------------------------------------------------------------------------------------
# Cases


def make_case(seed, number, kind, bases, folder):
    """Lays out in/ and out/ in `folder`, with something wrong in in/, and returns the `Case`."""
    dice = dice_of(seed, number, folder.parent / "canary")
    chosen = KINDS[pick_kind(dice)]
    command = dice.choice(chosen.commands).format(given=bases / "given")
    base = dice.choice(chosen.bases)
    shutil.copytree(bases / base, folder / "in", symlinks=True)
    (folder / "out").mkdir()
    files = sorted(path for pattern in chosen.changed for path in (folder / "in").glob(pattern) if path.is_file())
    for _ in range(dice.choice([0] + [1] * 15 + [2] * 4)):
        path = dice.choice(files)
        if dice.random() < 0.06 and path.is_file():  # what a change before it has taken away stays away
            _change_tree(dice, path)
        elif path.is_file() and not path.is_symlink():
            path.write_bytes(mutate(dice, path.name, path.read_bytes()))
    return Case(number, kind, command, [base, *dice.notes])


def dice_of(seed, number, canary=None):
    return Dice(f"{seed}/{number}", canary)


def pick_kind(dice):
    """The name of the kind of a case; the first thing that its dice decide"""
    return dice.choices(list(KINDS), [kind.weight for kind in KINDS.values()])[0]


def _change_tree(dice, path):
    """A file gone, of another name, or something that is no file."""
    changes = ["gone", "folder", "loop", "dangling", "renamed", "upper case", "copy", "strange name"]
    changes += ["pipe"] * (path.parent.name != "in")  # who names a pipe wants it read, and waited for
    change = dice.take([*changes, "link up", "link out", "hidden"], f"{path.name}: ")
    if change in ("gone", "folder", "loop", "dangling", "pipe", "link up", "link out"):
        path.unlink(missing_ok=True)
    if change == "pipe":
        os.mkfifo(path)
    if change in ("link up", "link out"):
        path.with_suffix("").symlink_to("../.." if change == "link up" else dice.canary)
    if change == "hidden":
        path.rename(path.with_name(f"._{path.name}"))
    if change == "folder":
        path.mkdir()
    if change in ("loop", "dangling"):
        path.symlink_to(path.name if change == "loop" else "nothing")
    if change == "copy":
        shutil.copy(path, path.with_name(f"copy of {path.name}"))
    if change in ("renamed", "upper case", "strange name"):
        names = {
            "renamed": "x" + path.suffix,
            "upper case": path.name.upper(),
            "strange name": "a\udcff\n" + path.suffix,
        }
        path.rename(path.with_name(names[change]))


# ---------------------------------------------------------------------------------------------------------------------
# Sound files


def build(folder):
    """Makes the bases, one folder each, and given/, what the commands need beside them. Some 30 seconds."""
    for step in (
        _pictures,
        _labels,
        _archives,
        _runs,
        _networks,
        _latents_and_masks,
        _scripts,
        _onnx,
        _semantics,
        _measured,
    ):
        step(folder)


def _call(*words):
    try:
        run_command([str(word) for word in words])
    except SystemExit as ended:
        if ended.code:
            raise RuntimeError(f"{words} ended with {ended.code}") from ended


def _pictures(folder):
    make = lambda name, count=5, **kwargs: make_dataset(_inside(folder / name), count, **kwargs)
    make("classes/data.zip", labels="classes")
    make("vectors/data.zip", labels="vectors", mode="L")
    items = [[i % 3, i / 10] for i in range(10)]
    factors = dict(
        names=["colour", "tilt"], kinds=["colour", "continuous"], values=dict(colour=["a", "b", "c"]), items=items
    )
    make("many/data.zip", labels="classes", count=10)
    make("factors/data.zip", count=10, extra={"dataset.json": json.dumps(dict(labels=None, factors=factors)).encode()})
    (folder / "folder" / "data").mkdir(parents=True)
    make("folder/data", labels="classes")
    inside = make_dataset(_inside(folder / "wrapped" / "data" / "faces"), 5, labels="classes")
    with zipfile.ZipFile(folder / "wrapped" / "data.zip", "w") as archive:
        for path in sorted(inside.rglob("*.*")):
            archive.write(path, path.relative_to(inside.parent))
    for i in range(2):
        with tarfile.open(_inside(folder / "shards" / "data" / f"{i}.tar"), "w") as archive:
            for name, data in ((f"./{i}.png", png(seed=i)), (f"./{i}.cls", str(i).encode())):
                info = tarfile.TarInfo(name)
                info.size = len(data)
                archive.addfile(info, io.BytesIO(data))
    make("masks/data.zip", count=10)
    masks = {f"00000/img{i:08d}.png": _label_map(i) for i in range(10)}
    masks["dataset.json"] = json.dumps(dict(labels=None, classes=["a", "b", "c"])).encode()
    make_dataset(folder / "masks" / "data-masks.zip", count=0, extra=masks)
    make("given/data.zip", labels="classes")
    (folder / "given" / "x.png").write_bytes(png())


def _labels(folder):
    """Of all five pictures that training gets, and of some seeds"""
    say = lambda i: f"{'yes' if i % 2 else 'no'},{i / 3}"
    names = [f"00000/img{i:08d}.png" for i in range(5)]
    for kind, keys in (("image", names), ("seed", range(8))):
        lines = [f"{kind},glasses,tilt", *(f"{key},{say(i)}" for i, key in enumerate(keys))]
        _inside(folder / "labels" / f"{kind}s.csv").write_text("\n".join(lines) + "\n")


def _inside(path):
    path.parent.mkdir(parents=True, exist_ok=True)
    return path


def _picture(pixels):
    buffer = io.BytesIO()
    Image.fromarray(pixels.astype(np.uint8)).save(buffer, "PNG")
    return buffer.getvalue()


def _label_map(seed, classes=3, size=16):
    return _picture(np.random.RandomState(seed).randint(0, classes, [4, 4]).repeat(size // 4, 0).repeat(size // 4, 1))


def _archives(folder):
    import lmdb

    archives, rng = folder / "archives", np.random.RandomState(0)
    with tarfile.open(_inside(archives / "cifar-10-python.tar.gz"), "w:gz") as archive:
        for i in range(1, 6):
            content = {b"data": rng.randint(0, 256, [2, 3072], dtype=np.uint8), b"labels": [i, 0]}
            data = pickle.dumps(content, protocol=2)
            info = tarfile.TarInfo(f"cifar-10-batches-py/data_batch_{i}")
            info.size = len(data)
            archive.addfile(info, io.BytesIO(data))
    images, labels = rng.bytes(3 * 28 * 28), rng.bytes(3)
    (archives / "train-images-idx3-ubyte.gz").write_bytes(gzip.compress(struct.pack(">4i", 2051, 3, 28, 28) + images))
    (archives / "train-labels-idx1-ubyte.gz").write_bytes(gzip.compress(struct.pack(">2i", 2049, 3) + labels))
    with lmdb.open(str(archives / "x_lmdb"), map_size=2**20) as database, database.begin(write=True) as writer:
        for i in range(5):
            writer.put(f"key{i}".encode(), png(seed=i))


def _runs(folder):
    """Short trainings: with subspaces and without, with labels and without, with names"""
    short = [*TINY, "--kimg=1", "--batch=32"]
    for name, args in (
        ("colour", ["--cfg=segan-mode2"]),
        ("labelled", ["--cfg=segan-mode1", "--cond=1", "--subspace-dim=4", "--aug=noaug"]),
        ("plain", ["--cfg=segan-mode0", "--aug=noaug"]),
        ("named", ["--cfg=segan-named", "--aug=noaug", f"--labels={folder}/labels/images.csv"]),
    ):
        runs = folder / "trained" / name
        _call("train_segan.py", f"--data={folder}/classes/data.zip", f"--outdir={runs}", *short, *args)
        shutil.copy(newest(only_run(runs)), _inside(folder / name / "G.pkl"))
    shutil.copy(folder / "colour" / "G.pkl", folder / "given" / "G.pkl")
    shutil.copytree(only_run(folder / "trained" / "named"), folder / "named" / "run")


def _networks(folder):
    for path in GOLDEN.glob("*.pkl"):
        name = path.stem.replace("_pickle", "").replace("_legacy", "").replace("tf_cond_plain", "tf_plain")
        shutil.copy(path, _inside(folder / name / "G.pkl"))
    _call(
        "segan_ext",
        "export",
        f"--network={folder / 'given' / 'G.pkl'}",
        f"--dest={folder / 'export' / 'G.safetensors'}",
    )


def _latents_and_masks(folder):
    G = f"--network={folder / 'given' / 'G.pkl'}"
    (folder / "mask").mkdir()
    for path in (folder / "mask" / "labels.png", folder / "given" / "labels.png"):
        path.write_bytes(_label_map(0))
    edited = ["--set=L1.N0.D0=2", "--mix=L1.N1=7", "--seeds=0,1", f"--keep={folder / 'given' / 'labels.png'}"]
    _call("segan_ext", "edit", G, *edited, f"--outdir={folder / 'edited'}")
    shutil.copy(folder / "edited" / "edit.json", _inside(folder / "edit" / "edit.json"))
    _call("projector.py", G, f"--target={folder / 'given' / 'x.png'}", "--num-steps=1", f"--outdir={folder / 'edited'}")
    shutil.copy(folder / "edited" / "projected_w.npz", _inside(folder / "latents" / "w.npz"))


class _Detector(torch.nn.Module):
    def forward(self, images: torch.Tensor, return_features: bool = False, return_lpips: bool = False):
        return images.to(torch.float32).mean(dim=[2, 3]) / 100 - 1


class _Segmenter(torch.nn.Module):
    def forward(self, images: torch.Tensor):
        grey = images.to(torch.float32).mean(dim=1, keepdim=True) / 64 - 2
        return torch.cat([0 * grey, grey - 0.5, -grey - 0.5], dim=1)


def _scripts(folder):
    for name, module in (("net", _Detector()), ("seg", _Segmenter())):
        torch.jit.script(module).save(str(_inside(folder / "script" / f"{name}.pt")))
    _name_classes(folder / "script")


def _name_classes(folder):
    for name in ("net", "seg"):
        (folder / f"{name}.json").write_text('["a", "b", "c"]')


def _onnx(folder):
    import onnx
    from onnx import helper

    images = helper.make_tensor_value_info("images", onnx.TensorProto.FLOAT, ["N", 3, "H", "W"])
    outputs = helper.make_tensor_value_info("y", onnx.TensorProto.FLOAT, None)
    for name, node in (("net", "GlobalAveragePool"), ("seg", "Sigmoid")):
        graph = helper.make_graph([helper.make_node(node, ["images"], ["y"])], name, [images], [outputs])
        model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
        onnx.save(model, str(_inside(folder / "onnx" / f"{name}.onnx")))
    _name_classes(folder / "onnx")
    shutil.copy(folder / "onnx" / "net.onnx", folder / "given" / "detector.onnx")
    for ending in ("pt", "json"):
        shutil.copy(folder / "script" / f"seg.{ending}", folder / "given" / f"seg.{ending}")


def _semantics(folder):
    files = {f"seed{i:04d}.png": _label_map(i) for i in range(3)} | {"classes.json": b'["a", "b", "c"]'}
    for place in (folder / "annotations" / "annotations", folder / "given" / "annotations"):
        for name, data in files.items():
            _inside(place / name).write_bytes(data)
    with zipfile.ZipFile(_inside(folder / "work" / "work.zip"), "w") as archive:
        for name, data in files.items():
            archive.writestr(name, data)
    dest = folder / "extractor" / "e.safetensors"
    given = folder / "given"
    _call(
        "segan_ext",
        "semantics",
        "train",
        f"--network={given}/G.pkl",
        f"--annotations={given}/annotations",
        f"--dest={dest}",
    )
    shutil.copy(dest, given / "e.safetensors")


def _measured(folder):
    """A run directory with what a run leaves behind, two measurements among it"""
    run = shutil.copytree(only_run(folder / "trained" / "colour"), folder / "run" / "run")
    for path in [*run.glob("*.png"), *sorted(run.glob("network-snapshot-*"))[:-1], *sorted(run.glob("*.pt"))[:-1]]:
        path.unlink()
    args = ["--metrics=subspaces,ppl_segan", "--detector=pixel-pyramid", "--num-gen=4"]
    _call("segan_ext", "calc_metrics", f"--network={newest(run)}", *args)
