"""The page in a real browser: each job of the three tabs on a small real generator, judged by what is on the screen."""

import base64
import io
import json
import os
import re
import shutil
import subprocess
import time
import zipfile

import naming_story
import numpy as np
import PIL.Image
import pytest
import torch
from click.testing import CliRunner
from test_semantics import CLASSES, brightness, write_network

from helpers import ROOT, command, run
from segan_ext.cli import main
from segan_ext.control.render import render
from segan_ext.latents import draw_ws
from segan_ext.layers import FeatureHooks
from segan_ext.metrics.labels import read_labels
from segan_ext.semantics import annotations, closed_form, segmenters
from segan_ext.semantics.extractors import IGNORED, open_extractor, save_extractor
from test_segan_networks import build, randomise
from training.latents import seed_latents

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser")
pytestmark = [
    pytest.mark.skipif(CHROMIUM is None, reason="there is no chromium"),
]
sync_api = pytest.importorskip("playwright.sync_api")


@pytest.fixture(scope="module")
def G():
    torch.manual_seed(0)
    G = randomise(build(mode=2))
    for name, parameter in G.named_parameters():
        if name.endswith("noise_strength"):
            parameter.fill_(0.05)
    return G


@pytest.fixture(scope="module")
def folder(G, tmp_path_factory):
    folder = tmp_path_factory.mktemp("web")
    for name in ("first", "second"):
        write_network(folder / f"{name}.pkl", G)
    labeller = segmenters.Segmenter(brightness, CLASSES, "brightness")
    save_extractor(folder / "linear.safetensors", closed_form.fit(G, labeller, samples=150, progress=False))
    return folder


@pytest.fixture(scope="module")
def url(folder):
    """Address of a page that the real command serves"""
    args = [f"--network={folder / 'first.pkl'}", f"--network={folder / 'second.pkl'}", "--port=0"]
    args += [f"--extractor={folder / 'linear.safetensors'}"]
    server = subprocess.Popen(
        command("-m segan_ext web", *args),
        cwd=ROOT,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        env=os.environ | {"OMP_NUM_THREADS": "1", "PYTHONUNBUFFERED": "1"},
    )
    seen = []
    for line in server.stdout:
        seen.append(line)
        if found := re.search(r"The page is at (http://127\.0\.0\.1:\d+)", line):
            break
    else:
        raise AssertionError("".join(seen))
    yield found[1]
    server.kill()


@pytest.fixture(scope="module")
def browser():
    with sync_api.sync_playwright() as playwright:
        options = ["--no-sandbox", "--disable-gpu", "--disable-quic"]
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=options)
        yield browser
        browser.close()


@pytest.fixture
def page(browser, url):
    page = opened(browser, url)
    yield page
    assert not page.foreign, page.foreign
    page.context.close()


def opened(browser, url, width=1200):
    page = browser.new_context(viewport=dict(width=width, height=1000), accept_downloads=True).new_page()
    page.set_default_timeout(60000)
    page.foreign = []
    own = (url, "data:", "blob:")
    page.on("request", lambda r: None if r.url.startswith(own) else page.foreign.append(r.url))
    page.goto(url)
    page.wait_for_selector("#pictures img")
    return page


def pixels(page, where="#pictures", index=-1):
    """A picture on the page, int [H, W, 3], at the resolution of the generator"""
    source = page.locator(f"{where} img").nth(index).get_attribute("src")
    return np.asarray(PIL.Image.open(io.BytesIO(base64.b64decode(source.partition(",")[2]))).convert("RGB"), int)


def expected(G, seed=0, psi=0.7, edits={}, **kwargs):
    with torch.no_grad():
        ws = G.mapping(seed_latents(G, [seed], "cpu").float(), None, truncation_psi=psi)
        image = render(G, ws, edits, **(dict(noise_mode="const") | kwargs))[0]
    return (image * 127.5 + 128).clamp(0, 255).to(torch.uint8).permute(1, 2, 0).numpy().astype(int)


