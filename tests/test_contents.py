"""Large data: the directory of a zip and of tar shards is read once, and what changes is noticed."""

import io
import json
import os
import tarfile
import zipfile

import numpy as np
import PIL.Image
import pytest
import torch

import dnnlib
from helpers import make_dataset, png, run
from training import files
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


def images(folder, names, labels=None):
    """A folder with pictures of these names, and perhaps a dataset.json with these rows"""
    for i, name in enumerate(names):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(png(seed=i))
    if labels is not None:
        (folder / "dataset.json").write_text(json.dumps(dict(labels=labels)))
    return folder


def packed(folder, path):
    with zipfile.ZipFile(path, "w") as archive:
        for file in sorted(folder.rglob("*")):
            archive.write(file, file.relative_to(folder))
    return path


def classes(path):
    """{picture: class} as training reads them"""
    data = ImageFolderDataset(path, use_labels=True)
    return dict(zip(data.image_names(), data._labels().tolist())) if data.has_labels else None


def test_what_nobody_has_put_there_is_no_picture(tmp_path):
    left = ["._a.png", ".hidden/a.png", "__MACOSX/x/._a.png", "x/.ipynb_checkpoints/a-checkpoint.png", "x/@eaDir/a.png"]
    folder = images(tmp_path / "in", ["x/a.png", "x/b.png"])
    expected = ImageFolderDataset(folder).digest()
    images(folder, [*left, "x/Thumbs.db", ".DS_Store"])
    for path in (folder, packed(folder, tmp_path / "in.zip")):
        data = ImageFolderDataset(path)
        assert data.image_names() == ["x/a.png", "x/b.png"] and data.notes() == [] and data.digest() == expected


def test_hidden_tars_and_what_is_hidden_in_tars_is_left_out(tmp_path):
    folder = shards(tmp_path / "shards", count=4)
    with tarfile.open(folder / "discs-000.tar", "a") as archive:
        for name in ("./._000001.png", "./000005.png"):  # as `tar cf x.tar .` calls them
            entry = tarfile.TarInfo(name)
            entry.size = len(png())
            archive.addfile(entry, io.BytesIO(png()))
    (folder / "._discs-000.tar").write_bytes(b"resource fork")
    assert ImageFolderDataset(folder).image_names()[0] == "discs-000.tar/000005.png"
    assert len(ImageFolderDataset(folder)) == 5


def test_linked_folders_are_followed_and_circles_end(tmp_path):
    for name in ("cats", "dogs"):
        images(tmp_path / "elsewhere" / name, ["0.png", "1.png"])
    folder = images(tmp_path / "in", ["own/0.png"])
    for name, target in [("cats", "../elsewhere/cats"), ("dogs", "../elsewhere/dogs"), ("again", "own"), ("up", "..")]:
        (folder / name).symlink_to(target)
    (tmp_path / "elsewhere" / "dogs" / "circle").symlink_to(folder)
    (folder / "own" / "self").symlink_to(".")
    data = ImageFolderDataset(folder)
    assert data.image_names() == ["cats/0.png", "cats/1.png", "dogs/0.png", "dogs/1.png", "own/0.png"]
    data.check_images()


@pytest.mark.skipif(os.name != "posix" or os.geteuid() == 0, reason="needs a folder that cannot be read")
def test_a_folder_that_cannot_be_read_is_no_empty_one(tmp_path):
    folder = images(tmp_path / "in", ["a/0.png", "b/0.png"])
    (folder / "b").chmod(0)
    with pytest.raises(OSError, match="Permission denied"):
        ImageFolderDataset(folder)


def test_a_file_is_read_up_to_its_limit_and_a_pipe_is_none(tmp_path):
    folder = images(tmp_path / "in", ["a.png"])
    os.mkfifo(folder / "pipe.png")
    contents = open_contents(str(folder))
    with pytest.raises(ValueError, match="are more than the 10 that are read"):
        contents.read(0, most=10)
    with pytest.raises(ValueError, match="it is no file"):
        contents.read(contents.find("pipe.png"))


@pytest.mark.parametrize("wrapper", ["", "faces/", "a/b/"])
@pytest.mark.parametrize("zipped", [False, True])
def test_labels_lie_in_the_folder_around_all(wrapper, zipped, tmp_path):
    names = ["0.png", "x/1.png", "x/2.png"]
    folder = images(tmp_path / "in" / wrapper, names, [[name, i] for i, name in enumerate(names)])
    (tmp_path / "in" / "__MACOSX").mkdir()
    (tmp_path / "in" / "__MACOSX" / "._dataset.json").write_bytes(b"resource fork")
    assert folder.is_dir()
    path = packed(tmp_path / "in", tmp_path / "in.zip") if zipped else tmp_path / "in"
    assert classes(path) == {wrapper + name: i for i, name in enumerate(names)}
    assert ImageFolderDataset(path).has_stored_labels()


def test_which_of_several_label_files_counts_is_for_the_user_to_say(tmp_path):
    for name in ("train", "test"):
        images(tmp_path / "in" / name, ["0.png", "1.png"], [["0.png", 0], ["1.png", 1]])
    with pytest.raises(ValueError, match="several dataset.json .test/dataset.json, train/dataset.json, …"):
        classes(tmp_path / "in")
    assert not ImageFolderDataset(tmp_path / "in").has_stored_labels() and classes(tmp_path / "in" / "test")
    images(tmp_path / "in", [], [[f"{name}/{i}.png", i] for name in ("train", "test") for i in (0, 1)])
    assert classes(tmp_path / "in")["train/1.png"] == 1  # the one at the top


