"""How long after a move of a slider the new image is on the screen: python benchmarks/page.py [--network=PKL]

Serves the page with a 64×64 generator of the presets size (or the one given), opens it in a headless Chromium, moves a
slider 50 times, each after the last image has come, and measures in the browser until the new picture is decoded.
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
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]

MOVE = """async amount => {
  const slider = document.querySelector("#slot0 input[type=range]"), pictures = document.querySelector("#pictures");
  const source = () => [...pictures.querySelectorAll("img")].at(-1).src, old = source(), start = performance.now();
  slider.value = amount;
  slider.dispatchEvent(new Event("input", {bubbles: true}));
  while (source() === old) {
    if (performance.now() - start > 10000) throw new Error("no new image came");
    await new Promise(requestAnimationFrame);
  }
  await [...pictures.querySelectorAll("img")].at(-1).decode();
  await new Promise(requestAnimationFrame);
  return performance.now() - start;
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


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--network")
    parser.add_argument("--moves", type=int, default=50)
    args = parser.parse_args()
    from playwright.sync_api import sync_playwright

    with tempfile.TemporaryDirectory() as folder:
        network = args.network or str(Path(folder) / "G.pkl")
        if args.network is None:
            write_generator(network)
        options = [f"--network={network}", "--port=0"]
        server = subprocess.Popen(
            [sys.executable, "-m", "segan_ext", "web", *options],
            cwd=ROOT,
            stdout=subprocess.PIPE,
            text=True,
            env=os.environ | {"PYTHONUNBUFFERED": "1"},
        )
        try:
            url = next(found[1] for line in server.stdout if (found := re.search(r"page is at (\S+)", line)))
            with sync_playwright() as playwright:
                options = dict(executable_path=shutil.which("chromium"), args=["--no-sandbox", "--disable-gpu"])
                page = playwright.chromium.launch(**options).new_page()
                page.goto(url)
                page.wait_for_selector("#pictures img")
                times = [page.evaluate(MOVE, round((i % 40 - 20) / 10, 1)) for i in range(args.moves + 5)][5:]
        finally:
            server.kill()
    times.sort()
    tenth = times[int(0.9 * len(times))]
    print(f"{len(times)} moves: median {statistics.median(times):.0f} ms, nine in ten within {tenth:.0f} ms")


if __name__ == "__main__":
    main()
