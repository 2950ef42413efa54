"""StyleGAN (Karras et al. 2019), the traditional generator that it is compared with, and D; all of them can grow.

A layer of StyleGAN is

    AdaIN(lrelu(conv(x) + noise · strength + bias), y) = y_scale · (x − mean) / deviation + y_shift,    y = A w

with mean and deviation over the pixels of each channel. The traditional generator has no styles: w, or z itself where
there is no mapping network, is what its first layer turns into 4×4 features, and pixels are normalised instead (Karras
et al. 2018). Growing networks compute their first `grown` powers of two: at 3.25 the image of 8×8, and a quarter of the
way that of 16×16; what they give has its full size all the while.

This file travels inside pickles as source, into hosts without SEGAN too, where its generators make the same images.
"""

import math

import torch

from torch_utils import persistence
from torch_utils.ops import bias_act, conv2d_resample, upfirdn2d
from training import networks

try:
    from segan_ext.networks import SEGANGenerator
except ImportError:  # inside a pickle, in another host
    SEGANGenerator = networks.Generator

_FILTER = [1, 2, 1]  # the low-pass filter of both papers
_FULL = 16.0  # powers of two, more than there are
_NOISES = ("random", "const", "none")


def adaptive_instance_norm(x: torch.Tensor, style: torch.Tensor, eps: float = 1e-8) -> torch.Tensor:
    """AdaIN (Huang and Belongie 2017): x [N, C, H, W] with mean and deviation of its channels from style [N, 2·C]."""
    scale, shift = style[:, :, None, None].chunk(2, dim=1)
    x = x - x.mean(dim=[2, 3], keepdim=True)
    return x * (x.square().mean(dim=[2, 3], keepdim=True) + eps).rsqrt() * scale + shift


def grow(module: torch.nn.Module, grown: float) -> None:
    """Makes all growing networks in a module compute images of 2^grown pixels, between two of them a mixture."""
    for part in module.modules():
        if isinstance(getattr(part, "grown", None), torch.Tensor):
            part.grown.fill_(grown)


class _Convolution(torch.nn.Module):
    """[N, in_channels, H, W] → lrelu of a 3×3 convolution, with noise. `in_channels` 0: of a learned constant."""

    def __init__(self, in_channels, out_channels, resolution, up, use_noise):
        super().__init__()
        self.in_channels, self.resolution, self.up, self.use_noise = in_channels, resolution, up, use_noise
        if in_channels:
            self.weight = torch.nn.Parameter(torch.randn([out_channels, in_channels, 3, 3]))
            self.weight_gain = 1 / math.sqrt(in_channels * 9)
        else:
            self.weight = torch.nn.Parameter(torch.ones([out_channels, resolution, resolution]))
        self.register_buffer("resample_filter", upfirdn2d.setup_filter(_FILTER))
        self.bias = torch.nn.Parameter(torch.zeros([out_channels]))
        if use_noise:
            self.noise_strength = torch.nn.Parameter(torch.zeros([out_channels]))
            self.register_buffer("noise_const", torch.randn([resolution] * 2))

    def _activated(self, x, batch, noise_mode):
        if noise_mode not in _NOISES:
            raise ValueError(f"noise_mode must be random, const or none, not {noise_mode!r}")
        if self.in_channels:
            filtered = dict(f=self.resample_filter, up=self.up, padding=1, flip_weight=self.up == 1)
            x = conv2d_resample.conv2d_resample(x, self.weight * self.weight_gain, **filtered)
        else:
            x = self.weight.expand(batch, -1, -1, -1)
        if self.use_noise and noise_mode != "none":
            noise = self.noise_const
            if noise_mode == "random":
                noise = torch.randn([batch, 1, self.resolution, self.resolution], device=x.device)
            x = x + noise * self.noise_strength[:, None, None]
        return bias_act.bias_act(x, self.bias, act="lrelu")


