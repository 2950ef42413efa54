"""ADA's augmentations (Karras et al. 2020, "Training GANs with limited data", appendix B).

Every augmentation is differentiable and is applied to each image with its own probability, `strength · p`, where
`strength` is the constructor's argument of its name and `p` a buffer that the training loop adapts. Geometric ones are
gathered into one transformation of coordinates and colour ones into one matrix, so that an image is resampled once.
"""

import math

import numpy as np
import torch
import torch.nn.functional as F

from torch_utils import misc, persistence
from torch_utils.ops import conv2d_gradfix, grid_sample_gradfix, upfirdn2d

# Low-pass decomposition filters of orthogonal wavelets (Daubechies 1992): sym6 resamples, sym2 splits into bands.
_WAVELET_TABLE = """
haar 0.7071067811865476 0.7071067811865476
db1 0.7071067811865476 0.7071067811865476
db2 -0.12940952255126037 0.2241438680420134 0.8365163037378079 0.48296291314453416
db3 0.03522629188570953 -0.08544127388202666 -0.13501102001025458 0.45987750211849154 0.8068915093110925
  0.33267055295008263
db4 -0.010597401785069032 0.0328830116668852 0.030841381835560764 -0.18703481171909309 -0.027983769416859854
  0.6308807679298589 0.7148465705529157 0.2303778133088965
db5 0.0033357252854737712 -0.012580751999081999 -0.006241490212798274 0.07757149384004572 -0.032244869584638375
  -0.24229488706638203 0.13842814590132074 0.7243085284377729 0.6038292697971896 0.16010239797419293
db6 -0.0010773010853084796 0.004777257510945511 0.0005538422011614961 -0.03158203931748603 0.027522865530305727
  0.09750160558732304 -0.12976686756726194 -0.22626469396543983 0.31525035170919763 0.7511339080210954
  0.49462389039845306 0.11154074335010947
db7 0.00035371379997452024 -0.0018016407040474908 0.0004295779729213665 0.01255099855609984 -0.01657454163066688
  -0.03802993693501441 0.08061260915108308 0.07130921926683026 -0.22403618499387498 -0.14390600392856498
  0.4697822874051931 0.7291320908462351 0.3965393194819173 0.07785205408500918
db8 -0.00011747678412476953 0.0006754494064505693 -0.00039174037337694705 -0.004870352993451574 0.008746094047405777
  0.013981027917398282 -0.044088253930794755 -0.017369301001807547 0.12874742662047847 0.0004724845739132828
  -0.2840155429615469 -0.015829105256349306 0.5853546836542067 0.6756307362972898 0.31287159091429995
  0.05441584224310401
sym2 -0.12940952255092145 0.22414386804185735 0.836516303737469 0.48296291314469025
sym3 0.035226291882100656 -0.08544127388224149 -0.13501102001039084 0.4598775021193313 0.8068915093133388
  0.3326705529509569
sym4 -0.07576571478927333 -0.02963552764599851 0.49761866763201545 0.8037387518059161 0.29785779560527736
  -0.09921954357684722 -0.012603967262037833 0.0322231006040427
sym5 0.027333068345077982 0.029519490925774643 -0.039134249302383094 0.1993975339773936 0.7234076904024206
  0.6339789634582119 0.01660210576452232 -0.17532808990845047 -0.021101834024758855 0.019538882735286728
sym6 0.015404109327027373 0.0034907120842174702 -0.11799011114819057 -0.048311742585633 0.4910559419267466
  0.787641141030194 0.3379294217276218 -0.07263752278646252 -0.021060292512300564 0.04472490177066578
  0.0017677118642428036 -0.007800708325034148
sym7 0.002681814568257878 -0.0010473848886829163 -0.01263630340325193 0.03051551316596357 0.0678926935013727
  -0.049552834937127255 0.017441255086855827 0.5361019170917628 0.767764317003164 0.2886296317515146
  -0.14004724044296152 -0.10780823770381774 0.004010244871533663 0.010268176708511255
sym8 -0.0033824159510061256 -0.0005421323317911481 0.03169508781149298 0.007607487324917605 -0.1432942383508097
  -0.061273359067658524 0.4813596512583722 0.7771857517005235 0.3644418948353314 -0.05194583810770904
  -0.027219029917056003 0.049137179673607506 0.003808752013890615 -0.01495225833704823 -0.0003029205147213668
  0.0018899503327594609
"""


