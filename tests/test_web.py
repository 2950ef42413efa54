"""The page and its studio in a real browser, on small real generators, judged by what is on the screen."""

import asyncio
import base64
import contextlib
import http.client
import http.server
import io
import json
import os
import re
import shutil
import socket
import subprocess
import threading
import time
import zipfile
from pathlib import Path

import imageio_ffmpeg
import naming_story
import numpy as np
import PIL.Image
import PIL.ImageSequence
import pytest
import torch
from click.testing import CliRunner
from test_semantics import CLASSES, brightness, write_network

from helpers import ROOT, command, run
from segan_ext.cli import main
from segan_ext.control.named import NamedDirection, as_file
from segan_ext.control.render import render
from segan_ext.directions.asking import Questions
from segan_ext.latents import draw_ws, random_w, ws_of_seeds
from segan_ext.layers import FeatureHooks, style_groups
from segan_ext.metrics.labels import read_labels
from segan_ext.semantics import annotations, closed_form, segmenters
from segan_ext.semantics.extractors import IGNORED, open_extractor, save_extractor
from segan_ext.web.api import Api
from segan_ext.web.controls import readable
from segan_ext.web.engine import Engine, View
from segan_ext.web.server import application
from segan_ext.web.session import Session, Sessions
from segan_ext.web.tabs.name import NameTab
from segan_ext.web.turns import Request as Work
from segan_ext.web.turns import Turns, working_on
from test_segan_networks import SHAPE, build, randomise
from training import networks
from training.latents import seed_latents

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser")
pytestmark = [
    pytest.mark.skipif(CHROMIUM is None, reason="there is no chromium"),
]
sync_api = pytest.importorskip("playwright.sync_api")
KNOWN = ROOT / "segan_ext" / "box" / "avatars64" / "generator.safetensors"  # with names
NETWORKS = ("first", "second", "grey", "plain")


@pytest.fixture(scope="module")
def G():
    torch.manual_seed(0)
    G = randomise(build(mode=2))
    for name, parameter in G.named_parameters():
        if name.endswith("noise_strength"):
            parameter.fill_(0.05)
    return G


@pytest.fixture(scope="module")
def grey():
    """A conditional generator of grey pictures"""
    torch.manual_seed(1)
    return randomise(build(mode=2, c_dim=3, img_channels=1))


def plain():
    """One without subspaces"""
    torch.manual_seed(2)
    sizes = dict(mapping_kwargs=dict(num_layers=2), synthesis_kwargs=dict(channel_base=512, channel_max=16))
    return networks.Generator(**SHAPE, **sizes).eval().requires_grad_(False)


@pytest.fixture(scope="module")
def folder(G, grey, tmp_path_factory):
    folder = tmp_path_factory.mktemp("web")
    for name in ("first", "second"):
        write_network(folder / f"{name}.pkl", G)
    write_network(folder / "grey.pkl", grey)
    write_network(folder / "plain.pkl", plain())
    labeller = segmenters.Segmenter(brightness, CLASSES, "brightness")
    save_extractor(folder / "linear.safetensors", closed_form.fit(G, labeller, samples=150, progress=False))
    return folder


@pytest.fixture(scope="module")
def url(folder):
    """Address of a page that the real command serves"""
    args = [*(f"--network={folder / name}.pkl" for name in NETWORKS), f"--network={KNOWN}"]
    yield from served(*args, f"--extractor={folder / 'linear.safetensors'}")


def served(*args, **environment):
    """Address of a page with these options, until it is closed"""
    server = subprocess.Popen(
        command("-m segan_ext web", "--port=0", *args),
        cwd=ROOT,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        env=os.environ | {"OMP_NUM_THREADS": "1", "PYTHONUNBUFFERED": "1"} | environment,
    )
    seen = []
    for line in server.stdout:
        seen.append(line)
        if found := re.search(r"The page is at (http://127\.0\.0\.1:\d+)", line):
            break
    else:
        raise AssertionError("".join(seen))
    try:
        yield found[1]
    finally:
        server.kill()
        server.wait()


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
    assert not page.foreign and not page.errors, (page.foreign, page.errors)
    page.context.close()


@pytest.fixture
def studio(browser, url):
    page = opened(browser, url, "/studio/", ready="button[role=tab]")
    yield page
    assert not page.foreign, page.foreign
    page.context.close()


def test_without_a_network_it_opens_those_in_the_box(browser):
    with contextlib.closing(served()) as addresses:
        page = opened(browser, next(addresses))
        assert page.locator("select option").first.inner_text() == "avatars64"
        card = page.locator(".card", has_text="hair: long")
        before = page.locator("#stage").get_attribute("data-shown")
        card.locator("input[type=range]").press("ArrowRight")
        page.wait_for_function("old => document.querySelector('#stage').dataset.shown !== old", arg=before)
        page.context.close()


def opened(browser, url, path="/", ready="#stage[data-shown]", width=1200, **options):
    context = browser.new_context(viewport=dict(width=width, height=1000), accept_downloads=True, **options)
    page = context.new_page()
    page.set_default_timeout(60000)
    page.foreign, page.errors = [], []
    own = (url, "data:", "blob:")
    page.on("request", lambda r: None if r.url.startswith(own) else page.foreign.append(r.url))
    page.on("pageerror", lambda error: page.errors.append(str(error)))
    page.goto(url + path)
    page.wait_for_selector(ready)
    return page


PIXELS = """image => {
  if (!image.naturalWidth) return [0, 0, ""];
  const canvas = new OffscreenCanvas(image.naturalWidth, image.naturalHeight), context = canvas.getContext("2d");
  context.drawImage(image, 0, 0);
  const data = context.getImageData(0, 0, canvas.width, canvas.height).data;
  let text = "";
  for (let i = 0; i < data.length; i += 32768) text += String.fromCharCode(...data.subarray(i, i + 32768));
  return [canvas.width, canvas.height, btoa(text)];
}"""


def pixels(page, where="#image", index=-1):
    """A picture on the page, int [H, W, 3], at its own resolution"""
    image = page.locator(where)
    image = image if image.first.evaluate("node => node.tagName") == "IMG" else image.locator("img")
    width, height, data = image.nth(index).evaluate(PIXELS)
    return np.frombuffer(base64.b64decode(data), np.uint8).reshape(height, width, 4)[:, :, :3].astype(int)


def expected(G, seed=0, psi=0.7, edits={}, class_idx=0, ws=None, **kwargs):
    with torch.no_grad():
        ws = ws_of_seeds(G, [seed], psi, class_idx) if ws is None else ws
        image = render(G, ws, edits, **(dict(noise_mode="const") | kwargs))[0]
    return as_pixels(image)


def as_pixels(image):
    return (image * 127.5 + 128).clamp(0, 255).to(torch.uint8).permute(1, 2, 0).expand(-1, -1, 3).numpy().astype(int)


def until(page, condition, what, seconds=120):
    """Waits until the condition holds; says what was waited for if it never does."""
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, what
        page.wait_for_timeout(50)


def differs(page, target, where="#image", index=-1):
    image = page.locator(where)
    if not image.count() or not image.first.is_visible():
        return True
    shown = pixels(page, where, index)
    return shown.shape != target.shape or abs(shown - target).max() > 1


def shows(page, target, where="#image", index=-1, what="the image"):
    until(page, lambda: not differs(page, target, where, index), what)


def write(page, field, value):
    """Into a field of the page, or a component of the studio"""
    box = page.locator(f"input#{field}, #{field} input:not([type=range]), #{field} textarea").first
    box.fill(str(value))
    box.press("Tab")


def click(page, name):
    page.locator(f"button#{name}, #{name} button").first.click()


def upload(page, name, path):
    with page.expect_file_chooser() as chooser:
        click(page, name)
    chooser.value.set_files(path)


def saved(page, name, path):
    with page.expect_download() as download:
        page.locator(name).first.click()
    download.value.save_as(path)
    return path


def card(page, which):
    """A card by its index, or by the address of its control"""
    cards = page.locator(".card")
    return cards.nth(which) if isinstance(which, int) else page.locator(f'.card[data-id="{which}"]')


def address_of(page, which=0):
    card(page, which).wait_for()
    return card(page, which).get_attribute("data-id")


def slide(page, which, amount):
    """Drags a slider's number to `amount`; its address"""
    address = address_of(page, which)
    box = card(page, address).locator("input[type=number]")
    box.fill(str(amount))
    box.press("Tab")
    return address


def panel(page, name):
    page.get_by_role("tab", name=name, exact=True).click()


def complains(page, text):
    until(page, lambda: text in page.locator("body").inner_text(), f"no message with {text!r}")


# ---------------------------------------------------------------------------------------------------------------------
# The page


def test_seeds_truncation_and_noise(page, G):
    shows(page, expected(G))
    write(page, "seed", 5)
    shows(page, expected(G, 5), what="seed 5")
    page.locator("#psi").fill("1")
    shows(page, expected(G, 5, 1), what="without truncation")
    page.get_by_text("More", exact=True).click()
    write(page, "noise", "none")
    shows(page, expected(G, 5, 1, noise_mode="none"), what="without noise")
    page.locator("#psi").fill("0")
    page.locator("#cutoff").fill("2")
    with torch.no_grad():
        half = ws_of_seeds(G, [5], 0, 0, 2)
    shows(page, expected(G, ws=half, noise_mode="none"), what="two layers truncated")
    write(page, "noise", "loud")
    complains(page, "the seed of random noise")
    assert page.locator("#noise").input_value() == "none"  # what was refused leaves no trace
    page.keyboard.press("z")
    page.keyboard.press("z")
    shows(page, expected(G, 5, 1, noise_mode="none"), what="undone")