def until(page, condition, what, seconds=40):
    """Waits until the condition holds; says what was waited for if it never does."""
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, what
        page.wait_for_timeout(50)


def shows(page, target, where="#pictures", index=-1, what="the image"):
    alike = lambda: (p := pixels(page, where, index)).shape == target.shape and abs(p - target).max() <= 1
    until(page, alike, what)


def write(page, field, value):
    box = page.locator(f"#{field} input:not([type=range]), #{field} textarea").first
    box.fill(str(value))
    box.press("Tab")


def click(page, name):
    page.locator(f"button#{name}, #{name} button").first.click()


def upload(page, name, path):
    with page.expect_file_chooser() as chooser:
        click(page, name)
    chooser.value.set_files(path)


def address_of(page, slot=0):
    return re.search(r"L\d+\.N\d+\.D\d+", page.locator(f"#slot{slot}").inner_text())[0]


def complains(page, text):
    until(page, lambda: text in page.locator("body").inner_text(), f"no message with {text!r}")


# ---------------------------------------------------------------------------------------------------------------------
# Explore


def test_seeds_truncation_and_noise(page, G):
    shows(page, expected(G))
    write(page, "seed", 5)
    shows(page, expected(G, 5), what="seed 5")
    write(page, "psi", 1)
    shows(page, expected(G, 5, 1), what="without truncation")
    write(page, "noise", "none")
    shows(page, expected(G, 5, 1, noise_mode="none"), what="without noise")
    write(page, "noise", "loud")
    complains(page, "the seed of random noise")


def test_sliders_undo_redo_and_files(page, G, folder, tmp_path):
    address = address_of(page)
    write(page, "slot0", 3)
    moved = expected(G, edits={address: 3})
    shows(page, moved, what="an edit")
    shows(page, expected(G), index=0, what="before")
    click(page, "undo")
    shows(page, expected(G), what="undone")
    assert float(page.locator("#slot0 input[type=number]").input_value()) == 0
    click(page, "redo")
    shows(page, moved, what="done again")
    with page.expect_download() as download:
        click(page, "save")
    download.value.save_as(tmp_path / "edit.json")
    assert json.loads((tmp_path / "edit.json").read_text())["edits"] == {address: 3}
    with page.expect_download() as download:
        click(page, "save-image")
    download.value.save_as(tmp_path / "saved.png")
    assert abs(np.asarray(PIL.Image.open(tmp_path / "saved.png"), int) - moved).max() <= 1
    click(page, "reset")
    shows(page, expected(G), what="reset")
    upload(page, "load", tmp_path / "edit.json")
    shows(page, moved, what="loaded")
    network = f"--network={folder / 'first.pkl'}"
    run("-m segan_ext edit", network, f"--replay={tmp_path / 'edit.json'}", f"--outdir={tmp_path}")
    assert abs(np.asarray(PIL.Image.open(tmp_path / "seed0000.png"), int) - moved).max() <= 1
    (tmp_path / "other.json").write_text("[]")
    upload(page, "load", tmp_path / "other.json")
    complains(page, "is no edit")


def test_search_and_layers(page, G):
    write(page, "search", "L2.N1")
    until(page, lambda: address_of(page).startswith("L2.N1"), "found by address")
    labels = [address_of(page, i) for i in range(12)]
    assert len(set(labels)) == 12 and all(label.startswith("L2.N1") for label in labels)
    write(page, "slot3", -2)
    shows(page, expected(G, edits={labels[3]: -2}), what="an edit of what was found")


def test_keyboard_moves_a_slider(page, G):
    page.locator("#slot0 input[type=range]").focus()
    for _ in range(5):
        page.keyboard.press("ArrowRight")
    shows(page, expected(G, edits={address_of(page): 0.5}), what="arrow keys")


