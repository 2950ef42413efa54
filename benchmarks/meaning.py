"""How selectively directions of every kind move attributes, beside chance: the table of docs/control.md.

    python benchmarks/meaning.py --outdir=meaning-out
    python benchmarks/meaning.py --outdir=emoji-out --network=G.safetensors --labels=labels.csv

On the bench (benchmarks/bench): its plain generator, 8 directions a layer of each method, those with names from the
bench's labeller at 50, 200, 500 and 1000 labelled images; judged by a predictor that none of them has
seen. On another generator: a half of the labels finds the directions with names, the other half judges all. Each row is
written when it is done, and not computed again.
"""

import argparse
import json
import sys
from pathlib import Path

import torch
from tqdm import tqdm

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

import segan_ext.host  # noqa: E402

segan_ext.host.activate()

from segan_ext.directions import find_directions  # noqa: E402
from segan_ext.directions.named import (  # noqa: E402
    as_editable,
    find_named,
    probe_of_predictor,
    scores_of_probe,
    with_named,
)
from segan_ext.directions.probe import Probe  # noqa: E402
from segan_ext.directions.subspaces import with_directions  # noqa: E402
from segan_ext.latents import random_ws, ws_of_seeds  # noqa: E402
from segan_ext.metrics.attributes import Attribute, Predictor, open_predictor  # noqa: E402
from segan_ext.metrics.labels import read_labels  # noqa: E402
from segan_ext.metrics.selectivity import (  # noqa: E402
    Ruler,
    interval,
    measure,
    named_candidates,
    own_candidates,
    rotated_candidates,
    rotated_controls,
    z_score,
)
from snapshots.load import load_generator  # noqa: E402
from torch_utils import cached_weights  # noqa: E402

BENCH = ROOT / "benchmarks" / "bench"
DIMS, ROTATIONS = 8, 20
METHODS = ("sefa", "pca", "pca-features", "ica", "varimax")
COUNTS = {50: 1, 200: 3, 500: 1}  # labelled images: how many times other ones are drawn


def labelled(G, labeller, count, draw):
    """`Scores` learned from `count` images for which the labeller has answered"""
    first = 1_000_000 * (draw + 1)  # far from the latents of the measure
    ws = ws_of_seeds(G, range(first, first + count))
    said = [labeller(G.synthesis(part, noise_mode="const")) for part in ws.split(50)]
    columns = []
    for attribute in labeller.attributes:
        column = torch.cat([each[attribute.name] for each in said])
        columns.append(column.argmax(dim=1).double() if attribute.values else column[:, 0].double())
    return scores_of_probe(Probe(G, ws, labeller.attributes, torch.stack(columns, dim=1)))


def with_names(G, scores):
    """(generator, candidates) of the directions with names"""
    found = with_named(G, find_named(G, scores, count=tqdm))
    return found, named_candidates(found)


def rows_of_methods(G, names):
    """({row: function that gives (generator, candidates)} of the methods that need no labels, the same of chance)

    Chance is of directions of one layer each, and, for those with names, of `names` that move all layers.
    """

    def own(found):
        return found, own_candidates(found, DIMS)

    def rotated(i):
        found = with_directions(G, {}, G.w_dim)
        return found, rotated_candidates(found, DIMS, seed=i)

    def through_all(i):
        found = as_editable(G)
        return found, rotated_controls(found, names, seed=i)

    rows = {"raw axes": lambda: own(with_directions(G, {}, DIMS))}
    rows |= {method: lambda method=method: own(find_directions(G, method, DIMS)[0]) for method in METHODS}
    chance = {f"chance {i}": lambda i=i: rotated(i) for i in range(ROTATIONS)}
    return rows, chance | {f"chance of names {i}": lambda i=i: through_all(i) for i in range(ROTATIONS)}


def rows_of_labels(G):
    """The same of the directions with names, on the bench"""
    labeller = open_predictor(BENCH / "predictor-labels.safetensors")
    rows = {}
    for count, draws in COUNTS.items():
        for draw in range(draws):
            rows[f"labels {count}, draw {draw}"] = lambda n=count, d=draw: with_names(G, labelled(G, labeller, n, d))
    rows["the labeller itself"] = lambda: with_names(G, scores_of_probe(probe_of_predictor(G, labeller)))
    return rows


def halves(G, path):
    """(`Scores` to find directions with, predictor to judge them) of the labels in a CSV, each of its own half"""
    labels = read_labels(path)
    if any(attribute.width > 2 for attribute in labels.attributes):
        raise SystemExit(f"{path}: attributes have two values here, or are numbers")
    ws, rows = ws_of_seeds(G, labels.keys), labels.rows
    first, second = (
        Probe(G, ws[half], labels.attributes, rows[half]) for half in (slice(0, None, 2), slice(1, None, 2))
    )
    return scores_of_probe(first), judge_of_probe(second, ws[0::2], rows[0::2])


