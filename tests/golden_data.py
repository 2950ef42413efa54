"""Reads the golden files: inputs and outputs of the reference implementation (golden/README.md)."""

import importlib
import json
import os
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch

FOLDER = Path(__file__).parent / "golden"
DEVICE = os.environ.get("SEGAN_TEST_DEVICE", "cpu")  # where the tensors are that tests get
torch.backends.cudnn.allow_tf32 = False  # ten bits are too few for their tolerances


class GoldenFile:
    """One .npz with the cases that its `meta` describes."""

    def __init__(self, name):
        self.name = name
        self.arrays = dict(np.load(FOLDER / name))
        self.meta = json.loads(str(self.arrays.pop("meta")))
        self.cases = [Case(self, case) for case in self.meta["cases"]]

    def tensors(self, prefix):
        """{name: tensor} of all arrays whose key starts with `prefix`, in the order of the file."""
        return {
            k[len(prefix) :]: torch.from_numpy(v).to(DEVICE) for k, v in self.arrays.items() if k.startswith(prefix)
        }


class Case(NamedTuple):
    file: GoldenFile
    info: dict

    @property
    def name(self):
        return self.info["name"]

    def inputs(self):
        return {
            arg: torch.from_numpy(self.file.arrays[key].copy()).to(DEVICE) for arg, key in self.info["inputs"].items()
        }

    def function(self):
        module, name = self.info["target"].rsplit(".", 1)
        return getattr(importlib.import_module(module), name)

    def check(self, label, got):
        """AssertionError unless `got` is the output `label` within the case's tolerance."""
        want = np.asarray(self.file.arrays[self.info["outputs"][label]], np.float64)
        got = got.detach().cpu().numpy() if isinstance(got, torch.Tensor) else got
        got = np.asarray(got, np.float64)
        rtol = self.info.get("rtol_by_output", {}).get(label, self.info.get("rtol", self.file.meta["rtol"]))
        atol = self.info.get("atol", self.file.meta["atol"])
        assert got.shape == want.shape, f"{self.name}/{label}: shape {got.shape}, expected {want.shape}"
        if want.size:
            error, allowed = np.abs(got - want).max(), atol + rtol * np.abs(want).max()
            assert error <= allowed, f"{self.name}/{label}: off by {error:.3g}, allowed {allowed:.3g}"


def case_ids(cases):
    return [f"{case.file.name.removesuffix('.npz')}:{case.name}" for case in cases]
