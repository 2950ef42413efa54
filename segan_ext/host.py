"""Finds the host, the StyleGAN2-ADA codebase that SEGAN plugs into, and makes it importable."""

import sys
from pathlib import Path

BUNDLED = Path(__file__).resolve().parents[1] / "stylegan2_ada"


def activate():
    """Puts the bundled host first on the path, so that `import dnnlib`, `from training import …` find it."""
    root = str(BUNDLED)
    if root not in sys.path:
        sys.path.insert(0, root)
