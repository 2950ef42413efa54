"""dataset_tool: every source, the transforms, what a scan finds, and that a failure loses nothing."""

import gzip
import io
import json
import os
import pickle
import struct
import subprocess
import sys
import tarfile
import zipfile
from pathlib import Path

import click
import numpy as np
import pytest
from click.testing import CliRunner
from PIL import Image
from test_contents import named_in

import dataset_tool
from helpers import ROOT
from training.dataset import ImageFolderDataset

rng = np.random.default_rng(0)


def noise(width=16, height=16, channels=3):
    return rng.integers(0, 256, (height, width, channels)[: 3 if channels > 1 else 2], dtype=np.uint8)


def put(path, array, **options):
    path.parent.mkdir(parents=True, exist_ok=True)
    image = array if isinstance(array, Image.Image) else Image.fromarray(array)
    image.save(path, **options)


def png(array):
    out = io.BytesIO()
    Image.fromarray(array).save(out, "png")
    return out.getvalue()


def pack(folder, path):
    with zipfile.ZipFile(path, "w") as archive:
        for f in sorted(folder.rglob("*")):
            archive.write(f, f.relative_to(folder))
    return path


def written(dest):
    """(list of arrays, dataset.json) of a data set."""
    if dest.is_dir():
        files = {f.relative_to(dest).as_posix(): f.read_bytes() for f in dest.rglob("*") if f.is_file()}
    else:
        with zipfile.ZipFile(dest) as archive:
            assert all(i.compress_type == zipfile.ZIP_STORED for i in archive.infolist())
            files = {name: archive.read(name) for name in archive.namelist()}
    content = json.loads(files.pop("dataset.json"))
    assert sorted(files) == [f"{i // 1000:05d}/img{i:08d}.png" for i in range(len(files))]
    return [np.asarray(Image.open(io.BytesIO(files[name]))) for name in sorted(files)], content


def cli(*args):
    result = CliRunner().invoke(dataset_tool.main, [str(a) for a in args])
    assert result.exception is None or isinstance(result.exception, SystemExit), result.exception
    return result.exit_code, result.output


def refused(tmp_path, *args):
    """The error of a run that must fail; nothing may be written or left behind."""
    before = sorted(tmp_path.rglob("*"))
    code, output = cli(*args)
    assert code == 2 and "Error: " in output and "Traceback" not in output
    assert sorted(tmp_path.rglob("*")) == before
    return output[output.index("Error: ") :]


@pytest.fixture
def faces(tmp_path):
    folder = tmp_path / "faces"
    for i in range(6):
        put(folder / f"{'ab'[i % 2]}" / f"{i}.png", noise())
    return folder


def in_name_order(folder):
    return [np.asarray(Image.open(f)) for f in sorted(folder.rglob("*.png"))]


# Sources.


@pytest.mark.parametrize("zipped", [False, True])
@pytest.mark.parametrize("dest", ["out", "out.zip"])
def test_folder_and_zip_keep_every_pixel(tmp_path, faces, zipped, dest):
    source = pack(faces, tmp_path / "faces.zip") if zipped else faces
    code, output = cli("--source", source, "--dest", tmp_path / dest)
    assert code == 0, output
    images, content = written(tmp_path / dest)
    np.testing.assert_array_equal(images, in_name_order(faces))
    assert content == {"labels": None}
    assert "6 images" in output and "16×16 RGB" in output
    assert not list(tmp_path.glob(".*"))


def test_png_has_no_compression_and_nothing_extra(tmp_path):
    put(tmp_path / "in" / "a.png", noise(), dpi=(300, 300), icc_profile=b"profile")
    dataset_tool.convert_dataset(tmp_path / "in", tmp_path / "out")
    data = (tmp_path / "out/00000/img00000000.png").read_bytes()
    chunks, at = [], 8
    while at < len(data):
        length, kind = struct.unpack_from(">I4s", data, at)
        chunks.append(kind)
        at += length + 12
    assert chunks == [b"IHDR", b"IDAT", b"IEND"] and len(data) > 16 * 16 * 3


def test_more_than_a_thousand_and_same_bytes_again(tmp_path):
    image = png(noise(8, 8))
    with zipfile.ZipFile(tmp_path / "in.zip", "w") as archive:
        for i in range(1002):
            archive.writestr(f"{i:04d}.png", image)
    for dest in ("1.zip", "2.zip"):
        assert dataset_tool.convert_dataset(tmp_path / "in.zip", tmp_path / dest) == 1002
    assert (tmp_path / "1.zip").read_bytes() == (tmp_path / "2.zip").read_bytes()
    assert len(written(tmp_path / "1.zip")[0]) == 1002
    assert "00001/img00001001.png" in zipfile.ZipFile(tmp_path / "1.zip").namelist()


def test_other_formats_and_files_that_are_no_images(tmp_path):
    for suffix in ("jpg", "bmp", "webp", "gif", "tiff", "ppm"):
        put(tmp_path / "in" / f"x.{suffix}", Image.new("RGB", (8, 8), (255, 0, 0)))
    put(tmp_path / "in" / "__MACOSX" / "x.png", noise(3, 3))
    (tmp_path / "in" / "._x.png").write_bytes(b"resource fork")
    (tmp_path / "in" / "readme.txt").write_text("hello")
    assert dataset_tool.convert_dataset(tmp_path / "in", tmp_path / "out") == 6


