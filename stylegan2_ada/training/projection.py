"""Finds the w whose image is nearest to a picture (StyleGAN2, appendix D).

Adam on one w for all layers and on the noise images, a learning rate that ramps up and down, noise on w that fades, and
a penalty that keeps the noise images free of the picture. Several targets go at once; in W+ (Image2StyleGAN) each layer
has a w of its own.
"""

import copy
import math
import os
from collections.abc import Callable, Sequence
from typing import NamedTuple

import numpy as np
import PIL.Image
import torch
import tqdm

from training.files import open_picture, without_alpha

SPACES = ("w", "w+")


class Projection(NamedTuple):
    """What `project_many` finds: ws [T, num_ws, w_dim], and the distances [steps, T] on the way."""

    ws: torch.Tensor
    distances: torch.Tensor


def project(
    G: torch.nn.Module,
    target: torch.Tensor,
    *,
    features: Callable[[torch.Tensor], torch.Tensor],
    label: torch.Tensor | None = None,
    num_steps: int = 1000,
    w_avg_samples: int = 10000,
    initial_learning_rate: float = 0.1,
    initial_noise_factor: float = 0.05,
    lr_rampdown_length: float = 0.25,
    lr_rampup_length: float = 0.05,
    noise_ramp_length: float = 0.75,
    regularize_noise_weight: float = 1e5,
    verbose: bool = False,
    device: torch.device | str = torch.device("cpu"),
    on_step: Callable[[int, int], bool | None] | None = None,
) -> torch.Tensor:
    """The path of w towards a target, [num_steps, num_ws, w_dim]; the last one is the result.

    target: [C, H, W] in [0, 255], of the generator's size. features: images [N, C, H, W] in [0, 255] → [N, F] whose
    squared distance is made small (`metrics.perceptual`). label: [1, c_dim] of a conditional network. The *_length are
    shares of the run. verbose: a progress bar. on_step: called with (step, num_steps); the path ends when it returns
    False. Random numbers: seed 123 for the start, torch's generator for the rest.
    """
    schedule = _Schedule(
        initial_learning_rate,
        initial_noise_factor,
        lr_rampdown_length,
        lr_rampup_length,
        noise_ramp_length,
        regularize_noise_weight,
    )
    descent = _Descent(G, target[None], features, label, w_avg_samples, schedule, device)
    path = torch.empty([num_steps, G.num_ws, G.w_dim])
    for step, ws, _ in descent.steps(num_steps, verbose):
        path[step] = ws[0].cpu()
        if on_step is not None and on_step(step, num_steps) is False:
            path = path[: step + 1]
            break
    return path


def project_many(
    G: torch.nn.Module,
    targets: torch.Tensor,
    *,
    features: Callable[[torch.Tensor], torch.Tensor],
    space: str = "w",
    start: torch.Tensor | None = None,
    bounds: Callable[[torch.Tensor], torch.Tensor] | None = None,
    label: torch.Tensor | None = None,
    num_steps: int = 1000,
    verbose: bool = False,
    device: torch.device | str = torch.device("cpu"),
    on_step: Callable[[int, torch.Tensor, torch.Tensor], bool | None] | None = None,
) -> Projection:
    """`project` for several targets [T, C, H, W] at once, which do not see each other.

    space: w, or w+, where each layer has a w of its own. start: ws [T, w_dim] to begin from instead of the mean of w.
    bounds: w [..., w_dim] → the nearest that may be, after each step. on_step: called with (step, ws, distances [T]);
    all ends when it returns False. ValueError for another space.
    """
    if space not in SPACES:
        raise ValueError(f"there are the spaces {' and '.join(SPACES)}, not {space!r}")
    descent = _Descent(G, targets, features, label, 10000, _Schedule(), device)
    descent.begin(space == "w+", start, bounds)
    distances = []
    for step, ws, distance in descent.steps(num_steps, verbose):
        distances.append(distance)
        if on_step is not None and on_step(step, ws, distance) is False:
            break
    return Projection(ws.cpu().clone(), torch.stack(distances).cpu())


