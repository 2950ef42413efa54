"""EigenGAN (He et al. 2021): a linear subspace in every layer of a plain convolutional generator.

Layer i turns coordinates z_i ~ N(0, I) of its own, q of them, into a feature map

    φ_i = U_i (L_i ⊙ (f·z_i + o)) + μ_i          U_i: [C·H·W, q], orthonormal by a penalty;  L_i = 3·(q, …, 1) at first

which enters before each of the layer's two transposed convolutions. Noise ε ~ N(0, I) that no control moves is the
input of the first layer. f and o are the controls, as in `segan_ext.networks`.

This file travels inside pickles as source, into hosts without SEGAN too, where its generator makes the same images.
"""

import math

import torch

from torch_utils import misc, persistence

try:
    from segan_ext.networks import Editable, LinearSubspace
except ImportError:  # inside a pickle, in another host, where nothing is edited

    class Editable:
        """Nothing."""

    class LinearSubspace(torch.nn.Module):
        """What is needed to make images."""

        def basis(self) -> torch.Tensor:
            """U at its own scale"""
            return self.U * self.gain

        def controlled(self, coordinates: torch.Tensor) -> torch.Tensor:
            """The coordinates as they are"""
            return coordinates


_LEAKY = 0.2
_BOUND = 3.0  # deviations, of latents with a truncation_psi just below 1