def test_max_images(tmp_path, faces):
    assert cli("--source", faces, "--dest", tmp_path / "out", "--max-images=4")[0] == 0
    np.testing.assert_array_equal(written(tmp_path / "out")[0], in_name_order(faces)[:4])


def test_lmdb(tmp_path):
    lmdb = pytest.importorskip("lmdb")
    arrays = [noise() for _ in range(3)]
    with lmdb.open(str(tmp_path / "cat_lmdb"), map_size=2**20) as database, database.begin(write=True) as t:
        for i, array in enumerate(arrays):
            out = io.BytesIO()
            Image.fromarray(array).save(out, "webp", lossless=True)
            t.put(f"{i:040x}".encode(), out.getvalue())
    assert cli("--source", tmp_path / "cat_lmdb", "--dest", tmp_path / "out.zip") == (
        0,
        f"Wrote 3 images, 16×16 RGB, to {tmp_path / 'out.zip'}\n",
    )
    np.testing.assert_array_equal(written(tmp_path / "out.zip")[0], arrays)


def test_lmdb_missing(tmp_path):
    (tmp_path / "cat_lmdb").mkdir()
    code = (
        'import sys; sys.modules["lmdb"] = None; import dataset_tool;'
        f'dataset_tool.main(["--source", {str(tmp_path / "cat_lmdb")!r}, "--dest", {str(tmp_path / "out")!r}])'
    )
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env=tool_env())
    assert run.returncode == 2 and "pip install lmdb" in run.stderr and "Traceback" not in run.stderr


def cifar_tar(path, batches):
    with tarfile.open(path, "w:gz") as archive:
        for name, content in batches.items():
            info = tarfile.TarInfo(f"cifar-10-batches-py/{name}")
            info.size = len(content)
            archive.addfile(info, io.BytesIO(content))
    return path


def batch(images, labels):
    """As in the original: byte-string keys, planes of 1024 values, protocol 2."""
    data = np.ascontiguousarray(images.transpose(0, 3, 1, 2)).reshape(len(images), 3072)
    return pickle.dumps({b"data": data, b"labels": labels}, protocol=2)


def test_cifar(tmp_path):
    images = rng.integers(0, 256, (10, 32, 32, 3), dtype=np.uint8)
    labels = [3, 1, 4, 1, 5, 9, 2, 6, 5, 3]
    batches = {f"data_batch_{i + 1}": batch(images[2 * i : 2 * i + 2], labels[2 * i : 2 * i + 2]) for i in range(5)}
    batches["test_batch"] = batch(images, labels)
    source = cifar_tar(tmp_path / "cifar-10-python.tar.gz", batches)
    code, output = cli("--source", source, "--dest", tmp_path / "out.zip")
    assert code == 0, output
    got, content = written(tmp_path / "out.zip")
    np.testing.assert_array_equal(got, images)
    assert [label for _, label in content["labels"]] == labels
    assert "7 classes:" in output and "\n  3: 2\n" in output


class Hostile:
    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return os.mkdir, (str(self.path),)


def test_hostile_pickle_is_refused_and_does_not_run(tmp_path):
    bad = pickle.dumps({b"data": Hostile(tmp_path / "owned"), b"labels": []}, protocol=2)
    source = cifar_tar(tmp_path / "cifar-10-python.tar.gz", {f"data_batch_{i}": bad for i in range(1, 6)})
    error = refused(tmp_path, "--source", source, "--dest", tmp_path / "out")
    assert "it names posix.mkdir" in error and not (tmp_path / "owned").exists()


def of_python2(data, labels):
    """The stream of instructions that Python 2 wrote: words without an encoding"""
    word = lambda text: b"U" + bytes([len(text)]) + text
    numbers = b"".join(b"K" + bytes([label]) for label in labels)
    dtype = (
        b"cnumpy\ndtype\n("
        + word(b"u1")
        + b"K\x00K\x01tR(K\x03"
        + word(b"|")
        + b"NNNJ\xff\xff\xff\xffJ\xff\xff\xff\xffK\x00tb"
    )
    start = b"cnumpy.core.multiarray\n_reconstruct\n(cnumpy\nndarray\n(K\x00t" + word(b"b") + b"tR"
    state = (
        b"(K\x01(K"
        + bytes([len(labels)])
        + b"M\x00\x0ct"
        + dtype
        + b"\x89T"
        + struct.pack("<I", len(data))
        + data
        + b"tb"
    )
    return b"\x80\x02}(" + word(b"data") + start + state + word(b"labels") + b"](" + numbers + b"eu."


def test_cifar_as_python_2_wrote_it(tmp_path):
    images = rng.integers(0, 256, (10, 3, 32, 32), dtype=np.uint8)
    batches = {f"data_batch_{i + 1}": of_python2(images[2 * i : 2 * i + 2].tobytes(), [i, 1]) for i in range(5)}
    assert pickle.loads(batches["data_batch_1"], encoding="bytes")[b"data"].shape == (2, 3072)
    source = cifar_tar(tmp_path / "cifar-10-python.tar.gz", batches)
    assert cli("--source", source, "--dest", tmp_path / "out.zip")[0] == 0
    np.testing.assert_array_equal(written(tmp_path / "out.zip")[0], images.transpose(0, 2, 3, 1))


class ObjectArray:
    """Pickles as an array of objects whose addresses an attacker has chosen"""

    def __reduce__(self):
        return np.ndarray, ((3072,), np.dtype("O"), b"\x41" * 8 * 3072)