@pytest.mark.slow
def test_styles_are_mixed(page, G):
    page.get_by_text("Mix styles").click()
    write(page, "mix-seed", 4)
    page.locator("#mix-layers input[type=checkbox]").nth(2).click()
    with torch.no_grad():
        ws, other = (G.mapping(seed_latents(G, [s], "cpu").float(), None, truncation_psi=0.7) for s in (0, 4))
        ws[:, 2] = other[:, 2]
        image = G.synthesis(ws, noise_mode="const")[0]
    shows(page, (image * 127.5 + 128).clamp(0, 255).to(torch.uint8).permute(1, 2, 0).numpy().astype(int))


def test_changes_stay_inside_a_class(page, G, folder):
    write(page, "slot0", 5)
    everywhere = expected(G, edits={address_of(page): 5})
    shows(page, everywhere)
    name, mask = class_in_the_image(G, folder)
    page.locator("#inside").get_by_text(name).click()
    until(page, lambda: abs(pixels(page) - everywhere).max() > 1, "the change is limited")
    change = abs(pixels(page) - expected(G)).max(axis=2)
    assert change[mask].max() > 1 and change[mask].mean() > change[~mask].mean()


def class_in_the_image(G, folder):
    """The class nearest to half of the image of seed 0, and where it is [32, 32]"""
    extractor = open_extractor(folder / "linear.safetensors", G)
    ws = draw_ws(G, 1, truncation_psi=0.7)
    labels = extractor.labels(FeatureHooks(G)(ws, noise_mode="const")[1], 32)[0]
    index = min(range(3), key=lambda k: abs((labels == k).float().mean() - 0.5))
    return CLASSES[index], (labels == index).numpy()


@pytest.mark.slow
def test_strip_video_and_several_seeds(page, G):
    page.get_by_text("Strip, video, several seeds").click()
    click(page, "strip")
    page.wait_for_selector("#made .wide img")
    assert pixels(page, "#made").shape[1] > 9 * 64
    click(page, "video")
    page.wait_for_selector("#made img[src^='data:image/gif']")
    source = page.locator("#made img").get_attribute("src")
    assert PIL.Image.open(io.BytesIO(base64.b64decode(source.partition(",")[2]))).n_frames == 16
    write(page, "slot1", 2)
    address = address_of(page, 1)
    shows(page, expected(G, edits={address: 2}))
    write(page, "seeds", "3,4")
    click(page, "batch")
    until(page, lambda: page.locator("#made .pictures img").count() == 4, "four pictures")
    shows(page, expected(G, 3), "#made", 0)
    shows(page, expected(G, 4, edits={address: 2}), "#made", 3)
    write(page, "seeds", "many")
    click(page, "batch")
    complains(page, "no number or range")


@pytest.mark.slow
def test_a_picture_is_projected_and_cancelled(page, G, tmp_path):
    target = expected(G, 77, psi=1.5)
    PIL.Image.fromarray(target.astype(np.uint8)).save(tmp_path / "target.png")
    page.get_by_text("Project a picture").click()
    page.locator("#upload input[type=file]").set_input_files(tmp_path / "target.png")
    page.wait_for_selector("#upload img")
    start = pixels(page)
    write(page, "project-steps", 200)
    click(page, "project")
    until(page, lambda: abs(pixels(page) - start).max() > 1, "projected")
    assert abs(pixels(page) - target).mean() < 0.9 * abs(start - target).mean()
    write(page, "seed", 2)
    shows(page, expected(G, 2))
    write(page, "project-steps", 1000)
    click(page, "project")
    page.wait_for_timeout(1500)
    began = time.monotonic()
    click(page, "project-cancel")
    until(page, lambda: abs(pixels(page) - expected(G, 2)).max() > 1, "cancelled with what there was")
    assert time.monotonic() - began < 15


def test_another_network(page, G):
    write(page, "seed", 6)
    shows(page, expected(G, 6))
    page.locator("#network input").click()
    page.get_by_role("option", name="second.pkl").click()
    shows(page, expected(G, 6))