def _parse_wavelets(table):
    """{name: [taps]} of a text in which every name is followed by its numbers."""
    filters = {}
    for word in table.split():
        if word[0].isalpha():
            filters[word] = []
        else:
            list(filters.values())[-1].append(float(word))
    return filters


wavelets = _parse_wavelets(_WAVELET_TABLE)


# ---------------------------------------------------------------------------------------------------------------------
# Matrices of homogeneous coordinates; an argument that is a tensor [N] gives a batch [N, 3, 3] or [N, 4, 4]


def matrix(*rows: list[float | torch.Tensor], device: torch.device | str | None = None) -> torch.Tensor:
    """The matrix of these rows, whose elements are numbers or tensors of equal shape S: [*S, rows, columns]."""
    elements = [x for row in rows for x in row]
    tensors = [x for x in elements if isinstance(x, torch.Tensor)]
    if not tensors:
        return misc.constant(rows, device=device)
    like = tensors[0] if device is None else tensors[0].to(device)
    filled = [x.to(like.device) if isinstance(x, torch.Tensor) else torch.full_like(like, x) for x in elements]
    return torch.stack(filled, dim=-1).unflatten(-1, (len(rows), -1))


_LAST_ROW_2D, _LAST_ROW_3D = [0, 0, 1], [0, 0, 0, 1]


def translate2d(
    tx: float | torch.Tensor, ty: float | torch.Tensor, **kwargs: torch.device | str | None
) -> torch.Tensor:
    """By tx along the x axis and ty along the y axis."""
    rows = [1, 0, tx], [0, 1, ty]
    return matrix(*rows, _LAST_ROW_2D, **kwargs)


def translate2d_inv(
    tx: float | torch.Tensor, ty: float | torch.Tensor, **kwargs: torch.device | str | None
) -> torch.Tensor:
    """The inverse of `translate2d`."""
    return translate2d(-tx, -ty, **kwargs)


def translate3d(
    tx: float | torch.Tensor, ty: float | torch.Tensor, tz: float | torch.Tensor, **kwargs: torch.device | str | None
) -> torch.Tensor:
    """By tx, ty and tz along the axes."""
    return matrix([1, 0, 0, tx], [0, 1, 0, ty], [0, 0, 1, tz], _LAST_ROW_3D, **kwargs)


def scale2d(sx: float | torch.Tensor, sy: float | torch.Tensor, **kwargs: torch.device | str | None) -> torch.Tensor:
    """By the factors sx and sy along the axes."""
    rows = [sx, 0, 0], [0, sy, 0]
    return matrix(*rows, _LAST_ROW_2D, **kwargs)


def scale2d_inv(
    sx: float | torch.Tensor, sy: float | torch.Tensor, **kwargs: torch.device | str | None
) -> torch.Tensor:
    """The inverse of `scale2d`."""
    return scale2d(1 / sx, 1 / sy, **kwargs)


def scale3d(
    sx: float | torch.Tensor, sy: float | torch.Tensor, sz: float | torch.Tensor, **kwargs: torch.device | str | None
) -> torch.Tensor:
    """By the factors sx, sy and sz along the axes."""
    return matrix([sx, 0, 0, 0], [0, sy, 0, 0], [0, 0, sz, 0], _LAST_ROW_3D, **kwargs)


def rotate2d(theta: float | torch.Tensor, **kwargs: torch.device | str | None) -> torch.Tensor:
    """By theta radians, from the x axis towards the y axis."""
    sin, cos = _sin_cos(theta)
    return matrix([cos, -sin, 0], [sin, cos, 0], _LAST_ROW_2D, **kwargs)


def rotate2d_inv(theta: float | torch.Tensor, **kwargs: torch.device | str | None) -> torch.Tensor:
    """The inverse of `rotate2d`."""
    return rotate2d(-theta, **kwargs)


