"""Wrong input gets one sentence that names the option and the cure, exit status 2, and no traceback."""

import importlib
import io
import json
import os
import struct
import zipfile
import zlib

import click.testing
import PIL.Image
import pytest

import train_segan
from helpers import make_dataset, png, run
from runs import launch
from training.dataset import ImageFolderDataset


def picture(width, height, mode="RGB"):
    buffer = io.BytesIO()
    PIL.Image.new(mode, (width, height)).save(buffer, format="PNG")
    return buffer.getvalue()


def damaged():
    data = bytearray(png())
    data[len(data) // 2] ^= 255
    return bytes(data)


def labels_file(labels):
    return {"dataset.json": json.dumps({"labels": labels}).encode()}


def bomb(width, height):
    """A PNG of a few hundred bytes that claims so many pixels"""
    chunk = lambda kind, data: struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))
    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    start = b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header)
    return start + chunk(b"IDAT", zlib.compress(bytes(100_000))) + chunk(b"IEND", b"")


BROKEN_DATA = {
    "missing": (None, "does not exist"),
    "empty zip": (dict(count=0), "holds no images"),
    "corrupt PNG": (dict(extra={"00000/zz.png": damaged()}), "zz.png is damaged"),
    "truncated PNG": (dict(extra={"00000/zz.png": png()[:-20]}), "zz.png is damaged"),
    "sizes differ": (dict(extra={"00000/zz.png": picture(32, 16)}), "images of 2 sizes (16×16, 32×16)"),
    "not square": (dict(count=0, extra={"a.png": picture(32, 16)}), "not square"),
    "no power of two": (dict(size=24), "24×24, which is not a power of two"),
    "too small for D": (dict(size=4), "4×4, which is not a power of two from 8 on"),
    "decompression bomb": (dict(extra={"00000/zz.png": bomb(60000, 60000)}), "zz.png is damaged (Image size"),
    "very large": (dict(extra={"00000/zz.png": bomb(9000, 9000)}), "zz.png is damaged (its 9000×9000 pixels"),
    "nested labels": (dict(extra={"dataset.json": b'{"labels":' + b"[" * 10**5}), "dataset.json cannot be read"),
    "alpha": (dict(count=0, extra={"a.png": picture(16, 16, "RGBA")}), "RGBA"),
    "grey among RGB": (dict(extra={"00000/zz.png": png(mode="L")}), "modes L, RGB"),
    "no labels file": (dict(extra={"dataset.json": b"[1, 2]"}), "dataset.json is not of the form"),
}


@pytest.mark.parametrize("case", BROKEN_DATA)
@pytest.mark.parametrize("suffix", [".zip", ""])
def test_broken_data(case, suffix, tmp_path):
    made, sentence = BROKEN_DATA[case]
    path = tmp_path / f"data{suffix}"
    if made is not None:
        path.mkdir() if not suffix else None
        make_dataset(path, **made)
    assert_refused(["--data", path], "--data: ", sentence, tmp_path)


BROKEN_LABELS = {
    "one is missing": (
        dict(labels="classes", extra={"00000/zz.png": png()}),
        "no label for 1 of 41 images (first: 00000/zz.png)",
    ),
    "negative": (dict(count=1, extra=labels_file([["00000/img00000000.png", -1]])), "classes from 0 on"),
    "fractions": (dict(count=1, extra=labels_file([["00000/img00000000.png", 0.5]])), "classes from 0 on"),
    "NaN": (
        dict(count=1, extra={"dataset.json": b'{"labels": [["00000/img00000000.png", [NaN]]]}'}),
        "classes from 0 on",
    ),
    "huge class": (dict(count=1, extra=labels_file([["00000/img00000000.png", 10**30]])), "classes from 0 on"),
    "no memory": (dict(count=1, extra=labels_file([["00000/img00000000.png", 10**9]])), "classes from 0 on"),
    "all null": (dict(count=1, extra=labels_file([["00000/img00000000.png", None]])), "has no labels"),
}


@pytest.mark.parametrize("case", BROKEN_LABELS)
def test_broken_labels(case, tmp_path):
    made, sentence = BROKEN_LABELS[case]
    data = make_dataset(tmp_path / "data.zip", **made)
    assert_refused(["--data", data, "--cond=1"], "--", sentence, tmp_path)
    assert run("train_segan.py", "-n", f"--data={data}").returncode == 0  # they do no harm where they are not used


def test_a_damaged_zip(tmp_path):
    data = make_dataset(tmp_path / "x.zip")
    content = data.read_bytes()
    start = content.rindex(b"PK\x01\x02")
    data.write_bytes(content[:start] + b"XX" + content[start + 2 :])
    assert_refused(["--data", data], "--data: ", "damaged", tmp_path)