def test_cifar_arrays_of_objects_do_not_crash_the_process(tmp_path):
    bad = pickle.dumps({b"data": ObjectArray(), b"labels": [0]}, protocol=2)
    source = cifar_tar(tmp_path / "cifar-10-python.tar.gz", {f"data_batch_{i}": bad for i in range(1, 6)})
    command = [sys.executable, dataset_tool.__file__, f"--source={source}", f"--dest={tmp_path / 'out.zip'}"]
    done = subprocess.run(command, capture_output=True, text=True, env=tool_env())
    assert done.returncode == 2 and "holds a NumPy array of type 'O8'" in done.stderr, (done.returncode, done.stderr)


def test_archives_that_swell_are_refused(tmp_path):
    with gzip.open(tmp_path / "cifar-10-python.tar.gz", "wb", compresslevel=1) as file:
        info = tarfile.TarInfo("cifar-10-batches-py/data_batch_1")
        info.size = 2**33
        file.write(info.tobuf())
        file.write(bytes(2**20))
    assert "unpacks to more than" in refused(
        tmp_path, "--source", tmp_path / "cifar-10-python.tar.gz", "--dest", tmp_path / "out"
    )
    for name, dims in (("train-images-idx3-ubyte.gz", 3), ("train-labels-idx1-ubyte.gz", 1)):
        with gzip.open(tmp_path / name, "wb") as file:
            file.write(struct.pack(f">{dims + 1}i", 2051 if dims == 3 else 2049, *[2**23] * dims))
    error = refused(tmp_path, "--source", tmp_path / "train-images-idx3-ubyte.gz", "--dest", tmp_path / "out")
    assert "which no MNIST has" in error
    with zipfile.ZipFile(tmp_path / "x.zip", "w", zipfile.ZIP_DEFLATED, compresslevel=1) as archive:
        archive.writestr("a.png", bytes(2**28 + 1))
    assert "are more than the" in refused(tmp_path, "--source", tmp_path / "x.zip", "--dest", tmp_path / "out")


def test_cifar_with_a_batch_missing(tmp_path):
    source = cifar_tar(tmp_path / "cifar-10-python.tar.gz", {"data_batch_1": batch(noise(32, 32)[None], [0])})
    assert "data_batch_2" in refused(tmp_path, "--source", source, "--dest", tmp_path / "out")


def mnist(tmp_path, images, labels):
    source = tmp_path / "train-images-idx3-ubyte.gz"
    source.write_bytes(gzip.compress(struct.pack(">4i", 2051, *images.shape) + images.tobytes()))
    (tmp_path / "train-labels-idx1-ubyte.gz").write_bytes(
        gzip.compress(struct.pack(">2i", 2049, len(labels)) + bytes(labels))
    )
    return source


def test_mnist(tmp_path):
    images = rng.integers(0, 256, (4, 28, 28), dtype=np.uint8)
    assert cli("--source", mnist(tmp_path, images, [7, 0, 7, 2]), "--dest", tmp_path / "out")[0] == 0
    got, content = written(tmp_path / "out")
    assert got[0].shape == (32, 32) and got[0].sum() == images[0].sum()
    np.testing.assert_array_equal(np.array(got)[:, 2:-2, 2:-2], images)
    assert [label for _, label in content["labels"]] == [7, 0, 7, 2]


def test_mnist_broken(tmp_path):
    source = mnist(tmp_path, noise(28, 28, 1)[None], [1, 2])
    assert "shapes" in refused(tmp_path, "--source", source, "--dest", tmp_path / "out")
    source.write_bytes(source.read_bytes()[:50])
    assert "--source: " in refused(tmp_path, "--source", source, "--dest", tmp_path / "out")
    (tmp_path / "train-labels-idx1-ubyte.gz").unlink()
    assert "train-labels-idx1-ubyte.gz is missing" in refused(tmp_path, "--source", source, "--dest", tmp_path / "out")


# Labels.


def label_file(folder, labels, **more):
    (folder / "dataset.json").write_text(json.dumps({"labels": labels} | more))


@pytest.mark.parametrize("zipped", [False, True])
def test_labels_of_the_source_are_kept(tmp_path, faces, zipped):
    names = [f.relative_to(faces).as_posix() for f in sorted(faces.rglob("*.png"))]
    label_file(faces, [[name, i % 3] for i, name in enumerate(names)][::-1], classes=["x", "y", "z"])
    source = pack(faces, tmp_path / "faces.zip") if zipped else faces
    code, output = cli("--source", source, "--dest", tmp_path / "out")
    content = written(tmp_path / "out")[1]
    assert code == 0 and "3 classes:\n  0 x: 2\n" in output
    assert content == {"labels": [[f"00000/img{i:08d}.png", i % 3] for i in range(6)], "classes": ["x", "y", "z"]}


def test_vector_labels(tmp_path, faces):
    names = [f.relative_to(faces).as_posix() for f in sorted(faces.rglob("*.png"))]
    label_file(faces, [[name, [i, 0.5]] for i, name in enumerate(names)])
    assert cli("--source", faces, "--dest", tmp_path / "out")[0] == 0
    assert written(tmp_path / "out")[1]["labels"][5][1] == [5, 0.5]