def rotate3d(
    v: list[float] | torch.Tensor, theta: float | torch.Tensor, **kwargs: torch.device | str | None
) -> torch.Tensor:
    """By theta radians around the unit vector v (Rodrigues' formula)."""
    (x, y, z), (sin, cos) = v[:3], _sin_cos(theta)
    rest = 1 - cos
    return matrix(
        [cos + x * x * rest, x * y * rest - z * sin, x * z * rest + y * sin, 0],
        [y * x * rest + z * sin, cos + y * y * rest, y * z * rest - x * sin, 0],
        [z * x * rest - y * sin, z * y * rest + x * sin, cos + z * z * rest, 0],
        _LAST_ROW_3D,
        **kwargs,
    )


def _sin_cos(theta):
    if isinstance(theta, torch.Tensor):
        return theta.sin(), theta.cos()
    return math.sin(theta), math.cos(theta)


# ---------------------------------------------------------------------------------------------------------------------
# Random numbers


class _Draws:
    """Random numbers for a batch of `size` images, applied to each with probability `strength · p`.

    With `percentile` every number is that percentile of its distribution, and every augmentation is applied.
    """

    def __init__(self, size, device, p, percentile):
        self.size, self.device, self.p = size, device, p
        self.percentile = (
            None if percentile is None else torch.as_tensor(percentile, dtype=torch.float32, device=device)
        )

    def uniform(self, low, high, count=1):
        """[N, count] from U(low, high)"""
        unit = torch.rand([self.size, count], device=self.device) if self.percentile is None else self._fixed(count)
        return low + unit * (high - low)

    def normal(self, std, count=1):
        """[N, count] from N(0, std²); the percentile is taken on the scale of erf⁻¹"""
        if self.percentile is None:
            return torch.randn([self.size, count], device=self.device) * std
        return torch.erfinv(2 * self._fixed(count) - 1) * std

    def half_normal(self, std):
        """[N, 1] from |N(0, std²)|"""
        if self.percentile is None:
            return self.normal(std).abs()
        return torch.erfinv(self._fixed(1)) * std

    def choice(self, count):
        """[N, 1] whole numbers below `count`"""
        return self.uniform(0, count).floor()

    def gate(self, strength, value, neutral):
        """`value` [N, k] where the augmentation is applied, else `neutral`."""
        if self.percentile is not None:
            return value
        applied = torch.rand([self.size, 1], device=self.device) < strength * self.p
        return torch.where(applied, value, torch.full_like(value, neutral))

    def _fixed(self, count):
        return self.percentile.expand(self.size, count)


def _band_filters(taps):
    """[4, 43] filters that split a signal into octaves, from lowest to highest; together they pass it unchanged."""
    low = np.asarray(taps) / np.sqrt(2)
    high = low * (-1) ** np.arange(low.size)
    low, high = np.convolve(low, low[::-1]), np.convolve(high, high[::-1])  # zero phase
    bands = [np.ones(1)]
    for _ in range(3):  # one octave down: stretch what there is, smooth it, and add the new highest band
        stretched = [np.insert(band, np.arange(1, band.size), 0) for band in bands]
        bands = [np.convolve(band, low) for band in stretched]
        margin = (bands[0].size - high.size) // 2
        bands.append(np.pad(high, (margin, bands[0].size - high.size - margin)))
    return np.stack(bands)


