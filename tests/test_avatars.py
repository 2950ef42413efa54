"""The avatars data set: the same bytes each time, factors that are what one sees, masks that fit the images."""

import io
import json
import zipfile

import numpy as np
import psutil
import pytest
from click.testing import CliRunner
from PIL import Image

from helpers import command, start, wait_for
from segan_ext.cli import avatars as command_of_avatars
from segan_ext.data import avatars as av
from segan_ext.data import drawing

pytest.importorskip("dicebear")
pytest.importorskip("dicebear_styles")
pytest.importorskip("resvg_py")

COUNT, RESOLUTION = 40, 32  # more than one chunk, so that two workers share the work


def read(path):
    """The pixels of all images of an archive by name, and its dataset.json."""
    with zipfile.ZipFile(path) as archive:
        assert all(info.compress_type == zipfile.ZIP_STORED for info in archive.infolist())
        content = {name: archive.read(name) for name in archive.namelist()}
    description = json.loads(content.pop("dataset.json"))
    return {name: np.asarray(Image.open(io.BytesIO(png))) for name, png in content.items()}, description


@pytest.fixture(scope="module")
def archive(tmp_path_factory):
    dest = tmp_path_factory.mktemp("avatars") / "set.zip"
    return av.make_avatars(
        dest, count=COUNT, resolution=RESOLUTION, seed=5, label="hairColor", masks=True, workers=1, progress=False
    )


def grow(area):
    """The area [H, W] and its neighbouring pixels."""
    rows = area | np.roll(area, 1, 0) | np.roll(area, -1, 0)
    return rows | np.roll(rows, 1, 1) | np.roll(rows, -1, 1)


def decode(description, index):
    """Row `index` of the factors as render() takes it."""
    factors = description["factors"]
    row = zip(factors["names"], factors["items"][index], strict=True)
    return {name: factors["values"][name][x] if name in factors["values"] else x for name, x in row}


def test_same_bytes_for_any_number_of_workers(archive, tmp_path):
    dest = tmp_path / "again.zip"
    av.make_avatars(dest, COUNT, RESOLUTION, seed=5, label="hairColor", masks=True, workers=2, zoom=1.0, progress=False)
    assert dest.read_bytes() == archive.read_bytes()
    assert av.mask_path(dest).read_bytes() == av.mask_path(archive).read_bytes()
    assert sorted(path.name for path in tmp_path.iterdir()) == ["again-masks.zip", "again.zip"]


def test_a_longer_set_begins_with_the_shorter_and_seeds_differ(archive):
    images, _ = read(archive)
    image, _ = drawing.render_avatar("toon-head", seed=5, index=7, resolution=RESOLUTION)
    other, _ = drawing.render_avatar("toon-head", seed=6, index=7, resolution=RESOLUTION)
    assert np.array_equal(image, images["00000/img00000007.png"])
    assert not np.array_equal(image, other)


def test_layout(archive):
    images, description = read(archive)
    assert list(images) == [f"00000/img{i:08d}.png" for i in range(COUNT)]
    assert all(image.shape == (RESOLUTION, RESOLUTION, 3) and image.dtype == np.uint8 for image in images.values())
    factors, source = description["factors"], description["source"]
    assert len(factors["names"]) == len(factors["kinds"])
    assert np.shape(factors["items"]) == (COUNT, len(factors["names"]))
    for column, (name, kind) in enumerate(zip(factors["names"], factors["kinds"], strict=True)):
        values = [row[column] for row in factors["items"]]
        assert kind in ("categorical", "colour", "continuous")
        assert (kind == "continuous") == (name not in factors["values"])
        assert kind == "continuous" or all(0 <= x < len(factors["values"][name]) for x in values)
    assert {"hairVariant", "skinColor", "backgroundColor", "rotate", "scale", "translateX"} <= set(factors["names"])
    assert (source["style"], source["creator"], source["licence"]) == ("toon-head", "Johan Melin", "CC BY 4.0")
    assert set(source["versions"]) == set(av.PACKAGES)
    assert (source["seed"], source["resolution"]) == (5, RESOLUTION)


def test_label_is_the_factor(archive):
    images, description = read(archive)
    column = description["factors"]["names"].index("hairColor")
    assert description["labels"] == [
        [name, row[column]] for name, row in zip(images, description["factors"]["items"], strict=True)
    ]
    assert len({label for _, label in description["labels"]}) == 5  # toon-head has five hair colours


