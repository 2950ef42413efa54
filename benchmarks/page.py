"""How fast the page is, measured in a headless Chromium: python benchmarks/page.py [--network=FILE]

Starts the command with a 64×64 generator of the presets' size (or the one given) and measures: from the command's
start until the page answers and until its first image is on the screen; from a move of a slider until the new image
is on the screen, 50 moves, each after the last image has come; images a second while the slider is dragged, a move
every 8 ms; the last two for one user alone, and for two at once. Server and browser share the machine.
"""

import argparse
import os
import pickle
import re
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]

# Moves the first slider `count` times, each after the image before is there; milliseconds until each is on the screen.
MOVES = """async count => {
  const slider = document.querySelector(".card input[type=range]"), stage = document.querySelector("#stage");
  const times = [], from = Math.random();
  slider.step = "any";  // so that no image is one that the browser still has
  for (let i = 0; i < count; i++) {
    const old = stage.dataset.shown, start = performance.now();
    slider.value = +slider.min + (slider.max - slider.min) * ((from + i * 0.618034) % 1);
    slider.dispatchEvent(new Event("input", {bubbles: true}));
    while (stage.dataset.shown === old) {
      if (performance.now() - start > 10000) throw new Error("no new image came");
      await new Promise(requestAnimationFrame);
    }
    await new Promise(requestAnimationFrame);
    times.push(performance.now() - start);
  }
  return times;
}"""

# Drags for so many seconds; images a second that came.
DRAG = """async seconds => {
  const slider = document.querySelector(".card input[type=range]"), stage = document.querySelector("#stage");
  let images = 0, i = 1000 * Math.random();
  const watch = new MutationObserver(() => images++), start = performance.now();
  watch.observe(stage, {attributeFilter: ["data-shown"]});
  while (performance.now() - start < 1000 * seconds) {
    slider.value = +slider.min + (slider.max - slider.min) * (0.5 + 0.5 * Math.sin(i++ / 17));
    slider.dispatchEvent(new Event("input", {bubbles: true}));
    await new Promise(done => setTimeout(done, 8));
  }
  watch.disconnect();
  return 1000 * images / (performance.now() - start);
}"""


def write_generator(path):
    """A generator with the sizes of `segan-mode2` and random weights"""
    sys.path[:0] = [str(ROOT), str(ROOT / "stylegan2_ada")]
    import torch

    from segan_ext.networks import SEGANGenerator
    from training import networks

    torch.manual_seed(0)
    widths = dict(channel_base=32768, channel_max=128)
    G = SEGANGenerator(64, 0, 64, 64, 3, dict(num_layers=8), widths, mode=2).eval().requires_grad_(False)
    D = networks.Discriminator(0, 64, 3, **widths)
    with open(path, "wb") as file:
        pickle.dump(dict(G=G, D=D, G_ema=G, training_set_kwargs=None, augment_pipe=None), file)


def serve(network):
    """(process, address, seconds from its start until the page was up)"""
    start = time.perf_counter()
    command = [sys.executable, "-m", "segan_ext", "web", f"--network={network}", "--port=0"]
    environment = os.environ | {"PYTHONUNBUFFERED": "1"}
    server = subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, text=True, env=environment)
    for line in server.stdout:
        if found := re.search(r"page is at (\S+)", line):
            return server, found[1], time.perf_counter() - start
    raise SystemExit("the page did not start")


def launch(playwright):
    options = ["--no-sandbox", "--disable-gpu", "--disable-background-timer-throttling"]
    options += ["--disable-renderer-backgrounding", "--disable-backgrounding-occluded-windows"]
    return playwright.chromium.launch(executable_path=shutil.which("chromium"), args=options)


def opened(browser, url):
    page = browser.new_context().new_page()
    page.goto(url)
    page.wait_for_selector(".card[data-ready]")
    return page


def together(pages, script, value):
    """What the script returns on each page, run on all at once"""
    for page in pages:
        page.evaluate(f"value => {{ window.result = ({script})(value) }}", value)
    return [page.evaluate("window.result") for page in pages]


def report(who, moves, rates):
    moves = sorted(each for times in moves for each in times[5:])
    tenth = moves[int(0.9 * len(moves))]
    rate = " and ".join(f"{each:.0f}" for each in rates)
    print(
        f"{who}: slider to screen {statistics.median(moves):.0f} ms (median; nine in ten within {tenth:.0f} ms), ",
        end="",
    )
    print(f"{rate} images a second while dragging", flush=True)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--network")
    parser.add_argument("--moves", type=int, default=50)
    args = parser.parse_args()
    from playwright.sync_api import sync_playwright

    with tempfile.TemporaryDirectory() as folder, sync_playwright() as playwright:
        network = args.network or str(Path(folder) / "G.pkl")
        if args.network is None:
            write_generator(network)
        browser = launch(playwright)
        start = time.perf_counter()
        server, url, up = serve(network)
        try:
            page = browser.new_context().new_page()
            page.goto(url)
            page.wait_for_selector("#stage[data-shown]")
            print(
                f"from the command: page up after {up:.1f} s, first image {time.perf_counter() - start:.1f} s",
                flush=True,
            )
            page.wait_for_selector(".card[data-ready]")
            pages = [page]
            for who in ("one user", "two users"):
                moves = together(pages, MOVES, args.moves + 5)
                report(who, moves, together(pages, DRAG, 5))
                pages.append(opened(browser, url))
        finally:
            server.kill()


if __name__ == "__main__":
    main()