@pytest.mark.parametrize("wrap", ["", "wrap/deep"])
def test_labels_from_folders(tmp_path, faces, wrap):
    root = tmp_path / "root"
    (root / wrap).parent.mkdir(parents=True, exist_ok=True)
    faces.rename(root / wrap) if wrap else faces.rename(root)
    code, output = cli("--source", pack(root, tmp_path / "in.zip"), "--dest", tmp_path / "out", "--labels=folders")
    content = written(tmp_path / "out")[1]
    assert code == 0 and "2 classes:\n  0 a: 3\n  1 b: 3\n" in output
    assert [label for _, label in content["labels"]] == [0, 0, 0, 1, 1, 1] and content["classes"] == ["a", "b"]


def test_folders_need_folders(tmp_path, faces):
    put(faces / "loose.png", noise())
    error = refused(tmp_path, "--source", faces, "--dest", tmp_path / "out", "--labels=folders")
    assert error.startswith("Error: --labels: ") and "loose.png" in error


@pytest.mark.parametrize(
    "labels, word",
    [
        (
            [["a/0.png", 1], ["gone.png", 2]],
            "no label for 5 of 6 images (first: a/2.png); 1 label is of a missing file",
        ),
        ([["a/0.png", 1]], "no label for 5 of 6"),
        ("nonsense", '"labels"'),
        ([[1, 2], ["gone.png", 2]], 'label 1, [1, 2], is not of the form ["name", label]'),
        ([[f"{'ab'[i % 2]}/{i}.png", [1, 2] if i else 3] for i in range(6)], "class numbers and vectors of 2"),
        ([[f"{'ab'[i % 2]}/{i}.png", "cat"] for i in range(6)], "other values"),
    ],
)
def test_bad_labels(tmp_path, faces, labels, word):
    label_file(faces, labels)
    error = refused(tmp_path, "--source", faces, "--dest", tmp_path / "out")
    assert word in error and "--labels=none" in error
    assert cli("--source", faces, "--dest", tmp_path / "out", "--labels=none")[0] == 0


def as_trained(path):
    """Classes or vectors as training reads them; None without"""
    data = ImageFolderDataset(path, use_labels=True)
    return [data.get_details(i).raw_label.tolist() for i in range(len(data))] if data.has_labels else None


LABELS = {  # what dataset.json holds for a.png and b.png → the labels, or what is wrong with it
    "a list": ('{"labels": [["a.png", 1], ["b.png", 0]]}', [1, 0]),
    "an object": ('{"labels": {"b.png": 0, "a.png": 1}}', [1, 0]),
    "true and false": ('{"labels": [["a.png", true], ["b.png", false]]}', [1, 0]),
    "of a missing file": ('{"labels": [["a.png", 1], ["b.png", 0], ["c.png", 3]]}', [1, 0]),
    "vectors": ('{"labels": [["a.png", [1, 0.5]], ["b.png", [true, 0]]]}', [[1, 0.5], [1, 0]]),
    "twice the same": ('{"labels": [["a.png", 1], ["b.png", 0], ["a.png", 1]]}', [1, 0]),
    "null": ('{"labels": null}', None),
    "nothing": ("{}", None),
    "two classes": (
        '{"labels": [["a.png", 0], ["b.png", 0], ["a.png", 2]]}',
        'a.png has two labels, 0 and 2; for several classes at once write vectors, as ["a.png", [1, 1, 0]], or a CSV',
    ),
    "no list in it": (
        '{"labels": [["b.png", 0, 1, 0], ["a.png", 1, 0, 0]]}',
        'label 1, ["b.png", 0, 1, 0], is too long; write ["b.png", [0, 1, 0]]',
    ),
    "a comma too much": (
        '{"labels": [["a.png", 1],\n ["b.png", 0],]}',
        "line 2 column 1",  # 14 or 15
    ),
    "no labels": ('{"images": []}', 'dataset.json has no "labels"'),
    "a list of lists": ("[]", "is not of the form"),
    "one is missing": ('{"labels": [["a.png", 1], ["B.png", 0]]}', "1 of 2 images (first: b.png); 1 label is of a mis"),
    "of two kinds": ('{"labels": [["a.png", 1], ["b.png", [0]]]}', "are class numbers and vectors of 1 numbers; they"),
    "of two lengths": ('{"labels": [["a.png", [1, 2]], ["b.png", [0]]]}', "vectors of 1 numbers and vectors of 2 num"),
    "NaN": ('{"labels": [["a.png", [NaN]], ["b.png", [0]]]}', "other values"),
    "negative": ('{"labels": [["a.png", -1], ["b.png", 0]]}', "other values"),
}


@pytest.mark.parametrize("case", LABELS)
def test_the_tool_and_training_read_labels_alike(tmp_path, case):
    text, expected = LABELS[case]
    for name in ("a", "b"):
        put(tmp_path / "in" / f"{name}.png", noise())
    (tmp_path / "in" / "dataset.json").write_text(text)
    if isinstance(expected, str):
        error = refused(tmp_path, "--source", tmp_path / "in", "--dest", tmp_path / "out")
        assert error.startswith("Error: --source: ") and expected in error and error.count("\n") == 1, error
        with pytest.raises(ValueError) as caught:
            as_trained(tmp_path / "in")
        assert expected in str(caught.value)
        return
    code, output = cli("--source", tmp_path / "in", "--dest", tmp_path / "out")
    assert code == 0, output
    assert ("1 label is of a missing file (first: c.png): ignored" in output) == (case == "of a missing file")
    assert as_trained(tmp_path / "in") == as_trained(tmp_path / "out") == expected