def test_two_browsers_do_not_mix(browser, url, G):
    one, two = opened(browser, url), opened(browser, url)
    write(one, "seed", 11)
    write(two, "seed", 12)
    write(one, "slot0", 2)
    write(two, "slot0", -2)
    address = address_of(one)
    shows(one, expected(G, 11, edits={address: 2}))
    shows(two, expected(G, 12, edits={address: -2}))
    click(one, "undo")
    shows(one, expected(G, 11))
    shows(two, expected(G, 12, edits={address: -2}))
    for page in (one, two):
        page.context.close()


def test_a_phone_shows_it_without_scrolling_sideways(browser, url):
    page = opened(browser, url, width=390)
    for name in ("Explore", "Edit", "Train"):
        page.get_by_role("tab", name=name).click()
        page.wait_for_timeout(700)
        assert page.evaluate("document.documentElement.scrollWidth") <= 391
    page.context.close()


# ---------------------------------------------------------------------------------------------------------------------
# Edit


def enter(page, tab, canvas):
    page.get_by_role("tab", name=tab).click()
    page.wait_for_selector(f"#{canvas} .paint[data-ready], #{canvas} [data-ready]")


def paint(page, canvas, box, side="left", size=32):
    """Drags the mouse over pixels x0, y0 to x1, y1."""
    place = page.locator(f"#{canvas} canvas[data-part={side}]")
    place.scroll_into_view_if_needed()
    area = place.bounding_box()
    at = lambda x, y: (area["x"] + (x + 0.5) / size * area["width"], area["y"] + (y + 0.5) / size * area["height"])
    page.mouse.move(*at(*box[:2]))
    page.mouse.down()
    page.mouse.move(*at(*box[2:]), steps=4)
    page.mouse.up()


def note(page, name="edit-note"):
    return page.locator(f"#{name}").inner_text()


def painted(page):
    return int(re.search(r"(\d+) pixels have a class stroke", note(page))[1])


def test_painting_a_class_changes_the_image_there(page, G, folder):
    enter(page, "Edit", "edit-canvas")
    page.locator("#edit-canvas").get_by_role("radio", name="bright").click()
    paint(page, "edit-canvas", (8, 8, 12, 8))
    until(page, lambda: "class stroke" in note(page), "the strokes arrive")
    count = painted(page)
    assert 40 <= count <= 120
    click(page, "apply")
    page.wait_for_selector("#edit-result img")
    until(page, lambda: "outside the strokes" in note(page), "the change is reported")
    before, after = pixels(page, "#edit-result", 0), pixels(page, "#edit-result", 1)
    assert abs(before - expected(G)).max() <= 1
    assert abs(after - before)[5:12, 5:16].mean() > abs(after - before)[20:, 20:].mean()
    assert after[5:12, 6:15].mean() >= before[5:12, 6:15].mean()
    click(page, "use")
    page.get_by_role("tab", name="Explore").click()
    until(page, lambda: abs(pixels(page) - expected(G)).max() > 1, "explored from there")


def test_the_canvas_has_undo_eraser_fill_and_keys(page):
    enter(page, "Edit", "edit-canvas")
    canvas = page.locator("#edit-canvas")
    paint(page, "edit-canvas", (6, 6, 14, 6))
    until(page, lambda: "class stroke" in note(page), "a stroke")
    first = painted(page)
    paint(page, "edit-canvas", (6, 20, 14, 20), side="right")
    until(page, lambda: painted(page) > first, "a second stroke")
    second = painted(page)
    canvas.get_by_text("undo").click()
    until(page, lambda: painted(page) == first, "undone")
    canvas.get_by_text("redo").click()
    until(page, lambda: painted(page) == second, "done again")
    canvas.get_by_role("radio", name="eraser").click()
    paint(page, "edit-canvas", (6, 6, 14, 6))
    until(page, lambda: painted(page) == second - first, "erased")
    canvas.get_by_role("radio", name="fill").click()
    paint(page, "edit-canvas", (1, 1, 1, 1))
    until(page, lambda: painted(page) > second - first, "filled")
    canvas.get_by_text("clear").click()
    until(page, lambda: painted(page) == 0, "cleared")
    page.locator("#edit-canvas canvas[data-part=left]").focus()
    for key in ("b", "ArrowRight", " "):
        page.keyboard.press(key)
    until(page, lambda: painted(page) > 0, "painted with the keyboard")
    canvas.get_by_role("radio", name="colour").click()
    paint(page, "edit-canvas", (20, 20, 24, 20))
    until(page, lambda: ", 0 a colour stroke" not in note(page), "a colour stroke")
    click(page, "apply")
    until(page, lambda: "outside the strokes" in note(page), "applied")