def psnr(images: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
    """dB [N], the peak signal-to-noise ratio of images [N, C, H, W] to targets, both in [−1, 1]; 110 of equal ones"""
    error = (images.clamp(-1, 1) - targets).square().mean(dim=[1, 2, 3])
    return 10 * torch.log10(4 / error.clamp(min=4e-11))


class _Schedule(NamedTuple):
    """The knobs of a descent, by the names of `project`"""

    initial_learning_rate: float = 0.1
    initial_noise_factor: float = 0.05
    lr_rampdown_length: float = 0.25
    lr_rampup_length: float = 0.05
    noise_ramp_length: float = 0.75
    regularize_noise_weight: float = 1e5


class _Descent:
    """Adam on w [T, 1 or num_ws, w_dim] and on noise images of each target's own"""

    def __init__(self, G, targets, features, label, samples, schedule, device):
        targets = targets.to(device, torch.float32)
        if list(targets.shape[1:]) != [G.img_channels, G.img_resolution, G.img_resolution]:
            shape = list(targets.shape[1:])
            raise ValueError(f"the target is {shape}; {G.img_channels} × {G.img_resolution}² is needed")
        self.G = copy.deepcopy(G).eval().requires_grad_(False).to(device)  # its noise images will change
        self.features, self.schedule = features, schedule
        self.mean, self.deviation = _statistics_of_w(self.G, label, samples, device)
        self.noises = []
        for module in self.G.synthesis.modules():
            if getattr(module, "noise_const", None) is not None:
                noise = torch.empty(len(targets), 1, *module.noise_const.shape, device=device)
                module.noise_const = noise.normal_().requires_grad_(True)
                self.noises.append(module.noise_const)
        with torch.no_grad():
            self.wanted = features(_at_most_256(targets))
        self.begin()

    def begin(self, each_layer=False, start=None, bounds=None):
        count, layers = len(self.wanted), self.G.num_ws if each_layer else 1
        w = self.mean.expand(count, -1) if start is None else start.to(self.mean)
        self.bounds = bounds or (lambda w: w)
        self.w = self.bounds(w)[:, None].repeat(1, layers, 1).requires_grad_(True)

    def steps(self, count, verbose):
        """Yields (step, ws [T, num_ws, w_dim], distances [T] of the images before it)"""
        optimizer = torch.optim.Adam([self.w, *self.noises], betas=(0.9, 0.999))
        bar = tqdm.tqdm(range(count), desc="Projecting", disable=None if verbose else True)
        for step in bar:
            distances = self._step(optimizer, step / count)
            bar.set_postfix(distance=f"{distances.mean().item():.4g}", refresh=False)
            yield step, self.w.detach().expand(-1, self.G.num_ws, -1), distances

    def _step(self, optimizer, t):
        """One step, at t from 0 to 1 of the run; the distances [T] before it"""
        plan = self.schedule
        rate = plan.initial_learning_rate * _ramp(t, plan.lr_rampup_length, plan.lr_rampdown_length)
        optimizer.param_groups[0]["lr"] = rate
        blur = self.deviation * plan.initial_noise_factor * max(0.0, 1 - t / plan.noise_ramp_length) ** 2
        ws = (self.w + torch.randn_like(self.w) * blur).expand(-1, self.G.num_ws, -1)
        images = (self.G.synthesis(ws, noise_mode="const") + 1) * 127.5
        distances = (self.wanted - self.features(_at_most_256(images))).square().sum(dim=1)
        loss = distances.sum() + plan.regularize_noise_weight * sum(_autocorrelation(noise) for noise in self.noises)
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        optimizer.step()
        with torch.no_grad():
            self.w.copy_(self.bounds(self.w))
            for noise in self.noises:
                noise.sub_(noise.mean(dim=[2, 3], keepdim=True))
                noise.mul_(noise.square().mean(dim=[2, 3], keepdim=True).rsqrt())
        return distances.detach()


def _statistics_of_w(G, label, samples, device):
    """Mean [1, w_dim] of w over random z, and the root of its total variance."""
    z = torch.from_numpy(np.random.RandomState(123).randn(samples, G.z_dim)).to(device)
    labels = None if label is None else label.expand(samples, -1)
    w = G.mapping(z, labels)[:, 0].double()
    mean = w.mean(dim=0, keepdim=True)
    return mean.float(), (w - mean).square().sum(dim=1).mean().sqrt().float()


def _ramp(t, up, down):
    """Cosine down to 0 in the last `down` of the run, times a line up from 0 in its first `up`."""
    falling = min(1.0, (1 - t) / down)
    return (0.5 - 0.5 * math.cos(falling * math.pi)) * min(1.0, t / up)


def _at_most_256(images):
    """[N, C, H, W], averaged down to 256 pixels, the size that the features are made for."""
    factor = images.shape[2] // 256
    return torch.nn.functional.avg_pool2d(images, factor) if factor > 1 else images


def _autocorrelation(noise):
    """How much neighbours agree in noise images [T, 1, H, W], summed over resolutions down to 8×8 (equation 5)."""
    total = 0
    while True:
        total += sum((noise * noise.roll(1, dims=dim)).mean(dim=[1, 2, 3]).square().sum() for dim in (2, 3))
        if noise.shape[2] <= 8:
            return total
        noise = torch.nn.functional.avg_pool2d(noise, 2)


def open_target(path: str | os.PathLike, G: torch.nn.Module) -> torch.Tensor:
    """uint8 [C, H, W] of one picture, see `open_targets`."""
    return open_targets([path], G)[0]


def open_targets(paths: Sequence[str | os.PathLike], G: torch.nn.Module) -> torch.Tensor:
    """Pictures as the generator would see them: upright, cut to their central square, resized; uint8 [N, C, H, W].

    What is transparent is laid on white, and this is said once. ValueError for one that cannot be opened.
    """
    size, found, see_through = (G.img_resolution, G.img_resolution), [], []
    for path in paths:
        picture = open_picture(path)
        see_through += [os.path.basename(path)] if picture.mode in ("LA", "RGBA") else []
        picture = without_alpha(picture, "white").convert("L" if G.img_channels == 1 else "RGB")
        side, (width, height) = min(picture.size), picture.size
        left, top = (width - side) // 2, (height - side) // 2
        picture = picture.crop((left, top, left + side, top + side)).resize(size, PIL.Image.Resampling.LANCZOS)
        found.append(torch.from_numpy(np.array(picture, dtype=np.uint8).reshape(*size, -1)).movedim(2, 0))
    if see_through:
        more = f" and {len(see_through) - 1} more" if len(see_through) > 1 else ""
        print(f"{see_through[0]}{more}: what is transparent is laid on white.")
    return torch.stack(found)