def test_classes_of_numbered_folders_come_in_the_order_of_the_numbers(tmp_path):
    for name in ("0", "1", "2", "10", "11", "03", "x9", "x10"):
        put(tmp_path / "in" / name / "a.png", noise())
    assert cli("--source", tmp_path / "in", "--dest", tmp_path / "out", "--labels=folders")[0] == 0
    assert written(tmp_path / "out")[1]["classes"] == ["0", "1", "2", "03", "10", "11", "x9", "x10"]


def test_class_folders_may_be_links_and_names_chinese(tmp_path, faces):
    (tmp_path / "in" / "男").mkdir(parents=True)
    (tmp_path / "in" / "b").symlink_to(faces / "b")
    put(tmp_path / "in" / "男" / "0.png", noise())
    (tmp_path / "in" / "b" / "loop").symlink_to(tmp_path / "in")
    for labels in ("folders", "none"):
        args = ["--source", tmp_path / "in", "--dest", tmp_path / labels, f"--labels={labels}"]
        assert "Wrote 4 images" in cli(*args)[1]
    assert written(tmp_path / "folders")[1]["classes"] == ["b", "男"]
    path = named_in("gbk", tmp_path / "in.zip", ["男孩/a.png", "女孩/b.png"])
    assert "2 classes" in cli("--source", path, "--dest", tmp_path / "out", "--labels=folders")[1]
    assert written(tmp_path / "out")[1]["classes"] == ["女孩", "男孩"]


@pytest.mark.parametrize("zipped", [False, True])
def test_labels_lie_in_the_folder_around_all(tmp_path, faces, zipped):
    names = [f.relative_to(faces).as_posix() for f in sorted(faces.rglob("*.png"))]
    label_file(faces, [[name, i % 3] for i, name in enumerate(names)], classes=["x", "y", "z"])
    faces.rename(tmp_path / "in")
    (tmp_path / "around").mkdir()
    (tmp_path / "in").rename(tmp_path / "around" / "faces")
    source = pack(tmp_path / "around", tmp_path / "in.zip") if zipped else tmp_path / "around"
    assert cli("--source", source, "--dest", tmp_path / "out")[0] == 0
    content = written(tmp_path / "out")[1]
    assert [label for _, label in content["labels"]] == [0, 1, 2] * 2 and content["classes"] == ["x", "y", "z"]


# Transforms.


@pytest.mark.parametrize("size", ["16x8", "16X8", "16×8"])
def test_resolution_is_width_and_height(tmp_path, faces, size):
    more = [f"--resolution={size}", "--transform=center-crop-wide"]
    assert cli("--source", faces, "--dest", tmp_path / "a", *more)[0] == 0
    assert cli("--source", faces, "--dest", tmp_path / "b", "--width=16", "--height=8", *more[1:])[0] == 0
    np.testing.assert_array_equal(written(tmp_path / "a")[0], written(tmp_path / "b")[0])


def test_center_crop(tmp_path):
    picture = np.zeros((16, 32, 3), np.uint8)
    picture[:, 8:24] = [255, 0, 0]
    picture[:, 8:16] = [0, 0, 255]
    put(tmp_path / "in" / "a.png", picture)
    dataset_tool.convert_dataset(
        tmp_path / "in", tmp_path / "out", resize_filter="box", transform="center-crop", width=8, height=8
    )
    image = written(tmp_path / "out")[0][0]
    assert (image[:, :4] == [0, 0, 255]).all() and (image[:, 4:] == [255, 0, 0]).all() and image.shape == (8, 8, 3)


@pytest.mark.parametrize("size", [(32, 24), (64, 36), (40, 60)])
def test_center_crop_wide(tmp_path, size):
    put(tmp_path / "in" / "a.png", np.full((size[1], size[0], 3), 200, np.uint8))
    put(tmp_path / "in" / "small.png", noise(20, 8))
    code, output = cli(
        "--source",
        tmp_path / "in",
        "--dest",
        tmp_path / "out",
        "--transform=center-crop-wide",
        "--width=16",
        "--height=12",
    )
    (image,), _ = written(tmp_path / "out")
    assert code == 0 and "1 smaller than 16×12: skipped" in output
    assert image.shape == (16, 16, 3)
    assert (image[2:14] == 200).all() and not image[:2].any() and not image[14:].any()


def test_wide_keeps_the_middle(tmp_path):
    picture = np.zeros((8, 32, 3), np.uint8)
    picture[:, 8:24] = 255
    put(tmp_path / "in" / "a.png", picture)
    dataset_tool.convert_dataset(tmp_path / "in", tmp_path / "out", transform="center-crop-wide", width=16, height=8)
    assert (written(tmp_path / "out")[0][0][4:12] == 255).all()


@pytest.mark.parametrize("resize_filter", ["box", "lanczos"])
def test_plain_resize_uses_the_filter(tmp_path, resize_filter):
    picture = noise(20, 16)
    put(tmp_path / "in" / "a.png", picture)
    dataset_tool.convert_dataset(tmp_path / "in", tmp_path / "out", resize_filter=resize_filter, width=8, height=8)
    wanted = Image.fromarray(picture).resize((8, 8), getattr(Image.Resampling, resize_filter.upper()))
    np.testing.assert_array_equal(written(tmp_path / "out")[0][0], np.asarray(wanted))


def test_one_side_keeps_the_other(tmp_path):
    put(tmp_path / "in" / "a.png", noise(20, 16))
    dataset_tool.convert_dataset(tmp_path / "in", tmp_path / "out", width=16)
    assert written(tmp_path / "out")[0][0].shape == (16, 16, 3)


