"""What is shared of a generator: a folder with its export, pictures, and a model card that says what it is."""

import json
import re
import shlex
import shutil
from pathlib import Path

import torch

from segan_ext.control.named import as_file, named_directions
from segan_ext.control.traversal import captions, strongest, traversal
from segan_ext.images import draw_grid, write_pictures
from segan_ext.latents import labels_of, ws_of_seeds
from segan_ext.report.runs import Result, results_beside
from segan_ext.report.table import in_words, parameters_of
from segan_ext.semantics.extractors import open_extractor
from snapshots import hub
from snapshots.safetensors import save_safetensors
from torch_utils import cached_weights
from training.images import save_picture

_ROWS, _COLUMNS = 4, 8  # of the samples
_CONTROLS, _SIGMAS, _STEPS = 24, 3.0, 7  # of the picture of controls: rows at most, reach, images a row


def check_licence(licence: str) -> str:
    """The identifier itself. ValueError unless it is of the hub's form."""
    if not re.fullmatch(r"[a-z0-9][a-z0-9.-]{0,63}", licence):
        raise ValueError(f"{licence[:80]!r} is no licence as the hub names them, such as cc-by-4.0, mit or other")
    return licence


def write_repository(
    G: torch.nn.Module,
    folder: Path,
    address: str,
    licence: str,
    network: str | Path | None = None,
    atlas: str | Path | None = None,
    extractor: str | Path | None = None,
) -> list[str]:
    """Writes all that a repository of a generator holds into a folder; returns the names of the files.

    address: hub:OWNER/NAME, which the card says how to load. licence: as in `check_licence`. network: the local file
    that G is of; metrics that were measured of it are taken from beside it, and so are `atlas.html` and
    `extractor.safetensors` where no atlas or extractor is given. OSError or ValueError after the option that is wrong.
    """
    beside = Path(network).parent if network else None
    save_safetensors(G, str(folder / hub.GENERATOR))
    for option, given, name in (("atlas", atlas, "atlas.html"), ("extractor", extractor, hub.EXTRACTOR)):
        if given is None and beside is not None and (beside / name).is_file():
            given = beside / name
        if given is not None:
            _copy(option, given, folder / name, G)
    named = named_directions(G)
    if named:
        (folder / "directions.json").write_text(json.dumps(as_file(named.values()), indent=1), encoding="utf-8")
    _draw(G, folder)
    text = card(G, address, licence, results_beside(network) if network else [], {p.name for p in folder.iterdir()})
    (folder / "README.md").write_text(text, encoding="utf-8")
    return sorted(path.name for path in folder.iterdir())


def _copy(option, source, dest, G):
    """Copies an atlas or an extractor. ValueError or OSError, after its option, for a file that is none."""
    try:
        if option == "extractor":
            source = hub.local_path(source, hub.EXTRACTOR)
            open_extractor(source, G)
        elif "const entries = [" not in Path(source).read_text("utf-8"):
            raise ValueError(f"{source} is no page of `explore --atlas`")
        shutil.copyfile(source, dest)
    except (OSError, ValueError) as error:
        raise ValueError(f"--{option}: {error}") from error


@cached_weights.enabled()
@torch.no_grad()
def _draw(G, folder):
    """samples.png and, of a generator with controls, controls.png"""
    rows = [
        torch.cat([G.synthesis(ws_of_seeds(G, [seed], 1, seed), noise_mode="const") for seed in row])
        for row in torch.arange(_ROWS * _COLUMNS).view(_ROWS, _COLUMNS).tolist()
    ]
    save_picture(draw_grid(torch.stack(rows).cpu()), folder / "samples.png")
    if getattr(G, "subspaces", dict)():
        shown = strongest(G, len(named_directions(G)) or 8)[:_CONTROLS]
        images = traversal(G, shown, 0, _SIGMAS, _STEPS)
        write_pictures(folder / "controls.png", images.cpu(), *captions(G, shown, _SIGMAS, _STEPS))


def card(G: torch.nn.Module, address: str, licence: str, results: list[Result], files: set[str]) -> str:
    """The text of README.md. results: metrics of G. files: names of those that lie beside it."""
    name, named = hub.parse(address)[0].partition("/")[2], named_directions(G)
    front = dict(license=licence, library_name="segan", pipeline_tag="unconditional-image-generation")
    front["tags"] = "[segan, stylegan2]"
    figures = [("images", f"{G.img_resolution}×{G.img_resolution}, {'grey' if G.img_channels == 1 else 'colour'}")]
    figures += [("classes", f"{labels_of(G, 1).shape[1]}")] if G.c_dim else []
    figures += [("learned numbers", f"{parameters_of(G):,}"), ("z, w", f"{G.z_dim}, {G.w_dim}")]
    figures += [(f"`{each.name}`", f"{each.value:.4g} ({in_words(each.protocol)})") for each in results]
    lines = ["---", *(f"{key}: {value}" for key, value in front.items()), "---", "", f"# {name}", ""]
    lines += [f"A generator of images by SEGAN{f', with {len(named)} named controls' if named else ''}.", ""]
    lines += ["![Random samples](samples.png)", "", "| | |", "| --- | --- |", *(f"| {a} | {b} |" for a, b in figures)]
    if "controls.png" in files:
        lines += ["", "## Controls", "", "![A row for each control, moved over its range](controls.png)"]
    if named:
        lines += ["", "| name | range | what is known of it |", "| --- | --- | --- |"]
        cell = lambda text: text.replace("|", "/").replace("\n", " ")
        lines += [f"| {cell(d.name)} | {d.low:+.1f} to {d.high:+.1f} | {cell(d.said())} |" for d in named.values()]
    return "\n".join([*lines, *_loading(address, named, files)]) + "\n"


def _loading(address, named, files):
    """Lines that say how to use what is shared"""
    edit = f"--set {shlex.quote(next(iter(named)) + '=+1')} " if named else "--set L1.N0.D0=+2 "
    lines = ["", "## Use", "", "```", "pip install 'segan[hub]'", f"python -m segan_ext samples --network={address}"]
    if "controls.png" in files:
        lines += [f"python -m segan_ext edit --network={address} --seeds=0-3 {edit}--outdir=out"]
        lines += [f"python -m segan_ext web --network={address}"]
    if hub.EXTRACTOR in files:
        lines[-1] += f" --extractor={address}"
    lines += ["```", "", "```python", "import segan_ext as segan", "", f'G = segan.load_generator("{address}")']
    lines += ["ws = segan.ws_of_seeds(G, [0, 1], truncation_psi=0.7)"]
    lines += ['images = G.synthesis(ws, noise_mode="const")  # [2, C, H, W] in [-1, 1]', "```", ""]
    lines += [f"`{hub.GENERATOR}` and `{hub.CONFIG}` are the generator, which opens without running any code."]
    lines += ["`atlas.html` shows what each dimension does."] if "atlas.html" in files else []
    lines += ["`directions.json` describes the named controls."] if named else []
    lines += ["`extractor.safetensors` finds regions in its images."] if hub.EXTRACTOR in files else []
    return lines
