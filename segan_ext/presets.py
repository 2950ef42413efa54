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


@dataclasses.dataclass(frozen=True)
class Published(Preset):
    """What the other papers' methods share here: no subspaces of ours, and a penalty in every step."""

    mode: int | str = 0
    generator: str = "stylegan1"  # a module or class of segan_ext.generators, see segan_ext.training
    adv: str = "logistic"  # loss: logistic, hinge, wgan-gp
    penalty_interval: int = 1  # steps of D between gradient penalties
    betas: tuple[float, float] = (0.0, 0.99)  # Adam's
    z_dim: int = 512
    w_dim: int = 512
    batch: int = 32
    channel_base: int = 16384
    channel_max: int = 512
    ema: float = 10
    ramp: float | None = None
    d_architecture: str = "orig"
    lrate: float = 0.001
    pl_weight: float = 0
    aug: str = "noaug"


@dataclasses.dataclass(frozen=True)
class EigenGAN(Published):
    """He et al. 2021, without their 160 epochs: --kimg says how long."""

    generator: str = "eigengan"
    adv: str = "hinge"
    penalty_interval: int = 3
    gamma: float = 20  # half of it, 10, times the squared slopes
    lrate: float = 0.0001
    betas: tuple[float, float] = (0.5, 0.999)
    batch: int = 64
    channel_base: int = 4096
    ema: float = 44.3  # 0.999 a step
    own_dim: int = 6  # coordinates of a layer
    style_mixing_prob: float = 0


PRESETS = {f"segan-mode{mode}": Preset(mode=mode) for mode in range(4)}
PRESETS |= {"segan-fast": Fast(mode=2), "segan-eigen": Fast(mode="eigen"), "segan-named": Fast(mode="named")}
PRESETS |= {
    "eigengan": EigenGAN(),
    "stylegan1": Published(),
    "traditional": Published(generator="traditional", map=0, style_mixing_prob=0),
}


def for_device(config: recipe.BaseConfig, device: str) -> recipe.BaseConfig:
    """On a CPU, where a kimg takes minutes, status lines and snapshots come more often."""
    return dataclasses.replace(config, tick=1, snap=5) if device.startswith("cpu") else config