def test_labels_of_pictures_outside_of_their_folder_are_not_guessed(tmp_path):
    images(tmp_path / "in" / "faces", ["0.png"], [["0.png", 1]])
    images(tmp_path / "in", ["0.png"])
    with pytest.raises(ValueError, match=r"faces/dataset.json: no label for 1 of 2 images .first: 0.png"):
        classes(tmp_path / "in")


def test_accents_are_the_same_letter_by_itself_or_not(tmp_path):
    composed, decomposed = "Zo\u00eb.png", "Zoe\u0308.png"
    for there, labelled in ((composed, decomposed), (decomposed, composed), ("a.png", "./a.png")):
        folder = images(tmp_path / there, [there, "b.png"], [[labelled, 1], ["b.png", 0]])
        for path in (folder, packed(folder, tmp_path / "in.zip")):
            assert sorted(classes(path).values()) == [0, 1]
            assert set(ImageFolderDataset(path).image_names()) == {composed if "Z" in there else "a.png", "b.png"}


def named_in(encoding, path, names, labels=None):
    """A zip whose names are in this encoding, and that does not say so"""
    stand_ins = {name: f"{i:0{len(name.encode(encoding))}d}" for i, name in enumerate(names)}
    with zipfile.ZipFile(path, "w") as archive:
        for i, name in enumerate(names):
            archive.writestr(stand_ins[name], png(seed=i), zipfile.ZIP_DEFLATED)
        if labels is not None:
            archive.writestr("dataset.json", json.dumps(dict(labels=labels)))
    data = path.read_bytes()
    for name, stand_in in stand_ins.items():
        assert data.count(stand_in.encode()) == 2  # before the picture, and in the directory
        data = data.replace(stand_in.encode(), name.encode(encoding))
    path.write_bytes(data)
    return path


@pytest.mark.parametrize("encoding", ["gbk", "utf-8"])
def test_names_of_a_zip_that_does_not_say_what_they_are_in(encoding, tmp_path):
    names = ["图片/男孩一.png", "图片/女孩二.png", "图片/喆喆三.png"]  # one of them with letters that GB2312 lacks
    path = named_in(encoding, tmp_path / "in.zip", names, [[name, i] for i, name in enumerate(names)])
    assert classes(path) == {name: i for i, name in enumerate(names)}
    data = ImageFolderDataset(path)
    data.check_images()
    expected = make_dataset(tmp_path / "same.zip", count=0, extra={name: png(seed=i) for i, name in enumerate(names)})
    assert data.image_names() == ImageFolderDataset(expected).image_names()


def test_european_names_are_not_taken_for_chinese(tmp_path):
    names = ["bébé001.png", "gâteau.png", "élan.png", "größe.png"]
    assert set(open_contents(str(named_in("cp437", tmp_path / "in.zip", names)))) == set(names)


def test_names_in_another_encoding_are_remembered(tmp_path, cache):
    names = [f"图片/男孩{i:05d}.png" for i in range(1100)]
    path = named_in("gbk", tmp_path / "in.zip", names)
    for _ in range(2):  # from its directory, and from the cache
        contents = open_contents(str(path))
        assert list(contents) == names and contents.read(7) == png(seed=7)
    assert list((cache / "data").glob("*.npz"))


def test_a_picture_that_was_taken_sideways_is_trained_on_upright(tmp_path):
    exif = PIL.Image.Exif()
    exif[0x0112] = 6
    pixels = np.random.RandomState(0).randint(0, 256, [16, 16, 3], dtype=np.uint8)
    (tmp_path / "in").mkdir()
    PIL.Image.fromarray(pixels).save(tmp_path / "in" / "a.png", exif=exif)
    assert np.array_equal(ImageFolderDataset(tmp_path / "in")[0][0].transpose(1, 2, 0), np.rot90(pixels, -1))


def test_some_classes_beside_pictures_are_not_none(tmp_path):
    folder = images(tmp_path / "in", ["a.png", "b.png"])
    (folder / "a.cls").write_text("1")
    with pytest.raises(ValueError, match=r".cls files: no label for 1 of 2 images .first: b.png"):
        classes(folder)
    (folder / "b.cls").write_text("0")
    assert classes(folder) == {"a.png": 1, "b.png": 0}
    (folder / "b.cls").write_text("zero")
    with pytest.raises(ValueError, match="b.cls holds no class"):
        classes(folder)


def test_other_files_of_a_folder_may_be_large_or_none(tmp_path):
    """They are digested, not read: a film beside the pictures, a link that leads nowhere, a pipe"""
    make_dataset(tmp_path, count=2)
    with open(tmp_path / "film.avi", "wb") as file:
        file.truncate(files.MOST_BYTES + 1)
    alone = open_contents(str(tmp_path)).digest()
    (tmp_path / "notes.txt").symlink_to("nowhere")
    os.mkfifo(tmp_path / "pipe")
    data = ImageFolderDataset(str(tmp_path))
    assert len(data) == 2 and data.digest() != alone
    done = run("train_segan.py", "-n", f"--data={tmp_path}")
    assert "3 files are no pictures that can be read" in done.stdout