@persistence.persistent_class
class AugmentPipe(torch.nn.Module):
    """Augments a batch of images. Arguments named like an augmentation are its strength, relative to `p`.

    Blitting: `xflip`, `rotate90`, `xint` (shift by up to `xint_max` of the size). Geometry: `scale`, `rotate`
    (`rotate_max` of half a turn), `aniso`, `xfrac`, with the standard deviations of log2 scale and relative shift.
    Colour: `brightness`, `contrast`, `lumaflip`, `hue` (`hue_max` of half a turn), `saturation`. `imgfilter`: gains of
    four frequency bands, times `imgfilter_bands`. Corruption: `noise`, `cutout` (`cutout_size` of the image).
    """

    fixed_margins = False  # True: images are always mirrored as far as they can be, so that all sizes are known

    def __init__(
        self,
        xflip: float = 0,
        rotate90: float = 0,
        xint: float = 0,
        xint_max: float = 0.125,
        scale: float = 0,
        rotate: float = 0,
        aniso: float = 0,
        xfrac: float = 0,
        scale_std: float = 0.2,
        rotate_max: float = 1,
        aniso_std: float = 0.2,
        xfrac_std: float = 0.125,
        brightness: float = 0,
        contrast: float = 0,
        lumaflip: float = 0,
        hue: float = 0,
        saturation: float = 0,
        brightness_std: float = 0.2,
        contrast_std: float = 0.5,
        hue_max: float = 1,
        saturation_std: float = 1,
        imgfilter: float = 0,
        imgfilter_bands: list[float] = [1, 1, 1, 1],
        imgfilter_std: float = 1,
        noise: float = 0,
        cutout: float = 0,
        noise_std: float = 0.1,
        cutout_size: float = 0.5,
    ) -> None:
        options = {name: value for name, value in locals().items() if name not in ("self", "__class__")}
        super().__init__()
        for name, value in options.items():
            setattr(self, name, list(value) if name == "imgfilter_bands" else float(value))
        self.register_buffer("p", torch.ones([]))
        self.register_buffer("Hz_geom", upfirdn2d.setup_filter(wavelets["sym6"]))
        bands = _band_filters(wavelets["sym2"])
        self.register_buffer("Hz_fbank", torch.as_tensor(bands, dtype=torch.float32))

    def forward(self, images: torch.Tensor, debug_percentile: float | torch.Tensor | None = None) -> torch.Tensor:
        """[N, C, H, W] in [−1, 1] → the same. `debug_percentile`: fixes all strengths at that percentile, in [0, 1]."""
        draws = _Draws(images.shape[0], images.device, self.p, debug_percentile)
        if any((self.xflip, self.rotate90, self.xint, self.scale, self.rotate, self.aniso, self.xfrac)):
            images = self._warp(images, self._geometry(draws, images.shape[2], images.shape[3]))
        if any((self.brightness, self.contrast, self.lumaflip, self.hue, self.saturation)):
            images = self._recolour(images, self._colours(draws, images.shape[1]))
        if self.imgfilter > 0:
            images = self._filter(images, self._band_gains(draws))
        if self.noise > 0:
            sigma = draws.gate(self.noise, draws.half_normal(self.noise_std), 0)[:, :, None, None]
            images = images + torch.randn(images.shape, device=images.device) * sigma
        if self.cutout > 0:
            images = images * self._cutout_mask(draws, images.shape[2], images.shape[3])
        return images

    # Geometry

    def _geometry(self, draws, height, width):
        """[N, 3, 3]: where in the source, in pixels from the centre, each pixel of the result lies."""
        G_inv = torch.eye(3, device=draws.device)
        if self.xflip > 0:
            i = draws.gate(self.xflip, draws.choice(2), 0)[:, 0]
            G_inv = G_inv @ scale2d_inv(1 - 2 * i, 1)
        if self.rotate90 > 0:
            i = draws.gate(self.rotate90, draws.choice(4), 0)[:, 0]
            G_inv = G_inv @ rotate2d_inv(-math.pi / 2 * i)
        if self.xint > 0:
            tx, ty = draws.gate(self.xint, draws.uniform(-self.xint_max, self.xint_max, 2), 0).unbind(dim=1)
            G_inv = G_inv @ translate2d_inv((tx * width).round(), (ty * height).round())
        if self.scale > 0:
            s = draws.gate(self.scale, draws.normal(self.scale_std).exp2(), 1)[:, 0]
            G_inv = G_inv @ scale2d_inv(s, s)
        # Rotating before and after the stretch makes its axes arbitrary; either happens with such a probability that
        # an image stays upright with probability 1 − rotate·p.
        rotate = 1 - (1 - self.rotate * draws.p).clamp(0, 1).sqrt()
        limit = math.pi * self.rotate_max
        if self.rotate > 0:
            theta = self._gated_rotation(draws, rotate, draws.uniform(-limit, limit))
            G_inv = G_inv @ rotate2d_inv(-theta)
        if self.aniso > 0:
            s = draws.gate(self.aniso, draws.normal(self.aniso_std).exp2(), 1)[:, 0]
            G_inv = G_inv @ scale2d_inv(s, 1 / s)
        if self.rotate > 0 and draws.percentile is None:  # a fixed percentile would turn twice by the same angle
            theta = self._gated_rotation(draws, rotate, draws.uniform(-limit, limit))
            G_inv = G_inv @ rotate2d_inv(-theta)
        if self.xfrac > 0:
            tx, ty = draws.gate(self.xfrac, draws.normal(self.xfrac_std, 2), 0).unbind(dim=1)
            G_inv = G_inv @ translate2d_inv(tx * width, ty * height)
        return G_inv.expand(draws.size, 3, 3)

    @staticmethod
    def _gated_rotation(draws, probability, theta):
        if draws.percentile is None:
            applied = torch.rand(theta.shape, device=draws.device) < probability
            theta = torch.where(applied, theta, torch.zeros_like(theta))
        return theta[:, 0]

    def _warp(self, images, G_inv):
        """Resamples at twice the resolution, with mirrored borders wide enough for what the transformations reach."""
        height, width = images.shape[2:]
        taps = self.Hz_geom.shape[0] // 4
        if self.fixed_margins:
            left, top, right, bottom = width - 1, height - 1, width - 1, height - 1
        else:
            left, top, right, bottom = self._margins(G_inv, height, width, taps)
        images = F.pad(images, [left, right, top, bottom], mode="reflect")
        # As tensors, since `matrix` keeps matrices of numbers for good, and these change from batch to batch.
        number = lambda value: torch.full([], value, device=images.device)
        G_inv = translate2d(number((left - right) / 2), number((top - bottom) / 2)) @ G_inv

        images = upfirdn2d.upsample2d(images, self.Hz_geom, up=2)
        # In pixels of the doubled image, whose first pixel lies a quarter of an old pixel beside the old first one.
        on = dict(device=images.device)
        double = translate2d(-0.5, -0.5, **on) @ scale2d(2, 2, **on)
        single = scale2d_inv(2, 2, **on) @ translate2d_inv(-0.5, -0.5, **on)
        G_inv = double @ G_inv @ single

        out_height, out_width = 2 * (height + 2 * taps), 2 * (width + 2 * taps)
        # From [−1, 1] over the result to [−1, 1] over the source, as grid_sample counts.
        to_source = scale2d(number(2 / images.shape[3]), number(2 / images.shape[2]))
        from_result = scale2d(out_width / 2, out_height / 2, **on)
        theta = (to_source @ G_inv @ from_result)[:, :2]
        grid = F.affine_grid(theta, [*images.shape[:2], out_height, out_width], align_corners=False)
        images = grid_sample_gradfix.grid_sample(images, grid)
        return upfirdn2d.downsample2d(images, self.Hz_geom, down=2, padding=-2 * taps, flip_filter=True)

    @staticmethod
    def _margins(G_inv, height, width, taps):
        """Pixels to add at left, top, right and bottom so that no corner of any image reaches outside."""
        cx, cy = (width - 1) / 2, (height - 1) / 2
        corners = [[-cx, cx, cx, -cx], [-cy, -cy, cy, cy], [1, 1, 1, 1]]  # x, y, 1 of each
        reached = (G_inv @ misc.constant(corners, device=G_inv.device))[:, :2]  # [N, xy, corner]
        far = torch.stack([reached.amax(dim=[0, 2]), (-reached).amax(dim=[0, 2])]).tolist()  # one wait for the device
        limit = [width - 1, height - 1]  # what mirroring can provide
        slack = [2 * taps - cx, 2 * taps - cy]
        x1, y1 = (math.ceil(min(max(m + s, 0), top)) for m, s, top in zip(far[0], slack, limit))
        x0, y0 = (math.ceil(min(max(m + s, 0), top)) for m, s, top in zip(far[1], slack, limit))
        return x0, y0, x1, y1

    # Colour

    def _colours(self, draws, channels):
        """[N, 4, 4]: the transformation of (r, g, b, 1)."""
        device = draws.device
        C = torch.eye(4, device=device)
        grey = misc.constant([1 / math.sqrt(3)] * 3 + [0], device=device)  # the luma axis
        luma = grey.outer(grey)  # [4, 4]: projection onto it
        if self.brightness > 0:
            b = draws.gate(self.brightness, draws.normal(self.brightness_std), 0)[:, 0]
            C = translate3d(b, b, b) @ C
        if self.contrast > 0:
            c = draws.gate(self.contrast, draws.normal(self.contrast_std).exp2(), 1)[:, 0]
            C = scale3d(c, c, c) @ C
        if self.lumaflip > 0:
            i = draws.gate(self.lumaflip, draws.choice(2), 0)[:, :, None]
            C = (torch.eye(4, device=device) - 2 * luma * i) @ C  # mirrors along the axis
        if self.hue > 0 and channels > 1:
            limit = math.pi * self.hue_max
            theta = draws.gate(self.hue, draws.uniform(-limit, limit), 0)[:, 0]
            C = rotate3d([1 / math.sqrt(3)] * 3, theta) @ C
        if self.saturation > 0 and channels > 1:
            s = draws.gate(self.saturation, draws.normal(self.saturation_std).exp2(), 1)[:, :, None]
            C = (luma + (torch.eye(4, device=device) - luma) * s) @ C
        return C.expand(draws.size, 4, 4)

    @staticmethod
    def _recolour(images, C):
        channels = images.shape[1]
        if channels not in (1, 3):
            raise ValueError(f"colour augmentations need images of 1 or 3 channels, not {channels}; use --augpipe=bg")
        if channels == 1:  # the brightness that a grey pixel (v, v, v) would get
            C = C[:, :3].mean(dim=1, keepdim=True)  # [N, 1, 4]
            linear, offset = C[:, :, :3].sum(dim=2, keepdim=True), C[:, :, 3:]
        else:
            linear, offset = C[:, :3, :3], C[:, :3, 3:]
        return (linear @ images.flatten(2) + offset).reshape(images.shape)

    # Filtering and corruption

    def _band_gains(self, draws):
        """[N, 4]: gains of the frequency bands, each draw normalised for the power spectrum of natural images."""
        power = misc.constant(np.array([10, 1, 1, 1]) / 13, device=draws.device)
        gains = torch.ones([draws.size, power.numel()], device=draws.device)
        for band, strength in enumerate(self.imgfilter_bands):
            if strength > 0:
                one = draws.gate(self.imgfilter * strength, draws.normal(self.imgfilter_std).exp2(), 1)
                t = torch.ones_like(gains)
                t = torch.cat([t[:, :band], one, t[:, band + 1 :]], dim=1)
                gains = gains * t / (power * t.square()).sum(dim=1, keepdim=True).sqrt()
        return gains

    def _filter(self, images, gains):
        batch, channels, height, width = images.shape
        taps = (gains @ self.Hz_fbank).repeat_interleave(channels, dim=0)[:, None]  # [N·C, 1, taps]
        p = self.Hz_fbank.shape[1] // 2
        images = images.reshape(1, batch * channels, height, width)
        images = F.pad(images, [p, p, p, p], mode="reflect")
        images = conv2d_gradfix.conv2d(images, taps[:, :, None, :], groups=batch * channels)
        images = conv2d_gradfix.conv2d(images, taps[:, :, :, None], groups=batch * channels)
        return images.reshape(batch, channels, height, width)

    def _cutout_mask(self, draws, height, width):
        """[N, 1, H, W]: 0 inside a square at a random place."""
        size = draws.gate(self.cutout, torch.full([draws.size, 1], self.cutout_size, device=draws.device), 0)
        centre = draws.uniform(0, 1, 2)
        x = (torch.arange(width, device=draws.device) + 0.5) / width
        y = (torch.arange(height, device=draws.device) + 0.5) / height
        outside_x = (x - centre[:, :1]).abs() >= size / 2  # [N, W]
        outside_y = (y - centre[:, 1:]).abs() >= size / 2  # [N, H]
        return (outside_x[:, None, None, :] | outside_y[:, None, :, None]).to(torch.float32)
