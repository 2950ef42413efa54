"""Perceptual path length (Karras et al. 2019): how much images change over a small step through the latents."""

import copy
import math
from typing import Any

import numpy as np
import torch

from metrics import detectors, metric_utils
from metrics.perceptual import VGG16
from torch_utils import cached_weights


def slerp(a: torch.Tensor, b: torch.Tensor, t: torch.Tensor | float) -> torch.Tensor:
    """The point at t (0: a, 1: b) of the great circle through the directions of a and b [..., F]; unit length."""
    a, b = (torch.nn.functional.normalize(v, dim=-1) for v in (a, b))
    cosine = (a * b).sum(dim=-1, keepdim=True)
    tangent = torch.nn.functional.normalize(b - cosine * a, dim=-1)
    angle = t * torch.acos(cosine)
    return torch.nn.functional.normalize(a * torch.cos(angle) + tangent * torch.sin(angle), dim=-1)


class PPLSampler(torch.nn.Module):
    """Squared distances over steps of ε, one batch a call.

    G, G_kwargs: generator and arguments of its calls. epsilon: the step. space: 'z' (slerp) or 'w' (lerp). sampling:
    'full' (t uniform) or 'end' (t = 0). crop: keep the middle of the picture, where faces are. vgg16: detector for
    `return_lpips`. redraw_noise: new noise images for every batch.
    """

    def __init__(
        self,
        G: torch.nn.Module,
        G_kwargs: dict[str, Any],
        epsilon: float,
        space: str,
        sampling: str,
        crop: bool,
        vgg16: torch.nn.Module,
        redraw_noise: bool = True,
    ) -> None:
        if space not in ("z", "w") or sampling not in ("full", "end"):
            raise ValueError(f"space is z or w, sampling full or end, not {space!r} and {sampling!r}")
        super().__init__()
        self.G, self.G_kwargs, self.epsilon = copy.deepcopy(G), G_kwargs, epsilon  # its noise images will change
        self.space, self.sampling, self.crop, self.redraw_noise = space, sampling, crop, redraw_noise
        self.vgg16 = vgg16

    def forward(self, c: torch.Tensor) -> torch.Tensor:
        """c: labels [N, c_dim] → distances / ε² [N]"""
        batch, device = len(c), c.device
        t = torch.rand([batch], device=device)[:, None] * (1 if self.sampling == "full" else 0)
        z = torch.randn([2 * batch, self.G.z_dim], device=device)
        ws = self._near_pairs(*z.chunk(2), t, c)
        if self.redraw_noise:
            for name, buffer in self.G.named_buffers():
                if name.endswith(".noise_const"):
                    buffer.copy_(torch.randn_like(buffer))
        images = self.G.synthesis(ws, noise_mode="const", force_fp32=True, **self.G_kwargs)
        features = self.vgg16(self._prepare(images), resize_images=False, return_lpips=True)
        first, second = features.chunk(2)
        return (first - second).square().sum(dim=1) / self.epsilon**2

    def _near_pairs(self, z0, z1, t, c):
        """ws [2·N, num_ws, w_dim]: N points between two latents, then N points a step further."""
        if self.space == "w":
            w0, w1 = self.G.mapping(torch.cat([z0, z1]), torch.cat([c, c])).chunk(2)
            return torch.cat([w0.lerp(w1, t[:, None] + step) for step in (0, self.epsilon)])
        z = torch.cat([slerp(z0, z1, t + step) for step in (0, self.epsilon)])
        z = z * math.sqrt(self.G.z_dim)  # as long as random ones are, for mappings that do not normalise
        return self.G.mapping(z, torch.cat([c, c]))

    def _prepare(self, images):
        """[N, C, H, W] in [−1, 1] → [N, 3, h, w] in [0, 255], at most 256 pixels high"""
        if self.crop:
            eighth = images.shape[3] // 8
            images = images[:, :, 3 * eighth : 7 * eighth, 2 * eighth : 6 * eighth]
        factor = self.G.img_resolution // 256
        if factor > 1:
            images = torch.nn.functional.avg_pool2d(images, factor)
        return ((images + 1) * 127.5).expand(-1, 3, -1, -1)


def compute_ppl(
    opts: metric_utils.MetricOptions,
    num_samples: int,
    epsilon: float,
    space: str,
    sampling: str,
    crop: bool,
    batch_size: int,
    jit: bool = False,
    redraw_noise: bool = True,
    percentiles: tuple[float, float] | None = (1, 99),
) -> float:
    """Mean distance over num_samples steps, without those beyond `percentiles` (None: of all).

    batch_size: pairs at a time. The rest as in `PPLSampler`.
    """
    name = opts.detector(detectors.PERCEPTUAL, VGG16)
    opts.protocol |= dict(num_gen=num_samples, resolution=opts.G.img_resolution)
    vgg16 = metric_utils.get_feature_detector(name, opts.device, opts.num_gpus, opts.rank, opts.progress.verbose)
    sampler = PPLSampler(opts.G, opts.G_kwargs, epsilon, space, sampling, crop, vgg16, redraw_noise)
    sampler = sampler.eval().requires_grad_(False).to(opts.device)
    if jit:
        sampler = torch.jit.trace(
            sampler, [torch.zeros([batch_size, opts.G.c_dim], device=opts.device)], check_trace=False
        )
    draw_labels = metric_utils.label_sampler(opts, opts.G)
    progress = opts.progress.sub("ppl sampling", num_samples)
    stats = metric_utils.FeatureStats(capture_all=True, max_items=num_samples)
    with cached_weights.enabled():
        while not stats.is_full():
            stats.append_torch(sampler(draw_labels(batch_size))[:, None], opts.num_gpus, opts.rank)
            progress.update(stats.num_items)
    distances = stats.get_all()[:, 0].astype(np.float64)
    if percentiles is not None:
        low = np.percentile(distances, percentiles[0], method="lower")
        high = np.percentile(distances, percentiles[1], method="higher")
        distances = distances[(distances >= low) & (distances <= high)]
    return float(distances.mean()) if opts.rank == 0 else float("nan")