# Modes.


def test_exact_conversions_need_no_option(tmp_path):
    grey = noise(16, 16, 1)
    put(tmp_path / "16" / "a.png", Image.fromarray(grey.astype(np.uint16) * 257))
    put(tmp_path / "16" / "b.png", grey)
    put(tmp_path / "16" / "c.png", Image.fromarray(grey > 127))
    code, output = cli("--source", tmp_path / "16", "--dest", tmp_path / "out")
    images, _ = written(tmp_path / "out")
    assert code == 0 and "1 16-bit grey: converted" in output and "1 1-bit: converted" in output
    np.testing.assert_array_equal(images, [grey, grey, np.where(grey > 127, 255, 0)])


def test_palette_opaque_alpha_and_orientation(tmp_path):
    picture = Image.fromarray(noise()).quantize(16)
    put(tmp_path / "in" / "a.png", picture)
    put(tmp_path / "in" / "b.png", np.dstack([noise(), np.full((16, 16), 255, np.uint8)]))
    exif = Image.Exif()
    exif[0x0112] = 6  # to be turned by 90 degrees
    turned = noise()
    put(tmp_path / "in" / "c.png", Image.fromarray(turned), exif=exif)
    code, output = cli("--source", tmp_path / "in", "--dest", tmp_path / "out")
    images, _ = written(tmp_path / "out")
    assert code == 0 and "1 palette: converted" in output and "1 turned upright" in output
    np.testing.assert_array_equal(images[0], np.asarray(picture.convert("RGB")))
    np.testing.assert_array_equal(images[2], np.rot90(turned, -1))


def with_a_hole(kind):
    """An 8×8 picture in value 100 (0 for 1 bit) at the top left, where it is transparent, and (options to save it)."""
    hole = np.zeros((8, 8), np.uint8)
    hole[0, 0] = 1
    if kind in ("RGBA", "LA"):
        return Image.fromarray(np.dstack([np.full((8, 8, 3), 100, np.uint8), 255 * (1 - hole)])).convert(kind), {}
    if kind == "P":
        image = Image.fromarray(hole).convert("P")
        image.putpalette([100] * 6)
        return image, {"transparency": 1}
    if kind == "L":
        return Image.fromarray(90 + 10 * hole), {"transparency": 100}
    return Image.fromarray(hole == 0), {"transparency": 0}


@pytest.mark.parametrize("alpha", ["white", "black", "drop"])
@pytest.mark.parametrize("kind", ["RGBA", "LA", "P", "L", "1"])
def test_alpha(tmp_path, kind, alpha):
    image, options = with_a_hole(kind)
    put(tmp_path / "in" / "a.png", image, **options)
    error = refused(tmp_path, "--source", tmp_path / "in", "--dest", tmp_path / "out")
    assert "1 with alpha (a.png)" in error and "--alpha=white" in error
    assert cli("--source", tmp_path / "in", "--dest", tmp_path / "out", f"--alpha={alpha}")[0] == 0
    (got,), _ = written(tmp_path / "out")
    assert (got[0, 0] == {"white": 255, "black": 0, "drop": 0 if kind == "1" else 100}[alpha]).all()
    assert got[1, 1].max() > 0 and got.ndim == (3 if kind in ("RGBA", "P") else 2)


def test_cmyk_and_mixture(tmp_path):
    put(tmp_path / "in" / "a.jpg", Image.new("CMYK", (8, 8)))
    put(tmp_path / "in" / "b.png", noise(8, 8, 1))
    error = refused(tmp_path, "--source", tmp_path / "in", "--dest", tmp_path / "out")
    assert "1 CMYK: --mode=rgb" in error and "1 in colour and 1 grey" in error
    for mode, ndim in (("rgb", 3), ("grey", 2)):
        assert cli("--source", tmp_path / "in", "--dest", tmp_path / mode, f"--mode={mode}")[0] == 0
        assert {image.ndim for image in written(tmp_path / mode)[0]} == {ndim}


# What a scan finds.


def test_all_troubles_in_one_listing_and_its_cure_works(tmp_path):
    folder = tmp_path / "in"
    for i in range(5):
        put(folder / f"{i}.png", noise(20, 18))
    put(folder / "wide.png", noise(40, 18))
    put(folder / "alpha.png", noise(20, 18, 4))
    put(folder / "grey.png", noise(20, 18, 1))
    put(folder / "float.tiff", Image.new("F", (20, 18)))
    (folder / "text.png").write_text("no image")
    whole = png(noise(20, 18))
    (folder / "cut.png").write_bytes(whole[:-100])
    (folder / "flip.png").write_bytes(whole[:100] + bytes([whole[100] ^ 1]) + whole[101:])
    error = refused(tmp_path, "--source", folder, "--dest", tmp_path / "out.zip")
    assert error.startswith("Error: --source: ")
    for part in (
        "4 cannot be used: ",
        "text.png (not an image",
        "cut.png (",
        "flip.png (",
        "float.tiff (mode F",
        "1 with alpha (alpha.png)",
        "7 of 20×18, 1 of 40×18",
        "7 in colour and 1 grey",
    ):
        assert part in error
    cure = error[error.index("all at once: ") + len("all at once: ") :].split()
    assert "--width=16" in cure and "--transform=center-crop" in cure and "--on-bad=skip" in cure
    code, output = cli("--source", folder, "--dest", tmp_path / "out.zip", *cure)
    assert code == 0 and "4 cannot be used: skipped" in output, output
    assert np.array(written(tmp_path / "out.zip")[0]).shape == (8, 16, 16, 3)


