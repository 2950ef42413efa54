"""Draws avatars of DiceBear's styles, and the exact class of every pixel of them.

DiceBear picks the parts and colours of an avatar from a seed, resvg rasterises its SVG. The picks are the image's
factors, named like the DiceBear options that set them (hairVariant, hairColor, rotate ...), so they also drive it:

    image, factors = render_avatar("toon-head", seed=0, index=7, resolution=64)
    sad = render("toon-head", factors | {"mouthVariant": "sad"}, resolution=64)
    mask = render_mask("toon-head", factors, resolution=64)  # the class of each pixel of `image`
"""

from __future__ import annotations

import difflib
import functools
import importlib.resources
import io
import json
import random
import re

import numpy as np
from PIL import Image

CLASSES = ("background", "skin", "hair", "eyes", "brows", "mouth", "nose", "beard", "glasses", "clothes", "other")
BACKGROUNDS = ["#b6e3f4", "#ffd5dc", "#a3d9a5", "#d1c4f6", "#ffe6a7", "#ffb997", "#8ecae6", "#f4f1ea"]
# Degrees, a factor, and % of the width. Smaller scales would show where the drawing of the shoulders ends.
POSE = {"rotate": (-8, 8), "scale": (1.0, 1.2), "translateX": (-5, 5), "translateY": (-4, 4)}
Ranges = dict[str, tuple[float, float] | tuple[str, str]]  # a pose's or a colour's two ends

# ---------------------------------------------------------------------------------------------------------------------
# Styles


def list_styles() -> list[str]:
    """Sorted names of the installed styles. Raises ValueError if the packages are missing."""
    try:
        import dicebear  # noqa: F401
        import resvg_py  # noqa: F401

        folder = importlib.resources.files("dicebear_styles")
    except ImportError as error:
        raise ValueError("--style: avatars need `pip install 'segan[avatars]'`") from error
    return sorted(file.name.removesuffix(".json") for file in folder.iterdir() if file.name.endswith(".json"))


@functools.lru_cache(maxsize=64)
def style_json(style: str) -> dict:
    """Definition of a style, not to be modified. Raises ValueError for an unknown name."""
    styles = list_styles()
    if style not in styles:
        near = difflib.get_close_matches(style, styles, cutoff=0.4) or ["toon-head", "avataaars", "personas"]
        raise ValueError(f"--style: there is no '{style}'; nearest: {', '.join(near)} (all: --list-styles)")
    definition = json.loads(importlib.resources.files("dicebear_styles").joinpath(f"{style}.json").read_text("utf-8"))
    parts = definition.get("components", {})
    # A copy of a part ("extends") has no options of its own in DiceBear: make it a part like any other.
    definition["components"] = {name: parts[part.get("extends", name)] for name, part in parts.items()}
    return definition


@functools.lru_cache(maxsize=8)
def _style(style: str, masks: bool = False):
    from dicebear import Style  # validates the whole definition: build it once

    return Style(_class_coloured(style_json(style)) if masks else style_json(style))


def style_licence(style: str) -> dict[str, str]:
    """Title, creator, licence and licence_url of a style."""
    meta = style_json(style)["meta"]
    terms, title, creator = meta.get("license", {}), meta.get("source", {}), meta.get("creator", {})
    return {
        "title": title.get("name", style),
        "creator": creator.get("name", "unknown"),
        "licence": terms.get("name", "unknown").rstrip("."),
        "licence_url": terms.get("url", ""),
    }