def _channels(resolution, channel_base, channel_max):
    return min(channel_base // resolution, channel_max)


def _initial(weight, fan_in):
    """Variance scaling by fan_in, truncated normal"""
    torch.nn.init.trunc_normal_(weight, std=1, a=-2, b=2)
    weight.data.mul_(1 / (0.8796 * math.sqrt(fan_in)))  # 0.8796: deviation of a normal number cut at 2
    return weight


@persistence.persistent_class
class Convolution(torch.nn.Module):
    """A convolution, or with up=2 its transpose of stride 2, with bias."""

    def __init__(self, in_channels: int, out_channels: int, kernel_size: int, up: int = 1, down: int = 1) -> None:
        super().__init__()
        self.up, self.down, self.padding = up, down, kernel_size // 2
        sides = [in_channels, out_channels] if up > 1 else [out_channels, in_channels]
        weight = torch.empty([*sides, kernel_size, kernel_size])
        self.weight = torch.nn.Parameter(_initial(weight, in_channels * kernel_size**2))
        self.bias = torch.nn.Parameter(torch.zeros([out_channels]))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """[N, in_channels, H, W] → [N, out_channels, H·up/down, W·up/down]"""
        if self.up == 1:
            return torch.nn.functional.conv2d(x, self.weight, self.bias, stride=self.down, padding=self.padding)
        paddings = dict(padding=self.padding, output_padding=1)
        return torch.nn.functional.conv_transpose2d(x, self.weight, self.bias, stride=self.up, **paddings)


@persistence.persistent_class
class Dense(torch.nn.Module):
    """A matrix product with bias."""

    def __init__(self, in_features: int, out_features: int) -> None:
        super().__init__()
        self.weight = torch.nn.Parameter(_initial(torch.empty([out_features, in_features]), in_features))
        self.bias = torch.nn.Parameter(torch.zeros([out_features]))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """[N, in_features] → [N, out_features]"""
        return torch.nn.functional.linear(x, self.weight, self.bias)


def _leaky(x):
    return torch.nn.functional.leaky_relu(x, _LEAKY)


@persistence.persistent_class
class EigenSubspace(LinearSubspace):
    """φ = reshape(U (L ⊙ (f·z + o))) + μ, an image [C, H, W]; its coordinates are entries of w from `first` on."""

    def __init__(self, address: "tuple[int, int]", dims: int, first: int, channels: int, resolution: int) -> None:
        super().__init__(address, dims)
        self.first = first
        self.L.data = torch.arange(dims, 0, -1.0) * 3
        self._add_basis(channels * resolution**2)
        self.mu = torch.nn.Parameter(torch.zeros([channels, resolution, resolution]))

    def coordinates(self, w: torch.Tensor) -> torch.Tensor:
        """w [N, w_dim] → z_i [N, dims]"""
        return w[:, self.first : self.first + self.dims]

    def forward(self, w: torch.Tensor) -> torch.Tensor:
        """w [N, w_dim] → φ [N, C, H, W]"""
        features = (self.L * self.controlled(self.coordinates(w))) @ self.basis().t()  # [N, C·H·W]
        return features.reshape(-1, *self.mu.shape) + self.mu


@persistence.persistent_class
class EigenMapping(torch.nn.Module):
    """z itself is w, for every layer. truncation_psi ψ below 1 gives normal numbers cut at 3ψ deviations instead (the
    published samples: 1.5, a ψ of 0.5), quantile by quantile; 0 gives the mean image."""

    def __init__(self, z_dim: int, num_ws: int) -> None:
        super().__init__()
        self.z_dim, self.c_dim, self.w_dim, self.num_ws = z_dim, 0, z_dim, num_ws
        self.register_buffer("w_avg", torch.zeros([z_dim]))

    def forward(
        self,
        z: torch.Tensor,
        c: "torch.Tensor | None" = None,
        truncation_psi: float = 1,
        truncation_cutoff: "int | None" = None,
        skip_w_avg_update: bool = False,
    ) -> torch.Tensor:
        """z [N, z_dim] → ws [N, num_ws, z_dim]; as the host's"""
        misc.assert_shape(z, [None, self.z_dim])
        z = z.to(torch.float32)
        ws = z[:, None].repeat(1, self.num_ws, 1)
        if truncation_psi != 1:
            ws[:, :truncation_cutoff] = _truncated(z, _BOUND * truncation_psi)[:, None]
        return ws


def _truncated(z, bound):
    """Normal numbers → as many of the normal distribution cut at ±bound, in the same order"""
    inside = math.erf(bound / math.sqrt(2))
    return math.sqrt(2) * torch.erfinv(torch.erf(z / math.sqrt(2)) * inside) if bound else torch.zeros_like(z)


@persistence.persistent_class
class EigenBlock(torch.nn.Module):
    """features → features of twice the resolution; the first block starts from ε, the last one ends with the image."""

    num_conv, num_torgb = 1, 0  # it reads one w

    def __init__(
        self,
        address: "tuple[int, int]",
        dims: int,
        first: int,
        channels: "tuple[int, int]",
        resolution: int,
        noise_dim: int = 0,
        img_channels: int = 0,
    ) -> None:
        super().__init__()
        before, after = channels
        self.resolution, self.noise_dim, self.img_channels = resolution, noise_dim, img_channels
        if noise_dim:
            self.input = Dense(noise_dim, before * resolution**2)
        self.subspace = EigenSubspace(address, dims, first, before, resolution)
        self.inject0 = Convolution(before, before, 1)
        self.inject1 = Convolution(before, after, 3, up=2)
        self.conv0 = Convolution(before, after, 3, up=2)
        self.conv1 = Convolution(after, after, 3)
        for layer in (self.conv0, self.conv1):
            layer.out_channels, layer.resolution = after, 2 * resolution
        if img_channels:
            self.torgb = Convolution(after, img_channels, 7)

    def forward(
        self,
        x: "torch.Tensor | None",
        img: "torch.Tensor | None",
        ws: torch.Tensor,
        noise_mode: str = "const",
        force_fp32: bool = False,
        fused_modconv: "bool | None" = None,
    ) -> "tuple[torch.Tensor, torch.Tensor | None]":
        """x [N, C, res, res] (None at first), ws [N, 1, w_dim] → x [N, C', 2·res, 2·res], the image or None"""
        w = ws[:, 0]
        if self.noise_dim:
            x = self.input(w[:, : self.noise_dim]).unflatten(1, (-1, self.resolution, self.resolution))
        phi = self.subspace(w)
        x = self.conv0(_leaky(x + self.inject0(phi)))
        x = self.conv1(_leaky(x + self.inject1(phi)))
        return x, torch.tanh(self.torgb(_leaky(x))) if self.img_channels else None


@persistence.persistent_class
class EigenSynthesis(torch.nn.Module):
    """ws → images: blocks `b4` … `b<img_resolution / 2>`, named for the resolution that they start from."""

    def __init__(
        self,
        noise_dim: int,
        own_dim: int,
        img_resolution: int,
        img_channels: int,
        channel_base: int = 4096,
        channel_max: int = 512,
    ) -> None:
        super().__init__()
        self.block_resolutions = [2**i for i in range(2, int(math.log2(img_resolution)))]
        self.img_resolution, self.img_channels = img_resolution, img_channels
        self.num_ws = len(self.block_resolutions)
        self.w_dim = noise_dim + self.num_ws * own_dim
        for i, res in enumerate(self.block_resolutions):
            channels = tuple(_channels(r, channel_base, channel_max) for r in (res, 2 * res))
            ends = dict(
                noise_dim=noise_dim if i == 0 else 0, img_channels=img_channels if 2 * res == img_resolution else 0
            )
            block = EigenBlock((i, 0), own_dim, noise_dim + i * own_dim, channels, res, **ends)
            setattr(self, f"b{res}", block)

    def forward(self, ws: torch.Tensor, **block_kwargs: object) -> torch.Tensor:
        """ws [N, num_ws, w_dim] → images [N, img_channels, img_resolution, img_resolution] in [−1, 1]"""
        misc.assert_shape(ws, [None, self.num_ws, self.w_dim])
        x = img = None
        for i, resolution in enumerate(self.block_resolutions):
            x, img = getattr(self, f"b{resolution}")(x, img, ws[:, i : i + 1].to(torch.float32), **block_kwargs)
        return img


@persistence.persistent_class
class EigenGANGenerator(Editable, torch.nn.Module):
    """z → image. z holds ε, then the own_dim coordinates of each layer; z_dim and w_dim count them all.

    noise_dim: numbers of ε. own_dim: q, coordinates of a layer. synthesis_kwargs: channel_base and channel_max.
    directions: as in SEGANGenerator. ValueError for c_dim other than 0 (labels have no place in it), or images of less
    than 8×8.
    """

    mode = "eigengan"

    def __init__(
        self,
        c_dim: int,
        img_resolution: int,
        img_channels: int,
        noise_dim: int = 512,
        own_dim: int = 6,
        synthesis_kwargs: dict = {},
        directions: "list[dict]" = [],
    ) -> None:
        if c_dim:
            raise ValueError("EigenGAN has no place for labels; train it without --cond")
        if img_resolution < 8 or img_resolution & (img_resolution - 1):
            raise ValueError(f"img_resolution must be a power of two from 8 on, not {img_resolution}")
        super().__init__()
        self.synthesis = EigenSynthesis(noise_dim, own_dim, img_resolution, img_channels, **synthesis_kwargs)
        self.num_ws, self.w_dim = self.synthesis.num_ws, self.synthesis.w_dim
        self.z_dim, self.c_dim = self.w_dim, c_dim
        self.img_resolution, self.img_channels = img_resolution, img_channels
        self.mapping = EigenMapping(self.z_dim, self.num_ws)
        self._name_directions(directions)

    def subspaces(self) -> "dict[tuple[int, int], EigenSubspace]":
        """{(layer, 0): subspace}"""
        blocks = (getattr(self.synthesis, f"b{res}") for res in self.synthesis.block_resolutions)
        return {block.subspace.address: block.subspace for block in blocks}

    def forward(
        self,
        z: torch.Tensor,
        c: "torch.Tensor | None" = None,
        truncation_psi: float = 1,
        truncation_cutoff: "int | None" = None,
        **synthesis_kwargs: object,
    ) -> torch.Tensor:
        """z [N, z_dim] → images [N, img_channels, img_resolution, img_resolution] in [−1, 1]"""
        ws = self.mapping(z, c, truncation_psi=truncation_psi, truncation_cutoff=truncation_cutoff)
        return self.synthesis(ws, **synthesis_kwargs)


@persistence.persistent_class
class EigenDiscriminator(torch.nn.Module):
    """Image → logit: a convolution of 7×7, pairs of 3×3 of which the second halves the resolution, two dense layers.

    ValueError for c_dim other than 0.
    """

    def __init__(
        self, c_dim: int, img_resolution: int, img_channels: int, channel_base: int = 4096, channel_max: int = 512
    ) -> None:
        if c_dim:
            raise ValueError("EigenGAN has no place for labels; train it without --cond")
        super().__init__()
        self.c_dim, self.img_resolution, self.img_channels = c_dim, img_resolution, img_channels
        width = lambda res: _channels(res, channel_base, channel_max)
        layers = [Convolution(img_channels, width(img_resolution), 7)]
        resolution = img_resolution
        while resolution > 4:
            layers.append(Convolution(width(resolution), width(resolution), 3))
            layers.append(Convolution(width(resolution), width(resolution // 2), 3, down=2))
            resolution //= 2
        layers.append(Convolution(width(4), width(4), 3))
        self.num_convs = len(layers)
        for i, layer in enumerate(layers):
            setattr(self, f"conv{i}", layer)
        self.fc = Dense(width(4) * 16, width(4))
        self.out = Dense(width(4), 1)

    def forward(self, img: torch.Tensor, c: "torch.Tensor | None" = None, force_fp32: bool = False) -> torch.Tensor:
        """img [N, img_channels, img_resolution, img_resolution] → logits [N, 1]"""
        x = img.to(torch.float32)
        for i in range(self.num_convs):
            x = _leaky(getattr(self, f"conv{i}")(x))
        return self.out(_leaky(self.fc(x.flatten(1))))