def judge_of_probe(probe, ws, rows, pictures=4000):
    """A predictor of images: ridge regression on their pixels, learned from what a probe says of many

    Every attribute is a number. Its skill is R² on labels that the probe has not seen, rows of ws.
    """
    from sklearn.linear_model import RidgeCV

    pixels = lambda images: torch.nn.functional.adaptive_avg_pool2d(images, 16).flatten(1) / 127.5 - 1
    drawn = lambda ws: (probe.G.synthesis(ws, noise_mode="const") * 127.5 + 127.5).clamp(0, 255)
    widths = [attribute.width for attribute in probe.labelled]
    last = [sum(widths[: i + 1]) - 1 for i in range(len(widths))]  # the second value's column, or the number's
    parts = random_ws(probe.G, pictures, seed=72).split(50)
    fit = RidgeCV(alphas=[1, 10, 100, 1000], alpha_per_target=True)
    fit.fit(torch.cat([pixels(drawn(p)) for p in parts]), torch.cat([probe.mean(p)[:, last] for p in parts]))
    weights, origin = (torch.from_numpy(each).float() for each in (fit.coef_.T, fit.intercept_))
    network = lambda images: pixels(images) @ weights + origin
    skill = {}
    for i, attribute in enumerate(probe.labelled):
        there = rows[:, i].isfinite()
        pair = torch.stack([network(drawn(ws))[there, i].double(), rows[there, i]])
        skill[attribute.name] = float(torch.corrcoef(pair)[0, 1] ** 2)
    return Predictor([Attribute(attribute.name) for attribute in probe.labelled], network, skill, "labels")


def computed(rows, judge, folder):
    """{row: its result}, each from its file or else measured"""
    results = {}
    for name, make in rows.items():
        path = folder / f"{name.replace(', ', '-').replace(' ', '-')}.json"
        if not path.exists():
            G, candidates = make()
            with cached_weights.enabled():
                found = measure(Ruler(G, judge), candidates, count=lambda steps, name=name: tqdm(steps, desc=name))
            path.write_text(json.dumps(found._asdict() | dict(scores=[s._asdict() for s in found.scores]), indent=1))
        results[name] = json.loads(path.read_text())
        print(f"{name}: {results[name]['selectivity']:.3f}", flush=True)
    return results


def table(results, chance):
    """Markdown of all rows; those that differ in what was drawn alone are one line, with the span of their means"""
    alone = [row for name, row in chance.items() if not name.startswith("chance of names")]
    together = [row for name, row in chance.items() if name.startswith("chance of names")]
    groups = {}
    for name, row in results.items():
        groups.setdefault(name.split(",")[0], []).append(row)
    lines = ["| directions | selectivity (95 %) | above PCA | z | signed | attribute dependency | worst attribute |"]
    lines.append("| --- | --- | --- | --- | --- | --- | --- |")
    for name, rows in (groups | {"chance": alone, "chance of names": together}).items():
        own, signed, dependency = (_mean(rows, field) for field in ("selectivity", "signed", "dependency"))
        draws = torch.tensor([row["bootstrap"] for row in rows]).mean(dim=0)
        said = f"{own:.3f} {_between(draws)}"
        if len(rows) > 1:
            each = [row["selectivity"] for row in rows]
            said += f", {min(each):.3f} to {max(each):.3f}"
        above = _between(draws - torch.tensor(results["pca"]["bootstrap"])) if name != "pca" else ""
        known = [row["selectivity"] for row in (together if "label" in name else alone)]
        z = f"{z_score(own, known):+.1f}" if not name.startswith("chance") and max(known) > 0 else ""
        worst = min((score for row in rows for score in row["scores"]), key=lambda score: score["selectivity"])
        worst = f"{worst['attribute']} {worst['selectivity']:.2f}"
        lines.append(f"| {name} | {said} | {above} | {z} | {signed:.3f} | {dependency:.3f} | {worst} |")
    return "\n".join(lines) + "\n"


def _between(draws):
    return "[{:.3f}, {:.3f}]".format(*interval(draws.tolist()))


def _mean(rows, field):
    return sum(row[field] for row in rows) / len(rows)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--outdir", default="meaning-out")
    parser.add_argument("--network", help="another generator than the bench's")
    parser.add_argument("--labels", help="labels of its seeds")
    parser.add_argument("--rows", help="compute only rows that begin so")
    args = parser.parse_args()
    out = Path(args.outdir)
    out.mkdir(parents=True, exist_ok=True)
    network = args.network or BENCH / "generator.safetensors"
    plain = load_generator(str(network)).eval().requires_grad_(False)
    rows, by_chance = rows_of_methods(plain, len(read_labels(args.labels).attributes) if args.network else 10)
    if args.network:
        scores, judge = halves(as_editable(plain), args.labels)
        print("skill of the judge: " + ", ".join(f"{name} {value:.2f}" for name, value in judge.skill.items()))
        rows["labels"] = lambda: with_names(as_editable(plain), scores)
    else:
        judge = open_predictor(BENCH / "predictor-judge.safetensors")
        rows |= rows_of_labels(as_editable(plain))
    if args.rows:
        rows, by_chance = ({k: v for k, v in each.items() if k.startswith(args.rows)} for each in (rows, by_chance))
    results, chance = computed(rows, judge, out), computed(by_chance, judge, out)
    if results and chance:
        (out / "meaning.md").write_text(table(results, chance))
        print(out / "meaning.md")


if __name__ == "__main__":
    main()