def test_factor_rows_draw_their_images(archive):
    images, description = read(archive)
    for index, image in enumerate(images.values()):
        assert np.array_equal(drawing.render("toon-head", decode(description, index), RESOLUTION), image)


@pytest.mark.parametrize("style", ["avataaars", "personas", "thumbs", "micah", "stripes", "fun-emoji"])
def test_factors_draw_their_image_in_other_styles(style):
    for index in range(5):
        image, factors = drawing.render_avatar(style, seed=1, index=index, resolution=24)
        assert list(factors) == list(drawing.style_factors(style))
        assert np.array_equal(drawing.render(style, factors, 24, seed=f"1-{index}"), image)


def test_every_factor_changes_the_image(archive):
    _, description = read(archive)
    factors = decode(description, 0) | {"beardVariant": "chin", "rearHairVariant": "longWavy"}
    image = drawing.render("toon-head", factors, 64)
    for name, values in drawing.style_factors("toon-head").items():
        other = factors[name] * 0.9 - 1 if values is None else next(v for v in values if v != factors[name])
        other = 1.5 if name == "scale" else other
        assert not np.array_equal(drawing.render("toon-head", factors | {name: other}, 64), image), name


def test_pose_is_what_was_drawn():
    still = {"rotate": 0.0, "scale": 1.0, "translateX": 0.0, "translateY": 0.0}
    _, factors = drawing.render_avatar("toon-head", seed=0, index=0, resolution=64)
    image = drawing.render("toon-head", factors | still, 64)
    shifted = drawing.render("toon-head", factors | still | {"translateX": 12.5}, 64)
    assert np.array_equal(shifted[:, 8:], image[:, :-8])  # 12.5 % of 64 pixels
    turned = drawing.render("toon-head", factors | still | {"rotate": 180.0}, 64).astype(int)
    assert np.abs(turned[::-1, ::-1] - image).mean() < 1  # rotated by float arithmetic, so edges differ a little


def test_zoom_is_part_of_the_scale_and_shows_more_eyes():
    def eyes(zoom):
        drawn = [drawing.render_avatar("avataaars", 0, i, 32, zoom) for i in range(12)]
        assert all(1.0 * zoom <= factors["scale"] <= 1.2 * zoom for _, factors in drawn)
        masks = [drawing.render_mask("avataaars", factors, 32, f"0-{i}") for i, (_, factors) in enumerate(drawn)]
        return np.mean(np.equal(masks, drawing.CLASSES.index("eyes")))

    assert eyes(1.5) > 1.5 * eyes(1)


def test_masks_fit_the_images(archive):
    images, description = read(archive)
    masks, mask_description = read(av.mask_path(archive))
    assert list(masks) == list(images)
    assert mask_description["classes"] == list(drawing.CLASSES)
    counts, exact = np.zeros(len(drawing.CLASSES), int), []
    for index, (name, mask) in enumerate(masks.items()):
        assert mask.shape == (RESOLUTION, RESOLUTION) and mask.dtype == np.uint8
        counts += np.bincount(mask.ravel(), minlength=len(drawing.CLASSES))  # fails for an index beyond the classes
        colour = bytes.fromhex(decode(description, index)["backgroundColor"][1:])
        background = mask == 0
        inner = ~grow(~background)  # an edge pixel is blended with what adjoins
        error = np.abs(images[name][inner].astype(int) - list(colour)).max(axis=-1)
        # Nearly all: a strand of hair thinner than half a pixel tints a pixel that is mostly background.
        assert inner.sum() > 50 and np.mean(error == 0) > 0.9 and error.max() < 128
        exact.append(np.mean(error == 0))
    assert np.mean(exact) > 0.98
    seen = {name for name, count in zip(drawing.CLASSES, counts, strict=True) if count}
    assert {"background", "skin", "hair", "eyes", "brows", "mouth", "beard", "clothes"} <= seen


@pytest.mark.parametrize(("name", "part"), [("hairColor", "hair"), ("clothesColor", "clothes"), ("skinColor", "skin")])
def test_recolouring_a_part_changes_only_its_pixels(name, part):
    for index in range(6):
        _, factors = drawing.render_avatar("toon-head", seed=2, index=index, resolution=64)
        factors |= {"beardVariant": "none"}  # beard and brows have the colour of the hair
        mask = drawing.render_mask("toon-head", factors, 64)
        colours = [c for c in drawing.style_factors("toon-head")[name] if c not in ("none", factors[name])]
        images = [drawing.render("toon-head", factors | {name: c}, 64).astype(int) for c in (factors[name], colours[0])]
        changed = np.abs(images[0] - images[1]).max(-1) > 40  # less is the blend at an edge
        own = mask == drawing.CLASSES.index(part)
        allowed = own | ((mask == drawing.CLASSES.index("brows")) if part == "hair" else False)
        assert changed[~grow(allowed)].mean() < 0.005
        assert changed[own].mean() > 0.25  # an open jacket is mostly the white shirt below


