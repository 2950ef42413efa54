"""The StyleGAN2 generator and discriminator (Karras et al. 2020), with StyleGAN2-ADA's mixed precision.

Weights are stored at unit scale and multiplied at run time by 1/√fan_in ("equalised learning rate"), so that one
optimizer step moves every layer relatively as much. Activations keep unit variance by the gains of `bias_act`.
Read top to bottom: layers, mapping, synthesis, generator, discriminator.
"""

import contextlib
import math

import torch

from torch_utils import misc, persistence
from torch_utils.ops import bias_act, conv2d_resample, fma, upfirdn2d

try:
    from torch_utils import cached_weights
    from torch_utils.ops import modulate
except ImportError:  # inside a pickle, this source has travelled to another host
    cached_weights = modulate = None

_BRANCH_GAIN = math.sqrt(0.5)  # keeps the variance of a sum of two branches
_MAX_SIZE = 2**16  # of a resolution or a number of features
_MAX_MAPPING_LAYERS = 100


def normalize_2nd_moment(x: torch.Tensor, dim: int = 1, eps: float = 1e-8) -> torch.Tensor:
    """Scales x so that the mean square along `dim` is 1."""
    return x * (x.square().mean(dim=dim, keepdim=True) + eps).rsqrt()


def _while_unchanged(module):
    """A context in which what depends on a module's weights alone is kept from one image to the next"""
    return cached_weights.while_unchanged(module) if cached_weights else contextlib.nullcontext()


def _once(name, tensor, compute):
    """compute(tensor), which inside `cached_weights.enabled` happens once for every parameter"""
    return cached_weights.once(name, tensor, compute) if cached_weights else compute(tensor)


def modulated_conv2d(
    x: torch.Tensor,
    weight: torch.Tensor,
    styles: torch.Tensor,
    noise: torch.Tensor | None = None,
    up: int = 1,
    down: int = 1,
    padding: int | list[int] = 0,
    resample_filter: torch.Tensor | None = None,
    demodulate: bool = True,
    flip_weight: bool = True,
    fused_modconv: bool = True,
) -> torch.Tensor:
    """A convolution whose weights each image scales by its own style (StyleGAN2, section 2.2 and appendix B).

    x: images [N, I, H, W]. weight: [O, I, kh, kw]. styles: scale of every input channel [N, I]. noise: added to the
    result, broadcast to [N, O, H', W'], or None. up, down, padding, resample_filter, flip_weight: as in
    `conv2d_resample`. demodulate: scale every output channel so that its weights have unit length.
    fused_modconv: True makes one kernel an image and runs a grouped convolution; False scales the images before and
    after one shared convolution. Both give the same values; the first suits inference, the second training.
    Returns [N, O, H', W'].
    """
    resample = dict(f=resample_filter, up=up, down=down, padding=padding, flip_weight=flip_weight)
    x, scale = _modulated_conv2d(x, weight, styles, demodulate, fused_modconv, resample)
    return x if scale is None and noise is None else _modulate(x, scale, noise)


def _modulated_conv2d(x, weight, styles, demodulate, fused_modconv, resample):
    """(y, scale): `modulated_conv2d` without noise is y · scale[:, :, None, None], or y where scale is None."""
    batch = x.shape[0]
    out_channels, in_channels, kh, kw = weight.shape
    misc.assert_shape(x, [batch, in_channels, None, None])
    misc.assert_shape(styles, [batch, in_channels])

    if x.dtype == torch.float16 and demodulate:  # demodulation undoes any scale, so choose one that cannot overflow
        weight = weight / (weight.abs().amax(dim=[1, 2, 3], keepdim=True) * math.sqrt(in_channels * kh * kw))
        styles = styles / styles.abs().amax(dim=1, keepdim=True)

    if fused_modconv and not (modulate and modulate.prefers_shared_weights(x)):
        kernels = weight[None] * styles[:, None, :, None, None]  # [N, O, I, kh, kw]
        if demodulate:
            lengths = (kernels.square().sum(dim=[2, 3, 4]) + 1e-8).rsqrt()  # [N, O]
            kernels = kernels * lengths[:, :, None, None, None]
        x = x.reshape(1, batch * in_channels, *x.shape[2:])
        kernels = kernels.reshape(batch * out_channels, in_channels, kh, kw).to(x.dtype)
        x = conv2d_resample.conv2d_resample(x, kernels, groups=batch, **resample)
        return x.reshape(batch, out_channels, *x.shape[2:]), None

    lengths = None
    if demodulate:
        energies = _once("energies", weight, lambda weight: weight.square().sum(dim=[2, 3]).t())  # [I, O]
        lengths = (styles.square() @ energies + 1e-8).rsqrt()  # [N, O]
    x = _modulate(x, styles)
    return conv2d_resample.conv2d_resample(x, weight.to(x.dtype), **resample), lengths