def test_sliders_undo_redo_and_files(page, G, folder, tmp_path):
    address = slide(page, 0, 3)
    moved = expected(G, edits={address: 3})
    shows(page, moved, what="an edit")
    until(page, lambda: "mean change" in page.locator("#status").inner_text(), "the change is said")
    assert f"{abs(moved - expected(G)).mean():.1f} of 255" in page.locator("#status").inner_text()
    click(page, "undo")
    shows(page, expected(G), what="undone")
    assert card(page, address).locator("input[type=range]").input_value() == "0"
    click(page, "redo")
    shows(page, moved, what="done again")
    panel(page, "Export")
    saved(page, "#save", tmp_path / "edit.json")
    assert json.loads((tmp_path / "edit.json").read_text())["edits"] == {address: 3}
    picture = PIL.Image.open(saved(page, "#save-image", tmp_path / "saved.png"))
    assert abs(np.asarray(picture, int) - moved).max() <= 1
    click(page, "reset")
    shows(page, expected(G), what="reset")
    upload(page, "load", tmp_path / "edit.json")
    shows(page, moved, what="loaded")
    network = f"--network={folder / 'first.pkl'}"
    run("-m segan_ext edit", network, f"--replay={tmp_path / 'edit.json'}", f"--outdir={tmp_path}")
    assert abs(np.asarray(PIL.Image.open(tmp_path / "seed0000.png"), int) - moved).max() <= 1
    (tmp_path / "other.json").write_text("[]")
    upload(page, "load", tmp_path / "other.json")
    complains(page, "the file is no edit")


def test_each_control_has_pictures_of_less_and_more(page, G):
    address = address_of(page)
    ready = f'.card[data-id="{address}"][data-ready]'
    page.wait_for_selector(ready)
    for end, amount in ((".minus", -3), (".plus", 3)):
        shows(page, expected(G, edits={address: amount}), f"{ready} {end}", what=f"the picture of {amount}")
    write(page, "seed", 8)
    shows(page, expected(G, 8, edits={address: -3}), f"{ready} .minus", what="renewed for another seed")
    card(page, address).locator(".plus").click()
    shows(page, expected(G, 8, edits={address: 3}), what="a click moves the slider there")
    other = address_of(page, 1)
    shows(
        page, expected(G, 8, edits={address: 3, other: 3}), f'.card[data-id="{other}"] .plus', what="all others follow"
    )


def test_search_layers_and_keyboard(page, G):
    page.keyboard.press("/")
    page.keyboard.type("L2.N1")
    until(page, lambda: address_of(page).startswith("L2.N1"), "found by address")
    labels = [address_of(page, i) for i in range(12)]
    assert len(set(labels)) == 12 and all(label.startswith("L2.N1") for label in labels)
    card(page, 3).locator("input[type=range]").focus()
    for _ in range(5):
        page.keyboard.press("ArrowRight")
    shows(page, expected(G, edits={labels[3]: 0.5}), what="arrow keys")
    page.locator("#search").fill("")
    page.locator("#layer").select_option("L1.N0")
    until(page, lambda: page.locator('.card[data-id^="L1.N0"]').count() == 12, "the layer's")
    assert address_of(page) == labels[3]  # what is moved stays at hand
    page.locator("#search").fill("nothing like it")
    until(page, lambda: page.locator(".card").count() == 1, "nothing but what is moved")


def test_what_moves_a_place_comes_first(page, G, folder):
    """A class where there is an extractor, the neighbourhood of the pixel where there is none"""
    page.locator("#stage").click(position=dict(x=20, y=20))
    page.wait_for_selector("#cards[data-sorted]")
    name = page.locator("#cards").get_attribute("data-sorted")
    assert name in CLASSES and page.locator(".chip[aria-pressed=true]").inner_text().strip() == name
    labels = labels_of(G, folder)
    assert share(G, address_of(page), labels == CLASSES.index(name)) > share(
        G, address_of(page, page.locator(".card").count() - 1), labels == CLASSES.index(name)
    )
    page.keyboard.press("Escape")
    until(page, lambda: not page.locator(".chip[aria-pressed=true]").count(), "forgotten")
    page.locator("#network").select_option(KNOWN.name)
    until(page, lambda: not page.locator(".chip").count(), "no classes")
    page.locator("#stage").focus()
    page.keyboard.press("ArrowRight")
    page.keyboard.press("Enter")
    page.wait_for_selector('#cards[data-sorted="this place"]')


def labels_of(G, folder):
    extractor = open_extractor(folder / "linear.safetensors", G)
    return extractor.labels(FeatureHooks(G)(draw_ws(G, 1, truncation_psi=0.7), noise_mode="const")[1], 32)[0].numpy()


def share(G, address, mask):
    """How much of what a control moves is inside a mask"""
    change = abs(expected(G, edits={address: 3}) - expected(G, edits={address: -3})).mean(axis=2)
    return change[mask].mean() ** 2 / (change[mask].mean() + change[~mask].mean())


def test_before_and_after_by_key_and_wipe(page, G):
    address = slide(page, 0, 6)
    after, before = expected(G, edits={address: 6}), expected(G)
    shows(page, after)
    page.locator("#stage").focus()
    page.keyboard.down("b")
    shows(page, before, "#before", what="before, while the key is held")
    assert page.locator("#badge").is_visible()
    page.keyboard.up("b")
    until(page, lambda: not page.locator("#before").is_visible(), "after again")
    page.keyboard.press("w")
    page.locator("#wipe").fill("50")
    shows(page, before, "#before")
    page.mouse.move(5, 5)
    shown = PIL.Image.open(io.BytesIO(page.locator("#stage").screenshot())).convert("RGB")
    side = shown.width / 32
    at = lambda x, y: np.asarray(shown.getpixel((int((x + 0.5) * side), int((y + 0.5) * side))), int)
    for y in (8, 16, 24):
        assert abs(at(8, y) - before[y, 8]).max() <= 3 and abs(at(24, y) - after[y, 24]).max() <= 3


def test_pins_history_and_comparison(page, G):
    address = slide(page, 0, 3)
    shows(page, expected(G, edits={address: 3}))
    click(page, "pin")
    write(page, "seed", 3)
    shows(page, expected(G, 3, edits={address: 3}))
    until(page, lambda: page.locator("#history .thumb").count() == 3, "three steps")
    shows(page, expected(G), "#history", 0, what="the first step's picture")
    page.locator("#history .thumb").first.click()
    shows(page, expected(G), what="back to the first step")
    page.locator("#history .thumb").nth(2).click()
    shows(page, expected(G, 3, edits={address: 3}), what="on to the last")
    page.keyboard.press("c")
    shows(page, expected(G, edits={address: 3}), "#board-images", 0, what="the pin, large")
    shows(page, expected(G, 3, edits={address: 3}), "#board-images", 1, what="beside the image of now")
    page.get_by_role("button", name="Use this").click()
    shows(page, expected(G, edits={address: 3}), what="the pin is taken")
    page.get_by_role("button", name="Remove pin 1").click()
    assert not page.locator("#pins .thumb").count()


def test_a_seed_is_picked_from_the_sheet_and_mixed_in(page, G):
    panel(page, "Seeds")
    shows(page, expected(G, 4), '#sheet [data-seed="4"]', what="a seed's small picture")
    page.locator('#sheet [data-seed="4"]').drag_to(page.locator("#stage"))
    page.locator("#drop-menu").get_by_role("button", name="coarse").click()
    first, other = (ws_of_seeds(G, [s], 0.7) for s in (0, 4))
    first[:, :3] = other[:, :3]
    assert style_groups(G)["coarse"] == [0, 1, 2]
    shows(page, expected(G, ws=first), what="mixed by dragging")
    assert "Mixed: layers 0, 1, 2 of seed 4" in page.locator("#origin").inner_text()
    until(page, lambda: page.locator("#history .thumb").count() == 2, "its step")
    assert "with layers 0, 1, 2 of seed 4" in page.locator("#history .thumb").last.get_attribute("title")
    panel(page, "Mix")
    shows(page, expected(G, 4), "#mix-image", what="what is mixed in")
    page.locator("#mix-layers input").nth(5).check()
    first[:, 5] = other[:, 5]
    shows(page, expected(G, ws=first), what="a further layer")
    panel(page, "Seeds")
    page.locator("#sheet-on").click()
    shows(page, expected(G, 30), '#sheet [data-seed="30"]', what="the sheet has the seeds themselves")
    click(page, "reset")
    shows(page, expected(G), what="Reset takes the mixing out")
    click(page, "undo")
    shows(page, expected(G, ws=first), what="mixed again")
    page.locator("#sheet-back").click()
    page.locator('#sheet [data-seed="7"]').click()
    shows(page, expected(G, 7), what="a click shows that seed")


def test_any_image_is_mixed_in(page, G):
    """A pin of another truncation has no seed to stand for it."""
    page.locator("#psi").fill("1")
    shows(page, expected(G, psi=1))
    page.keyboard.press("p")
    write(page, "seed", 2)
    page.locator("#psi").fill("0.5")
    shows(page, expected(G, 2, 0.5))
    page.locator("#pins .thumb").focus()
    page.keyboard.press("m")
    page.locator("#drop-menu").get_by_role("button", name="fine").click()
    ws = ws_of_seeds(G, [2], 0.5)
    fine = style_groups(G)["fine"]
    ws[:, fine] = ws_of_seeds(G, [0], 1)[:, fine]
    shows(page, expected(G, ws=ws), what="mixed")
    until(page, lambda: page.locator('#history [title*="a mix of images"]').count(), "the history says what it is")
    page.locator("#stage").focus()
    page.keyboard.press("z")
    shows(page, expected(G, 2, 0.5), what="undone")


