"""Options of all commands: a value that cannot be used is refused by name, before any work."""

import io
import json
import os
import shutil

import click
import numpy as np
import PIL.Image
import pytest
import torch
from click.testing import CliRunner
from test_house import commands

from golden_data import FOLDER
from helpers import ROOT
from runs.numbers import parse_numbers
from runs.options import Numbers, OutputDir, OutputFile

COMMANDS = {name: command for command, name in commands() if not isinstance(command, click.Group)}
NETWORK = FOLDER / "nvidia_pickle_uncond.pkl"  # 32×32, of 8 layers


def options_of(command, kind=object):
    return [p for p in command.params if isinstance(p, click.Option) and not p.is_flag and isinstance(p.type, kind)]


def call(command, *args):
    """The command in this process, with something for each option that it requires; (exit status, output)"""
    given = {arg.partition("=")[0] for arg in args}
    needed = [p for p in command.params if p.required and not given & set(p.opts)]
    filled = [f"{p.opts[0]}={value_for(p)}" if isinstance(p, click.Option) else "x" for p in needed]
    filled += ["-n"] if any("-n" in param.opts for param in command.params) else []
    done = CliRunner().invoke(command, [*filled, *args], catch_exceptions=True)
    assert done.exception is None or isinstance(done.exception, SystemExit), done.exc_info
    return done.exit_code, done.output


def value_for(param):
    if isinstance(param.type, OutputFile):
        return f"never-written{(*param.type.endings, '')[0]}"
    return "0" if isinstance(param.type, Numbers) else "never-written"


@pytest.mark.parametrize("name", COMMANDS)
def test_nothing_is_no_value(name):
    for option in options_of(COMMANDS[name]):
        if option.metavar == "LIST" or option.opts[0] == "--host":
            continue
        status, output = call(COMMANDS[name], f"{option.opts[0]}=")
        assert status == 2 and option.opts[0] in output, (option.opts[0], output)


@pytest.mark.parametrize("name", COMMANDS)
def test_numbers_are_finite(name):
    for option in options_of(COMMANDS[name], type(click.FLOAT)):
        for value in ("nan", "inf", "-inf", "x"):
            status, output = call(COMMANDS[name], f"{option.opts[0]}={value}")
            assert status == 2 and option.opts[0] in output, (option.opts[0], value, output)


@pytest.mark.parametrize("name", COMMANDS)
def test_counts_and_seeds_are_not_negative(name):
    for option in options_of(COMMANDS[name], type(click.INT)):
        status, output = call(COMMANDS[name], f"{option.opts[0]}=1.5")
        assert status == 2 and option.opts[0] in output, (option.opts[0], output)
    for option in options_of(COMMANDS[name], click.IntRange):
        status, output = call(COMMANDS[name], f"{option.opts[0]}=-1")
        assert status == 2 and option.opts[0] in output, (option.opts[0], output)
    unbounded = [o for o in options_of(COMMANDS[name], type(click.INT)) if not isinstance(o.type, click.IntRange)]
    assert "--seed" not in [o.opts[0] for o in unbounded] or name.startswith("train"), name


@pytest.mark.parametrize("name", COMMANDS)
def test_where_results_go_is_looked_at_first(name, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "file").write_text("mine")
    outputs = options_of(COMMANDS[name], (OutputDir, OutputFile))
    said = {"--outdir", "--dest"} & {option.opts[0] for option in options_of(COMMANDS[name])}
    assert said <= {option.opts[0] for option in outputs} or name == "dataset_tool.py", name
    for option in outputs:
        ending = (*getattr(option.type, "endings", ()), "")[0]
        for value in (f"file/x{ending}", f"/proc/none/x{ending}"):
            status, output = call(COMMANDS[name], f"{option.opts[0]}={value}")
            assert status == 2 and f"{option.opts[0]}: " in output, (option.opts[0], value, output)
        if ending:
            status, output = call(COMMANDS[name], f"{option.opts[0]}=x.xyz")
            assert status == 2 and f"{option.opts[0]}: x.xyz must end in {ending}" in " ".join(output.split()), output
    assert os.listdir(tmp_path) == ["file"] and (tmp_path / "file").read_text() == "mine"