@persistence.persistent_class
class StyledLayer(_Convolution):
    """Convolution (or constant), noise, bias, activation, AdaIN."""

    def __init__(
        self, in_channels: int, out_channels: int, w_dim: int, resolution: int, up: int, use_noise: bool
    ) -> None:
        super().__init__(in_channels, out_channels, resolution, up, use_noise)
        self.affine = networks.FullyConnectedLayer(w_dim, 2 * out_channels)
        with torch.no_grad():
            self.affine.bias[:out_channels] = 1  # of scales

    def forward(self, x: "torch.Tensor | None", w: torch.Tensor, noise_mode: str = "random") -> torch.Tensor:
        """x [N, in_channels, h, w] or None, w [N, w_dim] → [N, out_channels, resolution, resolution]"""
        return adaptive_instance_norm(self._activated(x, w.shape[0], noise_mode), self.affine(w))


@persistence.persistent_class
class PlainLayer(_Convolution):
    """Convolution, noise, bias, activation, every pixel at unit length."""

    def forward(self, x: torch.Tensor, noise_mode: str = "random") -> torch.Tensor:
        """[N, in_channels, h, w] → [N, out_channels, resolution, resolution]"""
        return networks.normalize_2nd_moment(self._activated(x, x.shape[0], noise_mode))


@persistence.persistent_class
class InputLayer(torch.nn.Module):
    """w → 4×4 features, every pixel at unit length."""

    def __init__(self, w_dim: int, out_channels: int) -> None:
        super().__init__()
        self.out_channels, self.resolution = out_channels, 4
        self.affine = networks.FullyConnectedLayer(w_dim, out_channels * 16)

    def forward(self, w: torch.Tensor) -> torch.Tensor:
        """w [N, w_dim] → [N, out_channels, 4, 4]"""
        x = bias_act.bias_act(self.affine(w).unflatten(1, (self.out_channels, 4, 4)), act="lrelu")
        return networks.normalize_2nd_moment(x)


@persistence.persistent_class
class Block(torch.nn.Module):
    """Two layers of one resolution and, where an image may be wanted, torgb. `num_conv`: how many ws it reads."""

    num_torgb = 0  # torgb has no style

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        w_dim: int,
        resolution: int,
        img_channels: int,
        is_last: bool,
        styled: bool = True,
        grows: bool = False,
        use_noise: bool = True,
        use_fp16: bool = False,
        conv_clamp: "float | None" = None,
    ) -> None:
        super().__init__()
        self.resolution, self.is_last, self.styled, self.grows = resolution, is_last, styled, grows
        self.num_conv = 2 if styled else int(in_channels == 0)
        first = dict(up=2 if in_channels else 1, use_noise=use_noise, resolution=resolution)
        if styled:
            self.conv0 = StyledLayer(in_channels, out_channels, w_dim, **first)
            self.conv1 = StyledLayer(out_channels, out_channels, w_dim, **first | dict(up=1))
        else:
            self.conv0 = (
                PlainLayer(in_channels, out_channels, **first) if in_channels else InputLayer(w_dim, out_channels)
            )
            self.conv1 = PlainLayer(out_channels, out_channels, **first | dict(up=1))
        if is_last or grows:
            self.torgb = networks.Conv2dLayer(out_channels, img_channels, 1)
        if grows:
            self.register_buffer("grown", torch.tensor(_FULL))

    def forward(
        self,
        x: "torch.Tensor | None",
        img: "torch.Tensor | None",
        ws: torch.Tensor,
        noise_mode: str = "random",
        force_fp32: bool = False,
        fused_modconv: "bool | None" = None,
    ) -> "tuple[torch.Tensor, torch.Tensor | None]":
        """x [N, C, res/2, res/2] (None at first), img likewise or None, ws [N, num_ws, w_dim] → x, img"""
        grown, level = float(self.grown) if self.grows else _FULL, int(math.log2(self.resolution))
        if level - 1 >= grown:
            return x, _twice_as_large(img)
        w = ws.unbind(dim=1)
        if self.styled:
            x = self.conv1(self.conv0(x, w[0], noise_mode), w[1], noise_mode)
        else:
            x = self.conv1(self.conv0(w[0]) if w else self.conv0(x, noise_mode), noise_mode)
        if level > grown:
            img = torch.lerp(_twice_as_large(img), self.torgb(x), grown - (level - 1))
        elif self.is_last or level == math.floor(grown):
            img = self.torgb(x)
        return x, img


