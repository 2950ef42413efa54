"""What a person does on the Name tab, with a real browser: looks at each image, answers, gets a slider.

The person's eyes are a predictor that is shown the picture on the page. Used by test_web and benchmarks/naming.py.
"""

import base64
import io
import re
import time

import numpy as np
import PIL.Image
import torch


def seen(page):
    """(seed, the picture that is asked about [3, H, W] in [−1, 1])"""
    figure = page.locator("#question figure").first
    seed = int(re.search(r"seed (\d+)", figure.inner_text())[1])
    source = page.locator("#question img").first.get_attribute("src")
    picture = np.asarray(PIL.Image.open(io.BytesIO(base64.b64decode(source.partition(",")[2]))).convert("RGB"))
    return seed, torch.from_numpy(picture.copy()).permute(2, 0, 1).float() / 127.5 - 1


def fill(page, field, text):
    box = page.locator(f"#{field} input:not([type=range]), #{field} textarea").first
    box.fill(str(text))
    box.press("Tab")


def until(page, condition, what, seconds=120):
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, what
        page.wait_for_timeout(30)


def told(page):
    return page.locator("#told").inner_text()


def start(page, name, low, high, two=True):
    """Opens the tab of the studio and says what is asked"""
    page.get_by_role("tab", name="Name").click()
    page.wait_for_selector("#question img")
    page.locator("#answer-kind").get_by_text("two values" if two else "a position between").click()
    for field, text in (("name", name), ("answer-low", low), ("answer-high", high)):
        fill(page, field, text)
    until(page, lambda: f"{name}?" in page.locator("#question").inner_text(), f"the question for {name}")
    button = "#say-low" if two else "#say"
    until(page, lambda: page.locator(button).first.is_visible(), "the buttons")


def answer(page, look, count, two=True):
    """Answers `count` questions. look: picture [1, 3, H, W] → a position from −1 to 1; which side of 0, if `two`."""
    for given in range(1, count + 1):
        seed, picture = seen(page)
        position = look(picture[None])
        if two:
            page.locator("#say-high" if position > 0 else "#say-low").first.click()
        else:
            fill(page, "position", f"{min(max(position, -1), 1):.2f}")
            page.wait_for_timeout(100)
            page.locator("#say").first.click()
        done = lambda given=given, seed=seed: f"{given} answers" in told(page) and seen(page)[0] != seed
        until(page, done, f"answer {given}")


def purer(page):
    """Spends gradient steps on the slider"""
    page.locator("button#refine, #refine button").first.click()
    until(page, lambda: ", 60 steps" in told(page), "purer", 900)


def sliders(page, path):
    """Saves the sliders of the page to a file"""
    with page.expect_download() as download:
        page.locator("button#sliders-save, #sliders-save button").first.click()
    download.value.save_as(path)