@pytest.mark.parametrize("style", ["avataaars", "personas", "big-smile", "pixel-art"])
def test_masks_of_other_styles(style):
    masks = []
    for index in range(12):
        _, factors = drawing.render_avatar(style, 0, index, 48)
        masks.append(drawing.render_mask(style, factors, 48, seed=f"0-{index}"))
    seen = {drawing.CLASSES[label] for label in np.unique(masks)}
    assert {"background", "skin", "hair", "eyes", "mouth"} <= seen


def test_cache_is_made_once(tmp_path, monkeypatch):
    monkeypatch.setenv("SEGAN_CACHE_DIR", str(tmp_path / "cache"))
    path = av.cached_avatars(resolution=16, count=3)
    written = path.stat().st_mtime_ns
    assert av.cached_avatars(resolution=16, count=3) == path and path.stat().st_mtime_ns == written
    assert av.cached_avatars(resolution=16, count=3, seed=1) != path
    av.cached_avatars(resolution=16, count=3, masks=True)
    assert av.mask_path(path).exists()


def test_an_interruption_leaves_nothing(tmp_path, monkeypatch):
    def interrupt(*_):
        raise KeyboardInterrupt

    monkeypatch.setattr(av, "_dataset_json", interrupt)
    with pytest.raises(KeyboardInterrupt):
        av.make_avatars(tmp_path / "set.zip", 3, 16, masks=True, progress=False)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        (["--style=toonhead"], "--style: there is no 'toonhead'; nearest: toon-head"),
        (["--label=hairColour"], "--label: style toon-head has no factor 'hairColour'; nearest: hairColor"),
        (["--label=rotate"], "--label: style toon-head has no factor 'rotate'"),
        (["--count=0"], "--count: 0"),
        (["--resolution=4"], "--resolution: 4"),
        (["--zoom=0"], "--zoom: 0"),
        (["--workers=-1"], "--workers: -1"),
        (["--dest=avatars.tar"], "--dest: avatars.tar must end in .zip"),
    ],
)
def test_errors_say_what_to_do(options, sentence, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    result = CliRunner().invoke(command_of_avatars.avatars, options)
    assert result.exit_code == 2 and sentence in result.output
    assert not list(tmp_path.iterdir())


def test_unknown_factor_or_value():
    with pytest.raises(ValueError, match="nearest: hairColor"):
        drawing.render("toon-head", {"hairColour": "#000000"}, 16)
    with pytest.raises(ValueError, match="its values: agape"):
        drawing.render("toon-head", {"mouthVariant": "grin"}, 16)


def test_command(tmp_path):
    dest = tmp_path / "new" / "set.zip"
    options = [f"--dest={dest}", "--count=4", "--resolution=16", "--style=thumbs", "--masks"]
    result = CliRunner().invoke(command_of_avatars.avatars, options)
    assert result.exit_code == 0 and str(dest) in result.output and "CC0 1.0" in result.output
    before = dest.read_bytes()
    result = CliRunner().invoke(command_of_avatars.avatars, [*options, "--seed=1"])
    assert result.exit_code == 2 and "--overwrite" in result.output and dest.read_bytes() == before
    assert CliRunner().invoke(command_of_avatars.avatars, [*options, "--seed=1", "--overwrite"]).exit_code == 0
    assert dest.read_bytes() != before


def test_list_styles():
    result = CliRunner().invoke(command_of_avatars.avatars, ["--list-styles"])
    line = next(line for line in result.output.splitlines() if line.startswith("toon-head"))
    assert "CC BY 4.0" in line and "Johan Melin" in line


def test_workers_end_with_a_killed_process(tmp_path):
    process = start(command("-m segan_ext", "avatars", "--count=5000", "--workers=2", f"--dest={tmp_path / 'a.zip'}"))
    workers = lambda: [p for p in psutil.Process(process.pid).children() if "spawn_main" in " ".join(p.cmdline())]
    wait_for(lambda: len(workers()) == 2, process)
    left = workers()
    process.kill()
    gone, alive = psutil.wait_procs(left, timeout=60)
    assert not alive
    process.communicate()
