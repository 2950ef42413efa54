"""`grid_sample_gradfix` only knows PyTorch 1.7 to 1.9, warns at every other and falls back to the built-in function.

On PyTorch 2.4 that one has no second derivative yet, which R1 with augmentation needs. The bundled host's has.
"""

import runpy

from segan_ext.host import BUNDLED

TARGET = "torch_utils.ops.grid_sample_gradfix"


def needed(_module):
    return True


def apply(grid_sample_gradfix):
    ours = runpy.run_path(str(BUNDLED / "torch_utils" / "ops" / "grid_sample_gradfix.py"))
    grid_sample_gradfix.grid_sample = ours["grid_sample"]