@pytest.mark.parametrize("name", COMMANDS)
def test_words_are_taken_in_any_case_and_the_nearest_is_named(name):
    for option in options_of(COMMANDS[name]):
        for word in getattr(option.type, "values", ()):
            assert option.type.convert(word.swapcase(), option, None) == word
        if hasattr(option.type, "values"):
            status, output = call(COMMANDS[name], f"{option.opts[0]}=nonsense")
            assert status == 2 and option.opts[0] in output and ("did you mean" in output or "choose" in output), output


def test_the_home_of_the_user(tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    shutil.copy(NETWORK, tmp_path / "n.pkl")
    assert call(COMMANDS["generate.py"], "--network=~/n.pkl", "--seeds=1", "--outdir=~/out")[0] == 0
    assert call(COMMANDS["samples"], "--network=~/n.pkl", "--grid=1x1", "--dest=~/x/s.png")[0] == 0
    assert os.listdir(tmp_path / "out") == ["seed0001.png"] and os.listdir(tmp_path / "x") == ["s.png"]


@pytest.mark.parametrize(
    "text, numbers",
    [("5", [5]), ("1,3-5", [1, 3, 4, 5]), ("3 - 5", [3, 4, 5]), ("1 2  3", [1, 2, 3]), (" 1, 2 ", [1, 2])],
)
def test_numbers(text, numbers):
    assert parse_numbers(text) == numbers


@pytest.mark.parametrize(
    "text, sentence",
    [
        ("5-1", "5-1 runs backwards; write 1-5"),
        ("1,,2", "'' is no number"),
        ("1;2", "'1;2' is no number"),
        ("-1", "'-1' is no number"),
    ],
)
def test_no_numbers(text, sentence):
    with pytest.raises(ValueError, match=sentence):
        parse_numbers(text)


OVERWRITTEN = """
legacy.py --source=u.pkl --dest=u.pkl → u.pkl would be overwritten
legacy.py --source=u.pkl --dest=keep.zip → keep.zip must end in .pkl
discover --network=u.pkl --dest=u.pkl → u.pkl would be overwritten
discover --network=u.pkl --dest=mine.safetensors → mine.json, which belongs to it, is there
export --network=u.pkl --dest=mine.safetensors → mine.json, which belongs to it, is there
export --network=G.safetensors --dest=G.safetensors --half → G.safetensors would be overwritten
semantics train --network=G.safetensors --annotations=x --dest=G.safetensors → G.safetensors would be
"""
OVERWRITTEN = dict(line.split(" → ") for line in OVERWRITTEN.strip().splitlines())


@pytest.mark.parametrize("line", OVERWRITTEN)
def test_files_of_the_user_are_not_overwritten(line, monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    shutil.copy(NETWORK, "u.pkl")
    for name in ("keep.zip", "mine.json", "G.safetensors", "G.json"):
        (tmp_path / name).write_text("mine")
    before = {path.name: path.read_bytes() for path in tmp_path.iterdir()}
    name = next(each for each in sorted(COMMANDS, key=len, reverse=True) if line.startswith(each))
    status, output = call(COMMANDS[name], *line.removeprefix(name).split())
    assert status == 2 and f"--dest: {OVERWRITTEN[line]}" in " ".join(output.split()), output
    assert before == {path.name: path.read_bytes() for path in tmp_path.iterdir()}


WRONG = """
calc_metrics.py --network={net} --detector=vgghed → --detector: there is no 'vgghed'; give a file, a URL, or one of
train_segan.py --cfg=segan-eigen --own-dim=4097 → --own-dim: 4097 is not in the range
train_segan.py --data={discs} --num-gen=5 → --num-gen: has no effect without --metrics
train_segan.py --data={discs} --gpus=3 → --gpus: 16 images cannot be split between 3 processes
train_segan.py --cfg=eigengan --data={discs} --num-labels=4 → --num-labels: EigenGAN has no such thing
discover --network={cond} --method=labels --labels={labels} --class=9 → --class: this network is conditional
discover --network={net} --method=labels --labels={labels} --names=smile,nose → it has smile, hat
discover --network={net} --method=labels --labels={labels} --names=smile --hold=smile → --hold: smile is to be
discover --network={net} --layers=7-0 → --layers: 7-0 runs backwards; write 0-7
export --network={net} --dest=x.SAFETENSORS → --dest: x.SAFETENSORS does not end in .safetensors
samples --network={net} --grid=100000x100000 → --grid: the last image's seed
samples --network={here} → --network: {here} is a folder; give a file
calc_metrics.py --network={net} --mirror=1 → --mirror: fid50k_full never counts mirrored copies; fid50k does
generate.py --network={net} --seeds=0-99999999999 --outdir=x → 0-99999999999 is too large
edit --network={net} --image=nosuch.png → --image: nosuch.png cannot be opened
semantics train --network={net} --segmenter=nosuch.zip → --segmenter: nosuch.zip does not exist
web --network=avatars64 --network=nosuch.pkl → --network: nosuch.pkl does not exist
legacy.py --source={labels} → it is a text
"""
WRONG = dict(line.split(" → ") for line in WRONG.strip().splitlines())


@pytest.mark.parametrize("line", WRONG)
def test_the_option_that_is_wrong_is_named(line, monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    rows = "".join(f"{i},{'yn'[i % 2]},{'ab'[i % 3 % 2]}\n" for i in range(10))
    (tmp_path / "labels.csv").write_text("seed,smile,hat\n" + rows)
    places = dict(net=NETWORK, cond=FOLDER / "nvidia_pickle_cond.pkl", labels=tmp_path / "labels.csv", here=tmp_path)
    places |= dict(discs=ROOT / "tests" / "e37c618" / "discs.zip")
    name = next(each for each in sorted(COMMANDS, key=len, reverse=True) if line.startswith(each))
    status, output = call(COMMANDS[name], *line.removeprefix(name).format(**places).split())
    assert status == 2 and WRONG[line].format(**places) in " ".join(output.split()), output


USELESS = """
generate.py --projected-w=x.npz --trunc=0.5 → --trunc: has no effect on ws that are given
generate.py --projected-w=x.npz --class=1 → --class: has no effect on ws
edit --replay=x.json --seeds=1 → --seeds: has no effect on an edit that is made again
edit --replay=x.json --set=a=1 → --set: has no effect on an edit
edit --seeds=1 --num-steps=5 → --num-steps: has no effect without --image
edit --projected-w=x.npz --trunc=0.5 → --trunc: has no effect without --seeds
edit --seeds=1 --extractor=x → --extractor: has no effect without --inside
explore --seeds=1-3 → --seeds: has no effect without --atlas
explore --atlas=x.html --rows=3 → --rows: has no effect with --atlas
explore --interpolate=1,2 --dims=L1.N0.D0 → --dims: has no effect with --interpolate
explore --projected-w=x.npz --trunc=0.5 → --trunc: has no effect with --projected-w
explore --noise=all --sigmas=2 → --sigmas: has no effect with --noise
discover --method=sefa --samples=100 → --samples: has no effect with --method=sefa
discover --method=pca --layers=all → --layers: has no effect with --method=pca
discover --method=pca --names=x → --names: has no effect with --method=pca
discover --method=labels --labels=x --dims=4 → --dims: has no effect with --method=labels
export --dest=x.onnx --licence=mit → --licence: has no effect without --to
report x --num-gen=5 → --num-gen: has no effect without --metrics
semantics train --segmenter=x --loss=focal → --loss: has no effect without --method=sgd
semantics train --annotations=x --shots=3 → --shots: has no effect with --annotations
semantics edit --projected-w=x --trunc=1 --labels=x → --trunc: has no effect on ws that are given
edit --replay=x.json --directions=x.json → --directions: has no effect on an edit
avatars --list-styles --count=5 → --count: has no effect with --list-styles
"""
USELESS = dict(line.split(" → ") for line in USELESS.strip().splitlines())


@pytest.mark.parametrize("line", USELESS)
def test_an_option_without_effect_is_refused(line, monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    name = next(each for each in sorted(COMMANDS, key=len, reverse=True) if line.startswith(each))
    status, output = call(COMMANDS[name], *line.removeprefix(name).split())
    assert status == 2 and USELESS[line] in " ".join(output.split()), output


def test_a_result_does_not_take_the_place_of_what_it_is_made_from(tmp_path):
    for name in ("target.png", "a.png", "projection.png"):
        PIL.Image.new("RGB", (16, 16)).save(tmp_path / name)
    before = {path: path.read_bytes() for path in tmp_path.iterdir()}
    here = [f"--network={NETWORK}", f"--outdir={tmp_path}", "--num-steps=1"]
    for name, target, sentence in (
        ("projector.py", tmp_path / "target.png", "would be overwritten"),
        ("project", tmp_path / "a.png", "would be overwritten"),
        ("project", tmp_path, "--target: a picture is called projection"),
    ):
        status, output = call(COMMANDS[name], *here, f"--target={target}")
        assert status == 2 and sentence in " ".join(output.split()), output
    assert before == {path: path.read_bytes() for path in tmp_path.iterdir()}


def test_style_mixing_of_a_small_network_mixes_by_default(tmp_path):
    args = [f"--network={NETWORK}", "--rows=1", "--cols=2", f"--outdir={tmp_path}"]
    status, output = call(COMMANDS["style_mixing.py"], *args)
    assert status == 0 and "8 layers; the coarse half is mixed, --styles=0-3" in output
    pictures = {name: np.asarray(PIL.Image.open(tmp_path / f"{name}.png")) for name in ("1-1", "1-2", "2-2")}
    assert not np.array_equal(pictures["1-2"], pictures["2-2"]) and not np.array_equal(pictures["1-2"], pictures["1-1"])
    assert call(COMMANDS["style_mixing.py"], *args, "--styles=0-3")[0] == 0
    assert np.array_equal(pictures["1-2"], np.asarray(PIL.Image.open(tmp_path / "1-2.png")))


def test_metrics_that_are_none(tmp_path):
    status, output = call(COMMANDS["calc_metrics.py"], f"--network={NETWORK}", "--metrics=None")
    assert status == 0 and "Calculating" not in output


def archive():
    content = io.BytesIO()
    torch.save(dict(a=torch.zeros(1)), content)
    return content.getvalue()


WRONG_NETWORKS = {
    "a.png": (b"\x89PNG\r\n\x1a\n", "it is a PNG picture"),
    "a.pkl": (b"<!DOCTYPE html><html>sign in</html>", "it is a web page"),
    "b.pkl": (b"version https://git-lfs.github.com/spec/v1\noid sha256:0\n", "git lfs pull"),
    "c.pkl": (json.dumps(dict(a=1)).encode(), "it is a text"),
    "d.pkl": (b"\x1f\x8b\x08" + bytes(20), "it is packed with gzip"),
    "f.pkl": (b"\x08\x08\x12\x07pytorch\x1a\x05", "it is an ONNX file"),
    "g.pkl": (b"\x10\0\0\0\0\0\0\0" + b'{"a": {}}', "has to end in .safetensors"),
    "training-state-000001.pt": (archive(), "the state of a run; give a network-snapshot-"),
    "e.pkl": (b"PK\x03\x04" + bytes(50), "damaged or cut short"),
}


@pytest.mark.parametrize("name", WRONG_NETWORKS)
def test_what_a_file_that_is_no_network_looks_like(name, tmp_path):
    content, sentence = WRONG_NETWORKS[name]
    (tmp_path / name).write_bytes(content)
    status, output = call(COMMANDS["samples"], f"--network={tmp_path / name}", f"--dest={tmp_path / 'x.png'}")
    assert status == 2 and "--network: " in output and sentence in output, output
