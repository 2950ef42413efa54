"""Writes snapshots, whole or not at all."""

import os
import pickle
from typing import Any

from snapshots.atomic import write_atomically


def save_snapshot(path: str | os.PathLike, networks: dict[str, Any]) -> None:
    """Writes the dict of G, D, G_ema, augment_pipe and training_set_kwargs that `load_network_pkl` gives.

    path: of the .pkl. OSError if it cannot be written; what was there before is then as it was.
    """
    write_atomically(str(path), lambda file: pickle.dump(networks, file))