def test_nothing_painted_is_said(page):
    enter(page, "Edit", "edit-canvas")
    click(page, "apply")
    complains(page, "paint something first")


# ---------------------------------------------------------------------------------------------------------------------
# Train


def test_an_extractor_is_trained_used_and_kept(page, G, tmp_path):
    enter(page, "Train", "train-canvas")
    write(page, "class-name", "sky")
    click(page, "class-add")
    until(page, lambda: page.locator("#train-canvas [data-class]").count() == 3, "a new class")
    write(page, "class-name", "sea")
    click(page, "class-rename")
    until(page, lambda: "sea" in page.locator("#train-canvas").inner_text(), "renamed")
    click(page, "class-delete")
    until(page, lambda: page.locator("#train-canvas [data-class]").count() == 2, "deleted")
    click(page, "keep")
    complains(page, "paint something first")
    assert "No example yet of: background, class 1" in note(page, "train-note")

    canvas = page.locator("#train-canvas")
    canvas.get_by_role("radio", name="background").click()
    paint(page, "train-canvas", (5, 5, 26, 5))
    canvas.get_by_role("radio", name="class 1").click()
    paint(page, "train-canvas", (5, 25, 26, 25))
    page.wait_for_timeout(300)
    click(page, "keep")
    until(page, lambda: "1 annotations. Every class has an example" in note(page, "train-note"), "kept")
    write(page, "epochs", 4)
    click(page, "train-start")
    until(page, lambda: "done, epoch 4" in note(page, "train-loss"), "trained")
    until(page, lambda: "mIoU on what was painted" in page.locator("#train-check").inner_text(), "validated")
    assert pixels(page, "#train-check").shape[1] > 300
    write(page, "epochs", 50)
    click(page, "train-start")
    until(page, lambda: "training, epoch" in note(page, "train-loss"), "goes on")
    click(page, "train-pause")
    until(page, lambda: "paused, epoch" in note(page, "train-loss"), "pauses")

    with page.expect_download() as download:
        click(page, "train-save")
    download.value.save_as(tmp_path / "e.safetensors")
    extractor = open_extractor(tmp_path / "e.safetensors", G)
    assert extractor.classes == ("background", "class 1")
    with page.expect_download() as download:
        click(page, "work-save")
    download.value.save_as(tmp_path / "work.zip")
    zipfile.ZipFile(tmp_path / "work.zip").extractall(tmp_path / "work")
    labels = annotations.read_annotations(tmp_path / "work", G).labels[0]
    assert (labels[5, 6:25] == 0).all() and (labels[25, 6:25] == 1).all() and (labels[15] == IGNORED).all()

    click(page, "train-use")
    enter(page, "Edit", "edit-canvas")
    assert page.locator("#edit-canvas").get_by_role("radio", name="class 1").count() == 1


@pytest.mark.slow
def test_annotations_come_back(page, G, tmp_path):
    labels = torch.full([1, 32, 32], IGNORED)
    labels[:, :8], labels[:, 20:] = 0, 1
    made = annotations.Annotations(draw_ws(G, 1, 4), labels, ("ground", "roof"))
    annotations.write_annotations(tmp_path, made, [4])
    with zipfile.ZipFile(tmp_path / "work.zip", "w") as archive:
        for name in ("classes.json", "seed0004.png"):
            archive.write(tmp_path / name, name)
    enter(page, "Train", "train-canvas")
    upload(page, "work-load", tmp_path / "work.zip")
    until(page, lambda: "roof" in page.locator("#train-canvas").inner_text(), "classes")
    assert page.locator("#kept img").count() == 1
    (tmp_path / "bad.zip").write_bytes(b"no zip")
    upload(page, "work-load", tmp_path / "bad.zip")
    complains(page, "no archive of annotations")


