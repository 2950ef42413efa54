"""Every number of a method, one preset per --cfg."""

import dataclasses

from segan_ext import host

host.add_tools()

from runs import recipe  # noqa: E402 (it has to be on the path)


@dataclasses.dataclass(frozen=True)
class Preset(recipe.BaseConfig):
    """The settings behind the published 64×64 results; what is not listed is as in the host's `BaseConfig`."""

    mode: int | str = 2  # 0: none, 1: feature, 2: style, 3: importance subspaces; eigen, named: own coordinates
    z_dim: int = 64
    w_dim: int = 64  # also the number of dimensions of a subspace
    map: int = 8
    batch: int = 16
    ref_gpus: int = 1
    mbstd: int = 4
    channel_base: int = 32768
    channel_max: int = 128
    lrate: float = 0.002
    gamma: float = 10
    ema: float = 5
    ramp: float | None = 0.05
    pl_weight: float = 2
    style_mixing_prob: float = 0.9
    kimg: int = 25000


@dataclasses.dataclass(frozen=True)
class Fast(Preset):
    """Small pictures in minutes on a CPU: narrow, without path lengths, style mixing and augmentation."""

    map: int = 2
    channel_base: int = 1024
    channel_max: int = 64
    lrate: float = 0.008
    gamma: float = 1
    ema: float = 2
    pl_weight: float = 0
    style_mixing_prob: float = 0
    aug: str = "noaug"
    kimg: int = 100


PRESETS = {f"segan-mode{mode}": Preset(mode=mode) for mode in range(4)}
PRESETS |= {"segan-fast": Fast(mode=2), "segan-eigen": Fast(mode="eigen"), "segan-named": Fast(mode="named")}


def for_device(config: recipe.BaseConfig, device: str) -> recipe.BaseConfig:
    """On a CPU, where a kimg takes minutes, status lines and snapshots come more often."""
    return dataclasses.replace(config, tick=1, snap=5) if device.startswith("cpu") else config
