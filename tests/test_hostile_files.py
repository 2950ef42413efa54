"""Files of others: they may be refused, but must not run, crash, swell or be half taken. `fuzz.py` tries many more."""

import base64
import io
import json
import pickle
import threading
import zipfile

import numpy as np
import pytest
import torch
from click.testing import CliRunner

import train_segan
from helpers import TINY, make_dataset, only_run, png, run
from metrics import metric_main
from runs import resume
from runs.numbers import parse_numbers
from segan_ext import cli
from segan_ext.control.edit_file import read_edit
from segan_ext.semantics import extractors
from segan_ext.semantics.extractors import LSE, open_extractor, save_extractor
from snapshots.safetensors import load_safetensors, save_safetensors
from test_segan_networks import build
from training import files, latents, networks
from training.state import read


@pytest.fixture(scope="module")
def run_dir(tmp_path_factory):
    folder = tmp_path_factory.mktemp("run")
    data = make_dataset(folder / "discs.zip", count=8)
    run("train_segan.py", *TINY, f"--data={data}", "--kimg=1", "--snap=1", f"--outdir={folder / 'out'}")
    return only_run(folder / "out")


CODE = [
    "os.system",
    "subprocess.Popen",
    "torch.hub.load",
    "training.dataset.os.system",
    "dnnlib.util.call_func_by_name",
]


@pytest.mark.parametrize("name", CODE)
def test_the_name_of_a_class_leads_to_no_function(name, run_dir):
    """A snapshot says which data set it was trained on, a run which classes it is made of."""
    opts = dict(dataset_kwargs=dict(class_name=name, path="x"), device="cpu")
    with pytest.raises(ValueError, match="no class that is known here.*give --data"):
        metric_main.calc_metric("fid50k_full", G=build(mode=0), **opts)
    args = json.loads((run_dir / "training_options.json").read_text())
    del args["options"]
    for part in resume._CLASSES:
        with pytest.raises(ValueError, match="no class that is known here"):
            resume._check_arguments(args | {part: dict(args[part] or {}, class_name=name)}, {})


def test_a_run_without_its_arguments(run_dir, tmp_path):
    good = json.loads((run_dir / "training_options.json").read_text())
    (tmp_path / "training-state-000001.pt").write_bytes((run_dir / "training-state-000001.pt").read_bytes())
    broken = [
        [],
        {},
        dict(good, device=3),
        dict(good, options=[]),
        dict(good, G_kwargs=None),
        dict(good, total_kimg="x"),
    ]
    broken.append(dict(good, training_set_kwargs=dict(class_name="training.dataset.ImageFolderDataset")))
    for content in [json.dumps(each) for each in broken] + ["[" * 100_000, "", "NaN"]:
        (tmp_path / "training_options.json").write_text(content)
        done = CliRunner().invoke(train_segan.main, [f"--resume={tmp_path}", "--kimg=2", "-n"])
        assert done.exit_code == 2 and "training_options.json cannot be read" in done.output, (
            content[:80],
            done.output,
        )


def compressed(path, size):
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED, compresslevel=1) as archive:
        archive.writestr("archive/data/0", bytes(size))
    return path


def test_zips_that_swell(tmp_path):
    with pytest.raises(ValueError, match="unpacks to"):
        read(str(compressed(tmp_path / "training-state-000001.pt", 2**27)))
    with zipfile.ZipFile(tmp_path / "w.npz", "w", zipfile.ZIP_DEFLATED, compresslevel=1) as archive:
        archive.writestr("w.npy", bytes(2**28 + 1))
    with pytest.raises(ValueError, match="are more than the"):
        files.read_npz(tmp_path / "w.npz", "w")


ARRAYS = {
    "objects": (np.array([print], dtype=object), "type object"),
    "words": (np.array([b"abc"]), "type |S3"),
    "long double": (np.zeros(3, np.longdouble), "type float128"),
    "complex": (np.zeros(3, complex), "type complex128"),
    "NaN": (np.full([1, 2, 3], np.nan), "not finite"),
    "shape": (np.zeros([1, 2, 3]), r"w is \[1, 2, 3\]"),
    "none": (np.zeros([0, 6, 12]), r"w is \[0, 6, 12\]"),
}


@pytest.mark.parametrize("case", ARRAYS)
def test_arrays_that_are_no_latents(case, tmp_path):
    array, reason = ARRAYS[case]
    np.savez(tmp_path / "w.npz", w=array)
    with pytest.raises(ValueError, match=reason):
        latents.load_ws(build(mode=2), tmp_path / "w.npz", "cpu")


def test_an_array_that_claims_more_than_there_is(tmp_path):
    header = io.BytesIO()
    np.lib.format.write_array_header_1_0(header, dict(descr="<f4", fortran_order=False, shape=(2**40, 6, 12)))
    with zipfile.ZipFile(tmp_path / "w.npz", "w") as archive:
        archive.writestr("w.npy", header.getvalue())
    with pytest.raises(ValueError, match="is no .npz with an array w"):
        latents.load_ws(build(mode=2), tmp_path / "w.npz", "cpu")


def test_extractors_that_claim_more_than_there_is(tmp_path):
    path = str(tmp_path / "x.safetensors")
    save_extractor(path, LSE(("b4.conv1",), (8,), ("a", "b")))
    assert open_extractor(path).classes == ("a", "b")
    wide = LSE(("b4.conv1",), (8,), ("a", "b"))
    wide.channels = (2**40,)
    save_extractor(path, wide)
    with pytest.raises(ValueError, match="is no extractor"):
        open_extractor(path)
    bad = LSE(("b4.conv1",), (8,), ("a", "b"))
    torch.nn.init.constant_(bad.maps[0].weight, float("nan"))
    save_extractor(path, bad)
    with pytest.raises(ValueError, match="not finite"):
        open_extractor(path)


