"""Forty answers on the page, in a real browser, once for each attribute of the bench; what its slider then moves.

    python benchmarks/naming.py --answers=40
    python benchmarks/naming.py --answers=40 --together

The person who answers is the bench's labeller, shown the picture on the page. Every attribute begins on a page of its
own, so that nothing is known but these answers; or, `--together`, one person names one after the other on the same page
and at the end clicks "Make it purer" for each. An attribute of several values is asked about as "the first of them, or
another". The judge measures on 128 held-out latents. Writes naming.json and naming.md.
"""

import argparse
import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

from playwright.sync_api import sync_playwright

ROOT = Path(__file__).resolve().parents[1]
sys.path[:0] = [str(ROOT), str(ROOT / "tests")]

import naming_story  # noqa: E402

from segan_ext.control.named import read_directions  # noqa: E402
from segan_ext.directions.named import as_editable  # noqa: E402
from segan_ext.metrics.attributes import open_predictor  # noqa: E402
from segan_ext.metrics.selectivity import Candidate, Ruler, measure  # noqa: E402
from snapshots.load import load_generator  # noqa: E402

BENCH = ROOT / "benchmarks" / "bench"


def served(network):
    """(process, address) of a page of the real command"""
    command = [sys.executable, "-m", "segan_ext", "web", f"--network={network}", "--port=0"]
    environment = os.environ | {"PYTHONUNBUFFERED": "1"}
    server = subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, text=True, env=environment)
    for line in server.stdout:
        if found := re.search(r"http://127\.0\.0\.1:\d+", line):
            return server, found[0]
    raise SystemExit("the page did not start")


def look_for(labeller, attribute):
    """What the person sees of an attribute: a position, above 0 for the first value or more of the quantity"""

    def look(picture):
        said = labeller(picture)[attribute.name][0]
        return float(said[0] - 0.5) if attribute.values else float(said[0]) / 2

    return look


def answered(page, labeller, attribute, count):
    two = attribute.values is not None
    naming_story.start(page, attribute.name, "low", "high", two)
    naming_story.answer(page, look_for(labeller, attribute), count, two)


def pages(browser, url, together):
    """Opens a page whenever it is asked for one: always the same, or a new one each time"""
    kept = []

    def page():
        if kept and together:
            return kept[0]
        if kept:
            kept.pop().context.close()
        kept.append(browser.new_context(accept_downloads=True, viewport=dict(width=1200, height=1100)).new_page())
        kept[0].set_default_timeout(120000)
        kept[0].goto(f"{url}/studio/")
        return kept[0]

    return page


def stories(browser, url, labeller, asked, args, folder):
    """{attribute: file of its slider}"""
    page_for, files = pages(browser, url, args.together), {}
    for attribute in asked:
        page = page_for()
        answered(page, labeller, attribute, args.answers)
        print(f"{attribute.name}: {args.answers} answers", flush=True)
        if not args.together:
            files[attribute.name] = folder / f"{attribute.name}.json"
            naming_story.sliders(page, files[attribute.name])
    for attribute in asked if args.together else ():
        naming_story.start(page, attribute.name, "low", "high", attribute.values is not None)
        naming_story.purer(page)
    if args.together:
        naming_story.sliders(page, folder / "all.json")
        page.screenshot(path=str(folder / "page.png"))
        files = dict.fromkeys((attribute.name for attribute in asked), folder / "all.json")
    return files


def judged(files):
    """`Score` of each slider for its own attribute"""
    G = as_editable(load_generator(str(BENCH / "generator.safetensors")).eval().requires_grad_(False))
    ruler = Ruler(G, open_predictor(BENCH / "predictor-judge.safetensors"))
    for name, path in files.items():
        direction = read_directions(path, G)[name]
        half = {layer: offset * direction.high / 2 for layer, offset in direction.offsets.items()}
        yield next(s for s in measure(ruler, [Candidate(name, half)]).scores if s.attribute == name)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--answers", type=int, default=40)
    parser.add_argument("--together", action="store_true", help="one person, one page, all attributes")
    parser.add_argument("--names", help="only these attributes")
    parser.add_argument("--outdir", default="naming-out")
    args = parser.parse_args()
    out = Path(args.outdir)
    out.mkdir(parents=True, exist_ok=True)
    labeller = open_predictor(BENCH / "predictor-labels.safetensors")
    asked = [a for a in labeller.attributes if not args.names or a.name in args.names.split(",")]
    server, url = served(BENCH / "generator.safetensors")
    try:
        with sync_playwright() as playwright:
            chromium = shutil.which("chromium") or shutil.which("chromium-browser")
            browser = playwright.chromium.launch(executable_path=chromium, args=["--no-sandbox", "--disable-gpu"])
            files = stories(browser, url, labeller, asked, args, out)
    finally:
        server.kill()
    scores = list(judged(files))
    mean = lambda field: sum(getattr(score, field) for score in scores) / len(scores)
    worst = min(scores, key=lambda score: score.selectivity)
    lines = ["| attribute | selectivity | signed | attribute dependency |", "| --- | --- | --- | --- |"]
    lines += [f"| {s.attribute} | {s.selectivity:.2f} | {s.signed:.2f} | {s.dependency:.2f} |" for s in scores]
    lines.append(f"| mean | {mean('selectivity'):.2f} | {mean('signed'):.2f} | {mean('dependency'):.2f} |")
    (out / "naming.md").write_text("\n".join(lines) + "\n")
    (out / "naming.json").write_text(json.dumps([score._asdict() for score in scores], indent=1))
    print(f"mean {mean('selectivity'):.2f}, worst {worst.attribute} {worst.selectivity:.2f}: {out / 'naming.md'}")


if __name__ == "__main__":
    main()
