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
# Cartoon heads: twelve factors, of which hair in front, hair behind and beard overlap as they do in life.
TOONS = {
    "style": "toon-head",
    "resolution": 64,
    "only": {
        "hairVariant": ["bun", "sideComed", "spiky"],
        "rearHairVariant": ["longStraight", "neckHigh", "none"],
        "beardVariant": ["fullBeard", "moustacheTwirl", "none"],
        "mouthVariant": ["laugh", "sad", "smile"],
        "eyesVariant": ["happy", "wide", "wink"],
        "clothesColor": ["#0b3286", "#b11f1f", "#eab308"],
        "clothesVariant": ["tShirt"],
        "eyebrowsVariant": ["neutral"],
    },
    "ranges": {
        "hairColor": ("#2c1b18", "#e8b96a"),
        "skinColor": ("#5c3829", "#f1c3a5"),
        "backgroundColor": ("#8ecae6", "#ffd5dc"),
        "rotate": (-10, 10),
        "scale": (1.0, 1.2),
        "translateX": (-6, 6),
        "translateY": (0, 0),
    },
}
RECIPES = {"bench": BENCH, "toons": TOONS}