@pytest.mark.parametrize("size, cure", [((24, 24), "--width=16 --height=16\n"), ((24, 16), "--transform=center-crop")])
def test_size_that_does_not_fit(tmp_path, size, cure):
    put(tmp_path / "in" / "a.png", noise(*size))
    assert cure in refused(tmp_path, "--source", tmp_path / "in", "--dest", tmp_path / "out")


def test_bad_checksum_in_a_zip(tmp_path):
    with zipfile.ZipFile(tmp_path / "in.zip", "w") as archive:
        archive.writestr("a.png", png(noise()))
        archive.writestr("b.bmp", b"unique bytes of a file")
    data = (tmp_path / "in.zip").read_bytes()
    (tmp_path / "in.zip").write_bytes(data.replace(b"unique", b"Unique", 1))
    assert "b.bmp (Bad CRC" in refused(tmp_path, "--source", tmp_path / "in.zip", "--dest", tmp_path / "out")
    assert dataset_tool.convert_dataset(tmp_path / "in.zip", tmp_path / "out", on_bad="skip") == 1


# Errors.


def test_wrong_sources(tmp_path, faces):
    (tmp_path / "empty").mkdir()
    (tmp_path / "text.zip").write_text("no zip")
    (tmp_path / "cut.zip").write_bytes(pack(faces, tmp_path / "faces.zip").read_bytes()[:-30])
    (tmp_path / "x.rar").write_text("x")
    (tmp_path / "cifar-10-python.tar.gz").write_text("x")
    pack(tmp_path / "empty", tmp_path / "empty.zip")
    (tmp_path / "only.png").write_bytes(b"")
    for name, word in {
        "gone": "does not exist",
        "empty": "no images",
        "empty.zip": "no images",
        "x.rar": "no known kind",
        "text.zip": "no sound zip",
        "cut.zip": "no sound zip",
        "only.png": "no known kind",
        "cifar-10-python.tar.gz": "no sound cifar",
    }.items():
        error = refused(tmp_path, "--source", tmp_path / name, "--dest", tmp_path / "out")
        assert error.startswith("Error: --source: ") and word in error, error
        assert error.count("\n") == 1


@pytest.mark.parametrize(
    "options, start",
    [
        (["--transform=center-crop"], "--transform: "),
        (["--transform=center-crop-wide", "--width=16"], "--transform: "),
        (["--width=20", "--height=20"], "--width: 20 is not a power of two"),
        (["--height=100"], "--height: 100 is not a power of two from 8 on; try 64 or 128"),
        (["--width=16", "--height=32"], "--height: "),
        (["--transform=center-crop-wide", "--width=16", "--height=32"], "--height: "),
        (["--width=0"], "--width: 0 is not in the range"),
        (["--resolution=32"], "--resolution: '32' is not of the form WIDTHxHEIGHT, like 32x32"),
        (["--resolution=20x20"], "--width: 20 is not a power of two"),
        (["--resolution=32x32", "--width=32"], "--resolution: is --width and --height in one"),
        (["--alpha=pink"], "--alpha: there is no 'pink'"),
    ],
)
def test_wrong_options(tmp_path, faces, options, start):
    error = refused(tmp_path, "--source", faces, "--dest", tmp_path / "out", *options)
    assert error.startswith("Error: " + start), error


def test_everything_skipped(tmp_path, faces):
    error = refused(
        tmp_path,
        "--source",
        faces,
        "--dest",
        tmp_path / "out",
        "--transform=center-crop-wide",
        "--width=32",
        "--height=16",
    )
    assert "no image is left" in error and "6 smaller than 32×16" in error


# Files that are no pictures


def test_files_that_are_no_pictures_are_counted(tmp_path, faces):
    for i in range(8):
        (faces / f"{i}.raw").write_bytes(b"x")
    (faces / "0").write_bytes(png(noise()))  # without a suffix
    (faces / ".DS_Store").write_bytes(b"x")
    label_file(faces, None)
    sentence = "9 files are no pictures that can be read: .raw (8), without a suffix (1)"
    assert sentence in cli("--source", faces, "--dest", tmp_path / "out")[1]
    assert ImageFolderDataset(faces).notes() == [sentence] and ImageFolderDataset(tmp_path / "out").notes() == []
    put(faces / "wide.png", noise(32, 16))
    assert sentence in refused(tmp_path, "--source", faces, "--dest", tmp_path / "x")
    (tmp_path / "raw").mkdir()
    (tmp_path / "raw" / "0.raw").write_bytes(b"x")
    error = refused(tmp_path, "--source", tmp_path / "raw", "--dest", tmp_path / "x")
    assert "holds no images; 1 file is no picture that can be read: .raw (1)" in error


WITHOUT_HEIF = "import sys; sys.modules['pillow_heif'] = None; import dataset_tool; dataset_tool.main(sys.argv[1:])"