def _modulate(x, scale=None, noise=None, b=None, act="linear", gain=None, clamp=None, owned=False):
    """`clamp(gain · act(x · scale + noise + b))`; scale [N, C], noise broadcast to [N, 1, H, W], b [C], or None

    owned: nobody else needs x.
    """
    y = modulate.modulate(x, scale, noise, b, act, gain, clamp, owned) if modulate else None
    if y is not None:
        return y
    if scale is not None:
        scale = scale.to(x.dtype)[:, :, None, None]
        x = x * scale if noise is None else fma.fma(x, scale, noise.to(x.dtype))
    elif noise is not None:
        x = x + noise.to(x.dtype)
    return bias_act.bias_act(x, b, act=act, gain=gain, clamp=clamp)


def _random_kernels(in_channels, out_channels, kernel_size, channels_last):
    """Unit normal weights [O, I, k, k] in the layer's memory format."""
    memory_format = torch.channels_last if channels_last else torch.contiguous_format
    return torch.randn([out_channels, in_channels, kernel_size, kernel_size]).to(memory_format=memory_format)


def _check_sizes(**sizes):
    """ValueError for sizes that no network has; the constructors would otherwise take memory for them first."""
    for name, size in sizes.items():
        if not hasattr(size, "__index__") or not 0 <= size <= _MAX_SIZE:
            raise ValueError(f"{name} must be a whole number from 0 to {_MAX_SIZE}")


def _in_layout_of(x, weight):
    """`weight`, contiguous for float32: channels-last weights of half precision also serve blocks that run in that."""
    if x.dtype == torch.float32 and weight.stride(-1) != 1:
        return weight.clone(memory_format=torch.contiguous_format)
    return weight


def _kernel_gain(in_channels, kernel_size):
    """1/√fan_in"""
    return (in_channels * kernel_size**2) ** -0.5


@persistence.persistent_class
class FullyConnectedLayer(torch.nn.Module):
    """y = act(W x + b). `lr_multiplier` makes its parameters learn that much faster or slower than the rest."""

    def __init__(
        self,
        in_features: int,
        out_features: int,
        bias: bool = True,
        activation: str = "linear",
        lr_multiplier: float = 1,
        bias_init: float = 0,
    ) -> None:
        if activation not in bias_act.activation_funcs:
            raise ValueError(f"unknown activation {activation!r}; known: {', '.join(bias_act.activation_funcs)}")
        super().__init__()
        self.activation, self.bias_gain = activation, lr_multiplier
        self.weight_gain = lr_multiplier / math.sqrt(in_features)
        initial = torch.randn([out_features, in_features])
        self.weight = torch.nn.Parameter(initial / lr_multiplier)
        initial = torch.full([out_features], float(bias_init))
        self.bias = torch.nn.Parameter(initial) if bias else None

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """[N, in_features] → [N, out_features]"""
        weight, bias = self.effective(x.dtype)
        if self.activation == "linear":
            return torch.nn.functional.linear(x, weight, bias)
        return bias_act.bias_act(x @ weight.t(), bias, act=self.activation)

    def effective(self, dtype: torch.dtype = torch.float32) -> tuple[torch.Tensor, torch.Tensor | None]:
        """The matrix and the bias (or None) that the layer computes with."""
        weight = _once(dtype, self.weight, lambda weight: (weight * self.weight_gain).to(dtype))
        if self.bias is None:
            return weight, None
        return weight, _once(dtype, self.bias, lambda bias: (bias * self.bias_gain).to(dtype))


@persistence.persistent_class
class Conv2dLayer(torch.nn.Module):
    """Convolution with optional resampling, bias and activation. Not `trainable`: tensors become buffers."""

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        kernel_size: int,
        bias: bool = True,
        activation: str = "linear",
        up: int = 1,
        down: int = 1,
        resample_filter: list[float] | None = [1, 3, 3, 1],
        conv_clamp: float | None = None,
        channels_last: bool = False,
        trainable: bool = True,
    ) -> None:
        super().__init__()
        self.up, self.down, self.padding = up, down, kernel_size // 2
        self.activation, self.conv_clamp = activation, conv_clamp
        self.act_gain = bias_act.activation_funcs[activation].def_gain
        self.weight_gain = _kernel_gain(in_channels, kernel_size)
        self.register_buffer("resample_filter", upfirdn2d.setup_filter(resample_filter))
        tensors = dict(weight=_random_kernels(in_channels, out_channels, kernel_size, channels_last))
        tensors["bias"] = torch.zeros([out_channels]) if bias else None
        for name, tensor in tensors.items():
            if tensor is not None and trainable:
                tensor = torch.nn.Parameter(tensor)
            (self.register_parameter if trainable or tensor is None else self.register_buffer)(name, tensor)

    def forward(self, x: torch.Tensor, gain: float = 1) -> torch.Tensor:
        """[N, in_channels, H, W] → [N, out_channels, H·up/down, W·up/down], scaled by `gain`"""
        x = conv2d_resample.conv2d_resample(
            x,
            (_in_layout_of(x, self.weight) * self.weight_gain).to(x.dtype),
            f=self.resample_filter,
            up=self.up,
            down=self.down,
            padding=self.padding,
            flip_weight=self.up == 1,  # slightly faster where it needs no flip
        )
        clamp = None if self.conv_clamp is None else self.conv_clamp * gain
        bias = None if self.bias is None else self.bias.to(x.dtype)
        return _modulate(x, b=bias, act=self.activation, gain=self.act_gain * gain, clamp=clamp)