EDITS = {
    "no version": (dict(version=None), "of version None; this version of SEGAN reads 1 to 2"),
    "newer": (dict(version=3), "of version 3; this version of SEGAN reads 1 to 2"),
    "noise": (dict(noise_mode="loud"), "is no edit"),
    "names": (dict(names=["a\0b"]), "is no edit"),
    "dots": (dict(names=[".."]), "is no edit"),
    "too few names": (dict(names=[]), "is no edit"),
    "address": (dict(edits={"L99.N0.D0": 1}), "has no layer"),
    "infinite": (dict(edits={"L1.N0.D0": float("inf")}), "no amount"),
    "word": (dict(edits={"L1.N0.D0": "much"}), "no amount"),
    "mix": (dict(mix=[[0, 0, 1, [1.0, 2.0]]]), "of another generator: it has a mix"),
    "mix of nothing": (dict(mix=[[7]]), "is no edit"),
    "w": (dict(ws=dict(shape=[1, 1, 1], float32="AAAAAA==")), "of another generator: it has w"),
    "mask": (dict(keep="AAAA"), "is no edit"),
}


@pytest.mark.parametrize("case", EDITS)
def test_edits_that_do_not_fit(case, tmp_path):
    G = build(mode=2)
    ws = dict(shape=[1, G.num_ws, G.w_dim], float32=base64.b64encode(bytes(4 * G.num_ws * G.w_dim)).decode())
    sound = dict(format="segan-edit", version=1, names=["a"], noise_mode="const", edits={"L1.N0.D0": 1}, mix=[], ws=ws)
    path = tmp_path / "edit.json"
    path.write_text(json.dumps(sound))
    assert read_edit(path, G)["edits"] == {(1, 0, 0): 1}
    change, reason = EDITS[case]
    path.write_text(json.dumps(sound | change))
    with pytest.raises(ValueError, match=reason):
        read_edit(path, G)


def test_a_picture_to_edit_that_is_none(tmp_path):
    G, D = build(mode=2), networks.Discriminator(0, 32, 3, channel_base=512, channel_max=16)
    (tmp_path / "G.pkl").write_bytes(pickle.dumps(dict(G=G, D=D, G_ema=G)))
    (tmp_path / "no.png").write_bytes(b"hello")
    args = ["edit", f"--network={tmp_path / 'G.pkl'}", f"--image={tmp_path / 'no.png'}", f"--outdir={tmp_path / 'out'}"]
    done = CliRunner().invoke(cli.main, args)
    assert done.exit_code == 2 and "Error: --image: " in done.output and "cannot be opened as a picture" in done.output


def test_files_of_a_newer_version_say_so(tmp_path, monkeypatch):
    monkeypatch.setattr(extractors, "_VERSION", 2)
    save_extractor(str(tmp_path / "x.safetensors"), LSE(("b4.conv1",), (8,), ("a", "b")))
    monkeypatch.undo()
    with pytest.raises(ValueError, match="version 2, of which this version of SEGAN reads 1"):
        open_extractor(str(tmp_path / "x.safetensors"))
    path, config = save_safetensors(build(mode=2), str(tmp_path / "G.safetensors"))
    assert load_safetensors(path).mode == 2
    with open(config) as file:
        content = json.load(file)
    with open(config, "w") as file:
        json.dump(content | dict(version=7), file)
    with pytest.raises(ValueError, match="of version 7; this version of SEGAN reads 1"):
        load_safetensors(path)


def test_a_list_of_seeds_is_bounded_before_it_is_made():
    with pytest.raises(ValueError, match="more than 32 numbers"):
        parse_numbers("0-999999," * 400 + "1", most=32)
    with pytest.raises(ValueError, match="too large"):
        parse_numbers("4294967296")
    assert parse_numbers("3, 5-7", most=4) == [3, 5, 6, 7]


def test_the_page_keeps_an_image_that_others_push_out(tmp_path):
    """Many threads ask for more images than are kept."""
    from segan_ext.web.engine import _KEPT, Engine, View

    G = build(mode=2)
    snapshot = dict(G=G, D=networks.Discriminator(0, 16, 3, channel_base=128), G_ema=G)
    (tmp_path / "G.pkl").write_bytes(pickle.dumps(snapshot))
    engine, failures = Engine([str(tmp_path / "G.pkl")]), []

    def ask(first):
        try:
            for i in range(60):
                engine.before(View("G.pkl", seed=(first + i) % (3 * _KEPT)))
        except Exception as error:
            failures.append(error)

    threads = [threading.Thread(target=ask, args=(7 * i,)) for i in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not failures and len(engine.kept) <= _KEPT


def test_uploads_to_the_page_are_deleted():
    pytest.importorskip("gradio")
    from segan_ext.web import studio
    from segan_ext.web.engine import Engine
    from segan_ext.web.session import Sessions

    engine = Engine(["a.pkl"])
    engine.opened["a.pkl"] = None
    frequency, age = studio._UPLOADS
    assert 0 < frequency <= age <= 24 * 3600 and studio.build(engine, Sessions("a.pkl")).delete_cache == studio._UPLOADS


def test_a_picture_with_a_bad_end_is_no_crash():
    with pytest.raises(ValueError):
        files.decode(png()[:-40], verify=True)
