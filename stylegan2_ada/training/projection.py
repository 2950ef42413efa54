"""Finds the w whose image is nearest to a picture (StyleGAN2, appendix D).

Adam on one w for all layers and on the noise images, a learning rate that ramps up and down, noise on w that fades, and
a penalty that keeps the noise images free of the picture.
"""

import copy
import math
from collections.abc import Callable

import numpy as np
import PIL.Image
import torch
import tqdm

from training.files import open_picture, upright


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
    target = target.to(device, torch.float32)
    if list(target.shape) != [G.img_channels, G.img_resolution, G.img_resolution]:
        raise ValueError(f"the target is {list(target.shape)}; {G.img_channels} × {G.img_resolution}² is needed")
    G = copy.deepcopy(G).eval().requires_grad_(False).to(device)  # its noise images will change
    w_avg, w_std = _statistics_of_w(G, label, w_avg_samples, device)
    noises = [buffer for name, buffer in G.synthesis.named_buffers() if name.endswith("noise_const")]
    target_features = features(_at_most_256(target[None]))

    w = w_avg.clone().requires_grad_(True)  # [1, w_dim]
    for noise in noises:
        noise.normal_().requires_grad_(True)
    optimizer = torch.optim.Adam([w, *noises], betas=(0.9, 0.999), lr=initial_learning_rate)
    path = torch.empty([num_steps, 1, G.w_dim])
    steps = tqdm.tqdm(range(num_steps), desc="Projecting", disable=None if verbose else True)
    for step in steps:
        t = step / num_steps
        optimizer.param_groups[0]["lr"] = initial_learning_rate * _ramp(t, lr_rampup_length, lr_rampdown_length)
        noise_scale = w_std * initial_noise_factor * max(0.0, 1 - t / noise_ramp_length) ** 2
        ws = (w + torch.randn_like(w) * noise_scale)[:, None].expand(-1, G.num_ws, -1)
        image = (G.synthesis(ws, noise_mode="const") + 1) * 127.5
        distance = (target_features - features(_at_most_256(image))).square().sum()
        loss = distance + regularize_noise_weight * sum(_autocorrelation(noise) for noise in noises)
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        optimizer.step()
        path[step] = w.detach().cpu()
        with torch.no_grad():
            for noise in noises:
                noise.sub_(noise.mean()).mul_(noise.square().mean().rsqrt())
        steps.set_postfix(distance=f"{distance.item():.4g}", refresh=False)
        if on_step is not None and on_step(step, num_steps) is False:
            path = path[: step + 1]
            break
    return path.expand(-1, G.num_ws, -1).clone()


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
    """How much neighbours agree in a noise image [H, W], summed over resolutions down to 8×8 (equation 5)."""
    noise, total = noise[None, None], 0
    while True:
        total = total + sum((noise * noise.roll(1, dims=dim)).mean().square() for dim in (2, 3))
        if noise.shape[2] <= 8:
            return total
        noise = torch.nn.functional.avg_pool2d(noise, 2)


def open_target(path: str, G: torch.nn.Module) -> torch.Tensor:
    """The picture as the generator would see it: upright, cut to its central square, resized; uint8 [C, H, W].

    ValueError if it cannot be opened.
    """
    picture = open_picture(path)
    try:
        picture = upright(picture)
    except ValueError as error:
        raise ValueError(f"{path} cannot be turned upright ({error})") from error
    picture = picture.convert("L" if G.img_channels == 1 else "RGB")
    side, (width, height) = min(picture.size), picture.size
    left, top = (width - side) // 2, (height - side) // 2
    picture = picture.crop((left, top, left + side, top + side))
    picture = picture.resize((G.img_resolution, G.img_resolution), PIL.Image.Resampling.LANCZOS)
    pixels = np.array(picture, dtype=np.uint8)
    return torch.from_numpy(pixels.reshape(G.img_resolution, G.img_resolution, -1)).movedim(2, 0)