# ---------------------------------------------------------------------------------------------------------------------
# Mapping


@persistence.persistent_class
class MappingNetwork(torch.nn.Module):
    """z and label → ws, one w for every style layer (`num_ws=None`: a single one, no moving average).

    `w_avg` follows the mean of w with decay `w_avg_beta`; truncation pulls w towards it.
    """

    def __init__(
        self,
        z_dim: int,
        c_dim: int,
        w_dim: int,
        num_ws: int | None,
        num_layers: int = 8,
        embed_features: int | None = None,
        layer_features: int | None = None,
        activation: str = "lrelu",
        lr_multiplier: float = 0.01,
        w_avg_beta: float | None = 0.995,
    ) -> None:
        _check_sizes(z_dim=z_dim, c_dim=c_dim, w_dim=w_dim, num_layers=num_layers)
        if num_layers > _MAX_MAPPING_LAYERS:
            raise ValueError(f"num_layers must be {_MAX_MAPPING_LAYERS} at most, not {num_layers}")
        super().__init__()
        self.z_dim, self.c_dim, self.w_dim = z_dim, c_dim, w_dim
        self.num_ws, self.num_layers, self.w_avg_beta = num_ws, num_layers, w_avg_beta
        width = z_dim
        if c_dim > 0:
            embed_features = embed_features or w_dim
            self.embed = FullyConnectedLayer(c_dim, embed_features)
            width += embed_features
        for i in range(num_layers):
            next_width = w_dim if i == num_layers - 1 else layer_features or w_dim
            layer = FullyConnectedLayer(width, next_width, activation=activation, lr_multiplier=lr_multiplier)
            self.add_module(f"fc{i}", layer)
            width = next_width
        if num_ws is not None and w_avg_beta is not None:
            self.register_buffer("w_avg", torch.zeros([w_dim]))

    def forward(
        self,
        z: torch.Tensor | None,
        c: torch.Tensor | None,
        truncation_psi: float = 1,
        truncation_cutoff: int | None = None,
        skip_w_avg_update: bool = False,
    ) -> torch.Tensor:
        """z [N, z_dim], c [N, c_dim] (None where a dimension is 0) → ws [N, num_ws, w_dim], or [N, w_dim].

        truncation_psi: 1 leaves w as it is, 0 gives the mean; for the first `truncation_cutoff` layers (None: all).
        """
        parts = []
        if self.z_dim > 0:
            misc.assert_shape(z, [None, self.z_dim])
            parts.append(normalize_2nd_moment(z.to(torch.float32)))
        if self.c_dim > 0:
            misc.assert_shape(c, [None, self.c_dim])
            parts.append(normalize_2nd_moment(self.embed(c.to(torch.float32))))
        x = torch.cat(parts, dim=1) if len(parts) > 1 else parts[0]
        for i in range(self.num_layers):
            x = getattr(self, f"fc{i}")(x)

        if self.num_ws is None:
            return x
        if self.training and not skip_w_avg_update and self.w_avg_beta is not None:
            mean = x.detach().mean(dim=0)
            self.w_avg.lerp_(torch.where(mean.isfinite(), mean, self.w_avg), 1 - self.w_avg_beta)  # NaN would stay
        ws = x[:, None].expand(-1, self.num_ws, -1)  # [N, num_ws, w_dim]
        if truncation_psi == 1:
            return ws.contiguous()
        if self.w_avg_beta is None:
            raise ValueError("truncation needs w_avg, which this network does not keep (w_avg_beta is None)")
        truncated = self.w_avg.lerp(ws, truncation_psi)
        cutoff = self.num_ws if truncation_cutoff is None else truncation_cutoff
        return torch.cat([truncated[:, :cutoff], ws[:, cutoff:]], dim=1)


# ---------------------------------------------------------------------------------------------------------------------
# Synthesis


