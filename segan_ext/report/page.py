"""A report as a page: curves, samples, the table."""

import base64
import html
import io
import re
from collections.abc import Iterable, Sequence
from pathlib import Path

import torch

from segan_ext.images import draw_traversal
from segan_ext.latents import ws_of_seeds
from segan_ext.report.runs import _LOSSES, Column, Run, short_names
from torch_utils import cached_weights


def draw_curves(runs: Sequence[Run], columns: Sequence[Column]) -> bytes | None:
    """PNG bytes: every metric that has a curve, and the losses, over kimg; None if there is nothing to draw."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    panels = []
    for column in columns:
        curves = [_curve(run, column) for run in runs]
        if any(len(curve) > 1 for curve in curves):
            panels.append((column.title, curves))
    panels += [(title, [run.losses[name] for run in runs]) for name, title in _LOSSES.items()]
    panels = [panel for panel in panels if any(panel[1])]
    if not panels:
        return None
    rows = -(-len(panels) // 3)
    figure, axes = pyplot.subplots(rows, 3, figsize=(12, 2.9 * rows), squeeze=False, layout="constrained")
    for axis in axes.flat[len(panels) :]:
        axis.axis("off")
    for axis, (title, curves) in zip(axes.flat, panels):
        for name, curve in zip(short_names(runs), curves):
            if curve:
                axis.plot(*zip(*curve), label=name, marker="o", markersize=3, linewidth=1.5)
        axis.set_title(title, fontsize=10)
        axis.set_xlabel("kimg", fontsize=9)
        axis.grid(alpha=0.3)
        axis.spines[["top", "right"]].set_visible(False)
    handles, labels = max((axis.get_legend_handles_labels() for axis in axes.flat), key=lambda found: len(found[0]))
    figure.legend(handles, labels, loc="outside lower center", fontsize=8, frameon=False, ncols=6)
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", dpi=110)
    pyplot.close(figure)
    return buffer.getvalue()


def _curve(run, column):
    """[(kimg, value), …] of a column's result in one run; the newest where a snapshot was measured twice"""
    name = re.sub(r" \(\d+\)$", "", column.title)
    points = {r.kimg: r.value for r in run.results if (r.name, r.protocol) == (name, column.protocol)}
    return sorted(points.items())


@cached_weights.enabled()
def draw_samples(
    runs: Sequence[Run], generators: Sequence[torch.nn.Module], seeds: Sequence[int], truncation_psi: float
) -> bytes:
    """PNG bytes: a row a run, a column a seed."""
    rows = []
    for G in generators:
        images = G.synthesis(ws_of_seeds(G, seeds, truncation_psi), noise_mode="const").cpu()
        rows.append(images.expand(-1, 3, -1, -1))
    size = max(max(images.shape[2] for images in rows), 96)
    rows = [torch.nn.functional.interpolate(images, [size, size], mode="nearest") for images in rows]
    picture = draw_traversal(torch.stack(rows), short_names(runs), [f"seed {seed}" for seed in seeds])
    buffer = io.BytesIO()
    picture.save(buffer, format="png")
    return buffer.getvalue()


_PAGE = """<!doctype html>
<html lang="en"><meta charset="utf-8"><meta name="viewport" content="width=device-width, initial-scale=1">
<title>Training runs</title>
<style>
 body {{ font: 15px/1.5 system-ui, sans-serif; margin: 2rem auto; max-width: 84rem; padding: 0 1rem; color: #1c1e21 }}
 h1 {{ font-size: 1.6rem }} h2 {{ font-size: 1.2rem; margin-top: 2.2rem }}
 .wide {{ overflow-x: auto }}
 table {{ border-collapse: collapse; font-variant-numeric: tabular-nums }}
 th, td {{ padding: .35rem .7rem; text-align: right; border-bottom: 1px solid #ddd; white-space: nowrap }}
 th {{ white-space: normal; vertical-align: bottom; font-size: .85rem; max-width: 8.5rem }}
 th:first-child, td:first-child {{ text-align: left; position: sticky; left: 0; background: #fff }}
 td b {{ color: #0a6b3d }} li {{ overflow-wrap: anywhere }} .small {{ color: #555; font-size: .85rem }}
 img {{ max-width: 100% }}
</style>
<h1>Training runs</h1>
<p class="small">Green: the best of a column. Numbers compare within a column only. Variety: recall of the last samples
by small pictures, that of other real images being 1.</p>
<div class="wide"><table><thead>{header}</thead><tbody>{rows}</tbody></table></div>
{pictures}
<h2>What the columns depend on</h2>
<ul class="small">{protocols}</ul>
<h2>Runs</h2>
<ul class="small">{names}</ul>
</html>
"""


def page(
    header: Sequence[str],
    rows: Iterable[Sequence[str]],
    names: dict[str, Path],
    protocols: dict[str, str],
    pictures: dict[str, bytes],
) -> str:
    """The report as one HTML file.

    header, rows: of `table_of`. names: {short name: path of the run}. protocols: {titles: what they depend on}.
    pictures: {title: PNG bytes}.
    """

    def row(cells, tag):
        cells = [re.sub(r"^\*\*(.*)\*\*$", r"<b>\1</b>", html.escape(cell)).replace("_", "_<wbr>") for cell in cells]
        return "<tr>" + "".join(f"<{tag}>{cell}</{tag}>" for cell in cells) + "</tr>"

    def picture(title, png):
        data = base64.b64encode(png).decode()
        return f'<h2>{html.escape(title)}</h2><img alt="{html.escape(title)}" src="data:image/png;base64,{data}">'

    def listed(items):
        items = ((html.escape(name), html.escape(str(text))) for name, text in items.items())
        return "".join(f"<li><code>{name}</code>: {text}</li>" for name, text in items)

    return _PAGE.format(
        header=row(header, "th"),
        rows="".join(row(cells, "td") for cells in rows),
        pictures="".join(picture(title, png) for title, png in pictures.items()),
        protocols=listed(protocols),
        names=listed(names),
    )