def test_changes_stay_inside_a_class(page, G, folder):
    address = slide(page, 0, 5)
    everywhere = expected(G, edits={address: 5})
    shows(page, everywhere)
    labels = labels_of(G, folder)
    index = min(range(3), key=lambda k: abs((labels == k).mean() - 0.5))
    mask = labels == index
    page.get_by_text("Change only inside").click()
    page.locator("#inside").get_by_text(CLASSES[index]).click()
    until(page, lambda: differs(page, everywhere), "the change is limited")
    change = abs(pixels(page) - expected(G)).max(axis=2)
    assert change[mask].max() > 1 and change[mask].mean() > change[~mask].mean()


def test_a_link_shows_the_same_image(page, browser, url, G):
    write(page, "seed", 9)
    address = slide(page, 0, -2.5)
    shows(page, expected(G, 9, edits={address: -2.5}))
    until(page, lambda: "move=" in page.url, "the address follows")
    other = opened(browser, url, page.url.removeprefix(url))
    shows(other, expected(G, 9, edits={address: -2.5}), what="the link's image")
    other.reload()
    shows(other, expected(G, 9, edits={address: -2.5}), what="a reload keeps it")
    other.context.close()


@pytest.mark.parametrize(
    "values, sentence, seed, edits",
    [
        ("network=first.pkl&seed=1&move=L9.N9.D9:1&move=L1.N0.D0:3", "has no layer L9.N9", 1, {"L1.N0.D0": 3}),
        ("network=first.pkl&seed=1&move=L1.N0.D0:3&move=smile:1", "the slider smile is not known", 1, {"L1.N0.D0": 3}),
        ("network=other.pkl&seed=1&move=L1.N0.D0:3", "the network other.pkl is not open here", 1, {}),
        ("network=first.pkl&seed=1&psi=much&class=9", "truncation is a number", 1, {}),
        ("network=first.pkl&seed=1&w=????", "its w is", 1, {}),
        ("network=first.pkl&seed=1&inside=hat", "no extractor knows the class hat", 1, {}),
    ],
)
def test_a_link_with_what_is_not_here_shows_the_rest(browser, url, G, values, sentence, seed, edits):
    page = opened(browser, url, f"/#{values}")
    complains(page, sentence)
    shows(page, expected(G, seed, edits=edits), what="the rest")
    page.wait_for_selector(".card[data-ready]")
    assert not page.errors
    page.context.close()


@pytest.mark.slow
def test_a_server_that_ends_is_said_until_it_is_back_and_forgets_sliders_aloud(browser, folder, tmp_path, G):
    first = Engine([str(folder / "first.pkl")]).network("first.pkl")
    (tmp_path / "sliders.json").write_text(json.dumps(as_file([direction(first.G, "toString")])))
    with contextlib.closing(served(f"--network={folder / 'first.pkl'}")) as addresses:
        url = next(addresses)
        page = opened(browser, url)
        panel(page, "Export")
        upload(page, "load", tmp_path / "sliders.json")
        complains(page, "Loaded toString")
        panel(page, "Controls")
        slide(page, "toString", 1)
        address = slide(page, "L1.N0.D0", 2)
        until(page, lambda: "2 sliders moved · mean change" in page.locator("#status").inner_text(), "both moved")
    write(page, "seed", 4)
    page.get_by_text("The server does not answer").wait_for()
    until(page, lambda: "no sliders" not in page.locator("#status").inner_text(), "two are moved")
    with contextlib.closing(served(f"--network={folder / 'first.pkl'}", f"--port={url.rpartition(':')[2]}")) as again:
        next(again)
        page.get_by_text("The server does not answer").wait_for(state="hidden")
        complains(page, "the slider toString is not known here")
        shows(page, expected(G, 4, edits={address: 2}), what="the rest")
        click(page, "undo")
        shows(page, expected(G, edits={address: 2}), what="the history is kept, without the slider")
    assert not page.errors
    page.context.close()


def direction(G, name, size=0.1):
    """One that moves every layer somewhere"""
    offsets = {layer: torch.full([subspace.dims], size) for layer, subspace in G.subspaces().items()}
    return NamedDirection(name, offsets, low=-2.0, high=2.0)


def test_sliders_of_any_name_and_a_file_that_moves_too_far(page, G, folder, tmp_path):
    names = ["toString", "constructor", "__proto__", "n" * 5000]
    made = Engine([str(folder / "first.pkl")]).network("first.pkl").G
    (tmp_path / "sliders.json").write_text(json.dumps(as_file(direction(made, name) for name in names)))
    (tmp_path / "far.json").write_text(json.dumps(as_file([direction(made, "far", 1e30)])))
    panel(page, "Export")
    upload(page, "load", tmp_path / "far.json")
    complains(page, "far moves images farther than makes sense")
    upload(page, "load", tmp_path / "sliders.json")
    complains(page, "Loaded toString")
    panel(page, "Controls")
    for name in names:
        box = card(page, name).locator("input[type=number]")
        assert box.input_value() == "0" and not card(page, name).evaluate("node => node.classList.contains('moved')")
        assert card(page, name).bounding_box()["height"] < 200
    offsets = direction(made, "__proto__").offsets
    slide(page, "__proto__", 2)
    with torch.no_grad(), G.edited(offsets={layer: 2 * offset for layer, offset in offsets.items()}):
        moved = as_pixels(G.synthesis(ws_of_seeds(G, [0], 0.7), noise_mode="const")[0])
    shows(page, moved, what="its slider moves the image")
    card(page, "__proto__").locator(".back").click()
    shows(page, expected(G), what="and back")


def test_huge_edits_of_values_make_an_image():
    """float32 drops the 1 of "sums to 1" beside numbers from 2^24 on."""
    engine = Engine([str(KNOWN)])
    (name,) = engine.paths
    image = engine.render(View(name, edits=(("hairVariant curly", 9e5), ("hairVariant long", 9e5))))
    assert image.isfinite().all()
    far = engine.network(name).named["hairVariant curly"]
    far = far._replace(offsets={layer: 1e5 * offset for layer, offset in far.offsets.items()})
    assert engine.render(View(name, edits=(("far", 9e5),)), named=dict(far=far)).isfinite().all()


def test_an_error_of_the_server_leaves_no_trace_on_the_page(browser, url, G):
    page = opened(browser, url)
    page.route("**/image", lambda route: route.fulfill(status=500, json=dict(error="a fault of the server")))
    write(page, "seed", 3)
    complains(page, "a fault of the server")
    until(page, lambda: page.locator("#seed").input_value() == "0", "the seed before")
    page.unroute("**/image")
    assert page.locator("#history .thumb").count() == 1
    page.context.close()


def test_fields_show_what_counts(page, G):
    for typed, seed in (("-5", 0), ("99999999999", 4294967295), ("3.7", 4), ("", 0)):
        write(page, "seed", typed)
        assert page.locator("#seed").input_value() == str(seed)
    slide(page, 0, 6)
    slide(page, 0, 99)
    assert card(page, 0).locator("input[type=number]").input_value() == "6"
    panel(page, "Mix")
    write(page, "mix-seed", "-1")
    assert page.locator("#mix-seed").input_value() == "0"
    assert page.locator("#seed").evaluate("node => node.scrollWidth <= node.clientWidth")


def test_a_view_of_latents_says_so_and_any_seed_leaves_it(browser, url, G):
    w = base64.urlsafe_b64encode(random_w(G, 1).float().numpy().tobytes()).decode().rstrip("=")
    page = opened(browser, url, f"/#network=first.pkl&seed=0&w={w}&of=picture")
    shows(page, expected(G, ws=random_w(G, 1).float()[:, None].repeat(1, G.num_ws, 1)), what="the link's latents")
    assert page.locator("#seed").input_value() == "" and page.locator("#psi").is_disabled()
    assert "found for a picture: seed and truncation do not count" in page.locator("#origin").inner_text()
    write(page, "seed", "0")
    shows(page, expected(G), what="seed 0")
    assert page.locator("#psi").is_enabled() and page.locator("#origin").is_hidden()
    page.context.close()


def test_the_first_value_is_named_on_the_cards_of_the_others(page):
    page.locator("#network").select_option(KNOWN.name)
    card(page, "hairVariant curly").wait_for()
    page.locator("#search").fill("glasses")
    until(page, lambda: page.locator(".card").count() == 2, "both controls that lead to glasses")
    assert "left: glasses" in card(page, "eyesVariant open").inner_text()


def test_a_search_without_hits_and_a_class_that_is_not_there_are_said(page, G, folder):
    slide(page, 0, 2)
    page.locator("#search").fill("nothing like it")
    until(page, lambda: page.locator("#none").is_visible(), "nothing found")
    assert page.locator(".card").count() == 1  # what is moved
    page.route("**/api/labels", lambda route: route.fulfill(json=NO_CLASS))
    page.locator(".chip").first.click()
    complains(page, f"This image has no {CLASSES[0]}")


NO_CLASS = dict(side=1, labels=base64.b64encode(b"\x01").decode(), classes=list(CLASSES))


def test_pictures_of_another_state_are_marked(page, G):
    page.wait_for_selector(".card[data-ready]")
    page.route("**/api/thumbs", lambda route: None)  # never answered
    write(page, "seed", 5)
    page.locator(".card.stale").first.wait_for()
    page.get_by_text("Change only inside").click()
    page.locator("#inside").get_by_text(CLASSES[1]).click()
    page.get_by_text("Change only inside").click()
    assert CLASSES[1] in page.locator("#inside-box summary").inner_text()


