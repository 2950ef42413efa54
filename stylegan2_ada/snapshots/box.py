"""Generators in the box: `--network=avatars64` is a folder of segan_ext/box, which is installed with the code.

Each holds an export (`snapshots.safetensors`), and may hold an extractor, an atlas, and a README that says how it was
made and under which licence its images are.
"""

from pathlib import Path

_FOLDER = Path(__file__).resolve().parents[2] / "segan_ext" / "box"
GENERATOR, EXTRACTOR, ATLAS = "generator.safetensors", "extractor.safetensors", "atlas.html"


def names() -> list[str]:
    """Of all generators in the box"""
    return sorted(path.parent.name for path in _FOLDER.glob(f"*/{GENERATOR}"))


def find(network: object, file: str = GENERATOR) -> str | None:
    """Path of a file of a generator in the box; None if it has none, or `network` is no name of one."""
    if network not in names():
        return None
    path = _FOLDER / str(network) / file
    return str(path) if path.is_file() else None