# ---------------------------------------------------------------------------------------------------------------------


def test_wrong_options_get_one_sentence(folder):
    for args, sentence in (
        ([f"--network={folder / 'none.pkl'}"], "--network: "),
        ([f"--network={folder / 'first.pkl'}", "--extractor=none"], "--extractor: No such file"),
    ):
        done = CliRunner().invoke(main, ["web", *args])
        assert done.exit_code == 2 and sentence in done.output


# ---------------------------------------------------------------------------------------------------------------------
# Name


def test_answers_become_a_slider(page, G, folder, tmp_path):
    """Twenty answers about brightness give a slider that makes images brighter, in the page and in `edit`."""
    mean = lambda picture: float(picture.mean())
    with torch.no_grad():
        images = G(seed_latents(G, range(100), "cpu").float(), None, noise_mode="const")
    middle = images.mean(dim=[1, 2, 3]).median().item()
    naming_story.start(page, "light", "dark", "bright")
    naming_story.answer(page, lambda picture: mean(picture) - middle, 20)
    until(page, lambda: "of what it moves" in page.locator("#told").inner_text(), "the slider's leakage")
    assert page.locator("#slider-made img").count() == 1
    naming_story.sliders(page, tmp_path / "sliders.json")
    with page.expect_download() as download:
        click(page, "answers-save")
    download.value.save_as(tmp_path / "answers.csv")
    assert len(read_labels(tmp_path / "answers.csv").keys) == 20
    click(page, "take-back")
    until(page, lambda: "19 answers" in page.locator("#told").inner_text(), "taken back")

    page.get_by_role("tab", name="Explore").click()
    until(page, lambda: "light" in page.locator("#slot0").inner_text(), "the slider in Explore")
    before = pixels(page)
    write(page, "slot0", 1)
    until(page, lambda: pixels(page).mean() > before.mean() + 2, "brighter")
    with page.expect_download() as download:
        click(page, "save")
    download.value.save_as(tmp_path / "edit.json")
    network = f"--network={folder / 'first.pkl'}"
    run("-m segan_ext edit", network, f"--replay={tmp_path / 'edit.json'}", f"--outdir={tmp_path / 'a'}")
    moved = np.asarray(PIL.Image.open(tmp_path / "a" / "seed0000.png").convert("RGB"), int)
    shows(page, moved, what="the edit of the command line")
    options = [f"--directions={tmp_path / 'sliders.json'}", "--set", "light=1", "--seeds=0", "--trunc=0.7"]
    run("-m segan_ext edit", network, *options, f"--outdir={tmp_path / 'b'}")
    assert (tmp_path / "a" / "seed0000.png").read_bytes() == (tmp_path / "b" / "seed0000.png").read_bytes()


def test_wrong_questions_and_files_are_explained(page, tmp_path):
    naming_story.start(page, "light", "dark", "bright")
    naming_story.fill(page, "answer-low", "bright")
    complains(page, "the two answers must differ")
    click(page, "sliders-save")
    complains(page, "there is no slider yet")
    click(page, "refine")
    complains(page, "needs 10 answers first")
    (tmp_path / "other.json").write_text('{"format": "something"}')
    upload(page, "sliders-load", tmp_path / "other.json")
    complains(page, "holds no directions")
    (tmp_path / "labels.csv").write_text("seed,size\n1,a\n2,b\n3,c\n4,c\n")
    upload(page, "answers-load", tmp_path / "labels.csv")
    complains(page, "size has 3 values")
