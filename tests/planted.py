"""A generator whose dimensions are known to drive known factors: it draws avatars.

Coordinate d of w reaches the drawing through the one subspace that has it planted; everywhere else it does nothing.
"""

import functools
import math
import tempfile
from pathlib import Path

import numpy as np
import torch

from segan_ext.data.avatars import make_avatars
from segan_ext.data.drawing import POSE, render
from segan_ext.metrics import attributes
from segan_ext.networks import ImportanceSubspace, SEGANGenerator
from training.dataset import ImageFolderDataset

STYLE = "toon-head"
# What varies, each in two values or along a range; everything else is as in FIXED.
VALUES = {
    "backgroundColor": ["#8ecae6", "#ffb997"],
    "skinColor": ["#5c3829", "#f1c3a5"],
    "hairColor": ["#2c1b18", "#d6b370"],
    "clothesColor": ["#0b3286", "#eab308"],
    "hairVariant": ["bun", "undercut"],
    "rotate": None,
    "translateX": None,
    "translateY": None,
}
FIXED = {
    "clothesVariant": ["shirt"],
    "eyebrowsVariant": ["neutral"],
    "eyesVariant": ["wide"],
    "mouthVariant": ["smile"],
    "beardVariant": ["none"],
    "rearHairVariant": ["none"],
}
# address of a subspace → the factors of its dimensions; the dimension is the factor's place in VALUES
PLANTS = {
    (0, 0): ["rotate", "translateX"],
    (1, 0): ["translateY", "hairVariant"],
    (1, 1): ["hairColor", "skinColor"],
    (2, 0): ["backgroundColor", "clothesColor"],
}


def make_data(dest, count, resolution):
    """A data set in which just VALUES vary"""
    only = FIXED | {name: values for name, values in VALUES.items() if values}
    only = {name: values for name, values in only.items() if values != ["none"]}
    return make_avatars(dest, count, resolution, STYLE, workers=1, only=only, progress=False)


@functools.cache
def learned_predictor():
    """A predictor that has learned VALUES from a data set"""
    folder = tempfile.mkdtemp()
    data = ImageFolderDataset(str(make_data(Path(folder) / "avatars.zip", 1000, 32)), use_labels=True)
    known, rows = attributes.known_attributes(data)
    network, skill = attributes.train(data, known, rows, kimg=8, progress=False)
    skill = {name: value if name in VALUES else 0 for name, value in skill.items()}  # the rest does not vary
    return attributes.Predictor(known, network, skill)


class PlantedGenerator(torch.nn.Module):
    """z is w is the coordinates. mixing: what turns coordinates [N, K] into those that drive the factors."""

    c_dim, img_channels = 0, 3
    edited = SEGANGenerator.edited

    def __init__(self, resolution=32, mixing=lambda c: c):
        super().__init__()
        self.z_dim = self.w_dim = len(VALUES)
        self.num_ws, self.img_resolution, self.mixing = len(PLANTS), resolution, mixing
        for L, N in PLANTS:
            self.add_module(f"subspace{L}{N}", ImportanceSubspace((L, N), self.w_dim))

    def subspaces(self):
        return {(L, N): getattr(self, f"subspace{L}{N}") for L, N in PLANTS}

    def mapping(self, z, c, truncation_psi=1):
        return (z * truncation_psi)[:, None].expand(-1, self.num_ws, -1)

    def synthesis(self, ws, noise_mode="const"):
        """ws [N, num_ws, w_dim] → drawings [N, 3, res, res] in [−1, 1]"""
        names, driving = list(VALUES), torch.zeros(len(ws), self.w_dim)
        for i, (address, planted) in enumerate(PLANTS.items()):
            dims = [names.index(name) for name in planted]
            driving[:, dims] = self.subspaces()[address](ws[:, i])[:, dims]
        shares = 0.5 + 0.5 * torch.erf(self.mixing(driving) / math.sqrt(2))  # uniform between 0 and 1
        pictures = np.stack(
            [render(STYLE, self._factors(row), self.img_resolution, seed="0") for row in shares.tolist()]
        )
        return torch.from_numpy(pictures).permute(0, 3, 1, 2).float() / 127.5 - 1

    def forward(self, z, c=None, truncation_psi=1, noise_mode="const"):
        return self.synthesis(self.mapping(z, c, truncation_psi), noise_mode)

    @staticmethod
    def _factors(shares):
        factors = {name: values[0] for name, values in FIXED.items()} | {"scale": 1.1}
        for (name, values), share in zip(VALUES.items(), shares):
            low, high = POSE.get(name, (0, 0))
            factors[name] = values[int(share * len(values))] if values else low + share * (high - low)
        return factors


def mixed(c):
    """Every dimension drives several factors"""
    generator = torch.Generator().manual_seed(0)
    return c @ torch.linalg.qr(torch.randn(c.shape[1], c.shape[1], generator=generator))[0]


def folded(c):
    """A factor's value depends on the sign of another coordinate: no hyperplane parts it"""
    return c * c.roll(1, dims=1).sign()
