"""Draws docs/avatars-masks.png: avatars of three styles, each above its mask."""

import sys
from pathlib import Path

import numpy as np
from PIL import Image

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

from segan_ext.data.drawing import CLASSES, render_avatar, render_mask  # noqa: E402

# One colour a class, in the order of CLASSES.
PALETTE = ["f0f0f0", "f2c79b", "6b3e26", "2b6cb0", "111111", "d53f8c", "ecc94b", "8a5a2b", "38b2ac", "6b46c1", "a0aec0"]


def main(size=96, columns=10):
    palette = np.array([list(bytes.fromhex(colour)) for colour in PALETTE], dtype=np.uint8)
    assert len(palette) == len(CLASSES)
    rows = []
    for style in ("toon-head", "avataaars", "personas"):
        drawn = [render_avatar(style, 0, i, size) for i in range(columns)]
        rows.append(np.concatenate([image for image, _ in drawn], axis=1))
        masks = [render_mask(style, factors, size, f"0-{i}") for i, (_, factors) in enumerate(drawn)]
        rows.append(palette[np.concatenate(masks, axis=1)])
    Image.fromarray(np.concatenate(rows)).save(ROOT / "docs" / "avatars-masks.png")


if __name__ == "__main__":
    main()