LIVE = """() => {
  const make = URL.createObjectURL.bind(URL), drop = URL.revokeObjectURL.bind(URL);
  window.live = new Set();
  URL.createObjectURL = each => { const url = make(each); live.add(url); return url; };
  URL.revokeObjectURL = url => { live.delete(url); drop(url); };
}"""


def test_the_browser_gives_back_its_pictures(browser, url, tmp_path, G):
    context = browser.new_context()
    context.add_init_script(f"({LIVE})()")
    page = context.new_page()
    page.goto(url)
    page.wait_for_selector(".card[data-ready]")
    page.evaluate(f"({MOVES})(170)")
    assert page.evaluate("live.size") <= 160
    panel(page, "Photo")
    before = page.evaluate("live.size")
    for i in range(3):
        PIL.Image.fromarray(expected(G, i).astype(np.uint8)).save(tmp_path / f"{i}.png")
        page.locator("#photo").set_input_files(tmp_path / f"{i}.png")
        shows(page, expected(G, i), "#photo-shown img", 0)
    assert page.evaluate("live.size") <= before + 1
    context.close()


MOVES = """async count => {
  const slider = document.querySelector(".card input[type=range]"), stage = document.querySelector("#stage");
  slider.step = "any";
  for (let i = 0; i < count; i++) {
    const old = stage.dataset.shown;
    slider.value = +slider.min + (slider.max - slider.min) * ((0.1 + i * 0.618034) % 1);
    slider.dispatchEvent(new Event("input", {bubbles: true}));
    while (stage.dataset.shown === old) await new Promise(requestAnimationFrame);
  }
}"""


def test_files_are_called_after_what_they_show(url):
    name = lambda path, **more: asked_file(url, path, ASKED | more)
    assert name("/api/picture") == "first-seed0000.png" and name("/api/save") == "first-seed0000-edit.json"
    assert name("/api/sheet", seeds="0", file=True) == "first-seeds.png"
    assert name("/api/walk", id="L1.N0.D0") == "first-L1-N0-D0-seed0000.png"
    view = VIEW | dict(w="00" * 48, source="picture")
    assert name("/api/picture", view=view) == "first-picture.png"


def asked_file(url, path, data):
    """The name under which a browser saves what comes"""
    connection = http.client.HTTPConnection(url.removeprefix("http://"))
    connection.request("POST", path, json.dumps(data).encode(), {"Content-Type": "application/json"})
    return re.search('filename="(.*)"', connection.getresponse().headers["Content-Disposition"])[1]


def test_grey_conditional_and_plain_generators(page, grey):
    G_plain = plain()
    page.locator("#network").select_option("grey.pkl")
    shows(page, expected(grey), what="another network")
    write(page, "class", 2)
    shows(page, expected(grey, class_idx=2), what="another class")
    address = slide(page, 0, 4)
    shows(page, expected(grey, class_idx=2, edits={address: 4}), what="an edit")
    shows(page, expected(grey, class_idx=2, edits={address: -3}), f'.card[data-id="{address}"] .minus')
    click(page, "undo")
    click(page, "undo")
    shows(page, expected(grey), what="a change of the class is undone")
    assert page.locator("#class").input_value() == "0"
    page.locator("#network").select_option("plain.pkl")
    shows(page, as_pixels(G_plain.synthesis(ws_of_seeds(G_plain, [0], 0.7), noise_mode="const")[0]), what="a third")
    click(page, "undo")
    shows(page, expected(grey), what="back to the network before")


def test_a_generator_without_subspaces_has_those_of_sefa(page, tmp_path, folder):
    """Its strongest direction of the coarse layers, the ws that they read moved by two deviations of w along it."""
    G, rows = plain(), [0, 1, 2]
    weights = [layer.affine.weight for layer in (G.synthesis.b4.conv1, G.synthesis.b4.torgb)]
    weights += [layer.affine.weight for layer in (G.synthesis.b8.conv0, G.synthesis.b8.conv1)]
    A = torch.cat(weights).double()
    d = torch.linalg.svd(A / A.norm(dim=1, keepdim=True)).Vh[0]
    d = (d * d[d.abs().argmax()].sign() * (random_w(G, 1000).double() @ d).std()).float()
    page.locator("#network").select_option("plain.pkl")
    until(page, lambda: "coarse 1" in page.locator("#cards").inner_text(), "the first control")
    slide(page, "coarse 1", 2)
    ws = ws_of_seeds(G, [0], 0.7)
    ws[:, rows] += 2 * d
    moved = as_pixels(G.synthesis(ws, noise_mode="const")[0])
    shows(page, moved, what="the image of SeFa's direction")
    panel(page, "Export")
    saved(page, "#save", tmp_path / "edit.json")
    network = f"--network={folder / 'plain.pkl'}"
    run("-m segan_ext edit", network, f"--replay={tmp_path / 'edit.json'}", f"--outdir={tmp_path}")
    assert abs(np.asarray(PIL.Image.open(tmp_path / "seed0000.png"), int) - moved).max() <= 1


def test_what_was_named_last_comes_first(folder):
    opened = Engine([str(folder / "plain.pkl")]).network("plain.pkl")
    learned = dict(glasses=opened.named["fine 1"]._replace(name="glasses"))
    assert opened.search(named=learned)[:2] == ["glasses", "coarse 1"]


def test_keys_and_the_link_that_is_copied(page, browser, url, G):
    page.context.grant_permissions(["clipboard-read", "clipboard-write"])
    page.locator("#stage").focus()
    page.keyboard.press("]")
    shows(page, expected(G, 1), what="the next seed")
    page.keyboard.press("[")
    shows(page, expected(G, 0), what="the one before")
    page.keyboard.press("r")
    until(page, lambda: page.locator("#seed").input_value() not in ("0", "1"), "a random seed")
    shows(page, expected(G, int(page.locator("#seed").input_value())), what="its image")
    with page.expect_download() as download:
        page.keyboard.press("s")
    assert abs(np.asarray(PIL.Image.open(download.value.path()), int) - pixels(page)).max() <= 1
    panel(page, "Export")
    click(page, "copy-link")
    complains(page, "The link is copied")
    link = page.evaluate("navigator.clipboard.readText()")
    other = opened(browser, url, link.removeprefix(url))
    shows(other, pixels(page), what="the link's image")
    other.context.close()


def test_names_read_as_people_read_them(page):
    assert readable("hairVariant curly", "curly") == ("hair", "curly")
    assert readable("hairVariant sideComed", "sideComed") == ("hair", "side combed")
    assert readable("clothingColor #e24553", "#e24553") == ("clothing colour", "#e24553")
    assert readable("translateX") == ("translate x", "") and readable("My smile", "yes") == ("My smile", "")
    page.locator("#network").select_option(KNOWN.name)
    until(page, lambda: "hair: curly" in page.locator("#cards").inner_text(), "a name and its value")
    swatch = card(page, "clothingColor #e24553").locator("label .swatch")
    assert swatch.evaluate("node => getComputedStyle(node).backgroundColor") == "rgb(226, 69, 83)"


