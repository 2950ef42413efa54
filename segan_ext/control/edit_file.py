"""Edits as files: JSON with the latents, which replays to the same bytes."""

import base64
import io
import re
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image

from segan_ext.control.address import Address, Name
from segan_ext.control.named import NamedDirection, as_records, from_records
from segan_ext.control.render import parse_edits
from training.files import decode, open_picture, parse_json, without_alpha

_FORMAT = "segan-edit"
_VERSION = 2  # 1 knew no names of directions


def read_mask(path: str | Path, resolution: int) -> torch.Tensor:
    """[resolution, resolution] in [0, 1] of a grey picture. ValueError for another size or what is no picture."""
    picture = without_alpha(open_picture(path), "black")  # where nothing was painted, nothing stays
    mask = np.asarray(picture.convert("L"), np.float32) / 255
    if mask.shape != (resolution, resolution):
        size = f"{mask.shape[1]}×{mask.shape[0]}"
        raise ValueError(f"the mask is {size}; the images are {resolution}×{resolution}")
    return torch.from_numpy(mask)


def describe(
    network: str | Path,
    edits: dict[Address | Name, float],
    ws: torch.Tensor,
    names: list[str],
    noise_mode: str,
    mix: Iterable[tuple[int, int, int, torch.Tensor]] = (),
    kept: torch.Tensor | None = None,
    inside: torch.Tensor | None = None,
    directions: Mapping[str, NamedDirection] = {},
) -> dict[str, Any]:
    """An edit as what is written to its JSON.

    names: of the images of ws [N, num_ws, w_dim]. mix: (L, N, seed, its w [w_dim]) of each mixed layer.
    kept: mask [H, W] of what stays in all images. inside: masks [N, H, W] of what alone may change in each.
    directions: those that the edits name, so that the file needs no other.
    """
    content = dict(format=_FORMAT, version=_VERSION, network=str(network), names=names, noise_mode=noise_mode)
    content["edits"] = {str(address): amount for address, amount in edits.items()}
    content["mix"] = [[L, N, seed, w.tolist()] for L, N, seed, w in mix]
    content["ws"] = dict(shape=list(ws.shape), float32=base64.b64encode(ws.cpu().float().numpy().tobytes()).decode())
    if directions:
        content["directions"] = as_records(directions[name] for name in edits if name in directions)
    if kept is not None:
        content["keep"] = _as_png(kept)
    if inside is not None:
        content["inside"] = [_as_png(mask) for mask in inside]
    return content


def _as_png(mask):
    """A mask [H, W] in [0, 1] as text"""
    buffer = io.BytesIO()
    Image.fromarray((mask.cpu().numpy() * 255).round().astype(np.uint8)).save(buffer, format="PNG")
    return base64.b64encode(buffer.getvalue()).decode()


def _from_png(text):
    return torch.from_numpy(np.asarray(decode(base64.b64decode(text)).convert("L"), np.float32) / 255)


def read_edit(path: str | Path, G: torch.nn.Module, masks: bool = True) -> dict[str, Any]:
    """What `describe` gave, with ws and masks as tensors (None without), edits as in `parse_edits`.

    masks: False leaves them out. OSError, or ValueError for another file, or an edit that G is too different for.
    """
    try:
        content = parse_json(Path(path).read_bytes())
        if content["format"] != _FORMAT:
            raise KeyError("format")
        shape, data = content["ws"]["shape"], base64.b64decode(content["ws"]["float32"])
        content["ws"] = torch.from_numpy(np.frombuffer(data, np.float32).copy()).reshape(shape)
        content["edits"] = dict(content["edits"])
        content["mix"] = [(int(L), int(N), int(seed), torch.tensor(w)) for L, N, seed, w in content.get("mix") or []]
        records = list(content.get("directions") or [])
        content["keep"] = _from_png(content["keep"]) if masks and content.get("keep") else None
        inside = content.get("inside") if masks else None
        content["inside"] = torch.stack([_from_png(mask) for mask in inside]) if inside else None
        names, noise_mode, version = content["names"], content["noise_mode"], content["version"]
    except (ValueError, KeyError, TypeError, RuntimeError, OverflowError) as error:
        raise ValueError(f"{path} is no edit; `python -m segan_ext edit` writes such files as edit.json") from error
    if version not in range(1, _VERSION + 1):
        raise ValueError(f"{path} is of version {version!r}; this version of SEGAN reads 1 to {_VERSION}")
    if noise_mode not in ("const", "none") or not _are_names(names, len(content["ws"])):
        raise ValueError(f"{path} is no edit: it has names or a noise mode that none has")
    try:
        content["directions"] = from_records(records, G)
    except ValueError as error:
        raise ValueError(f"{path}: {error}") from error
    content["edits"] = parse_edits(G, content["edits"], content["directions"])
    _check_fit(content, G, path)
    return content


def _are_names(names, count):
    """True for that many different names of files in one folder"""
    plain = lambda name: isinstance(name, str) and re.fullmatch(r"[^/\\\x00-\x1f]{1,100}", name) and name.strip(". ")
    return isinstance(names, list) and len(names) == count and all(map(plain, names)) and len(set(names)) == count


def _check_fit(content, G, path):
    """ValueError unless the tensors of an edit are of the sizes that G has"""
    ws, size = content["ws"], [G.img_resolution] * 2
    misfits = [f"w of {list(ws.shape[1:])}"] if list(ws.shape[1:]) != [G.num_ws, G.w_dim] else []
    misfits += ["w that is not finite"] if not ws.isfinite().all() else []
    for L, N, _seed, w in content["mix"]:
        if (L, N) not in getattr(G, "subspaces", dict)() or list(w.shape) != [G.w_dim]:
            misfits.append(f"a mix at L{L}.N{N}")
    kept, inside = content["keep"], content["inside"]
    misfits += ["a mask"] if kept is not None and list(kept.shape) != size else []
    misfits += ["masks"] if inside is not None and list(inside.shape) != [len(ws), *size] else []
    if misfits:
        raise ValueError(f"{path} is of another generator: it has {misfits[0]}")


# Of an edit, in the order of `describe`
PARTS = ("edits", "ws", "names", "noise_mode", "mix", "keep", "inside", "directions")