def _twice_as_large(img):
    return torch.nn.functional.interpolate(img, scale_factor=2, mode="nearest")


@persistence.persistent_class
class StyleSynthesis(networks.SynthesisNetwork):
    """The host's synthesis network, ws → images, with blocks of this file.

    block_kwargs: `grows`, for training block by block, and `use_noise`.
    """

    styled = True

    def __init__(
        self,
        w_dim: int,
        img_resolution: int,
        img_channels: int,
        channel_base: int = 8192,
        channel_max: int = 512,
        num_fp16_res: int = 0,
        **block_kwargs: object,
    ) -> None:
        torch.nn.Module.__init__(self)  # the blocks are others
        self.w_dim, self.img_resolution, self.img_channels = w_dim, img_resolution, img_channels
        self.block_resolutions = [2**i for i in range(2, int(math.log2(img_resolution)) + 1)]
        self.num_ws = in_channels = 0
        for resolution in self.block_resolutions:
            out_channels = min(channel_base // resolution, channel_max)
            sizes = dict(w_dim=w_dim, resolution=resolution, img_channels=img_channels, styled=self.styled)
            block = Block(in_channels, out_channels, **sizes, is_last=resolution == img_resolution, **block_kwargs)
            self.num_ws += block.num_conv
            setattr(self, f"b{resolution}", block)
            in_channels = out_channels


@persistence.persistent_class
class PlainSynthesis(StyleSynthesis):
    """The same without styles: one w, read by the first layer."""

    styled = False


@persistence.persistent_class
class StyleGAN1Generator(SEGANGenerator):
    """StyleGAN's generator, with the subspaces of `mode` before its affines. Arguments: SEGANGenerator's."""

    synthesis_class = StyleSynthesis

    def __init__(self, *args: object, mode: "int | str" = 0, **kwargs: object) -> None:
        if mode == 1:
            raise ValueError("mode 1 adds to what StyleGAN2's layers put out; other generators have the modes 0, 2, 3")
        super().__init__(*args, mode=mode, **kwargs)


@persistence.persistent_class
class TraditionalGenerator(StyleGAN1Generator):
    """A generator whose latent enters at the first layer; as above."""

    synthesis_class = PlainSynthesis


@persistence.persistent_class
class GrowingDiscriminator(networks.Discriminator):
    """The host's discriminator, which looks at images of `grown` powers of two."""

    def __init__(
        self,
        c_dim: int,
        img_resolution: int,
        img_channels: int,
        channel_base: int = 8192,
        channel_max: int = 512,
        **kwargs: object,
    ) -> None:
        width = dict(channel_base=channel_base, channel_max=channel_max)
        super().__init__(c_dim, img_resolution, img_channels, **width, **kwargs)
        self.register_buffer("grown", torch.tensor(math.log2(img_resolution)))
        for res in [4, *self.block_resolutions[1:]]:
            channels = min(channel_base // res, channel_max)
            setattr(self, f"fromrgb{res}", networks.Conv2dLayer(img_channels, channels, 1, activation="lrelu"))

    def forward(self, img: torch.Tensor, c: "torch.Tensor | None", **block_kwargs: object) -> torch.Tensor:
        """img [N, img_channels, img_resolution, img_resolution], c [N, c_dim] → logits [N, 1]"""
        grown = float(self.grown)
        top = 2 ** math.ceil(grown)
        img = torch.nn.functional.avg_pool2d(img, self.img_resolution // top)
        x = None if top == self.img_resolution else getattr(self, f"fromrgb{top}")(img)
        for res in self.block_resolutions:
            if res <= top:
                x, _ = getattr(self, f"b{res}")(x, img, **block_kwargs)
            if res == top and grown % 1:
                smaller = getattr(self, f"fromrgb{top // 2}")(torch.nn.functional.avg_pool2d(img, 2))
                x = torch.lerp(smaller, x, grown % 1)
        cmap = self.mapping(None, c) if self.c_dim > 0 else None
        return self.b4(x, None, cmap, **block_kwargs)