def near(frame, image):
    """Whether an image stands below the label of a film's frame, as well as a codec allows"""
    frame, side = np.asarray(frame, int), image.shape[0]
    scale = frame.shape[1] // side
    return abs(frame[-scale * side :, : scale * side][scale // 2 :: scale, scale // 2 :: scale] - image).mean() < 8


def frames_of(path):
    """Pictures of a video"""
    frames = imageio_ffmpeg.read_frames(str(path))
    size = next(frames)["size"]
    return [PIL.Image.frombytes("RGB", size, bytes(frame)) for frame in frames]


@pytest.mark.slow
def test_strip_film_and_several_seeds(page, G, tmp_path):
    address = slide(page, 0, 2)
    shows(page, expected(G, edits={address: 2}))
    panel(page, "Export")
    strip = PIL.Image.open(saved(page, "[data-walk=png]", tmp_path / "strip.png"))
    assert strip.width > 9 * 64 and page.locator("#made img").is_visible()
    steps = [expected(G, edits={address: x}) for x in np.linspace(-4, 4, 25)]
    film = PIL.Image.open(saved(page, "[data-walk=gif]", tmp_path / "walk.gif"))
    moving = [frame.convert("RGB") for frame in PIL.ImageSequence.Iterator(film)]
    for frames in (moving, frames_of(saved(page, "[data-walk=mp4]", tmp_path / "walk.mp4"))[:48]):
        assert len(frames) == 48 and frames[0].width == 384  # there and back
        assert all(map(near, frames, steps + steps[-2:0:-1])) and not near(frames[0], steps[-1])
    panel(page, "Seeds")
    write(page, "sheet-seeds", "3,4")
    page.locator("#sheet-edited").check()
    shows(page, expected(G, 4, edits={address: 2}), '#sheet [data-seed="4"]', what="with the sliders")
    both = np.asarray(PIL.Image.open(saved(page, "#sheet-save", tmp_path / "seeds.png")), int)
    right = both[-32 * 3 :, -32 * 3 :][1::3, 1::3]
    assert abs(right - expected(G, 4, edits={address: 2})).max() <= 1
    write(page, "sheet-seeds", "many")
    complains(page, "no number or range")


DROP = """([node, data]) => {
  const bytes = Uint8Array.from(atob(data), c => c.charCodeAt(0)), transfer = new DataTransfer();
  transfer.items.add(new File([bytes], "dropped.png", {type: "image/png"}));
  node.dispatchEvent(new DragEvent("drop", {dataTransfer: transfer, bubbles: true, cancelable: true}));
}"""


def projected(page, space):
    """The image that was found for the chosen picture, as the panel shows it"""
    page.locator("#space").select_option(space)
    page.locator("#photo-note").evaluate("node => { node.textContent = '' }")
    click(page, "project")
    until(page, lambda: "Found, on average" in page.locator("#photo-note").inner_text(), "projected", 120)
    return pixels(page, "#photo-shown img", 1)


@pytest.mark.slow
def test_a_picture_is_projected_and_keeps_its_sliders(page, G):
    target, picture, start = expected(G, 77, psi=1.5), io.BytesIO(), pixels(page)
    PIL.Image.fromarray(target.astype(np.uint8)).save(picture, "PNG")
    panel(page, "Photo")
    click(page, "project")
    complains(page, "choose a picture first")
    drop = [page.locator("#photo-drop").element_handle(), base64.b64encode(picture.getvalue()).decode()]
    page.evaluate(DROP, drop)
    shows(page, target, "#photo-shown img", 0, what="the picture that was dropped")
    found = projected(page, "w")
    shows(page, found, what="the image that was found")
    assert page.locator("#photo-shown figure:visible").count() == 3
    assert abs(pixels(page, "#photo-shown img", 2) - abs(found - target)).max() <= 2
    # the page shows whole numbers, the note is measured before they are rounded
    noted = float(re.search(r"([0-9.]+) of 255", page.locator("#photo-note").inner_text())[1])
    assert noted == pytest.approx(abs(found - target).mean(), abs=0.15)
    assert abs(found - target).mean() < 0.9 * abs(start - target).mean()
    until(page, lambda: "w=" in page.url, "the address follows")
    w = np.frombuffer(base64.urlsafe_b64decode(page.url.partition("&w=")[2] + "=="), np.float32)
    assert w.size == G.w_dim
    panel(page, "Controls")
    address = slide(page, 0, 2)
    ws = torch.from_numpy(w.copy()).expand(1, G.num_ws, -1)
    shows(page, expected(G, ws=ws, edits={address: 2}), what="its slider is moved")
    panel(page, "Photo")
    each_layer = projected(page, "w+")
    assert abs(each_layer - target).mean() < 0.9 * abs(start - target).mean()
    shows(page, expected_of_link(page, G, {address: 2}), what="with the slider as it was")


def expected_of_link(page, G, edits):
    """The image of the ws in the page's address"""
    until(page, lambda: len(page.url) > 4 * G.num_ws * G.w_dim, "the address has all ws")
    ws = np.frombuffer(base64.urlsafe_b64decode(page.url.partition("&w=")[2] + "=="), np.float32)
    return expected(G, ws=torch.from_numpy(ws.copy()).reshape(1, G.num_ws, -1), edits=edits)


@pytest.mark.slow
def test_a_projection_is_cancelled(page, G, tmp_path):
    PIL.Image.fromarray(expected(G, 77).astype(np.uint8)).save(tmp_path / "target.png")
    start = pixels(page)
    panel(page, "Photo")
    page.locator("#photo").set_input_files(tmp_path / "target.png")
    page.locator("#steps").fill("1000")
    click(page, "project")
    until(page, lambda: "projecting" in page.locator("#photo-note").inner_text(), "it goes on")
    click(page, "project-cancel")
    until(page, lambda: differs(page, start), "stopped, with what there was")
    page.locator("#network").select_option("second.pkl")
    until(page, lambda: "network=second" in page.url, "the other network")
    click(page, "project")
    until(page, lambda: "learning to read" in page.locator("#photo-note").inner_text(), "its images are read first")
    click(page, "project-cancel")
    complains(page, "stopped before there was anything")
    (tmp_path / "no.png").write_bytes(b"no picture")
    page.locator("#photo").set_input_files(tmp_path / "no.png")
    click(page, "project")
    complains(page, "the file cannot be opened as a picture")


def test_what_becomes_of_a_photo_is_said(page, tmp_path):
    """One that no browser shows, and one that the network cannot make"""
    note = lambda: page.locator("#photo-note").inner_text()
    panel(page, "Photo")
    (tmp_path / "photo.heic").write_bytes(b"no picture for a browser")
    page.locator("#photo").set_input_files(tmp_path / "photo.heic")
    until(page, lambda: "This browser cannot show photo.heic" in note(), "said")
    assert not page.locator("#photo-shown").is_visible()  # no broken icon
    pixels_ = np.random.RandomState(0).randint(0, 2, [32, 32, 3]).astype(np.uint8) * 255
    PIL.Image.fromarray(pixels_).save(tmp_path / "noise.png")
    page.locator("#photo").set_input_files(tmp_path / "noise.png")
    page.locator("#steps").fill("10")
    click(page, "project")
    until(page, lambda: "This generator cannot make your picture" in note(), "said", 120)
    assert page.locator("#photo-shown figure:visible").count() == 3


def test_the_page_says_what_it_is_and_what_its_words_mean(page):
    assert "Change an image that a neural network makes" in page.locator("p.purpose").inner_text()
    page.keyboard.press("?")
    until(page, lambda: page.locator("dialog[open]").count() == 1, "the list of keys and words")
    words = page.locator("dialog[open]").inner_text()
    assert all(word in words for word in ("ψ", "σ", "S", "Back"))


def test_a_second_projection_ends_the_first_with_a_word(folder, tmp_path, G):
    PIL.Image.fromarray(expected(G, 77).astype(np.uint8)).save(tmp_path / "target.png")
    api = Api(Engine([str(folder / "first.pkl")]), Sessions("first.pkl"))
    begin = lambda steps: api.project(tmp_path / "target.png", dict(session="a" * 16, network="first.pkl", steps=steps))
    first = begin(1000)
    next(first)
    second = begin(2)
    assert "another picture is being projected" in [*first][-1]["error"]
    assert [*second][-1]["view"]["source"] == "picture"
    third = begin(1000)
    while next(third)["what"] != "projecting":
        pass
    api.cancel(dict(session="a" * 16))
    assert [*third][-1]["view"]  # what there was


def test_messages_are_not_pythons(url):
    octets, where = {"Content-Type": "application/octet-stream"}, "/api/{}?session=0123456789abcdef&network=first.pkl"
    answers = [asked(url, "/image", content) for content in (b"{", b"[" * 10**5, b'{"session": "\xff"}', b"[]")]
    answers += [asked(url, where.format("load"), content, octets) for content in (b"[" * 10**5, b"{", b"\xff")]
    answers += [asked(url, where.format("project") + "&" + more, b"no", octets) for more in ("steps=x", "class_idx=x")]
    answers += [asked(url, "/api/search", ASKED | dict(network="first.pkl", layer=each)) for each in ("L", "x")]
    answers += [asked(url, "/api/search", ASKED | dict(network="first.pkl", count="x"))]
    answers += [asked(url, "/api/mix", ASKED | dict(other=3)), asked(url, "/api/thumbs", ASKED | dict(ids=[""]))]
    answers += [asked(url, "/api/sheet", ASKED | dict(seeds="x")), asked(url, "/api/fit", ASKED | dict(view=3))]
    answers += [asked(url, f"/api/{name}", dict()) for name in Api.QUESTIONS]
    for status, content in answers:
        sentence = json.loads(content)["error"]
        assert status == 400 and not re.search(
            r"literal|recursion|line 1|fromhex|codec|'str'|NoneType|KeyError", sentence
        )


def test_two_browsers_do_not_mix(browser, url, G):
    one, two = opened(browser, url), opened(browser, url)
    write(one, "seed", 11)
    write(two, "seed", 12)
    address = slide(one, 0, 2)
    slide(two, 0, -2)
    shows(one, expected(G, 11, edits={address: 2}))
    shows(two, expected(G, 12, edits={address: -2}))
    click(one, "undo")
    shows(one, expected(G, 11))
    shows(two, expected(G, 12, edits={address: -2}))
    for page in (one, two):
        page.context.close()


def test_a_phone_shows_it_without_scrolling_sideways(browser, url):
    page = opened(browser, url, width=390)
    for name in ("Controls", "Seeds", "Mix", "Photo", "Export"):
        panel(page, name)
        assert page.evaluate("document.documentElement.scrollWidth") <= 391, name
    panel(page, "Controls")
    card(page, 9).scroll_into_view_if_needed()
    box = page.locator("#stage").bounding_box()
    assert box["y"] >= 0 and box["y"] + box["height"] < 600  # the image is in view beside any slider
    page.goto(f"{url}/studio/")
    for name in ("Edit", "Train"):
        page.get_by_role("tab", name=name).click()
        page.wait_for_timeout(700)
        assert page.evaluate("document.documentElement.scrollWidth") <= 391
    page.context.close()


AXE = next(filter(Path.exists, map(Path, [os.environ.get("SEGAN_AXE", "-"), "node_modules/axe-core/axe.min.js"])), None)


with_axe = pytest.mark.skipif(AXE is None, reason="`npm install axe-core`, or SEGAN_AXE=axe.min.js, brings the checker")


def violations(page, least="minor"):
    """What axe-core finds on what is shown, from this impact on"""
    impacts = ("minor", "moderate", "serious", "critical")
    page.evaluate(AXE.read_text())
    found = page.evaluate("axe.run()")["violations"]
    found = [each for each in found if impacts.index(each["impact"] or "minor") >= impacts.index(least)]
    return [(each["id"], each["nodes"][0]["html"][:200]) for each in found]


VIEWS = [(1400, "light"), (400, "dark")]
VIEWS += [pytest.param(width, scheme, marks=pytest.mark.slow) for width, scheme in ((1400, "dark"), (400, "light"))]


@with_axe
@pytest.mark.parametrize("width, scheme", VIEWS)
def test_axe_finds_nothing(browser, url, scheme, width):
    page = opened(browser, url, width=width, color_scheme=scheme)
    slide(page, 0, 2)
    page.keyboard.press("p")
    for name in ("Controls", "Seeds", "Mix", "Photo", "Export"):
        panel(page, name)
        page.wait_for_timeout(600)
        assert not violations(page), name
    for key in ("?", "c"):
        page.keyboard.press(key)
        page.wait_for_timeout(300)
        assert not violations(page), f"the dialog of {key}"
        page.keyboard.press("Escape")
    page.context.close()


@with_axe
@pytest.mark.parametrize("width, scheme", VIEWS)
def test_axe_finds_nothing_serious_in_the_studio(browser, url, scheme, width):
    page = opened(browser, url, "/studio/", ready="button[role=tab]", width=width, color_scheme=scheme)
    for name in ("Name", "Edit", "Train"):
        page.get_by_role("tab", name=name).click()
        page.wait_for_timeout(1000)
        assert not violations(page, "serious"), name
    page.context.close()


def test_a_studio_that_cannot_be_opened_says_so(browser, folder, tmp_path):
    (tmp_path / "gradio.py").write_text("raise ImportError('there is <no> gradio')")
    with contextlib.closing(served(f"--network={folder / 'first.pkl'}", PYTHONPATH=str(tmp_path))) as addresses:
        page = opened(browser, next(addresses), "/studio/", ready="[role=alert]")
        assert "cannot be opened: there is <no> gradio." in page.locator("main").inner_text()
        page.get_by_text("Back to the page").click()
        page.wait_for_selector("#stage[data-shown]")
        page.context.close()


# ---------------------------------------------------------------------------------------------------------------------
# The server

VIEW = dict(network="first.pkl", seed=0, psi=0.7, cutoff=None, noise="const", class_idx=0, edits={}, mix_seed=1)
VIEW |= dict(mix_layers=[], inside=[], w=None)
ASKED = dict(session="0123456789abcdef", page="a", number=1, view=VIEW)


def asked(url, path, data, headers={}):
    """(status, content) of a request that no page would send"""
    connection = http.client.HTTPConnection(url.removeprefix("http://"))
    content = data if isinstance(data, bytes) else json.dumps(data).encode()
    connection.request("POST", path, content, {"Content-Type": "application/json"} | headers)
    answer = connection.getresponse()
    return answer.status, answer.read()


@pytest.mark.parametrize(
    "change, sentence",
    [
        (dict(psi=float("nan")), "truncation lies between"),
        (dict(seed=-1), "seed: a whole number from 0 to 4294967295"),
        (dict(seed="x"), "seed: a whole number"),
        (dict(seed=1.5), "seed: a whole number"),
        (dict(psi="much"), "truncation is a number"),
        (dict(psi=None), "truncation is a number"),
        (dict(source="elsewhere"), "the source of its w is one of"),
        (dict(network="../secret.pkl"), "there is no network"),
        (dict(edits={"L9.N9.D9": 1}), "has no layer"),
        (dict(edits={"L1.N0.D0": "much"}), "no amount that makes sense"),
        (dict(edits=[1]), "of the wrong kind"),
        (dict(mix_layers=[99]), "layers to mix"),
        (dict(mix_layers=3), "of the wrong kind"),
        (dict(inside=["hat"], edits={"L1.N0.D0": 1}), "no class 'hat'"),
        (dict(w="ff" * 4), "its w is of another size"),
        (dict(w="zz"), "its w is not hexadecimal"),
        (dict(w="0000c07f" * 12), "not finite"),
        (dict(cutoff=1.5), "truncated layers"),
        (dict(class_idx=1), "class: a whole number from 0 to 0"),
    ],
)
def test_an_impossible_view_is_a_400_with_a_sentence(url, change, sentence):
    status, content = asked(url, "/image", ASKED | dict(view=VIEW | change))
    assert status == 400 and sentence in json.loads(content)["error"]


def test_requests_from_elsewhere_are_refused(url):
    assert asked(url, "/image", ASKED)[0] == 200
    assert asked(url, "/image", ASKED, {"Host": "evil.example"})[0] == 403
    assert asked(url, "/image", ASKED, {"Origin": "http://evil.example"})[0] == 403
    assert asked(url, "/image", ASKED, {"Content-Type": "text/plain"})[0] == 400
    assert asked(url, "/studio/", b"", {"Host": "evil.example"})[0] == 403
    for content in (b"[" * 10**5, b"[]", b"{", b'{"session": "\xff"}', b" " * 2**21):
        status, said = asked(url, "/image", content)
        assert status == 400 and json.loads(said)["error"]
    octets = {"Content-Type": "application/octet-stream"}
    where = "/api/load?session=0123456789abcdef&network=first.pkl"
    status, said = asked(url, where, b"x" * (20 * 2**20 + 1), octets)
    assert status == 400 and "larger than 20 MB" in json.loads(said)["error"]
    status, said = asked(url, where, b"\x80\x04c__builtin__\nexit\n.", octets)
    assert status == 400 and "the file is no edit" in json.loads(said)["error"]
    assert asked(url, "/static/../server.py", b"")[0] in (404, 405)


def test_only_the_newest_move_of_a_page_is_rendered(folder):
    engine = Engine([str(folder / "first.pkl")])
    api = Api(engine, Sessions("first.pkl"))
    answer = lambda **values: api.image(ASKED | values).status_code
    assert answer(number=5) == 200
    assert answer(number=4) == 204  # superseded
    assert answer(number=4, page="b") == 200  # another page of the same browser
    assert answer(number=4, session="f" * 16) == 200  # another browser
    assert answer(number=6) == 200


def test_names_that_are_not_this_machines_are_refused(folder):
    """0.0.0.0 too: a name that another site points here (DNS rebinding) is none of an address in numbers."""
    engine = Engine([str(folder / "first.pkl")])
    machine = socket.gethostname().lower()
    for local, allowed, host, origin, let_in in (
        (False, (), "192.168.1.7:7860", "http://192.168.1.7:7860", True),
        (False, (), "[::1]:7860", None, True),
        (False, (), f"{machine}:7860", None, True),
        (False, (), "evil.example:7860", "http://evil.example:7860", False),
        (True, (), "192.168.1.7", None, False),
        (True, ("Demo.Example",), "demo.example", "https://demo.example", True),
        (True, ("demo.example",), "127.0.0.1:7860", "https://demo.example", True),  # a proxy that keeps the host
        (True, ("demo.example",), "127.0.0.1:7860", "https://evil.example", False),
        (True, ("*.demo.example",), "a1.demo.example", "https://a1.demo.example", True),
        (True, ("*.demo.example",), "evildemo.example", None, False),
        (True, ("demo.example",), "localhost", "null", False),
    ):
        headers = [(b"host", host.encode())] + ([(b"origin", origin.encode())] if origin else [])
        scope = dict(type="http", method="GET", path="/", headers=headers, query_string=b"", root_path="")
        assert (answered(application(engine, local, allowed), scope)[0]["status"] == 200) == let_in, (host, origin)


def answered(app, scope):
    """The messages that an ASGI application sends; in a thread, as Playwright has the event loop of this one"""
    sent, messages = [], [dict(type="http.request", body=b"", more_body=False)]

    async def receive():
        return messages.pop() if messages else await asyncio.Event().wait()

    async def send(message):
        sent.append(message)

    thread = threading.Thread(target=lambda: asyncio.run(app(scope, receive, send)))
    thread.start()
    thread.join()
    return sent


class Proxy(http.server.BaseHTTPRequestHandler):
    """Has what listens on `port` below `prefix`, which it passes on if `keeps`"""

    protocol_version, prefix, port, keeps = "HTTP/1.0", "/lab/segan", 0, False

    def do_GET(self):
        if not self.path.startswith(self.prefix + "/"):
            return self.send_error(404)
        path = self.path if self.keeps else self.path.removeprefix(self.prefix)
        content = self.rfile.read(int(self.headers.get("Content-Length", 0)))
        behind = http.client.HTTPConnection("127.0.0.1", self.port)
        named = {"Host": "lab.example", "X-Forwarded-Host": self.headers["Host"], "X-Forwarded-Proto": "http"}
        behind.request(self.command, path, content, dict(self.headers) | named)
        answer = behind.getresponse()
        self.send_response(answer.status)
        for name, value in answer.getheaders():
            if name.lower() not in ("connection", "transfer-encoding"):
                self.send_header(name, value)
        self.end_headers()
        with contextlib.suppress(BrokenPipeError):  # the browser has left
            while part := answer.read1(65536):
                self.wfile.write(part)
                self.wfile.flush()

    do_POST = do_HEAD = do_GET

    def log_message(self, *_):
        pass


@pytest.mark.parametrize(
    "keeps", [pytest.param(False, marks=pytest.mark.slow), True], ids=["cuts the path", "keeps the path"]
)
def test_it_works_below_a_path_of_a_proxy(browser, folder, G, keeps):
    """Its names are two: that which the browser sees, 127.0.0.1 of another port, and that which it passes on."""
    options = [f"--network={folder / 'first.pkl'}", "--allow-host=lab.example", "--allow-host=127.0.0.1"]
    with contextlib.closing(served(*options, "--root-path=/lab/segan")) as addresses:
        behind = int(next(addresses).rpartition(":")[2])
        handler = type("Handler", (Proxy,), dict(port=behind, keeps=keeps))
        proxy = http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler)
        threading.Thread(target=proxy.serve_forever, daemon=True).start()
        url = f"http://127.0.0.1:{proxy.server_port}"
        page = opened(browser, url, "/lab/segan/")
        address = slide(page, 0, 3)
        shows(page, expected(G, edits={address: 3}), what="an edit")
        page.wait_for_selector(".card[data-ready]")
        until(page, lambda: re.search("/lab/segan/#network=.*move=", page.url), "the address stays below the path")
        page.reload()
        shows(page, expected(G, edits={address: 3}), what="the link's image")
        page.locator("nav a").first.click()
        page.wait_for_url("**/lab/segan/studio/**")
        page.locator("#question img").wait_for()
        page.get_by_role("link", name="Back to the page").click()
        shows(page, expected(G, edits={address: 3}), what="back on the page")
        assert not page.foreign and not page.errors, (page.foreign, page.errors)
        page.context.close()
        proxy.shutdown()


# ---------------------------------------------------------------------------------------------------------------------
# Many visitors


def counted(engine, network="first.pkl"):
    """A list that grows by the number of images whenever some have been made"""
    made = []
    engine.network(network).G.synthesis.register_forward_hook(lambda _, args, images: made.append(len(images)))
    return made


def test_many_requests_of_one_visitor_do_not_keep_another_waiting(url):
    """A hundred sheets of one; the image of another comes before most of them, though it was asked for last."""
    done = []

    def sheet(i):
        done.append(asked(url, "/api/sheet", dict(session="a" * 16, view=VIEW, seeds=f"{i}-{i + 40}"))[0])

    threads = [threading.Thread(target=sheet, args=(i,)) for i in range(100)]
    for thread in threads:
        thread.start()
    until_true(lambda: len(done) > 2)
    assert asked(url, "/image", ASKED | dict(session="b" * 16, view=VIEW | dict(seed=99)))[0] == 200
    before = len(done)
    for thread in threads:
        thread.join()
    assert before < 50 and done == [200] * 100


def until_true(condition, seconds=60):
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end
        time.sleep(0.01)


def test_turns_go_around():
    """One of each visitor, the oldest first, however many another has"""
    turns, order, threads = Turns(), [], []

    def work(visitor, name):
        with working_on(Work(visitor)), turns:
            order.append(name)

    with turns:
        for visitor, name in (("a", "a1"), ("a", "a2"), ("a", "a3"), ("b", "b1"), ("b", "b2"), ("c", "c1")):
            threads.append(threading.Thread(target=work, args=(visitor, name)))
            threads[-1].start()
            until_true(lambda: sum(map(len, turns._waiting.values())) == len(threads))
    for thread in threads:
        thread.join()
    assert order == ["a1", "b1", "c1", "a2", "b2", "a3"]


LONG = dict(
    sheet=lambda engine, view: engine.sheet(view, range(64)),
    variants=lambda engine, view: engine.variants(view, [view.with_edit("L1.N0.D0", x) for x in range(64)]),
    questions=lambda engine, view: in_turn(engine, lambda G: Questions(G, seconds=600).gram),
    noisy=lambda engine, view: in_turn(engine, lambda G: torch.cat([G.synthesis(draw_ws(G, 1)) for _ in range(64)])),
)


def in_turn(engine, work):
    with engine.work("first.pkl") as opened:
        return work(opened.G)


@pytest.mark.parametrize("work", LONG.values(), ids=LONG.keys())
def test_long_work_lets_others_in(folder, work):
    """An image with random noise, which takes no random number from the work"""
    engine, view, others = Engine([str(folder / "first.pkl")]), View("first.pkl"), []
    made = counted(engine)
    torch.manual_seed(1)
    alone = work(engine, view)
    made.clear()

    def other():
        engine.render(View("first.pkl", seed=5, noise="3"))
        others.append(sum(made))

    def let_in(*_):
        if len(made) == 1:
            threading.Thread(target=other).start()
            until_true(lambda: engine.turns._waiting)

    engine.network("first.pkl").G.synthesis.register_forward_hook(let_in)
    torch.manual_seed(1)
    together = work(engine, view)
    until_true(lambda: others)
    assert others[0] < sum(made), "the other waited for all of it"
    assert torch.equal(together, alone)


def test_a_pool_of_questions_takes_bounded_time(folder):
    G = Engine([str(folder / "first.pkl")]).network("first.pkl").G
    assert len(Questions(G, seconds=0).gram) == 32 and len(Questions(G, seconds=600).gram) == 256
    assert Questions(G, seconds=0).next(dict.fromkeys(range(32), 1.0)) == 32  # and it goes on beyond


FREED = """
import threading, time, psutil, torch
from segan_ext.web import memory
memory.give_back(0.1)
def work():
    kept = [torch.ones(25_000) for _ in range(500)]  # 50 MB; the last block stays above all that are freed
    held.append(kept[-1])
held, before = [], psutil.Process().memory_info().rss
threads = [threading.Thread(target=work) for _ in range(10)]
for thread in threads: thread.start()
for thread in threads: thread.join()
end = time.monotonic() + 60
while psutil.Process().memory_info().rss > before + 50e6 and time.monotonic() < end: time.sleep(0.1)
print("given back", psutil.Process().memory_info().rss < before + 50e6)
"""


def test_freed_memory_goes_back_to_the_system():
    done = subprocess.run(command("-c", FREED), cwd=ROOT, capture_output=True, text=True)
    assert "given back True" in done.stdout, done.stderr


def test_a_network_is_opened_beside_other_work(folder):
    engine = Engine([str(folder / f"{name}.pkl") for name in ("first", "second")])
    opening = threading.Thread(target=engine.network, args=("second.pkl",), daemon=True)
    with engine.work("first.pkl"):
        opening.start()
        until_true(lambda: "second.pkl" in engine.opened)


def test_what_the_browser_gives_up_does_not_run_to_its_end(folder):
    engine = Engine([str(folder / "first.pkl")])
    made, sent = counted(engine), []
    question = json.dumps(dict(session="a" * 16, view=VIEW, seeds="0-63")).encode()
    headers = [(b"content-type", b"application/json"), (b"host", b"localhost")]
    scope = dict(type="http", method="POST", path="/api/sheet", headers=headers, query_string=b"", root_path="")
    messages = [dict(type="http.request", body=question, more_body=False)]

    async def receive():
        if messages:
            return messages.pop()
        while not made:
            await asyncio.sleep(0)
        return dict(type="http.disconnect")

    async def send(message):
        sent.append(message)

    hold = lambda *_: time.sleep(0.05)  # so that the message arrives meanwhile
    engine.network("first.pkl").G.synthesis.register_forward_hook(hold)
    answering = threading.Thread(target=lambda: asyncio.run(application(engine)(scope, receive, send)))
    answering.start()  # Playwright has the event loop of this thread
    answering.join()
    assert sent[0]["status"] == 499 and sum(made) < 64
    engine.render(View("first.pkl"))  # the turn is free again


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


def test_painting_a_class_changes_the_image_there(studio, G, folder):
    enter(studio, "Edit", "edit-canvas")
    studio.locator("#edit-canvas").get_by_role("radio", name="bright").click()
    paint(studio, "edit-canvas", (8, 8, 12, 8))
    until(studio, lambda: "class stroke" in note(studio), "the strokes arrive")
    count = painted(studio)
    assert 40 <= count <= 120
    click(studio, "apply")
    studio.wait_for_selector("#edit-result img")
    until(studio, lambda: "outside the strokes" in note(studio), "the change is reported")
    before, after = pixels(studio, "#edit-result", 0), pixels(studio, "#edit-result", 1)
    assert abs(before - expected(G)).max() <= 1
    assert abs(after - before)[5:12, 5:16].mean() > abs(after - before)[20:, 20:].mean()
    assert after[5:12, 6:15].mean() >= before[5:12, 6:15].mean()
    click(studio, "use")
    studio.wait_for_selector("#stage[data-shown]")
    until(studio, lambda: differs(studio, expected(G)), "taken to the page")
    until(studio, lambda: "w=" in studio.url or studio.locator("#history .thumb").count(), "the page remembers it")


def test_painting_starts_from_the_image_with_its_sliders(browser, url, G):
    page = opened(browser, url)
    address = slide(page, 0, 3)
    moved = expected(G, edits={address: 3})
    shows(page, moved)
    page.get_by_role("link", name="Edit").click()
    page.get_by_role("tab", name="Edit", selected=True).wait_for()
    enter(page, "Edit", "edit-canvas")
    page.locator("#edit-canvas").get_by_role("radio", name="bright").click()
    paint(page, "edit-canvas", (8, 8, 12, 8))
    until(page, lambda: "class stroke" in note(page), "the strokes arrive")
    click(page, "apply")
    page.wait_for_selector("#edit-result img")
    until(page, lambda: "outside the strokes" in note(page), "the change is reported")
    assert abs(pixels(page, "#edit-result", 0) - moved).max() <= 1
    page.context.close()


def test_the_canvas_has_undo_eraser_fill_and_keys(studio):
    enter(studio, "Edit", "edit-canvas")
    canvas = studio.locator("#edit-canvas")
    paint(studio, "edit-canvas", (6, 6, 14, 6))
    until(studio, lambda: "class stroke" in note(studio), "a stroke")
    first = painted(studio)
    paint(studio, "edit-canvas", (6, 20, 14, 20), side="right")
    until(studio, lambda: painted(studio) > first, "a second stroke")
    second = painted(studio)
    canvas.get_by_text("undo").click()
    until(studio, lambda: painted(studio) == first, "undone")
    canvas.get_by_text("redo").click()
    until(studio, lambda: painted(studio) == second, "done again")
    canvas.get_by_role("radio", name="eraser").click()
    paint(studio, "edit-canvas", (6, 6, 14, 6))
    until(studio, lambda: painted(studio) == second - first, "erased")
    canvas.get_by_role("radio", name="fill").click()
    paint(studio, "edit-canvas", (1, 1, 1, 1))
    until(studio, lambda: painted(studio) > second - first, "filled")
    canvas.get_by_text("clear").click()
    until(studio, lambda: painted(studio) == 0, "cleared")
    studio.locator("#edit-canvas canvas[data-part=left]").focus()
    for key in ("b", "ArrowRight", " "):
        studio.keyboard.press(key)
    until(studio, lambda: painted(studio) > 0, "painted with the keyboard")
    canvas.get_by_role("radio", name="colour").click()
    paint(studio, "edit-canvas", (20, 20, 24, 20))
    until(studio, lambda: ", 0 a colour stroke" not in note(studio), "a colour stroke")
    click(studio, "apply")
    until(studio, lambda: "outside the strokes" in note(studio), "applied")


def test_nothing_painted_is_said(studio):
    enter(studio, "Edit", "edit-canvas")
    click(studio, "apply")
    complains(studio, "paint something first")


# ---------------------------------------------------------------------------------------------------------------------
# Train


def test_an_extractor_is_trained_used_and_kept(studio, G, tmp_path):
    enter(studio, "Train", "train-canvas")
    write(studio, "class-name", "sky")
    click(studio, "class-add")
    until(studio, lambda: studio.locator("#train-canvas [data-class]").count() == 3, "a new class")
    write(studio, "class-name", "sea")
    click(studio, "class-rename")
    until(studio, lambda: "sea" in studio.locator("#train-canvas").inner_text(), "renamed")
    click(studio, "class-delete")
    until(studio, lambda: studio.locator("#train-canvas [data-class]").count() == 2, "deleted")
    click(studio, "keep")
    complains(studio, "paint something first")
    assert "No example yet of: background, class 1" in note(studio, "train-note")

    canvas = studio.locator("#train-canvas")
    canvas.get_by_role("radio", name="background").click()
    paint(studio, "train-canvas", (5, 5, 26, 5))
    canvas.get_by_role("radio", name="class 1").click()
    paint(studio, "train-canvas", (5, 25, 26, 25))
    studio.wait_for_timeout(300)
    click(studio, "keep")
    until(studio, lambda: "1 annotations. Every class has an example" in note(studio, "train-note"), "kept")
    write(studio, "epochs", 4)
    click(studio, "train-start")
    until(studio, lambda: "done, epoch 4" in note(studio, "train-loss"), "trained")
    until(studio, lambda: "mIoU on what was painted" in studio.locator("#train-check").inner_text(), "validated")
    assert pixels(studio, "#train-check").shape[1] > 300
    write(studio, "epochs", 50)
    click(studio, "train-start")
    until(studio, lambda: "training, epoch" in note(studio, "train-loss"), "goes on")
    click(studio, "train-pause")
    until(studio, lambda: "paused, epoch" in note(studio, "train-loss"), "pauses")

    with studio.expect_download() as download:
        click(studio, "train-save")
    download.value.save_as(tmp_path / "e.safetensors")
    extractor = open_extractor(tmp_path / "e.safetensors", G)
    assert extractor.classes == ("background", "class 1")
    with studio.expect_download() as download:
        click(studio, "work-save")
    download.value.save_as(tmp_path / "work.zip")
    zipfile.ZipFile(tmp_path / "work.zip").extractall(tmp_path / "work")
    labels = annotations.read_annotations(tmp_path / "work", G).labels[0]
    assert (labels[5, 6:25] == 0).all() and (labels[25, 6:25] == 1).all() and (labels[15] == IGNORED).all()

    click(studio, "train-use")
    enter(studio, "Edit", "edit-canvas")
    assert studio.locator("#edit-canvas").get_by_role("radio", name="class 1").count() == 1


@pytest.mark.slow
def test_annotations_come_back(studio, G, tmp_path):
    labels = torch.full([1, 32, 32], IGNORED)
    labels[:, :8], labels[:, 20:] = 0, 1
    made = annotations.Annotations(draw_ws(G, 1, 4), labels, ("ground", "roof"))
    annotations.write_annotations(tmp_path, made, [4])
    with zipfile.ZipFile(tmp_path / "work.zip", "w") as archive:
        for name in ("classes.json", "seed0004.png"):
            archive.write(tmp_path / name, name)
    enter(studio, "Train", "train-canvas")
    upload(studio, "work-load", tmp_path / "work.zip")
    until(studio, lambda: "roof" in studio.locator("#train-canvas").inner_text(), "classes")
    assert studio.locator("#kept img").count() == 1
    (tmp_path / "bad.zip").write_bytes(b"no zip")
    upload(studio, "work-load", tmp_path / "bad.zip")
    complains(studio, "no archive of annotations")


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


def test_answers_become_a_slider(studio, G, folder, tmp_path):
    """Twenty answers about brightness give a slider that makes images brighter, in the studio and in `edit`."""
    mean = lambda picture: float(picture.mean())
    with torch.no_grad():
        images = G(seed_latents(G, range(100), "cpu").float(), None, noise_mode="const")
    middle = images.mean(dim=[1, 2, 3]).median().item()
    naming_story.start(studio, "light", "dark", "bright")
    naming_story.answer(studio, lambda picture: mean(picture) - middle, 20)
    until(studio, lambda: "of what it moves" in studio.locator("#told").inner_text(), "the slider's leakage")
    assert studio.locator("#slider-made img").count() == 1
    naming_story.sliders(studio, tmp_path / "sliders.json")
    with studio.expect_download() as download:
        click(studio, "answers-save")
    download.value.save_as(tmp_path / "answers.csv")
    assert len(read_labels(tmp_path / "answers.csv").keys) == 20
    click(studio, "take-back")
    until(studio, lambda: "19 answers" in studio.locator("#told").inner_text(), "taken back")

    studio.get_by_role("link", name="Back to the page").click()
    card(studio, "light").wait_for()
    before = pixels(studio)
    slide(studio, "light", 1)
    until(studio, lambda: pixels(studio).mean() > before.mean() + 2, "brighter")
    panel(studio, "Export")
    with studio.expect_download() as download:
        click(studio, "save")
    download.value.save_as(tmp_path / "edit.json")
    network = f"--network={folder / 'first.pkl'}"
    run("-m segan_ext edit", network, f"--replay={tmp_path / 'edit.json'}", f"--outdir={tmp_path / 'a'}")
    moved = np.asarray(PIL.Image.open(tmp_path / "a" / "seed0000.png").convert("RGB"), int)
    shows(studio, moved, what="the edit of the command line")
    options = [f"--directions={tmp_path / 'sliders.json'}", "--set", "light=1", "--seeds=0", "--trunc=0.7"]
    run("-m segan_ext edit", network, *options, f"--outdir={tmp_path / 'b'}")
    assert (tmp_path / "a" / "seed0000.png").read_bytes() == (tmp_path / "b" / "seed0000.png").read_bytes()


def test_positions_that_are_but_two_become_a_slider_and_keep_their_numbers(studio, tmp_path):
    rows = "".join(f"{seed},{0.5 - seed % 2},\n" for seed in range(9))
    (tmp_path / "answers.csv").write_text(f"seed,light,size\n{rows}20,,big\n21,,small\n")
    naming_story.start(studio, "light", "dark", "bright", two=False)
    upload(studio, "answers-load", tmp_path / "answers.csv")
    until(studio, lambda: "Loaded the answers" in studio.locator("#told").inner_text(), "loaded")
    naming_story.fill(studio, "position", "0.5")
    studio.wait_for_timeout(100)
    studio.locator("#say").first.click()
    until(studio, lambda: "10 answers for light" in studio.locator("#told").inner_text(), "the tenth answer")
    until(studio, lambda: studio.locator("#slider-made img").count() == 1, "the slider")
    with studio.expect_download() as download:
        click(studio, "answers-save")
    download.value.save_as(tmp_path / "saved.csv")
    cells = read_labels(tmp_path / "saved.csv").cells["light"]
    assert cells[:9] == ["0.5", "-0.5"] * 4 + ["0.5"] and set(cells[9:]) == {"", "0.5"}


@pytest.mark.parametrize(
    "positions, kept",
    [
        ("0.2 0.4 0.6", "0.2 0.4 0.6"),
        ("-30 15 0", "-1 0.5 0"),
        ("0.25 -0.5 -0.5", "0.25 -0.5 -0.5"),
        ("1 0 1", "1 0 1"),
    ],
)
def test_answers_come_back_as_they_were_given(positions, kept, tmp_path):
    session = Session("any.pkl")
    rows = "".join(f"{seed},{x}\n" for seed, x in enumerate(positions.split()))
    (tmp_path / "answers.csv").write_text(f"seed,tilt\n{rows}7,nan\n")
    NameTab.read_answers(None, session, str(tmp_path / "answers.csv"))
    assert session.learning.answers["tilt"] == dict(enumerate(kept.split()))
    assert session.learning.kinds["tilt"] == (("0", "1") if positions == "1 0 1" else None)


def test_wrong_questions_and_files_are_explained(studio, tmp_path):
    naming_story.start(studio, "light", "dark", "bright")
    naming_story.fill(studio, "answer-low", "bright")
    complains(studio, "the two answers must differ")
    click(studio, "sliders-save")
    complains(studio, "there is no slider yet")
    click(studio, "refine")
    complains(studio, "needs 10 answers first")
    (tmp_path / "other.json").write_text('{"format": "something"}')
    upload(studio, "sliders-load", tmp_path / "other.json")
    complains(studio, "holds no directions")
    (tmp_path / "labels.csv").write_text("seed,size\n1,a\n2,b\n3,c\n4,c\n")
    upload(studio, "answers-load", tmp_path / "labels.csv")
    complains(studio, "size has 3 values")