@functools.lru_cache(maxsize=8)
def style_factors(style: str) -> dict[str, list[str] | None]:
    """What varies in a style: name -> its values (the last, "none", if the image shows none), or None for a float."""
    definition, factors = style_json(style), {}
    for part, data in definition["components"].items():
        variants = sorted(name for name, variant in data["variants"].items() if variant.get("weight", 1) > 0)
        if len(variants) > 1 or data.get("probability", 100) < 100:
            factors[f"{part}Variant"] = [*variants, "none"]
    for colour, data in definition.get("colors", {}).items():
        if len(data["values"]) > 1 and colour != "background":
            factors[f"{colour}Color"] = [*sorted({value.lower() for value in data["values"]}), "none"]
    factors["backgroundColor"] = BACKGROUNDS
    for part, data in definition["components"].items():  # in some styles parts move by themselves
        moves = [m.capitalize() for m in ("rotate", "scale") if m in data]
        moves += [f"Translate{axis.upper()}" for axis in data.get("translate", {})]
        factors |= {part + move: None for move in moves}
    return factors | dict.fromkeys(POSE)


# ---------------------------------------------------------------------------------------------------------------------
# Drawing


def render_avatar(
    style: str,
    seed: int,
    index: int,
    resolution: int,
    zoom: float = 1,
    jitter: float = 1,
    only: dict[str, list[str]] | None = None,
    ranges: Ranges | None = None,
) -> tuple[np.ndarray, dict[str, str | float]]:
    """Draw avatar `index` of the set `seed`: its image, uint8 [H, W, 3], and the value of each of its factors.

    zoom enlarges the face; jitter says how much tilt, scale and shift vary: 1 as in POSE, 0 not at all; only limits
    factors to some of their values. ranges lets a pose or a colour vary evenly between two ends; the factor of such a
    colour is its share of the second end, 0 to 1.
    """
    key, ranges = f"{seed}-{index}", ranges or {}
    shares = {name: random.Random(f"{key}-{name}").random() for name in ranges if name.endswith("Color")}
    options = {"seed": key, "backgroundColor": BACKGROUNDS} | _pose(style, zoom, jitter) | _limited(only or {})
    options |= {name: list(ends) for name, ends in ranges.items() if name in POSE}
    options |= {name: [blend(ranges[name], share)] for name, share in shares.items()}
    avatar = _avatar(_style(style), options)
    return _rasterise(avatar["svg"], resolution), _resolved_factors(style, avatar["options"]) | shares


def _limited(only: dict[str, list[str]]) -> dict:
    """DiceBear options that leave factors some of their values, "none" as likely as each of the others"""
    options = {}
    for name, values in only.items():
        shown = [value for value in values if value != "none"]
        if len(shown) < len(values):
            options[f"{name.removesuffix('Variant')}Probability"] = round(100 * len(shown) / len(values))
        if shown:
            options[name] = shown
    return options


def blend(ends: tuple[str, str], share: float) -> str:
    """The colour #rrggbb between two others; share: 0 gives the first, 1 the second"""
    first, second = (np.array(list(bytes.fromhex(end[1:]))) for end in ends)
    return "#" + bytes(np.rint(first + share * (second - first)).astype(np.uint8)).hex()


def render(style: str, factors: dict[str, str | float], resolution: int, seed: str = "") -> np.ndarray:
    """Draw the avatar that has `factors`, uint8 [H, W, 3]; what they leave out is picked by `seed`.

    Parts that move by themselves (eyesRotate ...) have no DiceBear option and follow `seed`; f"{seed}-{index}" repeats
    those of `render_avatar`. Raises ValueError for a name or value that the style lacks.
    """
    return _rasterise(_avatar(_style(style), _options(style, factors, seed))["svg"], resolution)