def test_phone_pictures_are_read_with_pillow_heif_or_counted(tmp_path, faces):
    (faces / "a.HEIC").write_bytes(b"\0\0\0\x18ftypheic")
    command = [sys.executable, "-c", WITHOUT_HEIF, f"--source={faces}", f"--dest={tmp_path / 'out'}"]
    done = subprocess.run(command, cwd=ROOT / "stylegan2_ada", capture_output=True, text=True, check=True)
    assert "1 file is no picture that can be read: .heic (1); pip install pillow-heif" in done.stdout
    assert "Wrote 6 images" in done.stdout
    pillow_heif = pytest.importorskip("pillow_heif")
    picture = pillow_heif.from_pillow(Image.new("RGB", (16, 16), (200, 30, 30)))
    picture.save(faces / "a.HEIC", quality=-1)
    assert "Wrote 7 images" in cli("--source", faces, "--dest", tmp_path / "heif")[1]


# Nothing is lost.


def test_dest_in_the_source(tmp_path, faces):
    error = refused(tmp_path, "--source", faces, "--dest", faces / "out")
    assert error.startswith("Error: --dest: ") and "lies in the source" in error
    for name in ("1.zip", "2.zip"):
        assert "Wrote 6 images" in cli("--source", faces, "--dest", faces / name)[1]


def test_dest_is_not_overwritten(tmp_path, faces):
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "mine.txt").write_text("mine")
    (tmp_path / "out.zip").write_text("mine")
    put(tmp_path / "2019" / "07" / "a.png", noise())  # numbered folders, but no data set
    for dest, more in (
        ("out", []),
        ("out.zip", []),
        ("out", ["--overwrite"]),
        ("2019", ["--overwrite"]),
        ("faces", ["--overwrite"]),
        ("", ["--overwrite"]),
    ):
        assert refused(tmp_path, "--source", faces, "--dest", tmp_path / dest, *more).startswith("Error: --dest: ")
    assert (tmp_path / "out" / "mine.txt").read_text() == (tmp_path / "out.zip").read_text() == "mine"


@pytest.mark.parametrize("dest", ["out", "out.zip"])
def test_empty_folder_and_overwrite(tmp_path, faces, dest):
    if dest == "out":
        (tmp_path / dest).mkdir()
    for overwrite, count in (([], 6), (["--overwrite", "--max-images=2"], 2)):
        assert cli("--source", faces, "--dest", tmp_path / dest, *overwrite)[0] == 0
        assert len(written(tmp_path / dest)[0]) == count
    assert sorted(f.name for f in tmp_path.iterdir()) == ["faces", dest]


@pytest.mark.parametrize("dest", ["out", "out.zip"])
def test_failure_in_the_middle_leaves_the_old_data_set(tmp_path, faces, dest):
    """A picture that vanishes between scan and writing stops the run; the earlier data set is still there."""
    dest = tmp_path / dest
    dataset_tool.convert_dataset(faces, dest)
    before = written(dest)
    source, dest = faces.resolve(), dest.resolve()
    policy = dataset_tool.Policy(None, None, None, "box", None, None)
    with dataset_tool.open_source(source) as opened:
        usable = dataset_tool.scan(opened, opened.names, policy, "stop")
        (faces / opened.names[-1]).unlink()
        with (
            pytest.raises(click.UsageError, match="has changed since the scan"),
            dataset_tool.writing(source, dest, True) as save,
        ):
            dataset_tool.write(opened, usable, None, None, policy, save)
    np.testing.assert_array_equal(written(dest)[0], before[0])
    assert sorted(f.name for f in tmp_path.iterdir()) == ["faces", dest.name]


def test_dest_that_cannot_be_written(tmp_path, faces):
    (tmp_path / "file").write_text("mine")
    error = refused(tmp_path, "--source", faces, "--dest", tmp_path / "file" / "out.zip")
    assert error.startswith("Error: --dest: cannot write")


@pytest.mark.skipif(os.name != "posix", reason="needs a limit on the size of files")
def test_full_disk(tmp_path, faces):
    import resource

    dest = tmp_path / "out.zip"
    dataset_tool.convert_dataset(faces, dest)
    before = dest.read_bytes()
    run = start(
        "--source",
        faces,
        "--dest",
        dest,
        "--overwrite",
        "--width=64",
        "--height=64",
        preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (30000, 30000)),
    )
    assert run.returncode == 2 and "Error: --dest: cannot write" in run.stderr and "Traceback" not in run.stderr
    assert dest.read_bytes() == before and sorted(f.name for f in tmp_path.iterdir()) == ["faces", "out.zip"]


# As a user starts it.


def tool_env():
    return os.environ | {"PYTHONPATH": str(Path(dataset_tool.__file__).parent), "PYTHONIOENCODING": "utf-8"}


def start(*args, **more):
    command = [sys.executable, dataset_tool.__file__, *map(str, args)]
    return subprocess.run(command, capture_output=True, text=True, encoding="utf-8", env=tool_env(), **more)


def test_real_process(tmp_path, faces):
    run = start("--source", faces, "--dest", tmp_path / "out.zip")
    assert run.returncode == 0 and run.stderr == "" and "Wrote 6 images" in run.stdout  # no progress bar in a pipe
    run = start("--source", faces, "--dest", tmp_path / "out.zip")
    assert run.returncode == 2 and "Error: --dest: " in run.stderr and "Traceback" not in run.stderr
    put(faces / "odd.png", noise(16, 24))
    run = start("--source", faces, "--dest", tmp_path / "new")
    assert run.returncode == 2 and "Error: --source: " in run.stderr and "Traceback" not in run.stderr
    assert "6 of 16×16, 1 of 16×24" in run.stderr and not (tmp_path / "new").exists()
    assert start("--help").returncode == 0
