"""Large data: the directory of a zip and of tar shards is read once, and what changes is noticed."""

import io
import json
import os
import tarfile
import zipfile

import numpy as np
import pytest
import torch

import dnnlib
from helpers import make_dataset, png
from training.contents import open_contents
from training.dataset import ImageFolderDataset


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
    monkeypatch.setattr(dnnlib.util, "_cache_dir", str(tmp_path / "cache"))
    return tmp_path / "cache"


def many(path, count=1200, first=b"0"):
    with zipfile.ZipFile(path, "w") as archive:
        for i in range(count):
            kind = zipfile.ZIP_DEFLATED if i % 2 else zipfile.ZIP_STORED
            archive.writestr(f"{i % 7}/näme{i:05d}.txt", (first if i == 0 else b"x") * i, kind)
    return str(path)


def test_a_zip_is_the_same_from_its_directory_and_from_the_cache(tmp_path, cache, monkeypatch):
    path = many(tmp_path / "many.zip")
    opened = [open_contents(path)]
    assert len(list((cache / "data").glob("*.npz"))) == 1
    with monkeypatch.context() as patched:
        patched.setattr(zipfile.ZipFile, "infolist", None)  # not looked at again
        opened.append(open_contents(path))
    with zipfile.ZipFile(path) as archive:
        for contents in opened:
            assert list(contents) == sorted(archive.namelist())
            for i in (0, 1, 700, 1199):
                assert contents.read(i) == archive.read(contents[i])
                assert contents.crc(i) == archive.getinfo(contents[i]).CRC
    assert opened[1].find("3/näme00003.txt") == list(opened[1]).index("3/näme00003.txt")
    assert opened[1].find("nothing") is None
    with pytest.raises(ValueError, match="more than the 100"):
        opened[1].read(opened[1].find(f"{1199 % 7}/näme01199.txt"), most=100)


def test_a_zip_that_changes_is_read_anew(tmp_path):
    path = many(tmp_path / "many.zip")
    digest = open_contents(path).digest()
    assert open_contents(path).digest() == open_contents(path).recall("digest") == digest
    many(path, 1201)
    assert len(open_contents(path)) == 1201 and open_contents(path).digest() != digest


def test_a_bad_entry_is_found_though_the_directory_is_remembered(tmp_path):
    path = many(tmp_path / "many.zip")
    open_contents(path)
    data = bytearray(open(path, "rb").read())
    place = data.index(b"x" * 600)
    data[place : place + 5] = b"yyyyy"
    stat = os.stat(path)
    open(path, "wb").write(data)
    os.utime(path, ns=(stat.st_atime_ns, stat.st_mtime_ns))
    with pytest.raises(ValueError, match="CRC"):
        [contents.read(i) for contents in [open_contents(path)] for i in range(len(contents))]


def test_images_are_checked_once(tmp_path, monkeypatch):
    path = make_dataset(tmp_path / "discs.zip", count=1100)
    ImageFolderDataset(path).check_images()
    again = ImageFolderDataset(path)
    monkeypatch.setattr(type(again._contents), "read", None)
    again.check_images()
    folder = make_dataset(tmp_path / "discs", count=1100)
    ImageFolderDataset(folder).check_images()
    (folder / "00000" / "img00000007.png").write_bytes(png(seed=7)[:-20])
    with pytest.raises(ValueError, match="img00000007.png is damaged"):
        ImageFolderDataset(folder).check_images()


def shards(folder, count=40, each=15, classes=True):
    """Pictures and classes in tar files as webdataset writes them"""
    folder.mkdir()
    for start in range(0, count, each):
        with tarfile.open(folder / f"discs-{start // each:03d}.tar", "w") as archive:
            for i in range(start, min(start + each, count)):
                files = {f"{i:06d}.png": png(seed=i)} | ({f"{i:06d}.cls": str(i % 3).encode()} if classes else {})
                for name, content in files.items():
                    entry = tarfile.TarInfo(name)
                    entry.size = len(content)
                    archive.addfile(entry, io.BytesIO(content))
    return folder


def test_tar_shards_are_a_data_set_as_a_zip_is(tmp_path):
    data = ImageFolderDataset(shards(tmp_path / "shards"), use_labels=True)
    same = ImageFolderDataset(make_dataset(tmp_path / "discs.zip", labels="classes"), use_labels=True)
    data.check_images()
    assert len(data) == len(same) == 40 and data.label_dim == 3 and data.has_stored_labels()
    assert data.image_names()[16] == "discs-001.tar/000016.png"
    loader = torch.utils.data.DataLoader(data, batch_size=40, num_workers=2)
    images, labels = next(iter(loader))
    for i in range(40):
        image, label = same[i]
        assert np.array_equal(images[i], image) and np.array_equal(labels[i], label)
    assert ImageFolderDataset(tmp_path / "shards").digest() == data.digest()


def test_labels_of_shards_may_lie_beside_them(tmp_path):
    folder = shards(tmp_path / "shards", count=2, each=1, classes=False)
    assert not ImageFolderDataset(folder, use_labels=True).has_labels
    labels = [["discs-000.tar/000000.png", 1], ["discs-001.tar/000001.png", 0]]
    (folder / "dataset.json").write_text(json.dumps(dict(labels=labels)))
    data = ImageFolderDataset(folder, use_labels=True)
    assert [data.get_label(i).argmax() for i in range(2)] == [1, 0]


def test_a_damaged_tar_is_named(tmp_path):
    folder = shards(tmp_path / "shards")
    path = folder / "discs-001.tar"
    path.write_bytes(b"no tar" + path.read_bytes()[6:])
    with pytest.raises(OSError, match="discs-001.tar is a damaged tar"):
        ImageFolderDataset(folder)