def render_mask(style: str, factors: dict[str, str | float], resolution: int, seed: str = "") -> np.ndarray:
    """Classes of the pixels of `render` (same arguments), uint8 [H, W]: index in CLASSES of what fills most of each."""
    options = _options(style, factors, seed) | {"backgroundColor": CLASS_HEX[0]}
    fine = _rasterise(_avatar(_style(style, masks=True), options)["svg"], resolution * OVERSAMPLE)
    classes = NEAREST[((fine.astype(np.int32) + 64) // 128) @ [9, 3, 1]]  # [4H, 4W]
    cells = classes.reshape(resolution, OVERSAMPLE, resolution, OVERSAMPLE)
    votes = [(cells == label).sum((1, 3)) for label in range(len(CLASSES))]
    return np.argmax(votes, axis=0).astype(np.uint8)


def _avatar(style, options: dict) -> dict:
    from dicebear import Avatar

    return Avatar(style, options).to_json()


def _rasterise(svg: str, resolution: int) -> np.ndarray:
    import resvg_py

    # Without system fonts, since they would let images differ from one machine to the next.
    png = resvg_py.svg_to_bytes(svg_string=svg, width=resolution, height=resolution, skip_system_fonts=True)
    return np.asarray(Image.open(io.BytesIO(bytes(png))).convert("RGB"))


def _resolved_factors(style: str, resolved: dict) -> dict[str, str | float]:
    factors = {}
    for name, values in style_factors(style).items():
        if values is None:
            factors[name] = float(resolved.get(name, 1 if name.endswith("Scale") else 0))
        else:
            value = resolved.get(name, "none")  # a colour is a list, of one since nothing asks for gradients
            factors[name] = value[0].lower() if isinstance(value, list) else value
    return factors


def _options(style: str, factors: dict, seed: str) -> dict:
    """DiceBear options that leave nothing of `factors` to chance."""
    known, options = style_factors(style), {"seed": seed}
    for name, value in factors.items():
        mixed = name.endswith("Color") and re.fullmatch("#[0-9a-f]{6}", str(value))
        if name not in known or (known[name] and value not in known[name] and not mixed):
            raise ValueError(f"--only: style {style} has no {name} = {value}; {nearest(name, known)}")
        if name.endswith("Variant"):
            options[f"{name.removesuffix('Variant')}Probability"] = 0 if value == "none" else 100
        if value != "none" and (known[name] or name in POSE):
            options[name] = value
    return options


def nearest(name: str, known: dict) -> str:
    """The end of an error about a factor `name` or its value. known: {factor: its values, empty if it is a range}"""
    if known.get(name):
        return f"its values: {', '.join(known[name])}"
    near = difflib.get_close_matches(name, known)
    return f"nearest: {', '.join(near)}" if near else f"it has {', '.join(known)}"


def _pose(style: str, zoom: float, jitter: float) -> dict[str, list[float]]:
    """Ranges of tilt, scale, shift; zoom brings the eyes to the middle, as far as the drawing still fills the image."""
    pose = {name: [jitter * end for end in span] for name, span in POSE.items()}
    pose["scale"] = [zoom * (1 + jitter * (end - 1)) for end in POSE["scale"]]
    if zoom > 1:
        for name, centre in zip(("translateX", "translateY"), eye_centre(style), strict=True):
            shift = round(float(np.clip((50 - centre) * zoom, -50 * (zoom - 1), 50 * (zoom - 1))), 2)
            pose[name] = [shift + end for end in pose[name]]
    return pose


@functools.lru_cache(maxsize=8)
def eye_centre(style: str) -> tuple[float, float]:
    """Where the eyes of a style lie, (x, y) in % of the image: mean of 16 avatars, (50, 50) if there are none."""
    still = {"rotate": 0.0, "scale": 1.0, "translateX": 0.0, "translateY": 0.0}
    masks = [render_mask(style, still, resolution=64, seed=str(i)) for i in range(16)]
    _, rows, columns = np.equal(masks, CLASSES.index("eyes")).nonzero()
    return (float(columns.mean() + 0.5) / 0.64, float(rows.mean() + 0.5) / 0.64) if len(rows) else (50.0, 50.0)


# ---------------------------------------------------------------------------------------------------------------------
# Masks: the same drawing in class colours

OVERSAMPLE = 4
# One colour a class with channels 0, 128 or 255; NEAREST [27] is the class of every colour made of these.
CLASS_HEX = ["#000000", "#ff0000", "#00ff00", "#0000ff", "#ffff00", "#ff00ff", "#00ffff", "#ffffff"]
CLASS_HEX += ["#8000ff", "#ff8000", "#008080"]
LEVELS = np.array([[r, g, b] for r in (0, 128, 255) for g in (0, 128, 255) for b in (0, 128, 255)])
CLASS_RGB = np.array([list(bytes.fromhex(colour[1:])) for colour in CLASS_HEX])
NEAREST = np.abs(LEVELS[:, None] - CLASS_RGB).sum(-1).argmin(-1)

PART_NAMES = {  # names of parts and colours, all styles together; other parts are "other"
    "skin": "skin base head face ears body cheeks blush freckles details",
    "hair": "hair frontHair rearHair sideburns top headContrast paperHair",
    "eyes": "eyes sclera",
    "brows": "eyebrows brows",
    "mouth": "mouth teeth lips tongue throat uvula",
    "nose": "nose",
    "beard": "beard mustache facialHair",
    "glasses": "glasses",
    "clothes": "clothes clothesGraphic clothing outfit shirt jacket pants shoes shoulders",
    "other": "hat accessories hairAccessories earring earrings",
}
CLASS_OF = {name: label for label, names in PART_NAMES.items() for name in names.split()}
# Variants that are not what their part is called, such as hats among the hair: (class of the part, pattern, class).
VARIANTS = (
    (("eyes",), re.compile("glasses", re.I), "glasses"),
    (("other",), re.compile("glasses|prescription|wayfarers|kurt|round|eyepatch", re.I), "glasses"),
    (("skin", "other"), re.compile("mustache", re.I), "beard"),
    (("skin", "hair"), re.compile("hat|hijab|turban|beanie|cap$", re.I), "other"),
)
# Where the colour says more than the part: skin below a haircut, hair on a head, a hat's brim.
COLOUR_DECIDES = {"skin": CLASSES, "hair": ("skin", "other"), "clothes": ("skin",), "other": ("skin", "hair")}


def _class_coloured(definition: dict) -> dict:
    """The style with every fill and stroke in its class colour: opaque, unblended, unfiltered, with hard edges."""
    definition = json.loads(json.dumps(definition))
    root = definition.setdefault("attributes", {})
    root["shape-rendering"] = "crispEdges"
    paints = {"fill": root.get("fill", "black"), "stroke": root.get("stroke", "none")}
    for element in definition["canvas"]["elements"]:
        _recolour(element, "skin", paints)  # faces that are no part
    for part, data in definition["components"].items():
        for variant, drawing in data["variants"].items():
            label = CLASS_OF.get(part, "other")
            label = next((worn for of, pattern, worn in VARIANTS if label in of and pattern.search(variant)), label)
            for element in drawing["elements"]:
                _recolour(element, label, paints)
    return definition


def _recolour(element: dict, label: str, inherited: dict, opacity: float = 1.0) -> None:
    """Recolour an element and its children in place; `inherited` is the fill and stroke of its parent."""
    if element["type"] != "element" or element["name"] in ("mask", "clipPath", "filter", "style"):
        return  # parts have their own classes; clips and masks are shapes, not paint
    attributes, children = element.setdefault("attributes", {}), element.get("children", [])
    opacity *= float(attributes.pop("opacity", 1))
    attributes.pop("filter", None)
    if "mask-type" not in attributes.get("style", ""):
        attributes.pop("style", None)  # blend modes
    paints = {name: attributes.get(name, inherited[name]) for name in ("fill", "stroke")}
    for name, colour in paints.items():
        alpha = opacity * float(attributes.pop(f"{name}-opacity", 1))
        # Shadows, blush and clear lenses tint what lies beneath and do not hide it.
        hidden = colour == "none" or (alpha < 0.5 and not children)
        attributes[name] = "none" if hidden else CLASS_HEX[CLASSES.index(_paint_class(colour, label))]
    for child in children:
        _recolour(child, label, paints, opacity)


def _paint_class(colour: str | dict, label: str) -> str:
    named = CLASS_OF.get(colour["name"], label) if isinstance(colour, dict) else label
    return named if named in COLOUR_DECIDES.get(label, ()) else label
