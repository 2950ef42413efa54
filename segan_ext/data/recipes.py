"""Sets of avatars that are fixed under a name, to compare results on."""

from __future__ import annotations

# Ten factors that vary independently of each other, each in plain sight at 32×32: six along a range, a colour of three,
# and three parts in three forms. Everything else is held still.
BENCH = {
    "style": "personas",
    "resolution": 32,
    "only": {
        "hairVariant": ["curly", "long", "shortCombover"],
        "mouthVariant": ["bigSmile", "lips", "surprise"],
        "eyesVariant": ["glasses", "open", "sunglasses"],
        "clothingColor": ["#456dff", "#e24553", "#f3b63a"],
        "clothesVariant": ["rounded"],
        "facialHairVariant": ["none"],
        "noseVariant": ["mediumRound"],
    },
    "ranges": {
        "hairColor": ("#362c47", "#f7c873"),
        "skinColor": ("#623d36", "#fbd3c4"),
        "backgroundColor": ("#8fbfe8", "#ffd29c"),
        "rotate": (-15, 15),
        "scale": (1.1, 1.4),
        "translateX": (-10, 10),
        "translateY": (-4, -4),
    },
}
RECIPES = {"bench": BENCH}