@persistence.persistent_class
class SynthesisLayer(torch.nn.Module):
    """Modulated convolution, noise, bias, activation."""

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        w_dim: int,
        resolution: int,
        kernel_size: int = 3,
        up: int = 1,
        use_noise: bool = True,
        activation: str = "lrelu",
        resample_filter: list[float] | None = [1, 3, 3, 1],
        conv_clamp: float | None = None,
        channels_last: bool = False,
    ) -> None:
        super().__init__()
        self.resolution, self.up, self.padding = resolution, up, kernel_size // 2
        self.activation, self.conv_clamp = activation, conv_clamp
        self.act_gain = bias_act.activation_funcs[activation].def_gain
        self.affine = FullyConnectedLayer(w_dim, in_channels, bias_init=1)
        self.weight = torch.nn.Parameter(_random_kernels(in_channels, out_channels, kernel_size, channels_last))
        self.register_buffer("resample_filter", upfirdn2d.setup_filter(resample_filter))
        self.use_noise = use_noise
        if use_noise:
            self.noise_strength = torch.nn.Parameter(torch.tensor(0.0))
            self.register_buffer("noise_const", torch.randn([resolution] * 2))
        self.bias = torch.nn.Parameter(torch.zeros([out_channels]))

    def forward(
        self, x: torch.Tensor, w: torch.Tensor, noise_mode: str = "random", fused_modconv: bool = True, gain: float = 1
    ) -> torch.Tensor:
        """[N, in_channels, H, W], w [N, w_dim] → [N, out_channels, resolution, resolution]"""
        if noise_mode not in ("random", "const", "none"):
            raise ValueError(f"noise_mode must be random, const or none, not {noise_mode!r}")
        in_resolution = self.resolution // self.up
        misc.assert_shape(x, [None, self.weight.shape[1], in_resolution, in_resolution])
        resample = dict(f=self.resample_filter, up=self.up, down=1, padding=self.padding, flip_weight=self.up == 1)
        weight = _in_layout_of(x, self.weight)
        x, scale = _modulated_conv2d(x, weight, self.affine(w), True, fused_modconv, resample)
        clamp = None if self.conv_clamp is None else self.conv_clamp * gain
        noise, gain = self._noise(x, noise_mode), self.act_gain * gain
        return _modulate(x, scale, noise, self.bias.to(x.dtype), self.activation, gain, clamp, owned=True)

    def _noise(self, x, noise_mode):
        if not self.use_noise or noise_mode == "none":
            return None
        if noise_mode == "const":
            return self.noise_const * self.noise_strength
        shape = [x.shape[0], 1, self.resolution, self.resolution]
        return torch.randn(shape, device=x.device) * self.noise_strength


@persistence.persistent_class
class ToRGBLayer(torch.nn.Module):
    """Modulated convolution to the image's channels, without demodulation."""

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        w_dim: int,
        kernel_size: int = 1,
        conv_clamp: float | None = None,
        channels_last: bool = False,
    ) -> None:
        super().__init__()
        self.conv_clamp, self.weight_gain = conv_clamp, _kernel_gain(in_channels, kernel_size)
        self.affine = FullyConnectedLayer(w_dim, in_channels, bias_init=1)
        self.weight = torch.nn.Parameter(_random_kernels(in_channels, out_channels, kernel_size, channels_last))
        self.bias = torch.nn.Parameter(torch.zeros([out_channels]))

    def forward(self, x: torch.Tensor, w: torch.Tensor, fused_modconv: bool = True) -> torch.Tensor:
        """[N, in_channels, H, W], w [N, w_dim] → [N, out_channels, H, W]"""
        styles = self.affine(w) * self.weight_gain
        x = modulated_conv2d(x, _in_layout_of(x, self.weight), styles, demodulate=False, fused_modconv=fused_modconv)
        return bias_act.bias_act(x, self.bias.to(x.dtype), clamp=self.conv_clamp)