def test_a_damaged_deflated_zip(tmp_path):
    data, content = tmp_path / "x.zip", png(64, 64)
    with zipfile.ZipFile(data, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("a.bmp", b"BM" + content * 20)  # text-like enough to be compressed
        info = archive.getinfo("a.bmp")
    damaged = bytearray(data.read_bytes())
    damaged[35:38] = b"\xff\xff\xff"  # where its data begin
    data.write_bytes(damaged)
    assert info.compress_size < info.file_size
    assert_refused(["--data", data], "--data: ", "a.bmp cannot be read (Error -3 while decompressing", tmp_path)


@pytest.mark.parametrize("name", ["00000/img00000000.png", "00000/img00000005.png", "dataset.json"])
def test_an_encrypted_zip(name, tmp_path):
    data = make_dataset(tmp_path / "x.zip", count=10, labels="classes")
    with zipfile.ZipFile(data) as archive:
        at = archive.getinfo(name).header_offset
    content = bytearray(data.read_bytes())
    content[at + 6] |= 1
    entry = content.index(name.encode(), content.rindex(b"00000/img00000000.png") - 60)
    content[entry - 38] |= 1
    data.write_bytes(content)
    assert_refused(["--data", data], "--data: ", "is encrypted, password required", tmp_path)


def test_a_file_that_is_no_zip(tmp_path):
    (tmp_path / "x.zip").write_bytes(b"hello")
    assert_refused(["--data", tmp_path / "x.zip"], "--data: ", "neither a folder nor a zip", tmp_path)


BROKEN_OPTIONS = """
--cond=1 → has no labels in dataset.json
--cfg=segan-mod2 → did you mean segan-mode2?
--cfg=paper265 → did you mean paper256?
--aug=adda → did you mean ada?
--augpipe=bgcx → did you mean
--batch=0 → must be at least 1
--batch=10 → choose a multiple of 4
--batch=16 --batch-gpu=5 → choose a divisor
--p=0.5 → only with --aug=fixed
--aug=fixed → needs the probability, --p
--aug=fixed --p=1.5 → between 0 and 1
--aug=noaug --augpipe=bgc → no meaning with --aug=noaug
--metrics=fid5k → there is no 'fid5k'
--device=tpu → cannot be used here
--fp32=0 → half precision needs CUDA
--bf16=1 → there is no half precision without CUDA
--kimg=0 → must be at least 1
--gamma=-1 → must not be negative
--grid=4by4 → COLUMNSxROWS
--gpus=0 → at least 1
--batch=16 --gpus=3 → cannot be split between 3 processes
--resume=latest → no run in
--resume=nonsense.pkl → cannot be used
--cfg=segan-mode0 --ortho=1 → mode 0 has no subspaces
--cfg=segan-mode3 --subspace-dim=8 → modes 1 and 2
--subspace-dim=65 → between 1 and w_dim = 64
--subspace-form=publish → did you mean published?
--subspace-form=residual → needs subspace-dim
--ortho=-1 → -1.0 is not in the range
--cfg=segan-mode3 --ortho=1 → mode 3 has no basis
--train=subspace → name one with --resume
--cfg=segan-mode0 --train=subspace → mode 0 has no subspaces
--trust-pickle → is about the pickle of --resume
--seed=-1 → must lie between 0
--subset=0 → must be at least 1
--channel-base=8 → at least the resolution, 16
"""
BROKEN_OPTIONS = dict(line.split(" → ") for line in BROKEN_OPTIONS.strip().splitlines())


@pytest.mark.parametrize("options", BROKEN_OPTIONS)
def test_broken_options(options, tmp_path):
    data = make_dataset(tmp_path / "discs.zip", count=8)
    name = options.split("=")[0] if " " not in options else ""
    assert_refused([f"--data={data}", *options.split()], name, BROKEN_OPTIONS[options], tmp_path)


def test_a_basis_too_large_for_memory(tmp_path):
    data = make_dataset(tmp_path / "large.zip", count=8, size=256)
    args = [f"--data={data}", "--cfg=segan-mode1"]
    assert_refused(
        args, "--subspace-dim", "536,870,912 entries, more than 268,435,456; choose --subspace-dim=32", tmp_path
    )


def test_as_a_process():
    done = run("train_segan.py", "--data=/nowhere.zip", check=False)
    assert done.returncode == 2 and "Traceback" not in done.stderr
    assert [line for line in done.stderr.splitlines() if line.startswith("Error: --data: /nowhere.zip does not exist")]


def assert_refused(args, start, sentence, tmp_path):
    """Runs the command in this process; starting another for each of them would take minutes."""
    out = tmp_path / "out"
    done = click.testing.CliRunner().invoke(train_segan.main, [f"--outdir={out}", *args])
    assert done.exit_code == 2, done.output
    assert isinstance(done.exception, SystemExit)
    (line,) = [line for line in done.output.splitlines() if line.startswith("Error: ")]
    assert sentence in line and start in line, line
    assert not out.exists()


@pytest.mark.parametrize("text", ["", " "])
def test_an_option_that_is_given_nothing(text, tmp_path, monkeypatch):
    """As by $VARIABLE that is not set; no command may begin with defaults instead."""
    from segan_ext.cli import main as tools

    names = ("generate", "projector", "calc_metrics", "train", "dataset_tool", "train_segan")
    scripts = {name: importlib.import_module(name).main for name in names} | dict(tools=tools)
    monkeypatch.chdir(tmp_path)
    for command in (
        f"train_segan --data={text}",
        f"train_segan -n --data={text}",
        f"train_segan -n --outdir={text}",
        f"train_segan -n --resume={text}",
        f"train_segan -n --host={text}",
        f"train_segan -n --labels={text}",
        f"train --data={text}",
        f"generate --network={text}|--outdir=x",
        f"generate --network=N|--outdir={text}",
        f"projector --network=N|--target={text}|--outdir=x",
        f"calc_metrics --network=N|--data={text}",
        f"dataset_tool --source={text}|--dest=x",
        f"dataset_tool --source=x|--dest={text}",
        f"tools project|--network=N|--outdir=x|--target=a|--target={text}",
        f"tools edit|--network=N|--image={text}|--outdir=x",
        f"tools semantics|train|--network=N|--dest={text}",
        f"tools report|{text}",
    ):
        script, args = command.split(" ", 1)
        args = args.split("|") if "|" in args else args.split(" ", args.startswith("-n"))
        done = click.testing.CliRunner().invoke(scripts[script], args)
        assert done.exit_code == 2 and ": is empty; is a variable of the shell not set?" in done.output, command
    assert not os.listdir()


def test_runs_do_not_lie_in_their_data(tmp_path, monkeypatch):
    data = make_dataset(tmp_path / "pictures", count=8)
    (tmp_path / "link").symlink_to(data)
    monkeypatch.chdir(data)
    for args in (["--data=."], [f"--data={data}"], ["--data=.", "--outdir=runs"], ["--data=../link", "--outdir=00000"]):
        done = click.testing.CliRunner().invoke(train_segan.main, args)
        assert done.exit_code == 2 and "Error: --outdir: " in done.output and "lies in the training data" in done.output
    assert os.listdir() == ["00000"]
    monkeypatch.chdir(tmp_path)  # beside each other they may lie
    done = click.testing.CliRunner().invoke(train_segan.main, ["-n", "--data=pictures", "--outdir=pictures-runs"])
    assert done.exit_code == 0, done.output


def test_a_name_with_a_dot_and_spaces_is_kept_and_quoted(tmp_path):
    data = make_dataset(tmp_path / "my data (v1.2)", count=8)
    done = click.testing.CliRunner().invoke(train_segan.main, ["-n", f"--data={data}", f"--outdir={tmp_path / 'out'}"])
    assert done.exit_code == 0 and "00000-my data (v1.2)-segan-mode2" in done.output
    make_dataset(tmp_path / "my data (v1.2).zip", count=8)
    assert ImageFolderDataset(tmp_path / "my data (v1.2).zip").name == ImageFolderDataset(data).name == "my data (v1.2)"
    (tmp_path / "a run").mkdir()
    (tmp_path / "a run" / "training-state-000001.pt").write_bytes(b"")
    said = launch._way_on(str(tmp_path / "a run"), RuntimeError())
    assert said == f"--resume='{tmp_path}/a run' goes on from training-state-000001.pt"


def test_what_is_not_used_of_the_data_is_said(tmp_path):
    data = make_dataset(tmp_path / "data", count=8, labels="classes", extra={"00000/a.raw": b"x", ".hidden": b"x"})
    (data / "00000" / "img00000007.png").unlink()
    done = click.testing.CliRunner().invoke(train_segan.main, ["-n", f"--data={data}", "--cond=1"])
    assert f"{data}: 1 file is no picture that can be read: .raw (1).\n" in done.output
    assert f"{data}: 1 label is of a missing file (first: 00000/img00000007.png).\n" in done.output
    assert done.exit_code == 0