@persistence.persistent_class
class SynthesisBlock(torch.nn.Module):
    """All layers of one resolution. `in_channels` 0: starts from the learned constant.

    architecture 'skip' adds each block's RGB image to the enlarged one before it, 'resnet' has residual blocks, 'orig'
    makes an image in the last block only. `num_conv` and `num_torgb` say how many ws the block reads.
    """

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        w_dim: int,
        resolution: int,
        img_channels: int,
        is_last: bool,
        architecture: str = "skip",
        resample_filter: list[float] | None = [1, 3, 3, 1],
        conv_clamp: float | None = None,
        use_fp16: bool = False,
        fp16_channels_last: bool = False,
        **layer_kwargs: object,
    ) -> None:
        if architecture not in ("orig", "skip", "resnet"):
            raise ValueError(f"architecture must be orig, skip or resnet, not {architecture!r}")
        super().__init__()
        self.in_channels, self.img_channels, self.w_dim = in_channels, img_channels, w_dim
        self.resolution, self.is_last, self.architecture = resolution, is_last, architecture
        self.use_fp16, self.channels_last = use_fp16, use_fp16 and fp16_channels_last
        self.num_conv, self.num_torgb = 2 if in_channels else 1, int(is_last or architecture == "skip")
        self.register_buffer("resample_filter", upfirdn2d.setup_filter(resample_filter))

        shared = dict(conv_clamp=conv_clamp, channels_last=self.channels_last)
        layer = dict(w_dim=w_dim, resolution=resolution, **shared, **layer_kwargs)
        if in_channels == 0:
            self.const = torch.nn.Parameter(torch.randn([out_channels, resolution, resolution]))
        else:
            self.conv0 = SynthesisLayer(in_channels, out_channels, up=2, resample_filter=resample_filter, **layer)
        self.conv1 = SynthesisLayer(out_channels, out_channels, **layer)
        if self.num_torgb:
            self.torgb = ToRGBLayer(out_channels, img_channels, w_dim=w_dim, **shared)
        if architecture == "resnet" and in_channels:
            self.skip = Conv2dLayer(
                in_channels,
                out_channels,
                kernel_size=1,
                bias=False,
                up=2,
                resample_filter=resample_filter,
                channels_last=self.channels_last,
            )

    def forward(
        self,
        x: torch.Tensor | None,
        img: torch.Tensor | None,
        ws: torch.Tensor,
        force_fp32: bool = False,
        fused_modconv: bool | None = None,
        **layer_kwargs: object,
    ) -> tuple[torch.Tensor, torch.Tensor | None]:
        """x [N, C, res/2, res/2] (None at first), img likewise or None, ws [N, num_conv + num_torgb, w_dim] → x, img"""
        misc.assert_shape(ws, [None, self.num_conv + self.num_torgb, self.w_dim])
        batch = ws.shape[0]
        dtype, memory_format = _precision(self, force_fp32, ws.device)
        if fused_modconv is None:
            with misc.suppress_tracer_warnings():  # inside a trace the batch size is a tensor
                fused_modconv = not self.training and (dtype == torch.float32 or int(batch) == 1)
        layer_kwargs = dict(fused_modconv=fused_modconv, **layer_kwargs)
        # Tensors of their own: the last bits of a matrix product depend on where its input lies in memory.
        ws = (w.clone(memory_format=torch.contiguous_format) for w in ws.unbind(dim=1))

        if self.in_channels == 0:
            x = self.const.to(dtype)[None].expand(batch, -1, -1, -1).contiguous(memory_format=memory_format)
            x = self.conv1(x, next(ws), **layer_kwargs)
        else:
            half = self.resolution // 2
            misc.assert_shape(x, [None, self.in_channels, half, half])
            x = x.to(dtype=dtype, memory_format=memory_format)
            if self.architecture == "resnet":
                branch = self.skip(x, gain=_BRANCH_GAIN)
                x = self.conv0(x, next(ws), **layer_kwargs)
                x = branch + self.conv1(x, next(ws), gain=_BRANCH_GAIN, **layer_kwargs)
            else:
                for layer in (self.conv0, self.conv1):
                    x = layer(x, next(ws), **layer_kwargs)

        if img is not None:
            misc.assert_shape(img, [None, self.img_channels, x.shape[2] // 2, x.shape[3] // 2])
            img = upfirdn2d.upsample2d(img, self.resample_filter)
        if self.num_torgb:
            rgb = self.torgb(x, next(ws), fused_modconv=fused_modconv)
            rgb = rgb.to(dtype=torch.float32, memory_format=torch.contiguous_format)
            img = rgb if img is None else img + rgb
        return x, img


_HALF_PRECISION_DEVICES = ("cuda",)  # elsewhere half precision is many times slower than single
_half_precision = torch.float16


def set_half_precision(dtype: torch.dtype) -> None:
    """What blocks with `use_fp16` compute in from now on: float16, or bfloat16, coarser, which cannot overflow."""
    global _half_precision
    _half_precision = dtype


def _precision(block, force_fp32, device):
    """(dtype, memory format) in which a block computes."""
    if block.use_fp16 and not force_fp32 and device.type in _HALF_PRECISION_DEVICES:
        return _half_precision, torch.channels_last if block.channels_last else torch.contiguous_format
    return torch.float32, modulate.memory_format(device) if modulate else torch.contiguous_format


def _check_resolution(img_resolution):
    _check_sizes(img_resolution=img_resolution)
    if img_resolution < 4 or img_resolution & (img_resolution - 1):
        raise ValueError(f"img_resolution must be a power of two from 4 on, not {img_resolution}")


def _fp16_resolution(img_resolution, num_fp16_res):
    """The lowest resolution that computes in half precision: the `num_fp16_res` highest do, but none below 8."""
    return max(img_resolution * 2 >> min(num_fp16_res, 32), 8)


@persistence.persistent_class
class SynthesisNetwork(torch.nn.Module):
    """ws → images: blocks `b4` … `b<img_resolution>` of min(channel_base / resolution, channel_max) channels.

    A block's torgb shares its w with the next block's conv0, so `num_ws` is one more than the number of convolutions
    (for 'skip' and the last block).
    """

    def __init__(
        self,
        w_dim: int,
        img_resolution: int,
        img_channels: int,
        channel_base: int = 32768,
        channel_max: int = 512,
        num_fp16_res: int = 0,
        **block_kwargs: object,
    ) -> None:
        _check_resolution(img_resolution)
        super().__init__()
        self.w_dim, self.img_resolution, self.img_channels = w_dim, img_resolution, img_channels
        self.img_resolution_log2 = int(math.log2(img_resolution))
        self.block_resolutions = [2**i for i in range(2, self.img_resolution_log2 + 1)]
        fp16_from = _fp16_resolution(img_resolution, num_fp16_res)
        self.num_ws = 0
        in_channels = 0
        for resolution in self.block_resolutions:
            out_channels = min(channel_base // resolution, channel_max)
            block = SynthesisBlock(
                in_channels,
                out_channels,
                w_dim=w_dim,
                resolution=resolution,
                img_channels=img_channels,
                is_last=resolution == img_resolution,
                use_fp16=resolution >= fp16_from,
                **block_kwargs,
            )
            self.num_ws += block.num_conv + (block.num_torgb if block.is_last else 0)
            setattr(self, f"b{resolution}", block)
            in_channels = out_channels

    def forward(self, ws: torch.Tensor, **block_kwargs: object) -> torch.Tensor:
        """ws [N, num_ws, w_dim] → images [N, img_channels, img_resolution, img_resolution], about [−1, 1].

        block_kwargs: `noise_mode` (random, const, none), `force_fp32`, `fused_modconv`.
        """
        misc.assert_shape(ws, [None, self.num_ws, self.w_dim])
        ws = ws.to(torch.float32)
        x = img = None
        first = 0
        with _while_unchanged(self):
            for resolution in self.block_resolutions:
                block = getattr(self, f"b{resolution}")
                x, img = block(x, img, ws.narrow(1, first, block.num_conv + block.num_torgb), **block_kwargs)
                first += block.num_conv
        return img


@persistence.persistent_class
class Generator(torch.nn.Module):
    """Mapping and synthesis: z and label → image. Other generators of this shape name their own `synthesis_class`."""

    synthesis_class = SynthesisNetwork

    def __init__(
        self,
        z_dim: int,
        c_dim: int,
        w_dim: int,
        img_resolution: int,
        img_channels: int,
        mapping_kwargs: dict[str, object] = {},
        synthesis_kwargs: dict[str, object] = {},
    ) -> None:
        super().__init__()
        self.z_dim, self.c_dim, self.w_dim = z_dim, c_dim, w_dim
        self.img_resolution, self.img_channels = img_resolution, img_channels
        self.synthesis = self.synthesis_class(w_dim, img_resolution, img_channels, **synthesis_kwargs)
        self.num_ws = self.synthesis.num_ws
        self.mapping = MappingNetwork(z_dim, c_dim, w_dim, self.num_ws, **mapping_kwargs)

    def forward(
        self,
        z: torch.Tensor | None,
        c: torch.Tensor | None,
        truncation_psi: float = 1,
        truncation_cutoff: int | None = None,
        **synthesis_kwargs: object,
    ) -> torch.Tensor:
        """z [N, z_dim], c [N, c_dim] → images [N, img_channels, img_resolution, img_resolution], about [−1, 1]"""
        ws = self.mapping(z, c, truncation_psi=truncation_psi, truncation_cutoff=truncation_cutoff)
        return self.synthesis(ws, **synthesis_kwargs)


# ---------------------------------------------------------------------------------------------------------------------
# Discriminator


@persistence.persistent_class
class DiscriminatorBlock(torch.nn.Module):
    """Two convolutions at one resolution, the second to half of it. `in_channels` 0: starts from the image.

    Layers are numbered from `first_layer_idx` in order of use; those below `freeze_layers` keep their weights
    (Freeze-D, Mo et al. 2020).
    """

    def __init__(
        self,
        in_channels: int,
        tmp_channels: int,
        out_channels: int,
        resolution: int,
        img_channels: int,
        first_layer_idx: int,
        architecture: str = "resnet",
        activation: str = "lrelu",
        resample_filter: list[float] | None = [1, 3, 3, 1],
        conv_clamp: float | None = None,
        use_fp16: bool = False,
        fp16_channels_last: bool = False,
        freeze_layers: int = 0,
    ) -> None:
        if in_channels not in (0, tmp_channels):
            raise ValueError(f"in_channels must be 0 or tmp_channels ({tmp_channels}), not {in_channels}")
        if architecture not in ("orig", "skip", "resnet"):
            raise ValueError(f"architecture must be orig, skip or resnet, not {architecture!r}")
        super().__init__()
        self.in_channels, self.img_channels, self.resolution = in_channels, img_channels, resolution
        self.architecture, self.first_layer_idx, self.num_layers = architecture, first_layer_idx, 0
        self.use_fp16, self.channels_last = use_fp16, use_fp16 and fp16_channels_last
        self.register_buffer("resample_filter", upfirdn2d.setup_filter(resample_filter))

        def conv(in_channels, out_channels, kernel_size, **kwargs):
            trainable = self.first_layer_idx + self.num_layers >= freeze_layers
            self.num_layers += 1
            kwargs = dict(activation=activation, conv_clamp=conv_clamp, trainable=trainable) | kwargs
            return Conv2dLayer(in_channels, out_channels, kernel_size, channels_last=self.channels_last, **kwargs)

        if in_channels == 0 or architecture == "skip":
            self.fromrgb = conv(img_channels, tmp_channels, 1)
        self.conv0 = conv(tmp_channels, tmp_channels, 3)
        self.conv1 = conv(tmp_channels, out_channels, 3, down=2, resample_filter=resample_filter)
        if architecture == "resnet":
            plain = dict(bias=False, activation="linear", conv_clamp=None)
            self.skip = conv(tmp_channels, out_channels, 1, down=2, resample_filter=resample_filter, **plain)

    def forward(
        self, x: torch.Tensor | None, img: torch.Tensor | None, force_fp32: bool = False
    ) -> tuple[torch.Tensor, torch.Tensor | None]:
        """x [N, in_channels, res, res] or None, img [N, img_channels, res, res] or None → both at res/2"""
        dtype, memory_format = _precision(self, force_fp32, (img if x is None else x).device)
        size = [self.resolution, self.resolution]
        if self.in_channels:
            misc.assert_shape(x, [None, self.in_channels, *size])
            x = x.to(dtype=dtype, memory_format=memory_format)
        if self.architecture == "skip" or not self.in_channels:
            misc.assert_shape(img, [None, self.img_channels, *size])
            img = img.to(dtype=dtype, memory_format=memory_format)
            features = self.fromrgb(img)
            x = features if x is None else x + features
            img = upfirdn2d.downsample2d(img, self.resample_filter) if self.architecture == "skip" else None
        if self.architecture == "resnet":
            branch = self.skip(x, gain=_BRANCH_GAIN)
            return branch + self.conv1(self.conv0(x), gain=_BRANCH_GAIN), img
        return self.conv1(self.conv0(x)), img


@persistence.persistent_class
class MinibatchStdLayer(torch.nn.Module):
    """Adds channels that hold the mean standard deviation within groups of images (Karras et al. 2018)."""

    def __init__(self, group_size: int | None, num_channels: int = 1) -> None:
        super().__init__()
        self.group_size = group_size
        self.num_channels = num_channels

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """[N, C, H, W] → [N, C + num_channels, H, W]; N must be divisible by the group's size (None: all of N)"""
        batch, channels, height, width = x.shape
        with misc.suppress_tracer_warnings():  # inside a trace the batch size is a tensor
            size = int(batch) if self.group_size is None else min(self.group_size, int(batch))
        groups = x.reshape(size, -1, self.num_channels, channels // self.num_channels, height, width)
        variance = (groups - groups.mean(dim=0)).square().mean(dim=0)  # faster than var() on a CPU
        std = (variance + 1e-8).sqrt()  # [N / size, num_channels, C', H, W]
        std = std.mean(dim=[2, 3, 4]).repeat(size, 1)  # [N, num_channels]
        return torch.cat([x, std[:, :, None, None].expand(-1, -1, height, width)], dim=1)


@persistence.persistent_class
class DiscriminatorEpilogue(torch.nn.Module):
    """The last block: minibatch statistics, convolution, two dense layers; projection on the label if there is one."""

    def __init__(
        self,
        in_channels: int,
        cmap_dim: int,
        resolution: int,
        img_channels: int,
        architecture: str = "resnet",
        mbstd_group_size: int | None = 4,
        mbstd_num_channels: int = 1,
        activation: str = "lrelu",
        conv_clamp: float | None = None,
    ) -> None:
        if architecture not in ("orig", "skip", "resnet"):
            raise ValueError(f"architecture must be orig, skip or resnet, not {architecture!r}")
        super().__init__()
        self.in_channels, self.img_channels, self.cmap_dim = in_channels, img_channels, cmap_dim
        self.resolution, self.architecture = resolution, architecture
        act = dict(activation=activation)
        if architecture == "skip":
            self.fromrgb = Conv2dLayer(img_channels, in_channels, 1, **act)
        self.mbstd = None
        if mbstd_num_channels > 0:
            self.mbstd = MinibatchStdLayer(mbstd_group_size, mbstd_num_channels)
        self.conv = Conv2dLayer(in_channels + mbstd_num_channels, in_channels, 3, conv_clamp=conv_clamp, **act)
        self.fc = FullyConnectedLayer(resolution * resolution * in_channels, in_channels, **act)
        self.out = FullyConnectedLayer(in_channels, cmap_dim or 1)

    def forward(
        self, x: torch.Tensor, img: torch.Tensor | None, cmap: torch.Tensor | None, force_fp32: bool = False
    ) -> torch.Tensor:
        """x [N, in_channels, res, res], img likewise for 'skip', cmap [N, cmap_dim] → logits [N, 1]; always float32"""
        misc.assert_shape(x, [None, self.in_channels, self.resolution, self.resolution])
        x = x.to(dtype=torch.float32, memory_format=torch.contiguous_format)
        if self.architecture == "skip":
            misc.assert_shape(img, [None, self.img_channels, self.resolution, self.resolution])
            x = x + self.fromrgb(img.to(dtype=torch.float32, memory_format=torch.contiguous_format))
        x = self.conv(x if self.mbstd is None else self.mbstd(x))
        logits = self.out(self.fc(x.flatten(1)))
        if self.cmap_dim == 0:
            return logits
        misc.assert_shape(cmap, [None, self.cmap_dim])
        return (logits * cmap).sum(dim=1, keepdim=True) / math.sqrt(self.cmap_dim)


@persistence.persistent_class
class Discriminator(torch.nn.Module):
    """Image and label → logit: blocks `b<img_resolution>` … `b8`, the epilogue `b4`, a `mapping` for labels."""

    def __init__(
        self,
        c_dim: int,
        img_resolution: int,
        img_channels: int,
        architecture: str = "resnet",
        channel_base: int = 32768,
        channel_max: int = 512,
        num_fp16_res: int = 0,
        conv_clamp: float | None = None,
        cmap_dim: int | None = None,
        block_kwargs: dict[str, object] = {},
        mapping_kwargs: dict[str, object] = {},
        epilogue_kwargs: dict[str, object] = {},
    ) -> None:
        _check_resolution(img_resolution)
        if img_resolution < 8:
            raise ValueError(f"a discriminator needs images of 8×8 or more, not {img_resolution}×{img_resolution}")
        super().__init__()
        self.c_dim, self.img_resolution, self.img_channels = c_dim, img_resolution, img_channels
        self.img_resolution_log2 = int(math.log2(img_resolution))
        self.block_resolutions = [2**i for i in range(self.img_resolution_log2, 2, -1)]
        channels = {}
        for res in [*self.block_resolutions, 4]:
            channels[res] = min(channel_base // res, channel_max)
        fp16_from = _fp16_resolution(img_resolution, num_fp16_res)
        default = channels[4] if cmap_dim is None else cmap_dim
        cmap_dim = default if c_dim > 0 else 0
        shared = dict(img_channels=img_channels, architecture=architecture, conv_clamp=conv_clamp)
        first_layer_idx = 0
        for res in self.block_resolutions:
            block = DiscriminatorBlock(
                channels[res] if res < img_resolution else 0,
                channels[res],
                channels[res // 2],
                resolution=res,
                first_layer_idx=first_layer_idx,
                use_fp16=res >= fp16_from,
                **block_kwargs,
                **shared,
            )
            self.add_module(f"b{res}", block)
            first_layer_idx += block.num_layers
        if self.c_dim:
            labels_only = dict(z_dim=0, num_ws=None, w_avg_beta=None)
            self.mapping = MappingNetwork(c_dim=c_dim, w_dim=cmap_dim, **labels_only, **mapping_kwargs)
        self.b4 = DiscriminatorEpilogue(channels[4], cmap_dim=cmap_dim, resolution=4, **epilogue_kwargs, **shared)

    def forward(self, img: torch.Tensor, c: torch.Tensor | None, **block_kwargs: object) -> torch.Tensor:
        """img [N, img_channels, img_resolution, img_resolution], c [N, c_dim] → logits [N, 1]; `force_fp32`"""
        x = None
        for res in self.block_resolutions:
            x, img = getattr(self, f"b{res}")(x, img, **block_kwargs)
        cmap = self.mapping(None, c) if self.c_dim > 0 else None
        return self.b4(x, img, cmap, **block_kwargs)
